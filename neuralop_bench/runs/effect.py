"""Refuse options that change nothing: their run would repeat the standard one under a name of its own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from data_gen.spec import DatasetSpec
from neuralop_bench.config import constructors
from neuralop_bench.config.constructors import ConfigError, InapplicableError
from neuralop_bench.config.identity import Identity
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.models.persistence import Persistence
from neuralop_bench.runs import parts
from neuralop_bench.runs.parts import built, called
from neuralop_bench.training import augmentation

# Keys that act in training steps alone. trainer.epochs isn't one of them: it is the budget of a task, and models
# without parameters to train stay comparable with those that were trained for as long.
_OF_STEPS = (
    "optimizer.",
    "scheduler.",
    "loss.",
    "augmentation.",
    "trainer.batch_size",
    "trainer.clip_norm",
    "trainer.precision",
    "trainer.pushforward",
)


def require_effect(cfg: RunConfig, who: Identity, spec: DatasetSpec) -> None:
    """Check that every option in which a run differs from the standard one can change its result.

    Args:
        cfg: the run's configuration.
        who: its identity, which holds the differences.
        spec: the spec of its data.

    Raises:
        InapplicableError: an option can't. The message names its key.
        ConfigError: a part can't be built.
    """
    if cfg.dataset.conditioning == "none" and not spec.varying:
        raise InapplicableError(
            "dataset.conditioning=none has no effect: no parameter of these data differs between samples. Leave it out."
        )
    for key, reason in _without_effect(cfg, who, spec):
        raise InapplicableError(f"{_as_given(cfg, who, key)} has no effect: {reason}. Leave it out.")
    if any(key.startswith("augmentation.") for key in who.changed):
        try:
            called("augmentation", built("augmentation", cfg.augmentation), spec)
        except ConfigError as error:  # the data lack what it needs, so a sweep leaves the job out
            raise InapplicableError(str(error)) from error


def _without_effect(cfg: RunConfig, who: Identity, spec: DatasetSpec) -> Iterator[tuple[str, str]]:
    """Keys of options without effect, and why."""
    of_model = [key.removeprefix("model.") for key in who.changed if key.startswith("model.")]
    of_steps = [key for key in who.changed if key.startswith(_OF_STEPS)]
    if "trainer.unroll" in who.changed and cfg.trainer.unroll != cfg.surrogate.bundle:  # a bundle requires its unroll
        of_steps.append("trainer.unroll")
    operator = _operator(cfg, spec)
    idle: Mapping[str, str] = getattr(operator, "idle", {})
    for name in of_model:
        # It acts if it switches off what the standard value does, such as padding=0.
        if name in idle and name in getattr(_operator(_restored(cfg, who.base, name), spec), "idle", {}):
            yield f"model.{name}", idle[name]
    prepared = hasattr(operator, "prepare") and getattr(operator, "needs_pairs", True)
    if prepared and cfg.trainer.prepare_copies > 1:
        of_steps = [key for key in of_steps if not key.startswith("augmentation.")]
    if "trainer.prepare_copies" in who.changed and not prepared:
        yield "trainer.prepare_copies", f"model={cfg.model['label']} isn't prepared with training pairs"
    elif "trainer.prepare_copies" in who.changed and constructors.target(cfg.augmentation) is augmentation.none:
        yield "trainer.prepare_copies", "with augmentation=none all copies are equal"
    if of_steps and not any(p.requires_grad for p in operator.parameters()):
        reason = f"model={cfg.model['label']} has no parameters to train"
        if prepared and of_steps[0].startswith("augmentation."):
            reason += ", but with trainer.prepare_copies=24 it is fitted to images of the training pairs"
        yield of_steps[0], reason
    if "surrogate.bundle" in who.changed and isinstance(operator, Persistence):
        yield "surrogate.bundle", "the last frame is repeated, in one call or in several"
    if "loss._target_" in who.changed and _same(_losses(cfg, cfg.loss, spec), _losses(cfg, who.base.loss, spec)):
        yield "loss._target_", f"with trainer.unroll={cfg.trainer.unroll} it equals the standard loss on these data"
    for name, node in _without_one("loss", cfg, who):
        if _same(_losses(cfg, cfg.loss, spec), _losses(cfg, node, spec)):
            yield f"loss.{name}", f"on a grid of {spec.grid.shape} points the loss is the same without it"
    for name, node in _without_one("scheduler", cfg, who):
        if _same(_rates(cfg, cfg.scheduler), _rates(cfg, node)):
            epochs = cfg.trainer.epochs
            yield f"scheduler.{name}", f"with trainer.epochs={epochs} the learning rates are the same without it"


def _operator(cfg: RunConfig, spec: DatasetSpec) -> torch.nn.Module:
    return called("model", parts.operator, cfg, spec, torch.device("meta"))


def _without_one(group: str, cfg: RunConfig, who: Identity) -> Iterator[tuple[str, dict[str, Any]]]:
    """The group's node with one changed argument left out at a time: with the standard value, or else the default."""
    node, standard = getattr(cfg, group), getattr(who.base, group)
    same = node["_target_"] == standard["_target_"]
    for key in who.changed:
        name = key.removeprefix(f"{group}.")
        if name == key or name not in node or name == "_target_":
            continue
        kept = {other: value for other, value in node.items() if other != name}
        if same and name in standard:
            yield name, {**kept, name: standard[name]}
        elif node[name] != inspect.signature(constructors.target(node)).parameters[name].default:
            yield name, kept


def _losses(cfg: RunConfig, node: Mapping[str, Any], spec: DatasetSpec) -> list[float]:
    """The values of a loss for some fields in double precision, and for a reference that vanishes."""
    shape = (2, 2, cfg.trainer.unroll, len(spec.state), *spec.grid.shape)
    fields = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = built("loss", node)
    return called("loss", lambda: [float(loss(fields[0], target)) for target in (fields[1], 0 * fields[1])])


def _rates(cfg: RunConfig, node: Mapping[str, Any]) -> list[float]:
    """Learning rates of a schedule, ten per epoch of a training at rate 1."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    schedule = built("scheduler", node)(optimizer, n_epochs=cfg.trainer.epochs, steps_per_epoch=10)
    rates = []
    for _ in range(10 * cfg.trainer.epochs):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return rates


def _same(values: Sequence[float], others: Sequence[float]) -> bool:
    return all(map(math.isclose, values, others))


def _restored(cfg: RunConfig, base: RunConfig, name: str) -> RunConfig:
    """The configuration with one argument of its model as in another."""

    def restored(node: Mapping[str, Any], standard: Mapping[str, Any], name: str) -> dict[str, Any]:
        first, _, rest = name.partition(".")
        kept = {key: value for key, value in node.items() if key != first}
        if rest:
            return {**kept, first: restored(node[first], standard.get(first, {}), rest)}
        return {**kept, first: standard[first]} if first in standard else kept

    return replace(cfg, model=restored(cfg.model, base.model, name))


def _as_given(cfg: RunConfig, who: Identity, key: str) -> str:
    group = key.split(".")[0]
    typed = any(override.lstrip("+").startswith(f"{key}=") for override in cfg.overrides)
    if group != "model" and not typed and f"{group}._target_" in who.changed and group in cfg.choices:
        return f"{group}={cfg.choices[group]}"
    return f"{key}={who.changed[key]}"
