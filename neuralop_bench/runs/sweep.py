"""A sweep: which jobs are left to do, what they would take, and how each of them ended.

Launchers are Hydra's plugins. This module does the work before and after them, in the process that the command starts.
"""

from __future__ import annotations

import re
import shlex
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from omegaconf import DictConfig

from neuralop_bench import leaderboard
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.messages import JobReported, describe
from neuralop_bench.records import committed_board
from neuralop_bench.records.committed_board import CommittedBoard
from neuralop_bench.records.record import RECORD_NAME, RecordError, RunRecord
from neuralop_bench.records.run_directory import FAILURE_NAME, move_aside, sole_owner
from neuralop_bench.records.sweep_file import SweepFile
from neuralop_bench.runs import launcher as launched
from neuralop_bench.runs import plan
from neuralop_bench.runs.job import Job, Known, composed
from neuralop_bench.runs.plan import Plan
from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.runtime.table import Table, plain, show

# Hands jobs to a launcher: lists of overrides, and the number of the first job.
Launch = Callable[..., Sequence[JobReturn]]

_FORCE = re.compile(r"\+{0,2}force=true", re.IGNORECASE)
# Launchers whose jobs run on the machine that starts them.
_HERE = ("basic", "joblib", "local", "submitit_local")


class SweepError(RuntimeError):
    """Some jobs of a sweep didn't finish; the message lists them and says how to continue."""


class Sweep:
    """The jobs of one command.

    Args:
        jobs: the jobs in the order of the grid.
        command: the command line; running it again completes the sweep.
        is_here: whether the jobs will run on this machine.
    """

    def __init__(self, jobs: Sequence[Job], command: str, *, is_here: bool = True) -> None:
        self.jobs, self.command, self._is_here = list(jobs), command, is_here

    @classmethod
    def composed(cls, master: DictConfig, loader: Any, grid: Sequence[Sequence[str]]) -> Sweep:
        """The jobs of a grid.

        Args:
            master: the configuration that Hydra has composed for the sweep.
            loader: Hydra's loader of configurations.
            grid: overrides of each job.

        Raises:
            HydraException: an option or a key doesn't exist. Mistakes that only our own rules find are stored in
                ``Job.problem``.
        """
        known = Known()
        jobs = [composed(tuple(overrides), master, loader, known) for overrides in grid]
        common = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
        for job in jobs:
            job.name = " ".join(override for override in job.overrides if override not in common)
        first: dict[Path, Job] = {}
        for job in jobs:
            if job.folder is not None and first.setdefault(job.folder, job) is not job:
                job.problem = f"It is the same run as {first[job.folder].name or 'another'}."
                job.folder, job.left_out = None, True
        again = [argument for argument in sys.argv if not _FORCE.fullmatch(argument)]
        launcher = str(master.hydra.runtime.choices.get("hydra/launcher"))
        return cls(jobs, shlex.join([Path(sys.executable).name, *again]), is_here=launcher in _HERE)

    @property
    def is_dry(self) -> bool:
        return any(job.run.dry_run for job in self.jobs if job.run is not None)

    def run(self, launch: Launch, most_at_once: int | None = None) -> Sequence[JobReturn]:
        """Launch the jobs that aren't done, wait, and print how each of them ended.

        Args:
            launch: hands jobs to a launcher and returns when they have ended.
            most_at_once: largest number of jobs handed over together; None for all.

        Raises:
            SweepError: a job failed, was interrupted, or is running elsewhere.
            Exception: the launcher's own error, if it couldn't start any job.
        """
        n_done = sum(job.is_done and not job.is_forced for job in self.jobs)
        for job in self.jobs:
            if job.is_forced and not job.problem:
                _begin_anew(job)
            elif job.is_done and job.committed is None and job.board is not None:
                _file(job, job.board)
        left = [job for job in self.jobs if self._is_left(job)]
        if n_done:
            print(f"{n_done} of {len(self.jobs)} runs are done already.", flush=True)
        self._save()
        returned: list[JobReturn] = []
        step = most_at_once or max(1, len(left))
        for first in range(0, len(left), step):
            try:
                returned += self._launch(left[first : first + step], launch, first)
            except Exception as error:
                if first == 0:
                    raise
                for job in left[first:]:
                    job.problem = describe(error)
                break
        self._conclude(left)
        return returned

    def rehearse(self) -> None:
        """Print the jobs with their state and what they would take, without launching any.

        Raises:
            ConfigError: the jobs have another mode than run.
            SweepError: a job can't be run.
        """
        runs = [job for job in self.jobs if job.run and job.folder is not None and job.committed is None]
        if any(job.run is not None and job.run.mode != "run" for job in self.jobs):
            raise ConfigError("dry_run=true with -m shows what runs would take. Leave out mode, or leave out -m.")
        table, totals = _plan_table(self.jobs, _plans(runs, self._is_here))
        show([table])
        print(totals, flush=True)
        self._raise_if_incomplete([job for job in self.jobs if job.problem and not job.left_out], "can't be run")

    def _is_left(self, job: Job) -> bool:
        if job.problem or job.run is None:
            return False
        return job.folder is None or not (job.is_done or job.state.progress == "running")

    def _launch(self, jobs: Sequence[Job], launch: Launch, first: int) -> Sequence[JobReturn]:
        started = time.time()
        try:
            returned = launch([job.overrides for job in jobs], initial_job_idx=first)
        except BrokenProcessPool as error:  # joblib ends all its workers when one of them dies
            return self._one_by_one(jobs, launch, first, error, started)
        except Exception as error:
            found = launched.outcomes(error)
            if found is None:
                raise launched.explained(error) from error
            for job, outcome in zip(jobs, found, strict=True):
                if isinstance(outcome, str) and not job.is_done:
                    job.problem = outcome
            returned = [outcome for outcome in found if not isinstance(outcome, str)]
            jobs = [job for job, outcome in zip(jobs, found, strict=True) if not isinstance(outcome, str)]
        for job, result in zip(jobs, returned, strict=True):
            try:
                _ = result.return_value
            except Exception as error:
                job.problem = str(error) if isinstance(error, JobReported) else describe(error)
        return returned

    def _one_by_one(
        self, jobs: Sequence[Job], launch: Launch, first: int, error: BrokenProcessPool, started: float
    ) -> Sequence[JobReturn]:
        """Launch the unfinished jobs again, one at a time, after one of them broke the launcher.

        So the faulty job can't end any other.
        """
        if len(jobs) == 1:
            jobs[0].problem = (
                "Its process was killed, most likely for lack of memory. Lower trainer.batch_size or "
                "hydra.launcher.n_jobs; the same command resumes from the last checkpoint."
            )
            return []
        print(f"A job has died ({type(error).__name__}): unfinished jobs continue one at a time.", file=sys.stderr)
        left = [job for job in jobs if not (job.is_done or _has_failed_since(job, started))]
        return [result for job in left for result in self._launch([job], launch, first)]

    def _save(self) -> None:
        """Write down which runs the sweep consists of, for ``neuralop_bench.status``."""
        by_outputs: dict[str, list[str]] = {}
        for job in self.jobs:
            is_elsewhere = job.committed is not None and job.folder is not None and not job.folder.exists()
            if job.run is not None and job.folder is not None and not is_elsewhere:
                outputs = job.run.paths.outputs
                by_outputs.setdefault(outputs, []).append(job.folder.relative_to(outputs).as_posix())
        now = datetime.now(UTC).isoformat(timespec="seconds")
        for outputs, runs in by_outputs.items():
            SweepFile(self.command, now, tuple(runs)).save(Path(outputs))

    def _conclude(self, launched: Sequence[Job]) -> None:
        runs = [job for job in self.jobs if job.folder is not None or job.problem]
        if runs:
            show([_result_table(runs)])
        outputs = {job.run.paths.outputs for job in self.jobs if job.run is not None and job.folder is not None}
        for folder in sorted(outputs):
            _rebuild_board(Path(folder))
        incomplete = [job for job in self.jobs if not job.left_out and (job.problem or self._is_open(job, launched))]
        self._raise_if_incomplete(incomplete, "didn't finish")

    @staticmethod
    def _is_open(job: Job, launched: Sequence[Job]) -> bool:
        if job.folder is None:
            return False
        return not job.is_done or (job.state.progress == "diverged" and job in launched)

    def _raise_if_incomplete(self, incomplete: Sequence[Job], what: str) -> None:
        if not incomplete:
            return
        lines = [f"  {job.name}: {_what_became(job)[1]}" for job in incomplete]
        raise SweepError(
            f"{len(incomplete)} of {len(self.jobs)} jobs {what}:\n" + "\n".join(lines) + "\n"
            f"Once this is fixed, the same command runs only these jobs:\n  {self.command}"
        )


def _begin_anew(job: Job) -> None:
    """Move a run that is to be replaced aside, and launch its job without ``force``.

    Slurm launches an interrupted job again with the same arguments, so with ``force`` it would restart from scratch
    each time.
    """
    assert job.run is not None
    assert job.folder is not None
    job.overrides = tuple(override for override in job.overrides if not _FORCE.fullmatch(override))
    try:
        plan.make(job.run)  # an impossible run must not remove a good one from the board
        if job.folder.exists():
            with sole_owner(job.folder):
                move_aside(job.folder, Path(job.run.paths.outputs))
        if job.board is not None:
            committed_board.ask_anew(job.folder)
    except (ValueError, RuntimeError, OSError) as error:
        job.problem = describe(error)


def _file(job: Job, board: CommittedBoard) -> None:
    """File a run that ended here earlier on the committed board, since no job is launched for it."""
    if job.problem or job.folder is None or job.state.progress not in ("finished", "diverged"):
        return
    try:
        for line in board.file(job.folder):
            print(line, flush=True)
    except (RuntimeError, OSError) as error:
        job.problem = describe(error)


def _has_failed_since(job: Job, started: float) -> bool:
    failure = None if job.folder is None else job.folder / FAILURE_NAME
    return failure is not None and failure.exists() and failure.stat().st_mtime >= started


def _what_became(job: Job) -> tuple[str, str]:
    """State of a job and its reason, for the table."""
    if job.left_out:
        return "left out", job.problem.partition(". ")[0] + "."
    if job.problem:
        return "failed", job.problem
    where = job.state
    if where.progress == "finished" and not job.is_done:
        return "waiting", f"{where.reason}; its evaluation is still to do"
    if where.progress == "running":
        return "running", f"another process is working on it ({where.reason})"
    if where.progress == "resumable":
        return "interrupted", f"{where.reason}; the same command continues from there"
    if where.progress == "new":
        return "waiting", "it hasn't started"
    return where.progress, where.reason


def _result_table(jobs: Sequence[Job]) -> Table:
    rows = [(job.name, *_what_became(job)) for job in jobs]
    counts = Counter(row[1] for row in rows)
    title = "Sweep: " + ", ".join(f"{n} {name}" for name, n in counts.items())
    return Table(title, ("job", "state", "result"), rows, wraps=True)


def _plans(jobs: Sequence[Job], is_here: bool) -> dict[Path, Plan]:
    """The plan of each run, by folder.

    Runs that differ only in their seed need the same, so only one of them is planned. Jobs that run elsewhere may need
    more than this machine has.
    """
    plans: dict[Path, Plan] = {}
    for job in jobs:
        assert job.run is not None
        assert job.folder is not None
        known = next((planned for folder, planned in plans.items() if folder.parent == job.folder.parent), None)
        try:
            plans[job.folder] = known or plan.make(job.run, must_fit=is_here)
        except (ValueError, RuntimeError) as error:
            job.problem = describe(error)
    return plans


def _plan_table(jobs: Sequence[Job], plans: dict[Path, Plan]) -> tuple[Table, str]:
    rows, seconds, unknown = [], 0.0, 0
    repository = CommittedBoard(CONFIG_DIR.parent / leaderboard.FOLDER)
    for job in jobs:
        planned = plans.get(job.folder) if job.folder is not None else None
        if planned is None or job.folder is None:
            rows.append((job.name, *_what_became(job), "", ""))
            continue
        where = job.state
        training = _training_seconds(planned, job.board or repository)
        if where.progress not in ("finished", "diverged"):
            seconds, unknown = seconds + (training or 0), unknown + (training is None)
        rows.append(
            (
                job.name,
                _what_became(job)[0],
                "" if where.progress == "new" else _what_became(job)[1],
                plan.size(planned.memory_bytes),
                "" if training is None else plan.duration(training),
            )
        )
    table = Table(f"{len(jobs)} jobs", ("job", "state", "reason", "memory", "training"), rows, wraps=True)
    total = f"Training the rest, one run after another: {plan.duration(seconds)}, judging by other seeds"
    total += f"; without {unknown} runs of which no other seed is known" if unknown else ""
    left = [plans[job.folder] for job in jobs if job.folder in plans and (job.is_forced or not job.is_done)]
    missing = {planned.data_folder: planned for planned in left if planned.n_missing}
    lines = [
        f"Data to generate: {planned.n_missing} samples, {plan.size(planned.missing_bytes)}, in {folder}"
        for folder, planned in missing.items()
    ]
    return table, "\n".join([total, *lines])


def _training_seconds(planned: Plan, board: CommittedBoard) -> float | None:
    """Training time of other seeds of the same configuration, here or, if none was run here, on the board."""
    for records in (_records(planned.folder.parent), board.seeds(planned.who.track, planned.who.configuration)):
        taken = [seconds for record in records if (seconds := record.cost.get("train_seconds")) is not None]
        if taken:
            return statistics.mean(taken)
    return None


def _records(variant: Path) -> list[RunRecord]:
    """The readable records of all seeds."""
    found = []
    for path in variant.glob(f"*/{RECORD_NAME}"):
        with suppress(RecordError):
            found.append(RunRecord.load(path))
    return found


def _rebuild_board(outputs: Path) -> None:
    if not any(outputs.rglob(RECORD_NAME)):
        return
    try:
        print(f"Leaderboard: {leaderboard.rebuild(outputs)}", flush=True)
    except Exception as error:  # a board also depends on the files of others
        print(f"Warning: the leaderboard wasn't rebuilt: {plain(str(error) or type(error).__name__)}", file=sys.stderr)
