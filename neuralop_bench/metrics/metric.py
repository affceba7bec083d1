"""Metrics: their interface, and the arithmetic that they share.

Notation: p is the prediction, u the reference (the solver's solution on the file's grid), n a sample, t a predicted
step, c a channel, X the points of the grid.

- Fields are compared in physical units. Predictions are free-running: a model is given the history of a sample, and
  after that only its own predictions. The history is never scored.
- Where the equation doesn't hold (``spec.mask``: inside of obstacles) reference and prediction count as 0. So such
  points add nothing to errors, and spectra are those of fields that are continued by 0.
- Statistics are stored per sample (and step, channel, shell) in float64. They are computed one sample at a time and
  reduced once, with an exact sum, so that the results don't depend on batch size or order.
- A prediction that isn't finite counts as diverged (``n_diverged``) and scores infinity. It is never skipped.
- The size of a reference is bounded below by 1 % of its channel's own size: the root mean square over all samples and
  steps that are measured. (Metrics with another bound say so.) Without it, the relative error of a sample that vanishes
  would be huge, or undefined, and would decide every mean. A channel that vanishes altogether takes the smallest size
  of the other channels. The columns ``n_floored_...`` count how often a bound applied, and reports and boards say so.
- No bound has a unit, so metrics don't change if a field is given in other units.
- Every column is measured on test, once, with the weights that did best on valid. ``valid_rel_l2`` is rel_l2 on valid.
- A value that wasn't measured is empty in tables and null in records, never 0.
- A metric has a version, which is raised whenever a change alters its results. Runs with different versions are never
  ranked together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec
from neuralop_bench.batch import Batch, Trajectory

# Lower bound on the mean square of a reference, as a fraction of that of its channel: 1 % of its size.
FLOOR = 1e-4


@dataclass(frozen=True)
class MetricContext:
    """The data that a metric is built for. Statistics never come from the test split.

    Attributes:
        spec: spec of the test data, whose grid may differ from the training grid.
        train_variance: variance of the training targets per channel, [C].
        train_grid: the training grid.
    """

    spec: DatasetSpec
    train_variance: NDArray[np.float64]
    train_grid: Grid


class Metric(Protocol):
    """Additive statistics per sample, and their reduction to columns.

    Attributes:
        name: names the metric.
        version: raised whenever a change alters the results.
        variables: the dimensions of every array that ``measure`` returns: sample, then any of time, channel, shell,
            band. Metrics that store the same statistic give it the same name.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    variables: ClassVar[Mapping[str, tuple[str, ...]]]

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]: ...

    def summarise(self, measured: xr.Dataset) -> dict[str, float]: ...


def sample_pairs(prediction: Trajectory, batch: Batch) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(prediction, target) of every sample in turn, [T, C, *S] in float64.

    Samples come one at a time, so that their statistics can't depend on the batch. Values of a prediction that aren't
    finite become infinite, so that they score infinity instead of NaN.

    Raises:
        ValueError: a reference isn't finite.
    """
    for p, u in zip(prediction, batch.target, strict=True):
        values, reference = (x.detach().cpu().double().numpy() for x in (p, u))
        if not np.isfinite(reference).all():
            raise ValueError(
                "A reference has values that aren't finite. Leave such samples out of the import, or generate the data "
                "again."
            )
        finite = np.isfinite(values)
        yield values if finite.all() else np.where(finite, values, np.inf), reference


def floor_of(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lower bound on squared sizes of a reference, [channel]: ``FLOOR`` times their mean over samples (and steps).

    Args:
        squares: mean squares, or others in squared units of the field, [sample, ..., channel].
    """
    return FLOOR * own_or_smallest(mean_over_samples(squares.reshape(-1, squares.shape[-1])))


def own_or_smallest(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sizes of channels. One that vanishes gets the smallest of the others, or 1 if all vanish.

    The smallest, because a bound that is too large would hide errors.

    >>> own_or_smallest(np.array([4.0, 0.0, 1e6]))
    array([4.e+00, 4.e+00, 1.e+06])
    """
    known = sizes[sizes > 0]
    return np.where(sizes > 0, sizes, known.min() if len(known) else 1.0)


def mean(values: NDArray[np.float64]) -> float:
    """Mean with an exact sum, so that the order of samples can't change it."""
    flat = np.ravel(values)
    return math.fsum(flat) / flat.size


def mean_over_samples(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over the first axis with exact sums, so that the order of samples can't change them."""
    columns = values.reshape(len(values), -1).T
    return np.array([math.fsum(column) / len(values) for column in columns]).reshape(values.shape[1:])
