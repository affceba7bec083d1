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

# A server that is or becomes unreachable costs a run less than 15 s. It has this long for the first answer, ...
_INIT_SECONDS = 6.0
# ... this long to take the results, ...
_RESULTS_SECONDS = 8.0
# ... and this long for what W&B still has to send when the run, or else the process, ends.
_SENDING_SECONDS = 5.0
_ID_FILE = "run-id.txt"
_MAX_ID = 110  # W&B takes 128 characters


class WandbTracker:
    """A run in W&B, kept in ``<run directory>/wandb``.

    Offline it needs no account, no network and no answer; ``wandb sync <run directory>/wandb/offline-run-*`` sends it
    later. Online it is sent while it goes on. A run that is interrupted and resumed stays one run there, one that is
    repeated with ``force=true`` becomes another. The mode given here beats the variable WANDB_MODE.

    Args:
        project: W&B project.
        mode: ``offline`` or ``online``.
        entity: user or team; None takes the account's own.

    Raises:
        ValueError: another mode.
    """

    def __init__(
        self,
        project: str = "neuralop-bench",
        mode: Literal["offline", "online"] = "offline",
        entity: str | None = None,
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"tracker.mode must be offline or online, got {mode!r}. tracker=none is without W&B.")
        self._project, self._entity = project, entity
        self._mode: Literal["offline", "online"] = mode
        self._run: wandb.Run | None = None
        self._folder = Path()
        self._step = 0

    def start(self, run_id: str, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin the run.

        Raises:
            wandb.Error: online, there is no key, or the server can't be reached or refuses.
        """
        # For the user to overrule. Reports on W&B's own errors go to the server that may be the error, and the end of
        # the process would wait for them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if "WANDB_CACHE_DIR" not in os.environ:  # else the home folder, which a compute node may not be able to write
            os.environ["WANDB_CACHE_DIR"] = _scratch().name
        import wandb  # hooks into the process: only for those who ask for it

        wandb.setup(wandb.Settings(silent=True))  # what is printed before there is a run
        settings = wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            init_timeout=_INIT_SECONDS,
            finish_timeout=_SENDING_SECONDS,
            finish_timeout_raises=True,
            reinit="finish_previous",  # one that an earlier job of this process left open must not take our rows
        )
        # An offline run can't look up what it resumes; its rows join the earlier ones by their steps when it is sent.
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
        """Send results and close the run.

        Raises:
            TimeoutError: online, not all could be sent in time; ``wandb sync`` sends the rest.
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

        # Tables are staged in a folder that only this variable names; a later `wandb sync` wants to find them there.
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
    """Do something in a thread that is abandoned when the time is over.

    W&B asks the server about every table, and no setting bounds that. The thread is a daemon: it ends with the process.

    Raises:
        TimeoutError: it took longer. Whatever ``action`` raises is raised here.
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
            f"the server took longer than {seconds:g} s; wandb sync <run directory>/wandb/run-* sends it"
        )
    if raised:
        raise raised[0]


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder that goes with the process."""
    return tempfile.TemporaryDirectory(prefix="neuralop-bench-", ignore_cleanup_errors=True)


def _own_id(run_id: str, folder: Path) -> str:
    """The run's id in W&B: kept beside its files, so a resumed run has it again and a repeated run another."""
    path = folder / "wandb" / _ID_FILE
    known = path.read_text() if path.exists() else ""
    if not known:
        known = f"{run_id[:_MAX_ID]}-{uuid.uuid4().hex[:8]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(known)
    return known
