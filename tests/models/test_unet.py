"""U-Net: its backbone's formula, count of parameters, padding, normalisation and errors."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.unet import DoubleConv, UNetBackbone
from neuralop_bench.models.unet import UNet

MIXED = Grid((24, 33), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))
CENTRES = Grid((10,), (1.0,), ("neumann",), ("centres",))


def closed(*shape: int) -> Grid:
    n = len(shape)
    return Grid(shape, (1.0,) * n, ("dirichlet",) * n, ("closed",) * n)


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def backbone_count(
    width: int, n_scales: int, n_dims: int, *, normalization: str = "layer", max_width: int = 1000
) -> int:
    """Written out scale by scale: convolutions of 3^d points; a scale and a shift, or a bias, per channel."""
    per_channel = 1 if normalization == "none" else 2

    def pair(first: int, second: int, third: int) -> int:
        return 3**n_dims * (first * second + second * third) + per_channel * (second + third)

    channels = [min(width * 2**scale, max_width) for scale in range(n_scales - 1)]
    channels.append(channels[-1])
    total = pair(width, width, width)
    for above, here in pairwise(channels):
        total += pair(above, here, here)
    for scale in range(n_scales - 1):
        n = channels[scale]
        total += pair(2 * n, n, channels[scale - 1] if scale else n)
    return total + width * width + width


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["layer", "instance", "batch", "none"])
@pytest.mark.parametrize(
    ("width", "n_scales", "shape"), [(6, 2, (40,)), (4, 5, (40,)), (4, 3, (8, 9)), (2, 3, (8,) * 3)]
)
def test_parameter_count_follows_the_closed_form(
    width: int, n_scales: int, shape: tuple[int, ...], normalization: str
) -> None:
    n_dims = len(shape)
    model = UNet(
        in_channels=3,
        out_channels=2,
        grid=closed(*shape),
        width=width,
        n_scales=n_scales,
        normalization=normalization,
        projection_width=7,
    )
    ends = (3 + n_dims + 1) * width + (width + 1) * 7 + (7 + 1) * 2
    assert n_parameters(model) == ends + backbone_count(width, n_scales, n_dims, normalization=normalization)


@pytest.mark.parametrize("max_width", [4, 6, 16, 64])
def test_channels_double_up_to_max_width(max_width: int) -> None:
    grid = Grid.periodic(64, n_dims=1)
    model = UNet(in_channels=1, out_channels=1, grid=grid, width=4, n_scales=6, max_width=max_width, projection_width=7)
    ends = (1 + 1 + 1) * 4 + (4 + 1) * 7 + (7 + 1)
    assert n_parameters(model) == ends + backbone_count(4, 6, 1, max_width=max_width)
    assert model(torch.randn(2, 1, 64)).shape == (2, 1, 64)


def test_parameter_count_of_the_published_sizes() -> None:
    # LSM has 19,187,457 on Darcy, of which 1,876,544 in its five blocks (test_lsm.py).
    with torch.device("meta"):
        model = UNet(in_channels=1, out_channels=1, grid=closed(85, 85), width=64, normalization="batch")
    assert n_parameters(model) == 19_187_457 - 1_876_544


@pytest.mark.parametrize(
    ("grid", "n_scales"),
    [
        (closed(85, 85), 5),
        (closed(33, 33), 5),
        (Grid.periodic(64), 5),
        (Grid.periodic(33), 3),
        (closed(33), 4),
        (closed(7), 2),
        (Grid.periodic(21, n_dims=1), 3),
        (MIXED, 4),
        (CENTRES, 3),
        (Grid.periodic(5, n_dims=3), 2),
    ],
)
def test_the_output_lies_on_the_grid_of_the_input(grid: Grid, n_scales: int) -> None:
    model = UNet(in_channels=2, out_channels=3, grid=grid, width=4, n_scales=n_scales)
    output = model(torch.randn(2, 2, *grid.shape))
    assert output.shape == (2, 3, *grid.shape)
    assert torch.isfinite(output).all()
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


# Formula -------------------------------------------------------------------------------------------------------------


def test_three_scales_equal_the_formula_on_a_closed_line() -> None:
    # 11 points are padded to 12 with zeros; 12 -> 6 -> 3 and back, ends of an axis on ends (align_corners).
    torch.manual_seed(0)
    backbone = UNetBackbone(2, grid=closed(11), n_scales=3, normalization="instance").double()
    v = torch.randn(2, 2, 11, dtype=torch.float64)

    def pair(module: nn.Module, x: Tensor) -> Tensor:
        convolutions = [m for m in module.modules() if isinstance(m, nn.Conv1d)]
        norms = [m for m in module.modules() if isinstance(m, nn.InstanceNorm1d)]
        for convolution, norm in zip(convolutions, norms, strict=True):
            y = nn.functional.conv1d(x, convolution.weight, padding=1)
            y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
            x = (norm.weight[:, None] * y + norm.bias[:, None]).clamp(min=0)
        return x

    def finer(x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=2, mode="linear", align_corners=True)

    def pooled(x: Tensor) -> Tensor:
        return torch.maximum(x[..., 0::2], x[..., 1::2])

    x0 = pair(backbone.down[0], torch.cat([v, v.new_zeros(2, 2, 1)], dim=-1))
    x1 = pair(backbone.down[1], pooled(x0))
    x2 = pair(backbone.down[2], pooled(x1))
    assert (x0.shape[1], x1.shape[1], x2.shape[1]) == (2, 4, 4)
    y1 = pair(backbone.up[1], torch.cat([x1, finer(x2)], dim=1))
    y0 = pair(backbone.up[0], torch.cat([x0, finer(y1)], dim=1))[..., :11]
    expected = torch.einsum("oi,bin->bon", backbone.out.weight, y0) + backbone.out.bias[:, None]
    torch.testing.assert_close(backbone(v), expected)


def test_every_scale_passes_its_block_before_it_goes_up_and_not_on_the_way_down() -> None:
    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.channels = channels

        def forward(self, x: Tensor) -> Tensor:
            self.seen = x
            return 0 * x

    torch.manual_seed(0)
    plain = UNetBackbone(4, grid=Grid.periodic(16), n_scales=4)
    with_blocks = UNetBackbone(4, grid=Grid.periodic(16), n_scales=4, block=Block)
    with_blocks.load_state_dict(plain.state_dict())
    v = torch.randn(1, 4, 16, 16)
    x = v
    outputs = []
    for down, block in zip(plain.down, with_blocks.blocks, strict=True):
        x = down(x)
        outputs.append((x, block))
        x = nn.functional.max_pool2d(x, 2)
    with_blocks(v)
    assert [block.channels for _, block in outputs] == [4, 8, 16, 16]
    for expected, block in outputs:
        torch.testing.assert_close(block.seen, expected)
    # Only what the blocks return reaches the output.
    torch.testing.assert_close(with_blocks(v), with_blocks(torch.randn(1, 4, 16, 16)))


def test_commutes_with_shifts_by_cells_of_the_coarsest_grid_without_coordinates() -> None:
    torch.manual_seed(0)
    model = UNet(in_channels=2, out_channels=1, grid=Grid.periodic(16), width=4, n_scales=3).double()
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)

    def defect(shift: tuple[int, int]) -> float:
        return float((model(x.roll(shift, (-2, -1))) - model(x).roll(shift, (-2, -1))).abs().max().detach())

    assert defect((4, -8)) > 1e-4
    with torch.no_grad():
        model.lifting.weight[:, 2:] = 0
    assert defect((4, -8)) < 1e-12
    assert defect((1, 0)) > 1e-4  # pooling sees where the pairs begin


@pytest.mark.parametrize("grid", [closed(13, 10), MIXED])
def test_points_beyond_a_closed_axis_are_zero_and_beyond_a_periodic_one_its_beginning(grid: Grid) -> None:
    torch.manual_seed(0)
    small = UNetBackbone(2, grid=grid, n_scales=3, patch=2)
    v = torch.randn(1, 2, *grid.shape)
    padded = v
    for axis, nodes in enumerate(grid.nodes, start=2):
        missing = -grid.shape[axis - 2] % 8
        beyond = padded.narrow(axis, 0, missing)
        padded = torch.cat([padded, beyond if nodes == "periodic" else 0 * beyond], dim=axis)
    torch.testing.assert_close(small(v), small(padded)[:, :, : grid.shape[0], : grid.shape[1]])


# Normalisation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["layer", "instance", "none"])
@pytest.mark.parametrize("grid", [Grid.periodic(16, n_dims=1), closed(13, 9)])
def test_training_and_evaluation_compute_the_same(grid: Grid, normalization: str) -> None:
    torch.manual_seed(0)
    model = UNet(
        in_channels=2, out_channels=1, grid=grid, width=4, n_scales=3, normalization=normalization, projection_width=8
    )
    x = 5 * torch.randn(3, 2, *grid.shape) + 1
    in_training = [model.train()(x) for _ in range(2)][1]
    assert torch.equal(model.eval()(x), in_training)
    assert not [name for name, _ in model.named_buffers()]


def test_batch_normalization_differs_between_training_and_evaluation() -> None:
    torch.manual_seed(0)
    model = UNet(in_channels=2, out_channels=1, grid=Grid.periodic(16), width=4, n_scales=3, normalization="batch")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 2 * (3 + 2)
    x = 5 * torch.randn(3, 2, 16, 16) + 1
    assert not torch.allclose(model.train()(x), model.eval()(x), rtol=0.1)
    # In evaluation a prediction doesn't depend on the other samples of the batch.
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


@pytest.mark.parametrize(("normalization", "lost"), [("instance", True), ("layer", False), ("none", False)])
def test_only_instance_normalization_loses_a_constant_added_to_a_periodic_field(normalization: str, lost: bool) -> None:
    torch.manual_seed(0)
    grid = Grid.periodic(16, n_dims=1)
    model = UNet(in_channels=1, out_channels=1, grid=grid, width=4, n_scales=3, normalization=normalization).double()
    x = torch.randn(2, 1, 16, dtype=torch.float64)
    change = (model(x + 3) - model(x)).abs().max()
    assert (change < 1e-12) == lost


def test_convolutions_have_a_bias_only_where_nothing_else_shifts() -> None:
    for normalization, expected in (("layer", False), ("instance", False), ("batch", False), ("none", True)):
        pair = DoubleConv(2, 3, 4, edges=("zeros",), normalization=normalization)
        assert {m.bias is not None for m in pair.modules() if isinstance(m, nn.Conv1d)} == {expected}


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 0, "needs model.width to be at least 1, got 0"),
        (
            "max_width",
            8,
            "width=16 channels, which is more than max_width=8. Lower model.width or raise model.max_width",
        ),
        ("n_scales", 1, "needs model.n_scales to be at least 2, got 1"),
        ("projection_width", 0, "needs model.projection_width to be at least 1, got 0"),
        ("normalization", "group", "model.normalization to be one of layer, instance, batch, none, got 'group'"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(in_channels=1, out_channels=1, grid=Grid.periodic(32), **{name: value})


@pytest.mark.parametrize("normalization", ["batch", "instance"])
@pytest.mark.parametrize("grid", [Grid.periodic(16), closed(5, 16), closed(16)])
def test_a_coarsest_grid_of_one_point_has_nothing_to_average_over(grid: Grid, normalization: str) -> None:
    # torch would stop in the forward pass: for one sample (batch) or for any number of them (instance).
    with pytest.raises(ValueError, match=r"n_scales=5 halves a grid of shape .* to one point.*Lower model\.n_scales"):
        UNet(in_channels=1, out_channels=1, grid=grid, width=2, normalization=normalization)
    for accepted in ({"n_scales": 4}, {"normalization": "layer"}, {"normalization": "none"}):
        options = {"normalization": normalization, **accepted}
        UNet(in_channels=1, out_channels=1, grid=grid, width=2, **options)(torch.randn(1, 1, *grid.shape))
    with pytest.raises(ValueError, match=r"layer normalisation has nothing to average over"):
        UNet(in_channels=1, out_channels=1, grid=Grid.periodic(2, n_dims=1), width=1, n_scales=2)
