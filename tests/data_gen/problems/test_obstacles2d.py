"""Obstacles2D: its shapes, its inputs on every grid, its symmetry, and what it refuses."""

from typing import Any

import numpy as np
import pytest
import torch

from data_gen.generation.random_streams import generator
from data_gen.problems.obstacles2d import Obstacle, Obstacles2D, RandomObstacles
from data_gen.random_fields import LogUniform
from data_gen.regrid import regrid
from data_gen.spec import SolverError
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.conservation import Conserved
from neuralop_bench.metrics.metric import MetricContext

SLOW = LogUniform(5.0, 20.0)


def problem(**changes: Any) -> Obstacles2D:
    return Obstacles2D(**{"reynolds": SLOW, "resolution": 32, "solver_resolution": 32, **changes})


def nothing(static: np.ndarray) -> np.ndarray:
    return np.empty((len(static), 0, 3, *static.shape[2:]))


@pytest.mark.parametrize(
    ("obstacle", "point", "distance"),
    [
        (Obstacle(0.5, 0.4, (0.0, 0.0), 0.1, 0.0), (0.8, 0.8), 0.4),
        (Obstacle(0.5, 0.4, (0.0, 0.0), 0.1, 0.0), (0.5, 0.4), -0.1),
        (Obstacle(0.5, 0.4, (0.2, 0.1), 0.05, 0.0), (0.5, 0.7), 0.15),
        (Obstacle(0.5, 0.4, (0.2, 0.1), 0.05, 0.0), (1.0, 0.9), 0.45),
        (Obstacle(0.5, 0.4, (0.2, 0.1), 0.05, 0.0), (0.5, 0.4), -0.15),
        (Obstacle(0.5, 0.4, (0.2, 0.1), 0.05, np.pi / 2), (0.5, 0.7), 0.05),
    ],
)
def test_signed_distances(obstacle: Obstacle, point: tuple[float, float], distance: float) -> None:
    assert obstacle.distance(*map(np.asarray, point)) == pytest.approx(distance)


def test_obstacles_keep_their_distances() -> None:
    law = RandomObstacles(fewest=2, most=6, smallest=0.05, largest=0.08, gap=0.06)
    counts = set()
    for i in range(100):
        placed = law.draw(generator(0, "test", i))
        counts.add(len(placed))
        for number, own in enumerate(placed):
            reach = np.hypot(*own.sides) + own.radius
            assert reach + 0.06 <= own.y <= 1 - reach - 0.06
            assert all(own.gap(other) >= 0.06 for other in placed[:number])
    assert counts == {2, 3, 4, 5, 6}


def test_inputs_are_the_same_on_every_grid() -> None:
    coarse, fine = (problem(resolution=n, solver_resolution=32).simulate([generator(0, "test", 0)]) for n in (16, 32))
    grids = [problem(resolution=n, solver_resolution=32).spec.grid for n in (32, 16)]
    np.testing.assert_array_equal(coarse.parameters["reynolds"], fine.parameters["reynolds"])
    merged = regrid(fine.static, *grids)
    np.testing.assert_allclose(merged[:, 1], coarse.static[:, 1], rtol=1e-12)
    np.testing.assert_allclose(merged[:, 0], coarse.static[:, 0], rtol=1e-12)


def test_fields_vanish_in_obstacles_and_only_there() -> None:
    samples = problem().simulate([generator(0, "test", i) for i in range(3)])
    inside = samples.static[:, 0] <= 0
    assert inside.any()
    np.testing.assert_array_equal((samples.trajectory[:, 0] == 0).all(axis=1), inside)


def test_the_mirrored_channel_has_the_mirrored_flow() -> None:
    samples = problem().simulate([generator(0, "test", 0)])
    static = samples.static[..., ::-1]
    flow, mirrored = (
        problem().solve(nothing(given), given, 1, samples.parameters).trajectory for given in (samples.static, static)
    )
    expected = flow[..., ::-1] * np.array([1, -1, 1])[:, None, None]
    np.testing.assert_allclose(mirrored, expected, atol=1e-6)


def test_the_drag_in_a_file_hardly_depends_on_its_grid() -> None:
    drags = []
    for n in (32, 64):
        own = problem(reynolds=10.0, resolution=n, solver_resolution=64)
        samples, spec = own.simulate([generator(0, "test", i) for i in range(2)]), own.spec
        flow = torch.from_numpy(samples.trajectory)
        metric = Conserved(MetricContext(spec, np.ones(3), spec.grid))
        measured = metric.measure(flow, Batch(flow[:, :0], torch.from_numpy(samples.static), flow))
        drags.append(measured["conserved_target"].ravel())
    assert (drags[1] > 0.1).all()
    np.testing.assert_allclose(drags[0], drags[1], rtol=0.02)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"reynolds": -1.0}, "reynolds"),
        ({"reynolds": 2000.0}, "solver_resolution must be at least"),
        ({"resolution": 4}, "resolution"),
        ({"solver_resolution": 48}, "solver_resolution must be a multiple"),
        ({"skewness": 1.0}, "skewness"),
        ({"newton_tolerance": 0.0}, "newton_tolerance"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"dataset.problem.{name}"):
        problem(**changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"fewest": 3, "most": 2}, "most"),
        ({"smallest": 0.2}, "largest"),
        ({"circles": 1.5}, "circles"),
        ({"largest": 0.3}, "gap"),
        ({"last": 1.9}, "last"),
    ],
)
def test_laws_out_of_range_are_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"dataset.problem.obstacles.{name}"):
        RandomObstacles(**changes)


def test_an_obstacle_at_a_wall_is_refused() -> None:
    samples = problem().simulate([generator(0, "test", 0)])
    moved = samples.static - np.array([1.0, 0.0])[:, None, None]
    with pytest.raises(ValueError, match="Sample 0: an obstacle touches the boundary"):
        problem().solve(nothing(moved), moved, 1, samples.parameters)


def test_a_flow_that_is_not_found_is_an_error_that_names_the_knob() -> None:
    samples = problem().simulate([generator(0, "test", 0)])
    with pytest.raises(SolverError, match=r"Sample 0.*dataset\.problem\.reynolds"):
        problem().solve(nothing(samples.static), samples.static, 1, {"reynolds": np.array([1e5])})


def test_on_a_coarse_grid_a_slower_flow_stands_for_one_that_is_not_found() -> None:
    samples = problem().simulate([generator(0, "test", 0)])
    coarse, fast = problem().at(problem().spec.grid), {"reynolds": np.array([600.0])}
    with pytest.raises(SolverError):
        problem().solve(nothing(samples.static), samples.static, 1, fast)
    found = coarse.solve(nothing(samples.static), samples.static, 1, fast).trajectory
    lower = coarse.solve(nothing(samples.static), samples.static, 1, {"reynolds": np.array([600.0 / 16])}).trajectory
    # Faster flow, less pressure lost to friction; and the same inflow.
    assert 0 < found[0, 0, 2, 0].mean() < lower[0, 0, 2, 0].mean()
    np.testing.assert_allclose(found[0, 0, 0, 0], lower[0, 0, 0, 0], rtol=0.1)
