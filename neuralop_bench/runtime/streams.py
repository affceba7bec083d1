"""Standard streams that are closed, or whose reader has ended: a run continues without them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def kept_open() -> Iterator[None]:
    """In the block, printing to a closed stream, or to a stderr whose reader has ended, does nothing."""
    # First the descriptors: the next file to be opened would otherwise take the place of a closed stream, and what
    # libraries print would be written into it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  (open until the interpreter ends)
    before = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    lossy: Any = _Lossy(before)
    sys.stderr = lossy
    try:
        yield
    finally:
        if sys.stderr is lossy:
            sys.stderr = before


class _Lossy:
    """A text stream. From the first write that fails, everything written to it is lost."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def _lose(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
