"""Rehearse a training on the device ``meta``, which takes no memory: build and use every part once."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from data_gen.spec import DatasetSpec
from neuralop_bench.batch import Batch
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.schema import RunConfig, n_pairs
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.runs import parts
from neuralop_bench.runs.parts import built, called, require_offers
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.rollout import rollout
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training.trainer import Trainer

_META = torch.device("meta")


def rehearse(cfg: RunConfig, spec: DatasetSpec) -> tuple[Surrogate, int | None]:
    """Build and use all parts of a training once, without allocating memory.

    Args:
        cfg: the run's configuration.
        spec: the spec of its data.

    Returns:
        The surrogate, and the number of bytes that one training step keeps for its backward pass; None instead of the
        number if it can't be determined without computing. For a model without parameters to train it is the size of
        the pairs that ``prepare`` is given, in double precision.

    Raises:
        ConfigError: a part can't be built or doesn't fit the others. The message names its key.
    """
    operator = called("model", parts.operator, cfg, spec, _META)
    if not isinstance(operator, nn.Module):
        raise ConfigError(f"model makes a {type(operator).__name__}, but must make a torch.nn.Module.")
    if cfg.init_from is not None:
        parts.fitting_weights(cfg, operator)
    n_state, n_static = len(spec.state), len(spec.static) + len(spec.channels)
    lags = cfg.surrogate.bundle
    if cfg.surrogate.solver is None:
        lags = min(lags, cfg.dataset.history + cfg.dataset.horizon - 1)
    sizes = ((n_state,), (n_state,), (n_static,), (n_static,), (lags, n_state))
    normalizer = Normalizer(*(torch.ones(size, dtype=torch.float64, device=_META) for size in sizes))
    surrogate = called("surrogate", parts.surrogate, cfg, spec, operator, normalizer)
    trainer = parts.trainer(cfg)
    n_windows = cfg.splits["train"] * (spec.n_snapshots - cfg.dataset.history - trainer.window_steps + 1)
    trainable = any(p.requires_grad for p in surrogate.parameters())
    if trainable:
        _try_optimizer(cfg, trainer, -(-n_windows // trainer.batch_size))
    elif cfg.data.stream:
        raise ConfigError(
            f"data=stream is for models trained in many steps, but model={cfg.model['label']} has no parameters to "
            "train. Use data=fixed, or a larger splits.train."
        )
    loss = built("loss", cfg.loss)
    called("trainer.residual_weight", parts.residual, cfg)
    if cfg.trainer.diverted:
        called("trainer.diverted", parts.solver_of, cfg, 1.0, 1.0)
    called("augmentation", built("augmentation", cfg.augmentation), spec)
    require_offers("tracker", built("tracker", cfg.tracker), "start", "log", "finish")
    _try_metrics(cfg, MetricContext(spec, np.ones(n_state), spec.grid))
    if not trainable:
        n_channels = cfg.dataset.history * n_state + n_static + cfg.surrogate.bundle * n_state
        n_values = n_pairs(cfg, spec.n_snapshots) * n_channels * spec.grid.n_points
        return surrogate, 8 * n_values if hasattr(operator, "prepare") else 0
    batch = _empty_batch(spec, min(trainer.batch_size, n_windows), cfg.dataset.history, trainer.unroll)
    return surrogate, called("model or loss", _kept_bytes, surrogate, batch, trainer.unroll, loss)


def _try_optimizer(cfg: RunConfig, trainer: Trainer, n_batches: int) -> None:
    """One step of optimiser and schedule on a single parameter, which is enough to check their arguments."""
    number = nn.Parameter(torch.zeros(1))
    number.grad = torch.zeros(1)
    optimizer = called("optimizer", built("optimizer", cfg.optimizer), [number])
    require_offers("optimizer", optimizer, "step", "zero_grad", "state_dict", "param_groups")
    if cfg.data.stream and trainer.epochs * n_batches < 2:
        raise ConfigError(
            "data=stream adds fresh samples between updates, but the training has only one update. Raise "
            "trainer.epochs or lower trainer.batch_size."
        )
    make_schedule = built("scheduler", cfg.scheduler)
    schedule = called("scheduler", make_schedule, optimizer, n_epochs=trainer.epochs, steps_per_epoch=n_batches)
    require_offers("scheduler", schedule, "step", "state_dict", "get_last_lr")
    called("optimizer", optimizer.step)
    called("scheduler", schedule.step)


def _try_metrics(cfg: RunConfig, context: MetricContext) -> None:
    for group in ("metrics", "rollout_metrics"):
        for name, node in getattr(cfg.evaluator, group).items():
            key = f"evaluator.{group}.{name}"
            metric = called(key, built(key, node), context)
            require_offers(key, metric, "name", "version", "variables", "measure", "summarise")
            if key == "evaluator.metrics.rel_l2" and metric.name != "rel_l2":
                raise ConfigError(f"{key} must be the metric rel_l2, by which the board ranks, got {metric.name}.")


def _empty_batch(spec: DatasetSpec, n: int, history: int, n_steps: int) -> Batch:
    space, n_state = spec.grid.shape, len(spec.state)
    n_static = len(spec.static) + len(spec.channels)
    shapes = ((n, history, n_state, *space), (n, n_static, *space), (n, n_steps, n_state, *space))
    return Batch(*(torch.empty(shape, device=_META) for shape in shapes))


def _kept_bytes(surrogate: Surrogate, batch: Batch, n_steps: int, loss: Any) -> int | None:
    """Bytes that autograd keeps between the forward and the backward pass of one training step."""
    own = {p.untyped_storage()._cdata for p in surrogate.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata  # several saved tensors may be views of the same one
        if storage not in own:
            kept.setdefault(storage, tensor)
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            prediction = rollout(surrogate, batch.history, batch.static, n_steps)
            value = loss(prediction, batch.target, surrogate.normalizer.state_std)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or "meta" in str(error).lower():
            return None  # an operation of a foreign model needs actual values
        raise
    if not isinstance(value, Tensor) or value.numel() != 1:
        raise ConfigError(f"loss must give one number, got {getattr(value, 'shape', value)}. Change loss._target_.")
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
