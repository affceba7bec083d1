"""Progress of long work: a bar on a terminal, a plain line from time to time elsewhere, e.g. in a log file."""

from __future__ import annotations

import sys
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

# In a log, lines are at least this far apart.
LOG_INTERVAL_SECONDS = 10.0
# If no milestone is reached for this long, a line is printed anyway.
SILENCE_SECONDS = 60.0
# The bar takes the width that the numbers leave, if the terminal is wide enough.
_WIDTH_OF_TEXT, _WIDTH_FOR_BAR = 90, 100


class Bar(Protocol):
    def advance(self, amount: int, note: str = "", *, milestone: bool = True) -> None:
        """Count ``amount`` more units as done and show ``note`` beside them.

        A log gets lines at milestones, at most one per ten seconds, and always at the last one. Between milestones it
        gets one only if there was none for a minute.
        """
        ...


@contextmanager
def track(description: str, total: int, unit: str, done: int = 0) -> Iterator[Bar]:
    """Follow work of ``total`` units, ``done`` of which are done already, with its rate and the remaining time.

    >>> with track("solving", total=4, unit="samples") as progress:
    ...     progress.advance(4)
    """
    counter = _Counter(description, total, unit, done)
    console = Console(stderr=True)
    # With FORCE_COLOR, rich takes a file for a terminal. A dumb terminal can't redraw a line.
    if not sys.stderr.isatty() or not console.is_terminal or console.is_dumb_terminal:
        yield _LogBar(counter)
        return
    # Cropped if it doesn't fit, because an ellipsis isn't ASCII.
    text = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="crop"), markup=False)
    bar = [BarColumn(bar_width=min(40, console.width - _WIDTH_OF_TEXT))] if console.width >= _WIDTH_FOR_BAR else []
    with Progress(*bar, text, console=console) as bars:
        yield _TerminalBar(counter, bars, bars.add_task(counter.line(), total=total, completed=done))


def printable(text: str, encoding: str | None) -> str:
    """The text with ``?`` for characters that an encoding lacks, so that a terminal's settings never end a run.

    >>> printable("ν = 1e-3 ± 0", "ascii")
    '? = 1e-3 ? 0'
    """
    encoding = encoding or "ascii"
    return text.encode(encoding, errors="replace").decode(encoding)


def plain(text: str) -> str:
    r"""A text for a terminal: characters that would steer it, or that can't be seen, are written as escapes.

    >>> plain("café"), plain("\x1b[2Ju\u200bnet")
    ('café', '\\x1b[2Ju\\u200bnet')
    """
    if text.isprintable():
        return text
    return "".join(sign if _is_plain(sign) else repr(sign)[1:-1] for sign in text)


def _is_plain(sign: str) -> bool:
    return unicodedata.category(sign)[0] != "C" or sign in "\n\t"


class _Counter:
    """Describes the progress in words."""

    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        self._description, self._total, self._unit = description, total, unit
        self._done = self._first = done
        self._started = time.monotonic()
        self._encoding = sys.stderr.encoding  # before a bar replaces the stream

    @property
    def is_done(self) -> bool:
        return self._done >= self._total

    def advance(self, amount: int) -> None:
        self._done += amount

    def line(self, note: str = "") -> str:
        parts = [f"{self._description}: {self._done}/{self._total} {self._unit}"]
        counted = self._done - self._first
        if counted:
            elapsed = max(time.monotonic() - self._started, 1e-9)
            parts.append(f"{counted / elapsed:.3g}/s")
            parts.append(f"{_duration((self._total - self._done) * elapsed / counted)} left")
        return printable(", ".join([*parts, note] if note else parts), self._encoding)


class _TerminalBar:
    def __init__(self, counter: _Counter, bars: Progress, task: TaskID) -> None:
        self._counter, self._bars, self._task = counter, bars, task

    def advance(self, amount: int, note: str = "", *, milestone: bool = True) -> None:
        del milestone
        self._counter.advance(amount)
        self._bars.update(self._task, advance=amount, description=self._counter.line(note))


class _LogBar:
    def __init__(self, counter: _Counter) -> None:
        self._counter, self._printed = counter, time.monotonic()

    def advance(self, amount: int, note: str = "", *, milestone: bool = True) -> None:
        self._counter.advance(amount)
        now = time.monotonic()
        last = milestone and self._counter.is_done
        if last or now - self._printed >= (LOG_INTERVAL_SECONDS if milestone else SILENCE_SECONDS):
            self._printed = now
            print(self._counter.line(note), file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    """Two units at most.

    >>> _duration(7.4), _duration(125), _duration(7500)
    ('7 s', '2 min 05 s', '2 h 05 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
