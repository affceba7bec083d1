"""Euler against the exact solutions of Riemann problems and of a wave of density."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.references.euler import steps
from benchmarks.references.riemann import TUBES, exact
from data_gen.problems.euler import Euler, RandomStates, ShearLayers


def conserved(w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of density, velocity and pressure, [3, n]."""
    return Euler().conserved(torch.from_numpy(w)[None])[0].numpy()


@functools.cache
def solved(tube: str, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density, velocity and pressure of a tube on n cells, and the exact averages, [3, n] each."""
    left, right, cut, time = TUBES[tube]
    x = (np.arange(n) + 0.5) / n
    start = conserved(np.where(x < cut, np.array(left)[:, None], np.array(right)[:, None]))
    problem = Euler(resolution=n, solver_resolution=n, interval=time, cfl=0.8)
    u = problem.solve(start[None, None], np.empty((1, 0, n)), 1).trajectory[0, 0]
    within = np.arange(20 * n) / (20 * n) + 1 / (40 * n)
    w = exact(left, right, (within - cut) / time)
    return problem.primitive(torch.from_numpy(u)[None])[0].numpy(), w.reshape(3, n, 20).mean(axis=2)


@pytest.mark.parametrize("tube", TUBES)
def test_riemann_problems_converge_to_the_exact_solution(tube: str) -> None:
    errors = []
    for n in (100, 400):
        ours, reference = solved(tube, n)
        errors.append(np.abs(ours - reference).mean(axis=1) / np.abs(reference).max(axis=1))
    rates = np.log2(errors[0] / errors[1]) / 2
    assert rates[0] > 0.6, rates
    assert (errors[1] < 0.02).all(), errors


@pytest.mark.parametrize("stages", [2, 3])
def test_a_step_is_that_of_the_scheme_in_plain_form(stages: int) -> None:
    n, dt = 24, 1e-3
    problem = Euler(n_dims=2, resolution=n, solver_resolution=n, interval=dt, stages=stages)
    start = problem.simulate([np.random.default_rng(0)]).trajectory[:, :1]
    done = problem.solve(start, np.empty((1, 0, n, n)), 1)
    assert done.diagnostics["n_steps"] == 1
    np.testing.assert_allclose(done.trajectory[0, 0], steps(start[0, 0], dt, 1 / n, 1, stages), rtol=0, atol=1e-13)


def test_a_smooth_wave_of_density_has_second_order() -> None:
    # Moved by a constant velocity, at constant pressure; averages over cells.
    errors = []
    for n in (50, 100, 200):
        edges = np.linspace(0, 1, n + 1)

        def averages(t: float, edges: NDArray[np.float64] = edges, n: int = n) -> NDArray[np.float64]:
            rho = 1 - 0.3 * np.diff(np.cos(2 * math.pi * (edges - t))) * n / (2 * math.pi)
            return conserved(np.stack([rho, np.ones(n), np.ones(n)]))

        problem = Euler(walls="periodic", resolution=n, solver_resolution=n, interval=0.5)
        u = problem.solve(averages(0)[None, None], np.empty((1, 0, n)), 1).trajectory[0, 0]
        errors.append(np.abs(u - averages(0.5)).mean())
    orders = [math.log2(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert all(1.8 < order < 2.5 for order in orders), orders


def test_a_contact_at_rest_stays_as_it_is() -> None:
    n = 32
    rho = np.where(np.arange(n) < n // 2, 1.0, 0.2)
    start = conserved(np.stack([rho, np.zeros(n), np.ones(n)]))
    problem = Euler(resolution=n, solver_resolution=n, interval=1.0)
    u = problem.solve(start[None, None], np.empty((1, 0, n)), 1).trajectory[0, 0]
    np.testing.assert_allclose(u, start, rtol=0, atol=1e-14)


@pytest.mark.parametrize("speed", [3.0, 0.5])
def test_a_stream_enters_and_leaves_through_open_ends(speed: float) -> None:
    # At 2.5 and 0.4 times the speed of sound. What comes in is the state of the first cell.
    n = 64
    x = (np.arange(n) + 0.5) / n
    bump = 1 + 0.5 * np.exp(-(((x - 0.5) / 0.05) ** 2))
    start = conserved(np.stack([bump, np.full(n, speed), np.ones(n)]))
    problem = Euler(resolution=n, solver_resolution=n, interval=1.5 / speed)
    u = problem.solve(start[None, None], np.empty((1, 0, n)), 1).trajectory[0, 0]
    np.testing.assert_allclose(u, np.broadcast_to(start[:, :1], u.shape), rtol=1e-6)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_a_tube_along_any_axis_is_the_tube_in_one_dimension(n_dims: int) -> None:
    n = 16
    rng = [np.random.default_rng(3)]
    line = Euler(resolution=n, solver_resolution=n, interval=0.05, cfl=0.4).simulate(rng).history[0, 0]
    alone = None
    for axis in range(n_dims):
        shape = (1, 1, n_dims + 2, *(n,) * n_dims)
        start = np.zeros(shape)
        along = [1] * n_dims
        along[axis] = n
        for place, field in zip((0, 1 + axis, n_dims + 1), line, strict=True):
            start[0, 0, place] = field.reshape(along)
        problem = Euler(n_dims=n_dims, resolution=n, solver_resolution=n, interval=0.05, cfl=0.4)
        u = problem.solve(start, np.empty((1, 0, *(n,) * n_dims)), 1).trajectory[0, 0]
        others = tuple(1 + other for other in range(n_dims) if other != axis)
        cut = u[[0, 1 + axis, -1]].mean(axis=others)
        assert np.abs(u[[0, 1 + axis, -1]] - np.expand_dims(cut, others)).max() < 1e-13
        alone = cut if alone is None else alone
        np.testing.assert_allclose(cut, alone, rtol=0, atol=1e-13)
    assert alone is not None
    assert np.abs(alone - line).max() > 0.05


def test_random_states_are_pieces_within_their_bounds() -> None:
    law = RandomStates(n_pieces=3, density=(0.5, 2.0), pressure=(0.1, 10.0), speed=1.5)
    problem = Euler(initial=law, resolution=512, solver_resolution=512)
    w = problem.primitive(
        torch.from_numpy(problem.simulate([np.random.default_rng(i) for i in range(20)]).history[:, 0])
    )
    for place, (low, high) in enumerate([(0.5, 2.0), (-1.5, 1.5), (0.1, 10.0)]):
        assert low - 1e-12 <= w[:, place].min() < low + 0.3 * (high - low)
        assert high + 1e-12 >= w[:, place].max() > high - 0.3 * (high - low)
    jumps = (w[:, 0].diff(dim=1).abs() > 1e-12).sum(dim=1)
    assert int(jumps.max()) <= 4  # a cut within a cell makes two
    assert int(jumps.min()) >= 2


def test_a_shear_layer_becomes_unstable() -> None:
    # Along the flow nothing moves across it at first; the waves then grow.
    problem = Euler(
        n_dims=2, walls="periodic", initial=ShearLayers(amplitude=0.02), resolution=32, solver_resolution=64,
        interval=0.75, n_snapshots=3,
    )  # fmt: skip
    across = problem.simulate([np.random.default_rng(0)]).trajectory[0, :, 2]
    size = np.sqrt((across**2).mean(axis=(1, 2)))
    assert size[2] > 2 * size[0]
