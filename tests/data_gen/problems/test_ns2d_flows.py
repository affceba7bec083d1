"""Flows on any torus, driven and damped or free: exact solutions, scaling, symmetries, and what the solver notes."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen import spectral
from data_gen.grids import Grid
from data_gen.problems.ns2d import NavierStokes2D, SinusoidalForcing, VorticityDynamics
from data_gen.random_fields import PeriodicGaussianField, VortexBandField

TWO_PI = 2 * math.pi
FREE = SinusoidalForcing(sine=0.0, cosine=0.0)
# Longer than any step: the CFL condition alone bounds it.
UNBOUND = 100.0
# Small relatives of the two datasets of turbulence.
KOLMOGOROV = NavierStokes2D(
    viscosity=1e-2,
    resolution=32,
    oversampling=1.0,
    interval=0.1,
    n_snapshots=4,
    forcing=SinusoidalForcing((0, 4), sine=0.0, cosine=-4.0),
    drag=0.1,
    length=TWO_PI,
    initial=VortexBandField(kinetic_energy=1.5),
    max_step=UNBOUND,
)
DECAYING = replace(KOLMOGOROV, forcing=FREE, drag=0.0, interval=0.25, initial=VortexBandField())


def _rngs(n: int = 1, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, i)) for i in range(n)]


def _angles(problem: NavierStokes2D) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(*problem.spec.grid.coordinates(), indexing="ij")
    return TWO_PI * x / problem.length, TWO_PI * y / problem.length


def _solved(problem: NavierStokes2D, start: np.ndarray, n_steps: int) -> np.ndarray:
    """Snapshots [time, n, n] that follow a state [n, n]."""
    n = start.shape[-1]
    return problem.solve(start[None, None, None], np.empty((1, 0, n, n)), n_steps).trajectory[0, :, 0]


def _energy_and_enstrophy(problem: NavierStokes2D, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over the torus of |u|^2 / 2, w^2 / 2 and |grad w|^2 / 2."""
    n = w.shape[-1]
    k = TWO_PI / problem.length * np.fft.fftfreq(n, 1 / n)
    squared = k[:, None] ** 2 + k[None, :] ** 2
    power = np.abs(np.fft.fft2(w, norm="forward")) ** 2 / 2
    inverse = np.where(squared > 0, 1 / np.where(squared > 0, squared, 1), 0)
    return tuple((power * factor).sum(axis=(-2, -1)) for factor in (inverse, 1.0, squared))  # pyright: ignore


# Exact solutions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("drag", "length"), [(0.0, 1.0), (0.7, 1.0), (0.7, TWO_PI), (0.3, 5.0)])
def test_a_single_wave_decays_by_viscosity_and_drag(drag: float, length: float) -> None:
    problem = NavierStokes2D(
        viscosity=2e-3 * length**2,
        resolution=24,
        oversampling=1.0,
        interval=0.3,
        forcing=FREE,
        drag=drag,
        length=length,
        initial=VortexBandField(length=length),
    )
    x, y = _angles(problem)
    wave = np.cos(2 * x - 3 * y) + 0.5 * np.sin(2 * x - 3 * y)
    rate = 2e-3 * TWO_PI**2 * 13 + drag
    for i, state in enumerate(_solved(problem, wave, 4), start=1):
        np.testing.assert_allclose(state, wave * math.exp(-rate * 0.3 * i), rtol=0, atol=1e-13)


@pytest.mark.parametrize(("length", "time"), [(TWO_PI, 1.0), (1.0, 3.0), (0.5, 0.2)])
def test_lengths_and_times_in_other_units_give_the_same_flow(length: float, time: float) -> None:
    unit = NavierStokes2D(viscosity=2e-3, resolution=24, oversampling=1.0, interval=0.5, drag=0.2, max_step=UNBOUND)
    scaled = replace(
        unit,
        viscosity=2e-3 * length**2 / time,
        interval=0.5 * time,
        drag=0.2 / time,
        length=length,
        forcing=SinusoidalForcing((1, 1), sine=0.1 / time**2, cosine=0.1 / time**2),
        initial=VortexBandField(length=length),
    )
    start = 5 * unit.simulate(_rngs()).trajectory[0, 0, 0]
    expected = _solved(unit, start, 4)
    found = _solved(scaled, start / time, 4) * time
    assert np.linalg.norm(expected[-1] - start) > 0.3 * np.linalg.norm(start), "the flow must move"
    assert np.abs(found - expected).max() < 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("wavenumber", [(1, 1), (0, 4), (3, 0), (-3, 0), (0, -2), (-2, 1), (2, -1), (-1, -4), (5, 5)])
def test_the_force_is_the_wave_that_it_is_said_to_be(wavenumber: tuple[int, int]) -> None:
    n, length = 16, 3.0
    forcing = SinusoidalForcing(wavenumber, sine=0.3, cosine=-1.7)
    dynamics = VorticityDynamics(1e-3, n, forcing, length=length)
    still = torch.zeros(1, 2 * dynamics.k_max + 1, dynamics.k_max + 1, dtype=torch.complex128)
    found = spectral.to_grid(dynamics.nonlinear(still, torch.zeros(1)), n)[0].numpy()
    x = np.arange(n) * length / n
    angle = TWO_PI / length * (wavenumber[0] * x[:, None] + wavenumber[1] * x[None, :])
    np.testing.assert_allclose(found, 0.3 * np.sin(angle) - 1.7 * np.cos(angle), atol=1e-14)
    squared = wavenumber[0] ** 2 + wavenumber[1] ** 2
    assert dynamics.forced_decay == pytest.approx(1e-3 * (TWO_PI / length) ** 2 * squared, rel=1e-14)


@pytest.mark.parametrize("wavenumber", [(0, 4), (3, 0), (-2, 1)])
def test_a_laminar_flow_comes_to_rest_at_force_over_damping(wavenumber: tuple[int, int]) -> None:
    # From rest the only wave is the force's: w = f (1 - exp(-r t)) / r, r = nu kappa^2 + drag.
    problem = replace(
        KOLMOGOROV, viscosity=0.1, interval=1.0, forcing=SinusoidalForcing(wavenumber, sine=0.3, cosine=-0.4)
    )
    x, y = _angles(problem)
    angle = wavenumber[0] * x + wavenumber[1] * y
    rate = 0.1 * (wavenumber[0] ** 2 + wavenumber[1] ** 2) + 0.1
    force = 0.3 * np.sin(angle) - 0.4 * np.cos(angle)
    for t, state in enumerate(_solved(problem, np.zeros((32, 32)), 3), start=1):
        np.testing.assert_allclose(state, force * -math.expm1(-rate * t) / rate, rtol=0, atol=1e-7)
    steady = force / rate
    assert np.abs(_solved(problem, steady, 2) - steady).max() < 1e-7


@pytest.mark.parametrize("drag", [0.0, 0.5])
def test_a_free_flow_loses_energy_to_viscosity_and_drag_alone(drag: float) -> None:
    # dE/dt = -nu <w^2> - 2 mu E and d(<w^2>/2)/dt = -nu <|grad w|^2> - mu <w^2>.
    problem = replace(DECAYING, drag=drag, interval=2e-3, n_snapshots=3)
    energy, enstrophy, palinstrophy = _energy_and_enstrophy(problem, problem.simulate(_rngs()).trajectory[0, :, 0])
    rates = [(values[2] - values[0]) / (2 * 2e-3) for values in (energy, enstrophy)]
    assert rates[0] == pytest.approx(-2 * 1e-2 * enstrophy[1] - 2 * drag * energy[1], rel=1e-5)
    assert rates[1] == pytest.approx(-2 * 1e-2 * palinstrophy[1] - 2 * drag * enstrophy[1], rel=1e-4)


def test_a_force_of_zero_leaves_the_flow_free() -> None:
    problem = replace(DECAYING, forcing=SinusoidalForcing((9, 30), sine=0.0, cosine=0.0))
    assert not problem.is_forced
    expected = DECAYING.simulate(_rngs()).trajectory
    assert np.array_equal(problem.simulate(_rngs()).trajectory, expected)
    assert "f" not in problem.spec.equation


# Symmetries -----------------------------------------------------------------------------------------------------------

# What a name declares, as a map of grid indices: sign, and where the value at (i, j) comes from.
_I, _J = np.meshgrid(np.arange(32), np.arange(32), indexing="ij")
_MAPS = {
    "translation": (1, _I + 5, _J + 2),
    "translation_along_x": (1, _I + 5, _J),
    "translation_along_y": (1, _I, _J + 5),
    "translation_along_antidiagonal": (1, _I + 5, _J - 5),
    "quarter_turn": (1, -_J, _I),
    "rotation_by_pi": (1, 8 - _I, -_J),
    "reflection_with_sign": (-1, _J + 16, _I),
}
_FLOWS = {
    "free": DECAYING,
    "kolmogorov": replace(KOLMOGOROV, forcing=SinusoidalForcing((0, 4), sine=2.0, cosine=-3.0)),
    "upright": replace(KOLMOGOROV, forcing=SinusoidalForcing((4, 0), sine=3.0, cosine=-2.0)),
    "oblique": replace(KOLMOGOROV, forcing=SinusoidalForcing((1, 2), sine=3.0, cosine=-2.0)),
    "diagonal": replace(KOLMOGOROV, forcing=SinusoidalForcing((1, 1), sine=3.0, cosine=3.0)),
    "shifted": replace(KOLMOGOROV, forcing=SinusoidalForcing((1, 1), sine=3.0, cosine=2.0)),
}


def _departure(problem: NavierStokes2D, name: str) -> float:
    """How far a mapped solution is from being one."""
    sign, p, q = _MAPS[name]
    original = problem.simulate(_rngs()).trajectory[0, :, 0]
    moved = sign * original[..., p % 32, q % 32]
    assert np.abs(moved - original).max() > 0.1 * np.abs(original).max(), "the map must move something"
    return float(np.abs(_solved(problem, moved[0], len(moved) - 1) - moved[1:]).max() / np.abs(original).max())


@pytest.mark.parametrize(("flow", "name"), [(flow, name) for flow, p in _FLOWS.items() for name in p.spec.symmetries])
def test_declared_symmetries_hold(flow: str, name: str) -> None:
    assert _departure(_FLOWS[flow], name) < 1e-11


@pytest.mark.parametrize(
    ("flow", "names"),
    [
        ("free", {"translation", "quarter_turn", "reflection_with_sign"}),
        *(("kolmogorov", {"translation_along_x"}), ("upright", {"translation_along_y"}), ("oblique", set())),
        ("diagonal", {"translation_along_antidiagonal", "rotation_by_pi", "reflection_with_sign"}),
    ],
)
def test_what_is_not_declared_of_these_does_not_hold(flow: str, names: set[str]) -> None:
    problem = _FLOWS[flow]
    assert set(problem.spec.symmetries) == names
    if flow != "free":  # where all of them hold
        for name in _MAPS.keys() - names:
            assert _departure(problem, name) > 1e-3, name


# The law of McWilliams ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [VortexBandField(), VortexBandField(peak=6.0, tau=0.5, kinetic_energy=2.0, length=1.0)])
def test_the_kinetic_energy_is_what_it_is_asked_to_be(law: VortexBandField) -> None:
    k = np.arange(-300, 301)
    squared = (TWO_PI / law.length) ** 2 * (k[:, None] ** 2 + k[None, :] ** 2.0)
    variance = law.eigenvalues(k[:, None], k[None, :])
    assert variance[300, 300] == 0
    energy = (variance / np.where(squared > 0, squared, 1)).sum() / 2
    assert energy == pytest.approx(law.kinetic_energy, rel=1e-3)
    assert law.variance(300) == pytest.approx(variance.sum(), rel=1e-12)


def test_shells_of_the_law_have_the_published_spectrum() -> None:
    # E(k) ~ k / (tau^2 + (k / peak)^4) per shell, of radius k: per wavenumber, by 1 / (2 pi k) of that.
    law = VortexBandField(peak=4.0, tau=1.0)
    n_draws, k_max = 48, 12
    power = law.draw(_rngs(n_draws, seed=1), k_max).abs().square().numpy()
    k1, k2 = (k.numpy() for k in spectral.wavenumbers(k_max))
    radius = np.hypot(k1, k2)
    scale = law.kinetic_energy / sum(
        1 / (1 + (p**2 + q**2) ** 2 / 256) for p in range(-200, 201) for q in range(-200, 201) if p or q
    )
    half = (k2 > 0) | (k1 > 0)
    for shell in range(1, k_max + 1):
        at = half & (np.round(radius) == shell)
        expected = 2 * scale * radius[at] ** 2 / (1 + (radius[at] / 4) ** 4)  # kappa = k on a torus of side 2 pi
        # Two normal numbers per wavenumber: their squares add up to chi-square.
        n = 2 * n_draws * at.sum()
        total = (2 * power[:, at] / expected).sum()
        assert abs(total - n) < 4 * math.sqrt(2 * n), shell


def test_draws_have_the_energy_of_the_law_by_the_solvers_own_velocity() -> None:
    problem = replace(DECAYING, resolution=64)
    w_hat = problem.initial.draw(_rngs(64, seed=2), problem.k_max)
    dynamics = VorticityDynamics(1e-2, 64, FREE, length=TWO_PI)
    energy = (dynamics.velocity(w_hat).abs().square().mean(dim=(-2, -1)) / 2).numpy()
    spread = energy.std() / math.sqrt(64)
    assert abs(energy.mean() - 0.5) < 4 * spread
    assert spread < 0.02, "samples differ by some per cent"


def test_the_length_of_the_torus_changes_units_alone() -> None:
    law = VortexBandField(length=TWO_PI)
    long = replace(law, length=2 * TWO_PI)
    one, two = (each.draw(_rngs(), 8) for each in (law, long))
    assert torch.allclose(two, one / 2, rtol=1e-14), "the same velocity on twice the length is half the vorticity"


def test_a_finer_grid_continues_the_same_draw() -> None:
    law = VortexBandField()
    coarse, fine = law.draw(_rngs(2), 5), law.draw(_rngs(2), 9)
    assert torch.equal(fine[:, :6, :6], coarse[:, :6])
    assert torch.equal(fine[:, -5:, :6], coarse[:, -5:])
    assert not fine[:, 0, 0].any(), "no mean vorticity"
    assert torch.equal(fine[:, 1:, 0], fine[:, 1:, 0].flip(-1).conj()), "a real field"
    assert not torch.equal(coarse[0], coarse[1])


@pytest.mark.parametrize("name", ["peak", "tau", "kinetic_energy", "length"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_law_that_cannot_be_names_its_parameter(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.initial\.{name} must be positive"):
        VortexBandField(**{name: value})


# Warm-up and refinement -----------------------------------------------------------------------------------------------


def test_a_warm_up_is_solving_before_time_zero() -> None:
    warm = replace(KOLMOGOROV, warm_up=0.7, n_snapshots=3, inner_batch=2)
    cold = replace(KOLMOGOROV, first_time=0.7, n_snapshots=3)
    found, expected = warm.simulate(_rngs(3)), cold.simulate(_rngs(3))
    scale = np.abs(expected.trajectory).max()
    assert np.abs(found.trajectory - expected.trajectory).max() < 1e-12 * scale
    assert np.abs(found.history - expected.trajectory[:, :1]).max() < 1e-12 * scale
    assert np.abs(found.history - expected.history).max() > 0.1 * scale, "the law itself is no state of the dataset"
    warming = replace(KOLMOGOROV, first_time=0.7, n_snapshots=1).simulate(_rngs(3)).diagnostics["n_steps"]
    steps = expected.diagnostics["n_steps"] - warming
    assert found.diagnostics["n_steps"].tolist() == steps.tolist(), "counted from time zero"


@pytest.mark.parametrize(
    "problem",
    [
        replace(KOLMOGOROV, viscosity=0.05, warm_up=0.5),
        replace(DECAYING, viscosity=0.05),
        NavierStokes2D(1e-3, resolution=16, max_step=UNBOUND),
    ],
)
def test_the_refined_solution_starts_from_the_very_same_state(problem: NavierStokes2D) -> None:
    plain, fine = problem.simulate(_rngs(2)), problem.simulate_refined(_rngs(2))
    scale = np.abs(plain.history).max()
    assert np.abs(plain.history - fine.history).max() < 1e-13 * scale
    assert np.abs(plain.trajectory[:, 0] - fine.trajectory[:, 0]).max() < 1e-13 * scale
    assert plain.trajectory.shape == fine.trajectory.shape
    later = np.abs(plain.trajectory[:, -1] - fine.trajectory[:, -1]).max()
    assert 1e-12 * scale < later < 0.1 * scale, "another solution, of the same flow"
    # Twice the points under the CFL condition halve the step.
    ratio = fine.diagnostics["n_steps"] / plain.diagnostics["n_steps"]
    assert np.all((ratio > 1.5) & (ratio < 2.5))


def test_the_measured_error_falls_with_the_fourth_power_of_the_step() -> None:
    # Resolved in space, so that only steps are left: a few long waves in a viscous fluid.
    law = PeriodicGaussianField(scale=5e11, tau=5.0, exponent=7.0)
    problem = NavierStokes2D(
        viscosity=5e-3, resolution=48, oversampling=1.0, n_snapshots=2, initial=law, max_step=UNBOUND
    )
    errors = []
    for safety in (0.4, 0.2, 0.1):
        one = replace(problem, cfl_safety=safety)
        plain, fine = (solve(_rngs()).trajectory[:, -1] for solve in (one.simulate, one.simulate_refined))
        errors.append(float(np.linalg.norm(plain - fine) / np.linalg.norm(fine)))
    orders = [math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors)]
    assert all(3.7 < order < 4.3 for order in orders), (errors, orders)
    assert errors[0] > 1e-9


def test_the_measured_error_falls_faster_than_any_power_of_the_resolution() -> None:
    law = PeriodicGaussianField(scale=5e6, tau=5.0, exponent=4.0)
    errors = []
    for n in (12, 24, 48):
        problem = NavierStokes2D(
            viscosity=2e-3, resolution=n, oversampling=1.0, n_snapshots=2, initial=law, cfl_safety=0.1
        )
        plain, fine = (solve(_rngs()).trajectory[:, -1] for solve in (problem.simulate, problem.simulate_refined))
        errors.append(float(np.linalg.norm(plain - fine) / np.linalg.norm(fine)))
    first, second = (math.log2(coarse / fine) for coarse, fine in itertools.pairwise(errors))
    assert first > 2, errors
    assert second > 2 * first, errors


def test_a_step_bound_by_accuracy_is_halved_too() -> None:
    # A fluid nearly at rest has no CFL condition; the force's own decay bounds the step.
    weak = PeriodicGaussianField(scale=1e-8)
    problem = NavierStokes2D(viscosity=0.05, resolution=8, oversampling=1.0, n_snapshots=2, initial=weak)
    plain, fine = (solve(_rngs()).diagnostics["n_steps"] for solve in (problem.simulate, problem.simulate_refined))
    assert plain.tolist() == [math.ceil(0.05 * 8 * math.pi**2 / 0.1)]
    assert fine.tolist() == [math.ceil(0.05 * 8 * math.pi**2 / 0.05)]


# What the solver notes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem", [replace(DECAYING, interval=1.0), replace(KOLMOGOROV, interval=0.3)], ids=["decaying", "kolmogorov"]
)
def test_steps_and_their_lengths_are_noted(problem: NavierStokes2D) -> None:
    samples = problem.simulate(_rngs(3))
    dynamics = VorticityDynamics(problem.viscosity, problem.solver_resolution, problem.forcing, length=problem.length)
    states = spectral.from_grid(torch.from_numpy(samples.trajectory[:, :, 0]), problem.k_max)
    stable = np.stack([dynamics.stable_step(states[:, i]).numpy() for i in range(states.shape[1])], axis=1)
    n_steps = np.ceil(problem.interval / (problem.cfl_safety * stable[:, :-1]))
    assert samples.diagnostics["n_steps"].tolist() == n_steps.sum(axis=1).tolist()
    ratio = (problem.interval / n_steps / (problem.cfl_safety * stable[:, 1:])).max(axis=1)
    np.testing.assert_allclose(samples.diagnostics["step_ratio"], ratio, rtol=1e-10)
    assert len(set(n_steps.ravel())) > 1, "samples and intervals differ"


def test_a_flow_that_speeds_up_outgrows_its_step() -> None:
    problem = replace(KOLMOGOROV, interval=2.0, n_snapshots=2, initial=VortexBandField(kinetic_energy=1e-3))
    ratio = problem.simulate(_rngs()).diagnostics["step_ratio"]
    assert ratio[0] > 1.2
    slowing = replace(DECAYING, drag=1.0).simulate(_rngs()).diagnostics["step_ratio"]
    assert slowing[0] <= 1.02


def test_the_variance_after_a_warm_up_is_not_the_laws() -> None:
    assert KOLMOGOROV.spec.state_variance == (KOLMOGOROV.initial.variance(KOLMOGOROV.k_max),)
    assert replace(KOLMOGOROV, warm_up=1.0).spec.state_variance == ()


def test_the_tail_of_the_spectrum_is_noted() -> None:
    samples = KOLMOGOROV.simulate(_rngs(3))
    power = np.abs(np.fft.fft2(samples.trajectory[:, -1, 0], norm="forward")) ** 2
    k = np.abs(np.fft.fftfreq(32, 1 / 32))
    upper = np.maximum(k[:, None], k[None, :]) > 2 / 3 * KOLMOGOROV.k_max
    expected = (power * upper).sum(axis=(-2, -1)) / power.sum(axis=(-2, -1))
    np.testing.assert_allclose(samples.diagnostics["spectrum_tail"], expected, rtol=1e-9)
    assert np.all(expected > 1e-8)


@pytest.mark.parametrize(
    ("waves", "share"),
    [
        *(([(7, 0)], 1.0), ([(0, 7)], 1.0), ([(-7, 3)], 1.0), ([(6, 6)], 0.0), ([(-6, 2)], 0.0), ([(0, 10)], 1.0)),
        *(([(7, 0), (0, 2)], 0.5), ([(0, 7), (2, 0)], 0.5), ([(8, 8), (1, 1), (2, 2), (0, 3)], 0.25), ([], 0.0)),
    ],
)
def test_the_tail_is_the_upper_third_of_the_kept_waves(waves: list[tuple[int, int]], share: float) -> None:
    n = 32
    x = np.arange(n) * TWO_PI / n
    field = np.full((n, n), 3.0)  # a mean isn't part of the spectrum
    for k1, k2 in waves:
        field += np.cos(k1 * x[:, None] + k2 * x[None, :] + 0.3)
    found = spectral.tail(spectral.from_grid(torch.from_numpy(field)[None], 10))
    assert float(found) == pytest.approx(share, abs=1e-12)


@pytest.mark.parametrize(("held", "k_max"), [(0, 0), (0, 4), (3, 3), (3, 8)])
def test_padding_leaves_the_field_as_it_is(held: int, k_max: int) -> None:
    u_hat = spectral.from_grid(torch.from_numpy(np.random.default_rng(0).standard_normal((2, 9, 9))), held)
    wide = spectral.pad(u_hat, k_max)
    assert wide.shape == (2, 2 * k_max + 1, k_max + 1)
    assert torch.allclose(spectral.to_grid(wide, 19), spectral.to_grid(u_hat, 19), atol=1e-15)


# Knobs ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("drag", -0.1), ("drag", math.nan), ("warm_up", -1.0), ("length", 0.0), ("length", -1.0)),
        *(("step_scale", 0.0), ("step_scale", 1.5), ("inner_batch", 0)),
    ],
)
def test_impossible_parameters_are_named(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.{name} must be"):
        NavierStokes2D(**{"viscosity": 1e-3, name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("wavenumber", [(0, 0), (1,), (1, 2, 3), (0.5, 1), ()])
def test_a_force_without_a_wavenumber_is_refused(wavenumber: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"dataset\.problem\.forcing\.wavenumber must be two integers"):
        SinusoidalForcing(wavenumber)


def test_a_force_that_the_grid_cannot_hold_is_refused() -> None:
    assert replace(KOLMOGOROV, resolution=13).k_max == 4
    with pytest.raises(ValueError, match=r"wavenumber \(0, 4\).* keeps wavenumbers up to 3"):
        replace(KOLMOGOROV, resolution=12)
    replace(DECAYING, resolution=12)  # none is felt


def test_a_law_on_another_torus_is_refused() -> None:
    with pytest.raises(ValueError, match=r"dataset\.problem\.initial\.length=6\.28.* dataset\.problem\.length=1\.0"):
        NavierStokes2D(viscosity=1e-3, initial=VortexBandField())


def test_at_keeps_the_torus() -> None:
    other = KOLMOGOROV.at(Grid.periodic(24, length=TWO_PI))
    assert (other.length, other.drag, other.forcing, other.resolution) == (TWO_PI, 0.1, KOLMOGOROV.forcing, 24)
    assert other.spec.grid.lengths == (TWO_PI, TWO_PI)
    with pytest.raises(ValueError, match=r"of length 6\.28"):
        KOLMOGOROV.at(Grid.periodic(24))


def test_the_spec_says_what_flow_it_is() -> None:
    spec = KOLMOGOROV.spec
    assert spec.equation == "∂ₜω + u·∇ω = νΔω - μω + f,  -Δψ = ω,  u = (∂ᵧψ, -∂ₓψ), f = A sin θ + B cos θ, θ = 2π k·x/L"
    assert "μω" not in DECAYING.spec.equation
    expected = {"drag": 0.1, "length": TWO_PI, "forcing_k1": 0, "forcing_k2": 4, "initial_peak": 4.0, "warm_up": 0.0}
    assert {name: spec.parameters[name] for name in expected} == expected
    assert spec.state_variance == (KOLMOGOROV.initial.variance(KOLMOGOROV.k_max),)


# Whatever the parameters ----------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    viscosity=st.floats(-5, -1).map(lambda exponent: 10**exponent),
    resolution=st.integers(4, 26),
    oversampling=st.sampled_from([1.0, 1.5, 2.0]),
    drag=st.sampled_from([0.0, 0.3]),
    length=st.sampled_from([1.0, 2 * math.pi]),
)
def test_a_free_flow_loses_energy_and_enstrophy_at_any_parameters(
    viscosity: float, resolution: int, oversampling: float, drag: float, length: float
) -> None:
    problem = NavierStokes2D(
        viscosity=viscosity,
        resolution=resolution,
        oversampling=oversampling,
        n_snapshots=3,
        interval=0.5,
        forcing=SinusoidalForcing(sine=0.0, cosine=0.0),
        drag=drag,
        length=length,
    )
    samples = problem.simulate(_rngs(2))
    w_hat = torch.fft.fft2(torch.from_numpy(samples.trajectory[:, :, 0]), norm="forward")
    k = 2 * math.pi / length * torch.fft.fftfreq(resolution, 1 / resolution, dtype=torch.float64)
    squared = k[:, None] ** 2 + k[None, :] ** 2
    # Of the wavenumbers that the file holds all are kept by a solver's grid at most 1.5 times as fine.
    if oversampling <= 1.5:
        enstrophy = w_hat.abs().square().sum((-2, -1))
        energy = (w_hat.abs().square() / torch.where(squared > 0, squared, math.inf)).sum((-2, -1))
        for quantity in (enstrophy, energy):
            assert bool((quantity[:, 1:] < quantity[:, :-1] * (1 + 1e-9)).all())
    assert np.abs(samples.trajectory.mean(axis=(-2, -1))).max() < 1e-14
    assert np.isfinite(samples.trajectory).all()


@settings(max_examples=15, deadline=None)
@given(
    viscosity=st.floats(-4, -1).map(lambda exponent: 10**exponent),
    resolution=st.integers(8, 20),
    wavenumber=st.sampled_from([(1, 1), (0, 2), (2, 0), (-1, 2)]),
)
def test_going_on_from_a_snapshot_gives_the_rest_of_the_trajectory(
    viscosity: float, resolution: int, wavenumber: tuple[int, int]
) -> None:
    forcing = SinusoidalForcing(wavenumber, 0.1, 0.05)
    problem = NavierStokes2D(
        viscosity=viscosity, resolution=resolution, oversampling=1.0, n_snapshots=4, interval=0.25, forcing=forcing
    )
    whole = problem.simulate(_rngs(2))
    rest = problem.solve(whole.trajectory[:, :2], whole.static, 2)
    np.testing.assert_allclose(rest.trajectory, whole.trajectory[:, 2:], rtol=0, atol=1e-12)
