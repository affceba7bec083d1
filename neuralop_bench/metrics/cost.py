"""What a prediction costs."""

from __future__ import annotations

import statistics
import time
from typing import Literal

import torch
from torch import nn

from neuralop_bench.batch import Batch, Predictor
from neuralop_bench.data import Windows

_REPEATS = 5


def count_parameters(module: nn.Module, *, complex_as: Literal[1, 2] = 2) -> int:
    """Trainable numbers of a module.

    Args:
        module: any module. One that keeps complex parameters as pairs of reals, with the parts along the first axis,
            names them in an attribute ``complex_pairs``.
        complex_as: what a complex number counts. 2 counts real numbers, as records do; some published tables count 1.

    >>> from neuralop_bench.layers.spectral_conv import SpectralConv
    >>> conv = SpectralConv(2, 3, n_modes=(4,))
    >>> count_parameters(conv), count_parameters(conv, complex_as=1)
    (48, 24)
    """
    pairs = {
        id(getattr(owner, name)) for owner in module.modules() for name in getattr(owner, "complex_pairs", frozenset())
    }
    total = 0
    for parameter in module.parameters():
        if parameter.requires_grad:
            reals = parameter.numel() * (2 if parameter.is_complex() else 1)
            is_complex = parameter.is_complex() or id(parameter) in pairs
            total += reals * complex_as // 2 if is_complex else reals
    return total


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
