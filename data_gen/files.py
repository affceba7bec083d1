"""Files that are never half written."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, cast

_CANT_WRITE = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO),
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST),
)
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
    with write_errors(path):
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


@contextmanager
def replacing_stream(path: Path) -> Iterator[BinaryIO]:
    """As ``replacing``, with an open binary file for writers that don't survive a full disk.

    HDF5 can't close a file that it can't write, and crashes the interpreter at its end; torch hides the reason. Here
    they never see a failure: what can't be written is dropped, and the error is raised when the block ends.

    Raises:
        WriteError: as for ``replacing``.
    """
    with replacing(path) as temporary:
        stream = _Patient(temporary)
        try:
            yield cast(BinaryIO, stream)
        finally:
            stream.close()
            if stream.error is not None:  # whatever else went wrong in the block is a consequence
                raise stream.error


class _Patient(io.RawIOBase):
    """A file that takes every write: from the first that fails on, all are dropped. ``error`` tells."""

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "r+")
        self.error: BaseException | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            # A nearly full disk takes a part; the rest then fails. Ctrl-C in here would be lost in C code that calls.
            while self.error is None and done < len(view):
                done += self._file.write(view[done:]) or 0
        except BaseException as error:
            self.error = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell() if size is None else size

    def readinto(self, buffer: Any, /) -> int | None:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def make_folder(path: Path) -> None:
    """Make a folder and those above it.

    Raises:
        WriteError: as for ``replacing``.
    """
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Errors of the system that keep ``path`` from being written become a WriteError.

    Raises:
        WriteError: as for ``replacing``.
    """
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
