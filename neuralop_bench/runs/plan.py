"""Plan a run: what it would do and need, before anything is generated, allocated or written."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from data_gen.generation import ledger
from data_gen.generation.pool import available_cores, one_thread
from data_gen.generation.random_streams import generator
from data_gen.layout import SHARD_SIZE
from neuralop_bench.config import schema
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import Identity, identity, run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.data.sources import Source
from neuralop_bench.data.trajectories import require_frames
from neuralop_bench.records.run_directory import RunError, state
from neuralop_bench.runs.effect import require_effect
from neuralop_bench.runs.finished import is_done
from neuralop_bench.runs.rehearsal import rehearse
from neuralop_bench.runs.splits import measured, source_of, split_of
from neuralop_bench.runtime import environment

_GIB = 2**30
# Adam stores two numbers for each weight, besides the weight and its gradient.
_COPIES_OF_WEIGHTS = 4


@dataclass(frozen=True)
class SplitPlan:
    """One split: number of samples, their size in bytes, and how many of them have to be generated."""

    n_samples: int
    n_bytes: int
    n_missing: int


@dataclass(frozen=True)
class Plan:
    """A run whose parts have all been built once, on a device that takes no memory.

    Attributes:
        who, folder: identity and run directory.
        device, source: the device it would run on, and where its data come from.
        splits: by name.
        n_parameters: trainable real numbers.
        activation_bytes: size of the tensors that one training step keeps for its backward pass, or of the pairs that
            ``prepare`` is given; None if that can't be determined without computing.
    """

    cfg: RunConfig
    who: Identity
    folder: Path
    device: torch.device
    source: Source
    splits: Mapping[str, SplitPlan]
    n_parameters: int
    activation_bytes: int | None

    @property
    def run_id(self) -> str:
        return self.who.run_id(self.cfg.seed)

    @property
    def title(self) -> str:
        """One line that names the run."""
        return f"{self.who.model} on {self.who.dataset}, track {self.who.track}, seed {self.cfg.seed}"

    @property
    def data_folder(self) -> Path:
        """Folder of the dataset."""
        return self.source.folder

    @property
    def memory_bytes(self) -> int:
        """Memory that training needs at least: weights with gradients and optimiser, activations, data in memory."""
        held = sum(entry.n_bytes for entry in self.splits.values() if entry.n_bytes <= self.cfg.preload_gib * _GIB)
        if self.cfg.data.stream:
            held += self.splits["train"].n_bytes  # the reservoir, in addition to the split that it started with
        return 4 * _COPIES_OF_WEIGHTS * self.n_parameters + (self.activation_bytes or 0) + held

    @property
    def missing_bytes(self) -> int:
        """Disk space that is still needed for data to be generated.

        Shards are kept beside a file until it is complete. Those of an interrupted generation are already on disk.
        """
        whole = sum(2 * e.n_bytes * e.n_missing // e.n_samples for e in self.splits.values())
        return max(0, whole - self.source.kept_bytes)

    @property
    def n_missing(self) -> int:
        return sum(entry.n_missing for entry in self.splits.values())


def make(cfg: RunConfig, who: Identity | None = None, *, must_fit: bool = True) -> Plan:
    """Build every part of a run on the device ``meta``, and try one training step there.

    Args:
        cfg: the run's configuration.
        who: its identity, if the caller already has it.
        must_fit: the run is for this machine, so it is an error if the machine is too small.

    Raises:
        ConfigError, ValueError, RuntimeError: a part can't be built, or parts don't fit together.
        RunError: the run needs more memory or disk space than this machine has.
    """
    device = environment.resolve_device(cfg.device) if must_fit else torch.device("cpu")
    source = source_of(cfg)
    longest = max(cfg.dataset.horizon, cfg.trainer.unroll + cfg.trainer.pushforward)
    spec = schema.seen(cfg, source.spec)
    require_frames(spec, cfg.dataset.history, longest)
    for name in measured(cfg):  # after the training, but a folder of imported data may lack it
        split_of(cfg, name)
    surrogate, activation_bytes = rehearse(cfg, spec)
    who = who or identity(cfg)
    require_effect(cfg, who, spec)
    plan = Plan(
        cfg=cfg,
        who=who,
        folder=run_directory(cfg, who),
        device=device,
        source=source,
        splits={split: _split_plan(source, split, n) for split, n in cfg.splits.items()},
        n_parameters=surrogate.n_parameters,
        activation_bytes=activation_bytes,
    )
    if cfg.data.stream and plan.splits["train"].n_bytes > cfg.preload_gib * _GIB:
        raise ConfigError(
            f"data=stream holds the train split in memory, {size(plan.splits['train'].n_bytes)}, but preload_gib="
            f"{cfg.preload_gib:g} allows less. Raise preload_gib or lower splits.train."
        )
    if must_fit:
        _require_room(plan)
    return plan


def describe(plan: Plan) -> str:
    """The text that ``dry_run=true`` prints. Measures how long one sample takes to solve if that isn't known."""
    cfg, where = plan.cfg, state(plan.folder)
    progress = {
        "new": "new",
        "finished": f"already finished ({where.reason}); the command returns its record",
        "diverged": "already done: it diverged; the command returns its record",
        "running": f"another process is working on it ({where.reason})",
        "resumable": f"resumes where it stopped ({where.reason})",
        "failed": f"failed, and would be tried again: {where.reason}",
    }[where.progress]
    if where.progress in ("finished", "diverged") and not is_done(plan.folder, cfg):
        progress = f"trained without test ({where.reason}); the command goes on with test"
    if cfg.force and where.progress in ("finished", "diverged"):
        progress = "already finished; force=true moves it aside and runs it again"
    activations = "unknown" if plan.activation_bytes is None else size(plan.activation_bytes)
    weights = size(4 * _COPIES_OF_WEIGHTS * plan.n_parameters)
    lines = [
        ("run", plan.title),
        ("run directory", str(plan.folder)),
        ("state", progress),
        ("data", str(plan.data_folder)),
        *((f"  {split}", _describe_split(entry)) for split, entry in plan.splits.items()),
        ("  generation", _describe_generation(plan)),
        *([("  stream", _describe_stream(plan))] if cfg.data.stream else []),
        ("training", f"{cfg.trainer.epochs} epochs, batches of {cfg.trainer.batch_size}, on {plan.device}"),
        ("parameters", f"{plan.n_parameters:,}"),
        (
            "memory",
            f"about {size(plan.memory_bytes)} besides the libraries' own (weights, gradients and optimizer {weights}, "
            f"activations {activations}, the rest data)",
        ),
        *_describe_evaluation(cfg),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in lines)


def _split_plan(source: Source, split: str, n: int) -> SplitPlan:
    spec = source.spec
    frames = spec.n_snapshots * len(spec.state) + len(spec.static)
    if spec.stores_initial:
        frames += len(spec.state)
    return SplitPlan(n, 4 * spec.grid.n_points * frames * n, source.n_missing(split, n))


def _require_room(plan: Plan) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if plan.device.type == "cuda":
        memory = torch.cuda.get_device_properties(plan.device).total_memory
    if plan.memory_bytes > memory:
        raise RunError(
            f"Training needs about {size(plan.memory_bytes)} of memory, but {plan.device} has {size(memory)}. Lower "
            "trainer.batch_size, trainer.prepare_copies, the model's size (model.width ...) or preload_gib."
        )
    for name, wanted in (("outputs", plan.folder), ("data", plan.data_folder)):
        nearest = _nearest(wanted)
        if not nearest.is_dir():
            raise RunError(f"paths.{name}: {nearest} is a file, so {wanted} can't be created. Choose another folder.")
    root = _nearest(plan.data_folder)
    free = shutil.disk_usage(root).free
    if plan.missing_bytes > free:
        raise RunError(
            f"Generating the data needs about {size(plan.missing_bytes)} in {plan.data_folder}, but only {size(free)} "
            "are free there. Choose another folder with paths.data, or lower splits or dataset.problem.resolution."
        )


def _nearest(path: Path) -> Path:
    """The path itself, or its closest parent that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _describe_split(entry: SplitPlan) -> str:
    missing = "present" if not entry.n_missing else f"{entry.n_missing} to generate"
    return f"{entry.n_samples} samples, {size(entry.n_bytes)}, {missing}"


def _describe_evaluation(cfg: RunConfig) -> list[tuple[str, str]]:
    """Measurements that follow after the record has been written."""
    names = measured(cfg)
    grids = f"the solver on {len(cfg.dataset.ladder)} grids" if cfg.evaluator.ladder else ""
    text = " and ".join(part for part in (", ".join(names), grids) if part)
    return [("evaluation", f"afterwards {text}")] if text else []


def _describe_generation(plan: Plan) -> str:
    if not plan.n_missing or plan.source.problem is None:
        return "nothing to do"
    workers = min(plan.cfg.workers or available_cores(), -(-plan.n_missing // SHARD_SIZE))
    seconds, source = _seconds_per_sample(plan)
    total = seconds * plan.n_missing / workers
    return f"about {duration(total)} with {workers} workers ({seconds:.2g} s per sample and core, {source})"


def _describe_stream(plan: Plan) -> str:
    n, n_fresh = plan.cfg.splits["train"], schema.n_fresh(plan.cfg)
    workers = plan.cfg.data.workers
    seconds, source = _seconds_per_sample(plan)
    how = f"by data.workers={workers} during training" if workers else "in the training process"
    return (
        f"{n_fresh} fresh samples, each in memory for {min(1, n / n_fresh):.2g} of the training; solved in about "
        f"{duration(seconds * n_fresh / max(1, workers))} {how} ({seconds:.2g} s per sample and core, {source})"
    )


def _seconds_per_sample(plan: Plan) -> tuple[float, str]:
    known = ledger.seconds_per_sample(plan.data_folder)
    return (known, "as measured before") if known else (_seconds_of_one(plan), "measured on one sample")


def _seconds_of_one(plan: Plan) -> float:
    problem = plan.source.problem
    assert problem is not None
    with one_thread():
        started = time.perf_counter()
        problem.simulate([generator(plan.cfg.dataset.seed, "train", 0)])
        return time.perf_counter() - started


def size(n_bytes: int) -> str:
    """A number of bytes as text."""
    for unit, size in (("TiB", 2**40), ("GiB", _GIB), ("MiB", 2**20)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes / 1024:.3g} KiB"


def duration(seconds: float) -> str:
    """A number of seconds as text."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
