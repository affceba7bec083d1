"""The Burgers solver: exact solutions, orders, budgets, symmetries, independence of samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_gen import spectral
from data_gen.generation.random_streams import generator
from data_gen.grids import Grid
from data_gen.problems.burgers1d import Burgers1D, BurgersDynamics
from data_gen.random_fields import PeriodicGaussianField1D
from data_gen.spec import SolverError

Array = NDArray[np.floating]
EXHAUSTIVE = pytest.mark.exhaustive


def _rngs(*indices: int) -> list[np.random.Generator]:
    return [generator(0, "test", i) for i in indices]


def _cole_hopf(u: Array, viscosity: float, time: float) -> Array:
    """The exact solution at ``time`` from initial values [..., n] of zero mean, for a Fourier series the grid holds.

    phi(0) = exp(-integral of u / 2 nu) is divided by its largest value, so nothing overflows: u = -2 nu phi_x / phi
    doesn't change. The heat equation is solved exactly for every Fourier mode.
    """
    n = u.shape[-1]
    kappa = 2 * np.pi * np.arange(n // 2 + 1)
    u_hat = np.fft.rfft(u)
    u_hat[..., 0] = 0
    exponent = -np.fft.irfft(np.divide(u_hat, 1j * kappa, out=np.zeros_like(u_hat), where=kappa > 0), n)
    exponent /= 2 * viscosity
    phi_hat = np.fft.rfft(np.exp(exponent - exponent.max(axis=-1, keepdims=True)))
    phi_hat *= np.exp(-viscosity * kappa**2 * time)
    return -2 * viscosity * np.fft.irfft(1j * kappa * phi_hat, n) / np.fft.irfft(phi_hat, n)


def _wave(n: int, viscosity: float, time: float = 0.0, b: float = 1.2) -> Array:
    """A closed-form solution: phi = b + exp(-4 pi^2 nu t) cos 2 pi x."""
    x = 2 * np.pi * np.arange(n) / n
    a = math.exp(-4 * math.pi**2 * viscosity * time)
    return 4 * np.pi * viscosity * a * np.sin(x) / (b + a * np.cos(x))


def _errors(found: Array, exact: Array) -> Array:
    return np.linalg.norm(found - exact, axis=-1) / np.linalg.norm(exact, axis=-1)


def _solve(problem: Burgers1D, u: Array, n_steps: int = 1) -> Array:
    """Trajectory [..., time, n] from initial values [sample, n] or [n]."""
    history = np.atleast_2d(u)[:, None, None]
    out = problem.solve(history, np.empty((len(history), 0, u.shape[-1])), n_steps).trajectory[:, :, 0]
    return out if u.ndim == 2 else out[0]


def _fixed(dt: float, **changes: float) -> Burgers1D:
    return replace(Burgers1D(first_step=dt, step_growth=1.0, max_step=dt), **changes)  # pyright: ignore


# The exact solution --------------------------------------------------------------------------------------------------


def test_the_oracle_knows_the_closed_form() -> None:
    for time in (0.1, 1.0):
        assert np.abs(_cole_hopf(_wave(256, 0.05), 0.05, time) - _wave(256, 0.05, time)).max() < 1e-13


@pytest.mark.parametrize(
    ("viscosity", "bound"),
    # Measured: 2.3e-7, 5.0e-7, 4.3e-7, 4.8e-7.
    [*(pytest.param(*cell, marks=EXHAUSTIVE) for cell in ((0.1, 5e-7), (0.02, 1e-6), (0.01, 1e-6))), (0.005, 1e-6)],
)
def test_every_one_of_256_samples_is_the_cole_hopf_solution_to_a_millionth(viscosity: float, bound: float) -> None:
    problem = Burgers1D(viscosity=viscosity, resolution=8192)
    samples = problem.simulate(_rngs(*range(256)))
    exact = _cole_hopf(samples.trajectory[:, 0, 0], viscosity, 1.0)
    assert _errors(samples.trajectory[:, 1, 0], exact).max() < bound


def test_what_the_solver_cuts_off_the_law_does_not_matter_at_the_end() -> None:
    # The same draws with sixteen times as many wavenumbers; the law's spectrum falls as k^-4.
    problem = Burgers1D(resolution=8192)
    found = problem.simulate(_rngs(*range(16))).trajectory[:, 1, 0]
    whole = spectral.to_grid_1d(problem.initial.draw(_rngs(*range(16)), 2730), 8192).numpy()
    assert _errors(found, _cole_hopf(whole, problem.viscosity, 1.0)).max() < 1e-6


def test_larger_amplitudes_are_stable_and_as_accurate() -> None:
    # Amplitude 1.5 at the default step diverges for some samples unless they take smaller steps than the rest.
    problem = Burgers1D(resolution=4096, initial=PeriodicGaussianField1D(scale=2.25 * 625))
    samples = problem.simulate(_rngs(*range(64)))
    assert len(set(samples.diagnostics["n_steps"].tolist())) > 1
    exact = _cole_hopf(samples.trajectory[:, 0, 0], problem.viscosity, 1.0)
    assert _errors(samples.trajectory[:, 1, 0], exact).max() < 1e-6


@pytest.mark.parametrize("factor", [-1.0, *(pytest.param(f, marks=EXHAUSTIVE) for f in (0.0, 0.5, 2.0)), 1 + 1e-5])
def test_a_wrong_sign_or_factor_of_the_term_is_noticed(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    right = BurgersDynamics.nonlinear
    monkeypatch.setattr(BurgersDynamics, "nonlinear", lambda self, u_hat: factor * right(self, u_hat))
    for test in (
        test_errors_fall_with_the_fourth_power_of_the_step,
        lambda: test_every_one_of_256_samples_is_the_cole_hopf_solution_to_a_millionth(0.01, 1e-6),
        lambda: test_the_term_is_the_convolution(12),
    ):
        with pytest.raises((AssertionError, SolverError)):
            test()


# The term ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 12, 14, 32, 64])
def test_the_term_is_the_convolution(n: int) -> None:
    dynamics = BurgersDynamics(1e-2, n)
    k_max = dynamics.k_max
    law = PeriodicGaussianField1D(scale=625e2)
    u_hat = law.draw(_rngs(3), k_max)
    u_hat[:, 0] = 0.7
    whole = np.concatenate([np.conj(u_hat[0, 1:].numpy()[::-1]), u_hat[0].numpy()])
    products = np.convolve(whole, whole)[2 * k_max : 3 * k_max + 1]
    expected = -0.5j * 2 * np.pi * np.arange(k_max + 1) * products
    scale = np.abs(expected).max()
    assert scale > 1
    assert np.abs(dynamics.nonlinear(u_hat)[0].numpy() - expected).max() < 1e-14 * scale


def test_the_linear_symbol_is_diffusion() -> None:
    assert BurgersDynamics(0.3, 12).linear.tolist() == pytest.approx([-0.3 * (2 * np.pi * k) ** 2 for k in range(4)])


# Orders --------------------------------------------------------------------------------------------------------------


def test_errors_fall_with_the_fourth_power_of_the_step() -> None:
    viscosity = 0.05
    errors = []
    for dt in (1 / 16, 1 / 32, 1 / 64):
        end = _solve(_fixed(dt, viscosity=viscosity, resolution=128, solver_resolution=128), _wave(128, viscosity))[-1]
        errors.append(float(_errors(end, _wave(128, viscosity, 1.0))))
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(3.8 < order < 4.2 for order in orders), (errors, orders)
    assert errors[-1] < 1e-6


def test_a_rough_start_reduces_the_order_and_graded_steps_make_up_for_it() -> None:
    problem = Burgers1D(viscosity=0.1, resolution=1024)
    start = spectral.to_grid_1d(problem.initial.draw(_rngs(*range(8)), problem.k_max), 1024).numpy()
    exact = _cole_hopf(start, 0.1, 1.0)
    # As many equal steps as graded ones.
    graded, equal = (_errors(_solve(p, start)[:, -1], exact).max() for p in (problem, _fixed(1 / 139, viscosity=0.1)))
    assert graded < equal / 10


def test_errors_fall_exponentially_with_the_resolution() -> None:
    viscosity = 0.02
    start = _wave(96, viscosity, b=1.05)
    exact = _wave(96, viscosity, 1.0, b=1.05)
    errors = []
    for n in (24, 36, 48, 60):
        problem = _fixed(2e-3, viscosity=viscosity, resolution=96, solver_resolution=n)
        errors.append(float(_errors(_solve(problem, start)[-1], exact)))
    assert all(fine < coarse / 3 for coarse, fine in itertools.pairwise(errors)), errors
    assert errors[-1] < 1e-7


# Budgets -------------------------------------------------------------------------------------------------------------


def test_the_mean_is_conserved_and_only_carries_the_wave_along() -> None:
    # Galilean invariance: u0 + c gives u(x - c t, t) + c.
    problem = Burgers1D(resolution=512, solver_resolution=512)
    start = problem.simulate(_rngs(0, 1)).history[:, 0, 0]
    still, moving = _solve(problem, start)[:, -1], _solve(problem, start + 0.25)[:, -1]
    assert np.abs(moving.mean(axis=-1) - 0.25).max() < 1e-14
    assert np.abs(moving - 0.25 - np.roll(still, 128, axis=-1)).max() < 2e-6
    samples = problem.simulate(_rngs(0, 1))
    assert np.abs(samples.trajectory.mean(axis=-1)).max() < 1e-15
    assert samples.diagnostics["mean_drift"].max() < 1e-15


@pytest.mark.parametrize("viscosity", [0.1, 0.01])
def test_energy_decays_at_the_rate_of_dissipation(viscosity: float) -> None:
    # d/dt <u^2>/2 = -nu <u_x^2>, by central differences about t = 0.3, when fronts stand.
    h = 1e-3
    problem = Burgers1D(viscosity=viscosity, resolution=1024, interval=0.3 - h)
    start = problem.simulate(_rngs(0, 1, 2)).trajectory[:, 1, 0]
    states = np.concatenate([start[:, None], _solve(replace(problem, interval=h), start, 2)], axis=1)
    energy = 0.5 * (states**2).mean(axis=-1)
    kappa = 2 * np.pi * np.arange(513)
    slope = np.fft.irfft(1j * kappa * np.fft.rfft(states[:, 1]))
    rate = (energy[:, 2] - energy[:, 0]) / (2 * h)
    assert rate == pytest.approx(-viscosity * (slope**2).mean(axis=-1), rel=1e-4)


def test_the_largest_value_never_grows() -> None:
    trajectory = Burgers1D(interval=0.1, n_snapshots=11).simulate(_rngs(*range(8))).trajectory[:, :, 0]
    assert np.diff(np.abs(trajectory).max(axis=-1), axis=1).max() < 1e-3 * np.abs(trajectory[:, 0]).max()


# Symmetries ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "move"),
    [
        ("translation", lambda u: np.roll(u, 37, axis=-1)),
        ("odd_reflection", lambda u: -np.roll(u[..., ::-1], 1, axis=-1)),
    ],
)
def test_declared_symmetries_map_solutions_to_solutions(name: str, move: Callable[[Array], Array]) -> None:
    problem = Burgers1D(resolution=256, interval=0.25, n_snapshots=4)
    assert name in problem.spec.symmetries
    start = problem.simulate(_rngs(0, 1)).history[:, 0, 0]
    solved = _solve(problem, start, 3)
    assert np.abs(_solve(problem, move(start), 3) - move(solved)).max() < 1e-12
    assert np.abs(move(start) - start).max() > 0.1, "the map must move something"


def test_a_reflection_without_the_sign_is_no_symmetry() -> None:
    problem = Burgers1D(resolution=256)
    start = problem.simulate(_rngs(0)).history[:, 0, 0]
    mirrored = np.roll(start[..., ::-1], 1, axis=-1)
    solved = _solve(problem, start)
    assert np.abs(_solve(problem, mirrored) - np.roll(solved[..., ::-1], 1, axis=-1)).max() > 1e-2


# Samples -------------------------------------------------------------------------------------------------------------


def test_a_sample_does_not_depend_on_its_batch() -> None:
    # Amplitudes a factor 20 apart, so different numbers of steps within one batch.
    problem = Burgers1D(resolution=128, solver_resolution=128, viscosity=0.02)
    law = [replace(problem.initial, scale=625.0 * 10.0**e) for e in (1.3, 1, 1.3, -1, 1.6)]
    start = np.concatenate(
        [spectral.to_grid_1d(one.draw(_rngs(3 + i), problem.k_max), 128).numpy() for i, one in enumerate(law)]
    )
    static = np.empty((5, 0, 128))
    together = problem.solve(start[:, None, None], static, 2)
    assert len(set(together.diagnostics["n_steps"].tolist())) >= 3
    parts = [problem.solve(start[part, None, None], static[part], 2) for part in (slice(3), slice(3, 5))]
    assert np.array_equal(np.concatenate([one.trajectory for one in parts]), together.trajectory)
    for name, values in together.diagnostics.items():
        again = np.concatenate([one.diagnostics[name] for one in parts])
        assert again == pytest.approx(values, rel=1e-12, abs=1e-300), name
    alone = problem.solve(start[2:3, None, None], static[:1], 2)
    assert np.array_equal(alone.trajectory[0], together.trajectory[2])


def test_eight_samples_drawn_together_equal_each_drawn_alone() -> None:
    problem = Burgers1D(resolution=1024)
    together = problem.simulate(_rngs(*range(8)))
    for i in range(8):
        alone = problem.simulate(_rngs(i))
        assert np.array_equal(alone.trajectory[0], together.trajectory[i])
        assert np.array_equal(alone.history[0], together.history[i])


def test_shapes_and_names() -> None:
    problem = Burgers1D(resolution=64, interval=0.5, n_snapshots=3)
    samples = problem.simulate(_rngs(0, 1))
    assert problem.spec.times == (0.0, 0.5, 1.0)
    assert samples.history.shape == (2, 1, 1, 64)
    assert samples.static.shape == (2, 0, 64)
    assert samples.trajectory.shape == (2, 3, 1, 64)
    assert np.array_equal(samples.history[:, 0], samples.trajectory[:, 0])
    assert set(samples.diagnostics) == {entry.name for entry in problem.spec.diagnostics}
    assert all(values.shape == (2,) and values.dtype == np.float64 for values in samples.diagnostics.values())
    assert problem.spec.state_variance[0] ** 0.5 == pytest.approx(0.5936, abs=1e-4)


def test_solving_goes_on_where_a_trajectory_ends() -> None:
    problem = Burgers1D(resolution=512, interval=0.1, n_snapshots=4)
    samples = problem.simulate(_rngs(1, 2))
    again = problem.solve(samples.trajectory[:, :2], samples.static, 2)
    assert again.trajectory.shape == (2, 2, 1, 512)
    # The steps start small again, so the two agree to the error of the steps: fronts are forming.
    assert _errors(again.trajectory, samples.trajectory[:, 2:]).max() < 3e-5
    # A history in single precision and on another grid.
    coarse = samples.trajectory[:, :2, :, ::2].astype(np.float32)
    other = problem.solve(coarse, np.empty((2, 0, 256)), 2)
    assert _errors(other.trajectory, samples.trajectory[:, 2:]).max() < 1e-3


def test_the_refined_solution_has_the_same_input_twice_the_steps_and_confirms_the_error() -> None:
    problem = Burgers1D(resolution=256)
    plain, refined = problem.simulate(_rngs(*range(16))), problem.simulate_refined(_rngs(*range(16)))
    assert np.abs(plain.history - refined.history).max() < 1e-14
    assert np.array_equal(refined.diagnostics["n_steps"], 2 * plain.diagnostics["n_steps"])
    difference = _errors(plain.trajectory[:, 1], refined.trajectory[:, 1])
    exact = _cole_hopf(plain.trajectory[:, 0, 0], problem.viscosity, 1.0)[:, None]
    true = _errors(plain.trajectory[:, 1], exact)
    assert 1e-9 < difference.max() < 1e-6
    assert difference == pytest.approx(true, rel=0.2, abs=1e-9)


def test_an_unresolved_front_shows_in_the_tail() -> None:
    resolved, unresolved = (
        Burgers1D(viscosity=2e-3, resolution=64, solver_resolution=n).simulate(_rngs(*range(4))).diagnostics
        for n in (1024, 96)
    )
    assert resolved["spectrum_tail"].max() < 1e-3
    assert unresolved["spectrum_tail"].min() > 3e-3


def test_a_field_at_rest_stays_at_rest() -> None:
    samples = Burgers1D(resolution=32).solve(np.zeros((1, 1, 1, 32)), np.empty((1, 0, 32)), 1)
    assert not samples.trajectory.any()
    assert samples.diagnostics["spectrum_tail"][0] == 0


# Grids ---------------------------------------------------------------------------------------------------------------


@given(st.integers(4, 600), st.floats(5e-3, 0.3))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_any_file_grid_holds_the_same_accurate_solution(half: int, viscosity: float) -> None:
    n = 2 * half
    fine = Burgers1D(viscosity=viscosity, resolution=2048, solver_resolution=384)
    u = fine.simulate(_rngs(0)).trajectory[0, :, 0]
    exact = _cole_hopf(u[0], viscosity, 1.0)
    assert _errors(u[1], exact) < 1e-6
    stored = replace(fine, resolution=n).simulate(_rngs(0)).trajectory[0, :, 0]
    k_max = min(spectral.max_wavenumber(n, dealiased=False), fine.k_max)
    a, b = (spectral.from_grid_1d(torch.from_numpy(values), k_max) for values in (stored, u))
    # Rounding: transforms of lengths with large prime factors sum more numbers (116 = 4 x 29 gave 1.3e-15).
    assert float((a - b).abs().max()) < 1e-14


def test_at_solves_on_the_given_grid() -> None:
    problem = Burgers1D(viscosity=0.02)
    other = problem.at(Grid.periodic(48, n_dims=1))
    assert (other.resolution, other.solver_resolution, other.viscosity) == (48, 48, 0.02)
    for grid in (Grid.periodic(48), Grid.periodic(48, n_dims=1, length=2.0)):
        with pytest.raises(ValueError, match="periodic grid on the unit interval"):
            problem.at(grid)
    with pytest.raises(ValueError, match="even"):
        problem.at(Grid.periodic(49, n_dims=1))


# What it refuses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("viscosity", 0.0), ("viscosity", -1e-3), ("viscosity", math.nan), ("viscosity", math.inf)),
        *(("resolution", 2), ("resolution", 65), ("solver_resolution", 2), ("solver_resolution", 65)),
        *(("interval", 0.0), ("interval", math.nan), ("n_snapshots", 1), ("inner_batch", 0)),
        *(("max_step", 0.0), ("first_step", 0.0), ("first_step", 0.1), ("step_growth", 0.9), ("step_growth", math.nan)),
    ],
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.{name} must be"):
        Burgers1D(**{name: value})  # pyright: ignore[reportArgumentType]


def test_solve_rejects_what_it_cannot_take() -> None:
    problem = Burgers1D(resolution=16)
    with pytest.raises(ValueError, match="history"):
        problem.solve(np.zeros((1, 0, 1, 16)), np.empty((1, 0, 16)), 1)
    with pytest.raises(ValueError, match="history"):
        problem.solve(np.zeros((1, 1, 1, 16, 16)), np.empty((1, 0, 16, 16)), 1)
    with pytest.raises(ValueError, match="static"):
        problem.solve(np.zeros((1, 1, 1, 16)), np.empty((1, 1, 16)), 1)
    with pytest.raises(ValueError, match="n_steps"):
        problem.solve(np.zeros((1, 1, 1, 16)), np.empty((1, 0, 16)), 0)


def test_a_start_that_is_not_finite_or_much_too_fast_is_reported() -> None:
    problem = Burgers1D(resolution=32)
    history = np.zeros((3, 1, 1, 32))
    history[1] = np.sin(2 * np.pi * np.arange(32) / 32)
    history[2] = 1e4 * history[1]
    static = np.empty((3, 0, 32))
    with pytest.raises(SolverError, match=r"Sample 2 .*t=0 to t=1.*Raise dataset\.problem\.viscosity"):
        problem.solve(history, static, 1)
    history[2] = np.nan
    with pytest.raises(SolverError, match=r"Sample 2 .*isn't finite"):
        problem.solve(history, static, 1)


def test_a_blow_up_names_the_sample_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    # No stable step can blow up by itself: here the term is made to feed the flow.
    monkeypatch.setattr(BurgersDynamics, "nonlinear", lambda _, u_hat: 1e3 * u_hat * u_hat.abs())
    problem = Burgers1D(resolution=32, inner_batch=1)
    history = np.zeros((2, 1, 1, 32))
    history[1] = np.sin(2 * np.pi * np.arange(32) / 32)
    with pytest.raises(SolverError, match=r"Sample 1 of the batch became non-finite before t=1.*max_step"):
        problem.solve(history, np.empty((2, 0, 32)), 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_gives_the_same_numbers() -> None:
    problem = Burgers1D(resolution=512)
    here = problem.simulate(_rngs(*range(4))).trajectory
    with torch.device("cuda"):
        there = problem.simulate(_rngs(*range(4))).trajectory
    assert np.abs(here - there).max() < 1e-10
