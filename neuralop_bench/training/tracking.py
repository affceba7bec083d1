"""Where a run is shown besides its own files: the Tracker protocol, and what keeps a tracker from harming a run."""

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
    """A view of a run in another program. The files of the run directory stay the truth, so a tracker may fail."""

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin, or go on with a run that was interrupted; called once, before the training.

        Args:
            run_id: names the run.
            folder: the run directory; what a tracker keeps locally lies in it.
            config: the run's whole configuration, nested.
        """
        ...

    def log(self, row: dict[str, float]) -> None:
        """Take the numbers of one epoch: epoch (from 1), train_loss, valid_rel_l2, learning_rate, seconds."""
        ...

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        """Take the results on test and close everything; a run that diverged or failed has none to give.

        Args:
            metrics: columns of the record; None for what was not measured.
            tables: the tables of the report.
            figures: PNG files.
        """
        ...


class NoTracker:
    """Files alone."""

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        del run_id, folder, config

    def log(self, row: dict[str, float]) -> None:
        del row

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        del metrics, tables, figures


class Guarded:
    """Another tracker, made harmless: the first call that raises is one warning on stderr, and from then on the tracker
    is left alone. Time is not bounded here: a tracker that talks to a server does that itself.

    Args:
        tracker: the tracker.

    Attributes:
        failed: True once it has been given up.
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
                "  The run goes on without its tracker; its own files hold everything. tracker=none leaves it out.",
                file=sys.stderr,
                flush=True,
            )
