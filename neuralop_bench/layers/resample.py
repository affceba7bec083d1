"""Interpolation of fields to another number of points on the same domain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.grids import Nodes
from neuralop_bench.layers.kept import kept
from neuralop_bench.layers.precision import unrounded

# Up to this many points an axis is interpolated by a product with a matrix, beyond it by picking points. Doubling the
# points on CPU, with the gradient, the product is 3 to 16 times as fast along the last axis. Along earlier axes it is 6
# to 1.5 times as fast for 16 to 512 points, except for 256 points, where it takes 1.5 times as long.
_MOST_POINTS = 512


def resample(
    x: Float[Tensor, "batch channel *space"], nodes: Sequence[Nodes], shape: Sequence[int]
) -> Float[Tensor, "batch channel *shape"]:
    """Linear interpolation along every axis in turn, between nodes of the same kind.

    Exact at shared nodes. A periodic axis is interpolated across its end. On an axis of cell centres, the value between
    an end and the nearest centre is that of the centre.

    Args:
        x: fields.
        nodes: where the points lie on each axis (``data_gen.grids.Grid.nodes``), in input and output.
        shape: points of the output per axis.

    >>> resample(torch.tensor([[[0.0, 1.0, 2.0]]]), ["closed"], [5]).tolist()
    [[[0.0, 0.5, 1.0, 1.5, 2.0]]]
    """
    for axis, (kind, n) in enumerate(zip(nodes, shape, strict=True), start=2):
        if x.shape[axis] != n:
            x = _as_product(x, axis, kind, n) if x.shape[axis] <= _MOST_POINTS else _along(x, axis, kind, n)
    return x


def _as_product(x: Tensor, axis: int, nodes: Nodes, n: int) -> Tensor:
    matrix = _matrix(x.shape[axis], nodes, n, x.dtype, x.device)
    before, behind = x.shape[:axis], x.shape[axis + 1 :]
    # Interpolation keeps the precision of the field, also under autocast.
    with unrounded(x):
        if not behind:
            return x @ matrix.T
        columns = x.reshape(before.numel(), x.shape[axis], behind.numel())
        return torch.bmm(matrix.expand(len(columns), -1, -1), columns).view(*before, n, *behind)


@kept
def _matrix(n_given: int, nodes: Nodes, n: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n n_given"]:
    with torch.no_grad():
        return _along(torch.eye(n_given, dtype=dtype, device="cpu"), 0, nodes, n).to(device)


def _along(x: Tensor, axis: int, nodes: Nodes, n: int) -> Tensor:
    n_given = x.shape[axis]
    index = torch.arange(n, dtype=torch.float64, device=x.device)
    # Position of every output node in units of the input's spacing, counted from the input's first node. Whole numbers
    # are multiplied before they are divided, so that the positions of shared nodes are exact.
    if nodes == "periodic":
        position = index * n_given / n
    elif nodes == "closed":
        position = index * (n_given - 1) / max(n - 1, 1)
    else:
        position = (((2 * index + 1) * n_given - n) / (2 * n)).clamp(0, n_given - 1)
    below = position.floor().clamp(max=n_given - 1).long()
    above = (below + 1) % n_given if nodes == "periodic" else (below + 1).clamp(max=n_given - 1)
    weight = (position - below).to(x.dtype).view(-1, *(1,) * (x.ndim - axis - 1))
    return torch.lerp(x.index_select(axis, below), x.index_select(axis, above), weight)
