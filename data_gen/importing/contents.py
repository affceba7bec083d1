"""Files in the formats of others, understood: which fields on which grid at which times, and how to read samples.

- ``mat``: MATLAB files as published with the Fourier neural operator (Li et al. 2021), v5 and v7.3.
- ``pdebench``: HDF5 files of PDEBench (Takamoto et al. 2022) with all samples in one array.
- ``neuralop``: ``.pt`` files of the neuraloperator package, a dictionary of tensors x and y.
- ``well``: HDF5 files of The Well (Ohana et al. 2024), a directory or one file.

Every reader takes the word of the file where it gives one, and of the user elsewhere; where both speak, they have to
agree. What nobody said is assumed and noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import h5py
import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray

from data_gen.grids import AXIS_NAMES, Boundary, Grid, Nodes
from data_gen.spec import FieldSpec, Samples, Scalar

# Single-precision coordinates of a thousand points differ from uniform ones by 1e-4 of the spacing.
_UNIFORM = 1e-3
_INITIAL = "initial_"


class ForeignFileError(ValueError):
    """A file that can't be imported; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class Given:
    """What the user says of the files; None where the files have to tell, or a default is taken.

    Attributes:
        lengths, boundary, nodes: of the domain, per axis; one entry stands for all axes.
        times: of the stored snapshots.
        interval: between them.
        state, static: names of the fields. Where a file names its fields these choose among them.
    """

    lengths: tuple[float, ...] | None = None
    boundary: tuple[str, ...] | None = None
    nodes: tuple[str, ...] | None = None
    times: tuple[float, ...] | None = None
    interval: float | None = None
    state: tuple[str, ...] | None = None
    static: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Contents:
    """What was found.

    Attributes:
        files: that were read.
        n_samples: in all of them.
        grid, times, state, static, parameters: as in a DatasetSpec.
        equation, reference: defaults for the format.
        notes: what was assumed, for the user to check.
        read: samples by number, in the order asked for.
        n_together: consecutive samples that lie together in the file, so that reading fewer of them costs as much.
    """

    files: tuple[Path, ...]
    n_samples: int
    grid: Grid
    times: tuple[float, ...]
    state: tuple[FieldSpec, ...]
    static: tuple[FieldSpec, ...]
    parameters: Mapping[str, Scalar]
    equation: str
    reference: str
    notes: tuple[str, ...]
    read: Callable[[NDArray[np.int64]], Samples]
    n_together: int = 1


def open_foreign(kind: str, path: Path, given: Given, files: ExitStack) -> Contents:
    """Look into a file (or a directory) without reading its samples, where its format permits that.

    Args:
        kind: one of ``FORMATS``.
        path: what to open.
        given: what the user says.
        files: closes what stays open for reading.

    Raises:
        ForeignFileError: another kind of file, missing entries, shapes or coordinates that disagree, no uniform grid.
    """
    if not path.exists():
        raise ForeignFileError(f"There is no file {path}.")
    if path.is_dir() and kind != "well":
        raise ForeignFileError(f"{path} is a directory; name a file. Only the format well takes directories.")
    try:
        return FORMATS[kind](path, given, files)
    except ForeignFileError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # what a damaged file makes a parser raise can be anything
        first = next(iter(str(error).splitlines()), "")
        raise ForeignFileError(
            f"{path} can't be read as {kind} ({type(error).__name__}: {first}). Check the file, or name another of the "
            f"formats {', '.join(FORMATS)}."
        ) from error


# MATLAB --------------------------------------------------------------------------------------------------------------


def _open_mat(path: Path, given: Given, files: ExitStack) -> Contents:
    names, fetch = _mat_v73(path, files) if h5py.is_hdf5(path) else _mat_v5(path)
    reference = "Li et al. 2021, Fourier Neural Operator for Parametric Partial Differential Equations"
    if {"coeff", "sol"} <= names:
        return _steady(path, given, fetch("coeff"), fetch("sol"), reference)
    if "u" not in names:
        raise ForeignFileError(
            f"{path} has neither coeff and sol (Darcy) nor u, perhaps with a (Burgers, Navier-Stokes); it holds "
            f"{', '.join(sorted(names)) or 'nothing'}. Rename the variables in MATLAB or Python and save it again."
        )
    u, a = fetch("u"), fetch("a") if "a" in names else None
    n_dims = len(a.shape) - 1 if a is not None else len(u.shape) - 2
    if a is not None and len(u.shape) == len(a.shape):
        u = u.with_axis(-1)  # one time alone
    return _evolving(
        path,
        given,
        a,
        u.with_time_second(),
        n_dims,
        times=np.ravel(fetch("t").everything()) if "t" in names else None,
        reference=reference,
    )


def _mat_v5(path: Path) -> tuple[set[str], Callable[[str], _Array]]:
    names = {name for name, *_ in scipy.io.whosmat(str(path))}
    # The format holds each variable in one compressed piece, so it can't be read by parts.
    return names, lambda name: _Array(path, name, scipy.io.loadmat(str(path), variable_names=[name])[name])


def _mat_v73(path: Path, files: ExitStack) -> tuple[set[str], Callable[[str], _Array]]:
    file = files.enter_context(h5py.File(path, "r"))
    arrays = {name: entry for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
    if not any("MATLAB_class" in entry.attrs for entry in arrays.values()):
        raise ForeignFileError(
            f"{path} is an HDF5 file, but MATLAB didn't write it, so the order of its axes is unknown. Use pdebench or "
            "well if it is one of theirs; otherwise save it with scipy.io.savemat."
        )
    return set(arrays), lambda name: _Array(path, name, arrays[name], is_reversed=True)


# PDEBench ------------------------------------------------------------------------------------------------------------


def _open_pdebench(path: Path, given: Given, files: ExitStack) -> Contents:
    if not h5py.is_hdf5(path):
        raise ForeignFileError(f"{path} is no HDF5 file. Name another format, or another file.")
    file = files.enter_context(h5py.File(path, "r"))
    if any(isinstance(entry, h5py.Group) for entry in file.values()):
        raise ForeignFileError(
            f"{path} holds groups ({', '.join(list(file)[:3])} ...): a PDEBench file with a group for each sample, or "
            "another format. Only files with all samples in one array are read; use well if it is one of The Well's."
        )
    arrays = {name: _Array(path, name, entry) for name, entry in file.items() if not name.endswith("-coordinate")}
    fields = {name: array for name, array in arrays.items() if len(array.shape) >= 3}
    if not fields:
        raise ForeignFileError(
            f"{path} has no tensor and no fields of at least 3 axes; it holds {', '.join(sorted(file)) or 'nothing'}."
        )
    reference = "Takamoto et al. 2022, PDEBench: An Extensive Benchmark for Scientific Machine Learning"
    parameters = {
        str(k): float(v) for k, v in file.attrs.items() if np.ndim(v) == 0 and np.asarray(v).dtype.kind in "fiu"
    }
    axes = [np.asarray(file[f"{name}-coordinate"]) for name in AXIS_NAMES if f"{name}-coordinate" in file]
    coordinates = axes or None
    if {"tensor", "nu"} <= set(fields):
        tensor = fields["tensor"]
        if tensor.shape[1] != 1:
            raise ForeignFileError(
                f"tensor in {path} has the shape {tensor.shape}, expected (samples, 1, x, y) with nu."
            )
        return _steady(path, given, fields["nu"], tensor.without_axis(1), reference, coordinates, parameters)
    chosen = ("tensor",) if "tensor" in fields else given.state or tuple(fields)
    _require_names(path, "--state", chosen, fields)
    shapes = {name: fields[name].shape for name in chosen}
    if len(set(shapes.values())) != 1:
        raise ForeignFileError(f"The fields of {path} differ in shape: {shapes}. Choose among them with --state.")
    n_dims = len(next(iter(shapes.values()))) - 2
    times = np.asarray(file["t-coordinate"]) if "t-coordinate" in file else None
    n_times = next(iter(shapes.values()))[1]
    if times is not None and len(times) == n_times + 1:
        times = times[:-1]  # the last one has no data
    states = [fields[name] for name in chosen]
    names = None if "tensor" in fields else chosen
    return _evolving(
        path,
        given,
        None,
        states,
        n_dims,
        times=times,
        reference=reference,
        coordinates=coordinates,
        parameters=parameters,
        names=names,
    )


# neuraloperator ------------------------------------------------------------------------------------------------------


def _open_neuralop(path: Path, given: Given, files: ExitStack) -> Contents:
    del files
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError):  # written before 2020, or no such file at all
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ForeignFileError(
                f"{path} can't be loaded as tensors alone ({next(iter(str(error).splitlines()), '')}). A file with "
                "other Python objects in it isn't opened, because loading it would run its code."
            ) from error
    except Exception as error:
        raise ForeignFileError(
            f"{path} can't be loaded as tensors alone ({next(iter(str(error).splitlines()), '')}). A file with other "
            "Python objects in it isn't opened, because loading it would run its code."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(key), torch.Tensor) for key in ("x", "y")):
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ForeignFileError(f"{path} has to hold a dictionary with tensors x and y; it holds {held}.")
    x, y = (_Array(path, key, content[key]).without_channel() for key in ("x", "y"))
    reference = "Kossaifi et al. 2024, A Library for Learning Neural Operators (neuraloperator)"
    if len(y.shape) == len(x.shape):
        return _steady(path, given, x, y, reference)
    return _evolving(path, given, x, y, len(x.shape) - 1, times=None, reference=reference)


# The Well ------------------------------------------------------------------------------------------------------------


def _open_well(path: Path, given: Given, files: ExitStack) -> Contents:
    paths = sorted([*path.glob("*.hdf5"), *path.glob("*.h5")]) if path.is_dir() else [path]
    if not paths:
        raise ForeignFileError(f"{path} holds no .hdf5 file. Name the directory of one split, e.g. data/train.")
    parts = [_WellFile(one, files.enter_context(h5py.File(one, "r")), given) for one in paths]
    first = parts[0]
    for part in parts[1:]:
        for what in ("grid", "times", "state", "static"):
            if getattr(part, what) != getattr(first, what):
                raise ForeignFileError(
                    f"{part.path} and {first.path} differ in {what}. Import them apart, as datasets of their own."
                )
    parameters = {name: v for name, v in first.scalars.items() if all(part.scalars.get(name) == v for part in parts)}
    varying = sorted({name for part in parts for name in (*part.scalars, *part.varying)} - set(parameters))
    notes = (*first.notes, *([f"not stored, because they vary: scalars {', '.join(varying)}"] if varying else []))
    starts = np.cumsum([0, *(part.n_samples for part in parts)])

    def read(samples: NDArray[np.int64]) -> Samples:
        owner = np.searchsorted(starts, samples, side="right") - 1
        pieces = {i: parts[i].read(samples[owner == i] - starts[i]) for i in np.unique(owner)}
        order = np.argsort(np.concatenate([np.flatnonzero(owner == i) for i in pieces]))
        history, static, trajectory = (np.concatenate([p[k] for p in pieces.values()])[order] for k in range(3))
        return Samples(history, static, trajectory)

    return Contents(
        files=tuple(paths),
        n_samples=int(starts[-1]),
        grid=first.grid,
        times=first.times,
        state=tuple(FieldSpec(*entry) for entry in first.state),
        static=tuple(FieldSpec(*entry) for entry in first.static),
        parameters={**first.origin, **parameters},
        equation=first.equation,
        reference="Ohana et al. 2024, The Well: a Large-Scale Collection of Diverse Physics Simulations",
        notes=notes,
        read=read,
    )


class _Channel(NamedTuple):
    """A scalar field, or a component of a vector field, and whether it varies in time."""

    entry: Any
    order: int
    component: int | None
    varies: bool


class _WellFile:
    """One file of The Well: scalar fields, and the components of vector fields as fields of their own."""

    def __init__(self, path: Path, file: Any, given: Given) -> None:
        self.path, self._file = path, file
        lacking = [n for n in ("dimensions", "t0_fields", "boundary_conditions", "scalars") if n not in file]
        if lacking:
            raise ForeignFileError(
                f"{path} isn't in The Well's format: it lacks {', '.join(lacking)}; see {sorted(file)}."
            )
        grid_type = _text(file.attrs.get("grid_type", "cartesian"))
        axes = [_text(name) for name in file["dimensions"].attrs["spatial_dims"]]
        if grid_type != "cartesian" or len(axes) > 2:
            raise ForeignFileError(
                f"{path} is on a {grid_type} grid with the axes {axes}. Only cartesian grids in one and two dimensions "
                "are imported."
            )
        dimensions = {name: file["dimensions"][name] for name in (*axes, "time")}
        for name, entry in dimensions.items():
            if entry.attrs.get("sample_varying", False) or entry.attrs.get("time_varying", False):
                raise ForeignFileError(
                    f"{name} in {path} differs between samples or times; one grid for all is needed."
                )
        self.n_samples = int(file.attrs["n_trajectories"])
        self._n_axes, self._shape = len(axes), tuple(len(dimensions[name]) for name in axes)
        boundary, notes = self._boundary(axes, given)
        self.grid, self.origin, more = _grid(
            path, self._shape, given, boundary, [np.asarray(dimensions[name]) for name in axes]
        )
        self._channels = self._find_channels()
        evolving = [name for name, channel in self._channels.items() if channel.varies]
        frozen = [name for name in self._channels if name not in evolving]
        self._initial = {
            n[len(_INITIAL) :]: n for n in frozen if n.startswith(_INITIAL) and n[len(_INITIAL) :] in evolving
        }
        frozen = [name for name in frozen if name not in self._initial.values()]
        chosen = given.state or tuple(evolving)
        _require_names(path, "--state", chosen, evolving)
        if not chosen:
            raise ForeignFileError(f"{path} has no field that varies in time; there is nothing to predict.")
        kept = tuple(frozen) if given.static is None else given.static
        _require_names(path, "--static", kept, frozen)
        if any(self._channels[name].order == 2 for name in (*chosen, *kept)):
            raise ForeignFileError(
                f"{path} has tensor fields (t2_fields), which aren't imported. Choose others of its fields with "
                f"--state and --static: {', '.join(name for name, e in self._channels.items() if e.order < 2)}."
            )
        times, more_times = _times(path, len(dimensions["time"]), given, np.asarray(dimensions["time"]))
        if times[0] > 0 and not all(name in self._initial for name in chosen):
            self._initial, shift = {}, times[0]
            times = tuple(_rounded(t - shift) for t in times)
            more_times = (*more_times, f"times are counted from the first snapshot, at {shift:g} in the file")
        self.times, self.notes = times, (*notes, *more, *more_times)
        self._state_names, self._static_names = chosen, kept
        self.state, self.static = (tuple(self._describe(name) for name in names) for names in (chosen, kept))
        self.scalars, self.varying = self._find_scalars()
        self.equation = _text(file.attrs.get("equation", "")) or _text(file.attrs.get("dataset_name", ""))

    def read(self, samples: NDArray[np.int64]) -> Samples:
        trajectory = np.stack([self._take(name, samples) for name in self._state_names], axis=2)
        static = [self._take(name, samples) for name in self._static_names]
        first = trajectory[:, :1]
        if self.times[0] > 0:
            first = np.stack([self._take(self._initial[name], samples) for name in self._state_names], axis=1)[:, None]
        empty = np.zeros((len(samples), 0, *self._shape), dtype=np.float32)
        return Samples(first, np.stack(static, axis=1) if static else empty, trajectory)

    def _boundary(self, axes: Sequence[str], given: Given) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = dict.fromkeys(axes, "")
        for name, condition in self._file["boundary_conditions"].items():
            kind = _text(condition.attrs["bc_type"]).upper()
            for axis in map(_text, condition.attrs["associated_dims"]):
                told = name.rpartition("_")[2]
                wall = told if told in ("dirichlet", "neumann") else "dirichlet"
                found[axis] = {"PERIODIC": "periodic", "OPEN": "open"}.get(kind, wall)
        unknown = [axis for axis, kind in found.items() if not kind]
        note = f"no boundary condition in the file for {', '.join(unknown)}: open is assumed (--boundary)"
        notes = (note,) if unknown and given.boundary is None else ()
        return tuple(kind or "open" for kind in found.values()), notes

    def _find_channels(self) -> dict[str, _Channel]:
        channels: dict[str, _Channel] = {}
        for order in range(3):
            if f"t{order}_fields" not in self._file:
                continue
            group = self._file[f"t{order}_fields"]
            for name in map(_text, group.attrs["field_names"]):
                varies = bool(group[name].attrs["time_varying"])
                if order == 1:
                    for component in range(group[name].shape[-1]):
                        axis = AXIS_NAMES[component] if component < len(AXIS_NAMES) else str(component)
                        channels[f"{name}_{axis}"] = _Channel(group[name], order, component, varies)
                else:
                    channels[name] = _Channel(group[name], order, None, varies)
        return channels

    def _find_scalars(self) -> tuple[dict[str, Scalar], list[str]]:
        group = self._file["scalars"]
        constant: dict[str, Scalar] = {}
        varying = []
        for name in map(_text, group.attrs["field_names"]):
            if group[name].shape in ((), (1,)):
                value = float(np.ravel(group[name][()])[0])
                constant[name] = int(value) if value.is_integer() and group[name].dtype.kind in "iu" else value
            else:
                varying.append(name)
        return constant, varying

    def _describe(self, name: str) -> tuple[str, str, str]:
        attrs = self._channels[name].entry.attrs
        return name, _text(attrs.get("long_name", name)), _text(attrs.get("units", "1"))

    def _take(self, name: str, samples: NDArray[np.int64]) -> NDArray[Any]:
        """[sample, (time,) *space] of a channel; axes along which it is constant are filled."""
        entry, _, component, varies = self._channels[name]
        if entry.attrs["sample_varying"]:
            values = _Array(self.path, name, entry).take(samples)
        else:
            values = np.broadcast_to(entry[()], (len(samples), *entry.shape))
        if component is not None:
            values = values[..., component]
        lead = 1 + int(varies)
        for axis, along in enumerate(entry.attrs["dim_varying"]):
            if not along:
                values = np.expand_dims(values, lead + axis)
        expected = (len(samples), *((len(self.times),) if varies else ()), *self._shape)
        try:
            return np.broadcast_to(values, expected)
        except ValueError:
            raise ForeignFileError(
                f"{name} in {self.path} has the shape {entry.shape}, which doesn't fit samples, times and grid "
                f"{expected}."
            ) from None


# What formats have in common -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Array:
    """An array of a file with the samples on its first axis, read when asked for.

    is_reversed: MATLAB's v7.3 files hold the axes in reverse order.
    order, inserted: how the axes that are read become those of ``shape``.
    """

    path: Path
    name: str
    values: Any
    is_reversed: bool = False
    order: tuple[int, ...] | None = None
    shape_: tuple[int, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        if self.shape_ is not None:
            return self.shape_
        shape = tuple(self.values.shape)
        return shape[::-1] if self.is_reversed else shape

    def take(self, samples: NDArray[np.int64]) -> NDArray[Any]:
        """The given samples, in the given order, [len(samples), *shape[1:]]."""
        unique, back = np.unique(samples, return_inverse=True)
        first, last = int(unique[0]), int(unique[-1])
        rows = slice(first, last + 1) if last - first + 1 == len(unique) else unique  # slices are read faster
        if isinstance(self.values, torch.Tensor):
            found = self.values[torch.from_numpy(unique) if isinstance(rows, np.ndarray) else rows].numpy()
        elif self.is_reversed:
            found = np.transpose(self.values[(..., rows)])
        else:
            found = np.asarray(self.values[rows])
        if found.dtype.kind not in "fiub":
            raise ForeignFileError(f"{self.name} in {self.path} holds {found.dtype}, expected real numbers.")
        found = found[back]
        if self.order is not None:
            found = np.transpose(found, self.order)
        return found.reshape(len(samples), *self.shape[1:])

    @property
    def n_together(self) -> int:
        """Samples in a chunk of an HDF5 file: all of it is read and unpacked for any of them."""
        chunks = getattr(self.values, "chunks", None)
        return (chunks[-1] if self.is_reversed else chunks[0]) if isinstance(chunks, tuple) and chunks else 1

    def everything(self) -> NDArray[Any]:
        return np.asarray(self.values)

    def _shaped(self, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> _Array:
        return _Array(self.path, self.name, self.values, self.is_reversed, order or self.order, shape)

    def with_axis(self, position: int) -> _Array:
        """With an axis of one entry."""
        shape = list(self.shape)
        shape.insert(position if position >= 0 else len(shape) + 1 + position, 1)
        return self._shaped(tuple(shape))

    def without_axis(self, position: int) -> _Array:
        return self._shaped((*self.shape[:position], *self.shape[position + 1 :]))

    def without_channel(self) -> _Array:
        """Without the one channel of [sample, 1, *space]."""
        return self.without_axis(1) if len(self.shape) > 2 and self.shape[1] == 1 else self

    def with_time_second(self) -> _Array:
        """[sample, *space, time] as [sample, time, *space]."""
        n = len(self.shape)
        if n - len(tuple(self.values.shape)) == 1:  # an axis of one entry was put last
            return self._shaped((self.shape[0], self.shape[-1], *self.shape[1:-1]))
        return self._shaped((self.shape[0], self.shape[-1], *self.shape[1:-1]), (0, n - 1, *range(1, n - 1)))


def _steady(
    path: Path,
    given: Given,
    inputs: _Array,
    solutions: _Array,
    reference: str,
    coordinates: Sequence[NDArray[Any]] | None = None,
    parameters: Mapping[str, Scalar] | None = None,
) -> Contents:
    if inputs.shape != solutions.shape or len(inputs.shape) not in (2, 3):
        raise ForeignFileError(
            f"{inputs.name} and {solutions.name} in {path} have the shapes {inputs.shape} and {solutions.shape}, "
            "expected (samples, x) or (samples, x, y) for both."
        )
    default = given.boundary is None
    grid, origin, notes = _grid(path, inputs.shape[1:], given, ("dirichlet",) * (len(inputs.shape) - 1), coordinates)
    if default:
        notes = (*notes, "a steady problem with the solution given on the boundary: dirichlet is assumed (--boundary)")
    if given.times is not None or given.interval is not None:
        raise ForeignFileError(
            f"{path} holds a steady problem, so --times and --interval mean nothing. Leave them out."
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


def _evolving(
    path: Path,
    given: Given,
    initial: _Array | None,
    states: _Array | Sequence[_Array],
    n_dims: int,
    *,
    times: NDArray[Any] | None,
    reference: str,
    coordinates: Sequence[NDArray[Any]] | None = None,
    parameters: Mapping[str, Scalar] | None = None,
    names: tuple[str, ...] | None = None,
) -> Contents:
    """Trajectories [sample, time, *space], perhaps with an initial state [sample, *space] apart."""
    if given.static:
        raise ForeignFileError(f"{path} holds trajectories without static fields. Leave --static out.")
    states = [states] if isinstance(states, _Array) else list(states)
    shape = states[0].shape
    if len(shape) != n_dims + 2 or n_dims not in (1, 2):
        raise ForeignFileError(
            f"{states[0].name} in {path} has the shape {shape} (samples, times, space): only one and two space "
            "dimensions are imported."
        )
    if initial is not None and (initial.shape[0], *initial.shape[1:]) != (shape[0], *shape[2:]):
        raise ForeignFileError(
            f"{initial.name} in {path} has the shape {initial.shape}, which isn't (samples, *space) of "
            f"{states[0].name}: {(shape[0], *shape[2:])}. The order of axes is samples, space, time."
        )
    grid, origin, notes = _grid(path, shape[2:], given, ("periodic",) * n_dims, coordinates)
    if given.boundary is None:
        notes = (*notes, "periodic boundaries are assumed (--boundary)")
    found = np.asarray(times, dtype=np.float64) if times is not None else None
    from_start = initial is not None and shape[1] == 1  # an input and one output: two frames
    if from_start and found is not None and len(found) == 1:
        found = np.array([0.0, found[0]])
    known, more = _times(path, shape[1] + from_start, given, found, first=initial is not None and not from_start)
    if known[0] > 0 and initial is None:
        more = (*more, f"times are counted from the first snapshot, at {known[0]:g} in the file")
        known = tuple(_rounded(t - known[0]) for t in known)
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


def _grid(
    path: Path,
    shape: tuple[int, ...],
    given: Given,
    default: tuple[str, ...],
    coordinates: Sequence[NDArray[Any]] | None,
) -> tuple[Grid, dict[str, Scalar], tuple[str, ...]]:
    """The grid, where the file's coordinates start if our own start elsewhere, and what was assumed."""
    n_dims = len(shape)
    boundary = _per_axis(path, "--boundary", given.boundary, n_dims) or default
    nodes = _per_axis(path, "--nodes", given.nodes, n_dims)
    lengths = _per_axis(path, "--lengths", given.lengths, n_dims)
    if coordinates is not None and tuple(len(x) for x in coordinates) != shape:
        raise ForeignFileError(
            f"The coordinates in {path} have {', '.join(str(len(x)) for x in coordinates)} points, but the fields have "
            f"{', '.join(map(str, shape))}: the axes are in another order than samples, times, x, y, or the file is "
            "another kind than was named."
        )
    steps = [_spacing(path, name, x) for name, x in zip(AXIS_NAMES, coordinates or (), strict=False)]
    if nodes is None:
        nodes = tuple(
            "periodic" if kind == "periodic" else _kind_of_nodes(i, coordinates, steps)
            for i, kind in enumerate(boundary)
        )
    found = tuple(h * (n - 1 if kind == "closed" else n) for h, n, kind in zip(steps, shape, nodes, strict=False))
    notes: tuple[str, ...] = ()
    if lengths is None:
        lengths = tuple(_rounded(length) for length in found) if steps else (1.0,) * n_dims
        if not steps:
            notes = ("the file has no coordinates: a domain of length 1 is assumed (--lengths)",)
    elif steps and not np.allclose(lengths, found, rtol=_UNIFORM):
        raise ForeignFileError(
            f"--lengths {_listed(lengths)} doesn't fit the coordinates in {path}, which with nodes {', '.join(nodes)} "
            f"make {_listed(found)}. Leave --lengths out, or say with --boundary and --nodes where the points are."
        )
    try:
        grid = Grid(shape, lengths, cast(tuple[Boundary, ...], boundary), cast(tuple[Nodes, ...], nodes))
    except ValueError as error:
        raise ForeignFileError(f"{path}: {error} Change --lengths, --boundary or --nodes.") from error
    origin: dict[str, Scalar] = {}
    for name, ours, theirs, h in zip(AXIS_NAMES, grid.coordinates(), coordinates or (), steps, strict=False):
        if abs(float(theirs[0]) - ours[0]) > _UNIFORM * h:
            origin[f"origin_{name}"] = _rounded(float(theirs[0]) - ours[0])
    if not steps and given.nodes is None:
        notes = (*notes, f"points are taken as {', '.join(dict.fromkeys(nodes))} (--nodes)")
    if origin:
        notes = (
            *notes,
            f"coordinates are counted from 0; the file's start at {_listed(x[0] for x in coordinates or ())}",
        )
    return grid, origin, notes


def _kind_of_nodes(axis: int, coordinates: Sequence[NDArray[Any]] | None, steps: Sequence[float]) -> str:
    if coordinates is None:
        return "closed"
    return "centres" if abs(float(coordinates[axis][0]) - steps[axis] / 2) < _UNIFORM * steps[axis] else "closed"


def _spacing(path: Path, name: str, x: NDArray[Any]) -> float:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ForeignFileError(f"The coordinate {name} in {path} isn't a list of at least two numbers.")
    h = float(values[-1] - values[0]) / (len(values) - 1)
    if h <= 0 or np.abs(np.diff(values) - h).max() > _UNIFORM * h:
        raise ForeignFileError(
            f"The coordinate {name} in {path} isn't uniform and increasing. Only uniform grids are imported: "
            "interpolate the fields to one first."
        )
    return h


def _times(
    path: Path, n: int, given: Given, found: NDArray[Any] | None, *, first: bool = False
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Times of n snapshots, and what was assumed.

    first: the initial state lies apart, so snapshots start one interval after it.
    """
    if found is not None:
        if found.shape != (n,) or not np.isfinite(found).all() or (np.diff(found) <= 0).any():
            raise ForeignFileError(
                f"The times in {path} have to be {n} increasing numbers, got {found.shape[0]} entries."
            )
        told = tuple(_rounded(float(t)) for t in found)
    else:
        told = None
    wanted = given.times
    if given.interval is not None:
        start = told[0] if told else given.interval * first
        wanted = tuple(_rounded(start + given.interval * i) for i in range(n))
    if wanted is not None and len(wanted) != n:
        raise ForeignFileError(f"--times has {len(wanted)} entries, but the trajectories in {path} have {n} frames.")
    if wanted is not None and any(b <= a for a, b in pairwise(wanted)):
        raise ForeignFileError(f"Times have to increase, got {_listed(wanted)}. Change --times or --interval.")
    if wanted is not None and told is not None and not np.allclose(wanted, told, rtol=1e-4, atol=1e-9):
        raise ForeignFileError(
            f"The times in {path} go from {told[0]:g} to {told[-1]:g}, not from {wanted[0]:g} to {wanted[-1]:g}. Leave "
            "--times and --interval out."
        )
    if told is not None or wanted is not None:
        return told or cast(tuple[float, ...], wanted), ()
    note = "the file has no times: an interval of 1 is assumed (--interval, --times)"
    return tuple(float(i + first) for i in range(n)), (note,)


def _per_axis(path: Path, option: str, values: tuple[Any, ...] | None, n_dims: int) -> tuple[Any, ...] | None:
    if values is None or len(values) == n_dims:
        return values
    if len(values) == 1:
        return values * n_dims
    raise ForeignFileError(f"{option} has {len(values)} entries, but {path} has {n_dims} space axes.")


def _named(path: Path, option: str, given: tuple[str, ...] | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if given is not None and len(given) != len(default):
        raise ForeignFileError(f"{option} needs {len(default)} name(s) for {path}, got {', '.join(given)}.")
    return given or default


def _require_names(path: Path, option: str, chosen: Sequence[str], known: Sequence[str] | Mapping[str, Any]) -> None:
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ForeignFileError(f"{option}: {path} has no {', '.join(unknown)}; it has {', '.join(known) or 'none'}.")


def _rounded(value: float) -> float:
    """Without the last digits, where single precision leaves its rounding."""
    return float(f"{value:.6g}")


def _listed(values: Any) -> str:
    return ",".join(f"{float(value):g}" for value in values)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


FORMATS: Mapping[str, Callable[[Path, Given, ExitStack], Contents]] = {
    "mat": _open_mat,
    "pdebench": _open_pdebench,
    "neuralop": _open_neuralop,
    "well": _open_well,
}
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,39}")
