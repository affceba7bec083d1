"""HDF5 files of PDEBench (Takamoto et al. 2022) with all samples in one array."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_gen import hdf5
from data_gen.grids import AXIS_NAMES
from data_gen.importing.arrays import LazyArray, evolving, steady
from data_gen.importing.contents import Contents, Given, ImportedFileError, require_names

_REFERENCE = "Takamoto et al. 2022, PDEBench: An Extensive Benchmark for Scientific Machine Learning"


def open_file(path: Path, given: Given, files: ExitStack) -> Contents:
    """nu and tensor of a Darcy file, tensor of a trajectory of one field, or the named fields of a fluid.

    Raises:
        ImportedFileError: the file isn't HDF5, has a group for each sample, or has no fields of fitting shapes.
    """
    if not h5py.is_hdf5(path):
        raise ImportedFileError(f"{path} isn't an HDF5 file. Name another format, or another file.")
    file = files.enter_context(hdf5.open_file(path))
    if any(isinstance(entry, h5py.Group) for entry in file.values()):
        raise ImportedFileError(
            f"{path} holds groups ({', '.join(list(file)[:3])} ...): either a PDEBench file with a group for each "
            "sample, or another format. Only files with all samples in one array can be imported; use well if the file "
            "comes from The Well."
        )
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
    return evolving(
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


def _times(file: h5py.File, n_times: int) -> NDArray[Any] | None:
    if "t-coordinate" not in file:
        return None
    times = np.asarray(file["t-coordinate"])
    return times[:-1] if len(times) == n_times + 1 else times  # some files list one time more than they have data for
