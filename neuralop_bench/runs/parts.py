"""Build the parts of a run from their nodes in a configuration. An error names the key that caused it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from data_gen.spec import DatasetSpec
from neuralop_bench.config import constructors
from neuralop_bench.config.constructors import ConfigError, InapplicableError
from neuralop_bench.config.schema import RunConfig, constructor, n_pairs
from neuralop_bench.layers.options import Inapplicable
from neuralop_bench.surrogate.surrogate import build_operator
from neuralop_bench.training.trainer import Recipe, Trainer


def operator(cfg: RunConfig, spec: DatasetSpec, device: torch.device) -> nn.Module:
    """The configured network, for the fields and the grid of a dataset."""
    return build_operator(
        constructor(cfg.model),
        spec,
        n_history=cfg.dataset.history,
        bundle=cfg.surrogate.bundle,
        device=device,
        n_pairs=n_pairs(cfg, spec.n_snapshots),
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
    )


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
