"""What a run would do and what it would take, found out before anything is generated, allocated or written."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from data_gen.generation import ledger
from data_gen.generation.pool import available_cores
from data_gen.generation.random_streams import generator
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import SHARD_SIZE
from neuralop_bench.batch import Batch
from neuralop_bench.config import compose, constructors, schema
from neuralop_bench.config.compose import ConfigError, Identity, RunConfig
from neuralop_bench.data.imported import ImportedDataset
from neuralop_bench.data.sources import GeneratedDataset, Source
from neuralop_bench.data.trajectories import require_frames
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.records.run_directory import RunError, state
from neuralop_bench.runtime import environment
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.rollout import rollout
from neuralop_bench.surrogate.surrogate import Surrogate, build_operator
from neuralop_bench.training.trainer import Trainer

_META = torch.device("meta")
_GIB = 2**30
# Adam keeps two numbers beside each weight and its gradient.
_COPIES_OF_WEIGHTS = 4


@dataclass(frozen=True)
class SplitPlan:
    """One split: samples asked for, bytes they take, and how many of them have to be generated."""

    n_samples: int
    n_bytes: int
    n_missing: int


@dataclass(frozen=True)
class Plan:
    """A run whose parts have all been put together once, on a device that takes no memory.

    Attributes:
        who, folder: identity and run directory.
        device, source: what it would run on, and where its data come from.
        splits: by name.
        n_parameters: trainable real numbers.
        activation_bytes: tensors that one training step keeps for its backward pass; None if the model can't tell
            without computing.
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
    def data_folder(self) -> Path:
        """Of the dataset."""
        return self.source.folder

    @property
    def memory_bytes(self) -> int:
        """Memory that training needs at least: weights with gradients and optimiser, activations, data held."""
        held = sum(entry.n_bytes for entry in self.splits.values() if entry.n_bytes <= self.cfg.preload_gib * _GIB)
        if self.cfg.data.stream:
            held += self.splits["train"].n_bytes  # the reservoir, beside the split that it started with
        return 4 * _COPIES_OF_WEIGHTS * self.n_parameters + (self.activation_bytes or 0) + held

    @property
    def missing_bytes(self) -> int:
        """Disk space for what has to be generated; shards are kept beside the file until it is whole, and those of an
        interrupted generation take theirs already."""
        whole = sum(2 * e.n_bytes * e.n_missing // e.n_samples for e in self.splits.values())
        return max(0, whole - self.source.kept_bytes)

    @property
    def n_missing(self) -> int:
        return sum(entry.n_missing for entry in self.splits.values())


def make(cfg: RunConfig, who: Identity | None = None, *, must_fit: bool = True) -> Plan:
    """Put every part of a run together on the device ``meta``, and try one training step there.

    Args:
        cfg: of the run.
        who: its identity, for who knows it already.
        must_fit: it is to run on this machine, so what that lacks is an error.

    Raises:
        ConfigError, ValueError, RuntimeError: a part that can't be built, or parts that don't fit each other.
        RunError: more memory or disk than this machine has.
    """
    device = environment.resolve_device(cfg.device) if must_fit else torch.device("cpu")
    source = source_of(cfg)
    longest = max(cfg.dataset.horizon, cfg.trainer.unroll + cfg.trainer.pushforward)
    require_frames(source.spec, cfg.dataset.history, longest)
    surrogate, activation_bytes = _rehearse(cfg, source.spec)
    who = who or compose.identity(cfg)
    plan = Plan(
        cfg=cfg,
        who=who,
        folder=compose.run_directory(cfg, who),
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


def source_of(cfg: RunConfig) -> Source:
    """Where the data of a run come from.

    Raises:
        ConfigError: a problem that can't be built.
        StoreError: imported files that are missing or damaged.
    """
    if cfg.dataset.path is not None:
        return ImportedDataset(cfg.dataset.path)
    problem = cast(Problem, _built("dataset.problem", cfg.dataset.problem))
    _require_offers("dataset.problem", problem, "simulate", "simulate_refined", "solve", "version")
    _called("dataset.problem", lambda: problem.spec)
    return GeneratedDataset(
        problem,
        cfg.dataset.seed,
        Path(cfg.paths.data),
        tolerance=cfg.dataset.tolerance,
        device=cfg.generation.device,
    )


def describe(plan: Plan) -> str:
    """The plan in words, for ``dry_run=true``. Measures how long one sample takes to solve if nothing tells."""
    cfg, where = plan.cfg, state(plan.folder)
    progress = {
        "new": "new",
        "finished": f"already finished ({where.reason}); the command returns its record",
        "diverged": "already done: it diverged; the command returns its record",
        "running": f"another process is at work on it ({where.reason})",
        "resumable": f"goes on where it stopped ({where.reason})",
        "failed": f"failed, and would be tried again: {where.reason}",
    }[where.progress]
    if cfg.force and where.progress in ("finished", "diverged"):
        progress = "already finished; force=true moves it aside and runs it again"
    activations = "unknown" if plan.activation_bytes is None else size(plan.activation_bytes)
    weights = size(4 * _COPIES_OF_WEIGHTS * plan.n_parameters)
    lines = [
        ("run", f"{plan.who.model} on {plan.who.dataset}, track {plan.who.track}, seed {cfg.seed}"),
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
            f"about {size(plan.memory_bytes)} beside the libraries' own (weights, gradients and optimizer {weights}, "
            f"activations {activations}, the rest data)",
        ),
        *_describe_evaluation(cfg),
    ]
    return "\n".join(f"{name:<14} {text}" for name, text in lines)


def _rehearse(cfg: RunConfig, spec: DatasetSpec) -> tuple[Surrogate, int | None]:
    """All parts of a training, built and used once without memory; bytes kept for the backward pass."""
    operator = _called(
        "model",
        build_operator,
        compose.constructor(cfg.model),
        spec,
        n_history=cfg.dataset.history,
        bundle=cfg.surrogate.bundle,
        device=_META,
    )
    if not isinstance(operator, nn.Module):
        raise ConfigError(f"model makes a {type(operator).__name__}, but has to make a torch.nn.Module.")
    n_state, n_static = len(spec.state), len(spec.static)
    lags = min(cfg.surrogate.bundle, cfg.dataset.history + cfg.dataset.horizon - 1)
    sizes = ((n_state,), (n_state,), (n_static,), (n_static,), (lags, n_state))
    normalizer = Normalizer(*(torch.ones(size, dtype=torch.float64, device=_META) for size in sizes))
    surrogate = Surrogate(operator, normalizer, **asdict(cfg.surrogate))
    trainer = Trainer(seed=cfg.seed, **asdict(cfg.trainer))
    n_windows = cfg.splits["train"] * (spec.n_snapshots - cfg.dataset.history - trainer.window_steps + 1)
    parameters = [p for p in surrogate.parameters() if p.requires_grad]
    if parameters:
        # One number stands for all: an optimiser's and a schedule's arguments don't depend on how many there are.
        number = nn.Parameter(torch.zeros(1))
        number.grad = torch.zeros(1)
        optimizer = _called("optimizer", _built("optimizer", cfg.optimizer), [number])
        _require_offers("optimizer", optimizer, "step", "zero_grad", "state_dict", "param_groups")
        n_batches = -(-n_windows // trainer.batch_size)
        if cfg.data.stream and trainer.epochs * n_batches < 2:
            raise ConfigError(
                "data=stream brings fresh samples in between updates, but the training has one. Raise trainer.epochs "
                "or lower trainer.batch_size."
            )
        make_schedule = _built("scheduler", cfg.scheduler)
        schedule = _called("scheduler", make_schedule, optimizer, n_epochs=trainer.epochs, steps_per_epoch=n_batches)
        _require_offers("scheduler", schedule, "step", "state_dict", "get_last_lr")
        _called("optimizer", optimizer.step)
        _called("scheduler", schedule.step)
    elif cfg.data.stream:
        raise ConfigError(
            f"data=stream feeds a training of many steps, but model={cfg.model['label']} has no parameters to train. "
            "Use data=fixed, or a larger splits.train."
        )
    loss = _built("loss", cfg.loss)
    _called("augmentation", _built("augmentation", cfg.augmentation), spec)
    _require_offers("tracker", _built("tracker", cfg.tracker), "start", "log", "finish")
    context = MetricContext(spec, np.ones(n_state), spec.grid)
    for group in ("metrics", "rollout_metrics"):
        for name, node in getattr(cfg.evaluator, group).items():
            key = f"evaluator.{group}.{name}"
            metric = _called(key, _built(key, node), context)
            _require_offers(key, metric, "name", "version", "variables", "measure", "summarise")
            if key == "evaluator.metrics.rel_l2" and metric.name != "rel_l2":
                raise ConfigError(f"{key} must be the metric rel_l2, by which the board ranks, got {metric.name}.")
    batch = _empty_batch(spec, min(trainer.batch_size, n_windows), cfg.dataset.history, trainer.unroll)
    kept = _called("model or loss", _kept_bytes, surrogate, batch, trainer.unroll, loss) if parameters else 0
    return surrogate, kept


def _empty_batch(spec: DatasetSpec, n: int, history: int, n_steps: int) -> Batch:
    space, n_state = spec.grid.shape, len(spec.state)
    shapes = ((n, history, n_state, *space), (n, len(spec.static), *space), (n, n_steps, n_state, *space))
    return Batch(*(torch.empty(shape, device=_META) for shape in shapes))


def _kept_bytes(surrogate: Surrogate, batch: Batch, n_steps: int, loss: Any) -> int | None:
    """Bytes that autograd keeps between forward and backward pass of one training step."""
    own = {p.untyped_storage()._cdata for p in surrogate.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata  # several saved tensors may be views of one
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            value = loss(rollout(surrogate, batch.history, batch.static, n_steps), batch.target)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
            return None  # a foreign operation that can't do without values
        raise
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ConfigError(f"loss must give one number, got {getattr(value, 'shape', value)}. Change loss._target_.")
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def _built(name: str, node: Mapping[str, Any]) -> Any:
    return _called(name, constructors.build, node)


def _called(name: str, function: Any, *arguments: Any, **options: Any) -> Any:
    """Call what a key of the configuration names, so that an error names the key."""
    try:
        return function(*arguments, **options)
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError) as error:
        if isinstance(error, ValueError):
            text = str(error)
        else:  # torch appends a list of signatures, or a trace in C++
            first = next(iter(str(error).strip().splitlines()), "")
            text = f"{name} can't be used as it is configured ({type(error).__name__}: {first})."
        raise ConfigError(text if name.split(".")[0] in text else f"{name}: {text}") from error


def _require_offers(name: str, made: Any, *attributes: str) -> None:
    """A constructor made what its place in the configuration asks for, as far as names tell."""
    lacking = [attribute for attribute in attributes if not hasattr(made, attribute)]
    if lacking:
        raise ConfigError(
            f"{name} makes a {type(made).__name__}, which has no {' and no '.join(lacking)}. Change {name}._target_."
        )


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
            "trainer.batch_size, the model's size (model.width ...) or preload_gib."
        )
    for name, wanted in (("outputs", plan.folder), ("data", plan.data_folder)):
        nearest = _nearest(wanted)
        if not nearest.is_dir():
            raise RunError(f"paths.{name}: {nearest} is a file, so {wanted} can't be made. Choose another folder.")
    root = _nearest(plan.data_folder)
    free = shutil.disk_usage(root).free
    if plan.missing_bytes > free:
        raise RunError(
            f"Generating the data needs about {size(plan.missing_bytes)} in {plan.data_folder}, but {size(free)} are "
            "free there. Choose another folder with paths.data, or lower splits or dataset.problem.resolution."
        )


def _nearest(path: Path) -> Path:
    """The path itself, or the first above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _describe_split(entry: SplitPlan) -> str:
    missing = "present" if not entry.n_missing else f"{entry.n_missing} to generate"
    return f"{entry.n_samples} samples, {size(entry.n_bytes)}, {missing}"


def _describe_evaluation(cfg: RunConfig) -> list[tuple[str, str]]:
    """What is measured after the record has been written."""
    names = cfg.dataset.test_splits if "all" in cfg.evaluator.test_splits else cfg.evaluator.test_splits
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
    how = f"by data.workers={workers} beside the training" if workers else "in the training process"
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
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        started = time.perf_counter()
        problem.simulate([generator(plan.cfg.dataset.seed, "train", 0)])
        return time.perf_counter() - started
    finally:
        torch.set_num_threads(threads)


def size(n_bytes: int) -> str:
    """Bytes in words."""
    for unit, size in (("TiB", 2**40), ("GiB", _GIB), ("MiB", 2**20)):
        if n_bytes >= size:
            return f"{n_bytes / size:.3g} {unit}"
    return f"{n_bytes / 1024:.3g} KiB"


def duration(seconds: float) -> str:
    """Seconds in words."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
