"""Walls: the ends of closed axes with a Dirichlet condition. The solution has a given value at the points there."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from data_gen.grids import Grid


def wall_axes(grid: Grid) -> tuple[int, ...]:
    """The axes with a Dirichlet condition and points at both ends.

    >>> wall_axes(Grid((9, 8), (1.0, 1.0), ("dirichlet", "periodic"), ("closed", "periodic")))
    (0,)
    """
    kinds = zip(grid.boundary, grid.nodes, strict=True)
    return tuple(axis for axis, kind in enumerate(kinds) if kind == ("dirichlet", "closed"))


def wall_values(fields: Float[Tensor, "sample channel *space"], axes: tuple[int, ...]) -> Float[Tensor, "channel n"]:
    """All values at the walls of ``axes``, in float64."""
    walls = [
        fields.index_select(2 + axis, torch.tensor([0, fields.shape[2 + axis] - 1], device=fields.device))
        for axis in axes
    ]
    return torch.cat([values.transpose(0, 1).flatten(1) for values in walls], dim=1).double()
