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
        eps: lower bound on the mean square of the target, in squared units of the field.
    """
    return _relative(prediction, target, (TIME, *space_axes(target)), eps)


def relative_l2_per_step(prediction: Trajectory, target: Trajectory, *, eps: float = 1e-12) -> Float[Tensor, ""]:
    """Mean over samples, steps and channels of ||p - u|| / ||u||, norms over space: the loss of the FNO paper's
    rollouts. Arguments as in ``relative_l2``."""
    return _relative(prediction, target, space_axes(target), eps)


def _relative(prediction: Trajectory, target: Trajectory, axes: tuple[int, ...], eps: float) -> Tensor:
    error = (prediction - target).square().mean(dim=axes)
    norm = target.square().mean(dim=axes).clamp(min=eps)
    # The small shift keeps the square root's gradient finite where the error vanishes.
    return (error / norm + torch.finfo(target.dtype).tiny).sqrt().mean()
