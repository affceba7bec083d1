"""The cost of training and of predictions.

A record also names device, threads and precision: compare costs only where these are the same. Times are medians after
a warm-up, synchronised with the device.

Columns:
    n_parameters: trainable real numbers; a complex one counts as two.
    n_parameters_complex_as_one: the same with complex numbers counted once, as in some published tables.
    gflops_forward: 10^9 floating point operations of one call of the operator for one sample: matrix products and
        convolutions, two for a multiplication and its addition, eight if they are complex, and 5 n log2 n for the
        Fourier transform of n complex values, half of that for real values. Pointwise work isn't counted, since memory
        limits it rather than arithmetic.
    train_seconds: wall-clock time of training, including validation, summed over interrupted attempts.
    loader_wait_seconds: the part of it spent waiting for the next batch.
    generation_seconds: single-core seconds of solving train and valid.
    peak_memory_mb: largest memory while the model was built and trained, in 10^6 bytes: on a GPU that of tensors, on a
        CPU that of the whole process, including libraries and data.
    latency_ms: time of predicting a single whole trajectory.
    throughput: whole trajectories per second at the best of the batch sizes 1, 4, 16 ... 256.
    throughput_batch_size: that batch size.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from neuralop_bench.batch import Batch, Predictor
from neuralop_bench.data.trajectories import Windows

# Repetitions of a measurement: five, or fewer once they have taken this long.
_REPEATS, _PATIENCE_SECONDS = 5, 2.0
# Trajectories of a measurement, spread over the split: some take a solver several times as long as others.
_TRAJECTORIES = 32
_LARGEST_BATCH = 256
# Larger batches are tried until this many in a row are slower. One isn't enough: timings are noisy, and a solver may
# put every sample of a small batch into a group of its own.
_ENOUGH_SLOWER = 2
# Of this process, on Linux.
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def count_parameters(module: nn.Module, *, complex_as: Literal[1, 2] = 2) -> int:
    """Trainable numbers of a module.

    Args:
        module: any module. If it keeps complex parameters as pairs of real numbers, with the parts along the first
            axis, it names them in an attribute ``complex_pairs``.
        complex_as: how often a complex number counts: 2 in records, 1 in some published tables.

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


@torch.no_grad()
def forward_flops(operator: nn.Module, inputs: Tensor) -> int:
    """Floating point operations of one call of an operator.

    Matrix products and convolutions count two operations for a multiplication and its addition, eight if they are
    complex. Fourier transforms count 5 n log2 n for n complex values along the transformed axes, half of that if they
    are real. Pointwise work isn't counted, since memory limits it rather than arithmetic.

    Args:
        operator: maps fields to fields.
        inputs: [batch, channel, *space]. If operator and inputs are on the device ``meta``, nothing is computed.

    >>> forward_flops(nn.Linear(3, 4), torch.ones(2, 3))
    48
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        operator(inputs)
    return counter.get_total_flops()


def _real_or_complex(formula: Callable[..., int]) -> Callable[..., int]:
    def count(*args: Any, out_val: Tensor, **options: Any) -> int:
        return formula(*args, out_val=out_val, **options) * (4 if out_val.is_complex() else 1)

    count._get_raw = True  # pyright: ignore[reportFunctionMemberAccess]  # makes FlopCounterMode pass tensors
    return count


def _transform(values: Sequence[int], axes: Sequence[int]) -> float:
    """Operations of transforming complex values of this shape."""
    return 5 * math.prod(values) * math.log2(math.prod(values[axis] for axis in axes))


def _baddbmm_(_x: Sequence[int], a: Sequence[int], b: Sequence[int], *_: Any, **__: Any) -> int:
    """Products that are added in place, which torch's own table lacks."""
    return 2 * math.prod(a) * b[-1]


def _fft_c2c(x: Sequence[int], axes: Sequence[int], *_: Any, **__: Any) -> int:
    return round(_transform(x, axes))


def _fft_r2c(x: Sequence[int], axes: Sequence[int], *_: Any, **__: Any) -> int:
    return round(_transform(x, axes) / 2)


def _fft_c2r(_x: Sequence[int], axes: Sequence[int], *_: Any, out_shape: Sequence[int]) -> int:
    return round(_transform(out_shape, axes) / 2)


_ATEN = torch.ops.aten
_FORMULAS: dict[Any, Callable[..., int]] = {
    **{op: _real_or_complex(flop_registry[op]) for op in (_ATEN.mm, _ATEN.addmm, _ATEN.bmm, _ATEN.baddbmm)},
    _ATEN.baddbmm_: _baddbmm_,
    _ATEN._fft_c2c: _fft_c2c,
    _ATEN._fft_r2c: _fft_r2c,
    _ATEN._fft_c2r: _fft_c2r,
}


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new measurement of ``peak_memory_mb``, if the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):  # a container may forbid it; the peak is then that since the process started
            _CLEAR_REFS.write_text("5")  # proc(5): resets the largest resident set to the current one


def peak_memory_mb(device: torch.device) -> float | None:
    """Largest memory since ``reset_peak_memory``, in 10^6 bytes: on a GPU that of tensors, on a CPU the resident set of
    the process, including libraries and data. None where it can't be measured."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform != "linux":
        return None
    entries = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(entries["VmHWM"].split()[0]) * 1024 / 1e6


def prediction_cost(predictor: Predictor, windows: Windows, *, device: torch.device) -> dict[str, float]:
    """Time of predicting whole trajectories, on average over 32 of them or a batch: medians of up to five repetitions,
    after a warm-up, synchronised with the device.

    Args:
        predictor: a surrogate or a solver.
        windows: whole trajectories. Those predicted are spread over them.
        device: where the predictor computes.

    Returns:
        ``latency_ms``: time of a single trajectory; ``throughput``: trajectories per second at the best batch size, and
        ``throughput_batch_size``: that size. Batches of 1, 4, 16 ... are tried until two in a row are slower.
    """
    largest = min(len(windows), _LARGEST_BATCH)
    rates: dict[int, float] = {}
    size, n_slower = 1, 0
    while n_slower < _ENOUGH_SLOWER:
        rate = 1 / _median_seconds(predictor, _spread(windows, size, device), windows.n_steps, device)
        n_slower = n_slower + 1 if rate < max(rates.values(), default=0.0) else 0
        rates[size] = rate
        if size == largest:
            break
        size = min(4 * size, largest)
    best = max(rates, key=lambda size: rates[size])
    return {"latency_ms": 1e3 / rates[1], "throughput": rates[best], "throughput_batch_size": float(best)}


def in_turns(
    predictors: Sequence[tuple[Predictor, int]], windows: Windows, *, rounds: int, device: torch.device
) -> list[list[float]]:
    """Seconds per trajectory of predictors that take turns, so that a change of the machine's speed meets all of them.

    Args:
        predictors: each with its batch size.
        windows: whole trajectories. Those predicted are spread over them.
        rounds: number of turns that each gets, each after a warm-up.
        device: where the predictors compute.

    Returns:
        Seconds, by round and predictor.
    """
    batches = [_spread(windows, size, device) for _, size in predictors]
    found: list[list[float]] = []
    for _ in range(rounds):
        found.append([])
        for (predictor, _), own in zip(predictors, batches, strict=True):
            # The threads of another library still spin for some ms after its turn, and would hinder this one.
            predictor.predict(own[0], windows.n_steps)
            found[-1].append(_seconds(predictor, own, windows.n_steps, device))
    return found


def _spread(windows: Windows, size: int, device: torch.device) -> list[Batch]:
    n = size * max(1, min(len(windows), _TRAJECTORIES) // size)
    numbers = [i * len(windows) // n for i in range(n)]
    return [Batch(*(x.to(device) for x in windows[numbers[first : first + size]])) for first in range(0, n, size)]


def _median_seconds(predictor: Predictor, batches: Sequence[Batch], n_steps: int, device: torch.device) -> float:
    predictor.predict(batches[0], n_steps)  # the warm-up
    found: list[float] = []
    spent = 0.0
    while len(found) < _REPEATS and spent < _PATIENCE_SECONDS:
        started = time.perf_counter()
        found.append(_seconds(predictor, batches, n_steps, device))
        spent += time.perf_counter() - started
    return statistics.median(found)


def _seconds(predictor: Predictor, batches: Sequence[Batch], n_steps: int, device: torch.device) -> float:
    """Per trajectory."""
    _synchronise(device)
    started = time.perf_counter()
    for batch in batches:
        predictor.predict(batch, n_steps)
    _synchronise(device)
    return (time.perf_counter() - started) / sum(len(batch.target) for batch in batches)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
