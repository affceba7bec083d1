"""NavierStokes3D against exact and published solutions, and what its flows keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_gen.generation.random_streams import generator
from data_gen.problems.ns3d import NavierStokes3D
from data_gen.random_fields import LogUniform, SolenoidalField
from data_gen.spec import Samples, SolverError

Array = NDArray[np.floating]


def flow(**options: Any) -> NavierStokes3D:
    return replace(NavierStokes3D(resolution=16, viscosity=0.1), **options)


def points(problem: NavierStokes3D) -> Array:
    """x, y and z of the grid, as angles."""
    angles = [2 * np.pi / problem.length * x for x in problem.spec.grid.coordinates()]
    return np.stack(np.meshgrid(*angles, indexing="ij"))


def draw(problem: NavierStokes3D, *samples: int) -> Samples:
    return problem.simulate([generator(0, "train", i) for i in samples])


def solved(problem: NavierStokes3D, start: Array, n_steps: int) -> Array:
    return problem.solve(start[None, None], np.empty((1, 0, *start.shape[1:])), n_steps).trajectory[0]


def coefficients(u: Array) -> tuple[NDArray[np.complexfloating], Array]:
    """Of velocities [..., component, *space], and the wave vectors [component, *k], for a cube of side 2 pi."""
    k = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n) for n in u.shape[-3:]], indexing="ij"))
    return np.fft.fftn(u, axes=(-3, -2, -1), norm="forward"), k


def energy_and_enstrophy(u: Array) -> tuple[Array, Array]:
    """Half the mean squares of velocity and vorticity, by Parseval's identity."""
    u_hat, k = coefficients(u)
    squares = 0.5 * np.abs(u_hat) ** 2
    return squares.sum(axis=(-4, -3, -2, -1)), (squares * (k**2).sum(axis=0)).sum(axis=(-4, -3, -2, -1))


def beltrami(x: Array) -> Array:
    """The flow of Arnold, Beltrami and Childress: its curl is itself, so that u x curl u vanishes."""
    a, b, c = 1.0, 0.7, 0.43
    return np.stack(
        [
            a * np.sin(x[2]) + c * np.cos(x[1]),
            b * np.sin(x[0]) + a * np.cos(x[2]),
            c * np.sin(x[1]) + b * np.cos(x[0]),
        ]
    )


def wave_beside_a_stream(x: Array) -> Array:
    """A shear wave that a uniform stream of speed 0.5 along x carries with it."""
    return np.stack([np.full_like(x[0], 0.5), 0 * x[0], np.sin(x[0])])


def test_a_beltrami_flow_decays_as_it_is() -> None:
    problem = flow(length=3.0)
    start = beltrami(points(problem))
    rate = problem.viscosity * (2 * np.pi / 3.0) ** 2
    expected = math.exp(-rate * 3 * problem.interval) * start
    np.testing.assert_allclose(solved(problem, start, 3)[-1], expected, atol=1e-12)


def test_a_stream_carries_a_wave_along() -> None:
    problem = flow()
    x, t = points(problem), 3 * problem.interval
    moved = wave_beside_a_stream(x - 0.5 * t)
    moved[2] *= math.exp(-problem.viscosity * t)
    np.testing.assert_allclose(solved(problem, wave_beside_a_stream(x), 3)[-1], moved, atol=1e-7)


@pytest.mark.parametrize("reynolds", [20.0, 100.0])
def test_the_vortex_of_taylor_and_green_dissipates_as_they_found(reynolds: float) -> None:
    # Mean square of the vorticity, relative to the first, as a series in time: Taylor & Green (1937), Mechanism of the
    # production of small eddies from large ones, Proc. R. Soc. A 158. The next term is of order 6.
    problem = flow(viscosity=1 / reynolds, interval=0.1, n_snapshots=6, first_step=0.02, max_step=0.02)
    x, y, z = points(problem)
    start = np.stack([np.cos(x) * np.sin(y) * np.sin(z), -np.sin(x) * np.cos(y) * np.sin(z), 0 * x])
    t, r = 0.1 * np.arange(1, 6), reynolds
    series = (
        1
        - 6 / r * t
        + (5 / 48 + 18 / r**2) * t**2
        - (5 / 3 + 36 / r**2) / r * t**3
        + (50 / (99 * 64) + 1835 / (9 * 16 * r**2) + 54 / r**4) * t**4
        - (361 / (44 * 32) + 761 / (12 * r**2) + 324 / (5 * r**4)) / r * t**5
    )
    found = energy_and_enstrophy(solved(problem, start, 5))[1] / energy_and_enstrophy(start)[1]
    assert (np.abs(found - series) < 0.012 * t**6 + 1e-10).all()


def test_energy_is_lost_to_viscosity_alone() -> None:
    # E(t) - E(0) is minus the integral of 2 viscosity Z, here by Simpson's rule.
    h = 0.0125
    problem = flow(interval=h, n_snapshots=17, first_step=h, max_step=h)
    energy, enstrophy = energy_and_enstrophy(draw(problem, 0).trajectory[0])
    weights = np.array([1, *[4, 2] * 7, 4, 1]) * h / 3
    lost = 2 * problem.viscosity * weights @ enstrophy
    assert energy[0] - energy[-1] == pytest.approx(lost, rel=1e-6)
    assert lost > 0.1 * energy[0]


def test_the_nonlinearity_keeps_energy_and_helicity_and_momentum() -> None:
    problem = flow()
    space = problem._space
    torch.manual_seed(0)
    # Waves of all lengths that the grid holds, where aliasing would show.
    values = torch.randn(1, 3, 16, 16, 16, dtype=torch.float64)
    u_hat = space.coefficients(values)
    inverse = torch.where(space.laplacian == 0, 1.0, space.laplacian) ** -1
    potential = inverse * sum(space.derivative(u_hat[:, axis], axis) for axis in range(3))
    u_hat = u_hat - torch.stack([space.derivative(potential, axis) for axis in range(3)], dim=1)
    curl = torch.stack(
        [
            space.derivative(u_hat[:, (axis + 2) % 3], (axis + 1) % 3)
            - space.derivative(u_hat[:, (axis + 1) % 3], (axis + 2) % 3)
            for axis in range(3)
        ],
        dim=1,
    )
    change = problem.nonlinear(u_hat, space)

    def product(one: torch.Tensor, other: torch.Tensor) -> float:
        return float((space.multiplicity * (one * other.conj()).real).sum())

    size = math.sqrt(product(change, change))
    for kept in (u_hat, curl):
        assert abs(product(kept, change)) < 1e-13 * size * math.sqrt(product(kept, kept))
    assert change[..., 0, 0, 0].abs().max() < 1e-13 * size
    assert float(problem.measure(change, space)) < 1e-13


@pytest.mark.parametrize("viscosity", [0.1, LogUniform(0.05, 0.2)])
def test_every_frame_is_without_divergence(viscosity: Any) -> None:
    samples = draw(flow(viscosity=viscosity, inner_batch=2), 0, 1)
    u_hat, k = coefficients(samples.trajectory)
    divergence = np.abs((k * u_hat).sum(axis=2)) ** 2
    gradient = (k**2).sum(axis=0) * (np.abs(u_hat) ** 2).sum(axis=2)
    space = (-3, -2, -1)
    ratios = np.sqrt(divergence.sum(axis=space) / gradient.sum(axis=space))
    assert ratios.shape == (2, 11)
    assert ratios.max() < 1e-14
    assert 0 < samples.diagnostics["divergence"].max() < 1e-14


def test_the_diagnostic_is_the_divergence_relative_to_the_gradient() -> None:
    # u = (sin x, 0, sin 2x): the divergence has the mean square 1/2, the gradient 1/2 + 4/2. The first component
    # steepens the other one, so the ratio falls, and the largest is the first.
    problem = flow(viscosity=0.01)
    space, x = problem._space, points(problem)[0]
    u = np.stack([np.sin(x), 0 * x, np.sin(2 * x)])
    solution = problem.solve(u[None, None], np.empty((1, 0, *x.shape)), 1)
    first, last = (
        float(problem.measure(space.coefficients(torch.from_numpy(v)[None]), space))
        for v in (u, solution.trajectory[0, 0])
    )
    assert last < first == pytest.approx(5**-0.5)
    assert solution.diagnostics["divergence"].item() == pytest.approx(first)


def test_a_viscosity_of_its_own_is_that_of_the_sample() -> None:
    together = draw(flow(viscosity=LogUniform(0.05, 0.2), inner_batch=3), 0, 1, 2)
    for number, viscosity in enumerate(together.parameters["viscosity"]):
        alone = draw(flow(viscosity=float(viscosity)), number)
        np.testing.assert_allclose(together.trajectory[number], alone.trajectory[0], atol=1e-12)


def test_steps_that_may_be_unstable_are_refused() -> None:
    problem = flow(max_step=0.05)
    calm = wave_beside_a_stream(points(problem))
    fast = calm + np.array([20.0, 0.0, 0.0])[:, None, None, None]  # 7 waves of 20.5 + 1 in steps of 0.05
    starts = np.stack([calm, fast])[:, None]
    words = r"Sample 1 of the batch .* speed is 7\.\d, above 5\.9\. Lower dataset\.problem\.max_step below 0\.039"
    with pytest.raises(SolverError, match=words):
        problem.solve(starts, np.empty((2, 0, *starts.shape[3:])), 1)
    again = replace(problem, max_step=0.025).solve(starts, np.empty((2, 0, *starts.shape[3:])), 1)
    assert np.isfinite(again.trajectory).all()


# The law of initial velocities ----------------------------------------------------------------------------------------


def test_initial_velocities_have_the_size_and_the_spectrum_that_are_asked_for() -> None:
    law = SolenoidalField(rms_velocity=2.0, peak=3.0, n_waves=7)
    starts = draw(flow(resolution=16, interval=1e-9, n_snapshots=2, initial=law), *range(40)).trajectory[:, 0]
    np.testing.assert_allclose((starts**2).mean(axis=(1, 2, 3, 4)), 4.0, rtol=1e-12)
    np.testing.assert_allclose(starts.mean(axis=(2, 3, 4)), 0.0, atol=1e-12)
    # No component and no axis is special: the six mean products of components, and of waves along axes.
    u_hat, k = coefficients(starts)
    squares = np.abs(u_hat) ** 2
    assert squares.sum(axis=(2, 3, 4)).mean(axis=0) == pytest.approx(4.0, rel=0.1)
    along = (k[:, None] ** 2 * squares.sum(axis=1)).mean(axis=1).sum(axis=(1, 2, 3))
    assert along == pytest.approx(along.mean(), rel=0.1)
    # Mean square of a wave: E(k) over 4 pi k^2.
    length = np.sqrt((k**2).sum(axis=0))
    per_wave = squares.sum(axis=1).mean(axis=0)
    expected = length**2 * np.exp(-2 * length**2 / 9)
    shells = [(length > r - 0.5) & (length <= r + 0.5) for r in range(1, 7)]
    ratios = np.array([per_wave[shell].mean() / expected[shell].mean() for shell in shells])
    np.testing.assert_allclose(ratios / ratios.mean(), 1.0, atol=0.1)


def _bad(change: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  (the callers match it)
        change()
    return str(raised.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: flow(viscosity=0.0), "dataset.problem.viscosity must be positive, got 0.0"),
        (lambda: SolenoidalField(peak=0.0), "peak > 0"),
        (lambda: SolenoidalField(rms_velocity=-1.0), "dataset.problem.initial"),
        (lambda: draw(flow(n_dims=2), 0), "draws three components in three dimensions, not 3 in 2"),
    ],
)
def test_bad_parameters_are_refused(change: Callable[[], Any], words: str) -> None:
    assert words in _bad(change)
