"""FactFormer: agreement with its formula, the symmetries of its kernels, the implicit form and its errors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.models.factformer import FactFormer, FactorisedAttention

SMALL = {"width": 6, "n_layers": 2, "n_heads": 2, "head_width": 3, "kernel_width": 4, "projection_width": 5}


def varied(model: nn.Module) -> Any:
    model.double().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def factformer(grid: Grid, **options: Any) -> FactFormer:
    torch.manual_seed(0)
    return varied(FactFormer(in_channels=2, out_channels=1, grid=grid, **{**SMALL, **options}))


def attention_by_hand(layer: FactorisedAttention, u: Tensor, angles: list[Tensor], parallel: bool) -> Tensor:
    """One sample, one head, one pair of points at a time. u: [n, m, width]."""
    u = layer.norm(u)
    n_heads = layer._n_heads
    values = layer.value(u).unflatten(-1, (n_heads, -1))
    kernels = []
    for axis, (to_axis, query_key) in enumerate(zip(layer.to_axis, layer.query_key, strict=True)):
        mean = to_axis.first(layer.inner(u)).mean(1 - axis)
        gate, hidden = to_axis.hidden(to_axis.norm(mean)).chunk(2, dim=-1)
        query, key = query_key(to_axis.last(gelu(gate) * hidden)).chunk(2, dim=-1)
        n, half = angles[axis].shape
        kernel = u.new_zeros(n_heads, n, n)
        for head in range(n_heads):
            q, k = (part.unflatten(-1, (n_heads, -1))[:, head] for part in (query, key))
            # A pair of features is a complex number; positions turn it.
            q, k = (torch.complex(part[:, :half], part[:, half:]) for part in (q, k))
            for i in range(n):
                for j in range(n):
                    turn = torch.polar(torch.ones(half, dtype=u.dtype), angles[axis][i] - angles[axis][j])
                    kernel[head, i, j] = (q[i] * turn * k[j].conj()).real.sum() / n
        kernels.append(kernel)
    if parallel:
        both = [torch.einsum("hij,jlhc->ilhc", kernels[0], values), torch.einsum("hlm,imhc->ilhc", kernels[1], values)]
        z = torch.cat(both, dim=-1).flatten(2)
    else:
        z = torch.einsum("hij,hlm,jmhc->ilhc", *kernels, values).flatten(2)
    z = (z - z.mean((0, 1))) / (z.var((0, 1), correction=0) + 1e-6).sqrt()
    first, second = layer.out
    return second.channels_last(gelu(first.channels_last(z[None])))[0]


@pytest.mark.parametrize("axes", ["chained", "parallel"])
def test_attention_equals_its_formula(axes: str) -> None:
    torch.manual_seed(0)
    layer = varied(FactorisedAttention(6, n_dims=2, n_heads=2, head_width=3, kernel_width=4, axes=axes))
    u = torch.randn(2, 5, 4, 6, dtype=torch.float64)
    angles = [torch.randn(n, 2, dtype=torch.float64) for n in (5, 4)]
    expected = torch.stack([attention_by_hand(layer, sample, angles, axes == "parallel") for sample in u])
    torch.testing.assert_close(layer(u, angles), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("axes", ["chained", "parallel"])
@pytest.mark.parametrize("shape", [(12,), (9, 8), (4, 5, 6)])
def test_commutes_with_shifts_on_periodic_axes_without_position_features(shape: tuple[int, ...], axes: str) -> None:
    n_dims = len(shape)
    model = factformer(Grid(shape, (1.0,) * n_dims, ("periodic",) * n_dims, ("periodic",) * n_dims), axes=axes)
    x = torch.randn(2, 2, *shape, dtype=torch.float64)
    shifts, dims = (1, 3, 2)[:n_dims], tuple(range(2, 2 + n_dims))
    assert (model(x.roll(shifts, dims)) - model(x).roll(shifts, dims)).abs().max() > 1e-6
    for linear in model.positions:
        linear.weight.zero_()
    torch.testing.assert_close(model(x.roll(shifts, dims)), model(x).roll(shifts, dims), rtol=1e-9, atol=1e-10)


def test_chained_kernels_have_no_order() -> None:
    torch.manual_seed(0)
    options = {"n_dims": 2, "n_heads": 2, "head_width": 3, "kernel_width": 4, "axes": "chained"}
    layer = varied(FactorisedAttention(6, **options))
    u, angles = torch.randn(2, 5, 4, 6, dtype=torch.float64), [torch.randn(n, 2).double() for n in (5, 4)]
    expected = layer(u, angles)
    layer.to_axis, layer.query_key = layer.to_axis[::-1], layer.query_key[::-1]
    torch.testing.assert_close(layer(u.transpose(1, 2), angles[::-1]).transpose(1, 2), expected)


def test_the_implicit_form_takes_steps_with_the_weights_of_one_layer() -> None:
    model = factformer(Grid.periodic(8), shared=True, n_layers=4, axes="parallel")
    other = factformer(Grid.periodic(8), shared=True, n_layers=1, axes="parallel")
    assert len(model.layers) == 1
    other.load_state_dict(model.state_dict())
    x = torch.randn(1, 2, 8, 8, dtype=torch.float64)
    seen: list[Tensor] = []
    model.layers[0].register_forward_hook(lambda _module, given, out: seen.extend([given[0], out]))
    model(x)
    assert len(seen) == 8
    for u, out, after in zip(seen[::2], seen[1::2], seen[2::2], strict=False):
        torch.testing.assert_close(after, u + out / 4)
    assert (model(x) - other(x)).abs().max() > 1e-6


@pytest.mark.parametrize("axes", ["chained", "parallel"])
def test_parameter_count_follows_the_closed_form(axes: str) -> None:
    model = FactFormer(in_channels=3, out_channels=2, grid=Grid.periodic(8, 3), axes=axes, **SMALL)
    w, n_values, n_kernel = 6, 2 * 3, 2 * 4
    to_axis = w * w + 2 * w + (w + 1) * 2 * w + (w + 1) * w
    joined = n_values * (3 if axes == "parallel" else 1)
    layer = 2 * w + w * n_values + w * w + 3 * (to_axis + 2 * w * n_kernel) + (joined + 1) * w + (w + 1) * w
    ends = (3 + 1) * w + (w + 1) * 5 + (5 + 1) * 2
    assert sum(p.numel() for p in model.parameters()) == ends + 2 * (layer + (w + 1) * w)


def test_frequencies_are_whole_on_periodic_axes_only() -> None:
    grid = Grid((8, 9), (1.0, 1.0), ("periodic", "dirichlet"), ("periodic", "closed"))
    model = FactFormer(in_channels=2, out_channels=1, grid=grid)
    assert torch.equal(model.wave_vectors[:, 0], model.wave_vectors[:, 0].round())
    assert not torch.equal(model.wave_vectors[:, 1], model.wave_vectors[:, 1].round())
    one = torch.ones(1, dtype=torch.float64)
    turns = model._angles(one, "periodic") / (2 * math.pi)
    torch.testing.assert_close(turns, turns.round())
    assert float(model._angles(one, "closed").max()) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_layers": 0}, "needs model.n_layers to be at least 1, got 0"),
        ({"n_heads": 0}, "needs model.n_heads to be at least 1, got 0"),
        ({"head_width": 0}, "needs model.head_width to be at least 1, got 0"),
        ({"width": 0}, "needs model.width to be at least 2, got 0"),
        ({"width": 7}, "model.width must be even, got 7"),
        ({"kernel_width": 5}, "model.kernel_width must be even, got 5"),
        ({"projection_width": 0}, "needs model.projection_width to be at least 1"),
        ({"axes": "both"}, "model.axes to be one of chained, parallel, got 'both'"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FactFormer(in_channels=1, out_channels=1, grid=Grid.periodic(8), **options)
