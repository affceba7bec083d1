"""Evaluations of a run after its record has been written."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data_gen.agreement import agree
from neuralop_bench.config.identity import evaluator_name
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.record import EVALUATIONS, UNTESTED, Evaluation, RunRecord
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.runs import finished, scoring
from neuralop_bench.runs.scoring import Score
from neuralop_bench.runs.splits import Data, source_of
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.runtime.table import show
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training.trainer import validate

Provenance = dict[str, dict[str, Any]]


def evaluate(
    cfg: RunConfig, record: RunRecord, folder: Path, processes: Processes, draws: bool, outputs: Path
) -> Evaluation:
    """Evaluate a finished run and write the evaluation beside its record, or return an existing one.

    Args:
        cfg: the run's configuration, with the evaluator to use.
        record: the run's record.
        folder: the run directory.
        processes: share the work; only the first writes and prints.
        draws: whether to draw the board's page, too, if there is a board to rebuild.
        outputs: the user's own outputs. Their board is rebuilt if the run lies there. No other board is: a run may have
            been copied anywhere, and its record may name any folder.

    Raises:
        RunError: the run isn't finished, or the data here differ from the record's.
        WriteError: a file can't be written.
    """
    name = evaluator_name(cfg)
    path, errors, report = (folder / EVALUATIONS / f"{name}.{kind}" for kind in ("json", "nc", "md"))
    if processes.first_does(path.exists) and not cfg.force:
        evaluation = Evaluation.load(path)
        print(f"This evaluation is done: {path} (force=true repeats it)\n{finished.report(report, evaluation.files)}")
        return evaluation
    started = time.monotonic()
    score, data = _scored(cfg, record, folder, processes, thorough=True)

    def finish() -> Evaluation:
        evaluation = Evaluation(
            run_id=record.run_id,
            evaluator=name,
            metrics=score.metrics,
            metric_versions=score.versions,
            data={"test": data["test"], **score.data},
            config=asdict(cfg.evaluator),
            **environment.provenance(processes.device, processes=processes.n),
            wall_seconds=time.monotonic() - started,
            files=score.write(errors, report),
            columns={test_set: entry for test_set, entry in score.columns.items() if test_set != scoring.TEST},
            cost=score.cost,
            rungs=[asdict(rung) for rung in score.rungs],
            notes=score.notes,
            samples=score.samples,
            profile=score.profile.to_json() if score.profile else {},
        )
        if score.rungs:
            _draw_solver(score, record, path.with_suffix(".png"))
        evaluation.save(path)
        show(score.tables)
        print(f"Evaluation: {path}")
        if outputs.resolve() in folder.resolve().parents:
            finished.rebuild_board(outputs, draws)
        return evaluation

    return processes.first_does(finish)


def score_again(cfg: RunConfig, record: RunRecord, folder: Path) -> tuple[Score, Provenance]:
    """Score the checkpoint of a finished run on the record's own test data.

    Args:
        cfg: the run's configuration, from its record.
        record: the run's record.
        folder: the run directory.

    Returns:
        The score, with the error on valid among its metrics and the cost of predictions; and the provenance of train,
        valid and test.

    Raises:
        RunError: the run isn't finished or has no errors on test, or the data here differ from the record's.
    """
    if not record.is_tested:
        raise RunError(f"The run in {folder} {UNTESTED}")
    alone = Processes(device=environment.resolve_device(cfg.device))
    return _scored(cfg, record, folder, alone, thorough=False)


def _scored(
    cfg: RunConfig, record: RunRecord, folder: Path, processes: Processes, *, thorough: bool
) -> tuple[Score, Provenance]:
    """The checkpoint's score, and the provenance of train, valid and test."""
    if record.status != "finished":
        raise RunError(f"The run in {folder} {record.status}, so there is no model to evaluate.")
    surrogate = Surrogate.load(folder, device=processes.device, trust=cfg.trust)
    data = Data(cfg, source_of(cfg))
    opened = {split: data.open(split) for split in ("train", "valid", "test")}
    for split, samples in opened.items():
        here = data.provenance(split, samples)
        recorded = record.data.get(split, here)  # a trial of a search hasn't opened test
        if not agree(here, recorded):
            raise RunError(
                f"The {split} data in {samples.path} aren't those of the record in {folder}: {_difference(recorded)} "
                "They have changed since, or another program made them. To use other files, set paths.data (for "
                "imported data: dataset=file dataset.path=<folder>)."
            )
        if here["sha256"] != recorded["sha256"] and processes.is_first:
            print(
                f"The {split} data here differ from those of the record in their last digits, as data made on another "
                "kind of processor do: by less than a tenth of their own error."
            )
    train, valid, test = opened.values()
    if thorough:
        spent = _spent_seconds(record)
        score = scoring.score_thoroughly(cfg, surrogate, train, test, processes, spent_seconds=spent)
    else:
        score = scoring.score(cfg, surrogate, train, test, processes)
        score.cost |= scoring.prediction_costs(surrogate, test, processes.device)
    score.metrics["valid_rel_l2"] = validate(surrogate, valid.whole(), cfg.trainer.batch_size, processes)
    return score, {split: data.provenance(split, samples) for split, samples in opened.items()}


def _difference(recorded: Mapping[str, Any]) -> str:
    if "agreement" in recorded:
        return "they differ by more than a tenth of their own error."
    # Of imported data, or from before records had more than hashes.
    return "their hashes differ, and the record has nothing else to compare them by."


def _spent_seconds(record: RunRecord) -> float | None:
    """Seconds spent on data, tuning and training; each trial of the tuning counts as one training."""
    generation, training = (record.cost.get(name) for name in ("generation_seconds", "train_seconds"))
    if generation is None or training is None:
        return None
    return generation + training * (1 + (record.config.get("tuning_trials") or 0))


def _draw_solver(score: Score, record: RunRecord, path: Path) -> None:
    from neuralop_bench.evaluation import figures  # imports matplotlib, which takes a second

    title = f"{record.model} on {record.dataset} ({record.track}), seed {record.seed}, beside the solver"
    own = {"batched": 1e3 / (score.cost["throughput"] or math.inf), "alone": score.cost["latency_ms"]}
    drawn = figures.error_against_time_figure(score.rungs, score.metrics["rel_l2"], own, title=title)
    figures.save(drawn, path)
