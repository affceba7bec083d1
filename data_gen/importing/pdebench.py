"""HDF5 files of PDEBench (Takamoto et al. 2022).

Most hold all samples in one array. Those of shallow water, diffusion-reaction and diffusion-sorption hold a group for
each sample, and those of incompressible flow have channels last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_gen import hdf5
from data_gen.grids import AXIS_NAMES
from data_gen.importing.arrays import LazyArray, evolving, steady
from data_gen.importing.contents import Contents, Given, ImportedFileError, require_names
from data_gen.spec import FieldSpec, Samples

_REFERENCE = "Takamoto et al. 2022, PDEBench: An Extensive Benchmark for Scientific Machine Learning"


# What names of files of compressible flow say, between underscores: waves leave through transmissive boundaries.
_IN_NAMES = {"periodic": "periodic", "trans": "open"}
# What the groups' channels are, by the number of space axes and channels.
_GROUPED = {(2, 1): ("height",), (2, 2): ("activator", "inhibitor"), (1, 1): ("concentration",)}


def open_file(path: Path, given: Given, files: ExitStack) -> Contents:
    """nu and tensor of a Darcy file, tensor of a trajectory of one field, the named fields of a fluid, a group for each
    sample, or velocity, particles and force of an incompressible flow.

    Raises:
        ImportedFileError: the file isn't HDF5, or has no fields of fitting shapes.
    """
    if not h5py.is_hdf5(path):
        raise ImportedFileError(f"{path} isn't an HDF5 file. Name another format, or another file.")
    file = files.enter_context(hdf5.open_file(path))
    groups = [name for name, entry in file.items() if isinstance(entry, h5py.Group)]
    if groups:
        return _grouped(path, given, file, groups)
    if {"velocity", "particles"} <= set(file):
        return _incompressible(path, given, file)
    arrays = {name: LazyArray(path, name, entry) for name, entry in file.items() if not name.endswith("-coordinate")}
    fields = {name: array for name, array in arrays.items() if len(array.shape) >= 3}
    if not fields:
        raise ImportedFileError(
            f"{path} has no tensor and no fields of at least 3 axes; it holds {', '.join(sorted(file)) or 'nothing'}."
        )
    parameters = {
        str(k): float(v) for k, v in file.attrs.items() if np.ndim(v) == 0 and np.asarray(v).dtype.kind in "fiu"
    }
    axes = [np.asarray(file[f"{name}-coordinate"]) for name in AXIS_NAMES if f"{name}-coordinate" in file]
    coordinates = axes or None
    if {"tensor", "nu"} <= set(fields):
        tensor = fields["tensor"]
        if tensor.shape[1] != 1:
            raise ImportedFileError(
                f"tensor in {path} has the shape {tensor.shape}, expected (samples, 1, x, y) with nu."
            )
        return steady(path, given, fields["nu"], tensor.without_axis(1), _REFERENCE, coordinates, parameters)
    chosen = ("tensor",) if "tensor" in fields else given.state or tuple(fields)
    require_names(path, "--state", chosen, fields)
    shapes = {name: fields[name].shape for name in chosen}
    if len(set(shapes.values())) != 1:
        raise ImportedFileError(f"The fields of {path} differ in shape: {shapes}. Choose among them with --state.")
    shape = shapes[chosen[0]]
    named = next((kind for word, kind in _IN_NAMES.items() if word in path.stem.split("_")), None)
    notes = ()
    if given.boundary is None and named is not None:
        given = replace(given, boundary=(named,))
        notes = (f"the file's name says its boundary conditions: {named} (--boundary)",)
    found = evolving(
        path,
        given,
        None,
        [fields[name] for name in chosen],
        len(shape) - 2,
        times=_times(file, shape[1]),
        reference=_REFERENCE,
        coordinates=coordinates,
        parameters=parameters,
        names=None if "tensor" in fields else chosen,
    )
    return replace(found, notes=(*notes, *found.notes))


@dataclass(frozen=True)
class _Component:
    """One channel of an array whose last axis holds them, in place of an array without that axis."""

    values: Any
    channel: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.values.shape[:-1])

    @property
    def chunks(self) -> tuple[int, ...] | None:
        return self.values.chunks

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        return self.values[rows, ..., self.channel]


@dataclass(frozen=True)
class _Groups:
    """The data of a group for each sample, in place of one array, [sample, time, *space, channel]."""

    entries: Sequence[Any]
    chunks: None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.entries), *self.entries[0].shape)

    def __getitem__(self, where: tuple[Any, ...]) -> NDArray[Any]:
        rows, *rest = where
        return np.stack([self.entries[row][tuple(rest)] for row in np.arange(len(self.entries))[rows]])


def _grouped(path: Path, given: Given, file: Any, groups: Sequence[str]) -> Contents:
    """A file with a group for each sample, which holds data, [time, *space, channel], and grid."""
    lacking = [name for name in groups if "data" not in file[name] or "grid/x" not in file[name]]
    if lacking:
        raise ImportedFileError(
            f"{path} holds groups, but {lacking[0]} has no data and grid, as the groups of PDEBench have. Use well if "
            "the file comes from The Well."
        )
    data = _Groups([file[name]["data"] for name in groups])
    n_dims = len(data.shape) - 3
    axes = ["t", *AXIS_NAMES[:n_dims]]
    grids = [[np.asarray(held[axis]) for axis in axes if axis in held] for held in (file[f"{n}/grid"] for n in groups)]
    for name, entry, grid in zip(groups, data.entries, grids, strict=True):
        if not 1 <= n_dims <= len(AXIS_NAMES) or len(grid) != n_dims + 1 or entry.shape != data.shape[1:]:
            raise ImportedFileError(
                f"The group {name} in {path} has data of the shape {entry.shape} and {len(grid)} coordinates; expected "
                "data (time, x, channel), (time, x, y, channel) or (time, x, y, z, channel) of the same shape in all "
                "groups, and a coordinate for each axis but the last."
            )
        if not all(np.array_equal(one, other) for one, other in zip(grid, grids[0], strict=True)):
            raise ImportedFileError(
                f"The groups {groups[0]} and {name} in {path} have different grids or times. Only one for all can be "
                "imported."
            )
    n_channels = data.shape[-1]
    names = _GROUPED.get((n_dims, n_channels), tuple(f"field_{number}" for number in range(n_channels)))
    parameters, scalars = _numbers([file[name].attrs for name in groups])
    require_names(path, "--static", given.static or (), [*parameters, *scalars])
    if given.state is not None and len(given.state) != len(names):
        raise ImportedFileError(f"--state needs {len(names)} name(s) for {path}, got {', '.join(given.state)}.")
    names = given.state or names
    boundary, notes = given.boundary, ()
    if boundary is None:
        boundary = ("neumann" if n_dims == 2 else "open",)
        notes = (f"the file doesn't say its boundary conditions: {boundary[0]}, as PDEBench's (--boundary)",)
    found = evolving(
        path,
        replace(given, static=None, boundary=boundary, nodes=given.nodes or _centres(boundary)),
        None,
        [LazyArray(path, name, _Component(data, channel)) for channel, name in enumerate(names)],
        n_dims,
        times=grids[0][0],
        reference=_REFERENCE,
        coordinates=grids[0][1:],
        parameters=parameters,
        names=names,
    )
    return replace(found, notes=(*notes, *found.notes), scalars=scalars)


def _numbers(attributes: Sequence[Any]) -> tuple[dict[str, float], dict[str, NDArray[np.float64]]]:
    """Numbers among the attributes that all groups have: those equal for all, and those that differ, [sample]."""
    found: dict[str, NDArray[np.float64]] = {}
    for name in attributes[0]:
        values = [np.asarray(held[name]) for held in attributes if name in held]
        if len(values) == len(attributes) and all(v.ndim == 0 and v.dtype.kind in "fiu" for v in values):
            found[str(name)] = np.array(values, dtype=np.float64)
    constant = {name: float(values[0]) for name, values in found.items() if (values == values[0]).all()}
    return constant, {name: values for name, values in found.items() if name not in constant}


def _incompressible(path: Path, given: Given, file: Any) -> Contents:
    """velocity and particles, [sample, time, x, y, channel], with the force, [sample, x, y, channel]."""
    states = _components(path, file, ("velocity", "particles"), 5)
    statics = _components(path, file, ("force",), 4) if "force" in file else {}
    chosen = given.state or tuple(states)
    require_names(path, "--state", chosen, states)
    kept = tuple(statics) if given.static is None else given.static
    require_names(path, "--static", kept, statics)
    times = np.asarray(file["t"]) if "t" in file else None
    if times is not None and times.ndim == 2:
        if not np.array_equal(times, np.broadcast_to(times[:1], times.shape)):
            raise ImportedFileError(f"The samples of {path} have different times. Only one for all can be imported.")
        times = times[0]
    boundary, notes = given.boundary, ()
    if boundary is None:
        boundary = ("dirichlet",)
        notes = ("the file doesn't say its boundary conditions: dirichlet, as PDEBench's (--boundary)",)
    found = evolving(
        path,
        replace(given, static=None, boundary=boundary, nodes=given.nodes or _centres(boundary)),
        None,
        [states[name] for name in chosen],
        2,
        times=times,
        reference=_REFERENCE,
        names=chosen,
    )

    expected = (found.n_samples, *states[chosen[0]].shape[2:])
    for name in kept:
        if statics[name].shape != expected:
            raise ImportedFileError(
                f"{name} in {path} has the shape {statics[name].shape}, but the states have {expected[0]} samples on "
                f"{expected[1:]} points."
            )

    def read(samples: NDArray[np.int64]) -> Samples:
        made = found.read(samples)
        return made._replace(static=np.stack([statics[name].take(samples) for name in kept], axis=1)) if kept else made

    fields = tuple(FieldSpec(name, name) for name in kept)
    return replace(found, static=fields, read=read, notes=(*notes, *found.notes))


def _components(path: Path, file: Any, names: Sequence[str], n_axes: int) -> dict[str, LazyArray]:
    """The channels of arrays that have them last, as arrays by name: name, or name_x and name_y."""
    found = {}
    for name in names:
        values = file[name]
        if len(values.shape) != n_axes:
            raise ImportedFileError(
                f"{name} in {path} has the shape {values.shape}, expected {n_axes} axes with x, y and the channels "
                "last. Only two dimensions can be imported."
            )
        n = values.shape[-1]
        for channel in range(n):
            key = name if n == 1 else f"{name}_{AXIS_NAMES[channel] if n <= len(AXIS_NAMES) else channel}"
            found[key] = LazyArray(path, key, _Component(values, channel))
    return found


def _centres(boundary: Sequence[str]) -> tuple[str, ...]:
    """PDEBench's values are those at cell centres."""
    return tuple("periodic" if kind == "periodic" else "centres" for kind in boundary)


def _times(file: h5py.File, n_times: int) -> NDArray[Any] | None:
    if "t-coordinate" not in file:
        return None
    times = np.asarray(file["t-coordinate"])
    return times[:-1] if len(times) == n_times + 1 else times  # some files list one time more than they have data for
