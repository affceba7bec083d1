"""Steady flow in channels against exact and published solutions."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from data_gen.solvers.steady_flow import NotConverged, SteadyFlow, solve

# The benchmark 2D-1 of Schäfer & Turek (1996), Benchmark computations of laminar flow around a cylinder: a channel of
# 2.2 x 0.41 with a cylinder of diameter 0.1 at (0.2, 0.2), Reynolds number 20 of the mean inflow 0.2.
LENGTH, HEIGHT, CENTRE, DIAMETER, VISCOSITY = 2.2, 0.41, 0.2, 0.1, 1e-3


@dataclass(frozen=True)
class Cylinder:
    flow: SteadyFlow
    spacing: float

    @property
    def drag(self) -> float:
        """Drag coefficient, by the balance of momentum between two cross-sections."""
        u, p, h = self.flow.u, self.flow.pressure, self.spacing
        first, last = (round(x / h) for x in (0.05, 0.6))

        def through(i: int) -> float:
            density = (p[i] + p[i - 1]) / 2 + u[i] ** 2 - VISCOSITY * (u[i + 1] - u[i - 1]) / (2 * h)
            return float(density.sum() * h)

        between = u[first : last + 1]
        slopes = (9 * (between[:, 0] + between[:, -1]) - between[:, 1] - between[:, -2]) / (3 * h)
        friction = VISCOSITY * np.trapezoid(slopes, dx=h)
        return (through(first) - through(last) - float(friction)) * 2 / (DIAMETER * 0.2**2)

    @property
    def wake(self) -> float:
        """Length of the zone behind the cylinder in which fluid flows back."""
        middles = (np.arange(self.flow.u.shape[1]) + 0.5) * self.spacing
        x = np.arange(len(self.flow.u)) * self.spacing
        on_axis = np.array([np.interp(CENTRE, middles, row) for row in self.flow.u])
        i = np.flatnonzero((x > CENTRE + DIAMETER / 2 + self.spacing) & (on_axis > 0))[0]
        return float(np.interp(0, on_axis[i - 1 : i + 1], x[i - 1 : i + 1])) - CENTRE - DIAMETER / 2


@functools.cache
def cylinder(refinement: int) -> Cylinder:
    h = 0.01 / refinement
    edges = np.arange(41 * refinement + 1) * h
    x, y = np.meshgrid(np.arange(220 * refinement + 1) * h, edges, indexing="ij")
    inflow = np.diff(1.2 * (edges**2 / 2 * HEIGHT - edges**3 / 3) / HEIGHT**2) / h
    distance = np.hypot(x - CENTRE, y - CENTRE) - DIAMETER / 2
    return Cylinder(solve(distance, (LENGTH, HEIGHT), inflow, VISCOSITY), h)


def test_flow_past_a_cylinder_is_that_of_the_published_benchmark() -> None:
    # Drag 5.5795 (Nabh 1998, On high order methods for the stationary incompressible Navier-Stokes equations), wake
    # between 0.0842 and 0.0852.
    errors = [abs(cylinder(refinement).drag / 5.5795 - 1) for refinement in (1, 2)]
    assert errors[0] < 0.04
    assert errors[1] < errors[0] / 3  # of second order
    assert 0.0842 < cylinder(2).wake < 0.0852


def test_velocities_have_no_divergence_and_balance_the_pressure() -> None:
    flow = cylinder(1).flow
    divergence = np.diff(flow.u, axis=0) + np.diff(flow.v, axis=1)
    # Without cut faces all are of the same length.
    away = np.s_[40:]
    assert np.abs(divergence[away]).max() < 1e-12
    assert flow.imbalance < 1e-6


def test_flow_without_obstacles_is_a_parabola() -> None:
    n = 16
    edges = np.arange(n + 1) / n
    inflow = np.diff(4 * (edges**2 / 2 - edges**3 / 3)) * n
    flow = solve(np.ones((4 * n + 1, n + 1)), (4.0, 1.0), inflow, 0.1)
    np.testing.assert_allclose(flow.u, np.broadcast_to(inflow, flow.u.shape), atol=4e-3)  # h^2
    np.testing.assert_allclose(np.diff(flow.pressure[n:-n].mean(axis=1)) * n, -8 * 0.1, rtol=5e-3)


def test_a_mirrored_obstacle_has_the_mirrored_flow() -> None:
    x, y = np.meshgrid(np.arange(65) / 32, np.arange(33) / 32, indexing="ij")
    distance = np.hypot(x - 0.6, y - 0.37) - 0.13
    inflow = np.linspace(0.5, 1.0, 32)
    flow = solve(distance, (2.0, 1.0), inflow, 0.02)
    other = solve(distance[:, ::-1], (2.0, 1.0), inflow[::-1], 0.02)
    for found, expected in ((other.u, flow.u), (other.v, -flow.v), (other.pressure, flow.pressure)):
        np.testing.assert_allclose(found[:, ::-1], expected, atol=1e-7)


def test_a_grid_far_too_coarse_is_not_mistaken_for_a_flow() -> None:
    x, y = np.meshgrid(np.arange(33) / 16, np.arange(17) / 16, indexing="ij")
    with pytest.raises(NotConverged, match="more viscous"):
        solve(np.hypot(x - 0.6, y - 0.45) - 0.15, (2.0, 1.0), np.ones(16), 1e-5)
