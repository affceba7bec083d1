"""GNOT: the published parameter count, a plain form, exact limits, symmetries and errors."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.models.gnot import GNOT, Block, Mixture, NormalizedAttention

CLOSED = Grid((5, 6), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


def varied(module: Any) -> Any:
    """In double precision, with no parameter left at its initial value."""
    torch.manual_seed(0)
    module.double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return module


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)


def plain_attention(layer: NormalizedAttention, x: Tensor, y: Tensor) -> Tensor:
    """Every pair of points, one head after the other."""
    heads = []
    for query, key, value in zip(
        *(linear(v.mT).mT.chunk(2, -1) for linear, v in ((layer.query, x), (layer.key, y), (layer.value, y))),
        strict=True,
    ):
        query, key = query.softmax(-1), key.softmax(-1)
        products = torch.einsum("btc,bic->bti", query, key)
        heads.append(query + torch.einsum("bti,bic->btc", products / products.sum(-1, keepdim=True), value))
    return layer.merge(torch.cat(heads, -1).mT).mT


def plain_mixture(layer: Mixture, v: Tensor, gates: Tensor) -> Tensor:
    """One expert after the other."""
    n_experts = gates.shape[1]
    first = zip(layer.first.weight.chunk(n_experts), layer.first.bias.chunk(n_experts), strict=True)
    second = zip(layer.weight.chunk(n_experts, 1), layer.bias, strict=True)
    outputs = [gelu(v @ u.T + a) @ w.T + b for (u, a), (w, b) in zip(first, second, strict=True)]
    return sum((gates[:, e, None] * output for e, output in enumerate(outputs)), torch.zeros_like(v))


def test_the_published_network_has_the_published_size() -> None:
    with torch.device("meta"):
        sizes = {"width": 128, "n_layers": 3, "n_heads": 8, "ffn_width": 256, "n_experts": 3}
        network = GNOT(in_channels=1, out_channels=1, grid=CLOSED, **sizes)
    assert count_parameters(network) == 1_889_674


@pytest.mark.parametrize("grid", [Grid.periodic(9, 1), CLOSED, Grid.periodic(4, 3)], ids=str)
def test_equals_its_plain_form(grid: Grid) -> None:
    sizes = {"width": 6, "n_heads": 2, "ffn_width": 5, "n_experts": 3}
    model, a = varied(GNOT(in_channels=2, out_channels=3, grid=grid, **sizes)), fields(2, 2, *grid.shape)
    joined = append_coordinates(a, grid.nodes).flatten(2).mT
    positions = joined[:, :, 2:]

    def perceptron(layers: nn.ModuleList, v: Tensor) -> Tensor:
        return layers[1](gelu(layers[0](v.mT))).mT

    x, z = perceptron(model.positions, positions), perceptron(model.fields, joined) + model.placeholder
    for block in model.blocks:
        assert isinstance(block, Block)
        gates, norms = block.gate(positions[0]).softmax(-1), block.norms
        x = x + plain_attention(block.cross, norms[0](x), norms[1](z))
        x = x + norms[2](plain_mixture(block.mixtures[0], x, gates))
        x = x + plain_attention(block.own, norms[3](x), norms[3](x))
        x = x + norms[4](plain_mixture(block.mixtures[1], x, gates))
    close(model(a), perceptron(model.projection, x).mT.unflatten(2, grid.shape))


def test_gradients_can_be_differentiated_again() -> None:
    model, a = GNOT(in_channels=2, out_channels=3, grid=CLOSED).double(), fields(2, 2, 5, 6)
    gradients = torch.autograd.grad(model(a).square().sum(), list(model.parameters()), create_graph=True)
    torch.stack([gradient.square().sum() for gradient in gradients]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_attention_is_a_weighted_mean_of_the_values() -> None:
    # Values that are the same at all points come back, whatever queries and keys are.
    layer, x, y = varied(NormalizedAttention(8, n_heads=2)), fields(2, 5, 8), fields(2, 7, 8)
    with torch.no_grad():
        layer.value.weight.zero_()
    query = layer.query.channels_last(x).unflatten(-1, (2, -1)).softmax(-1).flatten(2)
    close(layer(x, y), layer.merge.channels_last(query + layer.value.bias))


def test_attention_depends_on_neither_the_order_nor_the_number_of_the_points() -> None:
    layer, x, y = varied(NormalizedAttention(8, n_heads=2)), fields(2, 5, 8), fields(2, 7, 8)
    of_x, of_y = torch.randperm(5), torch.randperm(7)
    expected = layer(x, y)
    close(layer(x[:, of_x], y[:, of_y]), expected[:, of_x])
    close(layer(x, y.repeat(1, 3, 1)), expected)


def test_experts_that_are_alike_make_the_gates_irrelevant() -> None:
    layer, one, v = varied(Mixture(6, 4, n_experts=3)), Mixture(6, 4, n_experts=1).double(), fields(2, 5, 6)
    with torch.no_grad():
        one.first.weight.copy_(layer.first.weight[:4])
        one.first.bias.copy_(layer.first.bias[:4])
        one.weight.copy_(layer.weight[:, :4])
        one.bias.copy_(layer.bias[:1])
        layer.first.weight.copy_(one.first.weight.repeat(3, 1))
        layer.first.bias.copy_(one.first.bias.repeat(3))
        layer.weight.copy_(one.weight.repeat(1, 3))
        layer.bias.copy_(one.bias.expand(3, -1))
    close(layer(v, fields(5, 3).softmax(-1)), one(v, torch.ones(5, 1).double()))


def test_a_gate_of_one_chooses_its_expert() -> None:
    layer, v = varied(Mixture(6, 4, n_experts=3)), fields(2, 5, 6)
    gates = torch.zeros(5, 3).double()
    gates[:, 1] = 1
    hidden = gelu(v @ layer.first.weight[4:8].T + layer.first.bias[4:8])
    close(layer(v, gates), hidden @ layer.weight[:, 4:8].T + layer.bias[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *[({name: 0}, f"model.{name} to be at least 1") for name in ("width", "n_layers", "n_heads", "ffn_width")],
        ({"n_experts": 0}, "model.n_experts to be at least 1"),
        ({"width": 30}, "width=30 isn't a suitable multiple"),
        ({"width": 4}, "at least 2 channels each"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GNOT(in_channels=1, out_channels=1, grid=CLOSED, **options)
