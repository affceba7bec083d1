"""Galerkin transformer: published parameter counts, formulas, grids, the Dirichlet ring and errors."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from data_gen.grids import Grid
from neuralop_bench.batch import Batch
from neuralop_bench.layers.attention import HeadNorm
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.resample import resample
from neuralop_bench.models.galerkin import Downscaling, EncoderLayer, GalerkinTransformer, Upscaling, coarse_shape
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate

KINDS = ("galerkin", "fourier")
SMALL = {"width": 12, "n_heads": 2, "n_layers": 2, "ffn_width": 7, "n_modes": 3, "decoder_width": 5}
BURGERS = {
    "width": 96,
    "ffn_width": 192,
    "n_modes": 16,
    "decoder_width": 48,
    "projection_width": 48,
    "coordinates": "none",
}
DARCY = {"width": 128, "n_heads": 4, "n_layers": 6, "ffn_width": 256, "decoder_width": 32, "projection_width": 128}


def closed(*shape: int) -> Grid:
    n_dims = len(shape)
    return Grid(shape, (1.0,) * n_dims, ("dirichlet",) * n_dims, ("closed",) * n_dims)


def mixed(n_x: int, n_y: int) -> Grid:
    return Grid((n_x, n_y), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))


def build(grid: Grid, *, in_channels: int = 2, out_channels: int = 3, **options: Any) -> GalerkinTransformer:
    """A small model in double precision, every parameter away from its initial value."""
    torch.manual_seed(0)
    arguments = {**SMALL, **options}
    model = GalerkinTransformer(in_channels=in_channels, out_channels=out_channels, grid=grid, **arguments).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def fields(grid: Grid, n_channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, n_channels, *grid.shape, generator=generator, dtype=torch.float64)


def smooth(grid: Grid) -> Tensor:
    """The same two functions on any grid of a domain."""
    axes = [torch.from_numpy(x / length) for x, length in zip(grid.coordinates(), grid.lengths, strict=True)]
    phase = sum((2 * math.pi * k * x for k, x in zip((1, 2), torch.meshgrid(*axes, indexing="ij"), strict=False)))
    assert isinstance(phase, Tensor)
    return torch.stack([torch.cos(phase), torch.sin(phase + 1)])[None]


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def published(grid: Grid, in_channels: int, **options: Any) -> GalerkinTransformer:
    with torch.device("meta"):
        return GalerkinTransformer(in_channels=in_channels, out_channels=1, grid=grid, **options)


def parts(model: GalerkinTransformer) -> dict[str, int]:
    """Parameters by the parts of which counts are known."""
    decoder = [model.spectral, model.pointwise, model.projection, *([model.lifting] if model.lifting else [])]
    return {
        "features": n_parameters(model.features),
        "encoder": n_parameters(model.encoder),
        "upscaling": n_parameters(model.upscaling) if model.upscaling else 0,
        "decoder": sum(n_parameters(part) for part in decoder),
    }


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("n", [512, 2048])
def test_published_count_for_burgers(n: int, attention: str) -> None:
    model = published(Grid.periodic(n, 1), 1, attention=attention, **BURGERS)
    assert parts(model) == {"features": 192, "encoder": 299_520, "upscaling": 0, "decoder": 230_593}
    assert n_parameters(model) == 530_305


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize(("n", "coarse"), [(141, 43), (211, 61), (421, 85), (85, 0.5)])
def test_published_count_for_darcy_at_every_grid(n: int, coarse: int | float, attention: str) -> None:
    model = published(closed(n, n), 1, coarse=coarse, attention=attention, **DARCY)
    assert parts(model) == {"features": 82_044, "encoder": 801_024, "upscaling": 147_456, "decoder": 1_190_305}
    assert n_parameters(model) == 2_220_829


@pytest.mark.parametrize("block_norm", [True, False])  # two norms in the one head, or two after the sums
def test_published_count_for_navier_stokes(block_norm: bool) -> None:
    model = published(Grid.periodic(64), 10, block_norm=block_norm)
    assert n_parameters(model) == 862_049
    assert parts(model)["features"] == (10 + 2) * 48 + 48


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("block_norm", [False, True])
@pytest.mark.parametrize("grid", [Grid.periodic(9, 1), closed(8, 7), mixed(7, 8)])
def test_equals_its_formula(grid: Grid, block_norm: bool, attention: str) -> None:
    # The docstring's equations with the model's own layers: order, sums, where coordinates enter, activations.
    model, x = build(grid, attention=attention, block_norm=block_norm, dirichlet_ring=False), fields(grid)
    axes = [torch.from_numpy(x) / length for x, length in zip(grid.coordinates(), grid.lengths, strict=True)]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    v = model.features(torch.cat([x, mesh.expand(2, *mesh.shape)], dim=1)).flatten(2).transpose(1, 2)
    for layer in model.encoder:
        assert isinstance(layer, EncoderLayer)
        (w_1, b_1), (w_2, b_2) = ((part.weight, part.bias) for part in layer.ffn if isinstance(part, nn.Linear))
        w = layer.norms[0](v + layer.attention(v, mesh.flatten(1).T))
        v = layer.norms[1](w + (w @ w_1.T + b_1).relu() @ w_2.T + b_2)
        if block_norm:
            weight, bias = layer.norms[1].parameters()
            assert torch.allclose(((v - bias) / weight).var(dim=2, correction=0), torch.ones(()).double(), atol=1e-2)
    s = v.transpose(1, 2).unflatten(2, grid.shape)
    for spectral, pointwise in zip(model.spectral, model.pointwise, strict=True):
        s = spectral(s) + pointwise(s)
        s = s * torch.sigmoid(s)
    s = model.projection[0](s)
    torch.testing.assert_close(model(x), model.projection[1](s * torch.sigmoid(s)))


def test_coordinates_enter_through_attention_alone_if_asked() -> None:
    grid = Grid.periodic(9, 1)
    model, x = build(grid, coordinates="none"), fields(grid)
    assert n_parameters(model.features) == (2 + 1) * 12
    # A constant input isn't constant after attention, nor does the output move along with a shifted input.
    constant = model(torch.ones_like(x))
    assert (constant - constant.mean(dim=2, keepdim=True)).abs().max() > 1e-6
    assert (model(x.roll(1, dims=2)) - model(x).roll(1, dims=2)).abs().max() > 1e-6


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("coarse", [None, 0.5, 6])
@pytest.mark.parametrize(
    "grid",
    [Grid.periodic(12, 1), Grid.periodic(11, 1), closed(9), closed(8, 11), closed(9, 9), mixed(7, 10), mixed(8, 9)],
    ids=str,
)
def test_maps_fields_on_any_grid(grid: Grid, coarse: int | float | None, attention: str) -> None:
    model = build(grid, coarse=coarse, attention=attention)
    output = model(fields(grid))
    assert output.shape == (2, 3, *grid.shape)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("boundary", ["neumann", "open"])
def test_maps_fields_on_cell_centres(boundary: Any) -> None:
    grid = Grid((8, 9), (1.0, 1.0), (boundary, "periodic"), ("centres", "periodic"))
    assert build(grid, coarse=0.5)(fields(grid)).shape == (2, 3, 8, 9)


def test_downscaling_equals_its_formula() -> None:
    grid, coarse = mixed(16, 13), (4, 4)
    torch.manual_seed(0)
    layer = Downscaling(2, 8, grid, coarse, dropout=0.0).double()
    x, middle = fields(grid), (8, 7)  # sqrt(16 * 4), sqrt(13 * 4) = 7.2
    # Circular along x, zeros along y.
    weights = list(layer.parameters())
    assert [w.shape[0] for w in weights] == [8, 2, 2, 4]

    def conv(v: Tensor, weight: Tensor) -> Tensor:
        around = torch.cat([v[:, :, -1:], v, v[:, :, :1]], dim=2)
        return nn.functional.conv2d(around, weight, padding=(0, 1)).clamp(min=0)

    first = conv(resample(conv(x, weights[0]), grid.nodes, middle), weights[1])
    second = conv(first, weights[2])
    joined = torch.cat([first, second, conv(second, weights[3])], dim=1)
    torch.testing.assert_close(layer(x), resample(joined, grid.nodes, coarse))


def test_upscaling_equals_its_formula() -> None:
    grid = closed(16, 9)
    torch.manual_seed(0)
    layer = Upscaling(8, grid, (4, 4)).double()
    v = fields(closed(4, 4), 8)
    between = nn.functional.conv2d(resample(v, grid.nodes, (8, 6)), layer.conv.conv.weight, padding=1)
    expected = resample(between * torch.sigmoid(between), grid.nodes, (16, 9))
    torch.testing.assert_close(layer(v, (16, 9)), expected)


def test_the_decoder_of_a_coarse_model_is_given_the_fine_coordinates() -> None:
    grid = closed(9, 8)
    model, x = build(grid, coarse=4, dirichlet_ring=False), fields(grid)
    v = model.features(x)
    assert v.shape == (2, 12, 4, 4)
    positions = append_coordinates(x[:1, :0, :4, :4], grid.nodes).flatten(2)[0].T
    assert positions.tolist()[1] == pytest.approx([0, 1 / 3])
    tokens = v.flatten(2).transpose(1, 2)
    for layer in model.encoder:
        tokens = layer(tokens, positions)
    assert model.upscaling
    assert model.lifting
    s = model.upscaling(tokens.transpose(1, 2).unflatten(2, (4, 4)), grid.shape)
    s = model.lifting(append_coordinates(s, grid.nodes))
    silu = nn.functional.silu
    for spectral, pointwise in zip(model.spectral, model.pointwise, strict=True):
        s = silu(spectral(s) + pointwise(s))
    torch.testing.assert_close(model(x), model.projection[1](silu(model.projection[0](s))))


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("coarse", [None, 0.5])
@pytest.mark.parametrize("grid", [Grid.periodic(32, 1), Grid.periodic(24), closed(33, 25), mixed(24, 33)], ids=str)
def test_a_coarse_grid_doesnt_bind_the_model_to_a_resolution(grid: Grid, coarse: float | None, attention: str) -> None:
    # On grids that hold the training grid's nodes the convolutions see the same numbers.
    model = build(grid, coarse=coarse, attention=attention, dirichlet_ring=False)
    with torch.no_grad():
        here, fine = model(smooth(grid)), model(smooth(grid.refine(2)))
        longer = replace(grid, shape=tuple(n + 1 for n in grid.shape))
        assert model(smooth(longer)).shape == (1, 3, *longer.shape)
        if coarse:
            torch.testing.assert_close(model.features(smooth(grid)), model.features(smooth(grid.refine(2))))
    shared = fine[(..., *(slice(None, None, 2),) * grid.n_dims)]
    assert (shared - here).square().mean().sqrt() < 0.1 * here.std()


@pytest.mark.parametrize("coarse", [None, 0.5])
@pytest.mark.parametrize("block_norm", [False, True])
def test_dropout_is_active_in_training_alone(block_norm: bool, coarse: float | None) -> None:
    grid = closed(9, 9)
    x = fields(grid)
    model, plain = (build(grid, dropout=p, block_norm=block_norm, coarse=coarse) for p in (0.3, 0.0))
    assert torch.equal(model.eval()(x), model(x))
    assert torch.equal(model(x), plain(x))
    model.train()
    assert not torch.equal(model(x), model(x))
    assert torch.equal(plain.train()(x), plain(x))


def test_dropout_acts_on_these_layers() -> None:
    # As published for Darcy: after attention, in and after the pointwise networks, after all convolutions on the way
    # down, and nowhere on the way up.
    model = build(closed(9, 9), coarse=0.5, n_layers=1, dropout=0.3, ffn_dropout=0.6).train()
    calls: list[tuple[str, float]] = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(lambda *_, call=(name, layer.p): calls.append(call))
    model(fields(closed(9, 9)))
    encoder = [("encoder.0.dropout", 0.3), ("encoder.0.ffn.2", 0.6), ("encoder.0.dropout", 0.3)]
    assert calls == [("features.dropout", 0.3)] * 4 + encoder


@pytest.mark.parametrize("block_norm", [False, True])
def test_norm_eps_reaches_all_layer_normalisations(block_norm: bool) -> None:
    model, other = (build(closed(9, 9), block_norm=block_norm, norm_eps=eps) for eps in (1e-5, 0.5))
    norms = [m for m in other.modules() if isinstance(m, (nn.LayerNorm, HeadNorm))]
    assert [norm.eps for norm in norms] == [0.5] * 4
    assert not torch.allclose(model(fields(closed(9, 9))), other(fields(closed(9, 9))), rtol=1e-2)


@pytest.mark.parametrize("attention", KINDS)
def test_the_cost_is_linear_in_the_points(attention: str) -> None:
    grid = Grid.periodic(64, 1)
    model = build(grid, attention=attention)

    def flops(n: int) -> int:
        x = fields(Grid.periodic(n, 1))
        with FlopCounterMode(display=False) as counter:
            model(x)
        return counter.get_total_flops()

    # Equal differences: what doesn't grow with n is the product over the kept modes.
    assert flops(192) - flops(128) == flops(128) - flops(64) > 0


def with_boundary(grid: Grid, values: list[float], axes: tuple[int, ...]) -> Tensor:
    """Random fields [4, channel, *space] that take one value per channel at the ends of the given axes."""
    generator = torch.Generator().manual_seed(3)
    target = torch.rand(4, len(values), *grid.shape, generator=generator, dtype=torch.float64) + 1
    for axis in axes:
        for end in (0, -1):
            target.select(axis + 2, end).copy_(torch.tensor(values).view(1, -1, *(1,) * (grid.n_dims - 1)))
    return target


def surrogate_of(model: GalerkinTransformer, target: Tensor, *, residual: bool = False) -> Surrogate:
    frames = target[:, None] if not residual else torch.stack([target, target.flip(0)], dim=1)
    static = torch.rand(len(target), 2, *target.shape[2:])
    batch = Batch(history=frames[:, :-1], static=static, target=frames[:, -1:])
    return Surrogate(model, Normalizer.fit([batch], bundle=1), residual=residual)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("coarse", [None, 0.5])
def test_the_ring_is_zero_in_physical_units(coarse: float | None, dtype: torch.dtype) -> None:
    grid = closed(9, 8)
    model = build(grid, out_channels=1, coarse=coarse).to(dtype)
    target = with_boundary(grid, [0.0], (0, 1)).to(dtype)
    surrogate = surrogate_of(model, target)
    assert surrogate.normalizer.state_mean.item() > 0.5
    encoded = surrogate.normalizer.encode_state(target[:, None])[:, 0]
    static = fields(grid).to(dtype)
    inside = model(static)[:, :, 1:-1, 1:-1]
    model.prepare(static, encoded)
    history = target.new_empty(2, 0, 1, *grid.shape)
    prediction = surrogate(history, static)[:, 0]
    ring = torch.ones(grid.shape, dtype=torch.bool)
    ring[1:-1, 1:-1] = False
    # The boundary as it comes back from normalisation: 0 up to the rounding of -mean / std * std + mean.
    assert prediction[..., ring].abs().max() <= 2 * torch.finfo(dtype).eps * surrogate.normalizer.state_mean.item()
    there_and_back = surrogate.normalizer.decode_state(encoded[:2, None])[:, 0]
    assert torch.equal(prediction[..., ring], there_and_back[..., ring])
    assert torch.equal(model(surrogate.encode(history, static))[0, 0, 0], encoded[0, 0, 0])
    # Nothing but the ring has changed.
    assert torch.equal(model(static)[:, :, 1:-1, 1:-1], inside)
    assert (prediction[..., ~ring].abs() > 1e-4).any()


def test_the_ring_of_a_residual_surrogate_is_that_of_the_last_frame() -> None:
    grid = closed(9)
    model = build(grid, in_channels=3 + 2)
    target = with_boundary(grid, [0.0, 2.0, -1.0], (0,))
    surrogate = surrogate_of(model, target, residual=True)
    increments = (target.flip(0) - target) / surrogate.normalizer.increment_std[0][:, None]
    model.prepare(target, increments)
    prediction = surrogate(target[:, None], torch.rand(4, 2, 9).double())[:, 0]
    for end in (0, -1):
        assert torch.equal(prediction[..., end], target[..., end])
    assert not torch.allclose(prediction, target)


def test_the_ring_has_a_value_per_channel_at_every_resolution_and_is_saved() -> None:
    grid = closed(9, 8)
    model, values = build(grid), [0.0, 2.0, -1.0]
    before = model(fields(grid))
    model.prepare(fields(grid), with_boundary(grid, values, (0, 1)))
    other = build(grid)
    other.load_state_dict(model.state_dict())
    for n in (9, 12):
        output = other(fields(closed(n, 7)))
        for channel, value in enumerate(values):
            edges = [output[:, channel, 0], output[:, channel, -1], output[:, channel, :, 0], output[:, channel, :, -1]]
            assert all((edge == value).all() for edge in edges)
    # Until it is known, the network's own values stand.
    assert (before[:, :, 0] - before[:, :, 0].mean()).abs().max() > 1e-6


@pytest.mark.parametrize("boundary", ["neumann", "open"])
def test_the_ring_lies_on_closed_dirichlet_axes_alone(boundary: Any) -> None:
    for first in ("periodic", "closed"):
        kind = "periodic" if first == "periodic" else boundary
        grid = Grid((8, 9), (1.0, 1.0), (kind, "dirichlet"), (first, "closed"))
        model = build(grid, out_channels=1)
        before = model(fields(grid))
        model.prepare(fields(grid), with_boundary(grid, [3.0], (1,)))
        after = model(fields(grid))
        assert (after[..., 0] == 3).all()
        assert (after[..., -1] == 3).all()
        assert torch.equal(after[..., 1:-1], before[..., 1:-1])
    centres = Grid((8, 9), (1.0, 1.0), ("dirichlet", "periodic"), ("centres", "periodic"))
    for grid in (Grid.periodic(8), centres):
        model = build(grid, out_channels=1)
        before = model(fields(grid))
        model.prepare(fields(grid), fields(grid, 1))
        assert torch.equal(model(fields(grid)), before)


def test_without_the_option_the_boundary_is_free() -> None:
    grid = closed(8, 9)
    model = build(grid, out_channels=1, dirichlet_ring=False)
    before = model(fields(grid))
    model.prepare(fields(grid), with_boundary(grid, [0.0], (0, 1)))
    model.prepare(fields(grid), fields(grid, 1))
    assert torch.equal(model(fields(grid)), before)


@pytest.mark.parametrize("place", [(0, 0, 3, 0), (3, 1, -1, 4), (2, 1, 0, 0)])
def test_targets_whose_boundary_varies_are_refused(place: tuple[int, ...]) -> None:
    grid = closed(8, 9)
    model = build(grid, out_channels=2)
    target = with_boundary(grid, [1.0, 1.0], (0, 1))
    for wrong in (1.1, math.nan):
        varying = target.clone()
        varying[place] = wrong
        with pytest.raises(ValueError, match=rf"channel {place[1]}.*model\.dirichlet_ring=false"):
            model.prepare(fields(grid), varying)
    assert not model.ring_is_known
    model.prepare(fields(grid), target + 1e-7 * torch.rand_like(target))  # what rounding leaves


def test_coarse_shapes() -> None:
    assert coarse_shape(closed(85, 61), 0.5) == (43, 31)
    assert coarse_shape(closed(141, 141), 0.3) == (43, 43)
    assert coarse_shape(Grid.periodic(64), 0.5) == (32, 32)
    assert coarse_shape(mixed(64, 65), 0.25) == (16, 17)
    assert coarse_shape(closed(85, 61), [43, 61]) == (43, 61)
    assert coarse_shape(closed(85, 61), 1.0) == (85, 61)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 10, "n_heads": 3}, "width=10 into n_heads=3"),
        ({"width": 2, "n_heads": 1, "coarse": 4}, r"model\.width"),
        ({"n_modes": 5}, r"n_modes=5 .* 8 points.*Lower model\.n_modes"),
        ({"n_modes": (4, 5)}, r"n_modes=5"),
        ({"n_modes": (3, 3, 3)}, "3 axes"),
        ({"n_modes": 0}, r"needs model\.n_modes to be at least 1, got 0"),
        ({"coarse": 10}, r"shape \(10, 10\), but .* the training grid, \(8, 9\)\. Change model\.coarse"),
        ({"coarse": (8, 10)}, r"model\.coarse"),
        ({"coarse": (4, 4, 4)}, r"model\.coarse"),
        ({"coarse": 1.5}, r"model\.coarse"),
        ({"coarse": 1}, r"at least 2"),
        ({"coarse": 0.0}, r"at least 2"),
        ({"attention": "softmax"}, r"model\.attention"),
        ({"coordinates": "polar"}, r"model\.coordinates"),
        ({"dropout": 1.0}, r"model\.dropout"),
        ({"ffn_dropout": -0.1}, r"model\.ffn_dropout"),
        ({"n_layers": 0}, r"model\.n_layers"),
        ({"n_decoder_layers": 0}, r"model\.n_decoder_layers"),
        ({"ffn_width": 0}, r"model\.ffn_width"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"in_channels": 1, "out_channels": 1, "grid": closed(8, 9), **SMALL, **options}
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        GalerkinTransformer(**arguments)
