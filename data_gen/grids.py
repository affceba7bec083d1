"""The grid of a field: number of points, physical length, boundary condition and position of the points per axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Boundary = Literal["periodic", "dirichlet", "neumann", "open"]
Nodes = Literal["periodic", "closed", "centres"]

AXIS_NAMES = ("x", "y", "z")


@dataclass(frozen=True)
class Grid:
    """A uniform tensor-product grid on the box [0, L_1] x ... x [0, L_d].

    Attributes:
        shape: number of points per axis.
        lengths: physical length of the domain per axis.
        boundary: boundary condition per axis: periodic, dirichlet, neumann or open.
        nodes: positions of the points per axis: ``periodic`` (end point excluded, x_i = i L/n), ``closed`` (both ends,
            x_i = i L/(n-1)) or ``centres`` (cell centres, x_i = (i + 1/2) L/n).

    Raises:
        ValueError: the tuples disagree in length, or a value is out of range.

    >>> grid = Grid.periodic(4)
    >>> grid.shape, grid.spacing
    ((4, 4), (0.25, 0.25))
    >>> grid.coordinates()[0].tolist()
    [0.0, 0.25, 0.5, 0.75]
    """

    shape: tuple[int, ...]
    lengths: tuple[float, ...]
    boundary: tuple[Boundary, ...]
    nodes: tuple[Nodes, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.shape), len(self.lengths), len(self.boundary), len(self.nodes)}
        if len(sizes) != 1 or not 1 <= len(self.shape) <= len(AXIS_NAMES):
            raise ValueError(
                f"A Grid needs shape, lengths, boundary and nodes for each of 1 to 3 axes, got {self.shape}, "
                f"{self.lengths}, {self.boundary}, {self.nodes}."
            )
        for n in self.shape:
            if n < 2:
                raise ValueError(f"A grid axis needs at least 2 points, got shape {self.shape}. Raise the resolution.")
        for length in self.lengths:
            if not length > 0:
                raise ValueError(f"Domain lengths must be positive, got {self.lengths}.")
        for boundary, nodes in zip(self.boundary, self.nodes, strict=True):
            if boundary not in get_args(Boundary) or nodes not in get_args(Nodes):
                raise ValueError(
                    f"Unknown boundary or nodes ({boundary!r}, {nodes!r}): boundary is one of {get_args(Boundary)}, "
                    f"nodes one of {get_args(Nodes)}."
                )
            if (boundary == "periodic") != (nodes == "periodic"):
                raise ValueError(f"Periodic axes, and only they, have periodic nodes; got {boundary!r} with {nodes!r}.")

    @classmethod
    def periodic(cls, resolution: int, n_dims: int = 2, length: float = 1.0) -> Grid:
        """The torus with ``resolution`` points along each of ``n_dims`` axes of the given length."""
        return cls((resolution,) * n_dims, (length,) * n_dims, ("periodic",) * n_dims, ("periodic",) * n_dims)

    @property
    def n_dims(self) -> int:
        return len(self.shape)

    @property
    def n_points(self) -> int:
        return int(np.prod(self.shape))

    @property
    def axis_names(self) -> tuple[str, ...]:
        return AXIS_NAMES[: self.n_dims]

    @property
    def is_periodic(self) -> bool:
        """True if every axis is periodic."""
        return all(boundary == "periodic" for boundary in self.boundary)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring points per axis."""
        return tuple(
            length / (n - 1 if nodes == "closed" else n)
            for n, length, nodes in zip(self.shape, self.lengths, self.nodes, strict=True)
        )

    def coordinates(self) -> tuple[NDArray[np.float64], ...]:
        """Positions of the points along each axis, one array of shape [n] per axis, float64."""
        return tuple(
            (np.arange(n, dtype=np.float64) + (0.5 if nodes == "centres" else 0.0)) * h
            for n, h, nodes in zip(self.shape, self.spacing, self.nodes, strict=True)
        )

    def coarsen(self, factor: int | Fraction) -> Grid:
        """The grid with spacing ``factor`` times as large on the same domain.

        Raises:
            ValueError: the number of points (or of intervals, on a closed axis) isn't divisible.
        """
        shape = []
        for n, nodes in zip(self.shape, self.nodes, strict=True):
            closed = 1 if nodes == "closed" else 0
            intervals = (n - closed) / Fraction(factor)
            if intervals.denominator != 1:
                raise ValueError(f"A grid of shape {self.shape} can't be coarsened by {factor}: not a whole number.")
            shape.append(int(intervals) + closed)
        return replace(self, shape=tuple(shape))

    def refine(self, factor: int) -> Grid:
        """The grid with spacing ``1/factor`` times as large on the same domain."""
        return self.coarsen(Fraction(1, factor))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Grid:
        """Rebuild a grid from the JSON of ``dataclasses.asdict``."""
        return cls(**{name: tuple(entry) for name, entry in values.items()})
