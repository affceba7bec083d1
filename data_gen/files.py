"""Files that are never half written."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

_CANT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR)
# Libraries report a full disk in words of their own: below this a failed write is put down to it.
_FULL_BYTES = 2**16


class WriteError(RuntimeError):
    """A file can't be written; the message names the file, the reason and the remedy."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, and vanishes otherwise.

    The content is flushed to the disk before the rename, so ``path`` is always either the old file or the whole new
    one.

    Raises:
        WriteError: the disk is full, or the folder can't be written. Other errors of the block pass through.
    """
    with _write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False) as handle:
            temporary = Path(handle.name)
        try:
            yield temporary
            with open(temporary, "rb") as handle:
                os.fsync(handle.fileno())
            # A named temporary file is private to its owner; a dataset or a record is an ordinary file.
            temporary.chmod(0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException as error:
            full = isinstance(error, OSError | RuntimeError) and _is_full(path.parent)
            temporary.unlink(missing_ok=True)
            if full:
                raise _write_error(path, "no space is left on the disk") from error
            raise


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        WriteError: as for ``replacing``.
    """
    with _write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _CANT_WRITE:
            raise
        raise _write_error(path, (error.strerror or str(error)).lower()) from error


def _write_error(path: Path, reason: str) -> WriteError:
    return WriteError(
        f"{path} can't be written: {reason}. Free some space or choose other folders with paths.data and "
        "paths.outputs; what is whole on the disk is kept, and the same command goes on from there."
    )


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
