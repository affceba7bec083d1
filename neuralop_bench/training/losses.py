"""Training losses: differentiable means over samples, of physical fields in units of the training data's size.

The size of a channel is its root mean square over the training data (``Normalizer.scale``), one number per channel.
So a loss doesn't depend on the units of the data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from neuralop_bench.batch import CHANNEL, TIME, Trajectory, space_axes
from neuralop_bench.metrics.metric import FLOOR

# Sizes of the channels, [C], in the units of the fields; None if fields are in units of their size.
Scale = Float[Tensor, " channel"] | None
# Maps prediction and target [B, T, C, *S] and the sizes of the channels to one number.
Loss = Callable[[Trajectory, Trajectory, Scale], Tensor]


def relative_l2(
    prediction: Trajectory, target: Trajectory, scale: Scale = None, *, eps: float = FLOOR
) -> Float[Tensor, ""]:
    """Mean over samples and channels of ||p - u|| / ||u||, norms over time and space.

    Args:
        prediction, target: [B, T, C, *S].
        scale: size of each channel in the training data.
        eps: lower bound on the mean square of the target, as a fraction of scale^2.
    """
    return _relative(prediction, target, scale, (TIME, *space_axes(target)), eps)


def relative_l2_per_step(
    prediction: Trajectory, target: Trajectory, scale: Scale = None, *, eps: float = FLOOR
) -> Float[Tensor, ""]:
    """Mean over samples, steps and channels of ||p - u|| / ||u||, norms over space. It is the loss for rollouts in the
    FNO paper. Arguments as in ``relative_l2``."""
    return _relative(prediction, target, scale, space_axes(target), eps)


def relative_h1(
    prediction: Trajectory,
    target: Trajectory,
    scale: Scale = None,
    *,
    cutoff: int = 20,
    eps: float = FLOOR,
) -> Float[Tensor, ""]:
    """Mean over samples and channels of ||p - u|| / ||u||, in a norm that includes gradients. It is the loss that MgNO
    was published with (He, Liu, Xu 2024, arXiv 2310.19809, and its code).

        ||u||^2 = sum_k (1 + |k|^2) |u_hat_k|^2,    k in cycles per domain, without 2 pi

    Components of k with modulus ``cutoff`` or more count as 0, so that high wavenumbers have the same weight as in L2.
    Fields are treated as periodic; those that aren't have a jump at the edges.

    Args:
        prediction, target: [B, T, C, *S].
        scale: size of each channel in the training data.
        cutoff: as above.
        eps: lower bound on the mean square of the target in this norm, as a fraction of scale^2.
    """
    axes = space_axes(target)
    weight = torch.ones((), dtype=target.dtype, device=target.device)
    for axis in axes:
        n = target.shape[axis]
        k = torch.fft.fftfreq(n, 1 / n, dtype=target.dtype, device=target.device)
        k = torch.where(k.abs() < cutoff, k, 0)
        weight = weight + k.square().view(-1, *(1,) * (target.ndim - 1 - axis))
    unit, size = _unit(scale, target)
    error, reference = (
        weight * torch.view_as_real(torch.fft.fftn(field / unit, dim=axes, norm="ortho")).square().sum(-1)
        for field in (prediction - target, target)
    )
    return _ratio(error, reference, (TIME, *axes), eps * size.square())


def relative_l2_and_spectrum(
    prediction: Trajectory,
    target: Trajectory,
    scale: Scale = None,
    *,
    weight: float = 0.01,
    least: float = 1e-6,
    eps: float = FLOOR,
) -> Float[Tensor, ""]:
    """``relative_l2`` and a penalty on the spectrum, so that small scales of little energy count as much as large ones.

        L = relative_l2 + weight mean_s log((E_s(p) + e) / (E_s(u) + e))^2,    e = least sum_s E_s(u)

    E_s is the energy of shell s: of the wavenumbers, in cycles per domain, that are s when rounded to the nearest whole
    number. Those beyond half the points of the coarsest axis belong to the last shell. The mean is over samples, steps,
    channels and shells. Fields are treated as periodic; those that aren't have a jump at the edges.

    Args:
        prediction, target: [B, T, C, *S].
        scale: size of each channel in the training data.
        weight: of the penalty.
        least: energies below this fraction of the total don't count.
        eps: that of ``relative_l2``; it bounds the total here, too.

    Reference: Chakraborty, Mohan, Maulik (2025), Binned spectral power loss for improved prediction of chaotic systems,
    arXiv 2502.00472. There the error is a mean square, and the penalty is the square of the ratio less 1, which is
    huge for an untrained network.
    """
    axes = space_axes(target)
    shape = target.shape[axes[0] :]
    squares = sum(
        torch.fft.fftfreq(n, 1 / n, device=target.device).square().view(-1, *(1,) * (len(shape) - 1 - axis))
        for axis, n in enumerate(shape)
    )
    n_shells = min(shape) // 2 + 1
    shells = torch.as_tensor(squares).sqrt().round().long().clamp(max=n_shells - 1).flatten()
    unit, size = _unit(scale, target)

    def energies(field: Trajectory) -> Tensor:
        waves = torch.fft.fftn(field / unit, dim=axes, norm="forward").flatten(axes[0])
        power = waves.real.square() + waves.imag.square()
        return power.new_zeros(*power.shape[:-1], n_shells).index_add(-1, shells, power)

    predicted, reference = energies(prediction), energies(target)
    floor = least * torch.maximum(reference.sum(-1), eps * size.square()).unsqueeze(-1)
    penalty = ((predicted + floor) / (reference + floor)).log().square().mean()
    return relative_l2(prediction, target, scale, eps=eps) + weight * penalty


def mse(prediction: Trajectory, target: Trajectory, scale: Scale = None) -> Float[Tensor, ""]:
    """Mean square of all values of (p - u) / scale. Arguments as in ``relative_l2``."""
    return ((prediction - target) / _over_points(_known(scale, target), target)).square().mean()


def _relative(prediction: Trajectory, target: Trajectory, scale: Scale, axes: tuple[int, ...], eps: float) -> Tensor:
    unit, size = _unit(scale, target)
    error, reference = ((field / unit).square() for field in (prediction - target, target))
    return _ratio(error, reference, axes, eps * size.square())


def _known(scale: Scale, fields: Trajectory) -> Tensor:
    return fields.new_ones(fields.shape[CHANNEL]) if scale is None else scale.to(fields)


def _unit(scale: Scale, fields: Trajectory) -> tuple[Tensor, Tensor]:
    """The largest powers of two up to the scale, which broadcast with fields, and the scale in units of them, [C].

    Squares of fields may be beyond single precision; those of fields in these units aren't. A power of two changes no
    digit of a ratio.
    """
    scale = _known(scale, fields)
    size = 2 * torch.frexp(scale).mantissa
    return _over_points(scale / size, fields), size


def _over_points(scale: Tensor, fields: Trajectory) -> Tensor:
    return scale.view(-1, *(1,) * (fields.ndim - 1 - CHANNEL))


def _ratio(error: Tensor, reference: Tensor, axes: tuple[int, ...], floor: Tensor) -> Tensor:
    """The ratio of norms, from squares. ``floor`` [C] bounds the mean square of the reference from below."""
    norm = torch.maximum(reference.mean(dim=axes), floor)
    # The small shift keeps the square root's gradient finite where the error vanishes.
    return (error.mean(dim=axes) / norm + torch.finfo(reference.dtype).tiny).sqrt().mean()
