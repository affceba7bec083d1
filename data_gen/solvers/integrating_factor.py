"""Integrating-factor Runge-Kutta 4 (Lawson 1967) for dv/dt = L v + N(v, t) with a diagonal, dissipative L.

The stiff linear part is integrated exactly by exp(L dt), the rest by the classical Runge-Kutta method. The stepper
works for any equation: it takes the symbol of L, the function N and a bound on the stable step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data_gen.spec import SolverError

# dv/dt = L v + N(v, t): maps the states [sample, *modes] and their times [sample] to N, a new tensor each time.
Nonlinearity = Callable[[Tensor, Tensor], Tensor]
# Largest stable step of each sample: maps the states [sample, *modes] to [sample].
StepBound = Callable[[Tensor], Tensor]


class Integration(NamedTuple):
    """Result of an integration.

    Attributes:
        states: [sample, time, *modes].
        n_steps: steps that a sample has taken, [sample].
        step_ratio: the largest step that a sample has taken, relative to the bound at the end of the same interval,
            [sample]. Above 1, the bound shrank during the interval, and the step was longer than the new bound.
    """

    states: Tensor
    n_steps: Tensor
    step_ratio: Tensor


def integrate(
    linear: Tensor,
    nonlinear: Nonlinearity,
    state: Tensor,
    times: Sequence[float],
    step_bound: StepBound,
    *,
    start: float = 0.0,
    max_substeps: int = 100_000,
) -> Integration:
    """States at the given output times, and how many steps they took.

    Every output interval is divided into equal substeps, as few as ``step_bound`` (evaluated at the start of the
    interval) allows, so output times are met exactly. Each sample has its own number of substeps. Within an interval
    the samples are sorted by this number and leave the batch when they are done, so no result depends on another
    sample.

    Args:
        linear: symbol of L, real, [*modes].
        nonlinear: N(v, t).
        state: initial states at time ``start``, [sample, *modes]. The steps are taken in its precision.
        times: increasing output times, none before ``start``; ``start`` itself returns the initial state.
        step_bound: largest stable step per sample.
        start: time of the initial states.
        max_substeps: bound on the substeps of one interval, which stops a solution that blows up.

    Raises:
        SolverError: a state became non-finite, or an interval needs more than ``max_substeps`` substeps.
    """
    modes = (1,) * linear.ndim
    precision = state.real.dtype if state.is_complex() else state.dtype
    outputs = state.new_empty(state.shape[0], len(times), *linear.shape)
    n_steps = torch.zeros(state.shape[0], dtype=torch.int64, device=state.device)
    ratio = torch.zeros(state.shape[0], dtype=linear.dtype, device=state.device)
    bound = step_bound(state)
    now = start
    for index, end in enumerate(times):
        if end > now:
            n_substeps = _count_substeps(bound, end - now, now, max_substeps)
            n_steps += n_substeps
            order = torch.argsort(n_substeps, descending=True, stable=True)
            counts = n_substeps[order]
            v = state[order]
            dt = ((end - now) / counts.to(linear.dtype)).view(-1, *modes)
            half = torch.exp(linear * (dt / 2))
            factors = _Factors(dt.to(precision), half.to(precision))
            # How many samples are active at substep j; they are the first ones.
            schedule = [int((counts > j).sum()) for j in range(int(counts[0]))]
            active = -1
            for substep, n_active in enumerate(schedule):
                if n_active != active:
                    active, current = n_active, factors.first(n_active)
                time = now + substep * current.dt.flatten()
                v[:active] = _step(nonlinear, v[:active], time, current)
            state = torch.empty_like(v)
            state[order] = v
            _assert_finite(state, end)
            bound = step_bound(state)
            ratio = torch.maximum(ratio, (end - now) / n_substeps.to(linear.dtype) / bound)
        outputs[:, index] = state
        now = end
    return Integration(outputs, n_steps, ratio)


class _Factors(NamedTuple):
    """The step dt, [sample, *1], and the integrating factor exp(L dt/2), [sample, *modes], of an interval."""

    dt: Tensor
    half: Tensor

    def first(self, n_samples: int) -> _Factors:
        return _Factors(self.dt[:n_samples], self.half[:n_samples])


def _step(nonlinear: Nonlinearity, v: Tensor, time: Tensor, factors: _Factors) -> Tensor:
    dt, half = factors
    flat_dt = dt.flatten()
    middle = time + flat_dt / 2
    v_half = half * v
    k1 = nonlinear(v, time).mul_(half)
    k2 = nonlinear(torch.addcmul(v_half, k1, dt / 2), middle)
    k3 = nonlinear(torch.addcmul(v_half, k2, dt / 2), middle).mul_(half)
    v_full = v_half.mul_(half)
    # k1 already has one factor exp(L dt/2); one more makes it exp(L dt).
    increment = k1.add_(k2, alpha=2).mul_(half).add_(k3, alpha=2)
    increment.add_(nonlinear(k3.mul_(dt).add_(v_full), time + flat_dt))
    return v_full.addcmul_(increment, dt / 6)


def _count_substeps(bound: Tensor, interval: float, now: float, max_substeps: int) -> Tensor:
    # The slack saves a substep if the bound equals the interval up to rounding.
    needed = torch.ceil(interval / bound * (1 - 1e-12)).clamp(min=1)
    worst = int(torch.argmax(torch.nan_to_num(needed, nan=float("inf"))))
    if not bool(needed[worst] <= max_substeps):
        raise SolverError(
            f"Sample {worst} of the batch needs {float(needed[worst]):.3g} substeps from t={now:g} on, more than "
            f"{max_substeps}: the solution blows up. Raise dataset.problem.resolution or dataset.problem.viscosity."
        )
    return needed.to(torch.int64)


def _assert_finite(state: Tensor, time: float) -> None:
    finite = torch.isfinite(torch.view_as_real(state) if state.is_complex() else state).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise SolverError(
            f"Sample {int(torch.argmin(finite.int()))} of the batch became non-finite before t={time:g}. "
            "Lower dataset.problem.cfl_safety, or raise dataset.problem.resolution or dataset.problem.viscosity."
        )
