"""Fourier transforms that compute only the kept modes, as matrix products with real numbers.

A neural operator keeps a few percent of the modes of a grid. A fast transform computes all of them, in complex numbers,
and most are never used. The products below take two multiplications per point and kept mode of an axis, but run at the
machine's full arithmetic rate. They are faster as long as few modes are kept (``layers.spectral_conv``).

Fields have their channels last, [batch, *space, channel]. Modes are [batch, part, *mode, channel], where ``part`` is
the real or the imaginary part. Every axis is one product with a real matrix, without a copy in between. The kept modes
of the last axis are k = 0 ... K - 1 (the field is real), those of the others k = 0 ... K - 1, -K ... -1, in this order.
Values are those of ``torch.fft`` with norm="forward".
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from neuralop_bench.layers.kept import kept


def to_modes(
    v: Float[Tensor, "batch *space channel"], n_modes: tuple[int, ...]
) -> Float[Tensor, "batch part *mode channel"]:
    """The kept modes of real fields."""
    matrices = [_analysis(n, k, v.dtype, v.device) for n, k in zip(v.shape[1:-2], n_modes, strict=False)]
    return _inwards(v, [*matrices, _last_analysis(v.shape[-2], n_modes[-1], v.dtype, v.device)], n_modes)


def from_modes(
    v_hat: Float[Tensor, "batch part *mode channel"], space: tuple[int, ...], to: Tensor | None = None
) -> Float[Tensor, "batch *space channel"]:
    """Real fields with these modes. If ``to`` is given, they are added to it in place."""
    n_modes = _positive(v_hat.shape[2:-1])
    matrices = [_synthesis(n, k, v_hat.dtype, v_hat.device) for n, k in zip(space[:-1], n_modes, strict=False)]
    return _outwards(v_hat, [*matrices, _last_synthesis(space[-1], n_modes[-1], v_hat.dtype, v_hat.device)], space, to)


def to_modes_transposed(
    v_hat: Float[Tensor, "batch part *mode channel"], space: tuple[int, ...], to: Tensor
) -> Float[Tensor, "batch *space channel"]:
    """The transpose of ``to_modes``: from gradients by modes to gradients by fields. Added to ``to`` in place."""
    n_modes = _positive(v_hat.shape[2:-1])
    matrices = [_analysis(n, k, v_hat.dtype, v_hat.device).T for n, k in zip(space[:-1], n_modes, strict=False)]
    last = _last_analysis(space[-1], n_modes[-1], v_hat.dtype, v_hat.device).T
    return _outwards(v_hat, [*matrices, last], space, to)


def from_modes_transposed(
    v: Float[Tensor, "batch *space channel"], n_modes: tuple[int, ...]
) -> Float[Tensor, "batch part *mode channel"]:
    """The transpose of ``from_modes``: from gradients by fields to gradients by modes."""
    matrices = [_synthesis(n, k, v.dtype, v.device).T for n, k in zip(v.shape[1:-2], n_modes, strict=False)]
    return _inwards(v, [*matrices, _last_synthesis(v.shape[-2], n_modes[-1], v.dtype, v.device).T], n_modes)


def _inwards(v: Tensor, matrices: list[Tensor], n_modes: tuple[int, ...]) -> Tensor:
    n_batch, columns = v.shape[0], v.shape[-1]
    kept = (*(2 * k for k in n_modes[:-1]), n_modes[-1])
    for matrix, n_kept in zip(reversed(matrices), reversed(kept), strict=True):
        v = _times(matrix, v.reshape(-1, matrix.shape[1], columns))
        columns *= n_kept
    return v.view(n_batch, 2, *kept, -1)


def _outwards(v: Tensor, matrices: list[Tensor], space: tuple[int, ...], to: Tensor | None) -> Tensor:
    n_batch, _, *kept, channels = v.shape
    columns = math.prod(kept) * channels
    for matrix, n_kept in zip(matrices[:-1], kept[:-1], strict=True):
        columns //= n_kept
        v = _times(matrix, v.reshape(-1, matrix.shape[1], columns))
    v = v.reshape(-1, matrices[-1].shape[1], channels)
    if to is None:
        return _times(matrices[-1], v).view(n_batch, *space, channels)
    to.view(-1, space[-1], channels).baddbmm_(matrices[-1].expand(len(v), -1, -1), v)
    return to


def _positive(kept: tuple[int, ...]) -> tuple[int, ...]:
    return (*(both // 2 for both in kept[:-1]), kept[-1])


def _times(matrix: Float[Tensor, "m n"], x: Float[Tensor, "batch n column"]) -> Float[Tensor, "batch m column"]:
    return torch.bmm(matrix.expand(len(x), -1, -1), x)


# The matrices are computed on the CPU, whatever the default device is, and then moved.


@kept
def _last_analysis(n: int, n_modes: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "part_and_k n"]:
    angle = _angles(n, range(n_modes))
    return torch.cat([angle.cos(), -angle.sin()]).div(n).to(device, dtype)


@kept
def _last_synthesis(n: int, n_modes: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n part_and_k"]:
    angle = _angles(n, range(n_modes)).T
    weight = angle.new_full((n_modes,), 2.0)  # the modes of -k are the conjugates
    weight[0] = 1.0
    return torch.cat([weight * angle.cos(), -weight * angle.sin()], dim=1).to(device, dtype)


@kept
def _analysis(n: int, n_modes: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "part_and_k n_and_part"]:
    # exp(-ix) (a + ib) = (a cos x + b sin x) + i (b cos x - a sin x)
    angle = _angles(n, [*range(n_modes), *range(-n_modes, 0)])
    cos, sin = angle.cos() / n, angle.sin() / n
    return torch.stack([torch.cat([cos, -sin]), torch.cat([sin, cos])], dim=2).flatten(1).to(device, dtype)


@kept
def _synthesis(
    n: int, n_modes: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "n_and_part part_and_k"]:
    return _analysis(n, n_modes, torch.float64, torch.device("cpu")).T.mul(n).to(device, dtype)


def _angles(n: int, wavenumbers: Sequence[int]) -> Float[Tensor, "k n"]:
    # Whole turns are dropped first, since large angles would lose digits.
    k, points = torch.tensor(wavenumbers, device="cpu"), torch.arange(n, device="cpu")
    turns = torch.remainder(torch.outer(k, points), n)
    return 2 * math.pi / n * turns.double()
