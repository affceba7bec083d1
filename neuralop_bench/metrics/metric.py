"""What a metric is, and the arithmetic that all of them share.

Notation: p is the prediction, u the reference (the solver's solution on the file's grid), n a sample, t a predicted
step, c a channel, X the points of the grid.

- Fields are compared in physical units. Predictions are free-running: a model sees the history of a sample and then its
  own predictions alone. The history is never scored.
- Statistics are stored per sample (and step, channel, shell) in float64, computed one sample at a time, and reduced
  once, with an exact sum. So the numbers of given predictions don't depend on batch size or order.
- A prediction that isn't finite counts as diverged (``n_diverged``) and scores infinity. It is never skipped.
- A reference that vanishes would divide by zero: its size is bounded below, and the column ``n_floored_...`` says how
  often that happened.
- Every column is measured on test, once, with the weights that did best on valid; ``valid_rel_l2`` is rel_l2 there.
- What wasn't measured is empty in tables, null in records; never 0.
- A metric has a version, raised whenever a change alters its numbers. Runs with different versions are never ranked
  together.
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

# Where a reference vanishes: lower bound on a mean square, in squared units of the field.
EPS = 1e-24


@dataclass(frozen=True)
class MetricContext:
    """What a metric is built with: the spec of the data it measures on, and what the model was trained on; statistics
    never come from the test split.

    spec: of the test data, which may lie on another grid than the training data.
    train_variance: variance of the training targets per channel, [C].
    train_grid: the training grid.
    """

    spec: DatasetSpec
    train_variance: NDArray[np.float64]
    train_grid: Grid


class Metric(Protocol):
    """Additive statistics per sample, and their only reduction.

    ``variables`` names the dimensions of every array that ``measure`` returns: sample, then any of time, channel,
        shell, band.
    Metrics that store the same statistic give it the same name.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    variables: ClassVar[Mapping[str, tuple[str, ...]]]

    def measure(self, prediction: Trajectory, batch: Batch) -> dict[str, NDArray[np.float64]]: ...

    def summarise(self, measured: xr.Dataset) -> dict[str, float]: ...


def sample_pairs(prediction: Trajectory, batch: Batch) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """(prediction, target) of one sample after the other, [T, C, *S] in float64.

    One at a time, so a sample's numbers can't depend on the batch it came in. Non-finite values of a prediction are
    made infinite, so they score infinity, not NaN.

    Raises:
        ValueError: a reference isn't finite.
    """
    for p, u in zip(prediction, batch.target, strict=True):
        values, reference = (x.detach().cpu().double().numpy() for x in (p, u))
        if not np.isfinite(reference).all():
            raise ValueError("A reference has values that aren't finite: the dataset is broken. Generate it again.")
        finite = np.isfinite(values)
        yield values if finite.all() else np.where(finite, values, np.inf), reference


def mean(values: NDArray[np.float64]) -> float:
    """Mean with an exact sum, so the order of samples can't change it."""
    flat = np.ravel(values)
    return math.fsum(flat) / flat.size


def mean_over_samples(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over the first axis with exact sums, so the order of samples can't change them."""
    columns = values.reshape(len(values), -1).T
    return np.array([math.fsum(column) / len(values) for column in columns]).reshape(values.shape[1:])
