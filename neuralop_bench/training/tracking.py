"""Showing runs in other programs: the Tracker protocol, and a guard that keeps a failing tracker from harming a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class ResultTable(Protocol):
    """A table of results; ``neuralop_bench.runtime.table.Table`` is one."""

    @property
    def title(self) -> str: ...

    @property
    def header(self) -> Sequence[str]: ...

    @property
    def rows(self) -> Sequence[Sequence[str]]: ...


class Tracker(Protocol):
    """Shows a run in another program. A tracker may fail, since the run directory holds everything."""

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin a run, or continue one that was interrupted. Called once, before the training.

        Args:
            run_id: names the run.
            folder: the run directory; a tracker keeps its local files there.
            config: the whole configuration of the run, nested.
        """
        ...

    def log(self, row: dict[str, float]) -> None:
        """Record one epoch: epoch (from 1), train_loss, valid_rel_l2, learning_rate, seconds."""
        ...

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        """Record the results on test and close everything. A run that diverged or failed has no results.

        Args:
            metrics: columns of the record; None if they weren't measured.
            tables: the tables of the report.
            figures: PNG files.
        """
        ...


class NoTracker:
    """Shows the run nowhere."""

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        del run_id, folder, config

    def log(self, row: dict[str, float]) -> None:
        del row

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        del metrics, tables, figures


class Guarded:
    """Keeps another tracker from harming a run: the first call that raises becomes a warning on stderr, and the tracker
    isn't called again. Time isn't limited here; a tracker that talks to a server has to do that itself.

    Args:
        tracker: the tracker.

    Attributes:
        failed: whether a call has failed.
    """

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self.failed = False

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._call("start", lambda: self._tracker.start(run_id, folder, config))

    def log(self, row: dict[str, float]) -> None:
        self._call("log", lambda: self._tracker.log(row))

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        self._call("finish", lambda: self._tracker.finish(metrics, tables, figures))

    def _call(self, step: str, action: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            action()
        except Exception as error:
            self.failed = True
            reason = next(iter(str(error).strip().splitlines()), "no message")
            print(
                f"Warning: {type(self._tracker).__name__}.{step} failed: {type(error).__name__}: {reason}\n"
                "  The run continues, and its own files hold everything. tracker=none turns the tracker off.",
                file=sys.stderr,
                flush=True,
            )
