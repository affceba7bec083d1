"""Fourier transforms that compute the kept modes alone, as matrix products with real numbers.

A neural operator keeps a few percent of the modes of a grid. A fast transform computes all of them, in complex numbers,
and leaves most unused; the products below cost n multiplications per point and kept mode of an axis, but run at the
machine's full arithmetic rate. They win as long as an axis has few points (``layers.spectral_conv``).

Fields have their channels last, [batch, *space, channel], so that every stage is a product of large matrices; modes are
[batch, *mode, part, channel] with the real and the imaginary part as ``part``. The kept modes of the last axis are k = 0
... K - 1 (the field is real), of the others k = 0 ... K - 1, -K ... -1, in this order. Values are those of
``torch.fft`` with norm="forward".
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor


def to_modes(
    v: Float[Tensor, "batch *space channel"], n_modes: tuple[int, ...]
) -> Float[Tensor, "batch *mode part channel"]:
    """The kept modes of real fields."""
    n_batch, *space, channels = v.shape
    matrix = _last_analysis(space[-1], n_modes[-1], v.dtype, v.device)
    v = _times(matrix, v.reshape(-1, space[-1], channels))  # [batch x earlier axes, (k, part), channel]
    n_kept = n_modes[-1]
    for axis in range(len(space) - 2, -1, -1):
        n, k = space[axis], n_modes[axis]
        matrix = _analysis(n, k, v.dtype, v.device)
        waves = _times(matrix, v.reshape(-1, n, n_kept * 2 * channels))
        cosines, sines = waves.view(-1, 2, k + 1, n_kept, 2, channels).unbind(1)
        # exp(-ix) = cos x - i sin x; of the wavenumber -k the sine has the other sign.
        turned = torch.stack([sines[..., 1, :], -sines[..., 0, :]], dim=-2)
        v = torch.cat([cosines[:, :k] + turned[:, :k], (cosines[:, 1:] - turned[:, 1:]).flip(1)], dim=1)
        n_kept *= 2 * k
    kept = (*(2 * k for k in n_modes[:-1]), n_modes[-1])
    return v.reshape(n_batch, *kept, 2, channels)


def add_from_modes(
    v_hat: Float[Tensor, "batch *mode part channel"], to: Float[Tensor, "batch *space channel"]
) -> Float[Tensor, "batch *space channel"]:
    """Real fields with these modes, added to ``to`` in place."""
    n_batch, *kept, _, channels = v_hat.shape
    space = to.shape[1:-1]
    v, n_kept = v_hat, math.prod(kept)
    for n, both in zip(space[:-1], kept[:-1], strict=True):
        k = both // 2
        n_kept //= both
        positive, negative = v.reshape(-1, 2, k, n_kept, 2, channels).unbind(1)
        nothing = positive.new_zeros(positive.shape[0], 1, *positive.shape[2:])
        positive, negative = torch.cat([positive, nothing], dim=1), torch.cat([nothing, negative.flip(1)], dim=1)
        difference = positive - negative
        turned = torch.stack([-difference[..., 1, :], difference[..., 0, :]], dim=-2)
        waves = torch.stack([positive + negative, turned], dim=1)
        matrix = _analysis(n, k, v.dtype, v.device).T * n
        v = _times(matrix, waves.view(-1, 2 * (k + 1), n_kept * 2 * channels))
    matrix = _last_synthesis(space[-1], kept[-1], v.dtype, v.device)
    modes = v.reshape(-1, 2 * kept[-1], channels)
    result = to.view(-1, space[-1], channels)
    result.baddbmm_(matrix.expand(len(modes), -1, -1), modes)
    return to


def _times(matrix: Float[Tensor, "m n"], x: Float[Tensor, "batch n k"]) -> Float[Tensor, "batch m k"]:
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


@lru_cache(maxsize=64)
def _last_analysis(n: int, k: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "modes_and_parts n"]:
    angle = _angles(n, range(k))
    return torch.stack([angle.cos(), -angle.sin()], dim=1).flatten(0, 1).div(n).to(device, dtype)


@lru_cache(maxsize=64)
def _last_synthesis(n: int, k: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n modes_and_parts"]:
    angle = _angles(n, range(k)).T
    weight = torch.full((k,), 2.0, dtype=torch.float64)  # for the modes of -k
    weight[0] = 1.0
    return torch.stack([weight * angle.cos(), -weight * angle.sin()], dim=2).flatten(1, 2).to(device, dtype)


@lru_cache(maxsize=64)
def _analysis(n: int, k: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "waves n"]:
    """Cosines of 0 ... k, then sines."""
    angle = _angles(n, range(k + 1))
    return torch.cat([angle.cos(), angle.sin()]).div(n).to(device, dtype)


def _angles(n: int, wavenumbers: range) -> Float[Tensor, "wavenumber n"]:
    k = torch.tensor(list(wavenumbers), dtype=torch.float64)
    # Whole turns are left out before they cost digits.
    turns = torch.remainder(torch.outer(k, torch.arange(n, dtype=torch.float64)), n)
    return 2 * math.pi / n * turns
