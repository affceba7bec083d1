"""Linear attention: formulas, invariances, cost and initial weights."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from neuralop_bench.layers.attention import Kind, LinearAttention

KINDS = ("galerkin", "fourier")


def attention(
    kind: Kind = "galerkin", *, width: int = 12, n_heads: int = 3, n_dims: int = 2, norm_eps: float | None = 1e-5
) -> LinearAttention:
    """In double precision, with every parameter away from its initial value."""
    torch.manual_seed(0)
    norm: dict[str, Any] = {"norm": False} if norm_eps is None else {"norm_eps": norm_eps}
    layer = LinearAttention(width=width, n_heads=n_heads, n_dims=n_dims, kind=kind, **norm).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return layer


def tokens(n: int = 10, *, width: int = 12, n_dims: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, n, width, generator=generator, dtype=torch.float64)
    return x, torch.rand(n, n_dims, generator=generator, dtype=torch.float64)


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def by_hand(
    layer: LinearAttention, x: Tensor, positions: Tensor, kind: Kind, *, norm_eps: float | None = 1e-5
) -> Tensor:
    """Sample by sample and head by head; the Fourier type through its matrix of n x n."""
    (n, width), n_heads = x.shape[1:], layer.n_heads
    size = width // n_heads

    def normalised(features: Tensor, which: int, head: int) -> Tensor:
        if norm_eps is None:
            return features
        centred = features - features.mean(dim=1, keepdim=True)
        unit = centred / (centred.square().mean(dim=1, keepdim=True) + norm_eps).sqrt()
        weight, bias = (p[head, 0] for p in layer.norms[which].parameters())
        return unit * weight + bias

    samples = []
    for sample in x:
        heads = []
        for head in range(n_heads):
            rows = slice(head * size, (head + 1) * size)
            q, k, v = (
                sample @ linear.weight[rows].T + linear.bias[rows] for linear in (layer.query, layer.key, layer.value)
            )
            if kind == "galerkin":
                k, v = normalised(k, 0, head), normalised(v, 1, head)
            else:
                q, k = normalised(q, 0, head), normalised(k, 1, head)
            q, k, v = (torch.cat([positions, part], dim=1) for part in (q, k, v))
            if kind == "galerkin":
                heads.append(torch.einsum("id,jd,je->ie", q, k, v / n))
                continue
            matrix = torch.einsum("id,jd->ij", q, k) / math.sqrt(size + positions.shape[1]) / n
            assert matrix.shape == (n, n)
            heads.append(torch.einsum("ij,je->ie", matrix, v))
        samples.append(torch.cat(heads, dim=1) @ layer.merge.weight.T + layer.merge.bias)
    return torch.stack(samples)


@pytest.mark.parametrize("norm_eps", [None, 1e-5, 0.5])
@pytest.mark.parametrize("n_heads", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_formula(kind: Kind, n_heads: int, norm_eps: float | None) -> None:
    layer, (x, positions) = attention(kind, n_heads=n_heads, norm_eps=norm_eps), tokens()
    torch.testing.assert_close(layer(x, positions), by_hand(layer, x, positions, kind, norm_eps=norm_eps))


def test_the_two_types_differ() -> None:
    x, positions = tokens()
    galerkin, fourier = (attention(kind)(x, positions) for kind in KINDS)
    assert (galerkin - fourier).abs().max() > 0.1 * galerkin.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_permuted_points_give_permuted_values(kind: Kind) -> None:
    layer, (x, positions) = attention(kind), tokens()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(layer(x[:, order], positions[order]), layer(x, positions)[:, order])


@pytest.mark.parametrize("kind", KINDS)
def test_duplicated_points_change_nothing(kind: Kind) -> None:
    # K^T V / n is a mean: it depends on the distribution of the points, not on their number.
    layer, (x, positions) = attention(kind), tokens()
    doubled = layer(x.repeat_interleave(2, dim=1), positions.repeat_interleave(2, dim=0))
    torch.testing.assert_close(doubled, layer(x, positions).repeat_interleave(2, dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_point_sees_every_other_and_its_coordinates(kind: Kind) -> None:
    layer, (x, positions) = attention(kind), tokens()
    output = layer(x, positions)
    moved = x.clone()
    moved[:, 3] += 1
    assert ((layer(moved, positions) - output).abs().amax(dim=2) > 1e-6).all()
    shifted = positions.clone()
    shifted[3, 1] += 1
    assert ((layer(x, shifted) - output).abs().amax(dim=2) > 1e-6).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_is_linear_in_the_points(kind: Kind) -> None:
    layer = attention(kind)

    def flops(n: int) -> int:
        with FlopCounterMode(display=False) as counter:
            layer(*tokens(n))
        return counter.get_total_flops()

    # By hand, per point: three maps of the features, two products per head over d features, the map that merges.
    batch, width, n_heads, n_features, n_dims = 2, 12, 3, 4, 2
    d = n_features + n_dims
    multiplications = batch * (3 * width * width + n_heads * 2 * d * d + n_heads * d * width)
    if kind == "galerkin":
        # Two maps of the features; products within a head, and with 1 and the coordinates; one matrix of
        # x and one of the coordinates. Those don't depend on the sample alone.
        multiplications = batch * (2 * width * width + width * n_features + (1 + n_dims) * 2 * width)
        multiplications += batch * (width * width + n_dims * width) + (1 + n_dims) ** 2
    assert (flops(400) - flops(50)) == 350 * 2 * multiplications


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_right(kind: Kind) -> None:
    layer, (x, positions) = attention(kind, width=4, n_heads=2, n_dims=1), tokens(3, width=4, n_dims=1)
    assert torch.autograd.gradcheck(layer, (x.requires_grad_(), positions.requires_grad_()))


def test_evaluation_and_training_are_the_same_map() -> None:
    # The published layer drops numbers at random in both.
    layer, (x, positions) = attention(), tokens()
    assert torch.equal(layer.train()(x, positions), layer.eval()(x, positions))


def test_weights_start_near_a_multiple_of_the_identity() -> None:
    torch.manual_seed(0)
    layer = LinearAttention(width=64, n_heads=4, n_dims=1)
    bound = 1e-2 * math.sqrt(6 / (64 + 64))
    for linear in (layer.query, layer.key, layer.value):
        rest = linear.weight - 1e-2 * torch.eye(64)
        assert 0.9 * bound < rest.abs().max() <= bound * (1 + 1e-4)
        assert rest.mean().abs() < 0.05 * bound
        assert not linear.bias.any()
    assert not torch.equal(layer.key.weight, layer.value.weight)


def test_gain_and_diagonal_are_options() -> None:
    layer = LinearAttention(width=6, n_heads=2, n_dims=1, init_gain=0.0, init_diagonal=0.5)
    assert torch.equal(layer.value.weight, 0.5 * torch.eye(6))
    torch.manual_seed(0)
    plain = LinearAttention(width=6, n_heads=2, n_dims=1, init_gain=1.0, init_diagonal=0.0)
    assert plain.query.weight.diagonal().abs().max() <= math.sqrt(6 / 12)


@pytest.mark.parametrize(("width", "n_heads", "n_dims"), [(96, 1, 1), (128, 4, 2), (48, 1, 2)])
def test_parameter_count_follows_the_closed_form(width: int, n_heads: int, n_dims: int) -> None:
    layer = LinearAttention(width=width, n_heads=n_heads, n_dims=n_dims)
    merged = width + n_heads * n_dims
    assert n_parameters(layer) == 3 * (width * width + width) + 2 * 2 * width + merged * width + width
    without = LinearAttention(width=width, n_heads=n_heads, n_dims=n_dims, norm=False)
    assert n_parameters(layer) - n_parameters(without) == 2 * 2 * width


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "softmax"}, "model.attention"),
        ({"n_heads": 5}, "width=12 into n_heads=5.*model.width or model.n_heads"),
        ({"n_heads": 0}, "n_heads=0"),
        ({"n_heads": 12}, "leaves 1.*model.n_heads"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LinearAttention(**{"width": 12, "n_heads": 3, "n_dims": 2, **arguments})


def test_single_features_need_no_norm() -> None:
    x, positions = tokens()
    layer = LinearAttention(width=12, n_heads=12, n_dims=2, norm=False).double()
    assert layer(x, positions).shape == x.shape
