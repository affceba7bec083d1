"""Arrays of imported files that are read on demand, and the steady or evolving problems that they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from data_gen.importing.axes import find_grid, find_times, from_zero
from data_gen.importing.contents import Contents, Given, ImportedFileError
from data_gen.spec import FieldSpec, Samples, Scalar


@dataclass(frozen=True)
class LazyArray:
    """An array of a file with the samples on its first axis. Samples are read on demand.

    Attributes:
        path, name: of the file and the array, for messages.
        values: a NumPy array, a tensor or an HDF5 dataset.
        is_reversed: the file holds the axes in reverse order, as MATLAB 7.3 files do.
        order: permutation of the axes as read, before they take the shape ``reshaped``.
        reshaped: shape of the array if it differs from that of the values.
    """

    path: Path
    name: str
    values: Any
    is_reversed: bool = False
    order: tuple[int, ...] | None = None
    reshaped: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
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
        return found.reshape(len(samples), *self.shape[1:])

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

    def without_channel(self) -> LazyArray:
        """Without the one channel of [sample, 1, *space]."""
        return self.without_axis(1) if len(self.shape) > 2 and self.shape[1] == 1 else self

    def with_time_second(self) -> LazyArray:
        """[sample, *space, time] as [sample, time, *space]."""
        n = len(self.shape)
        if n > len(self.values.shape):  # the last axis is the one of ``with_last_axis``
            return self._reshaped((self.shape[0], self.shape[-1], *self.shape[1:-1]))
        return self._reshaped((self.shape[0], self.shape[-1], *self.shape[1:-1]), (0, n - 1, *range(1, n - 1)))

    def _reshaped(self, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> LazyArray:
        return replace(self, order=order or self.order, reshaped=shape)


def steady(
    path: Path,
    given: Given,
    inputs: LazyArray,
    solutions: LazyArray,
    reference: str,
    coordinates: Sequence[NDArray[Any]] | None = None,
    parameters: Mapping[str, Scalar] | None = None,
) -> Contents:
    """A steady problem: a coefficient and a solution per sample, both [sample, *space].

    Args:
        path: of the file.
        given: what the user says.
        inputs, solutions: the arrays.
        reference: default for the format.
        coordinates: positions of the points along each axis, if the file has them.
        parameters: scalar parameters in the file.

    Raises:
        ImportedFileError: the shapes don't fit, or the user gives times.
    """
    if inputs.shape != solutions.shape or len(inputs.shape) not in (2, 3):
        raise ImportedFileError(
            f"{inputs.name} and {solutions.name} in {path} have the shapes {inputs.shape} and {solutions.shape}, "
            "expected (samples, x) or (samples, x, y) for both."
        )
    shape = inputs.shape[1:]
    grid, origin, notes = find_grid(path, shape, given, ("dirichlet",) * len(shape), coordinates)
    if given.boundary is None:
        notes = (*notes, "this is a steady problem: dirichlet boundaries are assumed (--boundary)")
    if given.times is not None or given.interval is not None:
        raise ImportedFileError(
            f"{path} holds a steady problem, which has no --times and no --interval. Leave them out."
        )

    def read(samples: NDArray[np.int64]) -> Samples:
        solved = solutions.take(samples)[:, None, None]
        empty = np.zeros((len(samples), 0, *solved.shape[2:]), dtype=np.float32)
        return Samples(empty, inputs.take(samples)[:, None], solved)

    (state,) = _named(path, "--state", given.state, ("pressure",))
    (static,) = _named(path, "--static", given.static, ("permeability",))
    return Contents(
        files=(path,),
        n_samples=inputs.shape[0],
        grid=grid,
        times=(),
        state=(FieldSpec(state, f"{state} ({solutions.name})"),),
        static=(FieldSpec(static, f"{static} ({inputs.name})"),),
        parameters={**origin, **(parameters or {})},
        equation="-∇·(a∇u) = f" if (state, static) == ("pressure", "permeability") else "",
        reference=reference,
        notes=notes,
        read=read,
        n_together=max(inputs.n_together, solutions.n_together),
    )


def evolving(
    path: Path,
    given: Given,
    initial: LazyArray | None,
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
        initial: [sample, *space].
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
    _require_trajectories(path, initial, states[0], n_dims)
    shape = states[0].shape
    grid, origin, notes = find_grid(path, shape[2:], given, ("periodic",) * n_dims, coordinates)
    if given.boundary is None:
        notes = (*notes, "periodic boundaries are assumed (--boundary)")
    found = np.asarray(times, dtype=np.float64) if times is not None else None
    from_start = initial is not None and shape[1] == 1  # one input and one output make two frames
    if from_start and found is not None and len(found) == 1:
        found = np.array([0.0, found[0]])
    known, more = find_times(path, shape[1] + from_start, given, found, first=initial is not None and not from_start)
    if known[0] > 0 and initial is None:
        known, shifted = from_zero(known)
        more = (*more, shifted)
    default = names or (("velocity",) if n_dims == 1 else ("vorticity",))
    chosen = given.state if names else _named(path, "--state", given.state, default)

    def read(samples: NDArray[np.int64]) -> Samples:
        trajectory = np.stack([array.take(samples) for array in states], axis=2)
        history = trajectory[:, :1] if initial is None else initial.take(samples)[:, None, None]
        if from_start:
            trajectory = np.concatenate([history, trajectory], axis=1)
        return Samples(history, np.zeros((len(samples), 0, *shape[2:]), dtype=np.float32), trajectory)

    return Contents(
        files=(path,),
        n_samples=shape[0],
        grid=grid,
        times=known,
        state=tuple(FieldSpec(name, name) for name in chosen or default),
        static=(),
        parameters={**origin, **(parameters or {})},
        equation="",
        reference=reference,
        notes=(*notes, *more),
        read=read,
        n_together=max(array.n_together for array in states),
    )


def _require_trajectories(path: Path, initial: LazyArray | None, states: LazyArray, n_dims: int) -> None:
    shape = states.shape
    if len(shape) != n_dims + 2 or n_dims not in (1, 2):
        raise ImportedFileError(
            f"{states.name} in {path} has the shape {shape} (samples, times, space). Only one and two space "
            "dimensions can be imported."
        )
    if initial is not None and (initial.shape[0], *initial.shape[1:]) != (shape[0], *shape[2:]):
        raise ImportedFileError(
            f"{initial.name} in {path} has the shape {initial.shape}, but {states.name} has {shape[0]} samples on "
            f"{shape[2:]} points. The order of axes is samples, space, time."
        )


def _named(path: Path, option: str, given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given is not None and len(given) != len(default):
        raise ImportedFileError(f"{option} needs {len(default)} name(s) for {path}, got {', '.join(given)}.")
    return given or default
