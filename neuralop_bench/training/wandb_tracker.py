"""Runs in Weights & Biases: configuration, curve, tables and figures."""

from __future__ import annotations

import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from neuralop_bench.training.tracking import ResultTable

if TYPE_CHECKING:
    import wandb

# Time limits for the first answer of the server, ...
_INIT_SECONDS = 6.0
# ... for sending the results, ...
_RESULTS_SECONDS = 8.0
# ... and for whatever W&B still has to send when the run or the process ends. With these, a server that is or becomes
# unreachable costs a run less than 15 s.
_SENDING_SECONDS = 5.0
_ID_FILE = "run-id.txt"
_MAX_ID = 110  # W&B takes 128 characters


class WandbTracker:
    """A run in W&B, kept in ``<run directory>/wandb``.

    Offline, no account and no network are needed; ``wandb sync <run directory>/wandb/offline-run-*`` sends the run
    later. Online, the run is sent while it is running. A run that is interrupted and resumed remains one run in W&B; a
    run that is repeated with ``force=true`` becomes another. The mode given here overrides the variable WANDB_MODE.

    Args:
        project: W&B project.
        mode: ``offline`` or ``online``.
        entity: user or team; None for the account's default.

    Raises:
        ValueError: an unknown mode.
    """

    def __init__(
        self,
        project: str = "neuralop-bench",
        mode: Literal["offline", "online"] = "offline",
        entity: str | None = None,
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"tracker.mode must be offline or online, got {mode!r}. To run without W&B: tracker=none.")
        self._project, self._entity = project, entity
        self._mode: Literal["offline", "online"] = mode
        self._run: wandb.Run | None = None
        self._folder = Path()
        self._step = 0

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin the run.

        Raises:
            wandb.Error: online, if there is no API key, or the server can't be reached or refuses.
        """
        # A default that the user can override. W&B reports its own errors to a server, which may be the very problem,
        # and the process would wait for that at its end.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if (
            "WANDB_CACHE_DIR" not in os.environ
        ):  # the default is in the home folder, which a compute node may be unable to write
            os.environ["WANDB_CACHE_DIR"] = _scratch().name
        import wandb  # hooks into the process, so it is imported only when it is used

        wandb.setup(wandb.Settings(silent=True))  # for what would be printed before there is a run
        settings = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            init_timeout=_INIT_SECONDS,
            finish_timeout=_SENDING_SECONDS,
            finish_timeout_raises=True,
            reinit="finish_previous",  # an earlier job in this process may have left a run open
        )
        # An offline run can't look up the run that it resumes. When it is sent, rows are joined by their steps.
        self._folder = folder.resolve() / "wandb"
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            id=_own_id(run_id, folder),
            name=run_id,
            resume="allow" if self._mode == "online" else None,
            mode=self._mode,
            dir=str(folder),
            config=dict(config),
            settings=settings,
        )

    def log(self, row: dict[str, float]) -> None:
        self._step = int(row["epoch"])
        if self._run is not None:
            self._run.log(row, step=self._step)

    def finish(
        self, metrics: Mapping[str, float | None], tables: Sequence[ResultTable], figures: Sequence[Path]
    ) -> None:
        """Send the results and close the run.

        Raises:
            TimeoutError: online, if not everything could be sent in time; ``wandb sync`` sends the rest.
        """
        if self._run is None:
            return
        run, self._run = self._run, None
        if self._mode == "online":
            _within(_RESULTS_SECONDS, lambda: self._close(run, metrics, tables, figures))
        else:
            self._close(run, metrics, tables, figures)

    def _close(
        self,
        run: wandb.Run,
        metrics: Mapping[str, float | None],
        tables: Sequence[ResultTable],
        figures: Sequence[Path],
    ) -> None:
        import wandb

        # Only this variable sets the folder where tables are staged, and `wandb sync` looks for them there later.
        chosen = "WANDB_DATA_DIR" in os.environ
        if not chosen:
            os.environ["WANDB_DATA_DIR"] = str(self._folder)
        try:
            run.summary.update({name: value for name, value in metrics.items() if value is not None})
            shown: dict[str, Any] = {
                f"tables/{table.title}": wandb.Table(columns=list(table.header), data=[list(row) for row in table.rows])
                for table in tables
            }
            shown.update({f"figures/{path.stem}": wandb.Image(str(path)) for path in figures})
            if shown:
                run.log(shown, step=self._step)
        finally:
            run.finish()
            if not chosen:
                del os.environ["WANDB_DATA_DIR"]


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Call a function in a thread that is abandoned when time is up.

    W&B asks the server about every table, and no setting limits how long. The thread is a daemon, so it ends with the
    process.

    Raises:
        TimeoutError: it took longer. Exceptions of ``action`` are raised here, too.
    """
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            action()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError(
            f"the server took longer than {seconds:g} s; send the rest with wandb sync <run directory>/wandb/run-*"
        )
    if raised:
        raise raised[0]


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that is deleted when the process ends."""
    return tempfile.TemporaryDirectory(prefix="neuralop-bench-", ignore_cleanup_errors=True)


def _own_id(run_id: str, folder: Path) -> str:
    """The run's id in W&B. It is kept with the run's files: a resumed run has the same id, a repeated run another."""
    path = folder / "wandb" / _ID_FILE
    known = path.read_text() if path.exists() else ""
    if not known:
        known = f"{run_id[:_MAX_ID]}-{uuid.uuid4().hex[:8]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(known)
    return known
