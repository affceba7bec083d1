"""What a prediction costs."""

from __future__ import annotations

import statistics
import time

import torch

from neuralop_bench.batch import Batch, Predictor
from neuralop_bench.data import Windows

_REPEATS = 5


def prediction_cost(
    predictor: Predictor, windows: Windows, *, batch_sizes: tuple[int, ...], device: torch.device
) -> dict[str, float]:
    """Time of predicting whole trajectories, after a warm-up, synchronised with the device.

    Returns:
        ``latency_ms``: median time of one trajectory alone; ``throughput``: trajectories per second at the best of
        ``batch_sizes``.
    """
    throughputs = []
    for size in batch_sizes:
        batch = _first(windows, min(size, len(windows)), device)
        throughputs.append(len(batch.target) / _median_seconds(predictor, batch, windows.n_steps, device))
    single = _median_seconds(predictor, _first(windows, 1, device), windows.n_steps, device)
    return {"latency_ms": 1e3 * single, "throughput": max(throughputs)}


def _first(windows: Windows, n: int, device: torch.device) -> Batch:
    return Batch(*(x.to(device) for x in windows[list(range(n))]))


def _median_seconds(predictor: Predictor, batch: Batch, n_steps: int, device: torch.device) -> float:
    seconds = []
    for repeat in range(_REPEATS + 1):
        _synchronise(device)
        started = time.perf_counter()
        predictor.predict(batch, n_steps)
        _synchronise(device)
        if repeat:  # the first is the warm-up
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
