"""``.npz`` files: NumPy arrays x and y, or u alone."""

from __future__ import annotations

import zipfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_gen.importing.arrays import LazyArray, evolving, pair
from data_gen.importing.contents import Contents, Given, ImportedFileError


def open_file(path: Path, given: Given, files: ExitStack) -> Contents:
    """x and y, as in neuraloperator's files, or trajectories u [sample, time, *space]; t holds their times, if present.

    Raises:
        ImportedFileError: the file isn't ``.npz``, holds Python objects, or has none of these arrays.
    """
    del files
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ImportedFileError(f"{path} isn't an .npz file. Save arrays with np.savez(file, x=x, y=y).")
        file.seek(0)
        content = np.load(file, allow_pickle=False)
        names = content.files
        try:
            arrays = {name: content[name] for name in ("x", "y", "u", "t") if name in names}
        except ValueError as error:
            if "pickle" not in str(error):
                raise
            raise ImportedFileError(
                f"{path} holds Python objects. They aren't loaded, because that would run their code. Save arrays of "
                "numbers."
            ) from error
    if "t" in arrays and given.times is None and given.interval is None:
        given = replace(given, times=tuple(float(t) for t in np.ravel(arrays["t"])))
    if {"x", "y"} <= set(arrays):
        x, y = (LazyArray(path, key, arrays[key]) for key in ("x", "y"))
        return pair(path, given, x, y, "")
    if "u" not in arrays:
        raise ImportedFileError(
            f"{path} has neither x and y nor u; it holds {', '.join(names)}. Save it with these names."
        )
    u = LazyArray(path, "u", arrays["u"])
    return evolving(path, given, None, [u], len(u.shape) - 2, times=None, reference="")
