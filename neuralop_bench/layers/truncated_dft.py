"""Fourier transforms that compute the kept modes alone, as matrix products with real numbers.

A neural operator keeps a few percent of the modes of a grid. A fast transform computes all of them, in complex numbers,
and leaves most unused; the products below cost n multiplications per point and kept mode of an axis, but run at the
machine's full arithmetic rate. They win as long as an axis has few points (``layers.spectral_conv``).

Fields have their channels last, [batch, *space, channel], and modes are [batch, part, *mode, channel] with the real and
the imaginary part as ``part``: every axis is one product with a real matrix, and none needs a copy in between. The kept
modes of the last axis are k = 0 ... K - 1 (the field is real), of the others k = 0 ... K - 1, -K ... -1, in this order.
Values are those of ``torch.fft`` with norm="forward".
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def to_modes(
    v: Float[Tensor, "batch *space channel"], n_modes: tuple[int, ...]
) -> Float[Tensor, "batch part *mode channel"]:
    """The kept modes of real fields."""
    n_batch, *space, channels = v.shape
    columns = channels
    for axis in range(len(space) - 1, -1, -1):
        is_last = axis == len(space) - 1
        matrix = _analysis(space[axis], n_modes[axis], is_last, v.dtype, v.device)
        v = _times(matrix, v.reshape(-1, matrix.shape[1], columns))
        columns *= n_modes[axis] * (1 if is_last else 2)
    return v.view(n_batch, 2, *_kept(n_modes), channels)


def add_from_modes(
    v_hat: Float[Tensor, "batch part *mode channel"], to: Float[Tensor, "batch *space channel"]
) -> Float[Tensor, "batch *space channel"]:
    """Real fields with these modes, added to ``to`` in place."""
    space, kept = to.shape[1:-1], v_hat.shape[2:-1]
    columns = v_hat[0, 0].numel()
    v = v_hat
    for n, both in zip(space[:-1], kept[:-1], strict=True):
        columns //= both
        matrix = _synthesis(n, both // 2, False, v.dtype, v.device)
        v = _times(matrix, v.reshape(-1, matrix.shape[1], columns))
    matrix = _synthesis(space[-1], kept[-1], True, v.dtype, v.device)
    modes = v.reshape(-1, matrix.shape[1], columns // kept[-1])
    to.view(-1, space[-1], columns // kept[-1]).baddbmm_(matrix.expand(len(modes), -1, -1), modes)
    return to


def _kept(n_modes: tuple[int, ...]) -> tuple[int, ...]:
    return (*(2 * k for k in n_modes[:-1]), n_modes[-1])


def _times(matrix: Float[Tensor, "m n"], x: Float[Tensor, "batch n column"]) -> Float[Tensor, "batch m column"]:
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


@lru_cache(maxsize=64)
def _analysis(n: int, n_modes: int, is_last: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """From real values at the points of the last axis, [(part, k), point], or complex ones, [(part, k), (point, part)]."""
    angle = _angles(n, n_modes, is_last)
    cos, sin = angle.cos() / n, angle.sin() / n
    # exp(-ix) (a + ib) = (a cos x + b sin x) + i (b cos x - a sin x)
    from_real = torch.cat([cos, -sin])
    matrix = from_real if is_last else torch.stack([from_real, torch.cat([sin, cos])], dim=2).flatten(1)
    return matrix.to(device, dtype)


@lru_cache(maxsize=64)
def _synthesis(n: int, n_modes: int, is_last: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """To real values at the points of the last axis, [point, (part, k)], or complex ones, [(point, part), (part, k)]."""
    angle = _angles(n, n_modes, is_last).T
    cos, sin = angle.cos(), angle.sin()
    # exp(ix) (a + ib) = (a cos x - b sin x) + i (a sin x + b cos x)
    to_real = torch.cat([cos, -sin], dim=1)
    if is_last:
        to_real = to_real * 2  # the modes of -k are the conjugates
        to_real[:, [0, n_modes]] /= 2
        return to_real.to(device, dtype)
    return torch.stack([to_real, torch.cat([sin, cos], dim=1)], dim=1).flatten(0, 1).to(device, dtype)


def _angles(n: int, n_modes: int, is_last: bool) -> Float[Tensor, "k point"]:
    wavenumbers = [*range(n_modes)] if is_last else [*range(n_modes), *range(-n_modes, 0)]
    k = torch.tensor(wavenumbers, dtype=torch.float64)
    # Whole turns are left out before they cost digits.
    turns = torch.remainder(torch.outer(k, torch.arange(n, dtype=torch.float64)), n)
    return 2 * math.pi / n * turns
