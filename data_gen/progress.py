"""Progress of long work: a bar on a terminal, one plain line at most every ten seconds anywhere else (a log file)."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LOG_INTERVAL_SECONDS = 10.0


class Tracker(Protocol):
    def advance(self, amount: int, note: str = "") -> None:
        """Count ``amount`` more units as done and show ``note`` beside them."""
        ...


@contextmanager
def track(description: str, total: int, unit: str, done: int = 0) -> Iterator[Tracker]:
    """Follow work of ``total`` units, ``done`` of which lie behind already, with its rate and the remaining time.

    >>> with track("solving", total=4, unit="samples") as progress:
    ...     progress.advance(4)
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _LogTracker(description, total, unit, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}  {{task.fields[rate]}}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(description, total=total, completed=done, rate="", note="")
        yield _BarTracker(bars, task, unit)


class _BarTracker:
    def __init__(self, bars: Progress, task: int, unit: str) -> None:
        self._bars, self._task, self._unit = bars, task, unit
        self._started, self._counted = time.monotonic(), 0

    def advance(self, amount: int, note: str = "") -> None:
        self._counted += amount
        rate = _rate(self._counted, time.monotonic() - self._started, self._unit)
        self._bars.update(self._task, advance=amount, rate=rate, note=note)  # pyright: ignore[reportArgumentType]


class _LogTracker:
    def __init__(self, description: str, total: int, unit: str, done: int) -> None:
        self._description, self._total, self._unit, self._done = description, total, unit, done
        self._first = done
        self._started = self._printed = time.monotonic()

    def advance(self, amount: int, note: str = "") -> None:
        self._done += amount
        now = time.monotonic()
        if self._done < self._total and now - self._printed < LOG_INTERVAL_SECONDS:
            return
        self._printed = now
        elapsed, counted = now - self._started, self._done - self._first
        remaining = (self._total - self._done) * elapsed / max(counted, 1)
        print(
            f"{self._description}: {self._done}/{self._total} {self._unit}, {_rate(counted, elapsed, self._unit)}, "
            f"{remaining:.0f} s left{'  ' + note if note else ''}",
            file=sys.stderr,
            flush=True,
        )


def _rate(counted: int, elapsed: float, unit: str) -> str:
    return f"{counted / max(elapsed, 1e-9):.3g} {unit}/s"
