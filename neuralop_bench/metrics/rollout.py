"""How long a free-running prediction stays close to the reference; for rollouts longer than those of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.metrics.metric import MetricContext, mean, sample_pairs
from neuralop_bench.metrics.relative import VRMSE, RelativeL2, relative_l2_step, vrmse_step

# Below 0.8, structures are no longer in the right place.
CORRELATIONS = (0.8, 0.9, 0.95)
# Ten times as far off as the snapshot's own mean.
_UNSTABLE_VRMSE = 10.0
_SCORED_STEPS = 100
# A standard deviation below this fraction of the root mean square is a rounding error of the mean.
_ROUNDING = 1e-12


class CorrelationTime:
    """How long a prediction stays correlated with the reference.

        r(t) = cov_X(p, u) / sqrt(var_X p var_X u),    the smallest over c

    The time runs from the last frame of the history, where r is 1, until r first falls below a threshold, interpolated
    linearly between snapshots. A prediction that is constant in space, or isn't finite, has r = 0. A sample that stays
    above the threshold until the last step is censored: the median uses the time of that step, so it is a lower bound
    if at least half the samples are censored. On short horizons the time is of little use: even persistence stays above
    0.8 for the first half of ns2d's ten steps. Boards therefore take it from ``test_long``.

    Range: 0 to the time of the last step. Empty for steady problems.

    Columns:
        correlation_time_0.8, correlation_time_0.9, correlation_time_0.95: median over samples, in the dataset's units
            of time.
        correlation_censored_0.8, correlation_censored_0.9, correlation_censored_0.95: fraction of censored samples.
    """

    name: ClassVar[str] = "correlation"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {"correlation": ("sample", "time", "channel")}

    def __init__(self, context: MetricContext) -> None:
        self._times = context.spec.times

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return {"correlation": np.stack([_correlation(p, u) for p, u in sample_pairs(prediction, batch)])}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        curves = measured["correlation"].min("channel").transpose("sample", "time").values
        columns: dict[str, float] = {}
        for threshold in CORRELATIONS:
            columns[f"correlation_time_{threshold}"] = columns[f"correlation_censored_{threshold}"] = math.nan
            if not self._times:
                continue
            lost = [_crossing(curve, self._elapsed(measured), threshold) for curve in curves]
            columns[f"correlation_time_{threshold}"] = float(np.median([time for time, _ in lost]))
            columns[f"correlation_censored_{threshold}"] = mean(np.array([float(held) for _, held in lost]))
        return columns

    def _elapsed(self, measured: xr.Dataset) -> NDArray[np.float64]:
        """Times of the last frame of the history and of the predicted steps, counted from that frame."""
        predicted = measured["time"].values
        given = [time for time in self._times if time < predicted[0]]
        start = given[-1] if given else 0.0  # the initial state, which isn't among the snapshots
        return np.append(start, predicted) - start


class StableFraction:
    """How many rollouts neither blow up nor leave the range of the data.

        stable_fraction = fraction of n that are finite with sqrt(mean_X e^2 / max(var_X u, floor)) < 10 at all t and c

    The ratio and its floor are those of ``vrmse``. Boards take it from ``test_long``, a rollout several times as long
    as in training.

    Range: 0 to 1.

    Columns:
        stable_fraction: the fraction.
    """

    name: ClassVar[str] = "stability"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = VRMSE.variables

    def __init__(self, context: MetricContext) -> None:
        self._vrmse = VRMSE(context)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return self._vrmse.measure(prediction, batch)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        worst = vrmse_step(measured, self._vrmse.floor).max(("time", "channel")).values
        return {"stable_fraction": mean((worst < _UNSTABLE_VRMSE).astype(np.float64))}


class GeometricMeanNRMSE:
    """How the error grows over the first 100 steps, as one number.

        nrmse_gmean_100 = exp(mean over t = 1 ... 100 of log(mean over n and c of ||p - u|| / ||u||))

    Norms are over the points of a snapshot (``rel_l2_step``). The geometric mean gives the small errors of early steps
    the same weight as the large ones of late steps: halving either lowers the result equally. It is the score of
    APEBench.

    Range: 0 for a prediction that is exact at any step, without upper bound. Empty for rollouts of fewer than 100
    steps.

    Columns:
        nrmse_gmean_100: the geometric mean.

    Reference: Koehler et al. (2024), APEBench, arXiv 2411.00180, section 4 and the function ``aggregate_gmean``.
    """

    name: ClassVar[str] = "nrmse_gmean_100"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = RelativeL2.variables

    def __init__(self, context: MetricContext) -> None:
        self._squares = RelativeL2(context)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return self._squares.measure(prediction, batch)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        errors = relative_l2_step(measured).transpose("time", "sample", "channel").values
        if len(errors) < _SCORED_STEPS:
            return {self.name: math.nan}
        steps = [mean(step) for step in errors[:_SCORED_STEPS]]
        if min(steps) == 0:
            return {self.name: 0.0}
        return {self.name: math.exp(mean(np.log(steps)))}


def _correlation(p: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred Pearson correlation over the points, [time, channel]; 0 where either has no variance."""
    p, u = (x.reshape(*x.shape[:2], -1) for x in (p, u))
    finite = np.isfinite(p).all(axis=-1, keepdims=True)
    p = np.where(finite, p, 0.0)
    # The mean of a constant has a rounding error, so its variance isn't exactly 0.
    least_p, least_u = (_ROUNDING * np.sqrt(np.mean(x**2, axis=-1)) for x in (p, u))
    p, u = (x - x.mean(axis=-1, keepdims=True) for x in (p, u))
    size_p, size_u = (np.sqrt(np.mean(x**2, axis=-1)) for x in (p, u))
    varies = (size_p > least_p) & (size_u > least_u)
    return np.divide(np.mean(p * u, axis=-1), size_p * size_u, out=np.zeros_like(size_p), where=varies)


def _crossing(curve: NDArray[np.float64], elapsed: NDArray[np.float64], threshold: float) -> tuple[float, bool]:
    """When a curve that begins at 1 falls below the threshold, and whether it stays above it to the end instead."""
    values = np.append(1.0, curve)
    below = np.flatnonzero(values < threshold)
    if not len(below):
        return float(elapsed[-1]), True
    after = below[0]
    before = after - 1
    share = (values[before] - threshold) / (values[before] - values[after])
    return float(elapsed[before] + share * (elapsed[after] - elapsed[before])), False
