"""The stepper knows no equation: it is tested on scalar ones."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from data_gen.solvers.integrating_factor import integrate
from data_gen.spec import SolverError


def _fixed(step: float):
    return lambda state: torch.full((state.shape[0],), step, dtype=torch.float64)


def _rotation(v: Tensor, t: Tensor) -> Tensor:
    del t
    return 2j * v


def test_linear_decay_is_exact_for_any_step() -> None:
    linear = torch.tensor([-1.0, -1e4], dtype=torch.float64)
    start = torch.ones(3, 2, dtype=torch.float64)
    states = integrate(linear, lambda v, t: torch.zeros_like(v), start, [0.3, 2.0], _fixed(10.0)).states  # noqa: ARG005
    for index, t in enumerate((0.3, 2.0)):
        assert torch.allclose(states[:, index], torch.exp(linear * t).expand(3, 2), rtol=1e-14, atol=0)


def test_order_four_with_time_dependent_forcing() -> None:
    # v' = -v + v^2 + g(t) with the exact solution v = cos 3t.
    linear = torch.tensor([-1.0], dtype=torch.float64)

    def nonlinear(v: Tensor, t: Tensor) -> Tensor:
        exact = torch.cos(3 * t)
        return v**2 + (-3 * torch.sin(3 * t) + exact - exact**2)[:, None]

    errors = []
    for dt in (0.05, 0.025, 0.0125):
        end = integrate(linear, nonlinear, torch.ones(1, 1, dtype=torch.float64), [1.0], _fixed(dt)).states
        errors.append(abs(float(end) - math.cos(3)))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert all(3.8 < order < 4.2 for order in orders), (errors, orders)


def test_outputs_land_on_the_times_and_the_start_is_returned_as_it_is() -> None:
    linear = torch.zeros(1, dtype=torch.float64)
    start = torch.tensor([[1.0 + 0j]], dtype=torch.complex128)
    times = [1.0, 1.37, 2.0]
    states = integrate(linear, _rotation, start, times, _fixed(0.01), start=1.0).states
    assert torch.equal(states[0, 0], start[0])
    for state, t in zip(states[0, :, 0], times, strict=True):
        assert complex(state) == pytest.approx(complex(math.cos(2 * (t - 1)), math.sin(2 * (t - 1))), abs=1e-8)


def test_each_sample_takes_its_own_steps_and_keeps_its_place() -> None:
    seen: list[int] = []

    def counting(v: Tensor, t: Tensor) -> Tensor:
        seen.append(v.shape[0])
        return _rotation(v, t)

    linear = torch.zeros(1, dtype=torch.float64)
    start = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.complex128)
    bound = torch.tensor([0.5, 0.1, 0.25], dtype=torch.float64)
    states = integrate(linear, counting, start, [1.0], lambda state: bound[: state.shape[0]]).states
    # 2, 10 and 4 substeps of 4 evaluations each: three samples, then two, then one.
    assert seen == [3] * 8 + [2] * 8 + [1] * 24
    for i in range(3):
        step = bound[i : i + 1]
        alone = integrate(linear, _rotation, start[i : i + 1], [1.0], lambda state, step=step: step).states  # noqa: ARG005
        assert torch.equal(states[i], alone[0])
    assert states[:, 0, 0].abs().round().tolist() == [1.0, 2.0, 3.0]


def test_a_bound_that_equals_the_interval_costs_one_step() -> None:
    calls: list[float] = []

    def counting(v: Tensor, t: Tensor) -> Tensor:
        calls.append(float(t))
        return torch.zeros_like(v)

    integrate(torch.zeros(1), counting, torch.ones(1, 1), [0.1, 0.2, 0.3], _fixed(0.1))
    assert len(calls) == 3 * 4


def test_a_blow_up_is_reported_with_sample_time_and_knob() -> None:
    linear = torch.zeros(1, dtype=torch.float64)
    start = torch.tensor([[0.0], [1e200]], dtype=torch.float64)
    with pytest.raises(SolverError, match=r"Sample 1 .* non-finite before t=2.*cfl_safety"):
        integrate(linear, lambda v, t: v**2, start, [2.0], _fixed(0.5))  # noqa: ARG005


@pytest.mark.parametrize("bound", [1e-9, 0.0, math.nan])
def test_an_endless_interval_is_reported(bound: float) -> None:
    with pytest.raises(SolverError, match="substeps"):
        integrate(torch.zeros(1), _rotation, torch.ones(1, 1, dtype=torch.complex64), [1.0], _fixed(bound))
