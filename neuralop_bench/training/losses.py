"""Training losses: differentiable, on physical fields, a mean over samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralop_bench.batch import TIME, Trajectory, space_axes

Loss = Callable[[Trajectory, Trajectory], Tensor]


def relative_l2(prediction: Trajectory, target: Trajectory, *, eps: float = 1e-12) -> Float[Tensor, ""]:
    """Mean over samples and channels of ||p - u|| / ||u||, norms over time and space.

    Args:
        prediction, target: [B, T, C, *S].
        eps: lower bound on ||u||^2 summed over the points, in squared units of the field.
    """
    axes = (TIME, *space_axes(target))
    error = (prediction - target).square().sum(dim=axes)
    norm = target.square().sum(dim=axes).clamp(min=eps)
    # The small shift keeps the square root's gradient finite where the error vanishes.
    return ((error / norm) + torch.finfo(target.dtype).tiny).sqrt().mean()


def relative_l2_per_step(prediction: Trajectory, target: Trajectory, *, eps: float = 1e-12) -> Float[Tensor, ""]:
    """Mean over samples, steps and channels of ||p - u|| / ||u||, norms over space: the loss of the FNO paper's
    rollouts."""
    axes = space_axes(target)
    error = (prediction - target).square().sum(dim=axes)
    norm = target.square().sum(dim=axes).clamp(min=eps)
    return ((error / norm) + torch.finfo(target.dtype).tiny).sqrt().mean()
