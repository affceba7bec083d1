"""Refuse options that change nothing: their run would repeat the standard one under a name of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from data_gen.spec import DatasetSpec
from neuralop_bench.config.constructors import ConfigError, InapplicableError
from neuralop_bench.config.identity import Identity
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.runs import parts
from neuralop_bench.runs.parts import built, called

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
    if of_steps and not any(p.requires_grad for p in operator.parameters()):
        yield of_steps[0], f"model={cfg.model['label']} has no parameters to train"
    if "loss._target_" in who.changed and math.isclose(_loss(cfg, cfg.loss, spec), _loss(cfg, who.base.loss, spec)):
        yield "loss._target_", f"with trainer.unroll={cfg.trainer.unroll} it equals the standard loss on these data"


def _operator(cfg: RunConfig, spec: DatasetSpec) -> torch.nn.Module:
    return called("model", parts.operator, cfg, spec, torch.device("meta"))


def _loss(cfg: RunConfig, node: Mapping[str, Any], spec: DatasetSpec) -> float:
    """The value of a loss for some fields in double precision."""
    shape = (2, 2, cfg.trainer.unroll, len(spec.state), *spec.grid.shape)
    fields = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return called("loss", lambda: float(built("loss", node)(*fields)))


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
    if group != "model" and f"{group}._target_" in who.changed and group in cfg.choices:
        return f"{group}={cfg.choices[group]}"
    return f"{key}={who.changed[key]}"
