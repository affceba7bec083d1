"""Optimizers that torch doesn't have."""

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
    """Adam in the eigenbasis of Shampoo's preconditioner, which has a factor for every axis of a weight; decoupled
    weight decay (Vyas et al. 2024, SOAP, arXiv 2409.11321), as the package pytorch_optimizer has it.

    Args:
        params: what is trained.
        lr: the rate.
        betas: decay of the means of gradients, and of their squares and products.
        weight_decay: part of a weight, in units of the rate, that every step takes away.
        precondition_frequency: steps from one update of the eigenbases to the next.
        max_precondition_dim: longest axis of a weight that gets an eigenbasis. They take time as its third power: a
            dense layer of some thousand inputs would make every step wait.
        fused: false. A recipe that names this optimizer takes it over from AdamW's settings.

    Raises:
        ValueError: ``fused``, which the package hasn't.
    """
    if fused:
        raise ValueError("SOAP has no fused form. Set optimizer.fused=false.")
    return pytorch_optimizer.SOAP(
        params,
        lr=lr,
        betas=betas,
        weight_decay=weight_decay,
        precondition_frequency=precondition_frequency,
        max_precondition_dim=max_precondition_dim,
    )
