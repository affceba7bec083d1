"""Rules that a configuration must satisfy: everything that can be checked without torch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import MISSING

from neuralop_bench.config import constructors
from neuralop_bench.config.constructors import ConfigError, InapplicableError, suggestion
from neuralop_bench.config.schema import DatasetConfig, RunConfig, components, n_fresh
from neuralop_bench.records import published

MODES = ("run", "evaluate", "generate")
PRECISIONS = ("float32", "bf16")
CONDITIONINGS = ("channels", "none")
KEPT = ("best", "last")

_SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}"
# A larger number is a typing error, and building it would exhaust memory or take hours.
_MOST = 2**31 - 1
_MOST_FRAMES = 2**16  # more would run for days
_MOST_WORKERS = 1024
_MOST_STAGES = 16
_MOST_GIB = 2**20
_MOST_POINTS = 8192  # per axis, of a solver's grid
# torch accepts 64 bits, and the order of an epoch's samples is drawn with a million times the seed.
_LARGEST_SEED = 2**32 - 1


def validate(run: RunConfig) -> None:
    """Check everything that can be checked without torch: names and types of constructor arguments, and ranges.

    Whole numbers given for floating-point arguments of constructors become floats in place.

    Raises:
        ConfigError: a value is invalid. The message names the key.
    """
    names = {"model.label": run.model.get("label"), "task": run.task, "track": run.track}
    if run.dataset.path is not None:
        names["dataset.name (of the imported file)"] = run.dataset.name
    for name, value in names.items():
        if not isinstance(value, str) or not re.fullmatch(_SAFE_NAME, value):  # they name folders
            raise ConfigError(f"{name} must be 1 to 40 letters, digits and any of ._+- , got {value!r}.")
    if run.mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {run.mode!r}.")
    for package in run.trust:
        if not re.fullmatch(r"[A-Za-z_]\w*(\.\w+)*", package):
            raise ConfigError(f"trust must list names of packages, such as trust=[neuralop], got {package!r}.")
    for name, value in asdict(run.paths).items():
        if value is not None and (not value.strip() or "\0" in value):
            raise ConfigError(f"paths.{name} must name a folder, got {value!r}.")
    for name, value, known in (
        ("dataset.conditioning", run.dataset.conditioning, CONDITIONINGS),
        ("trainer.precision", run.trainer.precision, PRECISIONS),
        ("trainer.keep", run.trainer.keep, KEPT),
    ):
        if value not in known:
            raise ConfigError(f"{name} must be {' or '.join(known)}, got {value!r}.")
    _require_ranges(run)
    _require_published(run.published.id)
    if run.dataset.path is not None:
        _require_nothing_to_solve(run.dataset)
    for name, node in components(run).items():
        constructors.check(name, node, run.trust)
        if name == "model":
            run.model.update(node)  # numbers whose type has been corrected
    for node in components(run).values():
        _require_possible_grid(node)
    missing = {"train", "valid", "test"} - set(run.splits)
    if missing:
        raise ConfigError(f"splits lacks {sorted(missing)}: a run needs train, valid and test.")
    _require_splits(run)
    for split in run.splits:
        if not re.fullmatch(r"train|valid|test|test_\w+", split, re.ASCII):
            raise ConfigError(f"Unknown split splits.{split}: there are train, valid, test and test_<name>.")
    _require_streamable(run)
    if not run.evaluator.on_test and (run.mode == "evaluate" or run.paths.board is not None):
        raise ConfigError(
            "evaluator.on_test=false leaves test closed, so there is nothing to evaluate again or to file on a board. "
            "Use evaluator=standard, or leave out paths.board."
        )
    if not run.evaluator.on_test and run.evaluator.is_thorough:
        raise ConfigError(
            "evaluator.on_test=false leaves test closed, so evaluator.test_splits and evaluator.ladder have nothing to "
            "measure. Leave them out, or use evaluator=thorough."
        )
    if run.evaluator.on_test and "rel_l2" not in run.evaluator.metrics:
        raise ConfigError(
            "evaluator.metrics lacks rel_l2, by which the board ranks. Add it, or use evaluator=standard."
        )
    _require_steps(run)


def _require_steps(run: RunConfig) -> None:
    """Steps in training are whole bundles, and what goes on from earlier frames has some."""
    if run.trainer.unroll < run.surrogate.bundle:
        raise ConfigError(
            f"surrogate.bundle={run.surrogate.bundle} predicts that many steps per call, but "
            f"trainer.unroll={run.trainer.unroll} trains only the first of them. "
            f"Set trainer.unroll={run.surrogate.bundle}."
        )
    if run.surrogate.solver is None:
        if run.surrogate.solver_steps != 1:
            raise ConfigError(
                f"surrogate.solver_steps={run.surrogate.solver_steps} has no effect without surrogate.solver. Set it."
            )
    elif run.dataset.path is not None:
        raise ConfigError("surrogate.solver needs the solver of the data, but imported data have none. Leave it out.")
    elif run.trainer.unroll > run.surrogate.bundle:
        raise ConfigError(
            f"trainer.unroll={run.trainer.unroll} needs gradients through the predictions that are fed back, but none "
            f"flow through surrogate.solver. Set trainer.unroll={run.surrogate.bundle}, or use trainer.pushforward."
        )
    if run.surrogate.residual and run.dataset.history == 0 and run.surrogate.solver is None:
        raise InapplicableError(
            "surrogate.residual=true predicts increments over the last history frame, but dataset.history is 0. "
            "Use surrogate.residual=false. The model persistence needs it to be true: choose another model."
        )
    if run.trainer.epochs % run.surrogate.stages:
        raise ConfigError(
            f"trainer.epochs={run.trainer.epochs} can't be divided equally among surrogate.stages="
            f"{run.surrogate.stages}, which are trained one after another. Change one of them."
        )
    if run.trainer.pushforward % run.surrogate.bundle:
        raise ConfigError(
            f"trainer.pushforward={run.trainer.pushforward} isn't a whole number of bundles: surrogate.bundle="
            f"{run.surrogate.bundle}. Set trainer.pushforward to a multiple of it."
        )
    if run.trainer.diverted and (not run.trainer.pushforward or run.dataset.path is not None):
        raise ConfigError(
            "trainer.diverted=true solves anew from states that the model predicted itself. It needs "
            "trainer.pushforward of at least 1, and a dataset with a solver."
        )
    if run.trainer.pushforward and run.dataset.history == 0:
        raise ConfigError(
            f"trainer.pushforward={run.trainer.pushforward} starts from predicted frames, but dataset.history is 0: "
            "no prediction is fed back. Use trainer.pushforward=0 for a steady problem."
        )


def _require_ranges(run: RunConfig) -> None:
    bounds = {
        "trainer.epochs": (run.trainer.epochs, 1, _MOST),
        "trainer.batch_size": (run.trainer.batch_size, 1, _MOST),
        "trainer.unroll": (run.trainer.unroll, 1, _MOST_FRAMES),
        "trainer.pushforward": (run.trainer.pushforward, 0, _MOST_FRAMES),
        "trainer.data_weight": (run.trainer.data_weight, 0, _MOST),
        "trainer.residual_weight": (run.trainer.residual_weight, 0, _MOST),
        "trainer.prepare_copies": (run.trainer.prepare_copies, 1, _MOST),
        "trainer.workers": (run.trainer.workers, 0, _MOST_WORKERS),
        "evaluator.batch_size": (run.evaluator.batch_size, 1, _MOST),
        "dataset.history": (run.dataset.history, 0, _MOST_FRAMES),
        "dataset.horizon": (run.dataset.horizon, 1, _MOST_FRAMES),
        "dataset.seed": (run.dataset.seed, 0, _LARGEST_SEED),
        "data.n_fresh": (1 if run.data.n_fresh is None else run.data.n_fresh, 1, _MOST),
        "data.workers": (run.data.workers, 0, _MOST_WORKERS),
        "surrogate.bundle": (run.surrogate.bundle, 1, _MOST_FRAMES),
        "surrogate.stages": (run.surrogate.stages, 1, _MOST_STAGES),
        "surrogate.solver": (1 if run.surrogate.solver is None else run.surrogate.solver, 1 / 1024, 1),
        "surrogate.solver_steps": (run.surrogate.solver_steps, 1, _MOST),
        "surrogate.cutoff": (run.surrogate.cutoff, 1 / 1024, 1),
        "seed": (run.seed, 0, _LARGEST_SEED),
        "workers": (1 if run.workers is None else run.workers, 1, _MOST_WORKERS),
        "tuning_trials": (1 if run.tuning_trials is None else run.tuning_trials, 1, _MOST),
        "preload_gib": (run.preload_gib, 0, _MOST_GIB),
        "generation.n_parts": (run.generation.n_parts, 1, _MOST),
        "generation.part": (run.generation.part or 0, 0, run.generation.n_parts - 1),
        **{f"splits.{split}": (n, 1, _MOST) for split, n in run.splits.items()},
    }
    for split, extra in run.dataset.test_splits.items():
        key = f"dataset.test_splits.{split}"
        bounds[f"{key}.n"] = (1 if extra.n is None else extra.n, 1, _MOST)
        bounds[f"{key}.refine"] = (extra.refine, 1 / 64, 64)
        bounds[f"{key}.horizon"] = (run.dataset.horizon if extra.horizon is None else extra.horizon, 1, _MOST_FRAMES)
    bounds |= {f"dataset.ladder[{i}]": (fraction, 1 / 1024, 16) for i, fraction in enumerate(run.dataset.ladder)}
    for name, (value, least, most) in bounds.items():
        if value == MISSING:
            raise ConfigError(f"{name} isn't set: write {name}=<value>.")
        if isinstance(value, dict):  # OmegaConf takes one for any type of entry
            raise ConfigError(f"{name} must be a number, got {value!r}.")
        if not value >= least:  # true for NaN, too
            raise ConfigError(f"{name} must be at least {least}, got {value}.")
        if value > most:
            raise ConfigError(f"{name} must be at most {most}, got {value}.")
    if not run.trainer.residual_weight and run.trainer.data_weight != 1:
        raise ConfigError(
            f"trainer.data_weight={run.trainer.data_weight} only weighs the loss against the equation's residual. Set "
            "trainer.residual_weight, too."
        )
    for name in ("clip_norm", "checkpoint_seconds"):
        value = getattr(run.trainer, name)
        if value is not None and not value > 0:
            raise ConfigError(f"trainer.{name} must be positive, got {value}.")


def _require_published(name: str | None) -> None:
    if name is not None and name not in (known := published.by_id()):
        raise ConfigError(
            f"published.id={name} isn't an entry of configs/{published.PATH.name}."
            f"{suggestion(name, list(known))} That file lists all of them."
        )


def _require_splits(run: RunConfig) -> None:
    """Check the names of all splits, and that each further test set says how it is made."""
    known = sorted({*run.splits, *run.dataset.test_splits})
    for name, extra in run.dataset.test_splits.items():
        key = f"dataset.test_splits.{name}"
        if not re.fullmatch(r"test_\w+", name, re.ASCII) or name in run.splits:
            raise ConfigError(f"{key}: a further test set must be called test_<name>, unlike any other split.")
        if extra.source is None:
            if extra.refine != 1:
                raise ConfigError(f"{key}.refine has no effect without {key}.source. Add {key}.source=test.")
            continue
        if extra.problem:
            raise ConfigError(f"{key} has both source and problem, but it is either regridded or solved. Drop one.")
        if extra.tolerance is not None:
            raise ConfigError(f"{key}.tolerance has no effect: the data come from {extra.source}. Leave it out.")
        if extra.source not in known or not extra.source.startswith("test"):
            raise ConfigError(f"{key}.source={extra.source} isn't a test set.{suggestion(extra.source, known)}")
        seen = {name}
        while (source := run.dataset.test_splits.get(extra.source or "")) is not None:
            if extra.source in seen:
                raise ConfigError(f"{key}.source leads back to {extra.source} itself. Change one of the sources.")
            seen.add(str(extra.source))
            extra = source
    further = sorted(run.dataset.test_splits)
    for key, names, choice in (
        ("generation.splits", run.generation.splits, known),
        # The folder of imported data says which there are.
        ("evaluator.test_splits", run.evaluator.test_splits if run.dataset.path is None else [], further),
    ):
        for name in names:
            if name != "all" and name not in choice:
                raise ConfigError(
                    f"{key} contains {name!r}, which the configuration doesn't define.{suggestion(name, choice)} "
                    f"Known: {', '.join(choice)}, and all."
                )
    if run.generation.part is not None and run.mode != "generate":
        raise ConfigError("generation.part only has an effect with mode=generate. Leave it out.")


def _require_nothing_to_solve(dataset: DatasetConfig) -> None:
    for name in ("problem", "seed", "tolerance", "test_splits", "ladder"):
        if getattr(dataset, name):
            raise ConfigError(
                f"dataset.{name} is for generated data, but dataset.path={dataset.path} names imported data. Leave one "
                "of them out; imported data are chosen by dataset=file dataset.path=<folder>."
            )


def _require_streamable(run: RunConfig) -> None:
    if not run.data.stream:
        if run.data.n_fresh is not None:
            raise ConfigError(f"data.n_fresh={run.data.n_fresh} only has an effect with data=stream. Add data=stream.")
        return
    if run.dataset.path is not None:
        raise ConfigError(
            "data=stream solves further samples, but dataset=file uses imported data, which have no solver. Use "
            "data=fixed, or a dataset that is generated."
        )
    if run.generation.device != "cpu":
        raise ConfigError(
            f"data=stream solves on the CPU, but generation.device={run.generation.device}: fresh samples would differ "
            "from the continuation of the train split in their last digits. Use generation.device=cpu."
        )
    if run.trainer.workers:
        raise ConfigError(
            f"trainer.workers={run.trainer.workers} loads data in separate processes, which wouldn't see the fresh "
            "samples of data=stream. Use trainer.workers=0; data.workers sets the number of processes that solve."
        )
    most = run.splits["train"] * run.trainer.epochs
    if n_fresh(run) > most:
        raise ConfigError(
            f"data.n_fresh={n_fresh(run)} is more than splits.train x trainer.epochs = {most}: samples would be "
            f"replaced within an epoch, some before they were used. Lower data.n_fresh to at most {most}."
        )


def require_one_process(run: RunConfig, n_processes: int) -> None:
    """Check that a training with several processes neither uses data=stream nor has several stages.

    Raises:
        ConfigError: it does.
    """
    if run.surrogate.stages > 1 and n_processes > 1:
        raise ConfigError(
            f"surrogate.stages={run.surrogate.stages} changes which weights are trained, but {n_processes} processes "
            "share their gradients in a fixed way. Use surrogate.stages=1, or one process."
        )
    if run.data.stream and n_processes > 1:
        raise ConfigError(
            f"data=stream keeps its samples in the memory of one training process, but {n_processes} were started. "
            "Use data=fixed, or one process."
        )


def _require_possible_grid(problem: Mapping[str, Any]) -> None:
    """Refuse an impossible grid. A problem may compute with its grid for its spec, so this comes before the spec."""
    resolution, finer = problem.get("resolution", 1), problem.get("oversampling", 1)
    points = [n for n in (resolution, finer) if isinstance(n, int | float) and n > 0]
    if math.prod(points) > _MOST_POINTS:
        raise ConfigError(
            f"dataset.problem.resolution={resolution} with dataset.problem.oversampling={finer} makes a solver's grid "
            f"of more than {_MOST_POINTS} points per axis. Lower one of them."
        )
