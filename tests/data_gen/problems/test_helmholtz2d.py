"""Helmholtz2D: what it stores, how its error falls, symmetries, varying frequencies, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.helmholtz2d import Helmholtz2D
from data_gen.random_fields import Uniform
from data_gen.spec import Samples, SolverError
from neuralop_bench.batch import Batch
from neuralop_bench.training.augmentation import Symmetries

PROBLEM = Helmholtz2D(resolution=17, solver_resolution=33, angular_frequency=10.0)


def draw(problem: Helmholtz2D, *samples: int) -> Samples:
    return problem.simulate([generator(0, "test", i) for i in samples])


def error(found: Samples, reference: Samples) -> float:
    return float(np.linalg.norm(found.trajectory - reference.trajectory) / np.linalg.norm(reference.trajectory))


def test_errors_of_random_media_are_of_fourth_order() -> None:
    exact = draw(replace(PROBLEM, solver_resolution=257), 0)
    coarse, fine = (error(draw(replace(PROBLEM, solver_resolution=n), 0), exact) for n in (33, 65))
    assert np.log2(coarse / fine) == pytest.approx(4, abs=0.4)


def test_the_files_grid_is_picked_from_the_solvers() -> None:
    stored, whole = draw(PROBLEM, 3), draw(replace(PROBLEM, resolution=33), 3)
    for coarse, fine in zip(stored[1:3], whole[1:3], strict=True):
        assert np.array_equal(coarse, fine[..., ::2, ::2])


def test_solving_from_the_static_fields_gives_the_same_solution() -> None:
    samples = draw(replace(PROBLEM, resolution=33), 0, 1)
    found = PROBLEM.solve(samples.history, samples.static)
    assert np.array_equal(found.trajectory, samples.trajectory)
    assert found.diagnostics["relative_residual"].max() < 1e-12
    assert found.diagnostics["power_imbalance"].max() < 1e-10


def test_a_moved_solution_is_a_solution() -> None:
    problem = replace(PROBLEM, resolution=33)
    samples = draw(problem, 0)
    history, static, target = (torch.from_numpy(array) for array in samples[:3])
    augment = Symmetries(problem.spec)
    for seed in range(6):
        torch.manual_seed(seed)
        moved = augment(Batch(history, static, target))
        found = problem.solve(moved.history.numpy(), moved.static.numpy()).trajectory
        np.testing.assert_allclose(found, moved.target, atol=1e-10 * np.abs(found).max())


def test_every_sample_may_have_a_frequency_of_its_own() -> None:
    problem = replace(PROBLEM, angular_frequency=Uniform(5.0, 12.0))
    samples = draw(problem, 0, 1)
    omega = samples.parameters["angular_frequency"]
    assert len({*omega}) == 2
    for i in (0, 1):
        alone = draw(replace(PROBLEM, angular_frequency=float(omega[i])), i)
        assert np.array_equal(alone.trajectory[0], samples.trajectory[i])
    assert problem.spec.varying[0].name == "angular_frequency"


def test_a_grid_too_coarse_for_the_waves_is_refused() -> None:
    words = r"Sample 0 of the batch has only [23]\.\d cells .* Raise dataset\.problem\.solver_resolution"
    problem = replace(PROBLEM, angular_frequency=40.0)
    with pytest.raises(SolverError, match=words):
        draw(problem, 0)
    static = np.ones((1, 2, 33, 33))
    static[:, 0] = 0.7
    with pytest.raises(ValueError, match=words):
        problem.solve(np.empty((1, 0, 2, 33, 33)), static)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": 1}, r"dataset\.problem\.resolution must be at least 3, got 1"),
        ({"solver_resolution": 34}, r"dataset\.problem\.solver_resolution must be odd, from"),
        ({"solver_resolution": 41}, r"1 more than a multiple of dataset\.problem\.resolution - 1 = 16, got 41"),
        ({"angular_frequency": 0.0}, r"dataset\.problem\.angular_frequency must be positive, got 0"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(PROBLEM, **changes)


def test_other_inputs_are_refused() -> None:
    empty, static = np.empty((1, 0, 2, 33, 33)), np.ones((1, 2, 33, 33))
    with pytest.raises(ValueError, match="closed nodes with open sides"):
        PROBLEM.at(Grid.periodic(32))
    with pytest.raises(ValueError, match="with n odd"):
        PROBLEM.solve(empty, np.ones((1, 2, 32, 32)))
    with pytest.raises(ValueError, match=r"steady.*dataset\.history=0"):
        PROBLEM.solve(np.empty((1, 1, 2, 33, 33)), static)
    with pytest.raises(ValueError, match=r"steady.*dataset\.horizon=1"):
        PROBLEM.solve(empty, static, 2)
    with pytest.raises(ValueError, match="positive sound speeds"):
        PROBLEM.solve(empty, 0 * static)
