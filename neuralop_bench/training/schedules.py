"""torch's learning-rate schedules behind one signature. They advance every optimiser step; lengths are in epochs."""

from __future__ import annotations

import math
from typing import Literal, Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler, OneCycleLR, StepLR


class Schedule(Protocol):
    def __call__(self, optimizer: Optimizer, *, n_epochs: int, steps_per_epoch: int) -> LRScheduler: ...


def one_cycle(
    optimizer: Optimizer,
    *,
    n_epochs: int,
    steps_per_epoch: int,
    warmup: float = 0.3,
    start_factor: float = 25.0,
    final_factor: float = 1e4,
    anneal: Literal["cos", "linear"] = "cos",
) -> LRScheduler:
    """Warm-up from lr/start_factor to the optimizer's lr during the fraction ``warmup`` of the training, then decay to
    lr/(start_factor final_factor). Both follow half a cosine or a line (Smith & Topin 2018, Super-convergence)."""
    n_steps = n_epochs * steps_per_epoch
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=n_steps,
        # OneCycleLR divides by the length of its warm-up, which is zero if the fraction is a single step.
        pct_start=warmup if abs(warmup * n_steps - 1) > 1e-6 else 1.5 / n_steps,
        div_factor=start_factor,
        final_div_factor=final_factor,
        cycle_momentum=False,
        anneal_strategy=anneal,
    )


def warmup_cosine(optimizer: Optimizer, *, n_epochs: int, steps_per_epoch: int, warmup: float = 0.2) -> LRScheduler:
    """Linear warm-up from 0 to the optimizer's lr during the fraction ``warmup`` of the training, then half a cosine
    down to 0. The first step has the rate 0, as in optax."""
    n_steps = n_epochs * steps_per_epoch
    n_warmup = warmup * n_steps

    def factor(step: int) -> float:
        if step < n_warmup:
            return step / n_warmup
        return (1 + math.cos(math.pi * (step - n_warmup) / max(n_steps - n_warmup, 1))) / 2

    return LambdaLR(optimizer, factor)


def step_decay(
    optimizer: Optimizer, *, n_epochs: int, steps_per_epoch: int, every: int = 100, factor: float = 0.5
) -> LRScheduler:
    """Multiply the rate by ``factor`` every ``every`` epochs, regardless of the length of the training."""
    del n_epochs
    return StepLR(optimizer, step_size=every * steps_per_epoch, gamma=factor)


def inverse_time(optimizer: Optimizer, *, n_epochs: int, steps_per_epoch: int, rate: float = 1e-4) -> LRScheduler:
    """lr / (1 + rate * step), the decay that DeepONet was published with (Lu et al. 2022, arXiv 2111.05512)."""
    del n_epochs, steps_per_epoch
    return LambdaLR(optimizer, lambda step: 1 / (1 + rate * step))


def constant(optimizer: Optimizer, *, n_epochs: int, steps_per_epoch: int) -> LRScheduler:
    """The optimizer's own rate in every step."""
    return ConstantLR(optimizer, factor=1.0, total_iters=n_epochs * steps_per_epoch)
