"""One job of a sweep: its configuration, its folder, and its progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from data_gen.store import StoreError
from neuralop_bench.config.compose import compose, from_sweep
from neuralop_bench.config.constructors import ConfigError, InapplicableError
from neuralop_bench.config.identity import Identity, evaluator_name, identity, run_directory, standard_overrides
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig, seen
from neuralop_bench.records.committed_board import Committed, CommittedBoard, FilingError
from neuralop_bench.records.record import EVALUATIONS
from neuralop_bench.records.run_directory import State, state
from neuralop_bench.runs.effect import require_effect
from neuralop_bench.runs.finished import is_done
from neuralop_bench.runs.splits import source_of
from neuralop_bench.runtime.hydra_internals import composed_job


@dataclass
class Job:
    """One job.

    Attributes:
        overrides: arguments for Hydra's launchers.
        name: the overrides that distinguish it from the sweep's other jobs.
        run: its configuration; None if it can't be composed or makes no sense.
        folder: run directory; None for a job that isn't a run (``mode=generate`` or ``evaluate``).
        evaluation: file of the evaluation that a thorough evaluator writes after the record; None without one.
        board: the committed board that the run is filed on; None without one.
        committed: the run on that board, if the board had all of it before the sweep.
        problem: why it can't be run, or why it failed.
        left_out: its parts make no sense together, so it isn't expected to run.
    """

    overrides: tuple[str, ...]
    name: str = ""
    run: RunConfig | None = None
    folder: Path | None = None
    evaluation: Path | None = None
    board: CommittedBoard | None = None
    committed: Committed | None = None
    problem: str = ""
    left_out: bool = False

    @property
    def state(self) -> State:
        if self.committed is not None:
            is_finished = self.committed.record.status == "finished"
            return State("finished" if is_finished else "diverged", self.committed.reason)
        return state(self.folder) if self.folder is not None else State("new", "")

    @property
    def is_done(self) -> bool:
        """Whether there is nothing left to launch."""
        progress = self.state.progress
        if progress not in ("finished", "diverged"):
            return False
        if self.committed is not None:
            return True
        if self.folder is not None and self.run is not None and not is_done(self.folder, self.run):
            return False  # a trial of a search, whose test is asked for now
        return progress == "diverged" or self.evaluation is None or self.evaluation.exists()

    @property
    def is_forced(self) -> bool:
        return self.folder is not None and self.run is not None and self.run.force


@dataclass
class Known:
    """Values that the jobs of a sweep share, since each composition takes Hydra a tenth of a second.

    Attributes:
        bases: configurations, by the options chosen.
        standards: configurations that runs are compared with for their identity, by the groups chosen.
        evaluations: names of evaluations, by evaluator.
        boards: committed boards, by folder.
        effective: configurations, without seeds, whose options have been found to act.
    """

    bases: dict[tuple[str, ...], DictConfig] = field(default_factory=dict)
    standards: dict[tuple[str, ...], RunConfig] = field(default_factory=dict)
    evaluations: dict[str, str] = field(default_factory=dict)
    boards: dict[str, CommittedBoard] = field(default_factory=dict)
    effective: set[str] = field(default_factory=set)


def composed(overrides: tuple[str, ...], master: DictConfig, loader: Any, known: Known) -> Job:
    """A job of a grid. A mistake in it becomes its ``problem``, but one that Hydra itself refuses is an error.

    Args:
        overrides: overrides of the job.
        master: the configuration that Hydra has composed for the sweep.
        loader: Hydra's loader of configurations.
        known: values shared by the jobs of this sweep.

    Raises:
        HydraException: an option or a key doesn't exist.
    """
    try:
        run = from_sweep(composed_job(overrides, master, loader, known.bases))
        if run.mode != "run":
            return Job(overrides, run=run)
        groups = tuple(standard_overrides(run))
        base = None
        if run.dataset.path is None:  # for imported data, the configuration to compare with depends on the files
            base = known.standards.get(groups) or known.standards.setdefault(groups, compose(*groups))
        who = identity(run, base)
        job = Job(overrides, run=run, folder=(folder := run_directory(run, who)))
        job.evaluation = _evaluation(run, folder, known)
        if run.paths.board is not None:
            job.board = known.boards.get(run.paths.board) or CommittedBoard(Path(run.paths.board))
            known.boards[run.paths.board] = job.board
            if not run.force:
                evaluator = job.evaluation.stem if job.evaluation is not None else None
                job.committed = job.board.find(who.track, who.run_id(run.seed), evaluator, run=folder)
        if not job.is_done and who.configuration not in known.effective:
            _require_effect(run, who)
            known.effective.add(who.configuration)
        return job
    except InapplicableError as error:
        return Job(overrides, problem=str(error), left_out=True)
    except (ConfigError, OmegaConfBaseException, StoreError, FilingError, OSError) as error:
        return Job(overrides, problem=describe(error))


def _require_effect(run: RunConfig, who: Identity) -> None:
    try:
        require_effect(run, who, seen(run, source_of(run).spec))
    except InapplicableError:
        raise
    except (ConfigError, StoreError):
        pass  # the job reports it; perhaps it runs on a machine that has what is missing here


def _evaluation(run: RunConfig, folder: Path, known: Known) -> Path | None:
    if not run.evaluator.is_thorough:
        return None
    evaluator = repr((run.choices.get("evaluator"), run.evaluator))
    name = known.evaluations.get(evaluator) or known.evaluations.setdefault(evaluator, evaluator_name(run))
    return folder / EVALUATIONS / f"{name}.json"
