"""Sorption1D: an exact solution with Freundlich's law, mass, bounds, varying parameters, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.integrate

from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.sorption1d import Sorption1D
from data_gen.random_fields import LogUniform
from data_gen.spec import Samples

PROBLEM = Sorption1D(resolution=33, solver_resolution=129, n_snapshots=4)


def draw(problem: Sorption1D, *samples: int) -> Samples:
    return problem.simulate([generator(0, "test", i) for i in samples])


def test_a_front_is_similar_to_itself() -> None:
    # On a half line u depends on s = x / sqrt(D t) alone: u'' + s / 2 R(u) u' = 0 (Boltzmann).
    problem = replace(PROBLEM, lowest=0.1, highest=0.1, resolution=129, solver_resolution=513, n_snapshots=2)
    beta = 0.71 / 0.29 * 2880 * 3.5e-4

    def slopes(s: Any, w: Any) -> Any:
        return np.stack([w[1], -s / 2 * (1 + beta * 0.874 * np.maximum(w[0], 1e-3) ** -0.126) * w[1]])

    s = np.linspace(0, 6, 200)
    found = scipy.integrate.solve_bvp(
        slopes,
        lambda start, end: np.array([start[0] - 1, end[0] - 0.1]),
        s,
        np.stack([0.1 + 0.9 * np.exp(-s), -0.9 * np.exp(-s)]),
        tol=1e-8,
    )
    x = problem.spec.grid.coordinates()[0]
    inner = x < 0.5  # the layer at the outlet hasn't come so far
    exact = found.sol(x[inner] / np.sqrt(5e-4 * problem.interval))[0]
    np.testing.assert_allclose(draw(problem, 0).trajectory[0, 1, 0, inner], exact, atol=1e-4)


def test_errors_fall_with_the_square_of_the_spacing() -> None:
    small = replace(PROBLEM, first_step=1e-3, max_step=1.0, n_snapshots=2)
    fine = draw(replace(small, solver_resolution=1025), 0).trajectory[0, -1]
    errors = [
        np.linalg.norm(draw(replace(small, solver_resolution=n), 0).trajectory[0, -1] - fine) for n in (65, 129, 257)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.3)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.3)


def test_mass_is_kept_and_concentrations_stay_in_their_range() -> None:
    samples = draw(PROBLEM, 0, 1, 2)
    assert samples.diagnostics["mass_imbalance"].max() < 1e-12
    assert samples.trajectory.min() >= 0
    assert samples.trajectory.max() <= 1
    assert (samples.trajectory[..., 0] == 1).all()


def test_what_leaves_is_the_flux_at_the_outlet() -> None:
    u = draw(replace(PROBLEM, resolution=129), 0).trajectory[0, -1, 0]
    slope = (3 * u[-1] - 4 * u[-2] + u[-3]) * 128 / 2
    assert u[-1] == pytest.approx(-5e-4 * slope, rel=1e-2)


def test_initial_states_are_uniform_constants() -> None:
    levels = draw(replace(PROBLEM, n_snapshots=2), *range(100)).history[:, 0, 0, 1:]
    assert (levels == levels[:, :1]).all()
    assert levels.min() < 0.02
    assert 0.18 < levels.max() < 0.2


def test_every_sample_may_have_parameters_of_its_own() -> None:
    laws = {"diffusivity": LogUniform(3e-4, 8e-4), "freundlich_coefficient": LogUniform(1e-4, 7e-4)}
    samples = draw(replace(PROBLEM, **laws), 0, 1)
    for i in (0, 1):
        own = {name: float(values[i]) for name, values in samples.parameters.items()}
        assert np.array_equal(draw(replace(PROBLEM, **own), i).trajectory[0], samples.trajectory[i])


def test_solving_goes_on_where_a_trajectory_ends() -> None:
    problem = replace(PROBLEM, resolution=129)
    trajectory = draw(problem, 0).trajectory
    found = problem.solve(trajectory[:, 1:2], np.empty((1, 0, 129)), 2).trajectory
    np.testing.assert_allclose(found, trajectory[:, 2:], atol=2e-5)  # with other steps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": 1}, r"dataset\.problem\.resolution must be at least 3, got 1"),
        ({"solver_resolution": 100}, r"solver_resolution must be 1 more than a multiple of .* = 32, got 100"),
        ({"diffusivity": 0.0}, r"dataset\.problem\.diffusivity must be positive"),
        ({"porosity": 1.0}, r"dataset\.problem\.porosity must be between 0 and 1, got 1"),
        ({"freundlich_exponent": 1.5}, r"dataset\.problem\.freundlich_exponent must be at most 1"),
        ({"highest": 2.0}, r"dataset\.problem\.highest must be at most 1, the value at the inflow, got 2"),
        ({"lowest": 0.3}, r"dataset\.problem\.lowest must be from 0 to highest=0\.2, got 0\.3"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PROBLEM, **changes)


def test_other_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="closed grid with Dirichlet boundary"):
        PROBLEM.at(Grid.periodic(32, 1))
    with pytest.raises(ValueError, match="expected a history"):
        PROBLEM.solve(np.zeros((1, 0, 1, 33)), np.empty((1, 0, 33)), 1)
    with pytest.raises(ValueError, match="no static fields, got 1"):
        PROBLEM.solve(np.zeros((1, 1, 1, 33)), np.empty((1, 1, 33)), 1)
