"""Finite volumes on a law that is solved by hand: sound, p_t + m_x = 0 and m_t + p_x = 0, beside other laws."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from data_gen.solvers.finite_volume import FiniteVolumes, Wall, block_means, rusanov
from data_gen.spec import SolverError


class Sound:
    """Pressure, and a momentum along each axis. Waves of any shape travel at the speed 1."""

    positive_fields: ClassVar[Mapping[int, str]] = {}

    def primitive(self, u: Tensor) -> Tensor:
        return u.clone()

    def conserved(self, w: Tensor) -> Tensor:
        return w.clone()

    def flux(self, w: Tensor, u: Tensor, axis: int) -> Tensor:
        f = torch.zeros_like(u)
        f[:, 0], f[:, 1 + axis] = w[:, 1 + axis], w[:, 0]
        return f

    def numerical_flux(self, left: Tensor, right: Tensor, axis: int) -> Tensor:
        return rusanov(self, left, right, axis)

    def speed(self, w: Tensor, axis: int) -> Tensor:  # noqa: ARG002
        return torch.ones_like(w[:, 0])

    def turned_by_walls(self, axis: int) -> tuple[int, ...]:
        return (1 + axis,)


class Traffic(Sound):
    """u_t + (u^2 / 2)_x = 0, for a positive u."""

    positive_fields: ClassVar[Mapping[int, str]] = {0: "velocity"}

    def flux(self, w: Tensor, u: Tensor, axis: int) -> Tensor:  # noqa: ARG002
        return u.square().mul_(0.5)

    def speed(self, w: Tensor, axis: int) -> Tensor:  # noqa: ARG002
        return w[:, 0].abs()

    def turned_by_walls(self, axis: int) -> tuple[int, ...]:  # noqa: ARG002
        return ()


def solver(
    n: int, n_dims: int = 1, wall: Wall = "periodic", law: Sound | None = None, **options: float
) -> FiniteVolumes:
    chosen = law or Sound()
    return FiniteVolumes(lambda _: chosen, (1 / n,) * n_dims, (wall,) * n_dims, **options)  # pyright: ignore[reportArgumentType]


def last(scheme: FiniteVolumes, u: Tensor, time: float) -> Tensor:
    return next(iter(scheme.march(u, [time])))[0]


def averages(n: int, of_integral: Callable[[Tensor], Tensor]) -> Tensor:
    """Averages over n cells of [0, 1], from an antiderivative."""
    edges = torch.linspace(0, 1, n + 1, dtype=torch.float64)
    return torch.diff(of_integral(edges)) * n


def wave(n: int, shift: float = 0.0) -> Tensor:
    """A wave that travels to the right, [1, 2, n]."""
    u = averages(n, lambda x: -torch.cos(2 * math.pi * (x - shift)) / (2 * math.pi))
    return torch.stack([u, u])[None]


@pytest.mark.parametrize(("limited", "least"), [(True, 1.8), (False, 0.8)])
def test_the_order_on_a_smooth_wave(limited: bool, least: float) -> None:
    errors = [
        float((last(solver(n, limited=limited), wave(n), 0.3) - wave(n, 0.3)).abs().mean()) for n in (100, 200, 400)
    ]
    orders = [math.log2(errors[0] / errors[1]), math.log2(errors[1] / errors[2])]
    assert all(least < order < least + 0.6 for order in orders), orders


def test_a_plane_wave_across_a_square_has_the_same_order() -> None:
    # Along the diagonal: p = sin(2 pi (x + y - sqrt(2) t)), m = p (1, 1) / sqrt(2).
    errors = []
    for n in (32, 64):
        x = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        shrunk = (math.sin(math.pi / n) / (math.pi / n)) ** 2  # an average over a cell, not a value at its centre

        def at(t: float, x: Tensor = x, shrunk: float = shrunk) -> Tensor:
            p = shrunk * torch.sin(2 * math.pi * (x[:, None] + x - math.sqrt(2) * t))
            return torch.stack([p, p / math.sqrt(2), p / math.sqrt(2)])[None]

        errors.append(float((last(solver(n, 2), at(0), 0.2) - at(0.2)).abs().mean()))
    assert math.log2(errors[0] / errors[1]) > 1.7


@pytest.mark.parametrize("stages", [2, 3])
def test_the_order_of_steps(stages: int) -> None:
    class Growth(FiniteVolumes):
        def _rate(self, law: object, w: Tensor) -> Tensor:  # noqa: ARG002
            return w.clone()

    errors = []
    for cfl in (0.4, 0.2):  # u' = u, over a time of 1 in steps of 0.1 and 0.05
        scheme = Growth(lambda _: Sound(), (0.25,), ("periodic",), cfl=cfl, stages=stages)
        errors.append(abs(float(last(scheme, torch.ones(1, 2, 4, dtype=torch.float64), 1.0)[0, 0, 0]) - math.e))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(stages, abs=0.1)


def test_a_shock_moves_at_the_mean_of_its_sides() -> None:
    # From 2 to 1 at x = 0.2, at the speed 1.5; the error falls with the size of a cell.
    errors = []
    for n in (100, 200, 400):
        at = [averages(n, lambda x, t=t: x + torch.clamp(x, max=0.2 + 1.5 * t)) for t in (0, 0.4)]
        solved = last(solver(n, wall="outflow", law=Traffic()), at[0][None, None], 0.4)
        errors.append(float((solved[0, 0] - at[1]).abs().mean()))
    assert errors[2] < 0.3 * errors[0] < 0.01


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_sums_over_a_periodic_box_stay(n_dims: int) -> None:
    n = {1: 64, 2: 16, 3: 8}[n_dims]
    u = torch.rand(2, 1 + n_dims, *(n,) * n_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solved = last(solver(n, n_dims), u, 0.2)
    assert (solved - u).abs().max() > 0.1
    torch.testing.assert_close(solved.flatten(2).mean(dim=2), u.flatten(2).mean(dim=2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("n_dims", [1, 2])
def test_a_wall_reflects_as_a_mirror_does(n_dims: int) -> None:
    # Half of a periodic box in which everything has its mirror image.
    n = 32 // n_dims
    u = torch.rand(1, 1 + n_dims, *(n,) * n_dims, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    both = u
    for axis in range(n_dims):
        mirrored = both.flip(2 + axis).clone()
        mirrored[:, 1 + axis] *= -1
        both = torch.cat([both, mirrored], dim=2 + axis)
    expected = last(FiniteVolumes(lambda _: Sound(), (1 / n,) * n_dims, ("periodic",) * n_dims), both, 0.7)
    solved = last(solver(n, n_dims, "reflecting"), u, 0.7)
    kept = (slice(None), slice(None), *[slice(0, n)] * n_dims)
    torch.testing.assert_close(solved, expected[kept], rtol=0, atol=1e-13)


def test_waves_leave_through_an_open_end() -> None:
    n = 200
    pulse = averages(n, lambda x: torch.special.erf((x - 0.7) / 0.05))
    solved = last(solver(n, wall="outflow"), torch.stack([pulse, pulse])[None], 1.0)
    assert solved.abs().max() < 1e-3 * pulse.abs().max()


@pytest.mark.parametrize("n", [3, 40])
def test_a_sample_does_not_depend_on_those_beside_it(n: int) -> None:
    # Speeds, and so steps, differ. More samples than are solved together, and fewer.
    many = 1 + torch.rand(n, 1, 1024, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    many *= torch.arange(1, n + 1, dtype=torch.float64).view(-1, 1, 1)
    scheme = solver(1024, law=Traffic())
    together, n_steps = next(iter(scheme.march(many, [0.001])))
    alone, own = next(iter(scheme.march(many[-1:], [0.001])))
    assert torch.equal(together[-1:], alone)
    assert n_steps[-1] == own[0] > n_steps[0] >= 1


def test_intervals_are_met_exactly() -> None:
    # Two stored times or one: the same solution, up to the error of steps.
    states = [state for state, _ in solver(50).march(wave(50), [0.1, 0.2])]
    assert len(states) == 2
    torch.testing.assert_close(states[0], last(solver(50), wave(50), 0.1), rtol=0, atol=0)
    torch.testing.assert_close(states[1], last(solver(50), wave(50), 0.3), rtol=0, atol=1e-4)


def test_single_precision_stays_single() -> None:
    assert last(solver(50), wave(50).float(), 0.1).dtype == torch.float32


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, r"Sample 8 of the batch has a velocity of -1 at t=0, .*Lower dataset\.problem\.cfl"),
        (math.nan, r"Sample 8 of the batch has a velocity of nan at t=0, .*dataset\.problem\.solver_resolution"),
        (math.inf, r"Sample 8 of the batch needs inf steps from t=0 .*dataset\.problem\.interval"),
    ],
)
def test_what_is_not_physical_is_refused(value: float, message: str) -> None:
    u = torch.ones(3, 1, 16, dtype=torch.float64)
    u[1, 0, 5] = value
    with pytest.raises(SolverError, match=message):
        list(solver(16, law=Traffic()).march(u, [0.1], first=7))


def test_means_over_blocks() -> None:
    u = torch.rand(2, 3, 8, 12, dtype=torch.float64)
    expected = u.reshape(2, 3, 2, 4, 3, 4).mean(dim=(3, 5))
    torch.testing.assert_close(block_means(u, 4, 2), expected, rtol=1e-14, atol=0)
