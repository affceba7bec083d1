"""Wave2D: exact standing waves, convergence, conservation, symmetries, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_gen.cosine_fields import SmoothMedium, WallPulses
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.wave2d import Wave2D
from data_gen.spec import Samples
from neuralop_bench.batch import Batch
from neuralop_bench.training.augmentation import Symmetries

PROBLEM = Wave2D(resolution=33, n_snapshots=6, initial=WallPulses(narrowest=0.1, widest=0.15))


def draw(problem: Wave2D, *samples: int) -> Samples:
    return problem.simulate([generator(0, "test", i) for i in samples])


def solved(problem: Wave2D, start: NDArray[np.floating], speed: NDArray[np.floating], n: int) -> NDArray[np.floating]:
    """[time, 3, x, y], from one state."""
    return problem.solve(start[None, None], speed[None, None], n).trajectory[0]


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_standing_waves_in_a_uniform_medium(speed: float) -> None:
    x, y = np.meshgrid(*PROBLEM.spec.grid.coordinates(), indexing="ij")
    a, b = 3 * np.pi, 5 * np.pi
    omega = speed * np.hypot(a, b)

    def exact(t: float) -> NDArray[np.floating]:
        moving = speed**2 * np.sin(omega * t) / omega
        return np.stack(
            [
                np.cos(omega * t) * np.cos(a * x) * np.cos(b * y),
                moving * a * np.sin(a * x) * np.cos(b * y),
                moving * b * np.cos(a * x) * np.sin(b * y),
            ]
        )

    found = solved(PROBLEM, exact(0.1), np.full_like(x, speed), 8)[-1]
    np.testing.assert_allclose(found, exact(0.1 + 8 * PROBLEM.interval), atol=1e-7)


def test_a_pulse_meets_its_mirror_image_at_the_wall() -> None:
    # d'Alembert: two halves of a plane pulse run apart, and so do those of its image behind the wall at x = 0.
    problem = replace(PROBLEM, resolution=65, interval=0.5)
    x = problem.spec.grid.coordinates()[0][:, None] + np.zeros((1, 65))

    def pulse(place: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.exp(-0.5 * (place / 0.05) ** 2)

    start = np.stack([pulse(x - 0.3), 0 * x, 0 * x])
    found = solved(problem, start, np.ones_like(x), 1)[0, 0]
    exact = 0.5 * (pulse(x - 0.8) + pulse(x + 0.2) + pulse(x - 0.2) + pulse(x - 1.2))
    np.testing.assert_allclose(found, exact, atol=1e-7)


def test_errors_fall_faster_than_any_power_of_the_spacing() -> None:
    problem = replace(PROBLEM, n_snapshots=5, interval=0.1)
    fine = draw(replace(problem, resolution=129), 0).trajectory[0, -1]
    errors = []
    for n in (17, 33, 65):
        found = draw(replace(problem, resolution=n), 0).trajectory[0, -1]
        expected = fine[:, :: 128 // (n - 1), :: 128 // (n - 1)]
        errors.append(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    orders = np.log2(errors[:-1]) - np.log2(errors[1:])
    assert orders[0] > 4
    assert orders[1] > orders[0] + 2


def test_energy_and_mean_pressure_are_kept() -> None:
    samples = draw(PROBLEM, 0, 1)
    assert samples.diagnostics["energy_drift"].max() < 1e-6
    weights = np.r_[0.5, np.ones(31), 0.5] / 32
    means = np.einsum("ntxy,x,y->nt", samples.trajectory[:, :, 0], weights, weights)
    np.testing.assert_allclose(means, means[:, :1] + np.zeros(6), atol=1e-7)


def test_a_looser_tolerance_costs_less_and_loses_energy() -> None:
    strict, loose = (
        problem.simulate([generator(0, "test", 0)]).diagnostics for problem in (PROBLEM, PROBLEM.relaxed(1e6))
    )
    assert loose["n_products"][0] < strict["n_products"][0]
    assert loose["energy_drift"][0] > 100 * strict["energy_drift"][0]


def test_nothing_flows_through_the_walls() -> None:
    trajectory = draw(PROBLEM, 0).trajectory[0]
    assert not trajectory[:, 1, [0, -1]].any()
    assert not trajectory[:, 2, :, [0, -1]].any()


def test_a_moved_solution_is_a_solution() -> None:
    samples = draw(PROBLEM, 0)
    frames, static = torch.from_numpy(samples.trajectory), torch.from_numpy(samples.static)
    augment = Symmetries(PROBLEM.spec)
    for seed in range(6):
        torch.manual_seed(seed)
        moved = augment(Batch(frames[:, 1:2], static, frames[:, 2:]))
        found = PROBLEM.solve(moved.history.numpy(), moved.static.numpy(), 4).trajectory
        np.testing.assert_allclose(found, moved.target, atol=1e-6)


def test_inputs_are_the_same_on_a_finer_grid_and_in_other_batches() -> None:
    coarse, fine = draw(PROBLEM, 0, 1, 2), draw(replace(PROBLEM, resolution=65), 0)
    np.testing.assert_allclose(fine.static[..., ::2, ::2], coarse.static[:1], rtol=1e-12)
    np.testing.assert_allclose(fine.trajectory[:, 0, :, ::2, ::2], coarse.trajectory[:1, 0], atol=1e-13)
    assert np.array_equal(draw(replace(PROBLEM, inner_batch=2), 0, 1, 2).trajectory, coarse.trajectory)


def test_solving_goes_on_where_a_trajectory_ends() -> None:
    samples = draw(PROBLEM, 0)
    found = solved(PROBLEM, samples.trajectory[0, 2], samples.static[0, 0], 3)
    np.testing.assert_allclose(found, samples.trajectory[0, 3:], atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resolution": 2}, r"dataset\.problem\.resolution must be at least 4, got 2"),
        ({"interval": 0.0}, r"dataset\.problem\.interval must be positive"),
        ({"time_tolerance": 1.0}, r"dataset\.problem\.time_tolerance must be from 1e-14 to 0\.1"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Wave2D(**changes)


def test_laws_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scale from 0\.02 to 1.*dataset\.problem\.medium"):
        SmoothMedium(scale=0.0)
    with pytest.raises(ValueError, match=r"0 < narrowest <= widest"):
        WallPulses(narrowest=0.2, widest=0.1)


def test_other_grids_and_media_are_refused() -> None:
    with pytest.raises(ValueError, match="closed Neumann grid"):
        PROBLEM.at(Grid.periodic(32))
    with pytest.raises(ValueError, match="expected a history"):
        PROBLEM.solve(np.zeros((1, 1, 2, 33, 33)), np.ones((1, 1, 33, 33)), 1)
    with pytest.raises(ValueError, match="positive sound speeds, got 0"):
        PROBLEM.solve(np.zeros((1, 1, 3, 33, 33)), np.zeros((1, 1, 33, 33)), 1)
