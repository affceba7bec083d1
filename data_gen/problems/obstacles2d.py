"""Steady laminar flow past obstacles in a channel.

    (u . grad) u = -grad p + (largest inflow * diameter / reynolds) Laplacian u,    div u = 0

in [0, 2] x [0, 1] without the obstacles. One to four of them are drawn, circles and rotated rectangles with rounded
corners. Their signed distance and the inflow are static fields; velocity and pressure are the state. The kind of task
of Ribeiro et al. (2020), DeepCFD, arXiv 2004.08826.

Above a Reynolds number of about 50 to 100, depending on the obstacles, such a flow is unstable: an experiment would
show a vortex street. The data are the steady solutions all the same, as in DeepCFD and in studies of stability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.random_fields import (
    Parameter,
    draw_parameters,
    given_parameters,
    in_words,
    require_parameter,
    varying,
)
from data_gen.regrid import regrid
from data_gen.solvers import steady_flow
from data_gen.spec import DatasetSpec, FieldSpec, Samples, SolverError

Array = NDArray[np.float64]

LENGTH = 2.0
# The Reynolds number refers to this length, a fifth of the channel's width.
DIAMETER = 0.2
# Largest Reynolds number of a cell of the solver's grid.
_LARGEST_CELL_REYNOLDS = 12.0
# After so many obstacles that had no place, all are drawn again.
_MOST_REFUSED = 50


@dataclass(frozen=True)
class Obstacle:
    """A rectangle whose corners are rounded; a circle if its sides vanish.

    Attributes:
        x, y: its centre.
        sides: half the sides of the rectangle within the rounding.
        radius: of the rounding.
        angle: in radians.
    """

    x: float
    y: float
    sides: tuple[float, float]
    radius: float
    angle: float

    def distance(self, x: Array, y: Array) -> Array:
        """Signed distance of points, positive outside."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = x - self.x, y - self.y
        across = np.abs(cos * x + sin * y) - self.sides[0]
        along = np.abs(cos * y - sin * x) - self.sides[1]
        outside = np.hypot(np.maximum(across, 0), np.maximum(along, 0))
        return outside + np.minimum(np.maximum(across, along), 0) - self.radius

    def gap(self, other: Obstacle) -> float:
        """Distance between the circles around two obstacles."""
        reach = np.hypot(*self.sides) + self.radius + np.hypot(*other.sides) + other.radius
        return float(np.hypot(self.x - other.x, self.y - other.y) - reach)


@dataclass(frozen=True)
class RandomObstacles:
    """Law of obstacles: a uniform number of them, one after another at uniform places that are still free.

    Attributes:
        fewest, most: how many.
        smallest, largest: radius of circles, and of the circles around rectangles.
        circles: share of circles.
        gap: least distance between the circles around two obstacles, and to the walls.
        first, last: where centres may lie along the channel.

    Raises:
        ValueError: a number is out of range; the message names it.
    """

    fewest: int = 1
    most: int = 4
    smallest: float = 0.06
    largest: float = 0.12
    circles: float = 0.5
    gap: float = 0.08
    first: float = 0.3
    last: float = 1.0

    def __post_init__(self) -> None:
        _require(
            1 <= self.fewest <= self.most <= 6, "obstacles.most", self.most, "at least obstacles.fewest, and at most 6"
        )
        _require(
            0 < self.smallest <= self.largest,
            "obstacles.largest",
            self.largest,
            "at least obstacles.smallest, and positive",
        )
        _require(0 <= self.circles <= 1, "obstacles.circles", self.circles, "a share, from 0 to 1")
        reach = self.largest + self.gap
        _require(
            self.gap > 0 and reach <= 0.25,
            "obstacles.gap",
            self.gap,
            "positive, and its sum with obstacles.largest at most 0.25, so that obstacles have room",
        )
        _require(
            reach <= self.first < self.last <= LENGTH - reach,
            "obstacles.last",
            self.last,
            f"above obstacles.first >= obstacles.largest + gap, and at most {LENGTH:g} - obstacles.largest - gap",
        )

    def draw(self, rng: np.random.Generator) -> list[Obstacle]:
        """Obstacles that keep the distances."""
        n = int(rng.integers(self.fewest, self.most, endpoint=True))
        placed: list[Obstacle] = []
        refused = 0
        while len(placed) < n:
            if refused == _MOST_REFUSED:
                placed, refused = [], 0
            own = self._one(rng)
            if all(own.gap(other) >= self.gap for other in placed):
                placed.append(own)
            else:
                refused += 1
        return placed

    def _one(self, rng: np.random.Generator) -> Obstacle:
        reach, share, is_circle = rng.uniform(self.smallest, self.largest), rng.uniform(0.2, 0.8), rng.random()
        x, y = rng.uniform(self.first, self.last), rng.uniform(reach + self.gap, 1 - reach - self.gap)
        angle = rng.uniform(0, np.pi)
        if is_circle < self.circles:
            return Obstacle(x, y, (0.0, 0.0), reach, angle)
        diagonal, slope = 0.75 * reach, 0.5 * np.pi * share
        return Obstacle(x, y, (diagonal * np.cos(slope), diagonal * np.sin(slope)), 0.25 * reach, angle)


@dataclass(frozen=True, kw_only=True)
class Obstacles2D:
    """Flow past obstacles as a dataset: equation, law of obstacles and inflows, and discretisation.

    Lengths are in units of the channel's width, velocities in units of the largest inflow without skewness, and the
    pressure in units of density times its square; it is 0 at the outlet. Inside of obstacles all fields are 0. The
    inflow is 4 y (1 - y) (1 + s (2 y - 1)) with s uniform in [-skewness, skewness].

    The solver (``data_gen.solvers.steady_flow``) is of second order. Its grid is finer than that of the file, which
    has the means over those of its cells whose centres are in the fluid. Measured relative L2 differences of
    velocity along the channel, across it, and of pressure from solutions on 256 x 512 cells, for four samples: 0.2 to
    0.4 %, 1 % and 0.5 % at a Reynolds number of 20 on 128 x 256 cells, 0.5 to 1.6 %, 2 to 4 % and 2 % at 100; four
    times as much on 64 x 128.

    Attributes:
        reynolds: Reynolds number, of the largest inflow and a length of 0.2.
        resolution: cells of the file across the channel; twice as many along it.
        solver_resolution: cells of the solver's grid across the channel, a multiple of ``resolution``.
        obstacles: law of the obstacles.
        skewness: largest skewness of the inflow, below 1.
        newton_tolerance: largest last change of the stream function in Newton's method, relative to the flow rate.
        most_viscous: where no flow is found at a sample's Reynolds number, take the one at the highest Reynolds number
            that works, at least the sample's own divided by this. ``at`` allows 16, for coarse grids.

    Raises:
        ValueError: a parameter is out of range; the message names it.
    """

    reynolds: Parameter = 40.0
    resolution: int = 64
    solver_resolution: int = 128
    obstacles: RandomObstacles = field(default_factory=RandomObstacles)
    skewness: float = 0.5
    newton_tolerance: float = 1e-6
    most_viscous: float = 1.0

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        require_parameter(self, "reynolds", positive="")
        _require(self.resolution >= 8, "resolution", self.resolution, "at least 8")
        _require(
            self.solver_resolution >= self.resolution and self.solver_resolution % self.resolution == 0,
            "solver_resolution",
            self.solver_resolution,
            f"a multiple of dataset.problem.resolution={self.resolution}",
        )
        largest = getattr(self.reynolds, "high", self.reynolds)
        needed = largest / DIAMETER / _LARGEST_CELL_REYNOLDS / self.most_viscous
        _require(
            self.solver_resolution >= needed,
            "solver_resolution",
            self.solver_resolution,
            f"at least {needed:.0f} for a Reynolds number of {largest:g}, because central differences oscillate on a "
            "coarser grid (or lower dataset.problem.reynolds)",
        )
        _require(0 <= self.skewness < 1, "skewness", self.skewness, "in [0, 1), so that nothing flows out of the inlet")
        _require(1e-12 <= self.newton_tolerance <= 1e-2, "newton_tolerance", self.newton_tolerance, "in [1e-12, 1e-2]")
        most = steady_flow.MOST_VISCOUS
        _require(1 <= self.most_viscous <= most, "most_viscous", self.most_viscous, f"in [1, {most:g}]")

    @property
    def spec(self) -> DatasetSpec:
        return DatasetSpec(
            name="obstacles2d",
            version=self.version,
            equation="(u·∇)u = -∇p + U d / Re ∇²u,  ∇·u = 0,  u = 0 on walls and obstacles",
            grid=_grid(self.resolution),
            times=(),
            state=(
                FieldSpec("velocity_x", "velocity along the channel u"),
                FieldSpec("velocity_y", "velocity across the channel v"),
                FieldSpec("pressure", "pressure p"),
            ),
            static=(
                FieldSpec("signed_distance", "distance to the nearest obstacle, negative inside, mean over a cell"),
                FieldSpec("inflow", "velocity at the inlet, the same along the channel"),
            ),
            parameters={
                "reynolds": in_words(self, "reynolds"),
                "diameter": DIAMETER,
                "solver_resolution": self.solver_resolution,
                "skewness": self.skewness,
                "newton_tolerance": self.newton_tolerance,
                **{f"obstacles_{name}": value for name, value in asdict(self.obstacles).items()},
            },
            conserved=("drag",),
            symmetries=("reflection_across_channel",),
            diagnostics=(
                FieldSpec("n_factorisations", "sparse factorisations on the finest grid"),
                FieldSpec("imbalance", "largest residual of the momentum equation, relative to the pressure's steps"),
            ),
            reference="Ribeiro et al. (2020), DeepCFD, arXiv 2004.08826",
            varying=varying(self),
            mask="signed_distance",
        )

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """Draw obstacles, inflows and Reynolds numbers, one of each per generator, and solve."""
        drawn = draw_parameters(self, rngs)
        reynolds = drawn.get("reynolds", np.full(len(rngs), self.reynolds))
        n, fine = self.resolution, self.solver_resolution
        solved = []
        for number, (rng, own) in enumerate(zip(rngs, reynolds, strict=True)):
            placed, skewness = self.obstacles.draw(rng), rng.uniform(-self.skewness, self.skewness)
            flow = self._flow(number, _distance(placed, fine, 0.0), _inflow(fine, skewness), own)
            distance = _distance(placed, fine, 0.5)
            static = np.stack([_merged(distance, n), np.broadcast_to(_inflow(n, skewness), (2 * n, n))])
            solved.append((_stored(flow, distance, static[0]), static, flow))
        return _samples(solved, drawn)

    def simulate_refined(self, rngs: Sequence[np.random.Generator]) -> Samples:
        """The same inputs solved with half the spacing, and given on the same grid."""
        return replace(self, solver_resolution=2 * self.solver_resolution).simulate(rngs)

    def solve(
        self,
        history: Array,
        static: Array,
        n_steps: int = 1,
        parameters: Mapping[str, Array] | None = None,
        *,
        dtype: type[np.floating] = np.float64,
    ) -> Samples:
        """Flows for given signed distances and inflows ``static`` [sample, 2, 2 n, n], solved on their own grid.

        Raises:
            ValueError: there is a history (a steady problem has none), the static fields have another shape, an
                obstacle touches the boundary, ``n_steps`` isn't 1, the Reynolds numbers are missing, or ``dtype`` isn't
                float64.
        """
        if static.ndim != 4 or static.shape[1] != 2 or static.shape[2] != 2 * static.shape[3]:
            raise ValueError(f"Obstacles2D.solve expected static fields [sample, 2, 2 n, n], got {static.shape}.")
        if history.shape[1] != 0 or n_steps != 1:
            raise ValueError("Obstacles2D is steady. Set dataset.history=0 and dataset.horizon=1.")
        if dtype is not np.float64:
            raise ValueError("Obstacles2D needs float64: velocities are differences of a stream function.")
        given = given_parameters(self, parameters, len(static))
        reynolds = given.get("reynolds", np.full(len(static), self.reynolds))
        solved = []
        for number, (own, value) in enumerate(zip(static.astype(np.float64), reynolds, strict=True)):
            corners = _at_corners(own[0])
            flow = self._flow(number, corners, own[1, 0], value)
            solved.append((_stored(flow, own[0], own[0]), own, flow))
        return _samples(solved, given)

    def at(self, grid: Grid) -> Obstacles2D:
        """The same problem solved, and stored, on another grid. Where a coarse grid has no steady flow at the Reynolds
        number of a sample, it gives the one at the highest Reynolds number that it can.

        Raises:
            ValueError: the grid isn't one of 2 n x n cells of the channel.
        """
        n = grid.shape[-1]
        if grid != _grid(n):
            raise ValueError(f"Obstacles2D needs a grid of 2 n x n cells of its channel, got {grid}.")
        return replace(self, resolution=n, solver_resolution=n, most_viscous=steady_flow.MOST_VISCOUS)

    def relaxed(self, factor: float) -> Obstacles2D:
        """The same equation and grid; Newton's method stops at a change ``factor`` times as large, at most 1e-2."""
        return replace(self, newton_tolerance=min(1e-2, factor * self.newton_tolerance))

    def _flow(self, number: int, corners: Array, inflow: Array, reynolds: float) -> steady_flow.SteadyFlow:
        if min(corners[0].min(), corners[-1].min(), corners[:, 0].min(), corners[:, -1].min()) <= 0:
            raise ValueError(
                f"Sample {number}: an obstacle touches the boundary of the channel. Keep it at least a cell away."
            )
        try:
            return steady_flow.solve(
                corners,
                (LENGTH, 1.0),
                inflow,
                DIAMETER / reynolds,
                tolerance=self.newton_tolerance,
                most_viscous=self.most_viscous,
            )
        except steady_flow.NotConverged as reason:
            raise SolverError(
                f"Sample {number}: no steady flow was found at a Reynolds number of {reynolds:.3g}: {reason}. Lower "
                "dataset.problem.reynolds, or raise solver_resolution."
            ) from reason


def _grid(resolution: int) -> Grid:
    return Grid((2 * resolution, resolution), (LENGTH, 1.0), ("open", "dirichlet"), ("centres", "centres"))


def _distance(placed: Sequence[Obstacle], resolution: int, offset: float) -> Array:
    """Signed distance at the centres of cells (offset 0.5) or at their corners (0)."""
    along, across = (np.arange(n + (offset == 0)) + offset for n in (2 * resolution, resolution))
    x, y = np.meshgrid(along / resolution, across / resolution, indexing="ij")
    return np.min([own.distance(x, y) for own in placed], axis=0)


def _at_corners(distance: Array) -> Array:
    """From values at the centres [2 n, n] to corners, by cubic interpolation; linear beyond the last centres."""
    values = np.pad(distance, 2, mode="reflect", reflect_type="odd")
    for _ in range(2):
        values = (9 * (values[1:-2] + values[2:-1]) - values[:-3] - values[3:]).T / 16
    return values


def _inflow(resolution: int, skewness: float) -> Array:
    """Means over the cells of the inlet of 4 y (1 - y) (1 + skewness (2 y - 1))."""
    y = np.arange(resolution + 1) / resolution
    symmetric, odd = y**2 / 2 - y**3 / 3, y**3 - y**4 / 2 - y**2 / 2
    return np.diff(4 * (symmetric + skewness * odd)) * resolution


def _merged(values: Array, resolution: int) -> Array:
    """Means over the cells of a coarser grid, [..., 2 n, n]."""
    return regrid(values, _grid(values.shape[-1]), _grid(resolution))


def _stored(flow: steady_flow.SteadyFlow, distance: Array, merged: Array) -> Array:
    """The state on the grid of the ``merged`` distances: means over those cells of the solver's grid whose ``distance``
    is positive."""
    fine = np.stack([(flow.u[1:] + flow.u[:-1]) / 2, (flow.v[:, 1:] + flow.v[:, :-1]) / 2, flow.pressure])
    is_fluid, n = distance > 0, merged.shape[-1]
    share = _merged(is_fluid.astype(np.float64), n)
    return np.where(merged > 0, _merged(fine * is_fluid, n) / np.where(share > 0, share, 1), 0)


def _samples(solved: Sequence[tuple[Array, Array, steady_flow.SteadyFlow]], parameters: Mapping[str, Array]) -> Samples:
    state, static, flows = zip(*solved, strict=True)
    trajectory = np.stack(state)[:, None]
    diagnostics = {
        "n_factorisations": np.array([float(flow.n_factorisations) for flow in flows]),
        "imbalance": np.array([flow.imbalance for flow in flows]),
    }
    return Samples(trajectory[:, :0], np.stack(static), trajectory, diagnostics, parameters)


def _require(holds: bool, name: str, value: float, condition: str) -> None:
    if not holds:
        raise ValueError(f"dataset.problem.{name} must be {condition}, got {value}.")
