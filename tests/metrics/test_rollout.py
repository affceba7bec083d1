"""Metrics of long rollouts: crossings by hand, censored samples, predictions that aren't finite, a geometric mean."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy.stats import gmean

from data_gen.grids import Grid
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.metrics.rollout import CorrelationTime, GeometricMeanNRMSE, StableFraction

Measure = Callable[..., xr.Dataset]
GRID = Grid.periodic(32, n_dims=1)
X = GRID.coordinates()[0]
SINE, COSINE = math.sqrt(2) * np.sin(2 * math.pi * X), math.sqrt(2) * np.cos(2 * math.pi * X)


def at_angle(*correlations: float) -> np.ndarray:
    """Snapshots [time, channel, point] that correlate with the sine as given; amplitude and mean don't matter."""
    return np.stack([[7 + 3 * (r * SINE + math.sqrt(1 - r**2) * COSINE)] for r in correlations])


def timed(context: MetricContext, *times: float) -> MetricContext:
    return replace(context, spec=replace(context.spec, times=times))


def columns(metric: CorrelationTime, measure: Measure, prediction: np.ndarray, *times: float) -> dict[str, float]:
    target = np.broadcast_to(SINE, prediction.shape)
    return metric.summarise(measure(metric, prediction, target).assign_coords(time=list(times)))


def test_a_field_is_correlated_with_itself_and_with_its_negative_by_minus_one(
    measure: Measure, context: Callable
) -> None:
    metric = CorrelationTime(context(GRID))
    u = np.random.default_rng(0).standard_normal((3, 2, 1, 32)) + 5
    for sign in (1, -1):
        found = measure(metric, sign * 2 * u, u)["correlation"].values
        np.testing.assert_allclose(found, sign, rtol=1e-12)


def test_crossing_is_interpolated_from_the_last_given_frame(measure: Measure, context: Callable) -> None:
    # Frames at 0 and 2 are given. Between 4 (r = .9) and 6 (r = .7), 0.8 is passed at 5, which is 3 after the last.
    metric = CorrelationTime(timed(context(GRID), 0.0, 2.0, 4.0, 6.0, 8.0))
    found = columns(metric, measure, at_angle(0.9, 0.7, 0.95)[None], 4.0, 6.0, 8.0)
    assert found["correlation_time_0.8"] == pytest.approx(3, rel=1e-12)
    assert found["correlation_time_0.9"] == pytest.approx(2, rel=1e-9)
    assert found["correlation_time_0.95"] == pytest.approx(1, rel=1e-9)  # on the way from 1 to .9
    assert {found[f"correlation_censored_{r}"] for r in (0.8, 0.9, 0.95)} == {0.0}


def test_a_sample_that_never_falls_below_is_censored_at_the_horizon(measure: Measure, context: Callable) -> None:
    metric = CorrelationTime(timed(context(GRID), 0.0, 1.0, 2.0))
    prediction = np.stack([at_angle(0.99, 0.98), at_angle(0.6, 0.99), at_angle(1.0, 0.9)])
    found = columns(metric, measure, prediction, 1.0, 2.0)
    assert found["correlation_time_0.8"] == 2
    assert found["correlation_censored_0.8"] == pytest.approx(2 / 3)


def test_the_worst_channel_counts(measure: Measure, context: Callable) -> None:
    metric = CorrelationTime(timed(context(GRID, 2), 0.0, 1.0, 2.0))
    good, bad = at_angle(0.99, 0.99), at_angle(0.99, 0.5)
    found = columns(metric, measure, np.concatenate([good, bad], axis=1)[None], 1.0, 2.0)
    assert found["correlation_time_0.8"] == pytest.approx(1 + (0.99 - 0.8) / (0.99 - 0.5), rel=1e-12)


@pytest.mark.parametrize("value", [0.0, 4.2, np.nan, np.inf])
def test_a_prediction_that_is_constant_or_not_finite_has_no_correlation(
    value: float, measure: Measure, context: Callable
) -> None:
    metric = CorrelationTime(timed(context(GRID), 0.0, 1.0))
    found = columns(metric, measure, np.full((1, 1, 1, 32), value), 1.0)
    assert found["correlation_time_0.8"] == pytest.approx(0.2, rel=1e-12)  # from 1 to 0 in one step


def test_steady_problems_have_no_correlation_time(measure: Measure, context: Callable) -> None:
    found = columns(CorrelationTime(timed(context(GRID))), measure, at_angle(0.5)[None], 0.0)
    assert all(math.isnan(value) for value in found.values())


def test_stable_are_rollouts_that_stay_finite_and_near_the_data_at_every_step(
    measure: Measure, context: Callable
) -> None:
    target = np.broadcast_to(SINE, (4, 3, 1, 32))
    prediction = target.copy()
    prediction[1, 1] += 9.9  # nearly ten times the snapshot's standard deviation, which is 1
    prediction[2, 1] += 10.1  # for one step alone
    prediction[3, 2, 0, 5] = np.nan
    metric = StableFraction(context(GRID))
    assert metric.summarise(measure(metric, prediction, target)) == {"stable_fraction": 0.5}


@pytest.mark.parametrize(("n_steps", "exact"), [(100, False), (130, False), (100, True), (99, False)])
def test_the_geometric_mean_is_over_the_first_hundred_steps(
    n_steps: int, exact: bool, measure: Measure, context: Callable
) -> None:
    rng = np.random.default_rng(0)
    u = rng.standard_normal((3, n_steps, 1, 32))
    p = u * (1 + rng.uniform(0.01, 1, (3, n_steps, 1, 1)))
    p = np.where(np.arange(n_steps)[:, None, None] == 7, u, p) if exact else p
    metric = GeometricMeanNRMSE(context(GRID))
    found = metric.summarise(measure(metric, p, u))["nrmse_gmean_100"]
    # As in apebench 0.1.1: a mean over samples for each step, then scipy.stats.gmean over the steps.
    steps = (np.linalg.norm(p - u, axis=-1) / np.linalg.norm(u, axis=-1)).mean(axis=(0, 2))
    assert found == pytest.approx(float("nan") if n_steps < 100 else 0.0 if exact else gmean(steps[:100]), nan_ok=True)
