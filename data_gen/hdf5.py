"""Reading files of others: HDF5 files that contain all of their data, and the cause when any file can't be read."""

from __future__ import annotations

import errno
import importlib
import math
import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import h5py

# Errors of the operating system that say nothing about the file's content. (EINVAL isn't one: it is also the answer to
# an offset read from a damaged header.)
_OUTSIDE = {errno.EIO, errno.ENFILE, errno.EMFILE, errno.ESTALE, errno.ENOENT, errno.EISDIR, errno.ETIMEDOUT}
# A size is stored apart from the values, so a small file can claim any size. A larger array of which fewer than one
# byte in so many is stored isn't read: gzip makes zeros a thousand times smaller.
_LARGE_BYTES, _MOST_COMPRESSED = 2**28, 2000


class RefusedFileError(ValueError):
    """A file that is whole but isn't read; the message is the reason and the remedy, without the file's name."""


def open_file(path: Path, **options: Any) -> Any:
    """A file, open for reading.

    Args:
        path: of the file.
        options: of ``h5py.File``.

    Raises:
        RefusedFileError: it isn't a regular file (a pipe would block for ever), refers to data in other files,
            claims far more values than it stores, or is compressed with a filter that isn't installed.
        OSError: it can't be opened; ``why`` says what the error means.
    """
    if path.exists() and not path.is_file():
        raise RefusedFileError("it isn't a regular file.")
    with ExitStack() as on_failure:
        file = on_failure.enter_context(h5py.File(path, "r", **options))
        refused = file.visititems_links(_outside) or file.visititems(_unreadable)
        if refused:
            raise RefusedFileError(refused)
        on_failure.pop_all()
        return file


def why(error: BaseException) -> str | None:
    """The cause of an error in opening or reading a file, with a remedy, if the file may well be whole. None if the
    likely cause is damage."""
    text = str(error)
    if isinstance(error, RefusedFileError):
        return text
    if isinstance(error, PermissionError):
        return "you lack the permission to read it. Ask its owner, or change it with chmod."
    if "unable to lock file" in text:
        return (
            "another program has it open for writing. Wait until that program ends. If the file system has no locks, "
            "set HDF5_USE_FILE_LOCKING=FALSE."
        )
    if "already open for write" in text:
        return (
            "it is marked as open for writing: a program is still writing it, or ended without closing it. If none is "
            "writing it, remove the mark with `h5clear -s FILE` (Debian's package hdf5-tools)."
        )
    if isinstance(error, OSError) and error.errno in _OUTSIDE:
        return f"the operating system reports: {os.strerror(error.errno)}."
    if isinstance(error, MemoryError):
        return "there isn't enough memory."
    # torch's own message advises to load the file without this protection.
    if type(error).__name__ == "UnpicklingError" and (found := re.search(r"GLOBAL (\S+)", text)):
        return f"it holds Python objects ({found[1]}), which aren't loaded, because that would run their code."
    return None


def claims_too_much(claimed: int, stored: int) -> bool:
    """Whether an array is so large, in bytes, and so little of it is stored that it isn't read."""
    return claimed > max(_LARGE_BYTES, _MOST_COMPRESSED * stored)


def words(error: BaseException) -> str:
    """The first line of an error's message, of torch's only the reason."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip()
    return next(iter(text.splitlines()), "")


# h5py stops a visit at the first result that isn't None. Its functions can't pass on every exception.


def _outside(name: str, link: Any) -> str | None:
    if not isinstance(link, h5py.ExternalLink):
        return None
    return (
        f"its entry {name} is a link to the file {link.filename!r}. Only files that contain all of their data are "
        "read: copy that file's data into this one."
    )


def _unreadable(name: str, entry: Any) -> str | None:
    if not isinstance(entry, h5py.Dataset):
        return None
    if entry.is_virtual or entry.external:
        return (
            f"the values of its dataset {name} lie in other files (a virtual dataset, or external storage). Only files "
            "that contain all of their data are read: copy the values into one file."
        )
    claimed, stored = math.prod(entry.shape or ()) * entry.id.get_type().get_size(), entry.id.get_storage_size()
    if claims_too_much(claimed, stored):
        return (
            f"its dataset {name} has the shape {entry.shape}, {claimed / 2**30:.3g} GiB, but only {stored} bytes are "
            "stored. The values may never have been written. If they were, save them without compression."
        )
    created = entry.id.get_create_plist()
    for number in range(created.get_nfilters()):
        code, _, _, label = created.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            with suppress(ImportError):
                importlib.import_module("hdf5plugin")  # registers its filters
        if not h5py.h5z.filter_avail(code):
            return (
                f"its dataset {name} is compressed with filter {code} ({label.decode(errors='replace') or 'no name'}), "
                "which isn't installed. Install it with `pip install hdf5plugin`, or save the data without it."
            )
    return None
