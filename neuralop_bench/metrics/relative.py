"""Errors relative to the size of the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.metrics.metric import EPS, MetricContext, mean, sample_pairs


class RelativeL2:
    """Size of the error relative to that of the reference, over the whole predicted trajectory: what boards rank by.

        rel_l2 = mean over n and c of ||p - u|| / ||u||,    norms over all predicted steps t and all points X

    It is the ratio of two norms of a trajectory, not the mean of a ratio per step: steps where the field is large count
    more. Channels count alike, whatever their units. Tables of the FNO, LSM and Transolver papers use the same
    definition (one channel).

    Range: 0 for an exact prediction, 1 for predicting zero everywhere, without upper bound.

    Columns:
        rel_l2: the mean over samples and channels.
        rel_l2_median, rel_l2_p95, rel_l2_max: median, 95th percentile and maximum over samples of the same ratio (mean
            over channels). The percentile is the error of a sample: nothing is interpolated.
        rel_l2_first_step, rel_l2_last_step: the ratio of one step alone, norms over its points, mean over samples and
            channels.
        n_floored_rel_l2: number of (sample, channel) whose reference has a root mean square below 1e-12.
    """

    name: ClassVar[str] = "rel_l2"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "error_mean_square": ("sample", "time", "channel"),
        "target_mean_square": ("sample", "time", "channel"),
    }

    def __init__(self, context: MetricContext) -> None:
        del context

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        error, target = [], []
        for p, u in sample_pairs(prediction, batch):
            error.append(_mean_square(p - u))
            target.append(_mean_square(u))
        return {"error_mean_square": np.stack(error), "target_mean_square": np.stack(target)}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        target = measured["target_mean_square"]
        per_sample = relative_l2_per_sample(measured).mean("channel").values
        steps = relative_l2_step(measured)
        return {
            "rel_l2": mean(per_sample),
            "rel_l2_median": float(np.median(per_sample)),
            # "higher" is a sample's own error; interpolating between a finite and an infinite one would give NaN.
            "rel_l2_p95": float(np.percentile(per_sample, 95, method="higher")),
            "rel_l2_max": float(per_sample.max()),
            "rel_l2_first_step": mean(steps.isel(time=0).values),
            "rel_l2_last_step": mean(steps.isel(time=-1).values),
            "n_floored_rel_l2": float((target.mean("time") < EPS).sum()),
        }


def per_sample_relative_l2(prediction: Trajectory, batch: Batch) -> list[float]:
    """``rel_l2`` of each sample: mean over channels of ||p - u|| / ||u||, norms over steps and points."""
    ratios = []
    for p, u in sample_pairs(prediction, batch):
        error, target = (_mean_square(x).mean(axis=0) for x in (p - u, u))
        ratios.append(mean(np.sqrt(error / np.maximum(target, EPS))))
    return ratios


def relative_l2_per_sample(measured: xr.Dataset) -> xr.DataArray:
    """``rel_l2`` before the mean: ||p - u|| / ||u|| over steps and points, per (sample, channel)."""
    return _ratio(measured["error_mean_square"].mean("time"), measured["target_mean_square"].mean("time"))


def relative_l2_step(measured: xr.Dataset) -> xr.DataArray:
    """``rel_l2_step``: ||p - u|| / ||u|| over the points, per (sample, time, channel)."""
    return _ratio(measured["error_mean_square"], measured["target_mean_square"])


class VRMSE:
    """Root mean square error of a snapshot in units of the snapshot's own standard deviation.

        vrmse = mean over n, t and c of sqrt(mean_X (p - u)^2 / max(var_X u, 1e-6 var_dataset))

    var_X is the biased variance over the points of a snapshot, var_dataset the variance of all training targets, one
    number per channel. Unlike rel_l2 it gives no credit for a large mean, and every step counts alike.

    The VRMSE of The Well takes the unbiased variance plus 1e-7 instead: smaller by a factor sqrt((N - 1) / N) for N
    points.

    Range: 0 for an exact prediction, 1 for predicting each snapshot's own spatial mean, without upper bound.

    Columns:
        vrmse: the mean over samples, steps and channels.
        n_floored_vrmse: number of snapshots and channels whose variance is below 1e-6 var_dataset.
    """

    name: ClassVar[str] = "vrmse"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "error_mean_square": ("sample", "time", "channel"),
        "target_variance": ("sample", "time", "channel"),
    }

    def __init__(self, context: MetricContext) -> None:
        self._floor = np.maximum(1e-6 * context.train_variance, EPS)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        error, variance = [], []
        for p, u in sample_pairs(prediction, batch):
            error.append(_mean_square(p - u))
            variance.append(_over_points(u).var(axis=-1))
        return {"error_mean_square": np.stack(error), "target_variance": np.stack(variance)}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        variance = measured["target_variance"].values
        ratio = measured["error_mean_square"].values / np.maximum(variance, self._floor)
        return {"vrmse": mean(np.sqrt(ratio)), "n_floored_vrmse": float((variance < self._floor).sum())}


class MaxError:
    """Largest error anywhere, relative to the largest value of the reference.

        max_error = mean over n and c of max |p - u| / max |u|,    maxima over all predicted steps t and all points X

    Range: 0 for an exact prediction, 1 for predicting zero everywhere, without upper bound.

    Columns:
        max_error: the mean over samples and channels.
        n_floored_max_error: number of (sample, channel) with max |u| below 1e-12.
    """

    name: ClassVar[str] = "max_error"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "error_max": ("sample", "channel"),
        "target_max": ("sample", "channel"),
    }

    def __init__(self, context: MetricContext) -> None:
        del context

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        error, target = [], []
        for p, u in sample_pairs(prediction, batch):
            error.append(_over_points(np.abs(p - u)).max(axis=(0, 2)))
            target.append(_over_points(np.abs(u)).max(axis=(0, 2)))
        return {"error_max": np.stack(error), "target_max": np.stack(target)}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        target, floor = measured["target_max"].values, math.sqrt(EPS)
        return {
            "max_error": mean(measured["error_max"].values / np.maximum(target, floor)),
            "n_floored_max_error": float((target < floor).sum()),
        }


def _over_points(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[time, channel, *space] as [time, channel, point]."""
    return values.reshape(*values.shape[:2], -1)


def _mean_square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.mean(_over_points(values) ** 2, axis=-1)


def _ratio(error: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    return (error / target.clip(min=EPS)) ** 0.5
