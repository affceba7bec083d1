"""SpectralConv against a dense multiplication in Fourier space, and the invariants of models.md, section 7.2."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from neuralop_bench.layers import spectral_conv
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.spectral_conv import SpectralConv, fourier_layer, is_faster_as_product


@pytest.fixture(autouse=True, params=["products", "fast transforms"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds for either way of computing the modes."""
    monkeypatch.setattr(spectral_conv, "is_faster_as_product", lambda *_: request.param == "products")
    return request.param


def set_identity(conv: SpectralConv) -> SpectralConv:
    """The same channel-diagonal weight 1 on every kept mode."""
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0] = torch.eye(*conv.weight.shape[-2:])
    return conv


def wave(k: tuple[int, ...], shape: tuple[int, ...], phase: float) -> torch.Tensor:
    """cos(2 pi k.x + phase) at the nodes of the unit torus."""
    axes = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) / n for n in shape), indexing="ij")
    return torch.cos(2 * math.pi * sum(k_j * x_j for k_j, x_j in zip(k, axes, strict=True)) + phase)


def band_limited(shape: tuple[int, ...], k_max: int, n_channels: int) -> torch.Tensor:
    """A field with random modes |k_j| <= k_max, the same function for every shape."""
    generator = torch.Generator().manual_seed(3)
    field = torch.zeros(2, n_channels, *shape, dtype=torch.float64)
    for k in itertools.product(range(-k_max, k_max + 1), repeat=len(shape)):
        amplitude = torch.randn(2, n_channels, generator=generator, dtype=torch.float64)
        phase = float(torch.rand((), generator=generator)) * 2 * math.pi
        field += amplitude.view(2, n_channels, *(1,) * len(shape)) * wave(k, shape, phase)
    return field


def dense_reference(conv: SpectralConv, u: np.ndarray) -> np.ndarray:
    """sum_i W_io(k) u_hat_i(k) over the whole half spectrum, each mode found by its wavenumber."""
    space = u.shape[2:]
    axes = tuple(range(2, u.ndim))
    weight = conv.weight.detach().numpy()
    weight = weight[0] + 1j * weight[1]
    u_hat = np.fft.rfftn(u, axes=axes)
    v_hat = np.zeros((u.shape[0], weight.shape[-1], *u_hat.shape[2:]), dtype=complex)
    ranges = [range(-k, k) for k in conv.n_modes[:-1]] + [range(conv.n_modes[-1])]
    for k in itertools.product(*ranges):
        # A negative index means the same in both arrays: counted from the end of the kept or of all rows.
        v_hat[(..., *k)] = u_hat[(..., *k)] @ weight[k]
    return np.fft.irfftn(v_hat, s=space, axes=axes)


@pytest.mark.parametrize(
    ("shape", "n_modes"),
    [
        ((16,), (5,)),
        ((15,), (5,)),
        ((16, 12), (3, 5)),
        ((15, 11), (4, 5)),
        ((13, 14), (6, 2)),
        ((8, 9, 10), (2, 4, 3)),
        ((8, 6, 10), (4, 3, 5)),
        ((7, 9, 11), (3, 2, 5)),
    ],
)
def test_equals_dense_multiplication_in_fourier_space(shape: tuple[int, ...], n_modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, n_modes).double()
    u = torch.randn(4, 2, *shape, dtype=torch.float64)
    v = conv(u)
    assert v.shape == (4, 3, *shape)
    assert v.dtype == torch.float64  # real
    torch.testing.assert_close(v, torch.from_numpy(dense_reference(conv, u.numpy())), rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [16, 15])
def test_identity_weights_project_on_the_kept_modes_1d(n: int) -> None:
    n_modes = 5
    conv = set_identity(SpectralConv(1, 1, (n_modes,)).double())
    wavenumbers = range((n - 1) // 2 + 1)
    modes = torch.stack([wave((k,), (n,), phase=0.7) for k in wavenumbers])[:, None]
    kept = torch.tensor([1.0 if k < n_modes else 0.0 for k in wavenumbers], dtype=torch.float64)
    torch.testing.assert_close(conv(modes), modes * kept[:, None, None], rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (12, 17)])
def test_identity_weights_project_on_the_kept_modes_2d(shape: tuple[int, int]) -> None:
    n_modes = (3, 5)
    conv = set_identity(SpectralConv(1, 1, n_modes).double())
    half = [(n - 1) // 2 for n in shape]
    wavenumbers = list(itertools.product(range(-half[0], half[0] + 1), range(half[1] + 1)))

    def gain(k1: int, k2: int) -> float:
        rows, columns = n_modes
        if k2 == 0 and abs(k1) == rows:
            # cos(2 pi K x) holds the rows K and -K. Only -K is kept, so half the amplitude remains.
            return 0.5
        return 1.0 if -rows <= k1 < rows and k2 < columns else 0.0

    # The asymmetry of the row -K: its waves pass, those of the row K don't.
    assert (gain(-3, 2), gain(3, 2), gain(-4, 2), gain(2, 4), gain(2, 5)) == (1.0, 0.0, 0.0, 1.0, 0.0)
    modes = torch.stack([wave(k, shape, phase=0.7) for k in wavenumbers])[:, None]
    gains = torch.tensor([gain(*k) for k in wavenumbers], dtype=torch.float64)
    torch.testing.assert_close(conv(modes), modes * gains[:, None, None, None], rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(8, 8, 8), (7, 7, 7), (6, 9, 8)])
def test_identity_weights_project_on_the_kept_modes_3d(shape: tuple[int, int, int]) -> None:
    n_modes = (2, 3, 2)
    conv = set_identity(SpectralConv(1, 1, n_modes).double())
    half = [(n - 1) // 2 for n in shape]
    # Waves of the rows K and -K are left to the test in 2D.
    wavenumbers = [
        k
        for k in itertools.product(*(range(-h, h + 1) for h in half[:-1]), range(half[-1] + 1))
        if all(abs(k_j) != n_j for k_j, n_j in zip(k[:2], n_modes[:2], strict=True))
    ]
    gains = [all(abs(k_j) < n_j for k_j, n_j in zip(k, n_modes, strict=True)) for k in wavenumbers]
    assert {True, False} == set(gains)
    modes = torch.stack([wave(k, shape, phase=0.7) for k in wavenumbers])[:, None]
    expected = modes * torch.tensor(gains, dtype=torch.float64).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(conv(modes), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("n", "n_dims"), [(16, 1), (17, 1), (16, 2), (17, 2), (8, 3), (9, 3)])
def test_agrees_at_shared_points_on_a_grid_twice_as_fine(n: int, n_dims: int) -> None:
    torch.manual_seed(0)
    k_kept, k_max = (5, 7) if n_dims < 3 else (2, 3)
    conv = SpectralConv(2, 3, (k_kept,) * n_dims).double()
    # Modes beyond the kept ones are there too; they must be dropped on both grids.
    coarse, fine = (conv(band_limited((m,) * n_dims, k_max, 2)) for m in (n, 2 * n))
    shared = fine[(..., *(slice(None, None, 2),) * n_dims)]
    torch.testing.assert_close(coarse, shared, rtol=0, atol=1e-11)
    assert coarse.abs().max() > 0.1


def test_agrees_at_shared_points_in_single_precision() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, (5, 5))
    coarse, fine = (conv(band_limited((m, m), 3, 2).float()) for m in (17, 34))
    assert (coarse - fine[..., ::2, ::2]).abs().max() < 1e-6 * coarse.abs().max()


@pytest.mark.parametrize(("shape", "shift"), [((16,), (3,)), ((15, 12), (4, -5)), ((8, 7, 6), (1, 2, 3))])
def test_commutes_with_circular_shifts(shape: tuple[int, ...], shift: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, (2,) * len(shape)).double()
    u = torch.randn(2, 2, *shape, dtype=torch.float64)
    axes = tuple(range(2, u.ndim))
    torch.testing.assert_close(conv(u.roll(shift, axes)), conv(u).roll(shift, axes), rtol=0, atol=1e-13)


def test_imaginary_part_of_the_mean_mode_is_dead_and_no_other_number_nearby_is() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(2, 3, (3, 4)).double()
    u = torch.randn(2, 2, 10, 11, dtype=torch.float64)
    before = conv(u)

    def change(part: int, row: int, column: int) -> float:
        weight = conv.weight.detach().clone()
        with torch.no_grad():
            conv.weight[part, row, column] += 1.0
            difference = float((conv(u) - before).abs().max())
            conv.weight.copy_(weight)
        return difference

    assert change(1, 0, 0) < 1e-14
    for part, row, column in [(0, 0, 0), (1, 0, 1), (1, 1, 0), (1, -3, 0), (1, -1, 1), (0, -3, 3)]:
        assert change(part, row, column) > 1e-3, (part, row, column)


def test_normal_init_keeps_the_variance_of_the_kept_modes() -> None:
    torch.manual_seed(0)
    conv = SpectralConv(48, 48, (16,))
    u = torch.randn(32, 48, 64)
    energies = [torch.fft.rfft(x)[..., :16].abs().square().mean() for x in (u, conv(u).detach())]
    assert float(energies[1] / energies[0]) == pytest.approx(1.0, rel=0.05)
    assert abs(float(conv.weight.detach().mean())) < 0.01 * float(conv.weight.detach().std())


def test_uniform_init_is_positive_and_bounded_as_in_the_published_code() -> None:
    torch.manual_seed(0)
    weight = SpectralConv(8, 4, (16,), init="uniform").weight.detach() * (8 * 4)
    assert weight.min() >= 0
    assert weight.max() <= 1
    for part in weight:
        assert float(part.mean()) == pytest.approx(0.5, abs=0.05)


def test_as_many_modes_as_the_grid_holds_are_accepted_and_one_more_is_not() -> None:
    for n in (8, 9):
        assert SpectralConv(1, 1, (4, 4))(torch.ones(1, 1, n, n)).shape == (1, 1, n, n)
        with pytest.raises(
            ValueError, match=rf"n_modes=5 per axis, but the grid has {n} points: n_modes must be at most 4"
        ):
            SpectralConv(1, 1, (5, 4))(torch.ones(1, 1, n, n))
        with pytest.raises(ValueError, match=r"Lower model\.n_modes or raise the resolution"):
            SpectralConv(1, 1, (4, 5))(torch.ones(1, 1, n, n))


def test_a_first_call_in_inference_mode_or_with_another_default_device_spoils_no_later_one() -> None:
    # On grids that no other test has: what is kept between calls would be made by those.
    for n, context in ((38, torch.inference_mode()), (39, torch.device("meta"))):
        conv, u = SpectralConv(1, 1, (4, 4)), torch.randn(1, 1, n, n, requires_grad=True)
        with context:
            conv(u)
        conv(u).sum().backward()
        assert u.grad is not None


def test_fields_over_another_number_of_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="over 2 axes got fields over 1 axes"):
        SpectralConv(1, 1, (2, 2))(torch.ones(1, 1, 8))


LAYERS = [((20,), (6,)), ((15,), (7,)), ((12, 9), (3, 4)), ((6, 5, 7), (3, 2, 3))]


def layer_and_gradients(
    space: tuple[int, ...], n_modes: tuple[int, ...], layer: Callable[..., torch.Tensor], dtype: torch.dtype
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    conv, pointwise = SpectralConv(3, 5, n_modes).to(dtype), Pointwise(3, 5).to(dtype)
    v = torch.randn(2, *space, 3, dtype=dtype, requires_grad=True)
    out = layer(v, conv, pointwise)
    (out * torch.randn_like(out)).sum().backward()
    return [out.detach(), *(x.grad for x in (v, conv.weight, pointwise.weight, pointwise.bias))]


def plain_layer(v: torch.Tensor, conv: SpectralConv, pointwise: Pointwise) -> torch.Tensor:
    return pointwise.channels_last(v) + conv(v.movedim(-1, 1)).movedim(1, -1)


@pytest.mark.parametrize(("space", "n_modes"), LAYERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_a_layer_and_its_gradients_are_those_of_its_parts_by_fast_transforms(
    space: tuple[int, ...],
    n_modes: tuple[int, ...],
    dtype: torch.dtype,
    tolerance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = layer_and_gradients(space, n_modes, fourier_layer, dtype)
    monkeypatch.setattr(spectral_conv, "is_faster_as_product", lambda *_: False)
    expected = layer_and_gradients(space, n_modes, plain_layer, dtype)
    for ours, theirs in zip(found, expected, strict=True):
        assert float((ours - theirs).abs().max() / theirs.abs().max()) < tolerance


@pytest.mark.parametrize(("space", "n_modes"), LAYERS)
def test_the_gradient_of_a_layer_has_a_gradient(space: tuple[int, ...], n_modes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    conv, pointwise = SpectralConv(2, 1, n_modes).double(), Pointwise(2, 1).double()
    v = torch.randn(1, *space, 2, dtype=torch.float64, requires_grad=True)
    names = ["conv.weight", "pointwise.weight", "pointwise.bias"]
    parts = torch.nn.ModuleDict({"conv": conv, "pointwise": pointwise})

    def layer(v: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        state = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(Applied(parts), {f"parts.{k}": x for k, x in state.items()}, (v,))

    assert torch.autograd.gradcheck(layer, (v, *parts.parameters()), fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, (v, *parts.parameters()), fast_mode=True)


class Applied(torch.nn.Module):
    def __init__(self, parts: torch.nn.ModuleDict) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, v: torch.Tensor) -> torch.Tensor:
        return fourier_layer(v, self.parts["conv"], self.parts["pointwise"])


@pytest.mark.usefixtures("path")
def test_a_layer_works_where_torch_chooses_the_precision() -> None:
    conv, pointwise = SpectralConv(3, 5, (4, 4)), Pointwise(3, 5)
    v = torch.randn(2, 9, 9, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = fourier_layer(v, conv, pointwise)
    out.float().square().sum().backward()
    exact = fourier_layer(v, conv, pointwise)
    assert float((out - exact).detach().norm() / exact.detach().norm()) < 0.02
    assert all(x.grad is not None for x in (v, conv.weight, pointwise.weight))


@pytest.mark.parametrize(
    ("space", "n_modes", "expected"),
    [
        ((64, 64), (12, 12), True),
        ((256, 256), (24, 24), True),
        ((512, 512), (96, 96), True),
        ((512, 512), (128, 128), True),
        ((1024, 1024), (512, 512), False),
        ((1024,), (64,), True),
        ((1024,), (256,), False),
        ((8192,), (256,), False),
        ((32, 32, 32), (8, 8, 8), True),
    ],
)
def test_the_way_of_computing_modes_is_the_one_that_was_measured_to_be_faster(
    space: tuple[int, ...], n_modes: tuple[int, ...], expected: bool
) -> None:
    assert is_faster_as_product(space, n_modes) is expected
