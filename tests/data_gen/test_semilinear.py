"""What every semilinear equation promises, and the exact solutions of some."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf

from data_gen.cosine_fields import CosineNoise
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.advection1d import Advection1D
from data_gen.problems.allen_cahn1d import AllenCahn1D
from data_gen.problems.burgers2d import Burgers2D
from data_gen.problems.cahn_hilliard2d import CahnHilliard2D
from data_gen.problems.diffusion1d import Diffusion1D
from data_gen.problems.fisher1d import FisherKPP1D
from data_gen.problems.kdv1d import KortewegDeVries1D
from data_gen.problems.ks1d import KuramotoSivashinsky1D
from data_gen.random_fields import GaussianBlobs
from data_gen.semilinear import SemilinearProblem
from data_gen.spec import Samples, SolverError
from neuralop_bench.batch import Batch
from neuralop_bench.training.augmentation import Symmetries

CONFIGS = Path(__file__).parents[2] / "configs" / "dataset"


def small(problem: SemilinearProblem) -> SemilinearProblem:
    """On a coarse grid over two intervals, each of eight steps."""
    step = min(problem.max_step, problem.interval / 8)
    n = {1: 64, 2: 24, 3: 12}[problem.n_dims]
    if isinstance(problem.initial, CosineNoise):
        problem = replace(problem, initial=CosineNoise(n_waves=8, n_cells=16))
    return replace(problem, resolution=n, n_snapshots=3, interval=8 * step, first_step=step, max_step=step, warm_up=0.0)


NODES = {path.stem: OmegaConf.load(path).get("problem") for path in sorted(CONFIGS.glob("*.yaml"))}
CONFIGURED = {name: instantiate(node) for name, node in NODES.items() if node is not None}
PROBLEMS = {name: small(problem) for name, problem in CONFIGURED.items() if isinstance(problem, SemilinearProblem)}
every_equation = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS.keys())
PERIODIC = {name: problem for name, problem in PROBLEMS.items() if problem.boundary == "periodic"}


def draw(problem: SemilinearProblem, *samples: int) -> Samples:
    return problem.simulate([generator(0, "train", i) for i in samples])


def solved(problem: SemilinearProblem, start: NDArray[np.floating], n_steps: int) -> NDArray[np.floating]:
    """[time, field, *space], from one state [field, *space]."""
    return problem.solve(start[None, None], np.empty((1, 0, *start.shape[1:])), n_steps).trajectory[0]


def distance(u: NDArray[np.floating], v: NDArray[np.floating]) -> float:
    return float(np.linalg.norm(u - v) / np.linalg.norm(v))


@every_equation
def test_the_error_is_of_fourth_order_in_the_step(problem: SemilinearProblem) -> None:
    start = draw(problem, 0).trajectory[0, 0]
    coarse, middle, fine = (
        solved(replace(problem, first_step=h, max_step=h), start, 2)[-1]
        for h in (problem.max_step, problem.max_step / 2, problem.max_step / 4)
    )
    if distance(coarse, middle) > 1e-11:  # otherwise exact to rounding, or almost
        assert math.log2(distance(coarse, middle) / distance(middle, fine)) == pytest.approx(4, abs=0.5)


@every_equation
def test_a_sample_depends_on_its_own_stream_alone(problem: SemilinearProblem) -> None:
    several, alone = draw(problem, 0, 1, 2), draw(problem, 2)
    for whole, part in zip(several[:3], alone[:3], strict=True):
        assert np.array_equal(whole[2:], part)
    others = draw(replace(problem, inner_batch=2), 0, 1, 2)
    assert np.array_equal(several.trajectory, others.trajectory)


@every_equation
def test_a_finer_grid_holds_the_same_field(problem: SemilinearProblem) -> None:
    grid = problem.spec.grid
    points = (..., *[slice(None, None, 2)] * grid.n_dims)
    coarse, fine = (draw(p, 0).trajectory[0, 0] for p in (problem, problem.at(grid.refine(2))))
    if isinstance(problem.initial, GaussianBlobs):  # not band-limited
        assert distance(fine[points], coarse) < 0.1
    else:
        np.testing.assert_allclose(fine[points], coarse, atol=1e-12)


@every_equation
def test_solving_goes_on_where_a_trajectory_ends(problem: SemilinearProblem) -> None:
    trajectory = draw(problem, 0).trajectory[0]
    assert distance(solved(problem, trajectory[1], 1)[0], trajectory[2]) < 1e-12


@pytest.mark.parametrize("problem", PERIODIC.values(), ids=PERIODIC.keys())
def test_a_translated_state_evolves_likewise(problem: SemilinearProblem) -> None:
    start = draw(problem, 0).trajectory[0, 0]
    moved, axes = (3, -2, 5)[: problem.n_dims], tuple(range(-problem.n_dims, 0))
    found = solved(problem, np.roll(start, moved, axes), 2)
    assert distance(found, np.roll(solved(problem, start, 2), moved, axes)) < 1e-11


@every_equation
def test_a_moved_solution_is_a_solution(problem: SemilinearProblem) -> None:
    frames = torch.from_numpy(draw(problem, 0).trajectory)
    empty = frames.new_empty(1, 0, *frames.shape[3:])
    augment = Symmetries(problem.spec)
    for seed in range(4):
        torch.manual_seed(seed)
        moved = augment(Batch(frames[:, :1], empty, frames[:, 1:]))
        assert not torch.equal(moved.history, frames[:, :1])
        found = solved(problem, moved.history[0, 0].numpy(), 2)
        assert distance(found, moved.target[0].numpy()) < 1e-9


@every_equation
def test_what_is_conserved_stays(problem: SemilinearProblem) -> None:
    trajectory = draw(problem, 0).trajectory[0]
    axes = tuple(range(-problem.n_dims, 0))
    means = trajectory.mean(axis=axes)
    quantity = {"mean": means, "energy": (trajectory**2).mean(axis=axes)}
    quantity |= {f"mean_{entry.name}": means[:, field] for field, entry in enumerate(problem.state)}
    for name in {*problem.conserved} - {"incompressibility"}:  # test_ns3d.py has it
        assert np.abs(quantity[name] - quantity[name][0]).max() < 1e-12


# Exact solutions ------------------------------------------------------------------------------------------------------


def x_of(problem: SemilinearProblem) -> NDArray[np.floating]:
    return problem.spec.grid.coordinates()[0]


def test_advection_moves_the_field() -> None:
    problem = Advection1D(interval=1 / 16)
    start = draw(problem, 0).trajectory[0, 0]
    np.testing.assert_allclose(solved(problem, start, 3)[-1], np.roll(start, 3 * 128 // 16, -1), atol=1e-12)


def test_diffusion_damps_a_wave_at_its_rate() -> None:
    problem = Diffusion1D()
    wave = np.sin(2 * np.pi * 3 * x_of(problem))[None]
    rate = problem.diffusivity * (2 * np.pi * 3) ** 2
    np.testing.assert_allclose(solved(problem, wave, 4)[-1], math.exp(-rate * 4 * problem.interval) * wave, atol=1e-13)


def test_a_soliton_travels_unchanged() -> None:
    problem, c = KortewegDeVries1D(length=40.0, resolution=256, interval=0.25, first_step=1e-3, max_step=1e-3), 4.0
    # Its tails at the ends of the box are 1e-17.
    wave = [c / 2 / np.cosh(math.sqrt(c) / 2 * (x_of(problem) - 15 - c * t)) ** 2 for t in (0, 1)]
    assert distance(solved(problem, wave[0][None], 4)[-1, 0], wave[1]) < 1e-8


def test_the_known_front_of_fisher_advances() -> None:
    # Ablowitz & Zeppetella (1979), eq. 8, and its mirror image: far apart, each moves alone.
    problem = FisherKPP1D(diffusivity=1.0, growth=1.0, length=160.0, resolution=512, interval=1.0)
    x, speed = x_of(problem) - 80, 5 / math.sqrt(6)
    front = [(1 + (math.sqrt(2) - 1) * np.exp((np.abs(x) - 30 - speed * t) / math.sqrt(6))) ** -2 for t in (0, 4)]
    assert distance(solved(problem, front[0][None], 4)[-1, 0], front[1]) < 1e-6


def test_a_wall_between_phases_stands_still() -> None:
    problem = AllenCahn1D(width=0.02)
    x = x_of(problem)
    walls = np.tanh((x - 0.25) / (math.sqrt(2) * 0.02)) * np.tanh((0.75 - x) / (math.sqrt(2) * 0.02))
    assert distance(solved(problem, walls[None], 4)[-1, 0], walls) < 1e-6


def test_burgers_in_two_dimensions_is_the_heat_equation_in_disguise() -> None:
    # u = -2 nu grad(log phi), phi_t = nu Laplacian phi (Cole-Hopf).
    problem = Burgers2D(viscosity=0.02, resolution=64, interval=0.1, first_step=1e-3, max_step=2.5e-3)
    x, y = np.meshgrid(*problem.spec.grid.coordinates(), indexing="ij")
    k, nu = 2 * np.pi, problem.viscosity

    def exact(t: float) -> NDArray[np.floating]:
        decay = math.exp(-nu * k**2 * t), math.exp(-2 * nu * k**2 * t)
        phi = 2 + decay[0] * np.sin(k * x) + 0.5 * decay[1] * np.cos(k * (x - y))
        diagonal = 0.5 * decay[1] * k * np.sin(k * (x - y))
        return -2 * nu * np.stack([decay[0] * k * np.cos(k * x) - diagonal, diagonal]) / phi

    assert distance(solved(problem, exact(0), 3)[-1], exact(0.3)) < 1e-7


def test_the_slope_of_the_gradient_form_solves_the_conservative_form() -> None:
    options: dict[str, Any] = {"warm_up": 0.0, "interval": 1.0, "n_snapshots": 3}
    slope, height = (KuramotoSivashinsky1D(form=form, **options) for form in ("conservative", "gradient"))
    x = x_of(slope) * 2 * np.pi / slope.length
    h, u = np.cos(x) + np.sin(3 * x), (3 * np.cos(3 * x) - np.sin(x)) * 2 * np.pi / slope.length
    found = np.fft.irfft(
        2j * np.pi / slope.length * np.arange(65) * np.fft.rfft(solved(height, h[None], 2)[-1, 0]), 128
    )
    assert distance(found, solved(slope, u[None], 2)[-1, 0]) < 1e-6


def test_the_tail_is_the_share_of_the_highest_third_of_the_wavenumbers() -> None:
    problem = CahnHilliard2D(resolution=16, mobility=1e-9)  # wavenumbers up to 7, which hardly change
    x = np.arange(16) / 16 * 2 * np.pi
    waves = [np.cos(2 * x)[:, None] + 0 * x, np.cos(7 * x)[:, None] + 0 * x, 0 * x[:, None] + np.cos(5 * x)]
    start = np.stack([1e-3 * wave for wave in [*waves, 3 * waves[0] + 4 * waves[2]]])[:, None, None]
    tails = problem.solve(start, np.empty((4, 0, 16, 16)), 1).diagnostics["spectrum_tail"]
    np.testing.assert_allclose(tails, [0, 1, 1, 0.8], rtol=1e-3, atol=1e-6)


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"diffusivity": -1e-3}, r"dataset\.problem\.diffusivity must be positive, got -0\.001"),
        ({"resolution": 63}, r"dataset\.problem\.resolution must be even"),
        ({"n_snapshots": 1}, r"n_snapshots must be at least 2"),
        ({"max_step": 0.0}, r"dataset\.problem\.max_step must be positive"),
        ({"warm_up": -1.0}, r"dataset\.problem\.warm_up must be at least 0"),
    ],
)
def test_parameters_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        FisherKPP1D(**changes)


def test_damping_may_be_zero_but_not_negative() -> None:
    assert KortewegDeVries1D(hyper_viscosity=0.0).hyper_viscosity == 0
    with pytest.raises(ValueError, match=r"dataset\.problem\.hyper_viscosity must be at least 0, got -0\.001"):
        KortewegDeVries1D(hyper_viscosity=-1e-3)


def test_a_solution_that_blows_up_names_sample_time_and_option() -> None:
    problem = KortewegDeVries1D(first_step=0.5, max_step=0.5, interval=5.0)
    start = np.stack([np.zeros(128), 50 * np.sin(2 * np.pi * x_of(problem) / 20)])[:, None, None]
    with pytest.raises(SolverError, match=r"Sample 1 .* before t=5\. Lower dataset\.problem\.max_step"):
        problem.solve(start, np.empty((2, 0, 128)), 1)


def test_other_grids_and_histories_are_refused() -> None:
    problem = FisherKPP1D()
    with pytest.raises(ValueError, match="needs a periodic grid of side 1"):
        problem.at(Grid.periodic(64, 1, length=2.0))
    with pytest.raises(ValueError, match=r"expected a history \[sample, time >= 1, 1, n\]"):
        problem.solve(np.zeros((1, 1, 2, 64)), np.empty((1, 0, 64)), 1)
