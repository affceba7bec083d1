"""Whether two files hold the same data, although their last digits differ.

The same program rounds differently on another kind of processor, e.g. because an FFT library has other code for it. So
the hash over a file's values names those values, not the data. Data are the same if problem, version, parameters, seed
and split are (the file's path has them), and if measured numbers of each sample agree to a tenth of the error that the
data have anyway (``data_gen.generation.certificate``). The numbers of an array u of a sample are its root mean square
and, for each axis of space, the mean of u times a wave of modulus 1. None of them changes by more than the root mean
square of the change of u. So two files that differ by less than the tolerance always agree.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Part of the data's own error by which two files of the same data may differ.
_PART_OF_ERROR = 0.1
# Values may be rounded to the next float32 (2^-23), and so may the two numbers that are compared (2^-24 each).
_ROUNDING = 2.0**-22
# Most numbers kept of a split. If there are more, consecutive samples are averaged.
_MOST_NUMBERS = 320
# Entries of a record's data that must be equal: the file's folder is named after a hash of all that defines the data.
_ADDRESS = ("file", "n", "version", "resolution")


def measure(values: NDArray[np.floating], n_dims: int) -> NDArray[np.float64]:
    """Numbers of one array, [sample, 1 + 2 n_dims]: root mean square, then real and imaginary part for each axis.

    Args:
        values: [sample, *space] or [sample, time, *space].
        n_dims: number of axes of space.
    """
    n, space = len(values), values.shape[values.ndim - n_dims :]
    values = values.reshape(n, -1, math.prod(space)).astype(np.float64)
    n_times = values.shape[1]
    columns = [np.sqrt(np.einsum("ntx,ntx->n", values, values) / values[0].size)]
    # Half a turn over all times, so that neither a steady field nor the order of snapshots is lost.
    over_time = _wave(n_times, 0.5)
    means = (over_time.real @ values + 1j * (over_time.imag @ values)).reshape(n, *space)
    for axis, size in enumerate(space, start=1):
        others = tuple(other for other in range(1, means.ndim) if other != axis)
        coefficient = means.mean(axis=others) @ _wave(size, 1.0)
        columns += [coefficient.real, coefficient.imag]
    return np.stack(columns, axis=1)


def _wave(size: int, turns: float) -> NDArray[np.complex128]:
    """Weights of a mean over an axis."""
    phase = 2 * math.pi * turns * (np.arange(size) + 0.5) / size
    return (np.cos(phase) + 1j * np.sin(phase)) / size


def summary(numbers: NDArray[np.float64]) -> dict[str, Any]:
    """Numbers of a split as plain values for a record, at most 1.7 kB.

    Args:
        numbers: results of ``measure``, [sample, array, number].
    """
    n_averaged = -(-numbers.size // _MOST_NUMBERS)
    rows = [numbers[first : first + n_averaged].mean(axis=0) for first in range(0, len(numbers), n_averaged)]
    kept = np.array(rows, "<f4")
    return {"shape": list(kept.shape), "float32_base64": base64.b64encode(kept.tobytes()).decode("ascii")}


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two entries of records' ``data`` describe the same samples.

    They do if their hashes are equal, or if their addresses are and their numbers agree to a tenth of the smaller
    error. Entries without numbers or without an error, e.g. of imported data, agree by their hashes alone.
    """
    if one.get("sha256") and one.get("sha256") == other.get("sha256"):
        return True
    if any(name not in one or one[name] != other.get(name) for name in _ADDRESS):
        return False
    try:
        mine, theirs = _numbers(one), _numbers(other)
        error = np.min([float(one["error"]), float(other["error"])])  # NaN if one is
    except (KeyError, TypeError, ValueError, OverflowError):
        return False
    if mine.shape != theirs.shape:
        return False
    scale = np.maximum(mine[..., :1], theirs[..., :1])  # the root mean squares
    with np.errstate(invalid="ignore"):  # numbers that aren't finite agree with none
        return bool(np.all(np.abs(mine - theirs) <= np.maximum(_PART_OF_ERROR * error, _ROUNDING) * scale))


def _numbers(entry: Mapping[str, Any]) -> NDArray[np.float64]:
    kept = entry["agreement"]
    rows, arrays, width = kept["shape"]
    raw = base64.b64decode(kept["float32_base64"], validate=True)
    return np.frombuffer(raw, "<f4").reshape(rows, arrays, width).astype(np.float64)
