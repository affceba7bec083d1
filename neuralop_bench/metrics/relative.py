"""Errors relative to the size of the reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import scipy.fft
import xarray as xr
from numpy.typing import NDArray

from data_gen.grids import Grid, Nodes
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.metrics.metric import MetricContext, floor_of, mean, own_or_smallest, sample_pairs
from neuralop_bench.metrics.spectral import squared_magnitude

# Lower bound on the variance of a snapshot, as a fraction of the dataset's: a thousandth of its standard deviation.
_VARIANCE_FLOOR = 1e-6


class RelativeL2:
    """Size of the error relative to that of the reference, over the whole predicted trajectory. Boards rank by it.

        rel_l2 = mean over n and c of ||p - u|| / ||u||,    norms over all predicted steps t and all points X

    It is the ratio of two norms of a trajectory, not the mean of a ratio per step, so steps where the field is large
    count more. All channels count equally, whatever their units. The tables of the FNO, LSM and Transolver papers use
    the same definition (with one channel).

    Range: 0 for an exact prediction, 1 for predicting zero everywhere, without upper bound.

    Columns:
        rel_l2: the mean over samples and channels.
        rel_l2_median, rel_l2_p95, rel_l2_max: median, 95th percentile and maximum over samples of the same ratio (mean
            over channels). The percentile is the error of one of the samples, without interpolation.
        rel_l2_first_step, rel_l2_last_step: the ratio for a single step, with norms over its points; mean over samples
            and channels.
        n_floored_rel_l2: number of (sample, channel) whose reference has a root mean square below 1 % of its channel's.
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
        per_sample = relative_l2_per_sample(measured).mean("channel").values
        steps = relative_l2_step(measured)
        return {
            "rel_l2": mean(per_sample),
            "rel_l2_median": float(np.median(per_sample)),
            # "higher" picks the error of a sample; interpolating between a finite and an infinite one would give NaN.
            "rel_l2_p95": float(np.percentile(per_sample, 95, method="higher")),
            "rel_l2_max": float(per_sample.max()),
            "rel_l2_first_step": mean(steps.isel(time=0).values),
            "rel_l2_last_step": mean(steps.isel(time=-1).values),
            "n_floored_rel_l2": float(vanishing(measured).sum()),
        }


def mean_squares(prediction: Trajectory, batch: Batch) -> NDArray[np.float64]:
    """Mean squares of error and reference over steps and points, [sample, 2, channel]."""
    pairs = sample_pairs(prediction, batch)
    return np.array([[_mean_square(x).mean(axis=0) for x in (p - u, u)] for p, u in pairs])


def relative_l2_of(squares: NDArray[np.float64]) -> float:
    """``rel_l2`` from the ``mean_squares`` of all samples of a split."""
    error, target = squares[:, 0], squares[:, 1]
    ratios = np.sqrt(error / np.maximum(target, floor_of(target)))
    return mean(np.array([mean(of_sample) for of_sample in ratios]))


def relative_l2_per_sample(measured: xr.Dataset) -> xr.DataArray:
    """``rel_l2`` before the mean: ||p - u|| / ||u|| over steps and points, per (sample, channel)."""
    return _ratio(measured["error_mean_square"].mean("time"), measured["target_mean_square"].mean("time"))


def vanishing(measured: xr.Dataset) -> xr.DataArray:
    """Whether the lower bound applies to a reference in ``rel_l2``, per (sample, channel)."""
    target = measured["target_mean_square"].mean("time")
    return target < _floor(target)


def relative_l2_step(measured: xr.Dataset) -> xr.DataArray:
    """``rel_l2_step``: ||p - u|| / ||u|| over the points, per (sample, time, channel)."""
    return _ratio(measured["error_mean_square"], measured["target_mean_square"])


class NRMSE:
    """Root mean square error of a snapshot in units of the snapshot's own root mean square.

        nrmse = mean over n, t and c of sqrt(mean_X (p - u)^2 / mean_X u^2)

    It is a mean of ratios per step, as in the tables of PDEBench; rel_l2 is one ratio per trajectory. So all steps
    count equally: those where the field has decayed count as much as those where it is large.

    Range: 0 for an exact prediction, 1 for predicting zero everywhere, without upper bound.

    Columns:
        nrmse: the mean over samples, steps and channels.
        n_floored_nrmse: number of snapshots and channels whose root mean square is below 1 % of the channel's.

    Reference: Takamoto et al. (2022), PDEBench, arXiv 2210.07182, appendix B.
    """

    name: ClassVar[str] = "nrmse"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = RelativeL2.variables

    def __init__(self, context: MetricContext) -> None:
        self._squares = RelativeL2(context)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        return self._squares.measure(prediction, batch)

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        target = measured["target_mean_square"]
        return {
            "nrmse": mean(relative_l2_step(measured).values),
            "n_floored_nrmse": float((target < _floor(target)).sum()),
        }


class RelativeH1:
    """Error of the field and of its gradient together, relative to those of the reference.

        rel_h1 = mean over n and c of sqrt(||e||^2 + ||grad e||^2) / sqrt(||u||^2 + ||grad u||^2),    e = p - u

    Norms are over all predicted steps t and all points X, and derivatives are with respect to physical lengths. Along a
    periodic axis they are those of the Fourier series: a factor 2 pi i k / L for every mode but that of the Nyquist
    wavenumber, whose derivative vanishes at the points. Along other axes they are central differences, one-sided at the
    ends, both of second order. The gradient weights a mode of wavenumber k by 2 pi k / L, so small scales count far
    more than in rel_l2.

    Range: 0 for an exact prediction, 1 for predicting zero everywhere, without upper bound.

    Columns:
        rel_h1: the mean over samples and channels.
        n_floored_rel_h1: number of (sample, channel) whose reference has a norm below 1 % of its channel's.
    """

    name: ClassVar[str] = "rel_h1"
    version: ClassVar[int] = 1
    variables: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **RelativeL2.variables,
        "error_gradient_mean_square": ("sample", "time", "channel"),
        "target_gradient_mean_square": ("sample", "time", "channel"),
    }

    def __init__(self, context: MetricContext) -> None:
        self._grid = context.spec.grid

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in self.variables}
        for p, u in sample_pairs(prediction, batch):
            error = p - u
            rows["error_mean_square"].append(_mean_square(error))
            rows["target_mean_square"].append(_mean_square(u))
            rows["error_gradient_mean_square"].append(_gradient_mean_square(error, self._grid))
            rows["target_gradient_mean_square"].append(_gradient_mean_square(u, self._grid))
        return {name: np.stack(values) for name, values in rows.items()}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        error, target = (
            (measured[f"{name}_mean_square"] + measured[f"{name}_gradient_mean_square"]).mean("time")
            for name in ("error", "target")
        )
        return {
            "rel_h1": mean(_ratio(error, target).values),
            "n_floored_rel_h1": float((target < _floor(target)).sum()),
        }


class VRMSE:
    """Root mean square error of a snapshot in units of the snapshot's own standard deviation.

        vrmse = mean over n, t and c of sqrt(mean_X (p - u)^2 / max(var_X u, 1e-6 var_dataset))

    var_X is the biased variance over the points of a snapshot, var_dataset the variance of all training targets, one
    number per channel. A channel that never varies in training takes the smallest variance of the others. Unlike rel_l2
    it gives no credit for a large mean, and all steps count equally.

    The VRMSE of The Well takes the unbiased variance plus 1e-7 instead, which is smaller by a factor sqrt((N - 1) / N)
    for N points.

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
        self.floor = _VARIANCE_FLOOR * own_or_smallest(context.train_variance)

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]:
        error, variance = [], []
        for p, u in sample_pairs(prediction, batch):
            error.append(_mean_square(p - u))
            variance.append(_over_points(u).var(axis=-1))
        return {"error_mean_square": np.stack(error), "target_variance": np.stack(variance)}

    def summarise(self, measured: xr.Dataset) -> dict[str, float]:
        return {
            "vrmse": mean(vrmse_step(measured, self.floor).values),
            "n_floored_vrmse": float((measured["target_variance"].values < self.floor).sum()),
        }


def vrmse_step(measured: xr.Dataset, floor: NDArray[np.float64]) -> xr.DataArray:
    """``vrmse`` before the mean, per (sample, time, channel). ``floor`` [channel] bounds the variance from below."""
    return (measured["error_mean_square"] / np.maximum(measured["target_variance"], floor)) ** 0.5


class MaxError:
    """Largest error anywhere, relative to the largest value of the reference.

        max_error = mean over n and c of max |p - u| / max |u|,    maxima over all predicted steps t and all points X

    Range: 0 for an exact prediction, 1 for predicting zero everywhere, without upper bound.

    Columns:
        max_error: the mean over samples and channels.
        n_floored_max_error: number of (sample, channel) with max |u| below 1 % of its root mean square over samples.
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
        target = measured["target_max"].transpose("sample", "channel").values
        floor = np.sqrt(floor_of(target**2))
        return {
            "max_error": mean(measured["error_max"].transpose("sample", "channel").values / np.maximum(target, floor)),
            "n_floored_max_error": float((target < floor).sum()),
        }


def _over_points(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[time, channel, *space] as [time, channel, point]."""
    return values.reshape(*values.shape[:2], -1)


def _mean_square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.mean(_over_points(values) ** 2, axis=-1)


def _gradient_mean_square(values: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Mean over the points of the squared gradient, [time, channel]; infinite for a snapshot that isn't finite."""
    finite = np.isfinite(_over_points(values)).all(axis=-1)
    values = np.where(finite.reshape(*finite.shape, *(1,) * grid.n_dims), values, 0.0)
    squares = sum(
        _mean_square_derivative(values, 2 + axis, length, h, nodes)
        for axis, (length, h, nodes) in enumerate(zip(grid.lengths, grid.spacing, grid.nodes, strict=True))
    )
    return np.where(finite, squares, np.inf)


def _mean_square_derivative(
    values: NDArray[np.float64], axis: int, length: float, h: float, nodes: Nodes
) -> NDArray[np.float64]:
    n = values.shape[axis]
    if nodes != "periodic":
        # With two points there is no one-sided difference of second order.
        return _mean_square(np.gradient(values, h, axis=axis, edge_order=2 if n > 2 else 1))
    # Parseval's identity. The mode -k counts with k; the highest mode of an even number of points has no derivative.
    amplitudes = np.asarray(scipy.fft.rfft(values, axis=axis, norm="forward"))
    k = np.arange(n // 2 + 1, dtype=np.float64)
    if n % 2 == 0:
        k[-1] = 0.0
    weight = (2 * np.square(2 * np.pi / length * k)).reshape(-1, *(1,) * (values.ndim - 1 - axis))
    squares = weight * squared_magnitude(amplitudes)
    return _over_points(squares).sum(axis=-1) * (n / math.prod(values.shape[2:]))


def _ratio(error: xr.DataArray, target: xr.DataArray) -> xr.DataArray:
    return (error / np.maximum(target, _floor(target))) ** 0.5


def _floor(target: xr.DataArray) -> xr.DataArray:
    """Lower bound on mean squares of a reference, per channel."""
    return xr.DataArray(floor_of(target.transpose("sample", ..., "channel").values), dims="channel")
