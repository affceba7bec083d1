"""What can be done with a configuration: run it, evaluate a finished run again, make data, or show a plan."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

from data_gen.generation.memory import keep_freed_memory
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import Identity, identity, run_directory
from neuralop_bench.config.messages import describe
from neuralop_bench.config.recorded import for_evaluation
from neuralop_bench.config.rules import require_one_process
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.committed_board import ask_anew
from neuralop_bench.records.record import Evaluation, RunRecord
from neuralop_bench.records.run_directory import clear_leftovers, move_aside, note_failure, sole_owner
from neuralop_bench.runs import evaluation, finished, plan, splits
from neuralop_bench.runs.training import train
from neuralop_bench.runtime.process_group import OtherProcessFailed
from neuralop_bench.runtime.processes import Processes, join


def execute(cfg: RunConfig, *, draws: bool = True) -> float | None:
    """Do what the command line asked for: a run, an evaluation of a finished run, only data, or a dry run.

    Args:
        cfg: configuration of the command.
        draws: whether to draw the page of the board in ``paths.outputs``, too, when its tables are rebuilt.

    Returns:
        For a run, its error on valid (``valid_rel_l2``), which a search for hyper-parameters may use. Otherwise None.

    Raises:
        ConfigError: this mode has no dry run. Other errors are those of ``run``, ``evaluate_again`` and
            ``splits.generate``.
    """
    if cfg.mode == "evaluate":
        if cfg.dry_run:
            raise ConfigError("dry_run=true shows what a run would take; mode=evaluate has no dry run. Leave it out.")
        evaluate_again(cfg, draws=draws)
    elif cfg.mode == "generate":
        splits.generate(cfg)
    elif cfg.dry_run:
        _tell(cfg)
    else:
        return run(cfg, draws=draws).metrics["valid_rel_l2"]
    return None


def run(cfg: RunConfig, *, draws: bool = True) -> RunRecord:
    """Run a configuration, or return its record if that has already been done.

    Generates missing data, trains (or resumes from a checkpoint), evaluates on test with the weights that did best on
    valid, and writes into the run directory: run.yaml, best.pt, last.pt, curve.csv, errors.nc, report.md, figures/ and,
    last, record.json. Then it rebuilds the leaderboard of ``paths.outputs``. If the evaluator measures more than errors
    on test (``thorough``), that follows, as in ``evaluate_again``. With ``paths.board``, a run that is committed there
    counts as done, and any other is filed there at the end. ``draws`` is that of ``execute``.

    Raises:
        RunError: the loss became non-finite, another process is working on the same run, or the machine is too small.
        ConfigError, ValueError, StoreError, WriteError, CheckpointError, FilingError: see their messages. Complete
            files are kept, and the same configuration resumes from there.

    >>> from neuralop_bench import compose, run
    >>> cfg = compose("model=fno", "track=smoke")
    >>> record = run(cfg)  # doctest: +ELLIPSIS
    fno on ns2d, track smoke, seed 0 -> ...
    >>> record.status, record.metrics["rel_l2"] < 0.5
    ('finished', True)
    """
    processes, who = join(cfg.device), identity(cfg)
    folder = run_directory(cfg, who)
    with processes.first_alone_speaks():
        if (found := processes.first_does(lambda: finished.committed(cfg, who))) is not None:
            return finished.returned_from_board(found, cfg)
        require_one_process(cfg, processes.n)
        if not cfg.force and processes.first_does(lambda: finished.is_done(folder, cfg)):
            record = finished.returned(folder, cfg, processes, draws)
        else:
            record = _run(cfg, who, processes, draws)
        if cfg.evaluator.is_thorough:
            evaluation.evaluate(replace(cfg, force=False), record, folder, processes, draws, Path(cfg.paths.outputs))
        if cfg.paths.board is not None:
            finished.file(cfg.paths.board, folder, processes)
    return record


def evaluate_again(asked: RunConfig, *, draws: bool = True) -> Evaluation:
    """Evaluate a finished run again, perhaps with another evaluator.

    Writes evaluations/<evaluator>.json beside the run's record, with the errors (.nc) and the tables (.md). If there is
    such an evaluation, it is returned. The leaderboard of ``paths.outputs`` is rebuilt if the run lies there. With
    ``paths.board`` the run is then filed there.

    Raises:
        ConfigError, RecordError, CheckpointError: the run can't be evaluated; the message says why.
        RunError: the test data here differ from those of the record.
        FilingError, WriteError: the run can't be filed.
    """
    cfg, record = for_evaluation(asked)
    folder, processes = Path(cast(str, cfg.run)), join(cfg.device)
    with processes.first_alone_speaks():
        evaluated = evaluation.evaluate(cfg, record, folder, processes, draws, Path(asked.paths.outputs))
        if cfg.paths.board is not None:
            finished.file(cfg.paths.board, folder, processes)
    return evaluated


def _tell(cfg: RunConfig) -> None:
    """Print the plan of a run, for dry_run=true."""
    who = identity(cfg)
    if (found := finished.committed(cfg, who)) is not None:
        print(f"{'state':<14} finished ({found.reason}); the command returns that record\n")
    else:
        print(plan.describe(plan.make(cfg, who)), end="\n\n")


def _run(cfg: RunConfig, who: Identity, processes: Processes, draws: bool) -> RunRecord:
    planned = plan.make(cfg, who)
    folder = planned.folder
    keep_freed_memory()
    with ExitStack() as held:
        if processes.first_does(lambda: _taken(held, folder, cfg)):
            return finished.returned(folder, cfg, processes, draws)  # another process has finished it in the meantime
        try:
            record = train(planned, processes)
        except OtherProcessFailed:
            raise
        except Exception as error:
            if processes.is_first:
                note_failure(folder, describe(error))
            raise
    board = finished.rebuild_board(Path(cfg.paths.outputs), draws) if processes.is_first else ""
    if record.status == "diverged":
        raise finished.diverged(record, folder, cfg, processes)
    print(f"Run directory: {folder}\nLeaderboard:   {board}")
    return record


def _taken(held: ExitStack, folder: Path, cfg: RunConfig) -> bool:
    """Lock the run directory until ``held`` is closed. Returns whether the run has been finished in the meantime."""
    if cfg.force and folder.exists():  # only now: an impossible run must not remove a good one from the board
        with sole_owner(folder):
            move_aside(folder, Path(cfg.paths.outputs))
    held.enter_context(sole_owner(folder))
    if cfg.force and cfg.paths.board is not None:
        ask_anew(folder)
    if finished.is_done(folder, cfg):
        return True
    clear_leftovers(folder)
    return False
