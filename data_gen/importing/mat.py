"""MATLAB files as published with the Fourier neural operator (Li et al. 2021), versions 5 and 7.3."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from data_gen import hdf5
from data_gen.importing.arrays import LazyArray, evolving, steady
from data_gen.importing.contents import Contents, Given, ImportedFileError


def open_file(path: Path, given: Given, files: ExitStack) -> Contents:
    """coeff and sol of a Darcy file, or u and perhaps a and t of a Burgers or Navier-Stokes file.

    Raises:
        ImportedFileError: the variables have other names, or shapes that don't fit.
    """
    names, fetch = _version_73(path, files) if h5py.is_hdf5(path) else _version_5(path)
    reference = "Li et al. 2021, Fourier Neural Operator for Parametric Partial Differential Equations"
    if {"coeff", "sol"} <= names:
        return steady(path, given, fetch("coeff"), fetch("sol"), reference)
    if "u" not in names:
        raise ImportedFileError(
            f"{path} has neither coeff and sol (Darcy) nor u, perhaps with a (Burgers, Navier-Stokes); it holds "
            f"{', '.join(sorted(names)) or 'nothing'}. Rename the variables in MATLAB or Python and save it again."
        )
    u, a = fetch("u"), fetch("a") if "a" in names else None
    n_dims = len(a.shape) - 1 if a is not None else len(u.shape) - 2
    if a is not None and len(u.shape) == len(a.shape):
        u = u.with_last_axis()  # a single time
    return evolving(
        path,
        given,
        a,
        [u.with_time_second()],
        n_dims,
        times=np.ravel(fetch("t").everything()) if "t" in names else None,
        reference=reference,
    )


def _version_5(path: Path) -> tuple[set[str], Callable[[str], LazyArray]]:
    names = {name for name, *_ in scipy.io.whosmat(str(path))}
    # Version 5 compresses each variable as a whole, so it can't be read in parts.
    return names, lambda name: LazyArray(path, name, scipy.io.loadmat(str(path), variable_names=[name])[name])


def _version_73(path: Path, files: ExitStack) -> tuple[set[str], Callable[[str], LazyArray]]:
    file = files.enter_context(hdf5.open_file(path))
    arrays = {name: entry for name, entry in file.items() if isinstance(entry, h5py.Dataset)}
    if not any("MATLAB_class" in entry.attrs for entry in arrays.values()):
        raise ImportedFileError(
            f"{path} is an HDF5 file, but MATLAB didn't write it, so the order of its axes is unknown. Use pdebench or "
            "well if the file comes from one of them; otherwise save it with scipy.io.savemat."
        )
    return set(arrays), lambda name: LazyArray(path, name, arrays[name], is_reversed=True)
