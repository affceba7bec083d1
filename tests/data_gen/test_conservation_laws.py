"""What all problems of conservation laws share, tried on those that there are."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from data_gen.conservation_laws import ConservationLaw, cell_averages, shares_below
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.euler import Euler, RandomStates, ShearLayers
from data_gen.problems.shallow_water import CircularDam, ShallowWater, SmoothSurface
from data_gen.random_fields import Uniform
from data_gen.spec import SolverError

SMALL: dict[str, Any] = {"resolution": 16, "solver_resolution": 32, "n_snapshots": 3}
PROBLEMS: dict[str, ConservationLaw] = {
    "euler1d": Euler(**SMALL),
    "euler2d": Euler(n_dims=2, **SMALL),
    "euler3d": Euler(n_dims=3, resolution=4, solver_resolution=8, n_snapshots=3),
    "kelvin_helmholtz": Euler(n_dims=2, walls="periodic", initial=ShearLayers(width=(0.1, 0.1)), interval=0.1, **SMALL),
    "dam": ShallowWater(interval=0.5, **SMALL),
    "surface": ShallowWater(initial=SmoothSurface(), **SMALL),
}
every_problem = pytest.mark.parametrize("name", PROBLEMS)


def rngs(n: int) -> list[np.random.Generator]:
    return [generator(0, "test", i) for i in range(n)]


@every_problem
def test_the_initial_averages_are_those_of_one_state(name: str) -> None:
    # On any grid, so that averages on a fine one have the averages on a coarse one as their means.
    problem = PROBLEMS[name]
    coarse, fine = (
        replace(problem, solver_resolution=factor * problem.solver_resolution).simulate(rngs(2)).trajectory[:, 0]
        for factor in (1, 2)
    )
    np.testing.assert_allclose(coarse, fine, rtol=0, atol=1e-5 if "kelvin" in name else 1e-9)


@every_problem
def test_states_are_drawn_on_the_processor(name: str) -> None:
    # Whatever the solver's device is: the same numbers everywhere.
    problem = PROBLEMS[name]
    with torch.device("meta"):
        drawn = problem.initial.draw(rngs(1)[0], 8, problem.n_dims, problem.conserved)
    assert drawn.device.type == "cpu"


@every_problem
def test_the_file_has_averages_of_the_solver_s_grid(name: str) -> None:
    problem = PROBLEMS[name]
    n, factor = problem.resolution, problem.solver_resolution // problem.resolution
    here = problem.simulate(rngs(1)).trajectory
    there = replace(problem, resolution=problem.solver_resolution).simulate(rngs(1)).trajectory
    blocks = there.reshape(*there.shape[:3], *(n, factor) * problem.n_dims)
    np.testing.assert_allclose(here, blocks.mean(axis=tuple(range(4, blocks.ndim, 2))), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", [name for name, problem in PROBLEMS.items() if problem.walls != "outflow"])
def test_what_the_spec_calls_conserved_is(name: str) -> None:
    samples, spec = PROBLEMS[name].simulate(rngs(2)), PROBLEMS[name].spec
    fields = [i for i, field in enumerate(spec.state) if f"mean_{field.name}" in spec.conserved]
    assert len(fields) == (4 if spec.grid.is_periodic else 1)
    means = samples.trajectory[:, :, fields].mean(axis=(3, 4))
    np.testing.assert_allclose(means, np.broadcast_to(means[:, :1], means.shape), rtol=0, atol=1e-13)
    assert np.abs(samples.trajectory[:, -1] - samples.trajectory[:, 0]).max() > 1e-2
    assert (samples.diagnostics["drift"] < 1e-13).all()


@every_problem
def test_what_must_be_positive_is(name: str) -> None:
    problem = PROBLEMS[name]
    states = torch.from_numpy(problem.simulate(rngs(2)).trajectory).flatten(0, 1)
    w = problem.primitive(states)
    assert all(bool((w[:, place] > 0).all()) for place in problem.positive_fields)


@every_problem
def test_the_maps_between_variables_and_the_fluxes_agree(name: str) -> None:
    problem = PROBLEMS[name]
    u = torch.from_numpy(problem.simulate(rngs(2)).trajectory[:, 1])
    w = problem.primitive(u)
    torch.testing.assert_close(problem.conserved(w), u, rtol=1e-13, atol=1e-13)
    for axis in range(problem.n_dims):  # consistency: between two equal states flows the flux of that state
        numerical = problem.numerical_flux(w.clone(), w.clone(), axis)
        torch.testing.assert_close(numerical, problem.flux(w, u, axis), rtol=1e-11, atol=1e-11)


def test_each_sample_has_the_parameter_that_it_drew() -> None:
    several = replace(PROBLEMS["euler1d"], gamma=Uniform(1.2, 1.7))
    samples = several.simulate(rngs(3))
    own = samples.parameters["gamma"]
    assert len({*own}) == 3
    for i, gamma in enumerate(own):
        alone = replace(several, gamma=float(gamma)).simulate([generator(0, "test", i)])
        np.testing.assert_array_equal(samples.trajectory[i], alone.trajectory[0])
    solved = several.solve(samples.history, samples.static, 1, parameters=samples.parameters).trajectory
    alone = replace(several, gamma=float(own[2])).solve(samples.history[2:], samples.static[2:], 1).trajectory
    np.testing.assert_array_equal(solved[2:], alone)


def test_a_relaxed_solver_takes_fewer_steps_and_stays_stable() -> None:
    problem = replace(PROBLEMS["euler1d"], cfl=0.2, resolution=64, solver_resolution=64, n_snapshots=6)
    tight = problem.simulate(rngs(4))
    loose = problem.relaxed(1e6).simulate(rngs(4))
    assert (loose.diagnostics["n_steps"] < 0.4 * tight.diagnostics["n_steps"]).all()
    assert np.abs(loose.trajectory - tight.trajectory).mean() < 0.01


def test_a_grid_of_its_own() -> None:
    problem = PROBLEMS["dam"]
    grid = problem.spec.grid.coarsen(Fraction(1, 2))
    assert grid == Grid((32, 32), (5.0, 5.0), ("neumann", "neumann"), ("centres", "centres"))
    assert problem.at(grid).spec.grid == grid
    assert problem.at(grid).solver_resolution == 32
    assert PROBLEMS["kelvin_helmholtz"].spec.grid == Grid.periodic(16)
    for other in (Grid.periodic(16, length=5.0), replace(grid, lengths=(5.0, 4.0)), replace(grid, shape=(32, 16))):
        with pytest.raises(ValueError, match=r"ShallowWater needs a grid like .* got Grid"):
            problem.at(other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cfl": 0.0}, r"dataset\.problem\.cfl must be above 0 and at most 0\.9, .* got 0\.0"),
        ({"cfl": 1.5}, r"dataset\.problem\.cfl must be above 0 and at most 0\.9, beyond which steps are unstable"),
        ({"stages": 4}, r"dataset\.problem\.stages must be 2 or 3, got 4"),
        ({"walls": "open"}, r"dataset\.problem\.walls must be one of periodic, outflow, reflecting, got open"),
        (
            {"solver_resolution": 40},
            r"solver_resolution must be a multiple of .*resolution=16, such as 32 or 48, got 40",
        ),
        ({"solver_resolution": 8}, r"solver_resolution must be a multiple of .*resolution=16, such as 16 or 32, got 8"),
        ({"resolution": 3}, r"dataset\.problem\.resolution must be at least 4, got 3"),
        ({"n_dims": 4}, r"dataset\.problem\.n_dims must be 1, 2 or 3, got 4"),
        ({"interval": 0.0}, r"dataset\.problem\.interval must be positive, got 0\.0"),
        ({"n_snapshots": 1}, r"dataset\.problem\.n_snapshots must be at least 2"),
        ({"gamma": 1.0}, r"dataset\.problem\.gamma must be above 1"),
        ({"gamma": Uniform(0.9, 1.4)}, r"dataset\.problem\.gamma must be above 1"),
    ],
)
def test_bad_parameters_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PROBLEMS["euler1d"], **changes)


@pytest.mark.parametrize(
    ("problem", "changes", "message"),
    [
        (
            "kelvin_helmholtz",
            {"walls": "outflow"},
            r"ShearLayers needs .*n_dims=2 and walls=periodic, got n_dims=2 and",
        ),
        ("kelvin_helmholtz", {"n_dims": 1}, r"ShearLayers needs .* got n_dims=1"),
        ("dam", {"n_dims": 1}, r"CircularDam needs n_dims=2, got n_dims=1"),
        ("surface", {"n_dims": 3}, r"dataset\.problem\.n_dims must be 1 or 2, because depth is a field"),
    ],
)
def test_laws_that_dont_fit_the_box_are_refused(problem: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PROBLEMS[problem], **changes)


@pytest.mark.parametrize(
    ("law", "changes", "message"),
    [
        (RandomStates, {"density": (0.0, 1.0)}, r"initial\.density must be two positive numbers"),
        (RandomStates, {"pressure": (1.0, 0.1)}, r"initial\.pressure must be two positive numbers, the least first"),
        (RandomStates, {"speed": -1.0}, r"initial\.speed must be at least 0"),
        (RandomStates, {"n_pieces": 1}, r"initial\.n_pieces must be at least 2"),
        (RandomStates, {"margin": 0.5}, r"initial\.margin must be in \[0, 0\.5\)"),
        (ShearLayers, {"width": (0.0, 1.0)}, r"initial\.width must be two positive numbers"),
        (ShearLayers, {"pressure": -1.0}, r"Shear layers need pressure > 0"),
        (CircularDam, {"inside": 0.0}, r"initial\.inside must be positive, because a dry bed"),
        (CircularDam, {"largest": 0.6}, r"initial needs 0 < smallest <= largest < 0\.5"),
        (SmoothSurface, {"largest": 1.0}, r"0 <= smallest <= largest < 1 \(water everywhere\)"),
    ],
)
def test_bad_laws_are_refused(law: type, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        law(**changes)


@pytest.mark.parametrize(
    ("shape", "n_static", "n_steps", "message"),
    [
        ((2, 1, 2, 16), 0, 1, r"expected a history \[sample, time >= 1, 3, n\], got \(2, 1, 2, 16\)"),
        ((2, 0, 3, 16), 0, 1, r"expected a history"),
        ((2, 1, 3, 16, 16), 0, 1, r"expected a history"),
        ((2, 1, 3, 16), 1, 1, r"Euler has no static fields, got 1"),
        ((2, 1, 3, 16), 0, 0, r"n_steps of at least 1, got 0"),
    ],
)
def test_wrong_inputs_of_the_solver_are_refused(
    shape: tuple[int, ...], n_static: int, n_steps: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PROBLEMS["euler1d"].solve(np.ones(shape), np.ones((2, n_static, 16)), n_steps)


def test_a_state_without_pressure_is_refused() -> None:
    history = np.ones((2, 1, 3, 16))  # energy 1, of which half is kinetic
    history[1, 0, 2, 3] = 0.4
    with pytest.raises(SolverError, match=r"Sample 1 of the batch has a pressure of -0\.04 at t=0"):
        PROBLEMS["euler1d"].solve(history, np.ones((2, 0, 16)), 1)


def test_averages_of_a_polynomial_are_exact() -> None:
    averages = cell_averages(lambda x, y: x**5 * y**2, 4, 2)
    edges = np.linspace(0, 1, 5)
    expected = np.multiply.outer(np.diff(edges**6) / 6, np.diff(edges**3) / 3) * 16
    np.testing.assert_allclose(averages.numpy(), expected, rtol=1e-13)


def test_shares_below_a_cut() -> None:
    np.testing.assert_allclose(shares_below(0.55, 4).numpy(), [1, 1, 0.2, 0])
