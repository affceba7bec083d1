"""Points added beyond the far end of an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.grids import Nodes


def domain_padding(space: Sequence[int], nodes: Sequence[Nodes], fraction: float) -> tuple[int, ...]:
    """How many points per axis lengthen the domain by ``fraction`` of its length.

    The Fourier transform treats the padded axis as periodic, with period n_padded * spacing. That length is
    (1 + fraction) L at every resolution, up to rounding to whole points, so the modes are the same functions on every
    grid. An axis that is periodic already gets no points. A closed axis needs one point fewer: the period counts the
    interval from its last point on. Resolutions at which fraction n, or fraction (n - 1), is whole agree best.

        centres: n_pad = round(fraction n),    closed: n_pad = round(fraction (n - 1)) - 1,    periodic: n_pad = 0

    Args:
        space: points per axis.
        nodes: where the points lie on each axis (``data_gen.grids.Grid.nodes``).
        fraction: padding in units of the domain's length.

    Raises:
        ValueError: a fraction below 0 or above 1.

    >>> domain_padding((85, 169), ("closed", "closed"), 0.25)
    (20, 41)
    >>> domain_padding((64, 64, 10), ("periodic", "periodic", "centres"), 0.6)
    (0, 0, 6)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(
            f"model.padding is a fraction of the domain between 0 and 1, got {fraction}. For c of n points, give c/n."
        )
    return tuple(_points(n, kind, fraction) for n, kind in zip(space, nodes, strict=True))


def _points(n: int, nodes: Nodes, fraction: float) -> int:
    if nodes == "periodic":
        return 0
    if nodes == "closed":
        return max(0, round(fraction * (n - 1)) - 1)
    return round(fraction * n)


def pad(x: Float[Tensor, "batch channel *space"], n_points: Sequence[int]) -> Float[Tensor, "batch channel *padded"]:
    """Append ``n_points`` per space axis on the far side that lead from the last value back to the first.

        x_{n-1+j} = (1 - w_j) x_{n-1} + w_j x_0,    w_j = (1 - cos(pi j / (n_pad + 1))) / 2,    j = 1 ... n_pad

    The padded field is continuous on the periodic axis. Zeros, as in the published code of the FNO, leave a jump at
    both ends, whose Fourier coefficients depend on the spacing (docs/decisions/009-padding-closes-the-circle.md).
    """
    for axis, n in enumerate(n_points, start=2):
        if n:
            shape = [1] * x.ndim
            shape[axis] = n
            steps = torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
            weight = (0.5 - 0.5 * torch.cos(math.pi / (n + 1) * steps)).view(shape)
            last, first = x.narrow(axis, x.shape[axis] - 1, 1), x.narrow(axis, 0, 1)
            x = torch.cat([x, last + weight * (first - last)], dim=axis)
    return x


def crop(x: Float[Tensor, "batch channel *padded"], space: Sequence[int]) -> Float[Tensor, "batch channel *space"]:
    """The first ``space`` points of every axis; undoes ``pad``."""
    return x[(..., *(slice(n) for n in space))]


def pad_to_multiple(
    x: Float[Tensor, "batch channel *space"], multiple: int, nodes: Sequence[Nodes]
) -> Float[Tensor, "batch channel *padded"]:
    """Append points on the far side until every axis has a multiple of ``multiple`` points; ``crop`` undoes it.

    A periodic axis is continued with its own beginning, other axes with zeros. This is for networks that halve their
    grid. They depend on the spacing in any case, so the added length needn't be a fraction of the domain.

    >>> pad_to_multiple(torch.ones(1, 1, 85, 64), 16, ("closed", "periodic")).shape
    torch.Size([1, 1, 96, 64])
    """
    for axis, kind in enumerate(nodes, start=2):
        n = x.shape[axis]
        n_added = -n % multiple
        if n_added and kind == "periodic":
            x = x.index_select(axis, torch.arange(n + n_added, device=x.device) % n)
        elif n_added:
            x = torch.cat([x, x.new_zeros(*x.shape[:axis], n_added, *x.shape[axis + 1 :])], dim=axis)
    return x
