"""Build the parts of a run from their nodes in a configuration. An error names the key that caused it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_gen.spec import DatasetSpec
from neuralop_bench.config import constructors
from neuralop_bench.config.constructors import ConfigError, InapplicableError
from neuralop_bench.config.schema import RunConfig, constructor, n_pairs
from neuralop_bench.layers.options import Inapplicable
from neuralop_bench.records.record import RECORD_NAME
from neuralop_bench.records.run_directory import BEST_NAME
from neuralop_bench.surrogate import checkpoint
from neuralop_bench.surrogate.coarse_solver import CoarseSolver
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.projection import Projection
from neuralop_bench.surrogate.surrogate import Surrogate, build_operator, weights_of
from neuralop_bench.training.trainer import Recipe, Residual, Trainer


def operator(cfg: RunConfig, spec: DatasetSpec, device: torch.device) -> nn.Module:
    """The configured network, for the fields and the grid of a dataset."""
    return build_operator(
        constructor(cfg.model),
        spec,
        n_history=cfg.dataset.history,
        bundle=cfg.surrogate.bundle,
        stages=cfg.surrogate.stages,
        corrects=cfg.surrogate.solver is not None,
        device=device,
        n_pairs=n_pairs(cfg, spec.n_snapshots),
    )


def fitting_weights(cfg: RunConfig, operator: nn.Module) -> dict[str, Tensor]:
    """Of what ``init_from`` names, a run or a file of published weights: the parameters that have the name and the
    shape of one of ``operator``, up to axes of length one.

    Tables that aren't trained aren't among them, because they depend on the grid. Nor are layers of another size, such
    as those next to fields of another number: they start afresh. A network may have a function ``from_published``, from
    weights by the names of its published code to weights by its own names.

    Raises:
        ConfigError: they are less than half of all numbers, the run is of another network, or it has other weights than
            when the configuration was composed.
        CheckpointError: the weights can't be read.
    """
    source = Path(cfg.init_from or "")
    file = source if source.is_file() else source / BEST_NAME
    if hashlib.sha256(file.read_bytes()).hexdigest() != cfg.initial["sha256"]:
        raise ConfigError(f"{file} has changed since this run began. Start it anew with force=true.")
    if source.is_file():
        if (source.parent / RECORD_NAME).exists():
            raise ConfigError(
                f"init_from={source} is a file of a run. Name the run's directory: init_from={source.parent}."
            )
        given = getattr(operator, "from_published", dict)(checkpoint.load_published(source))
    else:
        model, given = weights_of(source)
        if model["_target_"] != cfg.model["_target_"]:
            raise ConfigError(
                f"init_from={source} is a run of {model['_target_']}, but model={cfg.model['label']} is another "
                "network. Name a run of the same network."
            )
    own = dict(operator.named_parameters())
    fitting = {
        name: given[name].reshape(value.shape)
        for name, value in own.items()
        if name in given and _sizes(given[name]) == _sizes(value)
    }
    n_fitting, n_own = (sum(value.numel() for value in tensors.values()) for tensors in (fitting, own))
    if 2 * n_fitting < n_own:
        raise ConfigError(
            f"init_from={source} has weights of the same name and shape for only {n_fitting} of the {n_own} numbers of "
            f"model={cfg.model['label']}. Give the model the sizes of that network, and data with as many dimensions."
        )
    return fitting


def _sizes(tensor: Tensor) -> list[int]:
    return [n for n in tensor.shape if n > 1]


def surrogate(cfg: RunConfig, spec: DatasetSpec, operator: nn.Module, normalizer: Normalizer) -> Surrogate:
    """The operator with its units, and with what the configuration does to its predictions."""
    made = cfg.surrogate
    solver = None if made.solver is None else solver_of(cfg, made.solver, made.solver_steps)
    projection = Projection.of(spec, cutoff=made.cutoff, conserve=made.conserve)
    return Surrogate(
        operator, normalizer, bundle=made.bundle, residual=made.residual, solver=solver, projection=projection
    )


def trainer(cfg: RunConfig) -> Trainer:
    return Trainer(seed=cfg.seed, **asdict(cfg.trainer))


def recipe(cfg: RunConfig, spec: DatasetSpec) -> Recipe:
    """The configured training recipe, for the fields of a dataset."""
    return Recipe(
        optimizer=constructors.build(cfg.optimizer),
        schedule=constructors.build(cfg.scheduler),
        loss=constructors.build(cfg.loss),
        augmentation=constructors.build(cfg.augmentation)(spec),
        residual=residual(cfg),
        solver=solver_of(cfg, 1.0, 1.0) if cfg.trainer.diverted else None,
    )


def solver_of(cfg: RunConfig, fraction: float, relaxation: float) -> CoarseSolver:
    """The dataset's own solver on a fraction of its grid, with steps ``relaxation`` times as long."""
    return CoarseSolver.correctable(constructors.build(cfg.dataset.problem), fraction, relaxation=relaxation)


def residual(cfg: RunConfig) -> Residual | None:
    """That of the dataset's equation, if the configuration gives it a weight.

    Raises:
        Inapplicable: the problem has none.
    """
    if not cfg.trainer.residual_weight:
        return None
    problem = None if cfg.dataset.path is not None else constructors.build(cfg.dataset.problem)
    found = getattr(problem, "residual", None)
    if found is None:
        raise Inapplicable(
            f"trainer.residual_weight={cfg.trainer.residual_weight} needs a problem with a residual, such as "
            "dataset=darcy2d. Leave it out."
        )
    return found


def built(name: str, node: Mapping[str, Any]) -> Any:
    """Build the object that a node describes.

    Raises:
        ConfigError: the constructor failed. The message names the key.
    """
    return called(name, constructors.build, node)


def called(name: str, function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a function that was built from a key of the configuration.

    Raises:
        ConfigError: the call failed. The message names the key. InapplicableError if it is a model that can't be used
            for the data.
    """
    try:
        return function(*arguments, **options)
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError, RuntimeError) as error:
        if isinstance(error, ValueError):
            text = str(error)
        else:  # torch appends a list of signatures, or a trace in C++
            first = next(iter(str(error).strip().splitlines()), "")
            text = f"{name} can't be used as it is configured ({type(error).__name__}: {first})."
        kind = InapplicableError if isinstance(error, Inapplicable) else ConfigError
        raise kind(text if name.split(".")[0] in text else f"{name}: {text}") from error


def require_offers(name: str, made: Any, *attributes: str) -> None:
    """Check that an object has the attributes that its key in the configuration requires.

    Raises:
        ConfigError: an attribute is missing.
    """
    lacking = [attribute for attribute in attributes if not hasattr(made, attribute)]
    if lacking:
        raise ConfigError(
            f"{name} makes a {type(made).__name__}, which has no {' and no '.join(lacking)}. Change {name}._target_."
        )
