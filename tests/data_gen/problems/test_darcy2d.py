"""Darcy2D as a problem: pairing of grids, symmetries, independence, what it stores and refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_gen.generation import cache
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.permeability import LogNormal, SmoothHighContrast, TwoPhase
from data_gen.problems.darcy2d import Darcy2D
from data_gen.spec import Samples
from data_gen.store import DatasetFile, to_fields

PROBLEM = Darcy2D(resolution=22, solver_resolution=43)
SMOOTH = replace(PROBLEM, permeability=LogNormal())


def rngs(*samples: int) -> list[np.random.Generator]:
    return [generator(0, "test", i) for i in samples]


def solve(problem: Darcy2D, static: NDArray[np.float64]) -> Samples:
    n = static.shape[-1]
    return problem.solve(np.empty((len(static), 0, 1, n, n)), static, 1)


def error(found: Samples, reference: Samples) -> float:
    u, v = found.trajectory, reference.trajectory
    return float((np.linalg.norm(u - v, axis=(-2, -1)) / np.linalg.norm(v, axis=(-2, -1))).max())


def test_the_default_is_the_canonical_dataset() -> None:
    problem = Darcy2D()
    assert problem.spec.grid.shape == (85, 85)
    assert problem.spec.is_steady
    assert problem.spec.parameters["solver_resolution"] == 421
    samples = problem.simulate(rngs(0))
    assert set(np.unique(samples.static)) == {3.0, 12.0}
    assert samples.diagnostics["relative_residual"][0] <= 1e-8
    assert samples.diagnostics["n_iterations"][0] <= 24


def test_samples_have_the_shapes_and_the_diagnostics_of_the_spec() -> None:
    samples = PROBLEM.simulate(rngs(0, 1, 2))
    assert samples.history.shape == (3, 0, 1, 22, 22)
    assert samples.static.shape == (3, 1, 22, 22)
    assert samples.trajectory.shape == (3, 1, 1, 22, 22)
    assert list(samples.diagnostics) == [entry.name for entry in PROBLEM.spec.diagnostics]
    assert all(values.shape == (3,) for values in samples.diagnostics.values())
    assert list(to_fields(PROBLEM.spec, samples))[:2] == ["permeability", "pressure"]


def test_the_pressure_obeys_the_maximum_principle_and_the_flux_balance() -> None:
    for law in (TwoPhase(), TwoPhase(contrast=1e3), SmoothHighContrast(1e5)):
        samples = replace(PROBLEM, permeability=law).simulate(rngs(0, 1))
        u = samples.trajectory[:, 0, 0]
        assert (u[:, 1:-1, 1:-1] > 0).all()
        assert not u[:, [0, -1]].any()
        assert not u[:, :, [0, -1]].any()
        assert not samples.diagnostics["undershoot"].any()
        assert samples.diagnostics["flux_imbalance"].max() < 1e-6


def test_the_flux_balance_is_computed_from_the_pressure() -> None:
    # On 3 x 3 nodes: one unknown, 4 a u / h^2 = 1 with h = 1/2, and the flux out of the inner cell is h^2.
    found = solve(PROBLEM, np.full((1, 1, 3, 3), 2.0))
    assert found.trajectory[0, 0, 0, 1, 1] == pytest.approx(1 / 32)
    assert found.diagnostics["flux_imbalance"][0] < 1e-8
    static = replace(PROBLEM, resolution=43).simulate(rngs(0)).static  # a small grid would be solved exactly
    loose = solve(replace(PROBLEM, residual_tolerance=1e-2), static)
    assert 1e-7 < loose.diagnostics["flux_imbalance"][0] < 1e-1


def test_the_files_grid_is_picked_from_the_solvers() -> None:
    stored, whole = PROBLEM.simulate(rngs(3)), replace(PROBLEM, resolution=43).simulate(rngs(3))
    for coarse, fine in zip(stored[:3], whole[:3], strict=True):
        assert np.array_equal(coarse, fine[..., ::2, ::2])
    assert stored.trajectory.base is None, "a view would keep the solver's grid alive"


def test_refinement_keeps_the_permeability_and_halves_the_spacing() -> None:
    fine = PROBLEM.simulate_refined(rngs(0, 1))
    assert np.array_equal(fine.static, PROBLEM.simulate(rngs(0, 1)).static)
    assert np.array_equal(fine.trajectory, Darcy2D(22, 85, residual_tolerance=1e-9).simulate(rngs(0, 1)).trajectory)
    assert fine.diagnostics["relative_residual"].max() <= 1e-9


def test_errors_fall_with_the_square_of_the_spacing_if_the_permeability_is_smooth() -> None:
    problems = [replace(SMOOTH, permeability=SmoothHighContrast(100.0), solver_resolution=n) for n in (43, 85, 169)]
    errors = [error(problem.simulate(rngs(0)), problem.simulate_refined(rngs(0))) for problem in problems]
    orders = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    assert orders == pytest.approx([2, 2], abs=0.1)


def test_errors_of_two_phases_fall_too_but_slower() -> None:
    errors = [
        error(problem.simulate(rngs(0, 1, 2)), problem.simulate_refined(rngs(0, 1, 2)))
        for problem in (Darcy2D(22, n) for n in (43, 169))
    ]
    assert errors[0] < 3e-2
    assert errors[1] < errors[0] / 2.5  # two halvings; measured order 1.3


def test_a_sample_depends_on_its_own_generator_alone() -> None:
    together = PROBLEM.simulate(rngs(*range(5)))
    for i in range(5):
        alone = PROBLEM.simulate(rngs(i))
        for whole, single in zip(together[:3], alone[:3], strict=True):
            assert np.array_equal(whole[i], single[0])
        for name, values in alone.diagnostics.items():
            assert together.diagnostics[name][i] == values[0]


def test_samples_differ() -> None:
    static = PROBLEM.simulate(rngs(*range(12))).static
    assert len(np.unique(static.reshape(12, -1), axis=0)) == 12


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_eight_symmetries_of_the_square_map_solutions_to_solutions(
    transposed: bool, flips: tuple[bool, bool]
) -> None:
    def move(field: NDArray[np.float64]) -> NDArray[np.float64]:
        field = np.swapaxes(field, -2, -1) if transposed else field
        return np.flip(field, [axis for axis, flip in zip((-2, -1), flips, strict=True) if flip]).copy()

    assert PROBLEM.spec.symmetries == ("square_symmetries",)
    for law in (TwoPhase(), LogNormal()):
        problem = Darcy2D(43, 43, law, residual_tolerance=1e-11)
        samples = problem.simulate(rngs(0))
        moved = solve(problem, move(samples.static))
        # Up to rounding: sums are taken in another order.
        assert np.abs(moved.trajectory - move(samples.trajectory)).max() < 1e-10 * samples.trajectory.max()


def test_the_force_scales_the_pressure() -> None:
    strong = replace(PROBLEM, forcing=7.0).simulate(rngs(0)).trajectory
    np.testing.assert_allclose(strong, 7 * PROBLEM.simulate(rngs(0)).trajectory, rtol=1e-6)


# Solving what is given -----------------------------------------------------------------------------------------------


def test_solving_a_files_permeability_is_solving_on_its_grid() -> None:
    samples = Darcy2D(43, 43).simulate(rngs(0, 1))
    again = solve(PROBLEM, samples.static)  # whatever the problem's own grid
    assert np.array_equal(again.trajectory, samples.trajectory)
    assert again.history.shape == (2, 0, 1, 43, 43)
    assert list(again.diagnostics) == list(samples.diagnostics)
    # Files hold float32.
    rounded = solve(PROBLEM, samples.static.astype(np.float32))
    assert error(rounded, samples) < 1e-6


def test_at_solves_and_stores_on_the_given_grid() -> None:
    grid = PROBLEM.spec.grid.coarsen(3)
    other = PROBLEM.at(grid)
    assert other == replace(PROBLEM, resolution=8, solver_resolution=8)
    assert other.spec.grid == grid
    with pytest.raises(ValueError, match="closed grid"):
        PROBLEM.at(Grid.periodic(22))


def test_no_sample_is_no_work() -> None:
    samples = PROBLEM.simulate([])
    assert samples.trajectory.shape == (0, 1, 1, 22, 22)
    assert solve(PROBLEM, np.empty((0, 1, 9, 9))).trajectory.shape == (0, 1, 1, 9, 9)


def test_a_dataset_is_generated_stored_and_read(tmp_path: Path) -> None:
    paths = cache.ensure(PROBLEM, {"train": 3, "test": 2}, 0, tmp_path, workers=1)
    samples = PROBLEM.simulate([generator(0, "train", i) for i in range(3)])
    with DatasetFile(paths["train"]) as file:
        assert file.spec == PROBLEM.spec
        assert np.array_equal(file.read_states(slice(None)), samples.trajectory.astype(np.float32))
        assert np.array_equal(file.read_static(slice(None)), samples.static.astype(np.float32))
        file.sha256()


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "knob"),
    [
        *(({"resolution": 2}, "resolution"), ({"resolution": 22, "solver_resolution": 21}, "solver_resolution")),
        *(({"resolution": 22, "solver_resolution": 44}, "solver_resolution"), ({"forcing": 0.0}, "forcing")),
        *(({"solver_resolution": 10**6 + 1}, "solver_resolution"), ({"forcing": -1.0}, "forcing")),
        *(({"forcing": math.nan}, "forcing"), ({"residual_tolerance": 0.0}, "residual_tolerance")),
        *(({"residual_tolerance": math.nan}, "residual_tolerance"), ({"residual_tolerance": 1.0}, "residual_tolera")),
    ],
)
def test_impossible_parameters_are_named(values: dict[str, Any], knob: str) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.{knob}\w* must be"):
        Darcy2D(**values)


def test_a_grid_that_does_not_nest_is_told_which_would() -> None:
    with pytest.raises(ValueError, match=r"multiple of dataset\.problem\.resolution - 1 = 84, such as 337 or 421"):
        Darcy2D(85, 420)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda a: PROBLEM.solve(np.empty((1, 1, 1, 9, 9)), a, 1), r"dataset\.history=0"),
        (lambda a: PROBLEM.solve(np.empty((1, 0, 1, 9, 9)), a, 2), r"dataset\.horizon=1"),
        (lambda a: solve(PROBLEM, a[:, :0]), "permeability"),
        (lambda a: solve(PROBLEM, a[..., 1:]), "permeability"),
        (lambda a: solve(PROBLEM, a[..., :2, :2]), "permeability"),
        (lambda a: solve(PROBLEM, a * np.nan), "finite and positive"),
        (lambda a: solve(PROBLEM, -a), "finite and positive"),
    ],
)
def test_solve_rejects_what_it_cannot_take(call: Callable[[NDArray[np.float64]], Samples], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        call(np.ones((1, 1, 9, 9)))


# Residual ------------------------------------------------------------------------------------------------------------


def _tensors(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(samples.trajectory), torch.from_numpy(samples.static)


def test_the_residual_vanishes_for_a_solution_on_its_own_grid_and_is_a_relative_error_near_it() -> None:
    u, a = _tensors(Darcy2D(25, 25).simulate([generator(0, "test", i) for i in range(3)]))
    assert float(PROBLEM.residual(u, a).max()) < 1e-7
    for factor, expected in ((1.02, 0.02), (0.0, 1.0)):
        np.testing.assert_allclose(PROBLEM.residual(factor * u, a), expected, rtol=1e-6)
    edge = torch.zeros_like(u)
    edge[..., 0] = 7
    np.testing.assert_allclose(PROBLEM.residual(u + edge, a), PROBLEM.residual(u, a))


def test_the_residual_of_a_finer_solution_falls_as_the_square_of_the_spacing_where_the_coefficient_is_smooth() -> None:
    law = SmoothHighContrast(contrast=10.0)
    rngs = [[generator(0, "test", i) for i in range(2)] for _ in range(2)]
    coarse, fine = (
        Darcy2D(n, 97, permeability=law).residual(*_tensors(Darcy2D(n, 97, permeability=law).simulate(own)))
        for n, own in zip((13, 25), rngs, strict=True)
    )
    assert (coarse / fine).min() > 3.3
    assert fine.max() < 0.05


def test_the_residual_is_differentiable() -> None:
    u, a = _tensors(Darcy2D(9, 9).simulate([generator(0, "test", 0)]))
    u = (u + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(lambda field: PROBLEM.residual(field, a), u)
