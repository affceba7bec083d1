"""What training and predictions cost.

A record names device, threads and precision beside these numbers; compare them only where those are the same. Times are
medians after a warm-up, synchronised with the device.

Columns:
    n_parameters: trainable real numbers; a complex one counts as two.
    n_parameters_complex_as_one: the same with complex numbers counted once, as some published tables do.
    gflops_forward: 10^9 floating point operations of one call of the operator for one sample: matrix products and
        convolutions, two for a multiplication and its addition, eight if they are complex, and 5 n log2 n for the
        Fourier transform of n complex values, half of it for real ones. Pointwise work isn't counted: memory limits it,
        not arithmetic.
    train_seconds: time on the clock that training took, validation included, over all attempts that were interrupted.
    loader_wait_seconds: the part of it in which the next batch wasn't there yet.
    generation_seconds: single-core seconds that train and valid took to be solved.
    peak_memory_mb: largest memory while the model was built and trained, in 10^6 bytes: on a GPU of tensors, on a CPU
        of the whole process with its libraries and data.
    latency_ms: time of predicting one whole trajectory alone.
    throughput: whole trajectories per second at the best of the batch sizes 1, 4, 16 ... 256.
    throughput_batch_size: that size.
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

# Repetitions of a measurement: five, but two are enough once they have taken this long.
_REPEATS, _FEWEST_REPEATS, _PATIENCE_SECONDS = 5, 2, 2.0
_LARGEST_BATCH = 256
# Timings are noisy, and a solver may sort a few samples into as many groups: so many larger batches in a row have to be
# slower before none larger is tried.
_ENOUGH_SLOWER = 2
# Of this process, on Linux.
_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


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


@torch.no_grad()
def forward_flops(operator: nn.Module, inputs: Tensor) -> int:
    """Floating point operations of one call of an operator.

    Counted are matrix products and convolutions, two operations for a multiplication and its addition, eight if they
    are complex, and Fourier transforms, 5 n log2 n for n complex values along the transformed axes, half of it if they
    are real. Pointwise work isn't counted: it is limited by memory, not by arithmetic.

    Args:
        operator: maps fields to fields.
        inputs: [batch, channel, *space]; on the device ``meta`` (with the operator) nothing is computed.

    >>> forward_flops(nn.Linear(3, 4), torch.ones(2, 3))
    48
    """
    with FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        operator(inputs)
    return counter.get_total_flops()


def _real_or_complex(formula: Callable[..., int]) -> Callable[..., int]:
    def count(*args: Any, out_val: Tensor, **options: Any) -> int:
        return formula(*args, out_val=out_val, **options) * (4 if out_val.is_complex() else 1)

    count._get_raw = True  # pyright: ignore[reportFunctionMemberAccess]  # FlopCounterMode then passes tensors
    return count


def _transform(values: Sequence[int], axes: Sequence[int]) -> float:
    """Of complex values of this shape."""
    return 5 * math.prod(values) * math.log2(math.prod(values[axis] for axis in axes))


def _baddbmm_(_x: Sequence[int], a: Sequence[int], b: Sequence[int], *_: Any, **__: Any) -> int:
    """Of products that are added in place torch's own table has none."""
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
    """Begin a new measurement for ``peak_memory_mb``, where the system lets a process do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform == "linux":
        with contextlib.suppress(OSError):  # a container may forbid it; the peak is then that of the whole process
            _CLEAR_REFS.write_text("5")  # proc(5): resets the largest resident set to the present one


def peak_memory_mb(device: torch.device) -> float | None:
    """Largest memory since ``reset_peak_memory``, in 10^6 bytes: on a GPU what tensors took there, on a CPU the
    resident set of the process, libraries and data included. None where it can't be measured."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform != "linux":
        return None
    entries = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(entries["VmHWM"].split()[0]) * 1024 / 1e6


def prediction_cost(predictor: Predictor, windows: Windows, *, device: torch.device) -> dict[str, float]:
    """Time of predicting whole trajectories, after a warm-up, synchronised with the device: medians of up to five
    repetitions.

    Args:
        predictor: a surrogate or a solver.
        windows: whole trajectories; the first are predicted.
        device: where the predictor computes.

    Returns:
        ``latency_ms``: time of one trajectory alone; ``throughput``: trajectories per second at the best batch size,
        ``throughput_batch_size``, of 1, 4, 16 ..., tried until two larger batches in a row are slower.
    """
    largest = min(len(windows), _LARGEST_BATCH)
    rates: dict[int, float] = {}
    size, n_slower = 1, 0
    while n_slower < _ENOUGH_SLOWER:
        rate = size / _median_seconds(predictor, _first(windows, size, device), windows.n_steps, device)
        n_slower = n_slower + 1 if rate < max(rates.values(), default=0.0) else 0
        rates[size] = rate
        if size == largest:
            break
        size = min(4 * size, largest)
    best = max(rates, key=lambda size: rates[size])
    return {"latency_ms": 1e3 / rates[1], "throughput": rates[best], "throughput_batch_size": float(best)}


def _first(windows: Windows, n: int, device: torch.device) -> Batch:
    return Batch(*(x.to(device) for x in windows[list(range(n))]))


def _median_seconds(predictor: Predictor, batch: Batch, n_steps: int, device: torch.device) -> float:
    predictor.predict(batch, n_steps)  # the warm-up
    seconds: list[float] = []
    while len(seconds) < _REPEATS and (len(seconds) < _FEWEST_REPEATS or sum(seconds) < _PATIENCE_SECONDS):
        _synchronise(device)
        started = time.perf_counter()
        predictor.predict(batch, n_steps)
        _synchronise(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
