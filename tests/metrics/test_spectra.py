"""Spectra: Parseval, single modes in every quadrant and on every kind of axis, bands, cross spectrum, divergence."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr

from data_gen.grids import Grid
from neuralop_bench.metrics.bands import BANDS
from neuralop_bench.metrics.spectral import Shells, Spectra

Score = Callable[..., dict[str, float]]
Measure = Callable[..., xr.Dataset]

TORUS = Grid.periodic(32)
CLOSED_1D = Grid((85,), (1.0,), ("dirichlet",), ("closed",))
CLOSED_2D = Grid((41, 41), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)

GRIDS = [
    pytest.param(Grid.periodic(16, n_dims=1), id="1d-even"),
    pytest.param(Grid.periodic(15, n_dims=1, length=3.0), id="1d-odd"),
    pytest.param(Grid.periodic(12), id="2d-even"),
    pytest.param(Grid.periodic(13), id="2d-odd"),
    pytest.param(Grid((12, 17), (1.0, 2.5), ("periodic",) * 2, ("periodic",) * 2), id="2d-rectangular"),
    pytest.param(Grid.periodic(6, n_dims=3), id="3d"),
    pytest.param(Grid((16,), (1.0,), ("dirichlet",), ("closed",)), id="1d-closed-even"),
    pytest.param(Grid((17,), (2.0,), ("neumann",), ("closed",)), id="1d-closed-odd"),
    pytest.param(Grid((11, 14), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2), id="2d-closed"),
    pytest.param(Grid((10, 9), (2.0, 1.0), ("neumann",) * 2, ("centres",) * 2), id="2d-centres"),
    pytest.param(Grid((10, 9), (1.0, 3.0), ("periodic", "dirichlet"), ("periodic", "closed")), id="2d-channel"),
    pytest.param(Grid((9, 12), (1.0, 1.0), ("open", "periodic"), ("centres", "periodic")), id="2d-centres-periodic"),
]


def wave(grid: Grid, *k: float, phase: float = 0.0) -> np.ndarray:
    """cos(2 pi k.x + phase) with k in cycles per unit length, as [sample, time, channel, *space]."""
    mesh = np.meshgrid(*grid.coordinates(), indexing="ij")
    return np.cos(2 * math.pi * sum(k_j * x for k_j, x in zip(k, mesh, strict=True)) + phase)[None, None, None]


def point_weights(grid: Grid) -> np.ndarray:
    """Weights of the points with sum 1: equal, and half as large at the ends of a closed axis."""
    weights = np.ones(())
    for n, nodes in zip(grid.shape, grid.nodes, strict=True):
        axis = np.ones(n)
        if nodes == "closed":
            axis[[0, -1]] = 0.5
        weights = weights[..., None] * (axis / axis.sum())
    return weights


@pytest.mark.parametrize("grid", GRIDS)
def test_shells_and_corner_add_up_to_the_variance(grid: Grid, measure: Measure, context: Callable) -> None:
    rng = np.random.default_rng(0)
    target, prediction = 3 + rng.standard_normal((2, 2, 3, 2, *grid.shape))
    measured = measure(Spectra(context(grid, 2)), prediction, target)
    space = tuple(range(3, target.ndim))
    weights = point_weights(grid)

    def centred(values: np.ndarray) -> np.ndarray:
        return values - (weights * values).sum(axis=space, keepdims=True)

    u, p = centred(target), centred(prediction)
    for name, product in {
        "energy_target": u * u,
        "energy_prediction": p * p,
        "energy_error": (p - u) ** 2,
        "cross_spectrum": p * u,
    }.items():
        expected = (weights * product).sum(axis=space)
        np.testing.assert_allclose(measured[name].sum("shell").values, expected, rtol=1e-10, atol=1e-12)
    for name in ("target", "error"):
        bands, shells = measured[f"band_energy_{name}"].sum("band"), measured[f"energy_{name}"].sum("shell")
        np.testing.assert_allclose(bands.values, shells.values, rtol=1e-12)


@pytest.mark.parametrize(
    ("k", "shell", "band"),
    [
        *(((k1, k2), 6, "mid") for k1 in (3, -3) for k2 in (5, -5)),  # |k| = 5.83, in every quadrant
        *((k, 2, "low") for k in [(2, 0), (0, 2), (-2, 0), (0, -2), (1, -2), (-2, -1)]),
        ((1, -1), 1, "low"),  # 1.41
        ((2, 3), 4, "mid"),  # |k| = 3.61, just above the edge of 3.5
        ((-2, 2), 3, "low"),  # 2.83
        ((3, -1), 3, "low"),  # 3.16
        ((-9, 7), 11, "mid"),  # 11.40, just below the edge of 11.5
        ((-11, 4), 12, "high"),  # 11.70
        ((15, -3), 15, "high"),
        ((-12, 12), 17, "high"),  # 16.97, beyond the smallest Nyquist wavenumber: the corner
        ((15, 15), 17, "high"),  # far into the corner
    ],
)
def test_a_single_mode_lands_in_its_shell_and_band(
    k: tuple[int, int], shell: int, band: str, measure: Measure, context: Callable
) -> None:
    target = 2 * wave(TORUS, *k, phase=0.4) + 5
    measured = measure(Spectra(context(TORUS)), target, target)
    energy = measured["energy_target"].values[0, 0, 0]
    assert energy.shape == (17,)  # shells 1 ... 16 and the corner
    assert energy[shell - 1] == pytest.approx(2.0, rel=1e-12)
    assert np.delete(energy, shell - 1).max() < 1e-24
    bands = dict(zip(BANDS, measured["band_energy_target"].values[0, 0, 0], strict=True))
    assert bands.pop(band) == pytest.approx(2.0, rel=1e-12)
    assert max(bands.values()) < 1e-24


@pytest.mark.parametrize(
    ("k", "shell", "band"),
    [
        *(((k1, k2, k3), 6, "mid") for k1 in (3, -3) for k2 in (4, -4) for k3 in (4, -4)),  # 6.40, in every octant
        ((2, -2, 2), 3, "low"),  # 3.46, just below the edge of 3.5
        ((-5, 5, 5), 9, "mid"),  # 8.66, beyond the smallest Nyquist wavenumber: the corner
        ((7, -7, 7), 9, "high"),  # 12.12
    ],
)
def test_a_single_mode_in_three_dimensions_lands_in_its_shell_and_band(
    k: tuple[int, int, int], shell: int, band: str, measure: Measure, context: Callable
) -> None:
    cube = Grid.periodic(16, n_dims=3)
    target = 2 * wave(cube, *k, phase=0.4) + 5
    measured = measure(Spectra(context(cube)), target, target)
    energy = measured["energy_target"].values[0, 0, 0]
    expected = np.where(np.arange(1, 10) == shell, 2.0, 0.0)  # shells 1 ... 8 and the corner
    np.testing.assert_allclose(energy, expected, atol=1e-12)
    assert measured["band_energy_target"].values[0, 0, 0, BANDS.index(band)] == pytest.approx(2.0, rel=1e-12)


@pytest.mark.parametrize("k", [(3, -5), (-3, 5), (5, -3), (-5, -3)])
def test_an_error_in_another_quadrant_than_the_field_is_seen(
    k: tuple[int, int], score: Score, context: Callable
) -> None:
    target = wave(TORUS, 3, 5) + wave(TORUS, 1, 0) + wave(TORUS, 0, 13)
    columns = score(Spectra(context(TORUS)), target + 0.1 * wave(TORUS, *k), target)
    assert columns["spec_mid"] == pytest.approx(0.1, rel=1e-12)
    assert columns["spec_mid_mean"] == pytest.approx(0.1, rel=1e-12)
    assert columns["spec_low"] < 1e-12
    assert columns["spec_high"] < 1e-12


@pytest.mark.parametrize(("k", "shell"), [(1, 1), (2, 2), (60, 60), (83, 83)])
def test_a_cosine_on_a_closed_axis_keeps_all_its_energy_in_its_shell(
    k: int, shell: int, measure: Measure, context: Callable
) -> None:
    # cos(k pi x) has k/2 cycles; a transform with other end points (DCT-II) would spread k = 60 over its neighbours.
    target = wave(CLOSED_1D, k / 2)
    energy = measure(Spectra(context(CLOSED_1D)), target, target)["energy_target"].values[0, 0, 0]
    assert energy.shape == (85,)
    assert energy[shell - 1] == pytest.approx(0.5, rel=1e-12)
    assert energy.sum() == pytest.approx(0.5, rel=1e-12)


def test_a_cosine_on_cell_centres_keeps_all_its_energy_in_its_shell(measure: Measure, context: Callable) -> None:
    grid = Grid((30,), (1.0,), ("neumann",), ("centres",))
    target = wave(grid, 7 / 2)
    energy = measure(Spectra(context(grid)), target, target)["energy_target"].values[0, 0, 0]
    assert energy[6] == pytest.approx(0.5, rel=1e-12)
    assert energy.sum() == pytest.approx(0.5, rel=1e-12)


def test_a_product_of_cosines_on_a_closed_square(measure: Measure, context: Callable) -> None:
    # cos 6 pi x cos 8 pi y: kappa = (3, 4), |kappa| = 5 cycles, shells half a cycle wide.
    x, y = np.meshgrid(*CLOSED_2D.coordinates(), indexing="ij")
    target = (np.cos(6 * math.pi * x) * np.cos(8 * math.pi * y))[None, None, None]
    measured = measure(Spectra(context(CLOSED_2D)), target, target)
    assert measured["energy_target"].values[0, 0, 0, 9] == pytest.approx(0.25, rel=1e-12)
    assert measured["band_energy_target"].values[0, 0, 0].tolist() == pytest.approx([0.0, 0.25, 0.0], abs=1e-15)


def test_wavenumbers_of_a_rectangular_domain_are_cycles_per_length(measure: Measure, context: Callable) -> None:
    # Lengths 1 and 2: shells are 1/2 cycle wide; the longest side counts for the bands, so (3, 0) means 6.
    grid = Grid((16, 24), (1.0, 2.0), ("periodic",) * 2, ("periodic",) * 2)
    shells = Shells(grid)
    assert shells.n_shells == 12  # the smallest Nyquist wavenumber is 6, along the second axis
    assert shells.wavenumbers.tolist() == [b / 2 for b in range(1, 13)]
    for k, shell, band in [
        ((3, 0), 6, 1),
        ((0, 3), 6, 1),
        ((0, 0.5), 1, 0),
        ((0, 1.5), 3, 0),
        ((0, 2), 4, 1),
        ((5, -3), 12, 2),
    ]:
        measured = measure(Spectra(context(grid)), wave(grid, *k), wave(grid, *k))
        assert measured["energy_target"].values[0, 0, 0, shell - 1] == pytest.approx(0.5, rel=1e-12), k
        assert measured["band_energy_target"].values[0, 0, 0, band] == pytest.approx(0.5, rel=1e-12), k


@pytest.mark.parametrize("n", [32, 33, 65])
def test_number_of_shells_is_the_nyquist_wavenumber(n: int) -> None:
    assert Shells(Grid.periodic(n)).n_shells == n // 2


def test_pooled_and_averaged_band_errors_by_hand(score: Score, context: Callable) -> None:
    # Two samples of energies 1/2 and 8 (amplitudes 1 and 4) with error amplitudes 1 and 1 in the band mid.
    low, mid, high = wave(TORUS, 1, 0), wave(TORUS, 0, 6), wave(TORUS, 14, 0)
    target = np.concatenate([low + mid + high, low + 4 * mid + high])
    error = np.concatenate([wave(TORUS, 4, -4), wave(TORUS, -7, 0)])
    columns = score(Spectra(context(TORUS)), target + error, target)
    assert columns["spec_mid"] == pytest.approx(math.sqrt((1 + 1) / (1 + 16)), rel=1e-12)
    assert columns["spec_mid_mean"] == pytest.approx((1 / 1 + 1 / 4) / 2, rel=1e-12)
    assert columns["spec_low"] < 1e-12
    assert columns["spec_high"] < 1e-12


def test_the_mean_of_a_field_is_left_out(score: Score, context: Callable) -> None:
    target = wave(TORUS, 1, 2) + wave(TORUS, 0, 6) + wave(TORUS, 14, 0)
    columns = score(Spectra(context(TORUS)), target + 100, target)
    assert max(columns[f"spec_{band}"] for band in BANDS) < 1e-12


def test_a_band_below_rounding_is_not_measured(score: Score, context: Callable) -> None:
    # The high band holds 1e-12 of the energy: rounding, not signal, however large the error there.
    target = wave(TORUS, 1, 0) + wave(TORUS, 6, 0) + math.sqrt(2) * 1e-6 * wave(TORUS, 14, 0)
    columns = score(Spectra(context(TORUS)), target + wave(TORUS, 0, 14), target)
    assert math.isnan(columns["spec_high"])
    assert math.isnan(columns["spec_high_mean"])
    assert columns["n_floored_spec_high"] == 1
    assert columns["spec_mid"] < 1e-12
    assert columns["n_floored_spec_mid"] == 0


@pytest.mark.parametrize(("share", "is_measured"), [(0.5e-10, False), (2e-10, True)])
def test_the_bound_of_rounding_is_a_share_of_all_energy(
    share: float, is_measured: bool, score: Score, context: Callable
) -> None:
    target = wave(TORUS, 1, 0) + wave(TORUS, 6, 0) + math.sqrt(2 * share) * wave(TORUS, 14, 0)
    columns = score(Spectra(context(TORUS)), target, target)
    assert math.isnan(columns["spec_high"]) is not is_measured


def test_a_sample_without_energy_in_a_band_is_floored_and_counted(score: Score, context: Callable) -> None:
    # The band is measurable over the split, but one sample has next to nothing there.
    rich, poor = wave(TORUS, 1, 0) + wave(TORUS, 6, 0), wave(TORUS, 1, 0)
    target = np.concatenate([rich, poor])
    error = np.concatenate([0 * rich, 1e-5 * wave(TORUS, 0, 6)])
    columns = score(Spectra(context(TORUS)), target + error, target)
    assert columns["n_floored_spec_mid"] == 1
    # sqrt(1e-10 E / (1e-10 E)) in one of two samples.
    assert columns["spec_mid_mean"] == pytest.approx(0.5, rel=1e-6)
    assert columns["spec_mid"] == pytest.approx(1e-5, rel=1e-6)


def test_a_flat_sample_leaves_the_columns_defined(score: Score, context: Callable) -> None:
    # A snapshot that is constant in space has no energy at all once its mean is removed.
    target = np.concatenate([wave(TORUS, 1, 0), np.full((1, 1, 1, *TORUS.shape), 2.0)])
    columns = score(Spectra(context(TORUS)), target, target)
    assert columns["spec_low"] == 0
    assert columns["spec_low_mean"] == 0
    assert columns["n_floored_spec_low"] == 1


@pytest.mark.parametrize(("phase", "expected"), [(0.0, 0.5), (math.pi, -0.5), (math.pi / 2, 0.0), (math.pi / 3, 0.25)])
def test_cross_spectrum_has_the_sign_of_the_correlation(
    phase: float, expected: float, measure: Measure, context: Callable
) -> None:
    target, prediction = wave(TORUS, 3, -5), wave(TORUS, 3, -5, phase=phase)
    cross = measure(Spectra(context(TORUS)), prediction, target)["cross_spectrum"].values[0, 0, 0]
    assert cross[5] == pytest.approx(expected, abs=1e-12)
    assert np.abs(np.delete(cross, 5)).max() < 1e-24


def test_a_diverged_snapshot_has_an_infinite_error_in_every_band_and_no_correlation(
    measure: Measure, context: Callable
) -> None:
    metric = Spectra(context(TORUS))
    field = wave(TORUS, 1, 0) + wave(TORUS, 6, 0) + wave(TORUS, 14, 0)
    target = np.tile(field, (3, 2, 1, 1, 1))
    prediction = target.copy()
    prediction[1, 1, 0, 3, 4] = np.nan
    measured = measure(metric, prediction, target)
    is_bad = np.zeros((3, 2, 1), dtype=bool)
    is_bad[1, 1] = True
    for name in ("energy_error", "energy_prediction", "band_energy_error"):
        assert np.array_equal(np.isinf(measured[name].values).all(axis=-1), is_bad), name
        assert np.array_equal(np.isinf(measured[name].values).any(axis=-1), is_bad), name
    assert (measured["cross_spectrum"].values[1, 1] == 0).all()
    assert np.isfinite(measured["energy_target"].values).all()
    columns = metric.summarise(measured)
    assert {columns[f"spec_{band}"] for band in BANDS} == {math.inf}
    assert {columns[f"spec_{band}_mean"] for band in BANDS} == {math.inf}


def test_a_reference_that_isnt_finite_is_refused(score: Score, context: Callable) -> None:
    target = np.tile(wave(TORUS, 1, 0), (3, 2, 1, 1, 1))
    prediction = target.copy()
    target[1, 0, 0, 3, 4] = np.nan
    with pytest.raises(ValueError, match="reference"):
        score(Spectra(context(TORUS)), prediction, target)
