"""What holds to rounding is held to rounding: a float32 constant passes the usual relative tolerance of 1e-5."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from data_gen import spectral
from data_gen.generation.random_streams import generator
from data_gen.problems.ns2d import NavierStokes2D, SinusoidalForcing, VorticityDynamics
from data_gen.random_fields import PeriodicGaussianField
from data_gen.solvers.integrating_factor import integrate
from data_gen.spec import SolverError

ROUNDING = 1e-14
FREE = SinusoidalForcing(sine=0.0, cosine=0.0)


def _nodes(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.arange(n) / n
    return x[:, None], x[None, :]


def _solve(problem: NavierStokes2D, start: np.ndarray, n_steps: int) -> np.ndarray:
    n = start.shape[-1]
    return problem.solve(start[None, None, None], np.empty((1, 0, n, n)), n_steps).trajectory[0, :, 0]


@pytest.mark.parametrize("amplitude", [0.1, 1 / 3])
def test_the_forcing_has_all_its_digits(amplitude: float) -> None:
    n = 12
    dynamics = VorticityDynamics(1e-3, n, SinusoidalForcing((1, 1), amplitude, amplitude))
    still = torch.zeros(1, 2 * dynamics.k_max + 1, dynamics.k_max + 1, dtype=torch.complex128)
    forcing = dynamics.nonlinear(still, torch.zeros(1, dtype=torch.float64))
    x, y = _nodes(n)
    expected = amplitude * (np.sin(2 * math.pi * (x + y)) + np.cos(2 * math.pi * (x + y)))
    assert forcing.dtype == torch.complex128
    assert np.abs(spectral.to_grid(forcing, n)[0].numpy() - expected).max() < ROUNDING * amplitude


def test_a_force_on_a_fluid_at_rest_has_the_exact_response() -> None:
    # From rest the flow stays a shear along x + y, whose advection vanishes: w = f (1 - exp(-r t)) / r, r = 8 pi^2 nu.
    viscosity, n = 1e-3, 12
    problem = NavierStokes2D(viscosity=viscosity, resolution=n, oversampling=1.0, interval=0.02)
    rate = 8 * math.pi**2 * viscosity
    x, y = _nodes(n)
    force = 0.1 * (np.sin(2 * math.pi * (x + y)) + np.cos(2 * math.pi * (x + y)))
    states = _solve(problem, np.zeros((n, n)), 5)
    for step, state in enumerate(states, start=1):
        expected = force * -math.expm1(-rate * 0.02 * step) / rate
        # The quadrature of the force over a step of 0.02 errs by (rate dt)^4 / 2880 = 2e-15.
        assert np.abs(state - expected).max() < 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize("n", [24, 25])
def test_taylor_green_vortex_decays_to_thirteen_digits(n: int) -> None:
    viscosity, interval = 1e-2, 0.5
    problem = NavierStokes2D(viscosity=viscosity, resolution=n, oversampling=1.0, interval=interval, forcing=FREE)
    x, y = _nodes(n)
    start = 2 * np.cos(2 * math.pi * x) * np.cos(2 * math.pi * y)
    for step, state in enumerate(_solve(problem, start, 4), start=1):
        expected = start * math.exp(-8 * math.pi**2 * viscosity * interval * step)
        assert np.abs(state - expected).max() < 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize("n", [11, 12])
def test_grid_and_coefficients_are_a_round_trip_in_double_precision(n: int) -> None:
    k_max = spectral.max_wavenumber(n, dealiased=False)
    u_hat = PeriodicGaussianField().draw([np.random.default_rng(0)], k_max)
    u = spectral.to_grid(u_hat, n)
    assert u.dtype == torch.float64
    assert float((spectral.from_grid(u, k_max) - u_hat).abs().max()) < ROUNDING * float(u_hat.abs().max())
    # A single real mode, by its formula: cos(2 pi (2x - 3y)) is one half at k = (-2, 3), and its mirror image.
    x, y = (torch.from_numpy(axis) for axis in _nodes(n))
    mode = spectral.from_grid(torch.cos(2 * math.pi * (2 * x - 3 * y)), k_max)
    expected = torch.zeros_like(mode)
    expected[-2, 3] = 0.5
    assert float((mode - expected).abs().max()) < ROUNDING


def test_samples_are_solved_in_double_precision() -> None:
    problem = NavierStokes2D(viscosity=1e-3, resolution=12, n_snapshots=3)
    samples = problem.simulate([generator(0, "train", 0)])
    assert samples.trajectory.dtype == np.float64
    assert samples.trajectory.shape == (1, 3, 1, 12, 12)
    # The stored initial frame is the truncated draw itself, to rounding and not to single precision.
    k_max = spectral.max_wavenumber(problem.solver_resolution, dealiased=True)
    drawn = spectral.to_grid(problem.initial.draw([generator(0, "train", 0)], k_max), 12)[0].numpy()
    assert np.abs(samples.trajectory[0, 0, 0] - drawn).max() < ROUNDING
    assert np.abs(samples.history[0, 0, 0] - drawn).max() < ROUNDING


@pytest.mark.exhaustive
def test_sixteen_samples_solved_together_equal_each_solved_alone() -> None:
    problem = NavierStokes2D(viscosity=1e-4, resolution=16, n_snapshots=8)
    indices = range(16)
    together = problem.simulate([generator(0, "test", i) for i in indices]).trajectory
    dynamics = VorticityDynamics(problem.viscosity, problem.solver_resolution, problem.forcing)
    states = spectral.from_grid(torch.from_numpy(together[:, 1, 0]), 7)
    bounds = 0.9 * dynamics.stable_step(states)
    assert len(set(torch.ceil(1 / bounds).tolist())) >= 3, "the samples must differ in their number of substeps"
    for i in indices:
        alone = problem.simulate([generator(0, "test", i)]).trajectory[0]
        assert np.abs(together[i] - alone).max() <= 1e-12 * np.abs(alone).max(), i


def test_the_cfl_bound_is_the_documented_one() -> None:
    # Taylor-Green: u = -cos X sin Y / (2 pi), v = sin X cos Y / (2 pi), so max(|u| + |v|) = 1 / (2 pi).
    n = 24
    dynamics = VorticityDynamics(1e-3, n, FREE)
    x, y = _nodes(n)
    w = torch.from_numpy(2 * np.cos(2 * math.pi * x) * np.cos(2 * math.pi * y))
    slow, fast = spectral.from_grid(w, dynamics.k_max), spectral.from_grid(5 * w, dynamics.k_max)
    bounds = dynamics.stable_step(torch.stack([slow, fast]))
    assert bounds.tolist() == pytest.approx([2.8 / (n / 3), 2.8 / (n / 3) / 5], rel=1e-12)


def test_each_sample_is_given_its_own_time_in_every_interval() -> None:
    # v' = g(t), g = 4 t^3: the quadrature of RK4 is Simpson's rule, exact for cubics, whatever the steps; a time that
    # starts again at 0 in every interval, or that belongs to another sample, is off at once.
    linear = torch.zeros(1, dtype=torch.float64)
    steps = torch.tensor([0.5, 0.07, 0.2], dtype=torch.float64)
    seen: list[float] = []

    def nonlinear(v: Tensor, t: Tensor) -> Tensor:
        assert t.shape == (v.shape[0],)
        seen.extend(t.tolist())
        return 4 * (t**3)[:, None]

    start = torch.zeros(3, 1, dtype=torch.float64)
    times = [1.5, 1.9, 3.0]
    states = integrate(linear, nonlinear, start, times, lambda state: steps[: state.shape[0]], start=1.0).states
    for index, t in enumerate(times):
        assert np.abs(states[:, index, 0].numpy() - (t**4 - 1)).max() < 1e-12 * t**4
    assert min(seen) == 1.0
    # Steps land on the output times: no evaluation lies past one that belongs to the interval before it.
    assert max(seen) == pytest.approx(3.0, abs=1e-12)


@pytest.mark.parametrize(("bound", "n_steps"), [(0.1, 3), (math.inf, 3), (0.0999, 6)])
def test_an_interval_takes_as_few_substeps_as_the_bound_allows(bound: float, n_steps: int) -> None:
    # 3 * 0.1 - 0.2 exceeds 0.1 by rounding alone, which must not cost a step; no bound at all still takes one.
    times = [0.1, 0.2, 3 * 0.1]
    assert times[2] - times[1] > 0.1
    calls: list[Tensor] = []

    def nonlinear(v: Tensor, t: Tensor) -> Tensor:
        calls.append(t)
        return torch.ones_like(v)

    start = torch.zeros(1, 1, dtype=torch.float64)
    linear = torch.zeros(1, dtype=torch.float64)
    states = integrate(linear, nonlinear, start, times, lambda v: v.new_full((v.shape[0],), bound)).states
    assert len(calls) == 4 * n_steps
    assert states.flatten().tolist() == pytest.approx(times, rel=1e-14)


def test_a_flow_with_too_large_a_step_is_stopped() -> None:
    # Ten times the stable step: the state grows without bound, and the error says which sample and what to change.
    n = 32
    dynamics = VorticityDynamics(1e-5, n, SinusoidalForcing())
    calm, wild = (
        replace(PeriodicGaussianField(), scale=scale).draw([np.random.default_rng(0)], dynamics.k_max)
        for scale in (343.0, 343.0e6)
    )
    state = torch.cat([calm, wild])
    step = 10 * float(dynamics.stable_step(wild))
    with pytest.raises(SolverError, match=r"Sample 1 of the batch became non-finite before t=.*cfl_safety"):
        integrate(
            dynamics.linear,
            dynamics.nonlinear,
            state,
            [60 * step],
            lambda v: torch.full((v.shape[0],), step, dtype=torch.float64),
        )
    # The stable step itself carries the same state as far.
    bound = lambda v: 0.9 * dynamics.stable_step(v)  # noqa: E731
    states = integrate(dynamics.linear, dynamics.nonlinear, state, [60 * step], bound).states
    assert bool(torch.isfinite(states.abs()).all())


def test_a_translation_along_the_diagonal_is_no_symmetry() -> None:
    # The control of the symmetry tests: moved along x + y, the force no longer fits, and the solutions differ.
    n = 16
    problem = NavierStokes2D(viscosity=1e-3, resolution=n, n_snapshots=3)
    original = problem.simulate([np.random.default_rng(0)]).trajectory
    moved = np.roll(original, (3, 3), axis=(-2, -1))
    solved = problem.solve(moved[:, :1], np.empty((1, 0, n, n)), 2).trajectory
    assert np.abs(solved - moved[:, 1:]).max() > 1e-2
    # Without the force every translation is one.
    free = replace(problem, forcing=FREE)
    original = free.simulate([np.random.default_rng(0)]).trajectory
    moved = np.roll(original, (3, 3), axis=(-2, -1))
    assert np.abs(free.solve(moved[:, :1], np.empty((1, 0, n, n)), 2).trajectory - moved[:, 1:]).max() < 1e-12


@pytest.mark.parametrize("viscosity", [1e-3, pytest.param(1e-2, marks=pytest.mark.exhaustive)])
def test_the_smoke_problem_is_accurate_to_the_step(viscosity: float) -> None:
    # Measured at 1e-3: 3e-5 at t = 1, falling to 4e-7 at t = 19, the largest of 16 samples.
    problem = NavierStokes2D(viscosity=viscosity, resolution=32, oversampling=1.0)
    full, half = (
        replace(problem, cfl_safety=safety).simulate([generator(0, "test", i) for i in range(4)]).trajectory[:, :, 0]
        for safety in (0.9, 0.45)
    )
    changes = np.linalg.norm(full - half, axis=(-2, -1)) / np.linalg.norm(half, axis=(-2, -1))
    assert changes.max() < 4e-4
