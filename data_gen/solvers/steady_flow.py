"""Steady incompressible flow past obstacles in a two-dimensional channel.

    (u . grad) u = -grad p + viscosity Laplacian u,    div u = 0

on [0, Lx] x [0, Ly]. The velocity is given at the inlet x = 0. At the outlet x = Lx, -p + viscosity du/dx = 0 and
dv/dx = 0. Fluid sticks to the walls y = 0, y = Ly and to the obstacles.

Velocities are on the faces of cells, and pressures at their centres (Harlow & Welch 1965, Phys. Fluids 8, 2182). Where
an obstacle cuts a face, the velocity is the mean over the open part of the face, and belongs to its middle. Central
differences use the distances between these middles, or to the wall, so that boundaries needn't follow the grid. (Cheny
& Botella 2010, J. Comput. Phys. 229, 1043, cut faces in the same way.)

The unknowns are values of the stream function at the corners of cells, and one value for each obstacle. Velocities
that are made of them have no divergence, and the sum of the momentum equation along a closed path from cell to cell
contains no pressure (Chang, Giraldo & Perot 2002, J. Comput. Phys. 180, 183). Newton's method finds them, and the
pressure follows from a Poisson equation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import scipy.sparse as sp
from numpy.typing import NDArray

from data_gen.solvers.factorisation import factorised, nested_dissection

Array = NDArray[np.float64]
Indices = NDArray[np.intp]

# An open part of a face is at least this share of the face, and a wall at least this share of a spacing away. Smaller
# ones cost digits: a velocity is a difference of the stream function divided by the share.
_LEAST_SHARE = 1e-2

# Newton's method keeps a factorisation as long as every step is at most this fraction of the one before.
_CONTRACTION = 0.3
_MOST_STEPS = 60
_MOST_FACTORISATIONS = 12
# If it fails, it goes through flows that are up to so many times as viscous, in factors that are at least so large.
MOST_VISCOUS = 16.0
_LEAST_FACTOR = 1.05
_LEAST_FACTOR_IF_ANOTHER_COUNTS = 1.4

# The first solution is found on a grid with at least this many cells along y, and then refined.
_COARSEST = 48
_COARSE_TOLERANCE = 1e-3

_LEAST_PIVOT = 1e-2


class SteadyFlow(NamedTuple):
    """A flow on a grid of nx x ny cells.

    u: velocity along x on the faces between cells along x, [nx + 1, ny].
    v: velocity along y, [nx, ny + 1].
    pressure: at the centres, [nx, ny]; 0 inside of obstacles.
    n_factorisations: sparse factorisations on the finest grid.
    imbalance: largest residual of the momentum equation with this pressure, relative to the largest pressure gradient.
    """

    u: Array
    v: Array
    pressure: Array
    n_factorisations: int
    imbalance: float


class NotConverged(ArithmeticError):
    """Newton's method didn't converge."""


def solve(
    distance: Array,
    lengths: tuple[float, float],
    inflow: Array,
    viscosity: float,
    *,
    wall_speed: float = 0.0,
    tolerance: float = 1e-8,
    most_viscous: float = 1.0,
) -> SteadyFlow:
    """The steady flow that is connected with the slow one by flows of decreasing viscosity. It may be unstable.

    Args:
        distance: signed distance to the obstacles at the corners of cells, [nx + 1, ny + 1], positive in the fluid.
            No obstacle may reach the boundary.
        lengths: of the channel along x and y.
        inflow: velocity along x on the faces of the inlet, [ny].
        viscosity: kinematic.
        wall_speed: velocity of both walls along x.
        tolerance: largest last change of the stream function, relative to the flow rate.
        most_viscous: if Newton's method fails at this viscosity, the flow at the least one that was reached counts, up
            to so many times as viscous.

    Raises:
        NotConverged: no such flow was found.
    """
    grids = [(distance, inflow)]
    while grids[-1][0].shape[1] > 2 * _COARSEST and all((n - 1) % 2 == 0 for n in grids[-1][0].shape):
        finer, profile = grids[-1]
        grids.append((finer[::2, ::2], profile.reshape(-1, 2).mean(axis=1)))
    least_factor = _LEAST_FACTOR if most_viscous == 1 else _LEAST_FACTOR_IF_ANOTHER_COUNTS
    start: tuple[Array, float] | None = None  # stream function and viscosity on the grid before
    for corners, profile in reversed(grids):
        channel = _Channel.of(corners, lengths, profile, wall_speed)
        is_last = corners is distance
        needed = tolerance if is_last else max(tolerance, _COARSE_TOLERANCE)
        found = None
        if start is not None:
            found = _continued(channel, viscosity, channel.unknowns(_refined(start[0])), start[1], needed, least_factor)
        if found is None or found[1] > viscosity:
            slow = channel.creeping(), MOST_VISCOUS * viscosity
            found = _continued(channel, viscosity, *slow, needed, least_factor) or found
        if is_last and found is not None and found[1] <= most_viscous * viscosity:
            return channel.flow(found[0], found[1], found[2])
        start = None if found is None else (channel.stream_function(found[0]), found[1])
    raise NotConverged("Newton's method failed, also from more viscous flows")


def _continued(
    channel: _Channel, viscosity: float, z: Array, reached: float, tolerance: float, least_factor: float
) -> tuple[Array, float, int] | None:
    """Newton's method from the flow ``z`` of the viscosity ``reached``, which is that of another grid; if it fails,
    through flows of decreasing viscosity.

    Returns:
        The last flow that was found, its viscosity, and the number of factorisations; None if none was found.
    """
    found, total, tried = None, 0, viscosity
    while True:
        try:
            z, count = channel.newton(tried, z, tolerance)
        except NotConverged:
            tried = math.sqrt(reached * tried)
            if reached < least_factor * tried:
                return found
            continue
        reached, total = tried, total + count
        found = z, reached, total
        if reached == viscosity:
            return found
        tried = viscosity


def _refined(corners: Array) -> Array:
    """Values at the corners of a grid with half the spacing, by cubic splines."""
    shape = np.array(corners.shape)
    return np.asarray(scipy.ndimage.zoom(corners, (2 * shape - 1) / shape, order=3))


class _Affine(NamedTuple):
    """w -> matrix w + constant."""

    matrix: sp.csr_array
    constant: Array

    def __call__(self, w: Array) -> Array:
        return self.matrix @ w + self.constant

    def __add__(self, other: _Affine) -> _Affine:  # type: ignore[override]
        return _Affine(self.matrix + other.matrix, self.constant + other.constant)


class _Side(NamedTuple):
    """What lies on one side of each face, along one axis.

    neighbour: number of the next face; -1 where there is a wall instead.
    distance: to the neighbour's middle, or to the wall.
    speed: of the wall.
    is_free: True at the outlet, behind which the velocity doesn't change.
    """

    neighbour: Indices
    distance: Array
    speed: Array
    is_free: NDArray[np.bool_]

    @classmethod
    def walls(cls, distance: Array) -> _Side:
        shape = distance.shape
        return cls(np.full(shape, -1), distance, np.zeros(shape), np.zeros(shape, dtype=bool))


class _Faces:
    """The faces that are normal to the first axis of an array of corners.

    Args:
        distance: signed distance at the corners, [m + 1, n + 1].
        number: of each face among all velocities, [m + 1, n].
        spacing: along the first and the second axis.
    """

    def __init__(self, distance: Array, number: Indices, spacing: tuple[float, float]) -> None:
        low, high = distance[:, :-1], distance[:, 1:]
        cut = low / np.where(low == high, 1, low - high)
        # The open part, as shares of the face.
        self.start = np.where((low <= 0) & (high > 0), np.minimum(cut, 1 - _LEAST_SHARE), 0)
        self.end = np.where(high > 0, 1, np.where(low > 0, np.maximum(cut, _LEAST_SHARE), 0))
        self.middle = (self.start + self.end) / 2
        self.is_open = self.end > self.start
        self.number = number
        self._distance, self._spacing = distance, spacing

    def across(self) -> tuple[_Side, _Side]:
        """The sides before and behind every face. The first and the last faces have nothing outside."""
        later, earlier = np.s_[1:], np.s_[:-1]
        sides = []
        for here, there in ((later, earlier), (earlier, later)):
            side = _Side.walls(np.full(self.number.shape, self._spacing[0]))
            weight = self.middle[here]
            own, other = (
                (1 - weight) * corners[:, :-1] + weight * corners[:, 1:]
                for corners in (self._distance[here], self._distance[there])
            )
            to_wall = np.clip(own / np.where(own > other, own - other, 1), _LEAST_SHARE, 1)
            is_open = self.is_open[there]
            side.neighbour[here] = np.where(is_open, self.number[there], -1)
            side.distance[here] *= np.where(is_open, 1, to_wall)
            sides.append(side)
        return sides[0], sides[1]

    def along(self, first: float, last: float | None) -> tuple[_Side, _Side]:
        """The sides to the left and to the right along the faces. ``first`` and ``last`` are the speeds of the walls at
        the ends; None for an outlet."""
        later, earlier = np.s_[:, 1:], np.s_[:, :-1]
        sides = []
        for sign, here, there, end, speed, to_wall, is_whole in (
            (-1, later, earlier, np.s_[:, 0], first, self.middle - self.start, self.start == 0),
            (1, earlier, later, np.s_[:, -1], last, self.end - self.middle, self.end == 1),
        ):
            side = _Side.walls(np.maximum(to_wall, _LEAST_SHARE / 2))
            meets = is_whole[here] & self.is_open[there]
            gap = 1 + sign * (self.middle[there] - self.middle[here])
            side.neighbour[here] = np.where(meets, self.number[there], -1)
            side.distance[here] = np.where(meets, gap, side.distance[here])
            if speed is None:
                side.is_free[end] = is_whole[end]
                side.distance[end] = np.where(is_whole[end], 1, side.distance[end])
            else:
                side.speed[end] = np.where(is_whole[end], speed, 0)
            sides.append(side._replace(distance=side.distance * self._spacing[1]))
        return sides[0], sides[1]


def _derivatives(faces: _Faces, sides: tuple[_Side, _Side], rows: NDArray[np.bool_], n: int) -> tuple[_Affine, _Affine]:
    """First and second derivative of the velocity at some faces (``rows``) from both sides; upstream at the outlet."""
    before, behind = sides
    width = before.distance + behind.distance
    # Weights of the slopes before and behind a face.
    free, near, far = behind.is_free, before.distance, np.where(behind.is_free, 1, behind.distance)
    first = (np.where(free, 1, far / width) / near, np.where(free, 0, near / width) / far)
    second = (-2 / width / near, np.where(free, 0, 2 / width) / far)
    return tuple(_sum_of_slopes(faces, sides, weights, rows, n) for weights in (first, second))  # type: ignore[return-value]


def _sum_of_slopes(
    faces: _Faces, sides: tuple[_Side, _Side], weights: tuple[Array, Array], rows: NDArray[np.bool_], n: int
) -> _Affine:
    """weights[0] (w - w_before) + weights[1] (w_behind - w)."""
    entries: list[tuple[Array, Indices, Indices]] = []
    constant = np.zeros(n)
    for sign, side, weight in ((-1, sides[0], weights[0]), (1, sides[1], weights[1])):
        entries.append((-sign * weight[rows], faces.number[rows], faces.number[rows]))
        is_inner = rows & (side.neighbour >= 0)
        entries.append((sign * weight[is_inner], faces.number[is_inner], side.neighbour[is_inner]))
        is_wall = rows & (side.neighbour < 0)
        constant[faces.number[is_wall]] += sign * (weight * side.speed)[is_wall]
    return _Affine(_matrix(entries, (n, n)), constant)


def _matrix(entries: list[tuple[Array, Indices, Indices]], shape: tuple[int, int]) -> sp.csr_array:
    """From (values, rows, columns)."""
    values, rows, columns = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    return sp.csr_array((values, (rows, columns)), shape=shape)


@dataclass(frozen=True)
class _Channel:
    """The discrete equations on one grid.

    All velocities are in one vector w: those along x, [nx + 1, ny], then those along y, [nx, ny + 1]. w = base +
    velocities z for the unknowns z: the stream function at the free corners, in the order of ``corners``, then at the
    obstacles.

    Attributes:
        along: derivative of each velocity along its own axis.
        across: along the other axis.
        laplacian: of each velocity.
        other: at each velocity, the mean of the four next ones along the other axis.
        velocities, base: from the unknowns to the velocities.
        circulation: from the residuals of the momentum equation to their sums around the unknowns.
        steps: distance between the pressures on both sides of a face; 0 where no momentum equation is solved.
        corners: indices of the free corners, in an order that keeps factorisations sparse.
        obstacles: number of the obstacle at each corner, [nx + 1, ny + 1]; 0 in the fluid.
        given: the stream function on the boundary; 0 elsewhere, [nx + 1, ny + 1].
    """

    shape: tuple[int, int]
    along: _Affine
    across: _Affine
    laplacian: _Affine
    other: sp.csr_array
    velocities: sp.csr_array
    base: Array
    circulation: sp.csr_array
    steps: Array
    corners: tuple[Indices, Indices]
    obstacles: NDArray[np.int32]
    given: Array

    @classmethod
    def of(cls, distance: Array, lengths: tuple[float, float], inflow: Array, wall_speed: float) -> _Channel:
        nx, ny = (n - 1 for n in distance.shape)
        hx, hy = lengths[0] / nx, lengths[1] / ny
        n_u, n_v = (nx + 1) * ny, nx * (ny + 1)
        n = n_u + n_v
        number_u = np.arange(n_u).reshape(nx + 1, ny)
        number_v = np.arange(n_u, n).reshape(nx, ny + 1)
        u, v = _Faces(distance, number_u, (hx, hy)), _Faces(distance.T, number_v.T, (hy, hx))
        # The velocity through the inlet and the walls is given.
        rows_u, rows_v = u.is_open.copy(), v.is_open.copy()
        rows_u[0] = rows_v[0] = rows_v[-1] = False

        u_across = u.across()
        u_across[1].is_free[-1] = u.is_open[-1]
        u_across[1].distance[-1] = 0  # the volume of a face of the outlet ends there
        u_x, u_xx = _derivatives(u, u_across, rows_u, n)
        u_y, u_yy = _derivatives(u, u.along(wall_speed, wall_speed), rows_u, n)
        v_y, v_yy = _derivatives(v, v.across(), rows_v, n)
        v_x, v_xx = _derivatives(v, v.along(0.0, None), rows_v, n)

        four_v = [number_v[i : nx - 1 + i, j : ny + j] for i in (0, 1) for j in (0, 1)]
        four_u = [number_u[i : nx + i, j : ny - 1 + j] for i in (0, 1) for j in (0, 1)]
        two_v = [number_v[-1, j : ny + j] for j in (0, 1)]
        means = [
            (np.full(here.sum(), 1 / len(numbers)), target[here], source[here])
            for target, here, numbers in (
                (number_u[1:-1], rows_u[1:-1], four_v),
                (number_u[-1], rows_u[-1], two_v),
                (number_v[:, 1:-1], rows_v.T[:, 1:-1], four_u),
            )
            for source in numbers
        ]

        number = np.arange(distance.size).reshape(distance.shape)
        ends = [
            (np.full(faces.is_open.sum(), sign), faces.number[faces.is_open], corner[faces.is_open])
            for faces, corners, sign in ((u, number, 1.0), (v, number.T, -1.0))
            for sign, corner in ((sign, corners[:, 1:]), (-sign, corners[:, :-1]))
        ]
        differences = _matrix(ends, (n, distance.size))
        open_lengths = np.zeros(n)
        open_lengths[number_u], open_lengths[number_v] = hy * (u.end - u.start), hx * (v.end - v.start).T
        curl = sp.diags_array(1 / np.where(open_lengths > 0, open_lengths, 1)) @ differences

        obstacles = np.empty(distance.shape, dtype=np.int32)
        scipy.ndimage.label(distance <= 0, structure=np.ones((3, 3)), output=obstacles)
        is_free = obstacles == 0
        is_free[0] = is_free[:, 0] = is_free[:, -1] = False
        given = np.zeros(distance.shape)
        given[0, 1:] = np.cumsum(inflow * hy)
        given[:, -1] = given[0, -1]
        x, y = np.nonzero(is_free)
        order = nested_dissection(x, y, n_lines=2)  # an equation reaches over two corners
        corners = x[order], y[order]
        column = np.where(obstacles > 0, len(corners[0]) - 1 + obstacles, -1)
        column[corners] = np.arange(len(corners[0]))
        is_unknown = column >= 0
        spread = _matrix(
            [(np.ones(is_unknown.sum()), number[is_unknown], column[is_unknown])],
            (distance.size, len(corners[0]) + int(obstacles.max())),
        )

        steps = np.zeros(n)
        steps[number_u], steps[number_v] = hx * rows_u, hy * rows_v.T
        steps[number_u[-1]] /= 2
        return cls(
            (nx, ny),
            along=u_x + v_y,
            across=u_y + v_x,
            laplacian=u_xx + u_yy + v_xx + v_yy,
            other=_matrix(means, (n, n)),
            velocities=(curl @ spread).tocsr(),
            base=curl @ given.ravel(),
            circulation=((differences @ spread).T @ sp.diags_array(steps)).tocsr(),
            steps=steps,
            corners=corners,
            obstacles=obstacles,
            given=given,
        )

    def creeping(self) -> Array:
        """The flow without inertia."""
        matrix = self.circulation @ self.laplacian.matrix @ self.velocities
        return -factorised(matrix, pivots_below=_LEAST_PIVOT, is_ordered=True).solve(
            self.circulation @ self.laplacian(self.base)
        )

    def newton(self, viscosity: float, z: Array, tolerance: float) -> tuple[Array, int]:
        """Unknowns of a flow, and how many factorisations they took.

        Raises:
            NotConverged: the steps don't become small.
        """
        scale = np.abs(self.given).max()
        w, residual = self._residual(z, viscosity)
        factors, count, last = None, 0, np.inf
        for _ in range(_MOST_STEPS):
            if factors is None:
                if count == _MOST_FACTORISATIONS:
                    break
                jacobian = self._jacobian(w, viscosity)
                factors = factorised(jacobian, pivots_below=_LEAST_PIVOT, is_ordered=True)
                count, is_fresh = count + 1, True
            step = factors.solve(residual)
            change, size = np.abs(step).max() / scale, np.linalg.norm(residual)
            if change <= tolerance:
                return z - step, count
            for damping in (1, 0.5, 0.25, 0.125):
                w, residual = self._residual(z - damping * step, viscosity)
                if np.linalg.norm(residual) < size:
                    break
            else:
                if is_fresh:
                    break
            z = z - damping * step
            if damping < 1 or change > _CONTRACTION * last:
                factors = None
            is_fresh, last = False, change
        raise NotConverged

    def _residual(self, z: Array, viscosity: float) -> tuple[Array, Array]:
        """The velocities, and the sums of the momentum equation around the unknowns."""
        w = self.base + self.velocities @ z
        return w, self.circulation @ self._momentum(w, viscosity)

    def _momentum(self, w: Array, viscosity: float) -> Array:
        return w * self.along(w) + (self.other @ w) * self.across(w) - viscosity * self.laplacian(w)

    def _jacobian(self, w: Array, viscosity: float) -> sp.csc_array:
        diagonal = sp.diags_array
        matrix = (
            diagonal(w) @ self.along.matrix
            + diagonal(self.along(w))
            + diagonal(self.other @ w) @ self.across.matrix
            + diagonal(self.across(w)) @ self.other
            - viscosity * self.laplacian.matrix
        )
        return self.circulation @ matrix @ self.velocities

    def unknowns(self, stream_function: Array) -> Array:
        """From values at all corners."""
        numbers = np.arange(1, self.obstacles.max() + 1)
        of_obstacles = scipy.ndimage.mean(stream_function, self.obstacles, numbers)
        return np.concatenate([stream_function[self.corners], np.atleast_1d(of_obstacles)])

    def stream_function(self, z: Array) -> Array:
        """At all corners, [nx + 1, ny + 1]."""
        values, n = self.given.copy(), len(self.corners[0])
        values[self.corners] = z[:n]
        inside = self.obstacles > 0
        values[inside] = z[n:][self.obstacles[inside] - 1]
        return values

    def flow(self, z: Array, viscosity: float, n_factorisations: int) -> SteadyFlow:
        w = self.base + self.velocities @ z
        residual = self._momentum(w, viscosity)
        nx, ny = self.shape
        n_u = (nx + 1) * ny
        number = np.arange(nx * ny).reshape(nx, ny)
        u, v = np.arange(n_u).reshape(nx + 1, ny), np.arange(n_u, len(w)).reshape(nx, ny + 1)
        sides = ((u[1:], -1.0), (u[:-1], 1.0), (v[:, 1:], -1.0), (v[:, :-1], 1.0))
        entries = [(np.full(nx * ny, sign), faces.ravel(), number.ravel()) for faces, sign in sides]
        gradient = sp.diags_array((self.steps > 0).astype(float)) @ _matrix(entries, (len(w), nx * ny))
        laplacian = gradient.T @ gradient
        closed = laplacian.diagonal() == 0
        drop = -self.steps * residual
        regular = (laplacian + sp.diags_array(closed.astype(float))).tocsc()
        pressure = factorised(regular).solve(gradient.T @ drop)
        imbalance = np.abs(gradient @ pressure - drop).max() / np.abs(drop).max()
        return SteadyFlow(w[u], w[v], pressure.reshape(nx, ny), n_factorisations, float(imbalance))
