"""Coordinates as input channels. They are made from the input's shape, so that models run at any resolution."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.grids import Nodes
from neuralop_bench.layers.precision import widened


def append_coordinates(
    x: Float[Tensor, "batch channel *space"], nodes: tuple[Nodes, ...]
) -> Float[Tensor, "batch channel_and_axes *space"]:
    """Concatenate one channel per space axis: the position in [0, 1] along it.

    Args:
        x: fields.
        nodes: where the points lie on each axis (``data_gen.grids.Grid.nodes``).
    """
    x = widened(x)  # in bfloat16, neighbours on a fine grid would get the same position
    space = x.shape[2:]
    axes = [_positions(n, kind, x) for n, kind in zip(space, nodes, strict=True)]
    mesh = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return torch.cat([x, mesh.expand(x.shape[0], *mesh.shape)], dim=1)


def _positions(n: int, nodes: Nodes, like: Tensor) -> Tensor:
    index = torch.arange(n, dtype=like.dtype, device=like.device)
    if nodes == "periodic":
        return index / n
    if nodes == "closed":
        return index / (n - 1)
    return (index + 0.5) / n


def append_distances(
    x: Float[Tensor, "batch channel *space"], nodes: tuple[Nodes, ...], n_references: int
) -> Float[Tensor, "batch channel_and_reference *space"]:
    """Concatenate one channel per reference point: the distance to it, with positions in [0, 1] along every axis.

    The references are a lattice with ``n_references`` points per axis, including both ends.

    Args:
        x: fields.
        nodes: where the points lie on each axis (``data_gen.grids.Grid.nodes``).
        n_references: reference points per axis.

    Reference: Wu et al. (2024), Transolver, arXiv 2402.02366, the "unified position" of its code.
    """
    x = widened(x)
    space = x.shape[2:]
    squares = torch.zeros((), dtype=x.dtype, device=x.device)
    for axis, (n, kind) in enumerate(zip(space, nodes, strict=True)):
        references = torch.linspace(0, 1, n_references, dtype=x.dtype, device=x.device)
        square = (references[:, None] - _positions(n, kind, x)).square()
        shape = [1] * (2 * len(space))
        shape[axis], shape[len(space) + axis] = square.shape
        squares = squares + square.view(shape)
    distances = squares.sqrt().flatten(0, len(space) - 1)
    return torch.cat([x, distances.expand(x.shape[0], *distances.shape)], dim=1)
