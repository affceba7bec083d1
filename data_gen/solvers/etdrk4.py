"""Exponential time differencing Runge-Kutta 4 (Cox & Matthews 2002) for dv/dt = L v + N(v) with a diagonal, real L.

The linear part is integrated exactly, and so are the integrals of exp(L s) against the stages' interpolant, so a stiff,
dissipative L doesn't bound the step. The stepper works for any equation: it takes the symbol of L, N and the steps.

For smooth solutions the error is of order 4 in the step. Rough initial data (high modes that decay within the first
steps) reduce the order; steps that start small and grow geometrically (``graded_steps``) restore the accuracy at the
cost of a few steps.

References: Cox & Matthews (2002), Exponential time differencing for stiff systems, J. Comput. Phys. 176, eqs. 26-29.
Kassam & Trefethen (2005), Fourth-order time stepping for stiff PDEs, SIAM J. Sci. Comput. 26, on why the coefficients'
closed forms must not be used near 0.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from data_gen.spec import SolverError

# dv/dt = L v + N(v): maps the states [sample, *modes] to N, a new tensor of the same shape.
Nonlinearity = Callable[[Tensor], Tensor]
# Called after every step with the states [sample, *modes], which it must not change, and their time.
Observer = Callable[[Tensor, float], None]

# Below this |z| = |L dt| the coefficients are Taylor series, because the closed forms lose |z|^-3 ulps.
_SERIES_RADIUS = 2.0
# Terms of the series: the first one left out is 2^28 / 29! = 3e-23.
_N_TERMS = 28


def graded_steps(times: Sequence[float], first: float, growth: float, largest: float) -> list[list[float]]:
    """Step sizes of every interval between consecutive ``times``: first, first growth, first growth^2, ... up to
    ``largest``.

    Once the largest step is reached, or if an output time comes first, the rest of an interval is divided into equal
    steps, as few as the current bound allows. So every output time is met exactly, no step is tiny, and the steps have
    few distinct values. Growth continues across output times.

    Args:
        times: increasing; the first is the start.
        first: first step, > 0.
        growth: factor between consecutive steps, >= 1; with 1 all steps are the first.
        largest: bound on the steps, >= first.

    Raises:
        ValueError: an argument is out of range.

    >>> graded_steps([0.0, 1.0], 0.1, 2.0, 0.2)
    [[0.1, 0.18, 0.18, 0.18, 0.18, 0.18]]
    """
    if not (0 < first <= largest < math.inf and 1 <= growth < math.inf):
        raise ValueError(f"Need 0 < first <= largest and growth >= 1, got {first}, {largest} and {growth}.")
    intervals = []
    step = first
    for start, end in itertools.pairwise(times):
        if not start < end < math.inf:
            raise ValueError(f"The times must increase, got {tuple(times)}.")
        steps: list[float] = []
        left = end - start
        while step < min(left, largest) and growth > 1:
            steps.append(step)
            left -= step
            step = min(step * growth, largest)
        # The slack saves a step if the steps divide the interval up to rounding.
        n_equal = max(1, math.ceil(left / step * (1 - 1e-12)))
        intervals.append([*steps, *[left / n_equal] * n_equal])
    return intervals


def halved(intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """The same intervals with every step cut in two.

    >>> halved([[0.5, 0.25]])
    [[0.25, 0.25, 0.125, 0.125]]
    """
    return [[step / 2 for step in steps for _ in range(2)] for steps in intervals]


def march(
    linear: Tensor,
    nonlinear: Nonlinearity,
    state: Tensor,
    intervals: Sequence[Sequence[float]],
    *,
    observe: Observer | None = None,
    numbers: Sequence[int] | None = None,
    remedy: str = "raise dataset.problem.solver_resolution or dataset.problem.viscosity",
) -> Iterator[Tensor]:
    """The states after each of the given intervals, [sample, *modes], one after another.

    All samples take the same steps and no operation mixes samples.

    Args:
        linear: symbol of L, float64 or, where the equation disperses, complex128: [*modes], or [sample, *modes] if it
            differs between samples.
        nonlinear: N(v).
        state: initial states at time 0, [sample, *modes], real or complex; not changed. The steps are taken in its
            precision.
        intervals: the steps of every interval between outputs (``graded_steps``).
        observe: called with the states after every step.
        numbers: numbers of the samples in messages; default 0, 1, ...
        remedy: what else than smaller steps may help, in messages.

    Raises:
        SolverError: a state became non-finite.
    """
    tables: dict[float, Coefficients] = {}
    now = 0.0
    for steps in intervals:
        time = now
        for dt in steps:
            # Graded steps are taken once, the largest many times, so only the latest table is kept.
            if dt not in tables:
                tables = {dt: _coefficients(linear, dt, state)}
            state = _step(nonlinear, state, tables[dt])
            time += dt
            if observe is not None:
                observe(state, time)
        now += math.fsum(steps)
        _assert_finite(state, now, numbers, remedy)
        yield state


def integrate(
    linear: Tensor,
    nonlinear: Nonlinearity,
    state: Tensor,
    intervals: Sequence[Sequence[float]],
    **options: Any,
) -> Tensor:
    """The states of ``march`` together, [sample, interval, *modes]."""
    return torch.stack(list(march(linear, nonlinear, state, intervals, **options)), dim=1)


def _coefficients(linear: Tensor, dt: float, state: Tensor) -> Coefficients:
    if linear.ndim < state.ndim:
        return coefficients(linear, dt).for_states(state)
    # Sample by sample, because the last digits of a function of many numbers may depend on how many they are.
    each = [coefficients(own, dt).for_states(state) for own in linear]
    return Coefficients(*(torch.stack(tables) for tables in zip(*each, strict=True)))


class Coefficients(NamedTuple):
    """The scheme's coefficients for z = L dt, each of the shape of L and the weights multiplied by dt.

    full, half: exp(z), exp(z/2).
    stage: dt (exp(z/2) - 1) / z.
    first: dt (-4 - z + exp(z) (4 - 3z + z^2)) / z^3.
    middle: 2 dt (2 + z + exp(z) (z - 2)) / z^3.
    last: dt (-4 - 3z - z^2 + exp(z) (4 - z)) / z^3.
    """

    full: Tensor
    half: Tensor
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor

    def for_states(self, state: Tensor) -> Coefficients:
        """On the device and in the precision of the states and, for complex states, repeated for their real and
        imaginary parts."""
        real = state.real.dtype if state.is_complex() else state.dtype
        tables = (c.to(state.device, real.to_complex() if c.is_complex() else real) for c in self)
        # In a product with a complex tensor, a real table would become complex: twice the work, and slower kernels.
        if state.is_complex() and not self.full.is_complex():
            tables = (c[..., None].expand(*c.shape, 2).contiguous() for c in tables)
        return Coefficients(*tables)


def coefficients(linear: Tensor, dt: float) -> Coefficients:
    """The scheme's coefficients for one step size, accurate to a few units in the 15th digit for any z = L dt."""
    z = linear.to(torch.complex128 if linear.is_complex() else torch.float64) * dt
    small = z.abs() < _SERIES_RADIUS
    # Each form gets a harmless argument where the other one is chosen.
    near, far = torch.where(small, z, 0.0), torch.where(small, 1.0, z)
    e, cubed = torch.exp(far), far**3
    closed = (
        (-4 - far + e * (4 - 3 * far + far**2)) / cubed,
        2 * (2 + far + e * (far - 2)) / cubed,
        (-4 - 3 * far - far**2 + e * (4 - far)) / cubed,
    )
    # By the power series of phi_1, phi_2, phi_3: phi_m(z) = sum of z^j / (j + m)!.
    weights = ((1, -3, 4), (0, 2, -4), (0, -1, 4))
    series = (_series(near, list(_taylor(*row))) for row in weights)
    first, middle, last = (dt * torch.where(small, s, c) for s, c in zip(series, closed, strict=True))
    # expm1 has no cancellation; at z = 0 the quotient is replaced.
    stage = dt * torch.where(z == 0, 0.5, torch.expm1(z / 2) / torch.where(z == 0, 1.0, z))
    return Coefficients(torch.exp(z), torch.exp(z / 2), stage, first, middle, last)


def _taylor(one: int, two: int, three: int) -> Iterator[float]:
    """Taylor coefficients of one phi_1 + two phi_2 + three phi_3; the bracket is an exact integer."""
    for j in range(_N_TERMS):
        yield (one * (j + 2) * (j + 3) + two * (j + 3) + three) / math.factorial(j + 3)


def _series(z: Tensor, terms: Sequence[float]) -> Tensor:
    total = torch.zeros_like(z)
    for term in reversed(terms):
        total = total * z + term
    return total


def _step(nonlinear: Nonlinearity, state: Tensor, c: Coefficients) -> Tensor:
    # Linear combinations use real numbers, and overwrite stages that are no longer needed: at a thousand modes, memory
    # traffic would otherwise cost as much as the transforms.
    as_pairs = state.is_complex() and not c.full.is_complex()  # real and imaginary parts have the same coefficients
    split = torch.view_as_real if as_pairs else _same
    joined = torch.view_as_complex if as_pairs else _same
    v = split(state)
    n_v = split(nonlinear(state))
    half_v = c.half * v
    a = torch.addcmul(half_v, c.stage, n_v)
    n_a = split(nonlinear(joined(a)))
    n_b = split(nonlinear(joined(half_v.addcmul_(c.stage, n_a))))
    result = torch.addcmul(c.full * v, c.first, n_v)
    # c = exp(z/2) a + stage (2 N(b) - N(v)), overwriting a
    a.mul_(c.half).addcmul_(c.stage, n_b, value=2).addcmul_(c.stage, n_v, value=-1)
    n_c = split(nonlinear(joined(a)))
    return joined(result.addcmul_(c.middle, n_a.add_(n_b)).addcmul_(c.last, n_c))


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _assert_finite(state: Tensor, time: float, numbers: Sequence[int] | None, remedy: str) -> None:
    finite = torch.isfinite(state).flatten(1).all(dim=1)
    if not bool(finite.all()):
        worst = int(torch.argmin(finite.int()))
        raise SolverError(
            f"Sample {worst if numbers is None else numbers[worst]} of the batch became non-finite before t={time:g}. "
            f"Lower dataset.problem.max_step, or {remedy}."
        )
