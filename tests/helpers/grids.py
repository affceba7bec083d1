"""Grids of any shape."""

from __future__ import annotations

from data_gen.grids import Grid


def closed(*shape: int) -> Grid:
    """Nodes on both ends of every axis, on the unit box."""
    n = len(shape)
    return Grid(shape, (1.0,) * n, ("dirichlet",) * n, ("closed",) * n)


def periodic(*shape: int, length: float = 1.0) -> Grid:
    """A torus with sides of the given length."""
    n = len(shape)
    return Grid(shape, (length,) * n, ("periodic",) * n, ("periodic",) * n)
