"""Shallow water against exact solutions: water at rest, a dam that breaks, small waves, and a broken circle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import root_scalar

from data_gen.problems.shallow_water import CircularDam, ShallowWater, SmoothSurface


def solved(problem: ShallowWater, start: NDArray[np.float64]) -> NDArray[np.float64]:
    n = start.shape[-1]
    return problem.solve(start[None, None], np.empty((1, 0, *(n,) * problem.n_dims)), 1).trajectory[0, 0]


def broken(xi: NDArray[np.float64]) -> NDArray[np.float64]:
    """Depth on the rays x / t after a dam between depths 2 and 1 has broken at x = 0, with g = 1 (Stoker 1957,
    Water Waves, section 10.8): a rarefaction, a plateau, and a bore."""
    left, right = math.sqrt(2), 1.0

    def speed_of_bore(h: float) -> float:
        return math.sqrt(h * (h + 1) / 2)

    def mismatch(h: float) -> float:
        return 2 * (left - math.sqrt(h)) - (h - right) * math.sqrt((h + right) / (2 * h * right))

    plateau = root_scalar(mismatch, bracket=(1, 2)).root
    u = 2 * (left - math.sqrt(plateau))
    fan = (2 * left - xi) ** 2 / 9
    inside = np.where(xi < -left, 2.0, np.where(xi < u - math.sqrt(plateau), fan, plateau))
    return np.where(xi < speed_of_bore(plateau), inside, 1.0)


def test_a_broken_dam_converges_to_the_exact_solution() -> None:
    errors = []
    for n in (100, 200, 400):
        x = (np.arange(n) + 0.5) / n
        start = np.stack([np.where(x < 0.5, 2.0, 1.0), np.zeros(n)])
        problem = ShallowWater(
            n_dims=1,
            length=1.0,
            initial=SmoothSurface(),
            resolution=n,
            solver_resolution=n,
            interval=0.2,
            walls="outflow",
        )
        fine = (np.arange(20 * n) + 0.5) / (20 * n)
        reference = broken((fine - 0.5) / 0.2).reshape(n, 20).mean(axis=1)
        errors.append(np.abs(solved(problem, start)[0] - reference).mean())
    assert math.log2(errors[0] / errors[2]) / 2 > 0.8, errors
    assert errors[-1] < 2e-3


def test_water_at_rest_stays_at_rest() -> None:
    problem = ShallowWater(resolution=16, solver_resolution=16, interval=10.0)
    start = np.stack([np.full((16, 16), 1.37), np.zeros((16, 16)), np.zeros((16, 16))])
    np.testing.assert_array_equal(solved(problem, start), start)


def test_a_small_standing_wave_has_second_order() -> None:
    # h = 1 + a cos(pi x) cos(pi y) cos(sqrt(2) pi t), and a = 1e-6, so that what isn't linear is as small as 1e-12.
    a, t, errors = 1e-6, 0.4, []
    for n in (16, 32, 64):
        edges = np.sin(np.pi * np.linspace(0, 1, n + 1)) / np.pi
        wave = np.multiply.outer(np.diff(edges) * n, np.diff(edges) * n)
        still = np.zeros((2, n, n))
        problem = ShallowWater(length=1.0, resolution=n, solver_resolution=n, interval=t)
        depth = solved(problem, np.concatenate([1 + a * wave[None], still]))[0]
        errors.append(np.abs(depth - 1 - a * wave * math.cos(math.sqrt(2) * math.pi * t)).mean() / a)
    orders = [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert all(1.6 < order < 3 for order in orders), orders


def test_the_circle_has_its_area_and_its_edge() -> None:
    problem = ShallowWater(
        initial=CircularDam(smallest=0.13, largest=0.13), resolution=50, solver_resolution=50, n_snapshots=2
    )
    depth = problem.simulate([np.random.default_rng(0)]).history[0, 0, 0]
    assert (depth - 1).mean() == pytest.approx(math.pi * 0.13**2, rel=1e-12)
    centres = (np.arange(50) + 0.5) / 50 - 0.5
    radius = np.hypot(centres[:, None], centres[None, :])
    half_a_cell = math.sqrt(0.5) / 50
    assert depth[radius < 0.13 - half_a_cell] == pytest.approx(2.0, abs=1e-12)
    assert depth[radius > 0.13 + half_a_cell] == pytest.approx(1.0, abs=1e-12)
    # The share of cells on the edge, from points within them.
    fine = (np.arange(50 * 40) + 0.5) / (50 * 40) - 0.5
    inside = (np.hypot(fine[:, None], fine[None, :]) < 0.13).reshape(50, 40, 50, 40).mean(axis=(1, 3))
    assert np.abs(depth - 1 - inside).max() < 0.01


def radial(radius: float, time: float, n: int = 2000) -> NDArray[np.float64]:
    """Depth at n radii up to 2.5 after a circular dam has broken, by a scheme of first order from the equations of a
    flow that depends on the radius alone: (r h)_t + (r h u)_r = 0 and (r h u)_t + (r (h u^2 + h^2 / 2))_r = h^2 / 2."""
    dr = 2.5 / n
    r, faces = (np.arange(n) + 0.5) * dr, np.arange(n + 1) * dr
    h, m, t = np.where(r < radius, 2.0, 1.0), np.zeros(n), 0.0
    while t < time:
        wide_h, wide_m = np.pad(h, 1, mode="edge"), np.pad(m, 1, mode="edge") * np.array([-1.0, *[1.0] * (n + 1)])
        push, fastest = wide_m**2 / wide_h + wide_h**2 / 2, np.abs(wide_m / wide_h) + np.sqrt(wide_h)
        dt = min(0.9 * dr / fastest.max(), time - t)
        a = np.maximum(fastest[1:], fastest[:-1])
        mass = faces * (wide_m[1:] + wide_m[:-1] - a * np.diff(wide_h)) / 2
        momentum = faces * (push[1:] + push[:-1] - a * np.diff(wide_m)) / 2
        m = m + dt * (h**2 / 2 - np.diff(momentum) / dr) / r
        h = h - dt * np.diff(mass) / dr / r
        t += dt
    return h


def test_a_broken_circle_is_the_solution_of_the_radial_equations() -> None:
    errors = []
    for n in (32, 64, 128):
        law = CircularDam(smallest=0.1, largest=0.1)
        problem = ShallowWater(initial=law, resolution=32, solver_resolution=n, interval=0.6, n_snapshots=2)
        depth = problem.simulate([np.random.default_rng(0)]).trajectory[0, -1, 0]
        fine = (np.arange(320) + 0.5) * 5 / 320 - 2.5
        reference = np.interp(np.hypot(fine[:, None], fine), (np.arange(2000) + 0.5) * 2.5 / 2000, radial(0.5, 0.6))
        errors.append(np.abs(depth - reference.reshape(32, 10, 32, 10).mean(axis=(1, 3))).mean())
    assert errors[2] < 0.6 * errors[1] < 0.4 * errors[0], errors
    assert errors[2] < 2e-3, errors


def test_a_broken_circle_stays_round() -> None:
    problem = ShallowWater(resolution=64, solver_resolution=64, interval=0.5, n_snapshots=2)
    depth = problem.simulate([np.random.default_rng(0)]).trajectory[0, -1, 0]
    centre = 32
    along, across = depth[centre:, centre], depth[centre, centre:]
    np.testing.assert_allclose(along, across, atol=1e-12)
    # Along the diagonal the same profile, up to the width of a cell.
    x = np.arange(32) + 0.5
    diagonal = np.interp(x, x * math.sqrt(2), np.diag(depth)[centre:])
    assert np.abs(diagonal - along)[:22].max() < 0.12
    assert along.max() > 1.1


def test_the_flow_along_a_face_moves_with_the_water() -> None:
    # A step of the velocity along the face, in water that moves uniformly across it: the tangential momentum is moved.
    n = 64
    x = (np.arange(n) + 0.5) / n
    along = np.where((x > 0.25) & (x < 0.5), 1.0, 0.0)[:, None] * np.ones(n)
    start = np.stack([np.ones((n, n)), np.full((n, n), 0.5), along])
    problem = ShallowWater(length=1.0, walls="periodic", resolution=n, solver_resolution=n, interval=0.5)
    u = solved(problem, start)
    np.testing.assert_allclose(u[:2], start[:2], atol=1e-13)
    assert np.abs(u[2] - np.roll(along, n // 4, axis=0)).mean() < 0.06
    assert torch.from_numpy(u[2]).max() <= 1 + 1e-12
