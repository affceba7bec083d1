"""From a configuration to a record: the only place where the parts are put together."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import OmegaConf

from data_gen import cache
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import replacing
from neuralop_bench import config, leaderboard, reproducibility
from neuralop_bench.batch import Batch
from neuralop_bench.config import Identity, RunConfig
from neuralop_bench.data import Trajectories, Windows, require_frames
from neuralop_bench.evaluation import figures, tables
from neuralop_bench.evaluation.evaluator import evaluate, summarise
from neuralop_bench.memory import keep_freed_memory
from neuralop_bench.metrics.cost import prediction_cost
from neuralop_bench.metrics.metric import Metric, MetricContext
from neuralop_bench.metrics.relative import relative_l2_per_sample
from neuralop_bench.normalization import Normalizer
from neuralop_bench.record import RECORD_NAME, RunRecord, Status
from neuralop_bench.surrogate import Surrogate
from neuralop_bench.training.trainer import Diverged, Progress, Trainer

_COST_BATCH_SIZES = (4, 16)


class RunError(RuntimeError):
    """A run that can't start or didn't finish; the message says why and what to do."""


def run(cfg: RunConfig) -> RunRecord:
    """Do what a configuration describes, or return the record if it has been done.

    Generates missing data, trains (or goes on from a checkpoint), evaluates on test with the weights that did best on
    valid,
    and writes into the run directory: best.pt, last.pt, curve.csv, errors.nc, report.md, figures/ and, last,
        record.json. Then the
    leaderboard of ``paths.outputs`` is rebuilt.

    Raises:
        RunError: the loss became non-finite, or another process is at work on the same run.
        ConfigError, ValueError, StoreError, CheckpointError: as their messages say; nothing was overwritten.
    """
    who = config.identity(cfg)
    folder = config.run_directory(cfg)
    if (folder / RECORD_NAME).exists() and not cfg.force:
        return _returned(folder, cfg)
    device = reproducibility.resolve_device(cfg.device)
    problem = cast(Problem, instantiate(cfg.dataset.problem))
    _build_operator(cfg, problem.spec, torch.device("meta"))
    require_frames(problem.spec, cfg.dataset.history, max(cfg.dataset.horizon, cfg.trainer.unroll))
    if cfg.force and folder.exists():  # only now: an impossible run must not take a good one off the board
        _move_aside(folder, Path(cfg.paths.outputs))
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    with _sole_owner(folder):
        record = _Run(cfg, who, folder, device, problem).execute()
    board = leaderboard.rebuild(Path(cfg.paths.outputs))
    if record.status == "diverged":
        raise RunError(_diverged_text(record, folder))
    print(f"Run directory: {folder}\nLeaderboard:   {board}")
    return record


@dataclass(frozen=True)
class _Run:
    """The steps of one run, from data to record."""

    cfg: RunConfig
    who: Identity
    folder: Path
    device: torch.device
    problem: Problem

    def execute(self) -> RunRecord:
        started = time.monotonic()
        print(f"{self.who.model} on {self.who.dataset}, track {self.who.track}, seed {self.cfg.seed} -> {self.folder}")
        splits = dict(self.cfg.splits)
        paths = cache.ensure(
            self.problem, splits, self.cfg.dataset.seed, Path(self.cfg.paths.data), workers=self.cfg.workers
        )
        # Only train and valid are open while the model is fitted; test is opened once, after that.
        train, valid = (self._open(split, paths[split]) for split in ("train", "valid"))
        surrogate = self._build_surrogate(train)
        try:
            progress = self._fit(surrogate, train, valid)
        except Diverged as error:
            return self._save("diverged", str(error), started, {"train": train, "valid": valid}, {}, {}, {})
        test = self._open("test", paths["test"])
        metrics = self._metrics(train)
        errors = evaluate(
            surrogate, test.whole(), metrics, batch_size=self.cfg.evaluator.batch_size, device=self.device
        )
        summary = {name: None if np.isnan(value) else value for name, value in summarise(errors, metrics).items()}
        columns: dict[str, float | None] = {**summary, "valid_rel_l2": progress.best_valid}
        with replacing(self.folder / "errors.nc") as temporary:
            errors.to_netcdf(temporary, engine="h5netcdf")
        report = tables.result_tables(columns, errors)
        tables.show(report)
        with replacing(self.folder / "report.md") as temporary:
            temporary.write_text("\n".join(table.to_markdown() for table in report))
        self._draw(surrogate, test.whole(), errors)
        cost: dict[str, float | None] = {
            "n_parameters": surrogate.n_parameters,
            "train_seconds": progress.seconds,
            "best_epoch": progress.best_epoch,
            "generation_seconds": _total([cache.generation_seconds(paths[split]) for split in ("train", "valid")]),
            **prediction_cost(surrogate, test.whole(), batch_sizes=_COST_BATCH_SIZES, device=self.device),
        }
        versions = {metric.name: metric.version for metric in metrics}
        opened = {"train": train, "valid": valid, "test": test}
        return self._save("finished", "", started, opened, columns, versions, cost)

    def _open(self, split: str, path: Path) -> Trajectories:
        return Trajectories(
            path,
            n_samples=self.cfg.splits[split],
            history=self.cfg.dataset.history,
            horizon=self.cfg.dataset.horizon,
            preload_bytes=int(self.cfg.preload_gib * 2**30),
            expected=self.problem.spec,
        )

    def _build_surrogate(self, train: Trajectories) -> Surrogate:
        reproducibility.seed_everything(self.cfg.seed)
        operator = _build_operator(self.cfg, train.spec, self.device)
        bundle = self.cfg.surrogate.bundle
        normalizer = Normalizer.fit(train.whole().in_order(self.cfg.evaluator.batch_size), bundle=bundle)
        return Surrogate(operator, normalizer, **asdict(self.cfg.surrogate)).to(self.device)

    def _fit(self, surrogate: Surrogate, train: Trajectories, valid: Trajectories) -> Progress:
        trainer = Trainer(seed=self.cfg.seed, **asdict(self.cfg.trainer))
        return trainer.fit(
            surrogate,
            train.windows(trainer.unroll),
            valid.whole(),
            optimizer=instantiate(self.cfg.optimizer),
            schedule=instantiate(self.cfg.scheduler),
            loss=instantiate(self.cfg.loss),
            augmentation=instantiate(self.cfg.augmentation)(train.spec),
            tracker=instantiate(self.cfg.tracker),
            folder=self.folder,
            config=_yaml(self.cfg),
            device=self.device,
        )

    def _metrics(self, train: Trajectories) -> list[Metric]:
        targets = train.whole().in_order(self.cfg.evaluator.batch_size)
        context = MetricContext(train.spec, _channel_variance(targets))
        return [instantiate(node)(context) for node in self.cfg.evaluator.metrics.values()]

    def _draw(self, surrogate: Surrogate, test: Windows, errors: Any) -> None:
        sample = _median_sample(errors)
        batch = test[[sample]]
        prediction = surrogate.predict(Batch(*(x.to(self.device) for x in batch)), test.n_steps).cpu()
        folder = self.folder / "figures"
        times = errors["time"].values
        spec = test.source.spec
        figures.save(
            figures.sample_figure(prediction[0].numpy(), batch.target[0].numpy(), times, spec), folder / "sample.png"
        )
        figures.save(figures.spectra_figure(errors, spec), folder / "spectra.png")

    def _save(
        self,
        status: Status,
        message: str,
        started: float,
        opened: dict[str, Trajectories],
        metrics: dict[str, float | None],
        versions: dict[str, int],
        cost: dict[str, float | None],
    ) -> RunRecord:
        commit, dirty = reproducibility.commit()
        record = RunRecord(
            run_id=f"{self.who.track}-{self.who.dataset}-{self.who.model}-{self.who.config_hash}-s{self.cfg.seed}",
            model=self.who.model,
            variant=self.who.variant,
            dataset=self.who.dataset,
            track=self.who.track,
            task=self.who.task,
            seed=self.cfg.seed,
            status=status,
            message=message,
            metrics=metrics,
            metric_versions=versions,
            cost=cost,
            data={split: self._describe(source) for split, source in opened.items()},
            config=asdict(self.cfg),
            config_hash=self.who.config_hash,
            environment=reproducibility.environment(self.device),
            bench_version=reproducibility.bench_version(),
            commit=commit,
            dirty=dirty,
            date_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            wall_seconds=time.monotonic() - started,
        )
        record.save(self.folder / RECORD_NAME)
        return record

    def _describe(self, source: Trajectories) -> dict[str, Any]:
        return {
            "file": source.path.relative_to(self.cfg.paths.data).as_posix(),
            "sha256": source.sha256,
            "n": source.n_samples,
            "version": source.spec.version,
            "resolution": "x".join(str(n) for n in source.spec.grid.shape),
        }


def _build_operator(cfg: RunConfig, spec: DatasetSpec, device: torch.device) -> torch.nn.Module:
    """The bare network on a device; on ``meta`` it takes no memory, so impossible sizes fail before any work."""
    n_state = len(spec.state)
    with device:
        return instantiate(config.constructor(cfg.model))(
            in_channels=cfg.dataset.history * n_state + len(spec.static),
            out_channels=cfg.surrogate.bundle * n_state,
            grid=spec.grid,
        )


def _channel_variance(targets: Iterable[Batch]) -> np.ndarray:
    """Variance of all target values per channel, [C]."""
    frames = np.concatenate(
        [batch.target.numpy().swapaxes(0, 2).reshape(batch.target.shape[2], -1) for batch in targets], axis=1
    )
    return frames.var(axis=1, dtype=np.float64)


def _median_sample(errors: Any) -> int:
    """Index of the sample whose relative L2 is the median."""
    order = np.argsort(relative_l2_per_sample(errors).mean("channel").values)
    return int(order[len(order) // 2])


def _total(values: Iterable[float | None]) -> float | None:
    known = list(values)
    return None if None in known else sum(value for value in known if value is not None)


def _returned(folder: Path, cfg: RunConfig) -> RunRecord:
    """The record of a run that has been done, with what tells whether it is still current."""
    record = RunRecord.load(folder / RECORD_NAME)
    if record.status != "finished":
        raise RunError(_diverged_text(record, folder))
    age = datetime.now(UTC) - datetime.fromisoformat(record.date_utc)
    versions = ", ".join(f"{name}/v{version}" for name, version in sorted(record.metric_versions.items()))
    print(
        f"This run is done: {folder / RECORD_NAME}\n"
        f"  made {_readable_age(age.total_seconds())} ago by version {record.bench_version}, "
        f"commit {record.commit[:10] or 'unknown'}{' with uncommitted changes' if record.dirty else ''}\n"
        f"  metrics {versions}"
    )
    commit, dirty = reproducibility.commit()
    if (commit, dirty) != (record.commit, record.dirty) or dirty:
        print("  The code has changed since, or may have; force=true runs it again.")
    report = folder / "report.md"
    if report.exists():
        print(f"\n{report.read_text()}")
    leaderboard.rebuild(Path(cfg.paths.outputs))
    return record


def _diverged_text(record: RunRecord, folder: Path) -> str:
    return (
        f"{record.message} The run is recorded as {record.status} in {folder / RECORD_NAME}. "
        "Lower optimizer.lr or trainer.clip_norm; force=true runs the same configuration again."
    )


def _readable_age(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _move_aside(folder: Path, outputs: Path) -> None:
    """Keep a run that force=true replaces, out of the board's sight."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = outputs / leaderboard.SUPERSEDED / stamp / folder.relative_to(outputs)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)


@contextmanager
def _sole_owner(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(f"Another process is at work on this run in {folder}. Wait for it, or end it.") from None
    try:
        yield
    finally:
        lock.release()


def _yaml(cfg: RunConfig) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(cfg))
