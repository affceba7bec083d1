"""Steady flow in channels against exact and published solutions."""

import functools

import numpy as np
import pytest

from benchmarks.cylinder import DRAG, drag, flow, unconfined, wake
from data_gen.solvers.steady_flow import NotConverged, SteadyFlow, solve


@functools.cache
def cylinder(refinement: int) -> SteadyFlow:
    found, _ = flow(10 * refinement)
    return found


def test_flow_past_a_cylinder_is_that_of_the_published_benchmark() -> None:
    errors = [abs(drag(cylinder(refinement)) / DRAG - 1) for refinement in (1, 2)]
    assert errors[0] < 0.04
    assert errors[1] < errors[0] / 3  # of second order
    assert 0.0842 < wake(cylinder(2)) < 0.0852  # all participants of the benchmark


def test_a_cylinder_without_a_channel_has_the_published_drag_and_wake() -> None:
    found = unconfined([(5, 8), (10, 8), (20, 8), (5, 16), (10, 16)])
    assert 1.48 < found[0] < 1.56
    assert 2.13 < found[1] < 2.35


def test_velocities_have_no_divergence_and_balance_the_pressure() -> None:
    found = cylinder(1)
    divergence = np.diff(found.u, axis=0) + np.diff(found.v, axis=1)
    # Without cut faces all are of the same length.
    away = np.s_[40:]
    assert np.abs(divergence[away]).max() < 1e-12
    assert found.imbalance < 1e-6


def test_flow_without_obstacles_is_a_parabola() -> None:
    n = 16
    edges = np.arange(n + 1) / n
    inflow = np.diff(4 * (edges**2 / 2 - edges**3 / 3)) * n
    found = solve(np.ones((4 * n + 1, n + 1)), (4.0, 1.0), inflow, 0.1)
    np.testing.assert_allclose(found.u, np.broadcast_to(inflow, found.u.shape), atol=4e-3)  # h^2
    np.testing.assert_allclose(np.diff(found.pressure[n:-n].mean(axis=1)) * n, -8 * 0.1, rtol=5e-3)


def test_a_mirrored_obstacle_has_the_mirrored_flow() -> None:
    x, y = np.meshgrid(np.arange(65) / 32, np.arange(33) / 32, indexing="ij")
    distance = np.hypot(x - 0.6, y - 0.37) - 0.13
    inflow = np.linspace(0.5, 1.0, 32)
    one = solve(distance, (2.0, 1.0), inflow, 0.02)
    other = solve(distance[:, ::-1], (2.0, 1.0), inflow[::-1], 0.02)
    for found, expected in ((other.u, one.u), (other.v, -one.v), (other.pressure, one.pressure)):
        np.testing.assert_allclose(found[:, ::-1], expected, atol=1e-7)


def test_a_grid_far_too_coarse_is_not_mistaken_for_a_flow() -> None:
    x, y = np.meshgrid(np.arange(33) / 16, np.arange(17) / 16, indexing="ij")
    with pytest.raises(NotConverged, match="more viscous"):
        solve(np.hypot(x - 0.6, y - 0.45) - 0.15, (2.0, 1.0), np.ones(16), 1e-5)
