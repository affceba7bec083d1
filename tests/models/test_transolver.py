"""Transolver: published parameter counts, slices, exact limits, symmetries and errors."""

from typing import Any

import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.models.transolver import SliceAttention, Transolver

CLOSED = Grid((85, 85), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


def attention(n_slices: int, kernel: int = 3) -> SliceAttention:
    """In double precision, with large weights, so that no two slices are alike."""
    torch.manual_seed(0)
    layer = SliceAttention(8, n_heads=2, n_slices=n_slices, edges=("circular", "zeros"), kernel=kernel).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn_like(parameter))
    return layer


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize(
    ("width", "n_slices", "in_channels", "grid", "n_parameters"),
    [(128, 64, 1, CLOSED, 3_090_113), (256, 32, 10, Grid.periodic(64), 12_282_945)],  # Darcy and Navier-Stokes
)
def test_the_published_networks_have_the_published_sizes(
    width: int, n_slices: int, in_channels: int, grid: Grid, n_parameters: int
) -> None:
    sizes = {"width": width, "n_slices": n_slices, "n_layers": 8, "n_heads": 8, "ffn_width": 2 * width}
    with torch.device("meta"):
        network = Transolver(in_channels=in_channels, out_channels=1, grid=grid, **sizes)
    assert count_parameters(network) == n_parameters


@pytest.mark.parametrize("temperature", [1e-3, 0.1, 0.7, 5.0, 100.0])
def test_slice_weights_sum_to_one_at_a_temperature_within_bounds(temperature: float) -> None:
    layer, a = attention(5), fields(3, 2, 4, 30)
    with torch.no_grad():
        layer.temperature.fill_(temperature)
    weights = layer.weights(a)
    assert weights.shape == (3, 2, 5, 30)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 2, 30).double(), rtol=0, atol=1e-14)
    logits = torch.einsum("gc,bhcx->bhgx", layer.slices.weight, a) + layer.slices.bias[:, None]
    torch.testing.assert_close(weights, (logits / min(max(temperature, 0.1), 5.0)).softmax(dim=2))


@pytest.mark.parametrize("n_slices", [1, 5])
def test_slices_that_are_alike_give_the_mean_of_the_values_at_every_point(n_slices: int) -> None:
    layer, x = attention(n_slices), fields(2, 8, 6, 7)
    with torch.no_grad():
        if n_slices > 1:
            layer.slices.weight.copy_(layer.slices.weight[:1].expand_as(layer.slices.weight))
            layer.slices.bias.fill_(0.3)
    assert isinstance(layer.features, Conv)
    values = layer.features(x)[:, 8:].flatten(2).mean(dim=2).unflatten(1, (2, 4))
    expected = layer.merge.channels_last(layer.value(values).flatten(1)[:, None])
    torch.testing.assert_close(layer(x), expected.expand(2, 42, 8), rtol=1e-11, atol=1e-12)


def test_a_slice_that_every_point_leaves_has_a_finite_token_and_gradient() -> None:
    layer, x = attention(3).float(), fields(2, 8, 6, 7).float()
    with torch.no_grad():
        layer.slices.bias.copy_(torch.tensor([0.0, 0.0, -1e4]))
    output = layer(x)
    output.square().sum().backward()
    assert output.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in layer.parameters())


def test_slices_dont_depend_on_the_order_of_the_points_or_of_the_slices() -> None:
    layer, x = attention(5, kernel=1), fields(2, 8, 42)
    order, slices = torch.randperm(42), torch.randperm(5)
    expected = layer(x)[:, order]
    torch.testing.assert_close(layer(x[:, :, order]), expected, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        layer.slices.weight.copy_(layer.slices.weight[slices])
        layer.slices.bias.copy_(layer.slices.bias[slices])
    torch.testing.assert_close(layer(x[:, :, order]), expected, rtol=1e-11, atol=1e-12)


def test_repeated_points_change_nothing() -> None:
    # Tokens are means, so a finer sample of the same points is the same domain.
    layer, x = attention(5, kernel=1), fields(2, 8, 21)
    torch.testing.assert_close(layer(x.repeat(1, 1, 3))[:, :21], layer(x), rtol=1e-11, atol=1e-12)


def test_attention_moves_with_a_shift_along_a_periodic_axis() -> None:
    layer, x = attention(5), fields(2, 8, 6, 7)
    shifted = layer(x.roll(2, dims=2)).unflatten(1, (6, 7))
    torch.testing.assert_close(shifted, layer(x).unflatten(1, (6, 7)).roll(2, dims=1), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("reference_points", [None, 3])
@pytest.mark.parametrize(("n", "n_dims"), [(32, 1), (8, 3)])
def test_runs_on_another_grid_if_no_convolution_depends_on_the_spacing(
    n: int, n_dims: int, reference_points: int | None
) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"width": 8, "n_heads": 2, "n_slices": 3, "reference_points": reference_points}
    models = [
        Transolver(in_channels=2, out_channels=1, grid=Grid.periodic(n, n_dims), kernel=kernel, **options).double()
        for kernel in (1, 3)
    ]
    assert [model.resolution_free for model in models] == [True, False]
    with torch.no_grad():
        for parameter in models[0].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        coarse, fine = (models[0](torch.ones(1, 2, *(m,) * n_dims).double()) for m in (n, 2 * n))
    assert (fine[(..., *(slice(None, None, 2),) * n_dims)] - coarse).abs().max() < 0.3 * coarse.std()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({name: 0}, f"model.{name} to be at least 1") for name in ("width", "n_layers", "n_heads", "n_slices")],
        ({"ffn_width": 0}, "model.ffn_width to be at least 1"),
        ({"reference_points": 1}, "model.reference_points to be at least 2"),
        ({"width": 30}, "width=30 isn't a multiple"),
        ({"kernel": 2}, "odd number, got 2"),
        ({"kernel": -1}, "odd number, got -1"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Transolver(in_channels=1, out_channels=1, grid=Grid.periodic(8), **options)
