"""Fixtures of the metric tests: a spec for any grid, and a metric's columns for a batch of predictions."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import xarray as xr

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.metric import Metric, MetricContext


@pytest.fixture
def context() -> Callable[..., MetricContext]:
    """Builds the context of a metric for a grid and a number of channels."""

    def build(grid: Grid, n_channels: int = 1, train_variance: list[float] | None = None) -> MetricContext:
        state = tuple(FieldSpec(f"field_{channel}", "a field") for channel in range(n_channels))
        spec = DatasetSpec(name="made up", version=1, equation="", grid=grid, times=(0.0, 1.0), state=state)
        return MetricContext(spec, np.array(train_variance or [1.0] * n_channels), grid)

    return build


@pytest.fixture
def measure() -> Callable[[Metric, np.ndarray, np.ndarray], xr.Dataset]:
    """Measures predictions [sample, time, channel, *space] against targets, in float64."""

    def apply(metric: Metric, prediction: np.ndarray, target: np.ndarray) -> xr.Dataset:
        u = torch.from_numpy(np.array(target, dtype=np.float64))
        # The history equals the truth and the static field is empty; neither may enter a score.
        batch = Batch(u[:, :1], u[:, 0, :0], u)
        measured = metric.measure(torch.from_numpy(np.array(prediction, dtype=np.float64)), batch)
        assert measured.keys() == metric.variables.keys()
        return xr.Dataset({name: (metric.variables[name], values) for name, values in measured.items()})

    return apply


@pytest.fixture
def score(measure: Callable[..., xr.Dataset]) -> Callable[[Metric, np.ndarray, np.ndarray], dict[str, float]]:
    """A metric's columns."""
    return lambda metric, prediction, target: metric.summarise(measure(metric, prediction, target))
