"""HDF5 files of The Well (Ohana et al. 2024), one file or a directory of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_gen import hdf5
from data_gen.grids import AXIS_NAMES
from data_gen.importing.arrays import LazyArray
from data_gen.importing.axes import find_grid, find_times, from_zero
from data_gen.importing.contents import Contents, Given, ImportedFileError, require_names
from data_gen.spec import FieldSpec, Samples, Scalar

# Name of the field that holds the initial state of another, in our own files.
_INITIAL = "initial_"


def open_file(path: Path, given: Given, files: ExitStack) -> Contents:
    """The samples of one file, or of all files of a directory.

    Raises:
        ImportedFileError: no such files, files that differ, or a grid that isn't cartesian, uniform and the same for
            all samples.
    """
    paths = sorted([*path.glob("*.hdf5"), *path.glob("*.h5")]) if path.is_dir() else [path]
    if not paths:
        raise ImportedFileError(f"{path} holds no .hdf5 file. Name the directory of one split, e.g. data/train.")
    parts = [_WellFile(one, files.enter_context(hdf5.open_file(one)), given) for one in paths]
    first = parts[0]
    for part in parts[1:]:
        for what in ("grid", "times", "state", "static"):
            if getattr(part, what) != getattr(first, what):
                raise ImportedFileError(
                    f"{part.path} and {first.path} differ in {what}. Import them as separate datasets."
                )
    parameters, scalars, lost = _scalars(parts)
    notes = first.notes
    if lost:
        notes = (*notes, f"scalars that vary in time, or that some files lack, are not stored: {', '.join(lost)}")
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
        scalars=scalars,
    )


def _scalars(parts: Sequence[_WellFile]) -> tuple[dict[str, Scalar], dict[str, NDArray[np.float64]], list[str]]:
    """Scalars that are the same for all samples, those that differ between samples, and the names of all others."""
    constant: dict[str, Scalar] = {}
    varying: dict[str, NDArray[np.float64]] = {}
    lost = {name for part in parts for name in part.unsteady}
    for name in sorted({name for part in parts for name in part.scalars}):
        if name in lost or any(name not in part.scalars for part in parts):
            lost.add(name)
            continue
        values = np.concatenate([np.broadcast_to(part.scalars[name], part.n_samples) for part in parts])
        if (values == values[0]).all():
            first = parts[0].scalars[name].flat[0]
            constant[name] = int(first) if first.dtype.kind in "iu" else float(first)
        else:
            varying[name] = values.astype(np.float64)
    return constant, varying, sorted(lost)


class _Condition(NamedTuple):
    """A boundary condition: periodic, wall or open, on the points of a mask over all space axes.

    ``axes`` are the positions of the axes that it is associated with.
    """

    name: str
    kind: str
    axes: tuple[int, ...]
    mask: NDArray[np.bool_]

    def covers(self, axis: int, end: int) -> bool:
        """Whether it holds on the whole face at the first (0) or last (-1) points of an axis."""
        return axis in self.axes and (self.kind == "periodic" or bool(self.mask.take(end, axis).all()))

    def beyond_faces(self) -> NDArray[np.bool_]:
        """The points of the mask that aren't on a face that it covers."""
        rest = self.mask.copy()
        for axis in self.axes:
            for end in (0, -1):
                if self.covers(axis, end):
                    np.moveaxis(rest, axis, 0)[end] = False
        return rest


class _Mask(np.ndarray):
    """An array with attributes, as a dataset of HDF5 has them."""

    attrs: dict[str, Any]


class _Channel(NamedTuple):
    """A scalar field, or a component of a vector or tensor field, and whether it varies in time."""

    entry: Any
    component: tuple[int, ...]
    varies: bool

    def is_mask(self, mask: NDArray[np.bool_]) -> bool:
        """Whether this is a constant field that equals a mask, or its complement."""
        if self.varies or self.entry.attrs["sample_varying"] or self.entry.shape != mask.shape:
            return False
        values = np.asarray(self.entry)
        return np.array_equal(values, mask) or np.array_equal(values, ~mask)


class _WellFile:
    """One file of The Well: scalar fields, and the components of vectors and tensors as fields of their own."""

    def __init__(self, path: Path, file: Any, given: Given) -> None:
        self.path, self._file = path, file
        axes = self._axes()
        dimensions = {name: file["dimensions"][name] for name in (*axes, "time")}
        for name, entry in dimensions.items():
            if entry.attrs.get("sample_varying", False) or entry.attrs.get("time_varying", False):
                raise ImportedFileError(
                    f"{name} in {path} differs between samples or times. Only one grid for all can be imported."
                )
        self.n_samples = int(file.attrs["n_trajectories"])
        self._shape = tuple(len(dimensions[name]) for name in axes)
        conditions = self._conditions(axes)
        boundary, boundary_notes = self._boundary(axes, conditions, given)
        coordinates = [np.asarray(dimensions[name]) for name in axes]
        self.grid, self.origin, grid_notes = find_grid(path, self._shape, given, boundary, coordinates)
        self._channels = self._find_channels()
        self.scalars, self.unsteady = self._find_scalars()
        mask_notes = self._add_masks(conditions)
        self._choose(given)
        times, time_notes = find_times(path, len(dimensions["time"]), given, np.asarray(dimensions["time"]))
        if times[0] > 0 and not all(name in self._initial for name in self._state_names):
            self._initial = {}
            times, shifted = from_zero(times)
            time_notes = (*time_notes, shifted)
        self.times, self.notes = times, (*boundary_notes, *mask_notes, *grid_notes, *time_notes)
        self.state, self.static = (
            tuple(self._describe(name) for name in names) for names in (self._state_names, self._static_names)
        )
        self.equation = _text(file.attrs.get("equation", "")) or _text(file.attrs.get("dataset_name", ""))

    def _axes(self) -> list[str]:
        """Names of the space axes, after checking that the file is one that can be imported."""
        lacking = [n for n in ("dimensions", "t0_fields", "boundary_conditions", "scalars") if n not in self._file]
        if lacking:
            raise ImportedFileError(
                f"{self.path} isn't in The Well's format: it lacks {', '.join(lacking)}; it holds {sorted(self._file)}."
            )
        grid_type = _text(self._file.attrs.get("grid_type", "cartesian"))
        axes = _texts(self._file["dimensions"].attrs["spatial_dims"])
        if grid_type != "cartesian" or len(axes) > len(AXIS_NAMES):
            raise ImportedFileError(
                f"{self.path} is on a {grid_type} grid with the axes {axes}. Only cartesian grids in one, two "
                "and three dimensions can be imported."
            )
        return axes

    def _choose(self, given: Given) -> None:
        """Set the names of the state, of the static fields, and of fields that hold the initial state of others."""
        evolving = [name for name, channel in self._channels.items() if channel.varies]
        frozen = [name for name in self._channels if name not in evolving]
        self._initial = {
            n[len(_INITIAL) :]: n for n in frozen if n.startswith(_INITIAL) and n[len(_INITIAL) :] in evolving
        }
        frozen = [name for name in frozen if name not in self._initial.values()]
        chosen = given.state or tuple(evolving)
        require_names(self.path, "--state", chosen, evolving)
        if not chosen:
            raise ImportedFileError(f"{self.path} has no field that varies in time; there is nothing to predict.")
        require_names(self.path, "--static", given.static or (), [*frozen, *self.scalars])
        kept = tuple(frozen) if given.static is None else tuple(name for name in given.static if name in frozen)
        self._state_names, self._static_names = chosen, kept

    def read(self, samples: NDArray[np.int64]) -> Samples:
        trajectory = np.stack([self._take(name, samples) for name in self._state_names], axis=2)
        static = [self._take(name, samples) for name in self._static_names]
        first = trajectory[:, :1]
        if self.times[0] > 0:
            first = np.stack([self._take(self._initial[name], samples) for name in self._state_names], axis=1)[:, None]
        empty = np.zeros((len(samples), 0, *self._shape), dtype=np.float32)
        return Samples(first, np.stack(static, axis=1) if static else empty, trajectory)

    def _conditions(self, axes: Sequence[str]) -> list[_Condition]:
        """The file's boundary conditions.

        Raises:
            ImportedFileError: one is of an unknown kind, or changes between samples or times, or its mask doesn't fit.
        """
        found = []
        for name, entry in self._file["boundary_conditions"].items():
            kind = _text(entry.attrs["bc_type"]).lower()
            if kind not in ("periodic", "wall", "open"):
                raise ImportedFileError(f"{name} in {self.path} is a boundary condition of the unknown kind {kind}.")
            if entry.attrs.get("sample_varying", False) or entry.attrs.get("time_varying", False):
                raise ImportedFileError(
                    f"The boundary condition {name} in {self.path} differs between samples or times. Only one for all "
                    "can be imported."
                )
            where = tuple(axes.index(axis) for axis in _texts(entry.attrs["associated_dims"]))
            mask = np.asarray(entry["mask"]).astype(bool) if "mask" in entry else np.zeros((), dtype=bool)
            if len(where) == 1 and not mask.any():  # a condition on one axis without a place holds at both ends
                mask = np.zeros(self._shape[where[0]], dtype=bool)
                mask[[0, -1]] = True
            if mask.shape != tuple(self._shape[axis] for axis in where):
                raise ImportedFileError(
                    f"The mask of the boundary condition {name} in {self.path} has the shape {mask.shape}, which "
                    f"doesn't fit the axes {', '.join(axes[axis] for axis in where)} of the grid {self._shape}."
                )
            mask = mask.transpose(np.argsort(where))
            mask = np.expand_dims(mask, tuple(axis for axis in range(len(axes)) if axis not in where))
            found.append(_Condition(name, kind, where, np.broadcast_to(mask, self._shape)))
        return found

    def _boundary(
        self, axes: Sequence[str], conditions: Sequence[_Condition], given: Given
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Boundary per axis from the conditions that cover its two faces, and notes on what was decided.

        As in The Well's own reader, a face that no condition covers is open.

        Raises:
            ImportedFileError: the two faces of an axis differ and the user doesn't say what to use, or what the user
                says contradicts the file.
        """
        wanted = given.boundary or ()
        wanted = wanted * len(axes) if len(wanted) == 1 else wanted
        boundary, notes, differing = [], [], []
        for axis, name in enumerate(axes):
            faces = [[c for c in conditions if c.covers(axis, end)] for end in (0, -1)]
            kinds = {kind for face in faces for kind in {c.kind for c in face} or {"open"}}
            told = {c.name.rpartition("_")[2] for face in faces for c in face} & {"dirichlet", "neumann"}
            wall = told.pop() if len(told) == 1 else "dirichlet"
            boundary.append(wall if kinds == {"wall"} else "periodic" if kinds == {"periodic"} else "open")
            if len(kinds) > 1:
                both = f"{_listed(faces[0])} at its first end, {_listed(faces[1])} at its last"
                differing.append(f"the axis {name} is {both}")
            elif not any(faces) and not wanted:
                notes.append(f"no boundary condition in the file covers {name}: open is assumed (--boundary)")
            elif len(wanted) == len(axes) and (wanted[axis] == "periodic") != (boundary[-1] == "periodic"):
                raise ImportedFileError(
                    f"--boundary {wanted[axis]} doesn't fit {self.path}, where the axis {name} is {_listed(faces[0])}. "
                    "Leave --boundary out, or correct it."
                )
        if differing and not wanted:
            raise ImportedFileError(
                f"In {self.path}, {' and '.join(differing)}. A grid has one boundary condition per axis here, which "
                f"decides how models pad. Say which to use, for example with --boundary {','.join(boundary)}."
            )
        notes += [f"{entry}: --boundary decides" for entry in differing]
        return tuple(boundary), tuple(notes)

    def _add_masks(self, conditions: Sequence[_Condition]) -> tuple[str, ...]:
        """Add walls that aren't whole faces, such as obstacles, to the fields: 1 at their points, 0 elsewhere."""
        notes = []
        for condition in conditions:
            rest = condition.beyond_faces()
            if condition.kind == "periodic" or not rest.any():
                continue
            if condition.kind == "open":
                notes.append(f"{condition.name} is open at points that aren't a whole face; this isn't stored")
                continue
            same = next((name for name, c in self._channels.items() if c.is_mask(condition.mask)), None)
            if same is not None:
                notes.append(f"the walls of {condition.name} are those of the field {same}")
                continue
            attrs = {"sample_varying": False, "time_varying": False, "dim_varying": [True] * condition.mask.ndim}
            attrs["long_name"] = f"1 at the walls of {condition.name}, 0 elsewhere"
            entry = condition.mask.astype(np.float32).view(_Mask)
            entry.attrs = attrs
            self._channels[condition.name] = _Channel(entry, (), False)
            notes.append(
                f"{condition.name} has walls inside the domain: they are the static field {condition.name}, which is "
                "an input of the models (--static)"
            )
        return tuple(notes)

    def _find_channels(self) -> dict[str, _Channel]:
        channels: dict[str, _Channel] = {}
        for order in range(3):
            if f"t{order}_fields" not in self._file:
                continue
            group = self._file[f"t{order}_fields"]
            for name in _texts(group.attrs["field_names"]):
                entry = group[name]
                varies = bool(entry.attrs["time_varying"])
                for component in _components(entry, order):
                    axes = "".join(AXIS_NAMES[i] if i < len(AXIS_NAMES) else str(i) for i in component)
                    channels[f"{name}_{axes}" if axes else name] = _Channel(entry, component, varies)
        return channels

    def _find_scalars(self) -> tuple[dict[str, NDArray[Any]], list[str]]:
        """Scalars by name, [1] or [n_samples], and the names of those that vary in time."""
        group = self._file["scalars"]
        found, unsteady = {}, []
        for name in _texts(group.attrs["field_names"]):
            values = np.ravel(group[name][()])
            if group[name].attrs.get("time_varying", False) or len(values) not in (1, self.n_samples):
                unsteady.append(name)
            else:
                found[name] = values
        return found, unsteady

    def _describe(self, name: str) -> tuple[str, str, str]:
        attrs = self._channels[name].entry.attrs
        return name, _text(attrs.get("long_name", name)), _text(attrs.get("units", "1"))

    def _take(self, name: str, samples: NDArray[np.int64]) -> NDArray[Any]:
        """[sample, (time,) *space] of a channel; axes along which it is constant are filled."""
        entry, component, varies = self._channels[name]
        if entry.attrs["sample_varying"]:
            values = LazyArray(self.path, name, entry).take(samples)
        else:
            values = np.broadcast_to(np.asarray(entry), (len(samples), *entry.shape))
        values = values[(..., *component)]
        lead = 1 + int(varies)
        for axis, along in enumerate(entry.attrs["dim_varying"]):
            if not along:
                values = np.expand_dims(values, lead + axis)
        expected = (len(samples), *((len(self.times),) if varies else ()), *self._shape)
        try:
            return np.broadcast_to(values, expected)
        except ValueError:
            raise ImportedFileError(
                f"{name} in {self.path} has the shape {entry.shape}, which doesn't fit samples, times and grid "
                f"{expected}."
            ) from None


def _components(entry: Any, order: int) -> Iterator[tuple[int, ...]]:
    """Indices of the components of a field, whose axes are the last ``order``; those of a symmetric or antisymmetric
    tensor without the ones that follow from others."""
    for component in itertools.product(*(range(n) for n in entry.shape[len(entry.shape) - order :])):
        if order == 2 and entry.attrs.get("symmetric", False) and component[0] > component[1]:
            continue
        if order == 2 and entry.attrs.get("antisymmetric", False) and component[0] >= component[1]:
            continue
        yield component


def _listed(face: Sequence[_Condition]) -> str:
    return " and ".join(f"{condition.kind} ({condition.name})" for condition in face) or "open (no condition)"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(values: Any) -> list[str]:
    """Names in an attribute, which is a list, or a single name."""
    return [_text(values)] if isinstance(values, str | bytes) else [_text(value) for value in values]
