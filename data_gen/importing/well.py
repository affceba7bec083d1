"""HDF5 files of The Well (Ohana et al. 2024), one file or a directory of them."""

from __future__ import annotations

from collections.abc import Sequence
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
        ImportedFileError: no such files, files that differ, a grid that isn't cartesian, uniform and the same for all
            samples, or tensor fields among those chosen.
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
    parameters = {name: v for name, v in first.scalars.items() if all(part.scalars.get(name) == v for part in parts)}
    varying = sorted({name for part in parts for name in (*part.scalars, *part.varying)} - set(parameters))
    notes = first.notes
    if varying:
        notes = (*notes, f"scalars that differ between samples are not stored: {', '.join(varying)}")
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
        axes = self._axes()
        dimensions = {name: file["dimensions"][name] for name in (*axes, "time")}
        for name, entry in dimensions.items():
            if entry.attrs.get("sample_varying", False) or entry.attrs.get("time_varying", False):
                raise ImportedFileError(
                    f"{name} in {path} differs between samples or times. Only one grid for all can be imported."
                )
        self.n_samples = int(file.attrs["n_trajectories"])
        self._shape = tuple(len(dimensions[name]) for name in axes)
        boundary, boundary_notes = self._boundary(axes, given)
        coordinates = [np.asarray(dimensions[name]) for name in axes]
        self.grid, self.origin, grid_notes = find_grid(path, self._shape, given, boundary, coordinates)
        self._channels = self._find_channels()
        self._choose(given)
        times, time_notes = find_times(path, len(dimensions["time"]), given, np.asarray(dimensions["time"]))
        if times[0] > 0 and not all(name in self._initial for name in self._state_names):
            self._initial = {}
            times, shifted = from_zero(times)
            time_notes = (*time_notes, shifted)
        self.times, self.notes = times, (*boundary_notes, *grid_notes, *time_notes)
        self.state, self.static = (
            tuple(self._describe(name) for name in names) for names in (self._state_names, self._static_names)
        )
        self.scalars, self.varying = self._find_scalars()
        self.equation = _text(file.attrs.get("equation", "")) or _text(file.attrs.get("dataset_name", ""))

    def _axes(self) -> list[str]:
        """Names of the space axes, after checking that the file is one that can be imported."""
        lacking = [n for n in ("dimensions", "t0_fields", "boundary_conditions", "scalars") if n not in self._file]
        if lacking:
            raise ImportedFileError(
                f"{self.path} isn't in The Well's format: it lacks {', '.join(lacking)}; it holds {sorted(self._file)}."
            )
        grid_type = _text(self._file.attrs.get("grid_type", "cartesian"))
        axes = [_text(name) for name in self._file["dimensions"].attrs["spatial_dims"]]
        if grid_type != "cartesian" or len(axes) > 2:
            raise ImportedFileError(
                f"{self.path} is on a {grid_type} grid with the axes {axes}. Only cartesian grids in one and two "
                "dimensions can be imported."
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
        kept = tuple(frozen) if given.static is None else given.static
        require_names(self.path, "--static", kept, frozen)
        if any(self._channels[name].order == 2 for name in (*chosen, *kept)):
            raise ImportedFileError(
                f"{self.path} has tensor fields (t2_fields), which can't be imported. Choose among its other fields "
                f"with --state and --static: {', '.join(name for name, e in self._channels.items() if e.order < 2)}."
            )
        self._state_names, self._static_names = chosen, kept

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
            values = LazyArray(self.path, name, entry).take(samples)
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
            raise ImportedFileError(
                f"{name} in {self.path} has the shape {entry.shape}, which doesn't fit samples, times and grid "
                f"{expected}."
            ) from None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
