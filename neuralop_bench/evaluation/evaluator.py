"""Run a predictor over a split and collect the additive statistics of all metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from data_gen import progress
from neuralop_bench.batch import Batch, Predictor
from neuralop_bench.data.trajectories import Windows
from neuralop_bench.metrics.bands import BANDS
from neuralop_bench.metrics.conservation import quantities
from neuralop_bench.metrics.metric import Metric
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.surrogate.projection import mask_channel, masked


def evaluate(
    predictor: Predictor,
    windows: Windows,
    metrics: Sequence[Metric],
    *,
    batch_size: int,
    processes: Processes,
    inputs: Windows | None = None,
) -> xr.Dataset:
    """Per-sample statistics of free-running predictions over whole trajectories.

    The history frames are input and never scored, and neither are predictions where the equation doesn't hold.

    Args:
        predictor: a surrogate or a solver.
        windows: whole trajectories of one split (``Trajectories.whole``).
        metrics: what to measure.
        batch_size: samples predicted together; for the same predictions, the statistics don't depend on it.
        processes: each measures its part of the batches on its device and gets the whole result.
        inputs: input of the predictor, if it isn't the history of ``windows``; of the same samples.

    Returns:
        One variable per statistic with dimensions sample, time, channel, shell or band, and ``finite`` (sample).

    Raises:
        ValueError: a prediction doesn't have the shape of its target, or a target isn't finite.
    """
    batches: list[dict[str, NDArray[np.generic]]] = []
    mask = mask_channel(windows.source.spec)
    starts = range(0, len(windows), batch_size)[processes.rank :: processes.n]
    n_own = sum(min(batch_size, len(windows) - start) for start in starts)
    with progress.track("Evaluating", n_own, "samples") as bar:
        for batch, given in _with_inputs(windows, inputs, batch_size, processes):
            given = Batch(*(x.to(processes.device) for x in given))
            prediction = predictor.predict(given, windows.n_steps).float().cpu()
            if prediction.shape != batch.target.shape:
                raise ValueError(
                    f"The predictor returned a trajectory of shape {tuple(prediction.shape)}, expected "
                    f"{tuple(batch.target.shape)} [sample, time, channel, *space]. Fix its predict()."
                )
            if mask is not None:
                prediction = masked(prediction, batch.static, mask)
            finite = torch.isfinite(prediction).flatten(1).all(dim=1).numpy()
            batches.append({"finite": finite, **_measure(prediction, batch, metrics)})
            bar.advance(len(prediction))
    batches = processes.interleaved(batches)
    parts = {name: [measured[name] for measured in batches] for name in batches[0]}
    dimensions = {name: dims for metric in metrics for name, dims in metric.variables.items()}
    variables = {name: (dimensions.get(name, ("sample",)), np.concatenate(values)) for name, values in parts.items()}
    errors = xr.Dataset(variables, coords=_coordinates(windows))
    for metric in metrics:
        errors.attrs[f"{metric.name}_version"] = metric.version
    return errors


def summarise(errors: xr.Dataset, metrics: Sequence[Metric]) -> dict[str, float]:
    """The columns of all metrics, and ``n_diverged``, the number of samples whose prediction isn't finite."""
    columns = {"n_diverged": float((~errors["finite"].values).sum())}
    for metric in metrics:
        columns.update(metric.summarise(errors))
    return columns


def _with_inputs(
    windows: Windows, inputs: Windows | None, batch_size: int, processes: Processes
) -> Iterator[tuple[Batch, Batch]]:
    if inputs is None:
        yield from ((batch, batch) for batch in windows.in_order(batch_size, processes))
    else:
        yield from zip(windows.in_order(batch_size, processes), inputs.in_order(batch_size, processes), strict=True)


def _measure(prediction: torch.Tensor, batch: Batch, metrics: Sequence[Metric]) -> dict[str, NDArray[np.float64]]:
    measured: dict[str, NDArray[np.float64]] = {}
    for metric in metrics:
        if not metric.variables.keys() <= measured.keys():  # otherwise another metric has stored the same statistics
            measured.update(metric.measure(prediction, batch))
    return measured


def _coordinates(windows: Windows) -> dict[str, object]:
    source = windows.source
    times = (source.spec.times or (0.0,))[source.history : source.history + windows.n_steps]
    return {
        "sample": np.arange(len(windows)),
        "time": np.array(times),
        "channel": [field.name for field in source.spec.state],
        "band": list(BANDS),
        "quantity": list(quantities(source.spec)),
    }
