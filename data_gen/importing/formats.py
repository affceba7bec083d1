"""The formats that can be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

from data_gen import hdf5
from data_gen.importing import mat, neuralop, npz, pdebench, well
from data_gen.importing.contents import Contents, Given, ImportedFileError

FORMATS: Mapping[str, Callable[[Path, Given, ExitStack], Contents]] = {
    "mat": mat.open_file,
    "pdebench": pdebench.open_file,
    "neuralop": neuralop.open_file,
    "npz": npz.open_file,
    "well": well.open_file,
}
# Those whose arrays don't say what their axes are.
BARE = ("neuralop", "npz")


def open_file(kind: str, path: Path, given: Given, files: ExitStack) -> Contents:
    """Find out what a file (or a directory) holds. If its format allows, no samples are read yet.

    Args:
        kind: one of ``FORMATS``.
        path: what to open.
        given: what the user says.
        files: closes what stays open for reading.

    Raises:
        ImportedFileError: the file can't be read, has another format, lacks entries, its shapes or coordinates
            disagree, or its grid isn't uniform.
    """
    if not path.exists():
        raise ImportedFileError(f"There is no file {path}.")
    if path.is_dir() and kind != "well":
        raise ImportedFileError(f"{path} is a directory; name a file. Only the format well takes directories.")
    if not path.is_dir() and not path.is_file():
        raise ImportedFileError(f"{path} isn't a regular file.")
    try:
        return FORMATS[kind](path, given, files)
    except (ImportedFileError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make a parser raise anything
        cause = hdf5.why(error)
        if cause is not None:
            raise ImportedFileError(f"{path} can't be read: {cause}") from error
        raise ImportedFileError(
            f"{path} can't be read as {kind} ({type(error).__name__}: {hdf5.words(error)}). Check the file, or name "
            f"another of the formats {', '.join(FORMATS)}."
        ) from error
