"""The exponential stepper knows no equation: its coefficients, orders and steps on scalar ones."""

from __future__ import annotations

import itertools
import math

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from data_gen.solvers.etdrk4 import Coefficients, coefficients, graded_steps, halved, integrate
from data_gen.spec import SolverError


def _double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _uniform(dt: float, end: float = 1.0) -> list[list[float]]:
    return graded_steps([0.0, end], dt, 1.0, dt)


def _exact(z: float) -> list[mpmath.mpf]:
    """The six coefficients for dt = 1 with 100 digits; next to 0 by their limits."""
    if abs(z) < 1e-16:
        return [mpmath.mpf(1), mpmath.mpf(1), mpmath.mpf(1) / 2, *[mpmath.mpf(1) / d for d in (6, 3, 6)]]
    with mpmath.workdps(100):
        x = mpmath.mpf(z)
        e = mpmath.exp(x)
        return [
            e,
            mpmath.exp(x / 2),
            (mpmath.exp(x / 2) - 1) / x,
            (-4 - x + e * (4 - 3 * x + x**2)) / x**3,
            2 * (2 + x + e * (x - 2)) / x**3,
            (-4 - 3 * x - x**2 + e * (4 - x)) / x**3,
        ]


@pytest.mark.parametrize(
    "z", [0.0, -1e-300, -1e-12, -1e-6, -1e-3, -0.1, -1.0, -1.9999999, -2.0, -5.0, -50.0, -1e4, -1e8, 0.5, 1.9, 3.0]
)
def test_coefficients_agree_with_a_hundred_digits(z: float) -> None:
    found = coefficients(_double(z), 1.0)
    for name, value, exact in zip(Coefficients._fields, found, _exact(z), strict=True):
        assert float(value) == pytest.approx(float(exact), rel=2e-14, abs=1e-300), name


@given(st.floats(-1e5, 4.0), st.floats(1e-6, 10.0))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_coefficients_are_accurate_everywhere(z: float, dt: float) -> None:
    found = coefficients(_double(z / dt), dt)
    scales = (1, 1, dt, dt, dt, dt)
    for value, exact, scale in zip(found, _exact(z / dt * dt), scales, strict=True):
        assert float(value) == pytest.approx(scale * float(exact), rel=3e-14, abs=1e-300)


def test_linear_decay_is_exact_for_any_step() -> None:
    linear = _double(-1.0, -1e4, 0.0)
    start = torch.ones(3, 3, dtype=torch.float64)
    states = integrate(linear, torch.zeros_like, start, [[0.3], [1.0, 0.7]])
    for index, t in enumerate((0.3, 2.0)):
        assert torch.allclose(states[:, index], torch.exp(linear * t).expand(3, 3), rtol=1e-14, atol=0)


@pytest.mark.parametrize("rate", [1.0, 1e3, 1e6])
def test_a_steady_state_of_a_stiff_equation_is_kept(rate: float) -> None:
    # L v + N = 0: an integrating factor drifts away from it, exponential differences must not.
    states = integrate(_double(-rate), lambda v: torch.full_like(v, rate), torch.ones(1, 1).double(), _uniform(0.1))
    assert float(states[0, 0]) == pytest.approx(1.0, rel=1e-13)


def test_order_four() -> None:
    # v' = -v + v^2 with v(0) = 1/2 is v = 1 / (1 + exp(t)).
    errors = []
    for dt in (0.2, 0.1, 0.05):
        end = integrate(_double(-1.0), lambda v: v * v, _double(0.5)[None], _uniform(dt))
        errors.append(abs(float(end) - 1 / (1 + math.e)))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(3.8 < order < 4.2 for order in orders), (errors, orders)
    assert errors[-1] < 1e-8


def test_complex_states_are_treated_as_their_two_parts() -> None:
    # v' = (-1 + 2i) v, the imaginary part in N; and modes of one sample don't mix.
    linear = _double(-1.0, -3.0)
    start = torch.tensor([[1.0 + 2.0j, -1.0j]], dtype=torch.complex128)
    end = integrate(linear, lambda v: 2j * v, start, _uniform(0.01))[:, 0]
    expected = start * torch.exp(linear + 2j)
    assert torch.allclose(end, expected, rtol=1e-8)
    real = integrate(linear, lambda v: v * v, _double(0.5, 0.1)[None], _uniform(0.1))
    embedded = integrate(linear, lambda v: v * v, _double(0.5, 0.1)[None].to(torch.complex128), _uniform(0.1))
    assert torch.allclose(embedded.real, real, rtol=1e-14)
    assert float(embedded.imag.abs().max()) == 0.0


def test_the_initial_state_is_kept_and_samples_do_not_mix() -> None:
    linear = _double(-1.0)
    start = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.complex128)
    before = start.clone()
    together = integrate(linear, lambda v: 1j * v * v.abs(), start, _uniform(0.1))
    assert torch.equal(start, before)
    for i in range(3):
        assert torch.equal(
            integrate(linear, lambda v: 1j * v * v.abs(), start[i : i + 1], _uniform(0.1))[0], together[i]
        )


def test_an_observer_sees_every_state_with_its_time() -> None:
    seen: list[tuple[float, float]] = []
    states = integrate(
        _double(-1.0),
        torch.zeros_like,
        torch.ones(1, 1).double(),
        [[0.25, 0.5], [0.25]],
        observe=lambda v, t: seen.append((t, float(v))),
    )
    assert [t for t, _ in seen] == [0.25, 0.75, 1.0]
    assert [v for _, v in seen] == pytest.approx([math.exp(-t) for t, _ in seen], rel=1e-14)
    assert states.flatten().tolist() == pytest.approx([math.exp(-0.75), math.exp(-1)], rel=1e-14)


def test_a_blow_up_is_reported_with_sample_time_and_knob() -> None:
    start = torch.tensor([[0.0], [1e200]], dtype=torch.float64)
    with pytest.raises(SolverError, match=r"Sample 1 .* non-finite before t=2.*max_step.*viscosity"):
        integrate(_double(0.0), lambda v: v * v, start, [[1.0, 1.0]])
    with pytest.raises(SolverError, match="Sample 7 "):
        integrate(_double(0.0), lambda v: v * v, start, [[1.0, 1.0]], numbers=[3, 7])


# Steps ---------------------------------------------------------------------------------------------------------------


def test_steps_grow_to_the_largest_and_land_on_the_times() -> None:
    (steps,) = graded_steps([0.0, 1.0], 1e-4, 1.3, 8e-3)
    assert len(steps) == 139
    growing = [1e-4 * 1.3**i for i in range(17)]
    assert steps[:17] == pytest.approx(growing, rel=1e-12)
    assert len(set(steps[17:])) == 1, "equal steps share their coefficients"
    assert steps[-1] <= 8e-3
    assert math.fsum(steps) == pytest.approx(1.0, rel=1e-14)


def test_growth_goes_on_across_output_times() -> None:
    first, second = graded_steps([0.0, 0.25, 10.0], 0.1, 2.0, 1.0)
    assert first == pytest.approx([0.1, 0.15])
    assert second[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(second) <= 1.0


@given(
    st.lists(st.floats(1e-3, 3.0), min_size=1, max_size=4),
    st.floats(1e-4, 0.1),
    st.floats(1.0, 3.0),
    st.floats(1.0, 20.0),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_steps_fill_every_interval_and_keep_their_bounds(
    lengths: list[float], first: float, growth: float, ratio: float
) -> None:
    times = [0.0, *itertools.accumulate(lengths)]
    largest = first * ratio
    intervals = graded_steps(times, first, growth, largest)
    for (start, end), steps in zip(itertools.pairwise(times), intervals, strict=True):
        assert math.fsum(steps) == pytest.approx(end - start, rel=1e-12)
        assert min(steps) > 0
        assert max(steps) <= largest * (1 + 1e-9)
        assert all(later <= earlier * growth * (1 + 1e-9) for earlier, later in itertools.pairwise(steps))
    assert intervals[0][0] <= first * (1 + 1e-9)
    halves = halved(intervals)
    assert [len(steps) for steps in halves] == [2 * len(steps) for steps in intervals]
    assert [math.fsum(steps) for steps in halves] == pytest.approx([math.fsum(steps) for steps in intervals])


@pytest.mark.parametrize(
    ("times", "first", "growth", "largest"),
    [
        *(([0.0, 1.0], 0.0, 1.3, 0.1), ([0.0, 1.0], 0.2, 1.3, 0.1), ([0.0, 1.0], 0.1, 0.9, 0.1)),
        *(([0.0, 1.0], math.nan, 1.3, 0.1), ([0.0, 0.0], 0.1, 1.3, 0.1), ([0.0, math.inf], 0.1, 1.3, 0.1)),
    ],
)
def test_impossible_steps_are_refused(times: list[float], first: float, growth: float, largest: float) -> None:
    with pytest.raises(ValueError, match=r"first <= largest|must increase"):
        graded_steps(times, first, growth, largest)


def test_advection_and_diffusion_are_stable_up_to_the_documented_limit() -> None:
    # N = i kappa U v against L = -nu kappa^2. With x^2 = nu kappa^2 dt, S = U sqrt(dt / nu): z = -x^2, dt N = i x S v.
    x = torch.linspace(1e-3, 40, 20_000, dtype=torch.float64)

    def growth(s: float) -> float:
        state = torch.ones(1, len(x), dtype=torch.complex128)
        return float(integrate(-(x**2), lambda v: 1j * s * x * v, state, [[1.0]]).abs().max())

    assert growth(2.19) <= 1.0
    assert growth(2.21) > 1.0
    assert np.isfinite(growth(2.21))
