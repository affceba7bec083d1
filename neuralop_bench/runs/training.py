"""Training: one run, from its data to its record."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xarray as xr
from omegaconf import OmegaConf

from neuralop_bench.config import constructors
from neuralop_bench.config.schema import RunConfig, n_fresh
from neuralop_bench.data.stream import SOLVER_SECONDS, StreamedWindows
from neuralop_bench.data.trajectories import Examples, Trajectories, Windows
from neuralop_bench.metrics import cost
from neuralop_bench.records import run_directory
from neuralop_bench.records.record import RECORD_NAME, RunRecord, Status
from neuralop_bench.runs import parts, scoring
from neuralop_bench.runs.plan import Plan
from neuralop_bench.runs.scoring import Score
from neuralop_bench.runs.splits import Data
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.runtime.table import show
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training.state import Progress
from neuralop_bench.training.tracking import Guarded, NoTracker
from neuralop_bench.training.trainer import Diverged


def train(plan: Plan, processes: Processes) -> RunRecord:
    """Train the run of a plan, or resume it from its checkpoint; score it on test; write the record last.

    Args:
        plan: the plan of the run.
        processes: share the work; only the first writes and prints.

    Returns:
        The record. Its status is "diverged" if the loss became non-finite.

    Raises:
        RuntimeError, ValueError, StoreError, WriteError, CheckpointError: see their messages.
    """
    cfg, started = plan.cfg, time.monotonic()
    print(f"{plan.title}{f', {processes.n} processes' if processes.n > 1 else ''} -> {plan.folder}")
    config = OmegaConf.to_yaml(OmegaConf.structured(cfg))
    if processes.is_first:
        run_directory.write_config(plan.folder, config)
    with _tracked(plan, processes) as tracker:
        # Only train and valid are open while the model is fitted. test is opened once, afterwards.
        data = Data(cfg, plan.source)
        train, valid = data.open("train"), data.open("valid")
        provenance = {"train": data.provenance("train", train), "valid": data.provenance("valid", valid)}
        if cfg.data.stream:  # each sample follows from the dataset and its number
            provenance["train"]["n_fresh"] = n_fresh(cfg)
        cost.reset_peak_memory(processes.device)
        surrogate, trainer = _surrogate(plan, train, processes), parts.trainer(cfg)
        try:
            with _examples(plan, train, trainer.window_steps) as examples:
                progress = trainer.fit(
                    surrogate,
                    examples,
                    valid.whole(),
                    parts.recipe(cfg, train.spec),
                    tracker=tracker,
                    folder=plan.folder,
                    config=config,
                    processes=processes,
                )
        except Diverged as error:
            record = _record(plan, processes, started, "diverged", provenance, message=str(error))
            _save(record, plan, processes)
            tracker.finish(record.metrics, [], [])
            return record
        spent = {**_spent(plan, progress), "peak_memory_mb": cost.peak_memory_mb(processes.device)}
        if (trial := plan.folder / RECORD_NAME).exists():  # it was trained before, and nothing is now
            spent["peak_memory_mb"] = RunRecord.load(trial).cost.get("peak_memory_mb")
        if not cfg.evaluator.on_test:
            untested = Score({}, {}, {"valid_rel_l2": progress.best_valid}, {}, spent)
            record = _record(plan, processes, started, "finished", provenance, score=untested)
            _save(record, plan, processes)
            print(f"Finished: {record.result}")
            tracker.finish(record.metrics, [], [])
            return record
        test = data.open("test")
        score = scoring.score(cfg, surrogate, train, test, processes)
        score.metrics["valid_rel_l2"] = progress.best_valid

        def finish() -> tuple[RunRecord, list[Path]]:
            score.cost |= {**scoring.prediction_costs(surrogate, test, processes.device), **spent}
            files = score.write(plan.folder / run_directory.ERRORS_NAME, plan.folder / run_directory.REPORT_NAME)
            show(score.tables)
            pictures = _draw(plan, surrogate, test.whole(), score.errors[scoring.TEST], progress)
            sources = {**provenance, "test": data.provenance("test", test)}
            record = _record(plan, processes, started, "finished", sources, score=score, files=files)
            _save(record, plan, processes)
            return record, pictures

        record, pictures = processes.first_does(finish)  # times are measured while the others wait
        tracker.finish(record.metrics, score.tables, pictures)
        return record


@contextmanager
def _tracked(plan: Plan, processes: Processes) -> Iterator[Guarded]:
    """The tracker of a run. It is started here, and finished here if the run ends with an error."""
    tracker = Guarded(constructors.build(plan.cfg.tracker) if processes.is_first else NoTracker())
    tracker.start(plan.run_id, plan.folder, asdict(plan.cfg))
    try:
        yield tracker
    except BaseException:
        tracker.finish({}, [], [])
        raise


def _surrogate(plan: Plan, train: Trajectories, processes: Processes) -> Surrogate:
    cfg = plan.cfg
    environment.seed_everything(cfg.seed)
    operator = parts.operator(cfg, train.spec, processes.device)
    if cfg.init_from is not None:
        found = parts.fitting_weights(cfg, operator)
        operator.load_state_dict(found, strict=False)
        if processes.is_first:
            fresh = [name for name, _ in operator.named_parameters() if name not in found]
            source = cfg.initial.get("run_id") or cfg.initial["file"]
            print(f"Starting from {source}. Afresh: {', '.join(fresh) or 'nothing'}.")
    normalizer = _normalizer(cfg, train)
    if processes.is_first:
        for remark in normalizer.remarks(train.spec).values():
            print(f"Warning: in the training data, {remark}", file=sys.stderr)
    surrogate = parts.surrogate(cfg, train.spec, operator, normalizer)
    if cfg.surrogate.solver is not None and cfg.surrogate.normalize:
        surrogate.measure_corrections(train.windows(cfg.surrogate.bundle).in_order(cfg.evaluator.batch_size))
    return surrogate.to(processes.device)


def _normalizer(cfg: RunConfig, train: Trajectories) -> Normalizer:
    bundle = cfg.surrogate.bundle
    if not cfg.surrogate.normalize:
        return Normalizer.none(train.spec, bundle=bundle)
    return Normalizer.fit(train.whole().in_order(cfg.evaluator.batch_size), bundle=bundle)


@contextmanager
def _examples(plan: Plan, train: Trajectories, n_steps: int) -> Iterator[Examples]:
    """The training examples: the train split, or the stream that starts with it."""
    cfg = plan.cfg
    if not cfg.data.stream:
        yield train.windows(n_steps)
        return
    problem = plan.source.problem
    assert problem is not None, "imported data can't be streamed, as the rules say"
    examples = StreamedWindows(
        train,
        n_steps,
        problem=problem,
        seed=cfg.dataset.seed,
        n_fresh=n_fresh(cfg),
        epochs=cfg.trainer.epochs,
        batch_size=cfg.trainer.batch_size,
        workers=cfg.data.workers,
    )
    with closing(examples):
        yield examples


def _spent(plan: Plan, progress: Progress) -> dict[str, float | None]:
    generation = [plan.source.generation_seconds(split) for split in ("train", "valid")]
    known = [seconds for seconds in generation if seconds is not None]
    return {
        "train_seconds": progress.seconds,
        "loader_wait_seconds": progress.waited,
        "best_epoch": progress.best_epoch,
        "generation_seconds": sum(known) + progress.spent.get(SOLVER_SECONDS, 0.0) if len(known) == 2 else None,
        **progress.spent,
    }


def _draw(plan: Plan, surrogate: Surrogate, test: Windows, errors: xr.Dataset, progress: Progress) -> list[Path]:
    from neuralop_bench.evaluation import figures  # imports matplotlib, which takes a second

    title = f"{plan.who.model} on {plan.who.dataset} ({plan.who.track}), seed {plan.cfg.seed}"
    device = surrogate.normalizer.state_mean.device
    drawn = figures.run_figures(
        progress.curve, progress.best_epoch, errors, surrogate, test, device=device, title=title
    )
    paths = {name: plan.folder / run_directory.FIGURES / f"{name}.png" for name in drawn}
    for name, figure in drawn.items():
        figures.save(figure, paths[name])
    return list(paths.values())


def _record(
    plan: Plan,
    processes: Processes,
    started: float,
    status: Status,
    data: dict[str, dict[str, Any]],
    *,
    message: str = "",
    score: Score | None = None,
    files: Mapping[str, str] | None = None,
) -> RunRecord:
    cfg, who = plan.cfg, plan.who
    return RunRecord(
        run_id=plan.run_id,
        model=who.model,
        variant=who.variant,
        dataset=who.dataset,
        track=who.track,
        task=who.task,
        seed=cfg.seed,
        status=status,
        message=message,
        metrics=score.metrics if score else {},
        metric_versions=score.versions if score else {},
        cost=score.cost if score else {},
        data=data,
        config=asdict(cfg),
        config_hash=who.config_hash,
        **environment.provenance(
            processes.device,
            processes=processes.n,
            precision=cfg.trainer.precision,
            compiled=cfg.trainer.compile,
        ),
        wall_seconds=time.monotonic() - started,
        files=dict(files or {}),
        samples=score.samples if score else {},
        profile=score.profile.to_json() if score and score.profile else {},
    )


def _save(record: RunRecord, plan: Plan, processes: Processes) -> None:
    if processes.is_first:
        record.save(plan.folder / RECORD_NAME)
