"""Locks of a dataset's folder: one for the whole dataset, and one for each part that some process is solving."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from data_gen.files import make_folder, write_errors

_WHOLE, _PART = ".lock", ".part-"


def whole(base: Path) -> FileLock:
    """The lock under which one process at a time makes the files of a dataset."""
    return FileLock(base / _WHOLE)


def part(base: Path, part: int, n_parts: int) -> FileLock:
    """The lock of one part. While it is held, ``wait_for_parts`` waits."""
    return FileLock(base / f"{_PART}{part}-of-{n_parts}.lock")


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """Hold the lock of the whole dataset; print a line if that means waiting.

    Raises:
        WriteError: the folder can't be written.
    """
    make_folder(base)
    lock = whole(base)
    with write_errors(base / _WHOLE):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that generates {base} ...", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def parts_at_work(base: Path) -> bool:
    """Whether some process is solving a part of the dataset. Needs the lock of the whole."""
    for path in base.glob(f"{_PART}*.lock"):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return True
        lock.release()
    return False


def wait_for_parts(base: Path) -> None:
    """Wait until no process is solving a part. Needs the lock of the whole, so that no part can start."""
    for path in sorted(base.glob(f"{_PART}*.lock")):
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that solves a part of {base} ...", file=sys.stderr, flush=True)
            lock.acquire()
        path.unlink(missing_ok=True)
        lock.release()
