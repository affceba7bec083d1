"""Fields on other grids: exact where they can be, refused where not."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from helpers.grids import closed, periodic
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.grids import Boundary, Grid, Nodes
from data_gen.regrid import FACE_MEANS, MEANS, FaceMean, Mean, averaged, averaged_to_faces, interpolate, regrid


def _waves(grid: Grid, seed: int, k_max: int) -> np.ndarray:
    """A sum of all waves with |k_i| <= k_max on the grid's nodes, the same function on any grid."""
    rng = np.random.default_rng(seed)
    x = np.meshgrid(*grid.coordinates(), indexing="ij")
    total = np.zeros(grid.shape)
    for k in itertools.product(range(-k_max, k_max + 1), repeat=grid.n_dims):
        phase = sum(2 * math.pi * k_i / length * x_i for k_i, length, x_i in zip(k, grid.lengths, x, strict=True))
        a, b = rng.standard_normal(2)
        total += a * np.cos(phase) + b * np.sin(phase)
    return total


# Periodic axes --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 20), m=st.integers(2, 20), length=st.sampled_from([1.0, 6.5]), seed=st.integers(0, 99))
def test_waves_that_both_grids_hold_are_exact_in_one_dimension(n: int, m: int, length: float, seed: int) -> None:
    k_max = (min(n, m) - 1) // 2
    source, target = periodic(n, length=length), periodic(m, length=length)
    expected = _waves(target, seed, k_max)
    assert np.abs(regrid(_waves(source, seed, k_max), source, target) - expected).max() < 1e-12 * max(n, m)


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(5, 9), st.integers(5, 9)), other=st.tuples(st.integers(5, 9), st.integers(5, 9)))
def test_waves_that_both_grids_hold_are_exact_in_two_dimensions(shape: tuple[int, int], other: tuple[int, int]) -> None:
    source, target = periodic(*shape), periodic(*other)
    assert np.abs(regrid(_waves(source, 1, 2), source, target) - _waves(target, 1, 2)).max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 16), more=st.integers(0, 16), seed=st.integers(0, 99))
def test_there_and_back_again_is_the_cut_off_field(n: int, more: int, seed: int) -> None:
    # Only the Nyquist wave of an even grid is lost, and no second trip loses more.
    coarse, fine = periodic(n), periodic(n + more)
    values = np.random.default_rng(seed).standard_normal(n)
    back = regrid(regrid(values, coarse, fine), fine, coarse)
    spectrum = np.fft.rfft(values)
    if more and n % 2 == 0:
        spectrum[-1] = 0
    np.testing.assert_allclose(back, np.fft.irfft(spectrum, n), rtol=0, atol=1e-14)
    again = regrid(regrid(back, coarse, fine), fine, coarse)
    np.testing.assert_allclose(again, back, rtol=0, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 16), m=st.integers(2, 16), seed=st.integers(0, 99))
def test_the_mean_stays_and_a_refinement_keeps_the_energy(n: int, m: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((3, n))
    moved = regrid(values, periodic(n), periodic(m))
    np.testing.assert_allclose(moved.mean(axis=-1), values.mean(axis=-1), atol=1e-14)
    energy, before = (moved**2).mean(axis=-1), (values**2).mean(axis=-1)
    assert np.all(energy <= before * (1 + 1e-12))
    if m > n and n % 2:
        np.testing.assert_allclose(energy, before, rtol=1e-12)


@pytest.mark.parametrize("m", [3, 5, 7, 9, 16])
def test_the_nyquist_wave_of_an_even_grid_is_left_out(m: int) -> None:
    # A grid can't tell its phase, so no other grid can have it.
    assert np.abs(regrid(np.array([1.0, -1.0] * 4), periodic(8), periodic(m))).max() < 1e-15
    # Of a finer grid the wave that is Nyquist's on the coarser one goes too.
    wave = np.cos(2 * np.pi * 4 * np.arange(16) / 16)
    assert np.abs(regrid(wave, periodic(16), periodic(8))).max() < 1e-15


def test_an_equal_grid_changes_nothing() -> None:
    values = np.array([[1.0, -1.0], [3.0, 5.0]] * 4).T  # a Nyquist wave among it
    assert np.array_equal(regrid(values, periodic(2, 8), periodic(2, 8)), values)


def test_axes_before_those_of_space_are_carried_along() -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 7, 9)).astype(np.float32)
    source, target = periodic(7, 9), periodic(10, 5)
    moved = regrid(values, source, target)
    assert moved.shape == (2, 3, 4, 10, 5)
    assert moved.dtype == np.float64
    for index in itertools.product(range(2), range(3), range(4)):
        np.testing.assert_allclose(moved[index], regrid(values[index], source, target), atol=1e-14)


# Closed axes ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(intervals=st.integers(1, 6), stride=st.integers(1, 5))
def test_nodes_of_a_closed_axis_are_picked_out(intervals: int, stride: int) -> None:
    fine, coarse = closed(intervals * stride + 1), closed(intervals + 1)
    function: Callable[[np.ndarray], np.ndarray] = lambda x: np.exp(3 * x)  # noqa: E731
    picked = regrid(function(fine.coordinates()[0]), fine, coarse)
    np.testing.assert_allclose(picked, function(coarse.coordinates()[0]), rtol=1e-13)


def test_values_at_closed_nodes_are_taken_bit_by_bit() -> None:
    values = np.random.default_rng(0).standard_normal((2, 9, 13))
    assert np.array_equal(regrid(values, closed(9, 13), closed(3, 5)), values[:, ::4, ::3])


def test_every_axis_is_treated_in_its_own_way() -> None:
    boundary: tuple[Boundary, ...] = ("neumann", "periodic")
    nodes: tuple[Nodes, ...] = ("closed", "periodic")
    source, target = (Grid(shape, (2.0, 3.0), boundary, nodes) for shape in ((9, 6), (5, 11)))
    fields = []
    for grid in (source, target):
        x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
        fields.append(x**3 * (1 + np.cos(2 * np.pi * 2 * y / 3)))
    np.testing.assert_allclose(regrid(fields[0], source, target), fields[1], atol=1e-13)


@pytest.mark.parametrize(("n", "m"), [(9, 4), (5, 9), (9, 6), (9, 8)])
def test_closed_nodes_that_are_not_there_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=rf"^{m} nodes aren't among {n} \(closed\): .*Change refine"):
        regrid(np.zeros(n), closed(n), closed(m))


def test_averages_over_cells_are_merged() -> None:
    source, target, finer = (Grid((n, 4), (1.0, 1.0), ("neumann", "open"), ("centres", "centres")) for n in (9, 3, 18))
    values = np.random.default_rng(0).standard_normal((2, 9, 4))
    means = values.reshape(2, 3, 3, 4).mean(axis=2)
    np.testing.assert_allclose(regrid(values, source, target), means, rtol=1e-14)
    np.testing.assert_allclose(interpolate(values, source, target), means, rtol=1e-14)
    with pytest.raises(ValueError, match=r"^9 cells can't be merged into 18 \(centres\): .*Change refine"):
        regrid(values, source, finer)


@pytest.mark.parametrize(
    "target",
    [
        *(periodic(4, length=2.0), periodic(4, 4), closed(4)),
        *(Grid((4,), (1.0,), (b,), ("closed",)) for b in ("neumann", "open")),
    ],
)
def test_another_domain_is_refused(target: Grid) -> None:
    source = closed(7) if target.boundary == ("neumann",) else periodic(8)
    with pytest.raises(ValueError, match="their domains or boundaries differ"):
        regrid(np.zeros(source.shape), source, target)


# The grid that is asked for -------------------------------------------------------------------------------------------


# Interpolation --------------------------------------------------------------------------------------------------------


def test_closed_axes_are_interpolated_by_cubic_splines() -> None:
    coarse, fine = closed(9, 9), closed(33, 17)

    def field(grid: Grid) -> np.ndarray:
        x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
        return (x**3 - 2 * x * y**2 + y**3)[None]

    np.testing.assert_allclose(interpolate(field(coarse), coarse, fine), field(fine), atol=1e-12)
    np.testing.assert_allclose(interpolate(field(fine), fine, coarse), field(coarse), atol=1e-12)


def test_interpolation_of_a_smooth_field_is_of_fourth_order() -> None:
    fine = closed(241)

    def error(n: int) -> float:
        coarse = closed(n)
        (x,), (there,) = coarse.coordinates(), fine.coordinates()
        return float(np.abs(interpolate(np.cos(9 * x), coarse, fine) - np.cos(9 * there)).max())

    assert math.log2(error(16) / error(31)) == pytest.approx(4, abs=0.5)


def test_periodic_axes_are_interpolated_by_their_fourier_series() -> None:
    source, target = periodic(12, 9), periodic(7, 16)
    values = _waves(source, seed=3, k_max=4)
    np.testing.assert_array_equal(interpolate(values, source, target), regrid(values, source, target))


def test_other_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="domains or boundaries differ"):
        interpolate(np.zeros(8), periodic(8), periodic(16, length=2.0))


# Means over cells -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 7, 13])
@pytest.mark.parametrize("mean", MEANS)
def test_means_over_cells_of_layers_and_chessboards_are_known(n: int, mean: Mean) -> None:
    # A coefficient of 1 and 3 in turns: across layers 1.5 is effective (harmonic), along them 2 (arithmetic), and for a
    # chessboard the root of 3 (geometric). Cells inside of even width hold as many points of one as of the other.
    fine, coarse = closed(49, 49), closed(n, n)
    parity = np.add.outer(np.arange(49), np.arange(49)) % 2
    layers = np.arange(49)[:, None] % 2 + 0 * parity
    for pattern in (layers, parity):
        found = averaged(np.where(pattern, 3.0, 1.0), fine, coarse, mean)
        assert found.shape == (n, n)
        expected = {"arithmetic": 2.0, "geometric": 3**0.5, "harmonic": 1.5}[mean]
        np.testing.assert_allclose(found[1:-1, 1:-1], expected, rtol=1e-12)


@pytest.mark.parametrize("n", [4, 7, 13])
@pytest.mark.parametrize("mean", FACE_MEANS)
def test_means_over_faces_of_layers_are_those_across_and_along_them(n: int, mean: FaceMean) -> None:
    layers = np.where(np.arange(49) % 2, 3.0, 1.0)[None, :, None] + np.zeros((1, 49, 49))
    across, along = averaged_to_faces(layers, n, mean)
    assert (across.shape, along.shape) == ((1, n - 1, n), (1, n, n - 1))
    np.testing.assert_allclose(across, 1.5, rtol=1e-12)
    np.testing.assert_allclose(along[:, 1:-1], 2.0, rtol=1e-12)


def test_means_over_faces_bound_each_other_and_need_no_nested_grids() -> None:
    values = np.random.default_rng(0).uniform(0.5, 4.0, (3, 20, 20))
    above, below, between = (averaged_to_faces(values, 7, mean) for mean in FACE_MEANS)
    for axis in range(2):
        assert (values.min() <= below[axis]).all()
        assert (below[axis] < between[axis]).all()
        assert (between[axis] < above[axis]).all()
        assert (above[axis] <= values.max()).all()


def test_an_arithmetic_mean_keeps_the_integral_and_any_mean_the_bounds() -> None:
    fine, coarse = closed(20, 17), closed(6, 9)
    values = np.random.default_rng(0).uniform(0.5, 4.0, (3, 20, 17))

    def integral(field: np.ndarray, grid: Grid) -> np.ndarray:
        return np.trapezoid(np.trapezoid(field, *grid.coordinates()[1:], axis=-1), *grid.coordinates()[:1], axis=-1)

    found = averaged(values, fine, coarse, "arithmetic")
    np.testing.assert_allclose(integral(found, coarse), integral(values, fine), rtol=1e-12)
    harmonic, geometric = (averaged(values, fine, coarse, mean) for mean in ("harmonic", "geometric"))
    assert (values.min() <= harmonic).all()
    assert (harmonic <= geometric).all()
    assert (geometric <= found).all()
    assert (found <= values.max()).all()


@pytest.mark.parametrize(
    ("grids", "value", "said"),
    [
        ((closed(9), closed(5)), 0.0, "needs positive values, got 0"),
        ((periodic(8), periodic(4)), 1.0, "need axes that are closed"),
        ((closed(9), periodic(4)), 1.0, "their domains or boundaries differ"),
    ],
)
def test_means_that_make_no_sense_are_refused(grids: tuple[Grid, Grid], value: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        averaged(np.full(grids[0].shape, value), *grids, "harmonic")
