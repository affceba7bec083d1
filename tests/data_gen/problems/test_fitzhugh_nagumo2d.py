"""FitzHughNagumo2D: exact decay of small waves, no flux through the walls, what is refused. Its order in time is tested
in tests/data_gen/test_semilinear.py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.typing import NDArray

from data_gen.cosine_fields import CosineNoise
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.fitzhugh_nagumo2d import FitzHughNagumo2D
from data_gen.random_fields import TruncatedFourierSeries

PROBLEM = FitzHughNagumo2D(resolution=33, n_snapshots=3, initial=CosineNoise(n_waves=12, n_cells=48))


def solved(problem: FitzHughNagumo2D, start: NDArray[np.floating], n_steps: int) -> NDArray[np.floating]:
    """[time, field, x, y], from one state."""
    return problem.solve(start[None, None], np.empty((1, 0, *start.shape[1:])), n_steps).trajectory[0]


def test_small_waves_follow_the_linear_equation() -> None:
    problem = replace(PROBLEM, bias=0.0)
    x, y = np.meshgrid(*problem.spec.grid.coordinates(), indexing="ij")
    wave = np.cos(np.pi * 3 * x / 2) * np.cos(np.pi * 5 * y / 2)
    start = 1e-6 * np.stack([wave, -2 * wave])  # its cube is 1e-12 of it
    kappa_squared = (np.pi / 2) ** 2 * (3**2 + 5**2)
    matrix = np.array([[1 - 1e-3 * kappa_squared, -1], [1, -1 - 5e-3 * kappa_squared]])
    amplitudes = scipy.linalg.expm(matrix * 4 * problem.interval) @ [1e-6, -2e-6]
    found = solved(problem, start, 4)[-1]
    # Coupling terms are integrated with the steps' fourth order.
    np.testing.assert_allclose(found, amplitudes[:, None, None] * wave, atol=1e-4 * 1e-6)


def test_a_uniform_state_follows_the_ordinary_differential_equation() -> None:
    problem = replace(PROBLEM, first_step=0.01, max_step=0.01)
    found = solved(problem, np.stack([np.full((33, 33), 0.5), np.full((33, 33), -0.2)]), 2)[-1]
    exact = scipy.integrate.solve_ivp(
        lambda _, w: [w[0] - w[0] ** 3 - 5e-3 - w[1], w[0] - w[1]], (0, 0.5), [0.5, -0.2], rtol=1e-11, atol=1e-12
    ).y[:, -1]
    np.testing.assert_allclose(found, np.broadcast_to(exact[:, None, None], found.shape), atol=1e-8)


def test_nothing_flows_through_the_walls() -> None:
    # One-sided differences of second order on two grids: the slope falls with the square of the spacing.
    slopes = []
    for n in (65, 129, 257):
        problem = replace(PROBLEM, resolution=n, n_snapshots=2, interval=0.5)
        u = problem.simulate([generator(0, "test", 0)]).trajectory[0, -1]
        slopes.append(np.abs(-3 * u[:, 0] + 4 * u[:, 1] - u[:, 2]).max() * (n - 1) / 4)
    assert slopes[1] < slopes[0] / 3.5
    assert slopes[2] < slopes[1] / 3.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diffusivity_u": 0.0}, r"dataset\.problem\.diffusivity_u must be positive, got 0"),
        ({"resolution": 3}, r"dataset\.problem\.resolution must be at least 4, got 3"),
        ({"initial": TruncatedFourierSeries()}, r"dataset\.problem\.initial must be a law of fields on a neumann box"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FitzHughNagumo2D(**changes)


def test_a_periodic_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a closed Neumann grid of side 2"):
        PROBLEM.at(Grid.periodic(32, 2, length=2.0))
