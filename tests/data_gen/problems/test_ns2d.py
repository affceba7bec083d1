"""The Navier-Stokes solver: its nonlinear term against oracles, exact solutions, orders, budgets, symmetries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from data_gen import spectral
from data_gen.grids import Grid
from data_gen.problems.ns2d import NavierStokes2D, SinusoidalForcing, VorticityDynamics
from data_gen.random_fields import PeriodicGaussianField
from data_gen.solvers.integrating_factor import integrate

# An amplitude at which the advection of a random field is of order 1, so absolute and relative tolerances agree.
LAW = PeriodicGaussianField(scale=3e5)
FORCE, FREE = SinusoidalForcing(), SinusoidalForcing(sine=0.0, cosine=0.0)


def _field(k_max: int, n_samples: int = 2, law: PeriodicGaussianField = LAW) -> Tensor:
    return law.draw([np.random.default_rng((7, i)) for i in range(n_samples)], k_max)


def _no_bound(step: float) -> Callable[[Tensor], Tensor]:
    """A step bound that gives every sample the same fixed step."""
    return lambda state: torch.full((state.shape[0],), step, dtype=torch.float64)


def _plain_advection(w_hat: Tensor, n: int) -> Tensor:
    """-(u dw/dx + v dw/dy) from four real inverse transforms and one forward one."""
    k_max = w_hat.shape[-1] - 1
    k1, k2 = (2 * math.pi * k for k in spectral.wavenumbers(k_max))
    squared = k1**2 + k2**2
    psi = torch.where(squared > 0, w_hat / squared.clamp(min=1), 0.0)
    u, v, w_x, w_y = (spectral.to_grid(1j * c, n) for c in (k2 * psi, -k1 * psi, k1 * w_hat, k2 * w_hat))
    return -spectral.from_grid(u * w_x + v * w_y, k_max)


def _full(w_hat: Tensor) -> dict[tuple[int, int], complex]:
    """All coefficients of one real field by wavenumber."""
    k_max = w_hat.shape[-1] - 1
    table = {}
    for k1 in range(-k_max, k_max + 1):
        for k2 in range(k_max + 1):
            table[k1, k2] = complex(w_hat[k1, k2])
            table[-k1, -k2] = complex(w_hat[k1, k2]).conjugate()
    return table


def _convolved_advection(w_hat: Tensor) -> Tensor:
    """-(u . grad w) as the double sum over wavenumbers p + q = k, no transform and no aliasing anywhere."""
    k_max = w_hat.shape[-1] - 1
    w = _full(w_hat)
    result = torch.zeros_like(w_hat)
    for k1 in range(-k_max, k_max + 1):
        for k2 in range(k_max + 1):
            total = 0j
            for (p1, p2), w_p in w.items():
                q1, q2 = k1 - p1, k2 - p2
                if (p1, p2) == (0, 0) or max(abs(q1), abs(q2)) > k_max:
                    continue
                # u_p = i kappa_2 w_p / |kappa|^2, v_p = -i kappa_1 w_p / |kappa|^2; grad w_q = i kappa_q w_q.
                total += (p2 * q1 - p1 * q2) / (p1**2 + p2**2) * -1 * w_p * w[q1, q2]
            result[k1, k2] = -total
    return result


def _assert_is_advection(advection: Callable[[Tensor], Tensor], w_hat: Tensor, expected: Tensor) -> None:
    scale = float(expected.abs().max())
    assert scale > 0.1, "the oracle must not vanish"
    assert float((advection(w_hat) - expected).abs().max()) < 1e-13 * max(1.0, scale)


@pytest.mark.parametrize("n", [12, 13, 32, 33, 64, 65])
def test_packed_term_equals_the_plain_form(n: int) -> None:
    dynamics = VorticityDynamics(1e-3, n, FORCE)
    w_hat = _field(dynamics.k_max)
    _assert_is_advection(dynamics.advection, w_hat, _plain_advection(w_hat, n))


@pytest.mark.parametrize("n", [12, 13])
def test_packed_term_equals_a_direct_convolution(n: int) -> None:
    dynamics = VorticityDynamics(1e-3, n, FORCE)
    w_hat = _field(dynamics.k_max, 1)
    _assert_is_advection(dynamics.advection, w_hat, _convolved_advection(w_hat[0])[None])


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 1 + 1e-9])
def test_a_wrong_sign_or_factor_of_the_term_is_noticed(factor: float) -> None:
    # Taylor-Green, the energy budget and the order of convergence don't notice any of these.
    dynamics = VorticityDynamics(1e-3, 12, FORCE)
    w_hat = _field(dynamics.k_max, 1)
    with pytest.raises(AssertionError):
        _assert_is_advection(lambda w: factor * dynamics.advection(w), w_hat, _plain_advection(w_hat, 12))


def test_velocity_is_that_of_the_stream_function() -> None:
    # w = 2 cos X cos Y with X = 2 pi x: psi = w / (8 pi^2), u = psi_y, v = -psi_x.
    n = 24
    x = torch.arange(n, dtype=torch.float64) / n * 2 * math.pi
    big_x, big_y = x[:, None], x[None, :]
    dynamics = VorticityDynamics(1e-3, n, FORCE)
    w_hat = spectral.from_grid((2 * torch.cos(big_x) * torch.cos(big_y))[None], dynamics.k_max)
    z = dynamics.velocity(w_hat)[0]
    assert torch.allclose(z.real, -torch.cos(big_x) * torch.sin(big_y) / (2 * math.pi), atol=1e-15)
    assert torch.allclose(z.imag, torch.sin(big_x) * torch.cos(big_y) / (2 * math.pi), atol=1e-15)


def test_forcing_is_the_published_one() -> None:
    n = 16
    dynamics = VorticityDynamics(1e-3, n, FORCE)
    still = torch.zeros(1, 2 * dynamics.k_max + 1, dynamics.k_max + 1, dtype=torch.complex128)
    x = torch.arange(n, dtype=torch.float64) / n
    s = 2 * math.pi * (x[:, None] + x[None, :])
    forcing = spectral.to_grid(dynamics.nonlinear(still, torch.zeros(1)), n)[0]
    assert torch.allclose(forcing, 0.1 * (torch.sin(s) + torch.cos(s)), atol=1e-15)


class _Manufactured:
    """A flow sum_i a_i(t) w_i of three modes whose advection doesn't vanish, and the force that makes it exact."""

    viscosity = 5e-3

    def __init__(self, n: int = 24) -> None:
        self.dynamics = VorticityDynamics(self.viscosity, n, FREE)
        self._modes = torch.zeros(3, 2 * self.dynamics.k_max + 1, self.dynamics.k_max + 1, dtype=torch.complex128)
        self._modes[0, 1, 0] = self._modes[0, -1, 0] = 1.0  # 2 cos 2 pi x
        self._modes[1, 1, 2] = 0.5 - 0.5j
        self._modes[2, -2, 1] = 0.7j

    def exact(self, t: Tensor) -> Tensor:
        return torch.einsum("bi,ikl->bkl", self._amplitudes(t).to(torch.complex128), self._modes)

    def force(self, t: Tensor) -> Tensor:
        w = self.exact(t)
        rate = torch.einsum("bi,ikl->bkl", self._rates(t).to(torch.complex128), self._modes)
        # By the oracle, not by the code under test.
        return rate - self.dynamics.linear * w - _plain_advection(w, self.dynamics.resolution)

    @staticmethod
    def _amplitudes(t: Tensor) -> Tensor:
        return torch.stack([2 + torch.sin(3 * t), torch.cos(2 * t), 1.5 * torch.sin(t) + 0.5], dim=1)

    @staticmethod
    def _rates(t: Tensor) -> Tensor:
        return torch.stack([3 * torch.cos(3 * t), -2 * torch.sin(2 * t), 1.5 * torch.cos(t)], dim=1)

    def error(self, dt: float, factor: float = 1.0) -> float:
        """Relative error at t = 1 with steps dt and the term multiplied by ``factor``."""
        start = torch.zeros(1, dtype=torch.float64)

        def nonlinear(w: Tensor, t: Tensor) -> Tensor:
            return factor * self.dynamics.advection(w) + self.force(t)

        states = integrate(self.dynamics.linear, nonlinear, self.exact(start), [1.0], _no_bound(dt)).states
        exact = self.exact(start + 1)
        return float((states[:, -1] - exact).abs().max() / exact.abs().max())


def test_a_forced_flow_with_advection_converges_with_order_four() -> None:
    flow = _Manufactured()
    assert float(flow.dynamics.advection(flow.exact(torch.zeros(1, dtype=torch.float64))).abs().max()) > 1
    errors = [flow.error(dt) for dt in (1 / 20, 1 / 40, 1 / 80)]
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(3.8 < order < 4.2 for order in orders), (errors, orders)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("factor", [-1.0, *(pytest.param(f, marks=pytest.mark.exhaustive) for f in (0.5, 0.0))])
def test_a_forced_flow_with_a_wrong_term_does_not_converge(factor: float) -> None:
    assert _Manufactured().error(1 / 80, factor) > 1e-2


def test_taylor_green_vortex_decays_exactly() -> None:
    # w = 2 cos X cos Y is a solution of the full equation without forcing: its advection vanishes.
    viscosity, n = 1e-2, 24
    dynamics = VorticityDynamics(viscosity, n, FREE)
    w_hat = torch.zeros(1, 2 * dynamics.k_max + 1, dynamics.k_max + 1, dtype=torch.complex128)
    w_hat[0, 1, 1] = w_hat[0, -1, 1] = 0.5
    times = [0.5, 1.0, 3.0]
    states = integrate(dynamics.linear, dynamics.nonlinear, w_hat, times, _no_bound(0.05)).states
    for state, t in zip(states[0], times, strict=True):
        assert torch.allclose(state, w_hat[0] * math.exp(-8 * math.pi**2 * viscosity * t), atol=1e-14)


def test_the_laminar_forced_state_is_steady() -> None:
    # nu Laplacian w + f = 0 for w = f / (8 pi^2 nu); the advection of a shear along x + y vanishes.
    dynamics = VorticityDynamics(1e-2, 24, FORCE)
    still = torch.zeros(1, 2 * dynamics.k_max + 1, dynamics.k_max + 1, dtype=torch.complex128)
    steady = dynamics.nonlinear(still, torch.zeros(1)) / (8 * math.pi**2 * 1e-2)
    states = integrate(dynamics.linear, dynamics.nonlinear, steady, [1.0, 5.0], _no_bound(0.05)).states
    # The integrating factor treats the force by quadrature, so steadiness holds to the scheme's accuracy.
    assert torch.allclose(states[0, -1], steady[0], rtol=0, atol=1e-9)


def _inviscid_drift(dt: float) -> tuple[float, float]:
    """Relative drift of energy and enstrophy of an unforced inviscid flow over 5 time units."""
    dynamics = VorticityDynamics(0.0, 64, FREE)
    w_hat = PeriodicGaussianField().draw([np.random.default_rng(3)], dynamics.k_max)
    states = integrate(dynamics.linear, dynamics.nonlinear, w_hat, [0.0, 5.0], _no_bound(dt)).states[0]
    k1, k2 = (2 * math.pi * k for k in spectral.wavenumbers(dynamics.k_max))
    squared = (k1**2 + k2**2).clamp(min=1)
    weights = torch.where(k2 > 0, 2.0, 1.0)  # the column k2 = 0 holds both signs
    energy, enstrophy = ((weights * states.abs() ** 2 / divisor).sum((-2, -1)) for divisor in (squared, 1.0))
    return tuple(float(abs(q[1] / q[0] - 1)) for q in (energy, enstrophy))  # pyright: ignore[reportReturnType]


def test_an_inviscid_flow_conserves_energy_and_enstrophy() -> None:
    energy, enstrophy = _inviscid_drift(0.02)
    assert energy < 1e-11
    assert enstrophy < 1e-9
    # The enstrophy drifts by the time error alone: fifth order in the step for a fourth-order scheme's dissipation.
    assert _inviscid_drift(0.01)[1] < enstrophy / 25


def test_energy_and_enstrophy_budgets_close() -> None:
    # dZ/dt = -2 nu P + <w f> with Z = <w^2>/2, P = <|grad w|^2>/2, and dE/dt = -2 nu Z + <psi f> with E = <|u|^2>/2.
    problem = NavierStokes2D(viscosity=1e-2, resolution=48)
    dynamics = VorticityDynamics(1e-2, problem.solver_resolution, FORCE)
    w_hat = _field(dynamics.k_max, 1, PeriodicGaussianField())
    h = 1e-3
    times = [0.5 - h, 0.5, 0.5 + h]
    before, now, after = integrate(dynamics.linear, dynamics.nonlinear, w_hat, times, _no_bound(h)).states[0]
    k1, k2 = (2 * math.pi * k for k in spectral.wavenumbers(dynamics.k_max))
    squared = (k1**2 + k2**2).clamp(min=1)
    weights = torch.where(k2 > 0, 2.0, 1.0)
    forcing = dynamics.nonlinear(torch.zeros_like(w_hat), torch.zeros(1))[0]

    def inner(a: Tensor, b: Tensor) -> float:
        return float((weights * (a * b.conj()).real).sum())

    energy_rate = (inner(after, after / squared) - inner(before, before / squared)) / 2 / (2 * h)
    assert energy_rate == pytest.approx(-1e-2 * inner(now, now) + inner(now / squared, forcing), rel=1e-5)
    enstrophy_rate = (inner(after, after) - inner(before, before)) / 2 / (2 * h)
    assert enstrophy_rate == pytest.approx(-1e-2 * inner(now, now * squared) + inner(now, forcing), rel=1e-4)


def test_errors_fall_exponentially_with_the_resolution() -> None:
    # A band-limited start and a resolved flow: every eight points more gain a larger factor than the eight before.
    law = PeriodicGaussianField(scale=5e6, tau=5.0, exponent=4.0)
    start = spectral.to_grid(_field(3, 1, law), 16)[:, None, None].numpy()

    def at(n: int) -> np.ndarray:
        problem = NavierStokes2D(viscosity=1e-3, resolution=n, oversampling=1.0, cfl_safety=0.1)
        final = torch.from_numpy(problem.solve(start, np.empty((1, 0, n, n)), 2).trajectory[:, -1, 0])
        return spectral.from_grid(final, 5).numpy()

    reference = at(96)
    errors = [np.abs(at(n) - reference).max() / np.abs(reference).max() for n in (16, 24, 32, 40)]
    # Measured: 3.4e-3, 5.7e-5, 6.5e-8, and 1.7e-10, where the error in time takes over.
    assert errors[1] < errors[0] / 20
    assert errors[2] < errors[1] / 200
    assert errors[3] < 1e-9


def test_the_mean_vorticity_stays_zero() -> None:
    samples = NavierStokes2D(viscosity=1e-3, resolution=32).simulate([np.random.default_rng(0)])
    assert np.abs(samples.trajectory.mean(axis=(-2, -1))).max() < 1e-15


@pytest.mark.parametrize("viscosity", [pytest.param(1e-3, marks=pytest.mark.exhaustive), 1e-4])
def test_halving_the_step_hardly_changes_a_solution(viscosity: float) -> None:
    # The time error lies far below the spatial one (1e-3 at the last times of the lite dataset).
    problem = NavierStokes2D(viscosity=viscosity, resolution=32, oversampling=1.0)
    rng = lambda: [np.random.default_rng(5)]  # noqa: E731
    coarse, fine = (replace(problem, cfl_safety=safety).simulate(rng()).trajectory[:, -1] for safety in (0.9, 0.45))
    assert np.linalg.norm(coarse - fine) / np.linalg.norm(fine) < 2e-4


@pytest.mark.parametrize("viscosity", [1e-2, 0.05, 0.2])
def test_a_viscous_flow_is_held_accurate_too(viscosity: float) -> None:
    # Stability bounds no step of a fluid at rest; its exact response is f (1 - exp(-r t)) / r, r = 8 pi^2 nu.
    n, rate = 12, 8 * math.pi**2 * viscosity
    problem = NavierStokes2D(viscosity=viscosity, resolution=n, oversampling=1.0)
    solved = problem.solve(np.zeros((1, 1, 1, n, n)), np.empty((1, 0, n, n)), 3).trajectory[0, :, 0]
    x = np.arange(n) / n
    s = 2 * math.pi * (x[:, None] + x[None, :])
    for t, state in enumerate(solved, start=1):
        exact = 0.1 * (np.sin(s) + np.cos(s)) * -math.expm1(-rate * t) / rate
        assert np.abs(state - exact).max() < 1e-7 * np.abs(exact).max()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    problem = NavierStokes2D(viscosity=1e-4, resolution=32, n_snapshots=6)
    # Amplitudes a factor 30 apart: very different numbers of substeps within one batch.
    law = [replace(problem.initial, scale=343.0 * 10.0**e) for e in (0, 3, 1, 2)]
    k_max = spectral.max_wavenumber(problem.solver_resolution, dealiased=True)
    start = torch.cat([one.draw([np.random.default_rng(i)], k_max) for i, one in enumerate(law)])
    together = problem._run(start, problem.spec.times).trajectory
    for i in range(len(law)):
        alone = problem._run(start[i : i + 1], problem.spec.times).trajectory[0]
        assert np.abs(together[i] - alone).max() <= 1e-12 * np.abs(alone).max()
    split = replace(problem, inner_batch=3)._run(start, problem.spec.times).trajectory
    assert np.abs(split - together).max() <= 1e-12 * np.abs(together).max()


def test_solve_continues_a_trajectory_where_simulate_would_go() -> None:
    problem = NavierStokes2D(viscosity=1e-3, resolution=32, n_snapshots=6)
    samples = problem.simulate([np.random.default_rng(1), np.random.default_rng(2)])
    static = np.empty((2, 0, 32, 32))
    again = problem.solve(samples.trajectory[:, :3], static, 3)
    assert again.trajectory.shape == (2, 3, 1, 32, 32)
    # A 32-point file holds all that the 48-point solver carries, so nothing is lost on the way.
    assert np.abs(again.trajectory - samples.trajectory[:, 3:]).max() < 1e-12


def test_the_file_grid_is_a_spectral_truncation() -> None:
    fine = NavierStokes2D(viscosity=1e-3, resolution=48, oversampling=1.0, n_snapshots=3)
    coarse = replace(fine, resolution=16, oversampling=3.0)
    assert fine.solver_resolution == coarse.solver_resolution
    rng = lambda: [np.random.default_rng(0)]  # noqa: E731
    a, b = (torch.from_numpy(problem.simulate(rng()).trajectory) for problem in (fine, coarse))
    assert torch.allclose(spectral.from_grid(a, 7), spectral.from_grid(b, 7), atol=1e-14)


def test_at_solves_on_the_given_grid() -> None:
    problem = NavierStokes2D(viscosity=1e-3, resolution=64)
    other = problem.at(Grid.periodic(24))
    assert (other.resolution, other.solver_resolution, other.viscosity) == (24, 24, 1e-3)
    with pytest.raises(ValueError, match="square periodic grid"):
        problem.at(Grid.periodic(24, n_dims=1))


@pytest.mark.parametrize("name", ["translation", "rotation", "reflection"])
def test_declared_symmetries_map_solutions_to_solutions(name: str) -> None:
    n = 32
    problem = NavierStokes2D(viscosity=1e-3, resolution=n, n_snapshots=3)
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    # w'(x, y) in grid indices: translation w(x + a, y - a), rotation w(1/4 - x, -y), reflection -w(y + 1/2, x).
    sign, p, q = {
        "translation": (1, i + 5, j - 5),
        "rotation": (1, n // 4 - i, -j),
        "reflection": (-1, j + n // 2, i),
    }[name]
    original = problem.simulate([np.random.default_rng(0)]).trajectory
    moved = sign * original[..., p % n, q % n]
    solved = problem.solve(moved[:, :1], np.empty((1, 0, n, n)), 2).trajectory
    assert np.abs(solved - moved[:, 1:]).max() < 1e-12
    assert np.abs(moved - original).max() > 0.1, "the map must move something"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("viscosity", 0.0), ("viscosity", -1e-3), ("viscosity", math.nan), ("resolution", 2), ("oversampling", 0.5)),
        *(("interval", 0.0), ("n_snapshots", 0), ("cfl_safety", 0.0), ("cfl_safety", 1.5), ("first_time", -1.0)),
    ],
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.{name} must be"):
        NavierStokes2D(**{"viscosity": 1e-3, name: value})  # pyright: ignore[reportArgumentType]


def test_solve_rejects_what_it_cannot_take() -> None:
    problem = NavierStokes2D(viscosity=1e-3, resolution=16)
    with pytest.raises(ValueError, match="history"):
        problem.solve(np.zeros((1, 0, 1, 16, 16)), np.empty((1, 0, 16, 16)), 1)
    with pytest.raises(ValueError, match="static"):
        problem.solve(np.zeros((1, 1, 1, 16, 16)), np.empty((1, 1, 16, 16)), 1)
    with pytest.raises(ValueError, match="n_steps"):
        problem.solve(np.zeros((1, 1, 1, 16, 16)), np.empty((1, 0, 16, 16)), 0)
