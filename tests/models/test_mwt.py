"""MWT: filters of the multiwavelets, published parameter counts, equivariance of its layers, errors."""

from functools import reduce
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import build
from neuralop_bench.config.schema import constructor
from neuralop_bench.layers.coordinates import append_coordinates, append_distances
from neuralop_bench.layers.multiwavelets import Details, Multiwavelets, legendre, legendre_filters
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.mwt import MWT, LowModes, MultiwaveletLayer

DARCY = Grid((85, 85), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def decompose(x: Tensor, k: int, details: Details = "all") -> tuple[Tensor, Tensor]:
    return Multiwavelets(k, x.ndim - 2, details).decompose(x)


def reconstruct(s: Tensor, d: Tensor, k: int, details: Details = "all") -> Tensor:
    return Multiwavelets(k, s.ndim - 2, details).reconstruct(s, d)


# Gauss-Legendre quadrature on [0, 1] with many more points than the code has.
NODES, WEIGHTS = (np.polynomial.legendre.leggauss(30)[0] + 1) / 2, np.polynomial.legendre.leggauss(30)[1] / 2


def coefficients(polynomials: list[np.polynomial.Polynomial], k: int, n: int) -> Tensor:
    """[1, k^n_dims, n, ...]: a product of polynomials, one per axis, on n cells of [0, 1] per axis."""
    axes = []
    for polynomial in polynomials:
        cells = [legendre(k, NODES) @ (WEIGHTS * polynomial((cell + NODES) / n)) / np.sqrt(n) for cell in range(n)]
        axes.append(np.stack(cells, axis=1))  # [coefficient, cell]
    product = reduce(lambda a, b: np.einsum("ix,jy->ijxy", a, b).reshape(-1, n, n), axes)
    return torch.from_numpy(product)[None]


# Multiwavelets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, 4, 6, 10])
def test_filters_are_orthonormal_and_reconstruct_perfectly(k: int) -> None:
    H0, H1, G0, G1 = legendre_filters(k)
    one, zero = np.eye(k), np.zeros((k, k))
    for actual, expected in (
        (H0 @ H0.T + H1 @ H1.T, one),
        (G0 @ G0.T + G1 @ G1.T, one),
        (H0 @ G0.T + H1 @ G1.T, zero),
        (H0.T @ H0 + G0.T @ G0, one),
        (H1.T @ H1 + G1.T @ G1, one),
        (H0.T @ H1 + G0.T @ G1, zero),
    ):
        assert np.abs(actual - expected).max() < 1e-12
    # The paper's matrices Sigma, the Gram matrices of sqrt(2) phi_i(2x) on the left half and of sqrt(2) phi_i(2x - 1)
    # on the right half, are left out because they are identities.
    for first in (0.0, 0.5):
        values = np.sqrt(2) * legendre(k, 2 * (first + NODES / 2) - 2 * first)
        assert np.abs((WEIGHTS / 2 * values) @ values.T - one).max() < 1e-12


def test_filters_of_the_literature() -> None:
    # Alpert et al. (2002), by hand: phi_1 = sqrt(3) (2x - 1) is sqrt(3) (x - 1) + ... on either half.
    root = np.sqrt(3)
    H0, H1, G0, G1 = (np.sqrt(2) * matrix for matrix in legendre_filters(2))
    assert np.allclose(H0, [[1, 0], [-root / 2, 0.5]], atol=1e-14)
    assert np.allclose(H1, [[1, 0], [root / 2, 0.5]], atol=1e-14)
    # The first wavelet is the left cell's constant without its projection on 1 and x, normalised.
    assert np.allclose(G0, [[0.5, root / 2], [0, 1]], atol=1e-14)
    assert np.allclose(G1, [[-0.5, root / 2], [0, -1]], atol=1e-14)


@pytest.mark.parametrize("shape", [(16,), (8, 4), (4, 6, 2)])
@pytest.mark.parametrize("k", [1, 3])
def test_decomposition_and_reconstruction_are_inverse_and_keep_the_norm(k: int, shape: tuple[int, ...]) -> None:
    x = fields(2, 2 * k ** len(shape), *shape)
    s, d = decompose(x, k)
    assert s.shape == (2, x.shape[1], *(n // 2 for n in shape))
    assert d.shape == (2, (2 ** len(shape) - 1) * x.shape[1], *s.shape[2:])
    assert (reconstruct(s, d, k) - x).abs().max() < 1e-12
    assert abs(s.square().sum() + d.square().sum() - x.square().sum()) < 1e-10
    for part, again in zip((s, d), decompose(reconstruct(s, d, k), k), strict=True):
        assert (again - part).abs().max() < 1e-12


@pytest.mark.parametrize("n_dims", [1, 2])
def test_polynomials_below_degree_k_have_no_wavelets_and_those_of_degree_k_do(n_dims: int) -> None:
    k, n = 3, 8
    smooth = np.polynomial.Polynomial([0.3, -1.0, 2.0])
    x = coefficients([smooth] * n_dims, k, n)
    for _ in range(3):
        x, d = decompose(x, k)
        assert d.abs().max() < 1e-12
    assert (x - coefficients([smooth] * n_dims, k, 1)).abs().max() < 1e-12
    rough = coefficients([smooth * np.polynomial.Polynomial([0, 1]), *[smooth] * (n_dims - 1)], k, n)
    assert decompose(rough, k)[1].abs().max() > 1e-5


@pytest.mark.parametrize(("k", "shape"), [(2, (6,)), (3, (4, 6))])
def test_equals_the_definition_with_one_product_of_filters_for_each_band(k: int, shape: tuple[int, ...]) -> None:
    H0, H1, G0, G1 = (torch.from_numpy(matrix) for matrix in legendre_filters(k))
    x = fields(2, 2 * k ** len(shape), *shape)
    s, d = decompose(x, k)
    bands = [(H0, H1), (G0, G1)]
    found = [s, *d.chunk(2 ** len(shape) - 1, dim=1)]
    if len(shape) == 1:
        pairs = x.unflatten(1, (2, k))
        for (left, right), part in zip(bands, found, strict=True):
            expected = torch.einsum("ij,bcjx->bcix", left, pairs[..., ::2])
            expected = expected + torch.einsum("ij,bcjx->bcix", right, pairs[..., 1::2])
            torch.testing.assert_close(part, expected.flatten(1, 2))
        return
    pairs = x.unflatten(1, (2, k, k))
    products = [(first, second) for first in bands for second in bands]
    for (first, second), part in zip(products, found, strict=True):
        expected = torch.zeros(2, 2, k, k, *(n // 2 for n in shape), dtype=torch.float64)
        for p in (0, 1):
            for q in (0, 1):
                cells = pairs[..., p::2, q::2]
                expected += torch.einsum("ij,kl,bcjlxy->bcikxy", first[p], second[q], cells)
        torch.testing.assert_close(part, expected.flatten(1, 3))
    _, diagonal = decompose(x, k, "diagonal")
    assert torch.equal(diagonal, found[-1])
    only_diagonal = torch.cat([torch.zeros_like(d[:, : -x.shape[1]]), diagonal], dim=1)
    torch.testing.assert_close(reconstruct(s, diagonal, k, "diagonal"), reconstruct(s, only_diagonal, k))


# The network ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "in_channels", "overrides", "published"),
    [
        pytest.param(DARCY, 1, (), 45_674, id="darcy"),
        pytest.param(Grid.periodic(64), 10, ("model.lifting_width=512", "model.projection_width=256"), 70_890, id="ns"),
    ],
)
def test_the_networks_of_the_neural_solver_library_have_its_sizes(
    grid: Grid, in_channels: int, overrides: tuple[str, ...], published: int
) -> None:
    node = constructor(compose("model=mwt_nsl", *overrides).model)
    with torch.device("meta"):
        model = build(node)(in_channels=in_channels, out_channels=1, grid=grid)
    assert sum(p.numel() for p in model.parameters()) == published
    assert model._multiple == (128 if grid == DARCY else 64)


def test_the_count_of_a_layer_follows_the_closed_form() -> None:
    width, n_modes = 4 * 3**2, 5
    for details, n_details in (("all", 3 * width), ("diagonal", width)):
        layer = MultiwaveletLayer(4, 3, edges=("zeros",) * 2, n_modes=n_modes, n_levels=3, details=details)
        spectral = 2 * (2 * n_modes * n_modes) * n_details * width
        convolutions = 9 * (width + n_details) * width + 2 * width
        affine = 2 * (width + 1) * n_details + 2 * (width + 1) * width  # of A, B, C and T
        assert sum(p.numel() for p in layer.parameters()) == spectral + convolutions + affine


@pytest.mark.parametrize("space", [(16, 12), (9,), (8, 8, 10)])
def test_low_modes_are_a_spectral_convolution_where_the_grid_holds_them(space: tuple[int, ...]) -> None:
    low, full = LowModes(2, 3, (4,) * len(space)).double(), SpectralConv(2, 3, (4,) * len(space)).double()
    full.load_state_dict(low.state_dict())
    x = fields(2, 2, *space)
    torch.testing.assert_close(low(x), full(x), rtol=1e-11, atol=1e-12)


def test_low_modes_use_the_same_weights_on_coarse_grids() -> None:
    # A wave that both grids hold is mapped to the same function.
    low = LowModes(1, 1, (4, 4)).double()
    x = torch.arange(16, dtype=torch.float64) / 16
    wave = torch.cos(2 * torch.pi * (x[:, None] - x + 0.1))[None, None]
    torch.testing.assert_close(low(wave[..., ::4, ::4]), low(wave)[..., ::4, ::4])
    constant = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(low(constant)[0, 0, 0, 0], low.weight[0, 0, 0, 0, 0] + low.weight[0, -1, 0, 0, 0])


def test_without_maps_a_layer_keeps_the_coarsest_polynomial() -> None:
    # A = B = C = 0, T = 1: the projection on polynomials over the whole domain, which has norm 1 and is idempotent.
    layer = MultiwaveletLayer(1, 3, edges=("zeros", "zeros"), n_modes=2, n_levels=3).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
        layer.T.weight.copy_(torch.eye(9))
        x = fields(2, 9, 8, 8)
        projected = layer(x)
        torch.testing.assert_close(layer(projected), projected)
        torch.testing.assert_close((x * projected).sum(), projected.square().sum())
        for _ in range(3):
            x, d = decompose(projected, 3)
            assert d.abs().max() < 1e-12
            projected = x


def test_a_layer_commutes_with_shifts_of_coarsest_cells_on_a_torus() -> None:
    torch.manual_seed(0)
    layer = MultiwaveletLayer(2, 3, edges=("circular",) * 2, n_modes=2, n_levels=2).double()
    x = fields(2, 18, 16, 24)
    with torch.no_grad():
        y = layer(x)
        for shift, commutes in (((4, -8), True), ((12, 4), True), ((2, 0), False), ((0, 1), False)):
            defect = (layer(x.roll(shift, (2, 3))) - y.roll(shift, (2, 3))).abs().max()
            assert bool(defect < 1e-12) is commutes


def test_padding_of_a_closed_axis_is_zeros_and_of_a_periodic_axis_its_own_beginning() -> None:
    grid = Grid((13, 10), (1.0, 1.0), ("dirichlet", "periodic"), ("closed", "periodic"))
    torch.manual_seed(0)
    model = MWT(in_channels=1, out_channels=1, grid=grid, channels=1, k=2, n_modes=2, n_levels=2).double()
    x = fields(2, 1, *grid.shape)
    v = model.lifting(append_coordinates(x, grid.nodes))
    v = torch.cat([v, v[..., :2]], dim=3)
    v = torch.cat([v, torch.zeros(2, 4, 3, 12, dtype=torch.float64)], dim=2)
    v = model.layers[1](torch.nn.functional.gelu(model.layers[0](v)))
    torch.testing.assert_close(model(x), model.projection(v[:, :, :13, :10]))


def test_distances_are_those_to_a_lattice() -> None:
    nodes = ("closed", "periodic")
    x = fields(2, 3, 5, 4)
    with_distances = append_distances(x, nodes, 3)
    assert torch.equal(with_distances[:, :3], x)
    rows, columns = append_coordinates(x, nodes)[0, 3:]
    lattice = [(i / 2, j / 2) for i in range(3) for j in range(3)]
    for channel, (row, column) in enumerate(lattice, start=3):
        torch.testing.assert_close(with_distances[1, channel], torch.hypot(rows - row, columns - column))


CLOSED = Grid((85, 17), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "needs model.k to be at least 1, got 0"),
        ({"channels": 0}, "needs model.channels to be at least 1, got 0"),
        ({"n_modes": 0}, "needs model.n_modes to be at least 1, got 0"),
        ({"n_layers": 0}, "needs model.n_layers to be at least 1, got 0"),
        ({"n_levels": 0}, "needs model.n_levels to be at least 1, got 0"),
        ({"n_levels": 6}, r"n_levels=6 times, .* shape \(85, 17\): n_levels must be at most 5. Lower model.n_levels"),
        ({"n_levels": 2, "n_modes": 6}, "keeps n_modes=6 .* only holds 5. Lower model.n_modes"),
        ({"lifting_width": 0}, "needs model.lifting_width to be at least 1, got 0"),
        ({"projection_width": 0}, "needs model.projection_width to be at least 1, got 0"),
        ({"n_references": 0}, "needs model.n_references to be at least 1, got 0"),
        ({"details": "none"}, "model.details to be one of all, diagonal, got 'none'"),
        ({"coordinates": "closed"}, "model.coordinates to be one of nodes, distances, got 'closed'"),
        ({"activation": "sine"}, "model.activation to be one of gelu, gelu_tanh, relu, tanh, got 'sine'"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MWT(in_channels=1, out_channels=1, grid=CLOSED, **options)


def test_the_largest_sizes_that_the_messages_name_work() -> None:
    for options in ({"n_levels": 5, "n_modes": 8}, {"n_levels": 2, "n_modes": 5}):
        model = MWT(in_channels=1, out_channels=1, grid=CLOSED, channels=1, k=2, **options)
        output = model(torch.randn(1, 1, *CLOSED.shape))
        assert output.shape == (1, 1, *CLOSED.shape)
        output.sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in model.parameters())
