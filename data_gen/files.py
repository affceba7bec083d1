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
# Libraries report a full disk in different ways. If less than this is free, a failed write is taken for a full disk.
_FULL_BYTES = 2**16


class WriteError(RuntimeError):
    """A file can't be written; the message names the file, the reason and the remedy."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to ``path`` that replaces it if the block succeeds, and is deleted otherwise.

    The content is flushed to the disk before the rename, so ``path`` is always either the old file or the complete new
    one.

    Raises:
        WriteError: the disk is full, or the folder can't be written. Other errors of the block are not changed.
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
    """Like ``replacing``, with an open binary file, for libraries that can't handle a full disk.

    HDF5 can't close a file that it can't write, and crashes the interpreter at exit; torch hides the reason. Here they
    never see a failure: bytes that can't be written are dropped, and the error is raised when the block ends.

    Raises:
        WriteError: as for ``replacing``.
    """
    with replacing(path) as temporary:
        stream = _Patient(temporary)
        try:
            yield cast(BinaryIO, stream)
        finally:
            stream.close()
            if stream.error is not None:  # any other error of the block is a consequence
                raise stream.error


class _Patient(io.RawIOBase):
    """A file that accepts every write. After the first one that fails, all are dropped; ``error`` is the reason."""

    def __init__(self, path: Path) -> None:
        self._file = io.FileIO(path, "r+")
        self.error: BaseException | None = None

    def write(self, data: Any, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            # A nearly full disk takes a part, then fails. Ctrl-C is caught too, as the calling C code would lose it.
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
    """Create a folder and its parents.

    Raises:
        WriteError: as for ``replacing``.
    """
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system that prevent ``path`` from being written into a WriteError.

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
        "paths.outputs. Complete files are kept, and the same command continues from there."
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
