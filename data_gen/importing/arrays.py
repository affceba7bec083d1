"""Arrays of imported files that are read on demand, and the steady or evolving problems that they hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.grids import AXIS_NAMES, Grid
from data_gen.importing.axes import find_grid, find_times, from_zero
from data_gen.importing.contents import Contents, Given, ImportedFileError
from data_gen.importing.guesses import guess_boundary, same, some_samples
from data_gen.importing.layouts import find_axes
from data_gen.spec import FieldSpec, Samples, Scalar

# Default name of a state field by the number of space axes: what the files of Li et al. (2021) hold.
_STATE = {1: "velocity", 2: "vorticity", 3: "state"}


@dataclass(frozen=True)
class LazyArray:
    """An array of a file with the samples on its first axis. Samples are read on demand.

    Attributes:
        path, name: of the file and the array, for messages.
        values: a NumPy array, a tensor or an HDF5 dataset.
        is_reversed: the file holds the axes in reverse order, as MATLAB 7.3 files do.
        order: permutation of the axes as read, before they take the shape ``reshaped``.
        reshaped: shape of the array if it differs from that of the values.
        picked: an axis of that shape and the one entry of it that is kept; the axis itself is left out.
    """

    path: Path
    name: str
    values: Any
    is_reversed: bool = False
    order: tuple[int, ...] | None = None
    reshaped: tuple[int, ...] | None = None
    picked: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.picked is None:
            return self._whole
        return (*self._whole[: self.picked[0]], *self._whole[self.picked[0] + 1 :])

    @property
    def _whole(self) -> tuple[int, ...]:
        """The shape before an entry is picked."""
        if self.reshaped is not None:
            return self.reshaped
        shape = tuple(self.values.shape)
        return shape[::-1] if self.is_reversed else shape

    def take(self, samples: NDArray[np.int64]) -> NDArray[Any]:
        """The samples with the given indices, in that order, [len(samples), *shape[1:]].

        Raises:
            ImportedFileError: the values aren't real numbers.
        """
        unique, back = np.unique(samples, return_inverse=True)
        first, last = int(unique[0]), int(unique[-1])
        rows = slice(first, last + 1) if last - first + 1 == len(unique) else unique  # reading a slice is faster
        if isinstance(self.values, torch.Tensor):
            found = self.values[torch.from_numpy(unique) if isinstance(rows, np.ndarray) else rows].numpy()
        elif self.is_reversed:
            found = np.transpose(self.values[(..., rows)])
        else:
            found = np.asarray(self.values[rows])
        if found.dtype.kind not in "fiub":
            raise ImportedFileError(f"{self.name} in {self.path} holds {found.dtype}, expected real numbers.")
        found = found[back]
        if self.order is not None:
            found = np.transpose(found, self.order)
        found = found.reshape(len(samples), *self._whole[1:])
        return found if self.picked is None else np.take(found, self.picked[1], axis=self.picked[0])

    @property
    def n_together(self) -> int:
        """Samples in a chunk of an HDF5 file, which is read and decompressed as a whole."""
        chunks = getattr(self.values, "chunks", None)
        return (chunks[-1] if self.is_reversed else chunks[0]) if isinstance(chunks, tuple) and chunks else 1

    def everything(self) -> NDArray[Any]:
        return np.asarray(self.values)

    def with_last_axis(self) -> LazyArray:
        """With a last axis of one entry."""
        return self._reshaped((*self.shape, 1))

    def without_axis(self, position: int) -> LazyArray:
        return self._reshaped((*self.shape[:position], *self.shape[position + 1 :]))

    def arranged(self, axes: Sequence[str], wanted: Sequence[str]) -> LazyArray:
        """The axes, by name, in the order that is wanted; those that the array lacks get one entry."""
        order = tuple(axes.index(name) for name in wanted if name in axes)
        shape = tuple(self.shape[axes.index(name)] if name in axes else 1 for name in wanted)
        return self._reshaped(shape, order)

    def along(self, axis: int) -> tuple[LazyArray, ...]:
        """One array for each entry of an axis."""
        return tuple(replace(self, picked=(axis, entry)) for entry in range(self.shape[axis]))

    def with_time_second(self) -> LazyArray:
        """[sample, *space, time] as [sample, time, *space]."""
        n = len(self.shape)
        if n > len(self.values.shape):  # the last axis is the one of ``with_last_axis``
            return self._reshaped((self.shape[0], self.shape[-1], *self.shape[1:-1]))
        return self._reshaped((self.shape[0], self.shape[-1], *self.shape[1:-1]), (0, n - 1, *range(1, n - 1)))

    def _reshaped(self, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> LazyArray:
        return replace(self, order=order or self.order, reshaped=shape)


def pair(path: Path, given: Given, x: LazyArray, y: LazyArray, reference: str) -> Contents:
    """A file of two bare arrays: what a model is given, x, and what it predicts, y. If y has times, it holds
    trajectories that start at x; otherwise they are a steady problem.

    Args:
        path: of the file.
        given: what the user says.
        x, y: the arrays, with the samples first.
        reference: default for the format.

    Raises:
        ImportedFileError: the shapes don't fit, or can be read in several ways.
    """
    axes_x, axes_y, notes = find_axes(path, x.shape, y.shape, given, is_first=_starts_at(x, y))
    space = tuple(name for name in axes_x if name in AXIS_NAMES)
    inputs = x.arranged(axes_x, ("sample", "channel", *space)).along(1)
    outputs = y.arranged(axes_y, ("sample", "time", "channel", *space)).along(2)
    if "time" in axes_y or given.times is not None or given.interval is not None:
        names = None if len(outputs) == 1 else _numbered("state", len(outputs))
        found = evolving(path, given, inputs, outputs, len(space), times=None, reference=reference, names=names)
    else:
        solutions = y.arranged(axes_y, ("sample", "channel", *space)).along(1)
        found = steady(path, given, inputs, solutions, reference)
    return replace(found, notes=(*notes, *found.notes))


def _starts_at(x: LazyArray, y: LazyArray) -> bool:
    """Whether the first entry on the second axis of y is x, apart from axes of one entry."""
    if len(y.shape) < 3 or y.shape[1] < 2 or not y.shape[0] or x.shape[0] != y.shape[0]:
        return False
    samples = np.unique([0, y.shape[0] - 1])
    one, other = x.take(samples), y.take(samples)[:, 0]
    return one.size == other.size and same(one.astype(float).ravel(), other.astype(float).ravel())


def steady(
    path: Path,
    given: Given,
    inputs: LazyArray | Sequence[LazyArray],
    solutions: LazyArray | Sequence[LazyArray],
    reference: str,
    coordinates: Sequence[NDArray[Any]] | None = None,
    parameters: Mapping[str, Scalar] | None = None,
) -> Contents:
    """A steady problem: coefficients and solutions per sample, each [sample, *space].

    Args:
        path: of the file.
        given: what the user says.
        inputs, solutions: the arrays, one per field.
        reference: default for the format.
        coordinates: positions of the points along each axis, if the file has them.
        parameters: scalar parameters in the file.

    Raises:
        ImportedFileError: the shapes don't fit, or the user gives times.
    """
    inputs, solutions = _as_sequence(inputs), _as_sequence(solutions)
    shape = inputs[0].shape
    if shape != solutions[0].shape or not 1 <= len(shape) - 1 <= len(AXIS_NAMES):
        raise ImportedFileError(
            f"{inputs[0].name} and {solutions[0].name} in {path} have the shapes {shape} and {solutions[0].shape}, "
            "expected (samples, x), (samples, x, y) or (samples, x, y, z) for both."
        )
    if given.times is not None or given.interval is not None:
        raise ImportedFileError(
            f"{path} holds a steady problem, which has no --times and no --interval. Leave them out."
        )

    def read(samples: NDArray[np.int64]) -> Samples:
        solved = np.stack([array.take(samples) for array in solutions], axis=1)[:, None]
        empty = np.zeros((len(samples), 0, *solved.shape[2:]), dtype=np.float32)
        return Samples(empty, np.stack([array.take(samples) for array in inputs], axis=1), solved)

    some = some_samples(read, shape[0], (len(inputs) + len(solutions)) * int(np.prod(shape[1:])))
    frame = _frame(path, given, shape[1:], some, coordinates, is_steady=True)
    states, statics = (
        (default,) if len(arrays) == 1 else _numbered(several, len(arrays))
        for arrays, default, several in ((solutions, "pressure", "output"), (inputs, "permeability", "input"))
    )
    states = _named(path, "--state", given.state, states)
    statics = _named(path, "--static", given.static, statics)
    return Contents(
        files=(path,),
        n_samples=shape[0],
        grid=frame.grid,
        times=(),
        state=tuple(FieldSpec(name, f"{name} ({solutions[0].name})") for name in states),
        static=tuple(FieldSpec(name, f"{name} ({inputs[0].name})") for name in statics),
        parameters={**frame.origin, **(parameters or {})},
        equation="-∇·(a∇u) = f" if (states, statics) == (("pressure",), ("permeability",)) else "",
        reference=reference,
        notes=frame.notes,
        read=frame.cutting(read),
        n_together=max(array.n_together for array in (*inputs, *solutions)),
    )


def evolving(
    path: Path,
    given: Given,
    initial: LazyArray | Sequence[LazyArray] | None,
    states: Sequence[LazyArray],
    n_dims: int,
    *,
    times: NDArray[Any] | None,
    reference: str,
    coordinates: Sequence[NDArray[Any]] | None = None,
    parameters: Mapping[str, Scalar] | None = None,
    names: tuple[str, ...] | None = None,
) -> Contents:
    """A problem that evolves in time: trajectories, and perhaps an initial state in an array of its own.

    Args:
        path: of the file.
        given: what the user says.
        initial: [sample, *space], one array per field. It is left out if it is the first state.
        states: [sample, time, *space], one array per field.
        n_dims: number of space axes.
        times: of the states, if the file has them.
        reference: default for the format.
        coordinates: positions of the points along each axis, if the file has them.
        parameters: scalar parameters in the file.
        names: of the fields, if the file has them; None for one field without a name.

    Raises:
        ImportedFileError: the shapes or times don't fit, or the user names static fields.
    """
    if given.static:
        raise ImportedFileError(f"{path} holds trajectories without static fields. Leave --static out.")
    first = _as_sequence(initial if initial is not None else [])
    _require_trajectories(path, first, states, n_dims)
    shape = states[0].shape
    from_start = bool(first) and shape[1] == 1  # one input and one output make two frames

    def read(samples: NDArray[np.int64]) -> Samples:
        trajectory = np.stack([array.take(samples) for array in states], axis=2)
        history = np.stack([array.take(samples) for array in first], axis=1)[:, None] if first else trajectory[:, :1]
        if from_start:
            trajectory = np.concatenate([history, trajectory], axis=1)
        return Samples(history, np.zeros((len(samples), 0, *shape[2:]), dtype=np.float32), trajectory)

    some = some_samples(read, shape[0], len(states) * int(np.prod(shape[1:])))
    notes: tuple[str, ...] = ()
    if first and not from_start and same(some.history[:, 0], some.trajectory[:, 0]):
        notes = (f"{first[0].name} equals the first snapshot of {states[0].name}, so it isn't counted again",)
        first = first[:0]
    frame = _frame(path, given, shape[2:], some, coordinates, is_steady=False)
    known, more = _times(path, given, times, first, states[0], from_start=from_start)
    default = names or (_STATE[n_dims],)
    chosen = _named(path, "--state", given.state, default)
    return Contents(
        files=(path,),
        n_samples=shape[0],
        grid=frame.grid,
        times=known,
        state=tuple(FieldSpec(name, name) for name in chosen),
        static=(),
        parameters={**frame.origin, **(parameters or {})},
        equation="",
        reference=reference,
        notes=(*notes, *frame.notes, *more),
        read=frame.cutting(read),
        n_together=max(array.n_together for array in states),
    )


def _times(
    path: Path,
    given: Given,
    times: NDArray[Any] | None,
    first: Sequence[LazyArray],
    states: LazyArray,
    *,
    from_start: bool,
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Times of the snapshots, from 0 unless the initial states ``first`` are apart, and notes; with ``from_start`` the
    initial states are the first snapshot."""
    n_stored = states.shape[1]
    found = np.asarray(times, dtype=np.float64) if times is not None else None
    if from_start and found is not None and len(found) == 1:
        found = np.array([0.0, found[0]])
    apart = bool(first) and not from_start
    known, notes = find_times(path, n_stored + from_start, given, found, first=apart)
    if apart and known[0] <= 0:
        raise ImportedFileError(
            f"{first[0].name} in {path} is the state at time 0, and differs from the first snapshot of {states.name}, "
            f"whose time is {known[0]:g}. Give the times of the {n_stored} snapshots, all above 0, with --times."
        )
    if known[0] > 0 and not first:
        known, shifted = from_zero(known)
        notes = (*notes, shifted)
    return known, notes


@dataclass(frozen=True)
class _Frame:
    """The grid of a file; parameters and notes that come with it; and points to leave out at the end of each axis."""

    grid: Grid
    origin: Mapping[str, Scalar]
    notes: tuple[str, ...]
    cuts: tuple[int, ...]

    def cutting(self, read: Callable[[NDArray[np.int64]], Samples]) -> Callable[[NDArray[np.int64]], Samples]:
        """``read`` without the points that are left out."""
        if not any(self.cuts):
            return read
        kept = (..., *(slice(0, n) for n in self.grid.shape))

        def cut(samples: NDArray[np.int64]) -> Samples:
            history, static, trajectory = (values[kept] for values in read(samples)[:3])
            return Samples(history, static, trajectory)

        return cut


def _frame(
    path: Path,
    given: Given,
    shape: tuple[int, ...],
    some: Samples,
    coordinates: Sequence[NDArray[Any]] | None,
    *,
    is_steady: bool,
) -> _Frame:
    fitting = coordinates if coordinates and tuple(map(len, coordinates)) == shape else None
    boundary, cuts, notes = guess_boundary(path, some.trajectory, given, fitting, is_steady=is_steady)
    if fitting is not None:
        coordinates = [x[: len(x) - cut] for x, cut in zip(fitting, cuts, strict=True)]
    kept = tuple(n - cut for n, cut in zip(shape, cuts, strict=True))
    grid, origin, more = find_grid(path, kept, given, boundary, coordinates)
    return _Frame(grid, origin, (*notes, *more), cuts)


def _as_sequence(arrays: LazyArray | Sequence[LazyArray]) -> Sequence[LazyArray]:
    return (arrays,) if isinstance(arrays, LazyArray) else arrays


def _numbered(name: str, n: int) -> tuple[str, ...]:
    return tuple(f"{name}_{i}" for i in range(n))


def _require_trajectories(path: Path, initial: Sequence[LazyArray], states: Sequence[LazyArray], n_dims: int) -> None:
    shape, name = states[0].shape, states[0].name
    if len(shape) != n_dims + 2 or n_dims not in _STATE:
        raise ImportedFileError(
            f"{name} in {path} has the shape {shape} (samples, times, space). Only one, two and three space "
            "dimensions can be imported."
        )
    if initial and initial[0].shape != (shape[0], *shape[2:]):
        raise ImportedFileError(
            f"{initial[0].name} in {path} has the shape {initial[0].shape}, but {name} has {shape[0]} samples on "
            f"{shape[2:]} points. The order of axes is samples, space, time."
        )
    if initial and len(initial) != len(states):
        raise ImportedFileError(
            f"{initial[0].name} in {path} has {len(initial)} channels and {name} has {len(states)}. Trajectories start "
            "at a state with the same channels."
        )


def _named(path: Path, option: str, given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given is not None and len(given) != len(default):
        raise ImportedFileError(f"{option} needs {len(default)} name(s) for {path}, got {', '.join(given)}.")
    return given or default
