"""Optimizers that aren't part of torch."""

from __future__ import annotations

from collections.abc import Iterable

import pytorch_optimizer
import torch
from torch.optim import Optimizer


def soap(
    params: Iterable[torch.nn.Parameter],
    *,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.95, 0.95),
    weight_decay: float = 1e-4,
    precondition_frequency: int = 10,
    max_precondition_dim: int = 1024,
    fused: bool = False,
) -> Optimizer:
    """SOAP: Adam in the eigenbasis of Shampoo's preconditioner, which has a factor for every axis of a weight, with
    decoupled weight decay (Vyas et al. 2024, arXiv 2409.11321). The implementation is that of pytorch_optimizer.

    Args:
        params: the trained parameters.
        lr: learning rate.
        betas: decay rates of the running means of gradients, and of their squares and products.
        weight_decay: every step shrinks weights by the fraction lr * weight_decay.
        precondition_frequency: steps between updates of the eigenbases.
        max_precondition_dim: longest axis of a weight that gets an eigenbasis. The time grows with its third power: for
            a dense layer with some thousand inputs it would slow down every step.
        fused: must be false. The argument exists because recipes that name this optimizer inherit it from AdamW.

    Raises:
        ValueError: ``fused`` is true.
    """
    if fused:
        raise ValueError("SOAP has no fused implementation. Set optimizer.fused=false.")
    return pytorch_optimizer.SOAP(
        params,
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        precondition_frequency=precondition_frequency,
        max_precondition_dim=max_precondition_dim,
    )
