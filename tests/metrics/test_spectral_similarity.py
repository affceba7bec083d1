"""Other metrics of the spectra: bands that move with the grid, log-spectral distance, coherence."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from data_gen.grids import Grid
from neuralop_bench.metrics.spectral import Coherence, LogSpectralDistance, NormalizedBands

Score = Callable[..., dict[str, float]]
Measure = Callable[..., xr.Dataset]

TORUS = Grid.periodic(32)


def wave(*k: float, phase: float = 0.0, amplitude: float = 1.0) -> np.ndarray:
    """A mode of the torus, [sample, time, channel, *space]."""
    mesh = np.meshgrid(*TORUS.coordinates(), indexing="ij")
    angle = 2 * math.pi * sum(k_j * x for k_j, x in zip(k, mesh, strict=True)) + phase
    return amplitude * np.cos(angle)[None, None, None]


def all_shells(factor: float = 1.0, phase: float = 0.0) -> np.ndarray:
    """One mode in each of the shells 1 ... 16, that of shell 16 at the Nyquist wavenumber of one axis."""
    return sum((wave(k, 0, phase=phase, amplitude=factor) for k in range(1, 16)), wave(0, 16, amplitude=factor))


# Bands of the training grid ------------------------------------------------------------------------------------------


def test_bands_follow_the_nyquist_wavenumber_of_the_training_grid(score: Score, context: Callable) -> None:
    # On 32 points the edges are 2 and 8, on 64 they are 4 and 16.
    target = wave(2, 0) + wave(0, 4) + wave(9, 0)
    error = 0.1 * wave(0, 2) + 0.2 * wave(4, 0) + 0.3 * wave(0, -9)
    here = context(TORUS)
    columns = score(NormalizedBands(here), target + error, target)
    assert columns == pytest.approx({"specn_low": 0.1, "specn_mid": 0.2, "specn_high": 0.3}, rel=1e-12)
    finer = replace(here, train_grid=Grid.periodic(64))
    columns = score(NormalizedBands(finer), target + error, target)
    assert columns["specn_low"] == pytest.approx(math.sqrt((0.1**2 + 0.2**2) / 2), rel=1e-12)
    assert columns["specn_mid"] == pytest.approx(0.3, rel=1e-12)
    assert math.isnan(columns["specn_high"])


def test_the_corner_belongs_to_the_highest_band(score: Score, context: Callable) -> None:
    target = wave(1, 0) + wave(3, 0) + wave(15, 14)
    columns = score(NormalizedBands(context(TORUS)), target + 0.5 * wave(15, -14), target)
    assert columns["specn_high"] == pytest.approx(0.5, rel=1e-12)
    assert columns["specn_mid"] < 1e-12


# Log-spectral distance -----------------------------------------------------------------------------------------------


def test_twice_the_energy_is_three_decibels_whatever_the_phases(score: Score, context: Callable) -> None:
    target = all_shells()
    prediction = all_shells(math.sqrt(2), phase=1.0)
    columns = score(LogSpectralDistance(context(TORUS)), prediction, target)
    # The mode at the Nyquist wavenumber of an axis has four times the energy for its amplitude in both.
    assert columns["lsd_db"] == pytest.approx(10 * math.log10(2), rel=1e-9)
    assert (columns["lsd_db_lo"], columns["lsd_db_hi"]) == pytest.approx((columns["lsd_db"],) * 2, rel=1e-12)


def test_distance_is_the_root_mean_square_over_shells_of_decibels_of_mean_energies(
    score: Score, context: Callable
) -> None:
    # Shell 3 holds (1 + 9) / 2 of the reference and (4 + 36) / 2 of the prediction, in two samples; shell 5 is missing.
    target = np.concatenate([wave(3, 0) + wave(0, 5), wave(3, 0, amplitude=3) + wave(0, 5)])
    prediction = np.concatenate([wave(3, 0, amplitude=2), wave(3, 0, amplitude=6)])
    columns = score(LogSpectralDistance(context(TORUS)), prediction, target)
    f = 1e-10 * (0.5 + 4.5) / 2
    missing = 10 * math.log10(f / (0.5 + f))
    expected = math.sqrt(((10 * math.log10(4)) ** 2 + missing**2) / 16)
    assert columns["lsd_db"] == pytest.approx(expected, rel=1e-9)


def test_the_interval_holds_the_distance_and_does_not_depend_on_the_order(score: Score, context: Callable) -> None:
    rng = np.random.default_rng(0)
    target = rng.standard_normal((12, 1, 1, 32, 32))
    prediction = target * rng.uniform(0.5, 1.5, (12, 1, 1, 1, 1))
    metric = LogSpectralDistance(context(TORUS))
    columns = score(metric, prediction, target)
    assert columns["lsd_db_lo"] < columns["lsd_db"] < columns["lsd_db_hi"]
    order = rng.permutation(12)
    assert score(metric, prediction[order], target[order]) == columns


def test_a_sample_that_is_not_finite_makes_the_distance_infinite(score: Score, context: Callable) -> None:
    target = np.concatenate([all_shells(), all_shells()])
    prediction = target.copy()
    prediction[1, 0, 0, 3, 4] = np.nan
    columns = score(LogSpectralDistance(context(TORUS)), prediction, target)
    assert set(columns.values()) == {math.inf}


# Coherence -----------------------------------------------------------------------------------------------------------


def test_a_phase_lowers_the_coherence_by_its_cosine(score: Score, context: Callable) -> None:
    # 60 degrees are the limit: 59 at wavenumber 3 are coherent, 61 at wavenumber 6 aren't.
    target = wave(0, 3) + wave(6, 0) + wave(9, 0)
    prediction = 5 * wave(0, 3, phase=math.radians(59)) + wave(6, 0, phase=math.radians(61)) + wave(9, 0)
    columns = score(Coherence(context(TORUS)), prediction, target)
    assert columns == {"k_eff": 6, "k_eff_is_bound": 0}


def test_only_the_last_step_counts_and_samples_are_pooled(score: Score, context: Callable) -> None:
    # At the last step: agreement in a sample of energy 9, opposite phase in one of energy 1, so (9 - 1) / 10.
    good, bad = wave(4, 0, amplitude=3), wave(4, 0)
    first = np.zeros_like(good)
    target = np.concatenate([np.concatenate([first + bad, good], axis=1), np.concatenate([first + bad, bad], axis=1)])
    prediction = target.copy()
    prediction[:, 0] *= -1
    prediction[1, 1] *= -1
    columns = score(Coherence(context(TORUS)), prediction, target)
    assert columns == {"k_eff": 4, "k_eff_is_bound": 1}
    prediction[0, 1] *= -1
    assert score(Coherence(context(TORUS)), prediction, target) == {"k_eff": 4, "k_eff_is_bound": 0}


def test_texture_in_the_wrong_place_has_energy_but_no_coherence(score: Score, context: Callable) -> None:
    target = wave(2, 0) + wave(0, 12)
    prediction = wave(2, 0) + wave(12, 0)
    assert score(LogSpectralDistance(context(TORUS)), prediction, target)["lsd_db"] < 1e-6
    assert score(Coherence(context(TORUS)), prediction, target) == {"k_eff": 12, "k_eff_is_bound": 0}


def test_shells_below_rounding_are_passed_over(score: Score, context: Callable) -> None:
    target = wave(2, 0) + 1e-6 * wave(0, 7)
    columns = score(Coherence(context(TORUS)), wave(2, 0) - 1e-6 * wave(0, 7), target)
    assert columns == {"k_eff": 2, "k_eff_is_bound": 1}


def test_a_prediction_that_is_not_finite_is_coherent_nowhere(score: Score, context: Callable) -> None:
    target = wave(2, 0) + wave(0, 7)
    assert score(Coherence(context(TORUS)), target * np.nan, target) == {"k_eff": 2, "k_eff_is_bound": 0}


def test_k_eff_counts_cycles_on_closed_grids_too(score: Score, context: Callable) -> None:
    grid = Grid((33,), (2.0,), ("dirichlet",), ("closed",))
    x = grid.coordinates()[0] / 2
    target = (np.cos(2 * math.pi * 1.5 * x) + np.cos(2 * math.pi * 4 * x))[None, None, None]
    prediction = (np.cos(2 * math.pi * 1.5 * x) - np.cos(2 * math.pi * 4 * x))[None, None, None]
    assert score(Coherence(context(grid)), prediction, target)["k_eff"] == pytest.approx(4, rel=1e-12)
