"""Spectral weights in Tucker and CP form: against explicit sums, closed forms of their size, the neuralop package."""

import math
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from neuralop.layers.spectral_convolution import SpectralConv as ReferenceConv
from neuralop.models import TFNO as ReferenceTFNO
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.factorised import CP, Tucker, cp_rank, tucker_ranks
from neuralop_bench.layers.spectral_conv import Factorization, SpectralConv
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.models.fno import FNO

FORMS: tuple[Literal["tucker", "cp"], ...] = ("tucker", "cp")
GRIDS = [((15,), (5,)), ((16, 11), (3, 4)), ((6, 8, 7), (2, 3, 2))]


def complex_of(pairs: Tensor) -> Tensor:
    return torch.complex(pairs[0], pairs[1])


def parts(conv: SpectralConv) -> dict[str, Tensor]:
    """The factors by name, complex."""
    assert conv.factors is not None
    return {name: complex_of(p.detach()) for name, p in conv.factors.named_parameters()}


def multiplied_out(conv: SpectralConv) -> Tensor:
    """The sum of the definition, complex, [*modes, in, out]."""
    tensors = parts(conv)
    axes = "abcde"[: len(conv.n_modes) + 2]
    factors = [tensors[f"factor_{axis}"] for axis in range(len(axes))]
    if "core" in tensors:
        terms = ",".join(f"{i}{i.upper()}" for i in axes)
        return torch.einsum(f"{axes.upper()},{terms}->{axes}", tensors["core"], *factors)
    return torch.einsum(",".join(f"{i}z" for i in axes) + f"->{axes}", *factors)


def dense(weight: Tensor, n_modes: tuple[int, ...]) -> SpectralConv:
    """A convolution with the given complex weight."""
    conv = SpectralConv(weight.shape[-2], weight.shape[-1], n_modes).double()
    with torch.no_grad():
        conv.weight.copy_(torch.stack([weight.real, weight.imag]))
    return conv


def unfolded(tensor: Tensor, axis: int) -> Tensor:
    return tensor.movedim(axis, 0).flatten(1)


# What it computes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "n_modes"), GRIDS)
@pytest.mark.parametrize("form", FORMS)
def test_equals_a_dense_convolution_with_the_weight_multiplied_out(
    form: Literal["tucker", "cp"], shape: tuple[int, ...], n_modes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(3, 4, n_modes, factorization=form, rank=0.5).double()
    weight = multiplied_out(conv)
    torch.testing.assert_close(complex_of(conv.dense_weight()), weight, rtol=0, atol=1e-13)
    u = torch.randn(2, 3, *shape, dtype=torch.float64)
    v = conv(u)
    assert v.abs().max() > 0.01
    torch.testing.assert_close(v, dense(weight, n_modes)(u), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n_modes", [(5,), (2, 3), (2, 1, 2)])
def test_a_tucker_form_of_full_rank_holds_any_weight(n_modes: tuple[int, ...]) -> None:
    # Higher-order singular value decomposition: the singular vectors of every unfolding, and what is left as core.
    generator = torch.Generator().manual_seed(0)
    shape = SpectralConv(3, 4, n_modes).weight.shape[1:]
    weight = torch.randn(*shape, dtype=torch.complex128, generator=generator)
    tucker = Tucker(shape, ranks=shape, variance=1.0).double()
    core = weight
    with torch.no_grad():
        for axis in range(weight.ndim):
            vectors = torch.linalg.svd(unfolded(weight, axis))[0]
            tucker.get_parameter(f"factor_{axis}").copy_(torch.stack([vectors.real, vectors.imag]))
            core = torch.einsum("i...,ij->...j", core, vectors.conj())
        tucker.get_parameter("core").copy_(torch.stack([core.real, core.imag]))
        torch.testing.assert_close(complex_of(tucker()), weight, rtol=0, atol=1e-12)


def test_ranks_bound_those_of_the_weight() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(6, 7, (4, 5), factorization="tucker", rank=0.3).double()
    weight = complex_of(conv.dense_weight().detach())
    ranks = tucker_ranks(weight.shape, 0.3)
    assert all(r < n for r, n in zip(ranks, weight.shape, strict=True))
    assert tuple(int(torch.linalg.matrix_rank(unfolded(weight, axis))) for axis in range(4)) == ranks
    # Split in the middle, a sum of R products of vectors is a matrix of rank R.
    cp = CP((8, 5, 6, 7), rank=9, variance=1.0).double()
    assert int(torch.linalg.matrix_rank(complex_of(cp().detach()).flatten(2).flatten(0, 1))) == 9


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("n", "n_dims"), [(16, 1), (17, 1), (16, 2), (17, 2), (9, 3)])
def test_agrees_at_shared_points_on_a_grid_twice_as_fine(form: Literal["tucker", "cp"], n: int, n_dims: int) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, (3,) * n_dims, factorization=form, rank=0.5).double()
    amplitude = torch.randn(5, 2, 2, dtype=torch.float64)

    def field(n: int) -> Tensor:
        axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n,) * n_dims, indexing="ij")
        waves = [torch.cos(2 * math.pi * k * torch.stack(axes).sum(dim=0) + k) for k in range(4)]
        waves.append(torch.sin(2 * math.pi * (axes[0] - axes[-1])))
        return torch.einsum("wbc,w...->bc...", amplitude, torch.stack(waves))

    coarse, fine = conv(field(n)), conv(field(2 * n))
    assert coarse.abs().max() > 0.01
    torch.testing.assert_close(coarse, fine[(..., *(slice(None, None, 2),) * n_dims)], rtol=0, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shape", "n_modes"), GRIDS)
def test_a_gradient_reaches_every_factor(
    form: Literal["tucker", "cp"], shape: tuple[int, ...], n_modes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, n_modes, factorization=form, rank=0.5)
    conv(torch.randn(2, 2, *shape)).square().sum().backward()
    gradients = {name: p.grad for name, p in conv.named_parameters()}
    assert len(gradients) == len(shape) + 2 + (form == "tucker")
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert (gradient != 0).all(), name


@pytest.mark.parametrize("build", [lambda: Tucker((3, 2, 4), (2, 2, 3), 1.0), lambda: CP((3, 2, 4), 2, 1.0)])
def test_gradients_are_those_of_finite_differences(build) -> None:
    torch.manual_seed(0)
    form = build().double()
    names, tensors = zip(*form.named_parameters(), strict=True)

    def weight(*values: Tensor) -> Tensor:
        return torch.func.functional_call(form, dict(zip(names, values, strict=True)), ())

    assert torch.autograd.gradcheck(weight, tensors)


# How it begins -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("n_modes", "width", "rank"), [((4,), 6, 0.5), ((3, 4), 8, 0.1), ((3, 4), 8, 1.0)])
def test_weights_have_the_variance_of_dense_ones_at_the_beginning(
    form: Literal["tucker", "cp"], n_modes: tuple[int, ...], width: int, rank: float
) -> None:
    # Entries of one weight share their factors, so the average over many weights is what must be right.
    torch.manual_seed(0)
    draws = [SpectralConv(width, 5, n_modes, factorization=form, rank=rank).dense_weight().detach() for _ in range(600)]
    for part in torch.stack(draws, dim=1):
        assert float(part.square().mean()) == pytest.approx(1 / (2 * width), rel=0.1)
        assert abs(float(part.mean())) < 0.02 / math.sqrt(2 * width)


def test_the_dense_weight_is_drawn_as_ever() -> None:
    torch.manual_seed(3)
    expected = torch.empty(2, 6, 4, 5, 2).normal_(std=math.sqrt(1 / 10))
    for options in ({}, {"factorization": "none", "rank": 0.7}):
        torch.manual_seed(3)
        conv = SpectralConv(5, 2, (3, 4), **options)
        assert torch.equal(conv.weight, expected)
        assert list(conv.state_dict()) == ["weight"]


# How large it is -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "fraction", "ranks"),
    [
        # c^3 512 + 192 c = 512 f has the root c = 1/2 at f = 160/512.
        ((8, 8, 8), 160 / 512, (4, 4, 4)),
        # c^4 6^4 + 144 c = 6^4 f has the root c = 1/3 at f = 64/1296; for c = 2/3 it is f = 352/1296.
        ((6, 6, 6, 6), 64 / 1296, (2, 2, 2, 2)),
        ((6, 6, 6, 6), 352 / 1296, (4, 4, 4, 4)),
        # Never below 1.
        ((2, 2, 16, 16), 1e-6, (1, 1, 1, 1)),
    ],
)
def test_tucker_ranks_are_one_share_of_every_axis(
    shape: tuple[int, ...], fraction: float, ranks: tuple[int, ...]
) -> None:
    assert tucker_ranks(shape, fraction) == ranks


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=5), st.floats(1e-4, 1.0))
def test_ranks_keep_to_the_fraction_as_far_as_whole_numbers_allow(shape: list[int], fraction: float) -> None:
    budget = fraction * math.prod(shape)
    ranks = tucker_ranks(shape, fraction)
    assert all(1 <= r <= n for r, n in zip(ranks, shape, strict=True))

    def size(ranks: list[float]) -> float:
        return math.prod(ranks) + sum(n * r for n, r in zip(shape, ranks, strict=True))

    # Each rank is within half of its share, and the size grows with every rank.
    assert size([max(0.0, r - 0.5) if r > 1 else 0.0 for r in ranks]) <= budget * (1 + 1e-9)
    assert size([r + 0.5 for r in ranks]) >= budget * (1 - 1e-9)
    rank = cp_rank(shape, fraction)
    assert rank == 1 or abs(rank * sum(shape) - budget) <= (0.5 + 1e-9) * sum(shape)


@pytest.mark.parametrize(
    ("n_modes", "form", "rank", "complex_numbers"),
    [
        # [12, 32, 32], 12288 dense numbers. Tucker: ranks (4, 11, 11). CP: R = round(1228.8 / 76) = 16.
        ((12,), "tucker", 0.1, 4 * 11 * 11 + 12 * 4 + 2 * 32 * 11),
        ((12,), "cp", 0.1, 16 * 76),
        # [24, 12, 32, 32], 294912 dense numbers. Tucker: ranks (13, 7, 18, 18). CP: R = round(29491.2 / 100) = 295.
        ((12, 12), "tucker", 0.1, 13 * 7 * 18 * 18 + 24 * 13 + 12 * 7 + 2 * 32 * 18),
        ((12, 12), "cp", 0.1, 295 * 100),
    ],
)
def test_parameters_follow_the_closed_forms(
    n_modes: tuple[int, ...], form: Literal["tucker", "cp"], rank: float, complex_numbers: int
) -> None:
    with torch.device("meta"):
        conv = SpectralConv(32, 32, n_modes, factorization=form, rank=rank)
    assert count_parameters(conv) == 2 * complex_numbers
    assert count_parameters(conv, complex_as=1) == complex_numbers


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_a_network_holds_the_fraction_of_its_spectral_weights(form: Literal["tucker", "cp"], n_dims: int) -> None:
    def numbers(**options) -> tuple[int, int]:
        """In the spectral weights, and elsewhere."""
        with torch.device("meta"):
            model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(32, n_dims), n_modes=8, **options)
        spectral = count_parameters(model.spectral)
        return spectral, count_parameters(model) - spectral

    dense, elsewhere = numbers()
    assert numbers(factorization="none", rank=0.3) == (dense, elsewhere)
    for rank in (0.1, 0.5, 1.0):
        factorised, same = numbers(factorization=form, rank=rank)
        assert same == elsewhere
        assert factorised == pytest.approx(rank * dense, rel=0.15)


# Against the neuralop package ----------------------------------------------------------------------------------------


def neuralop_modes(n_modes: tuple[int, ...]) -> tuple[int, ...]:
    return (*(2 * k for k in n_modes[:-1]), 2 * n_modes[-1] - 2)


@pytest.mark.parametrize(("shape", "n_modes"), [((64,), (12,)), ((32, 24), (5, 8)), ((12, 16, 10), (3, 5, 4))])
@pytest.mark.parametrize(("form", "name"), [("tucker", "ComplexTucker"), ("cp", "ComplexCP")])
def test_convolution_agrees_with_neuralop_for_the_same_factors(
    form: Literal["tucker", "cp"], name: str, shape: tuple[int, ...], n_modes: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    ours = SpectralConv(6, 4, n_modes, factorization=form, rank=0.2)
    theirs = ReferenceConv(
        6, 4, n_modes=neuralop_modes(n_modes), bias=False, factorization=name, rank=0.2, implementation="factorized"
    )
    # Theirs has the axes [in, out, *modes] with the negative rows first; CP has a scale per term besides.
    tensors, n_dims = parts(ours), len(shape)
    factors = [tensors[f"factor_{axis}"] for axis in range(n_dims + 2)]
    rows = [f.roll(k, dims=0) for f, k in zip(factors, n_modes[:-1], strict=False)]
    ordered = [*factors[-2:], *rows, factors[n_dims - 1]]
    with torch.no_grad():
        weight: Any = theirs.weight
        for target, source in zip(weight.factors, ordered, strict=True):
            target.copy_(source)
        if form == "tucker":
            weight.core.copy_(tensors["core"].movedim((-2, -1), (0, 1)))
        else:
            weight.weights.fill_(1)
        u = torch.randn(2, 6, *shape)
        expected = theirs(u)
        assert (ours(u) - expected).abs().max() < 2e-6 * expected.abs().max()


@pytest.mark.parametrize("rank", [0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("n_modes", [(16,), (12, 12), (8, 8, 8)])
def test_network_is_as_large_as_neuralops(n_modes: tuple[int, ...], rank: float) -> None:
    n_dims = len(n_modes)
    with torch.device("meta"):
        ours = FNO(
            in_channels=1,
            out_channels=1,
            grid=Grid.periodic(32, n_dims),
            n_modes=n_modes,
            width=16,
            n_layers=3,
            projection_width=64,
            factorization="tucker",
            rank=rank,
        )
    theirs = ReferenceTFNO(
        n_modes=neuralop_modes(n_modes),
        in_channels=1 + n_dims,
        out_channels=1,
        hidden_channels=16,
        n_layers=3,
        lifting_channel_ratio=0,
        projection_channel_ratio=4,
        positional_embedding=None,
        use_channel_mlp=False,
        channel_mlp_skip=None,
        fno_skip="linear",
        rank=rank,
    )
    assert count_parameters(ours) == count_parameters(theirs)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rank", [0, -0.1, 1.01, 8, math.nan])
def test_a_rank_is_a_fraction(form: Literal["tucker", "cp"], rank: float) -> None:
    for build in (
        lambda: FNO(in_channels=1, out_channels=1, grid=Grid.periodic(16), n_modes=2, factorization=form, rank=rank),
        lambda: SpectralConv(2, 2, (2, 2), factorization=form, rank=rank),
    ):
        with pytest.raises(ValueError, match=rf"above 0 and at most 1, got {rank}\. Set model\.rank"):
            build()


def test_unknown_forms_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model\.factorization to be one of none, tucker, cp, got 'tt'"):
        FNO(in_channels=1, out_channels=1, grid=Grid.periodic(16), n_modes=2, factorization="tt")  # pyright: ignore
    with pytest.raises(ValueError, match=r"model\.factorization to be one of none, tucker, cp, got 'tt'"):
        SpectralConv(2, 2, (2, 2), factorization="tt")  # pyright: ignore


@pytest.mark.parametrize("form", FORMS)
def test_factors_have_no_positive_uniform_initialisation(form: Literal["tucker", "cp"]) -> None:
    with pytest.raises(ValueError, match=rf"factorization={form} needs model\.spectral_init=normal, got 'uniform'"):
        SpectralConv(2, 2, (2, 2), init="uniform", factorization=form)


def test_a_network_passes_the_form_to_every_block() -> None:
    kinds: tuple[tuple[Factorization, type | None], ...] = (("none", None), ("tucker", Tucker), ("cp", CP))
    for form, kind in kinds:
        model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(16), n_modes=2, width=4, factorization=form)
        blocks: list[nn.Module] = list(model.spectral)
        factors = [block.factors for block in blocks if isinstance(block, SpectralConv)]
        assert len(factors) == 4
        assert all(f is None if kind is None else isinstance(f, kind) for f in factors)
