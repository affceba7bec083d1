"""Training losses: differentiable means over samples, computed on physical fields."""

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
    """Mean over samples, steps and channels of ||p - u|| / ||u||, norms over space. It is the loss for rollouts in the
    FNO paper. Arguments as in ``relative_l2``."""
    return _relative(prediction, target, space_axes(target), eps)


def relative_h1(
    prediction: Trajectory, target: Trajectory, *, cutoff: int = 20, eps: float = 1e-12
) -> Float[Tensor, ""]:
    """Mean over samples and channels of ||p - u|| / ||u||, in a norm that includes gradients. It is the loss that MgNO
    was published with (He, Liu, Xu 2024, arXiv 2310.19809, and its code).

        ||u||^2 = sum_k (1 + |k|^2) |u_hat_k|^2,    k in cycles per domain, without 2 pi

    Components of k with modulus ``cutoff`` or more count as 0, so that high wavenumbers have the same weight as in L2.
    Fields are treated as periodic; those that aren't have a jump at the edges.

    Args:
        prediction, target: [B, T, C, *S].
        cutoff: as above.
        eps: lower bound on the mean square of the target in this norm, in squared units of the field.
    """
    axes = space_axes(target)
    weight = torch.ones((), dtype=target.dtype, device=target.device)
    for axis in axes:
        n = target.shape[axis]
        k = torch.fft.fftfreq(n, 1 / n, dtype=target.dtype, device=target.device)
        k = torch.where(k.abs() < cutoff, k, 0)
        weight = weight + k.square().view(-1, *(1,) * (target.ndim - 1 - axis))
    error, reference = (
        weight * torch.view_as_real(torch.fft.fftn(field, dim=axes, norm="ortho")).square().sum(-1)
        for field in (prediction - target, target)
    )
    return _ratio(error, reference, (TIME, *axes), eps)


def mse(prediction: Trajectory, target: Trajectory) -> Float[Tensor, ""]:
    """Mean square of all values of p - u, in squared units of the field."""
    return (prediction - target).square().mean()


def _relative(prediction: Trajectory, target: Trajectory, axes: tuple[int, ...], eps: float) -> Tensor:
    return _ratio((prediction - target).square(), target.square(), axes, eps)


def _ratio(error: Tensor, reference: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    """The ratio of norms, from squares."""
    norm = reference.mean(dim=axes).clamp(min=eps)
    # The small shift keeps the square root's gradient finite where the error vanishes.
    return (error.mean(dim=axes) / norm + torch.finfo(reference.dtype).tiny).sqrt().mean()
