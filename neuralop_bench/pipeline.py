"""From a configuration to a record: the only place where the parts are put together."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import xarray as xr
from omegaconf import OmegaConf

from data_gen.files import WriteError
from data_gen.generation.memory import keep_freed_memory
from neuralop_bench import leaderboard
from neuralop_bench.config import constructors, identity, messages, recorded, rules, schema
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.data.sources import Source
from neuralop_bench.data.stream import SOLVER_SECONDS, StreamedWindows
from neuralop_bench.data.trajectories import Trajectories, Windows
from neuralop_bench.evaluation import figures
from neuralop_bench.metrics import cost
from neuralop_bench.records import committed_board, run_directory
from neuralop_bench.records.committed_board import Board, Committed
from neuralop_bench.records.profile import Profile
from neuralop_bench.records.record import EVALUATIONS, RECORD_NAME, Evaluation, RunRecord, Status
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.runs import plan as planning
from neuralop_bench.runs import scoring, splits
from neuralop_bench.runs.plan import Plan
from neuralop_bench.runs.scoring import Score
from neuralop_bench.runs.splits import Split
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.process_group import OtherProcessFailed
from neuralop_bench.runtime.processes import Processes, join
from neuralop_bench.runtime.table import Table, show
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate, build_operator
from neuralop_bench.training.tracking import Guarded, NoTracker
from neuralop_bench.training.trainer import Diverged, Progress, Trainer, validate


def execute(cfg: RunConfig, *, draws: bool = True) -> float | None:
    """Do what the command line asked for: a run, an evaluation of a finished run, data alone, or a dry run.

    Args:
        cfg: of the command.
        draws: the page of the board in ``paths.outputs``, too, when its tables are rebuilt.

    Returns:
        Of a run, its error on valid, ``valid_rel_l2``: what a search for hyper-parameters may look at.

    Raises:
        ConfigError: a dry run of what has none; otherwise as ``run``, ``evaluate_again`` and ``datasets.generate``.
    """
    if cfg.mode == "evaluate":
        if cfg.dry_run:
            raise ConfigError("dry_run=true tells what a run would take, not what mode=evaluate does. Leave it out.")
        evaluate_again(cfg, draws=draws)
    elif cfg.mode == "generate":
        splits.generate(cfg)
    elif cfg.dry_run and (found := _committed(cfg)) is not None:
        print(f"{'state':<14} finished ({found.reason}); the command returns that record\n")
    elif cfg.dry_run:
        print(planning.describe(planning.make(cfg)), end="\n\n")  # a sweep prints one after another
    else:
        return run(cfg, draws=draws).metrics["valid_rel_l2"]
    return None


def run(cfg: RunConfig, *, draws: bool = True) -> RunRecord:
    """Do what a configuration describes, or return the record if it has been done.

    Generates missing data, trains (or goes on from a checkpoint), evaluates on test with the weights that did best on
    valid, and writes into the run directory: run.yaml, best.pt, last.pt, curve.csv, errors.nc, report.md, figures/ and,
    last, record.json. Then the leaderboard of ``paths.outputs`` is rebuilt. An evaluator that measures more than errors
    on test (``thorough``) does so then, as ``evaluate_again`` would. With ``paths.board`` a run that is committed there
    is done, and another is filed there in the end. ``draws`` is that of ``execute``.

    Raises:
        RunError: the loss became non-finite, another process is at work on the same run, or the machine is too small.
        ConfigError, ValueError, StoreError, WriteError, CheckpointError, FilingError: as their messages say; what is
            whole is kept, and the same configuration goes on from there.

    >>> from neuralop_bench import pipeline
    >>> from neuralop_bench.config.compose import compose
    >>> cfg = compose("model=fno", "track=smoke")
    >>> record = pipeline.run(cfg)  # doctest: +ELLIPSIS
    fno on ns2d, track smoke, seed 0 -> ...
    >>> record.status, record.metrics["rel_l2"] < 0.5
    ('finished', True)
    """
    processes = join(cfg.device)
    with processes.first_alone_speaks():
        if (found := processes.first_does(lambda: _committed(cfg))) is not None:
            if found.record.status != "finished":
                raise RunError(f"This run is {found.reason}. {found.record.message} force=true runs it again.")
            _tell_done(f"This run is {found.reason}", found.record, cfg)
            return found.record
        record = _run(cfg, processes, draws)
        if cfg.evaluator.is_thorough:
            _evaluate_finished(replace(cfg, force=False), record, identity.run_directory(cfg), processes, draws)
        if cfg.paths.board is not None:
            _file(cfg.paths.board, identity.run_directory(cfg), processes)
    return record


def _committed(cfg: RunConfig) -> Committed | None:
    """The run on the committed board, if there is one and all that is asked for lies there."""
    if cfg.paths.board is None or cfg.force:
        return None
    who = identity.identity(cfg)
    evaluator = identity.evaluator_name(cfg) if cfg.evaluator.is_thorough else None
    board = Board(Path(cfg.paths.board))
    return board.find(who.track, who.run_id(cfg.seed), evaluator, run=identity.run_directory(cfg, who))


def _file(board: str, folder: Path, processes: Processes) -> None:
    """Put a finished run on the committed board."""

    def file() -> None:
        for line in Board(Path(board)).file(folder):
            print(line)

    processes.first_does(file)


def _run(cfg: RunConfig, processes: Processes, draws: bool) -> RunRecord:
    rules.require_one_process(cfg, processes.n)
    who = identity.identity(cfg)
    folder, outputs = identity.run_directory(cfg, who), Path(cfg.paths.outputs)
    if processes.first_does((folder / RECORD_NAME).exists) and not cfg.force:
        return _returned(folder, cfg, processes, draws)
    plan = planning.make(cfg, who)
    keep_freed_memory()
    with ExitStack() as held:
        if processes.first_does(lambda: _taken(held, folder, cfg)):
            return _returned(folder, cfg, processes, draws)  # others have finished it since
        try:
            record = _Run(plan, processes).execute()
        except OtherProcessFailed:
            raise
        except Exception as error:
            if processes.is_first:
                run_directory.note_failure(folder, messages.describe(error))
            raise
    board = _rebuild_board(outputs, draws) if processes.is_first else ""
    if record.status == "diverged":
        raise _diverged(record, cfg, processes)
    print(f"Run directory: {folder}\nLeaderboard:   {board}")
    return record


def _taken(held: ExitStack, folder: Path, cfg: RunConfig) -> bool:
    """Own the run directory until ``held`` is closed; whether the run has been done there since."""
    if cfg.force and folder.exists():  # only now: an impossible run must not take a good one off the board
        with run_directory.sole_owner(folder):
            run_directory.move_aside(folder, Path(cfg.paths.outputs))
    held.enter_context(run_directory.sole_owner(folder))
    if cfg.force and cfg.paths.board is not None:
        committed_board.ask_anew(folder)
    if (folder / RECORD_NAME).exists():
        return True
    run_directory.clear_leftovers(folder)
    return False


def evaluate_again(asked: RunConfig, *, draws: bool = True) -> Evaluation:
    """Evaluate a finished run once more, perhaps with another evaluator, and write evaluations/<evaluator>.json beside
    its record, with the errors (.nc) and the tables (.md). An evaluation that is there is returned. With
    ``paths.board`` the run is then filed there.

    Raises:
        ConfigError, RecordError, CheckpointError: the run can't be evaluated, as the message says.
        RunError: the test data here aren't those of the record.
        FilingError, WriteError: it can't be filed.
    """
    cfg, record = recorded.for_evaluation(asked)
    processes = join(cfg.device)
    with processes.first_alone_speaks():
        evaluation = _evaluate_finished(cfg, record, folder := Path(cast(str, cfg.run)), processes, draws)
        if cfg.paths.board is not None:
            _file(cfg.paths.board, folder, processes)
    return evaluation


def _evaluate_finished(
    cfg: RunConfig, record: RunRecord, folder: Path, processes: Processes, draws: bool
) -> Evaluation:
    name = identity.evaluator_name(cfg)
    path, errors, report = (folder / EVALUATIONS / f"{name}.{kind}" for kind in ("json", "nc", "md"))
    if processes.first_does(path.exists) and not cfg.force:
        evaluation = Evaluation.load(path)
        print(f"This evaluation is done: {path} (force=true repeats it)\n{_report(report, evaluation.files)}")
        return evaluation
    started = time.monotonic()
    score, data = _scored_again(cfg, record, folder, processes, thorough=True)

    def finish() -> Evaluation:
        commit, dirty = environment.commit()
        evaluation = Evaluation(
            run_id=record.run_id,
            evaluator=name,
            metrics=score.metrics,
            metric_versions=score.versions,
            data=data,
            config=asdict(cfg.evaluator),
            environment=environment.environment(processes.device, processes=processes.n),
            bench_version=environment.bench_version(),
            commit=commit,
            dirty=dirty,
            date_utc=_now(),
            wall_seconds=time.monotonic() - started,
            files=score.write(errors, report),
            columns={test_set: entry for test_set, entry in score.columns.items() if test_set != scoring.TEST},
            cost=score.cost,
            rungs=[asdict(rung) for rung in score.rungs],
            notes=score.notes,
            samples=score.samples,
            profile=_plain(score.profile),
        )
        if score.rungs:
            title = f"{record.model} on {record.dataset} ({record.track}), seed {record.seed}, beside the solver"
            own = {"batched": 1e3 / (score.cost["throughput"] or math.inf), "alone": score.cost["latency_ms"]}
            drawn = figures.error_against_time_figure(score.rungs, score.metrics["rel_l2"], own, title=title)
            figures.save(drawn, path.with_suffix(".png"))
        evaluation.save(path)
        show(score.tables)
        print(f"Evaluation: {path}")
        outputs = folder.resolve().parents[identity.RUN_DIRECTORY_DEPTH - 1]
        if (outputs / leaderboard.FOLDER).is_dir():  # a run directory may have been copied elsewhere
            _rebuild_board(outputs, draws)
        return evaluation

    return processes.first_does(finish)


def score_again(cfg: RunConfig, record: RunRecord, folder: Path) -> Score:
    """What the checkpoint of a finished run scores on the record's own test data, with the valid error among the
    columns.

    Args:
        cfg: the run's configuration, from its record.
        record: of the run.
        folder: the run directory.

    Raises:
        RunError: the run isn't finished, or the data here differ from the record's.
    """
    alone = Processes(device=environment.resolve_device(cfg.device))
    return _scored_again(cfg, record, folder, alone, thorough=False)[0]


def _scored_again(
    cfg: RunConfig, record: RunRecord, folder: Path, processes: Processes, *, thorough: bool
) -> tuple[Score, dict[str, dict[str, Any]]]:
    """What the checkpoint scores, and the provenance of the test sets."""
    if record.status != "finished":
        raise RunError(f"{folder} holds a run that {record.status}, so there is no model to evaluate.")
    surrogate = Surrogate.load(folder, device=processes.device, trust=cfg.trust)
    data = _Data(cfg, planning.source_of(cfg))
    opened = {split: data.open(split) for split in ("train", "valid", "test")}
    for split, samples in opened.items():
        if samples.sha256 != record.data[split]["sha256"]:
            raise RunError(
                f"The {split} data in {samples.path} aren't those of the record in {folder}: their hashes differ. "
                "Generated with another version of the libraries, or changed since; paths.data (of imported data, "
                "dataset=file dataset.path) points to other files."
            )
    train, valid, test = opened.values()
    if thorough:
        spent = _spent_seconds(record)
        score = scoring.score_thoroughly(cfg, surrogate, train, test, processes, spent_seconds=spent)
    else:
        score = scoring.score(cfg, surrogate, train, test, processes)
    score.metrics["valid_rel_l2"] = validate(surrogate, valid.whole(), cfg.trainer.batch_size, processes)
    return score, {"test": data.describe("test", test), **score.data}


def _spent_seconds(record: RunRecord) -> float | None:
    """On data, tuning and training; each trial of the tuning counts as one training."""
    generation, training = (record.cost.get(name) for name in ("generation_seconds", "train_seconds"))
    if generation is None or training is None:
        return None
    return generation + training * (1 + (record.config.get("tuning_trials") or 0))


class _Data:
    """The datasets of a configuration, generated together if they are missing."""

    def __init__(self, cfg: RunConfig, source: Source) -> None:
        self._cfg = cfg
        self._splits = {name: Split(name, source, n, cfg.dataset.horizon) for name, n in cfg.splits.items()}
        source.ensure(cfg.splits, workers=cfg.workers)

    def open(self, split: str) -> Trajectories:
        return splits.opened(self._cfg, self._splits[split])

    def describe(self, split: str, samples: Trajectories) -> dict[str, Any]:
        return splits.provenance(self._splits[split], samples)


class _Run:
    """The steps of one run, from data to record."""

    def __init__(self, plan: Plan, processes: Processes) -> None:
        self.cfg, self.who, self.folder = plan.cfg, plan.who, plan.folder
        self.processes, self.device = processes, processes.device
        self.source, self.started = plan.source, time.monotonic()
        self.run_id = self.who.run_id(self.cfg.seed)

    def execute(self) -> RunRecord:
        shared = f", {self.processes.n} processes" if self.processes.n > 1 else ""
        who = f"{self.who.model} on {self.who.dataset}, track {self.who.track}, seed {self.cfg.seed}{shared}"
        print(f"{who} -> {self.folder}")
        if self.processes.is_first:
            run_directory.write_config(self.folder, _yaml(self.cfg))
        tracker = Guarded(constructors.build(self.cfg.tracker) if self.processes.is_first else NoTracker())
        tracker.start(self.run_id, self.folder, asdict(self.cfg))
        try:
            record, results = self._work(tracker)
        except BaseException:
            tracker.finish({}, [], [])
            raise
        tracker.finish(record.metrics, *results)
        return record

    def _work(self, tracker: Guarded) -> tuple[RunRecord, tuple[Sequence[Table], Sequence[Path]]]:
        data = _Data(self.cfg, self.source)
        # Only train and valid are open while the model is fitted; test is opened once, after that.
        train, valid = data.open("train"), data.open("valid")
        opened = {"train": data.describe("train", train), "valid": data.describe("valid", valid)}
        if self.cfg.data.stream:  # each a function of the dataset and its number, so nothing else need be noted
            opened["train"]["n_fresh"] = schema.n_fresh(self.cfg)
        cost.reset_peak_memory(self.device)
        surrogate = self._build_surrogate(train)
        try:
            progress = self._fit(surrogate, train, valid, tracker)
        except Diverged as error:
            return self._save("diverged", str(error), opened), ([], [])
        peak_memory = cost.peak_memory_mb(self.device)
        test = data.open("test")
        score = scoring.score(self.cfg, surrogate, train, test, self.processes)

        def finish() -> tuple[RunRecord, tuple[Sequence[Table], Sequence[Path]]]:
            score.metrics["valid_rel_l2"] = progress.best_valid
            spent: dict[str, float | None] = {
                "train_seconds": progress.seconds,
                "loader_wait_seconds": progress.waited,
                "best_epoch": progress.best_epoch,
                "generation_seconds": _total(
                    (*map(self.source.generation_seconds, ("train", "valid")), progress.spent.get(SOLVER_SECONDS, 0.0))
                ),
                "peak_memory_mb": peak_memory,
                **progress.spent,
            }
            score.cost |= {**scoring.prediction_costs(surrogate, test, self.device), **spent}
            files = score.write(self.folder / run_directory.ERRORS_NAME, self.folder / run_directory.REPORT_NAME)
            show(score.tables)
            pictures = self._draw(surrogate, test.whole(), score.errors[scoring.TEST], progress)
            record = self._save("finished", "", {**opened, "test": data.describe("test", test)}, score, files)
            return record, (score.tables, pictures)

        return self.processes.first_does(finish)  # times are measured while the others wait

    def _build_surrogate(self, train: Trajectories) -> Surrogate:
        environment.seed_everything(self.cfg.seed)
        bundle = self.cfg.surrogate.bundle
        operator = build_operator(
            schema.constructor(self.cfg.model),
            train.spec,
            n_history=self.cfg.dataset.history,
            bundle=bundle,
            device=self.device,
        )
        normalizer = Normalizer.fit(train.whole().in_order(self.cfg.evaluator.batch_size), bundle=bundle)
        return Surrogate(operator, normalizer, **asdict(self.cfg.surrogate)).to(self.device)

    def _fit(self, surrogate: Surrogate, train: Trajectories, valid: Trajectories, tracker: Guarded) -> Progress:
        trainer = Trainer(seed=self.cfg.seed, **asdict(self.cfg.trainer))
        with self._examples(train, trainer) as examples:
            return trainer.fit(
                surrogate,
                examples,
                valid.whole(),
                optimizer=constructors.build(self.cfg.optimizer),
                schedule=constructors.build(self.cfg.scheduler),
                loss=constructors.build(self.cfg.loss),
                augmentation=constructors.build(self.cfg.augmentation)(train.spec),
                tracker=tracker,
                folder=self.folder,
                config=_yaml(self.cfg),
                processes=self.processes,
            )

    @contextmanager
    def _examples(self, train: Trajectories, trainer: Trainer) -> Iterator[Windows]:
        """What is trained on: the train split, or the stream that starts with it."""
        if not self.cfg.data.stream:
            yield train.windows(trainer.window_steps)
            return
        problem = self.source.problem
        assert problem is not None, "imported data can't be streamed, as the schema says"
        examples = StreamedWindows(
            train,
            trainer.window_steps,
            problem=problem,
            seed=self.cfg.dataset.seed,
            n_fresh=schema.n_fresh(self.cfg),
            epochs=trainer.epochs,
            batch_size=trainer.batch_size,
            workers=self.cfg.data.workers,
        )
        with closing(examples):
            yield examples

    def _draw(self, surrogate: Surrogate, test: Windows, errors: xr.Dataset, progress: Progress) -> list[Path]:
        title = f"{self.who.model} on {self.who.dataset} ({self.who.track}), seed {self.cfg.seed}"
        drawn = figures.run_figures(
            progress.curve, progress.best_epoch, errors, surrogate, test, device=self.device, title=title
        )
        paths = {name: self.folder / run_directory.FIGURES / f"{name}.png" for name in drawn}
        for name, figure in drawn.items():
            figures.save(figure, paths[name])
        return list(paths.values())

    def _save(
        self,
        status: Status,
        message: str,
        data: dict[str, dict[str, Any]],
        score: Score | None = None,
        files: Mapping[str, str] | None = None,
    ) -> RunRecord:
        commit, dirty = environment.commit()
        record = RunRecord(
            run_id=self.run_id,
            model=self.who.model,
            variant=self.who.variant,
            dataset=self.who.dataset,
            track=self.who.track,
            task=self.who.task,
            seed=self.cfg.seed,
            status=status,
            message=message,
            metrics=score.metrics if score else {},
            metric_versions=score.versions if score else {},
            cost=score.cost if score else {},
            data=data,
            config=asdict(self.cfg),
            config_hash=self.who.config_hash,
            environment=environment.environment(
                self.device,
                processes=self.processes.n,
                precision=self.cfg.trainer.precision,
                compiled=self.cfg.trainer.compile,
            ),
            bench_version=environment.bench_version(),
            commit=commit,
            dirty=dirty,
            date_utc=_now(),
            wall_seconds=time.monotonic() - self.started,
            files=dict(files or {}),
            samples=score.samples if score else {},
            profile=_plain(score.profile if score else None),
        )
        if self.processes.is_first:
            record.save(self.folder / RECORD_NAME)
        return record


def _plain(profile: Profile | None) -> dict[str, Any]:
    return profile.to_json() if profile else {}


def _total(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _returned(folder: Path, cfg: RunConfig, processes: Processes, draws: bool) -> RunRecord:
    """The record of a run that has been done, with what tells whether it is still current."""
    record = RunRecord.load(folder / RECORD_NAME)
    if processes.is_first:
        _rebuild_board(Path(cfg.paths.outputs), draws)
    if record.status != "finished":
        raise _diverged(record, cfg, processes)
    _tell_done(f"This run is done: {folder / RECORD_NAME}", record, cfg)
    print(_report(folder / run_directory.REPORT_NAME, record.files))
    return record


def _tell_done(what: str, record: RunRecord, cfg: RunConfig) -> None:
    versions = ", ".join(f"{name}/v{version}" for name, version in sorted(record.metric_versions.items()))
    print(
        f"{what}\n"
        f"  made {_readable_age(record.date_utc)} by version {record.bench_version}, "
        f"commit {record.commit[:10] or 'unknown'}{' with uncommitted changes' if record.dirty else ''}\n"
        f"  metrics {versions}"
    )
    for change in _changes_since(record, cfg):
        print(f"  {change}; force=true runs it again")


def _changes_since(record: RunRecord, cfg: RunConfig) -> list[str]:
    """What is no longer as it was when a record was made."""
    changes = []
    commit, dirty = environment.commit()
    if commit != record.commit:
        changes.append(f"the code has changed since: it is now at commit {commit[:10] or 'unknown'}")
    elif dirty or record.dirty:
        changes.append("the code had or has uncommitted changes, so it may differ")
    metrics = [constructors.target(node) for node in cfg.evaluator.metrics.values()]
    versions = {metric.name: metric.version for metric in metrics}
    old = [name for name, version in record.metric_versions.items() if versions.get(name, version) != version]
    if old:
        changes.append(f"the definitions of {', '.join(sorted(old))} have changed since")
    if environment.bench_version() != record.bench_version:
        changes.append(f"this is version {environment.bench_version()}")
    return changes


def _rebuild_board(outputs: Path, draws: bool) -> str:
    """Where the board lies. If it can't be rebuilt, a warning says why: the run itself is finished all the same."""
    try:
        return str(leaderboard.rebuild(outputs, draws=draws))
    except WriteError as error:
        print(f"Warning: the run is done, but the leaderboard wasn't rebuilt: {error}", file=sys.stderr)
        return "not rebuilt"


def _report(path: Path, files: Mapping[str, str]) -> str:
    """The tables of a run that is done; instead of one that has been changed since, a word about it."""
    if not path.exists():
        return f"  {path} is missing; the record has all numbers but those over time"
    if path.name in files and _sha256(path) != files[path.name]:
        return f"  {path} isn't what the run wrote, so it isn't shown; the record has all numbers but those over time"
    return f"\n{path.read_text(encoding='utf-8')}"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _diverged(record: RunRecord, cfg: RunConfig, processes: Processes) -> RunError | OtherProcessFailed:
    """What to raise about a run that diverged, which has its place on a committed board all the same."""
    folder = identity.run_directory(cfg)
    if cfg.paths.board is not None and record.status == "diverged":
        _file(cfg.paths.board, folder, processes)
    text = (
        f"{record.message} The run is recorded as {record.status} in {folder / RECORD_NAME}. "
        "Lower optimizer.lr or trainer.clip_norm; force=true runs the same configuration again."
    )
    return RunError(text) if processes.is_first else OtherProcessFailed(text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _readable_age(date_utc: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(date_utc)).total_seconds()
    if seconds < -1:
        return f"on {date_utc}, which this machine's clock puts in the future,"
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit} ago"
    return f"{max(seconds, 0):.0f} seconds ago"


def _yaml(cfg: RunConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(cfg))
