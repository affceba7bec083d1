"""Diffusion with a nonlinear storage on an interval: m(u)_t = D u_xx, implicit and conservative.

    u = 1 at x = 0,    -D u_x = u at x = length

Finite volumes around the nodes of a closed grid. In time, the three-stage diagonally implicit Runge-Kutta method of
Alexander (1977), Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s, SIAM J. Numer. Anal. 14: third order,
L-stable and stiffly accurate, so a start that jumps isn't a problem. It steps the stored quantity m, so what flows in
and doesn't flow out is stored, up to the tolerance of Newton's method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from jaxtyping import Float
from numpy.typing import NDArray

from data_gen.spec import SolverError

# Root of x^3 - 3 x^2 + 3/2 x - 1/6 between 1/6 and 1/2.
_GAMMA = 0.4358665215084590
_FIRST = -(6 * _GAMMA**2 - 16 * _GAMMA + 1) / 4
_STAGES = ((_GAMMA,), ((1 - _GAMMA) / 2, _GAMMA), (_FIRST, 1 - _GAMMA - _FIRST, _GAMMA))

_MOST_ITERATIONS = 50
# Newton's method stops at an update below this, where u = 1 at the inflow; in single precision, at one that rounding
# allows.
_UPDATE, _UPDATES_OF_ROUNDING = 1e-10, 64


class Storage(NamedTuple):
    """m(u) and its derivative, of arrays [sample, node]; m increases."""

    of: Callable[[NDArray[np.floating]], NDArray[np.floating]]
    slope: Callable[[NDArray[np.floating]], NDArray[np.floating]]


class State(NamedTuple):
    """Where a solution has come to.

    values: u at the nodes, [sample, n].
    imbalance: |stored - inflow + outflow| since the start, relative to inflow and outflow together, [sample].
    iterations: of Newton's method since the start, [sample].
    """

    values: Float[NDArray, "sample n"]
    imbalance: NDArray[np.float64]
    iterations: NDArray[np.int64]


def march(
    storage: Storage,
    diffusivity: NDArray[np.floating],
    start: NDArray[np.floating],
    length: float,
    intervals: Sequence[Sequence[float]],
) -> Iterator[State]:
    """The states after each of the given intervals, one after another. No operation mixes samples.

    Args:
        storage: m(u).
        diffusivity: D, [sample].
        start: u at the nodes i length / (n - 1), [sample, n], float64 or float32, the precision of the arithmetic. At
            the first node u is 1 whatever is given.
        length: of the interval.
        intervals: the steps of every interval between outputs (``data_gen.solvers.etdrk4.graded_steps``).

    Raises:
        SolverError: Newton's method doesn't converge.
    """
    u = start.copy()
    u[:, 0] = 1
    h = length / (u.shape[1] - 1)
    volumes = np.full(u.shape[1] - 1, h, dtype=u.dtype)
    volumes[-1] /= 2
    conductance = (diffusivity / h).astype(u.dtype)[:, None]
    inflow = np.zeros(len(u))
    outflow, iterations = np.zeros_like(inflow), np.zeros(len(u), dtype=np.int64)

    def fluxes(u: NDArray[np.floating]) -> NDArray[np.floating]:
        """Through the faces between the nodes, and out of the end, [sample, n]."""
        return np.concatenate([conductance * (u[:, :-1] - u[:, 1:]), u[:, -1:]], axis=1)

    stored = storage.of(u[:, 1:])
    at_start = _total(stored, volumes)
    inflow, outflow, iterations = np.zeros(len(u)), np.zeros(len(u)), np.zeros(len(u), dtype=np.int64)
    now = 0.0
    for steps in intervals:
        for dt in steps:
            through: list[NDArray[np.floating]] = []
            known = stored
            for weights in _STAGES:
                known = stored.copy()
                for weight, flux in zip(weights, through, strict=False):
                    known += weight * dt * _gain(flux, volumes)
                u, count = _stage(storage, conductance, volumes, weights[-1] * dt, known, u)
                iterations += count
                _assert_solved(count, u, now + dt)
                through.append(fluxes(u))
            # The last stage is the step. What is stored follows from the fluxes, so that none is lost.
            stored = known + _GAMMA * dt * _gain(through[-1], volumes)
            for weight, flux in zip(_STAGES[-1], through, strict=True):
                inflow += weight * dt * flux[:, 0]
                outflow += weight * dt * flux[:, -1]
            now += dt
        held = _total(storage.of(u[:, 1:]), volumes)
        imbalance = np.abs(held - at_start - inflow + outflow) / (np.abs(inflow) + np.abs(outflow))
        yield State(u.copy(), imbalance, iterations.copy())


def _gain(flux: NDArray[np.floating], volumes: NDArray[np.floating]) -> NDArray[np.floating]:
    return (flux[:, :-1] - flux[:, 1:]) / volumes


def _total(stored: NDArray[np.floating], volumes: NDArray[np.floating]) -> NDArray[np.float64]:
    return (stored * volumes).sum(axis=1, dtype=np.float64)


def _stage(
    storage: Storage,
    conductance: NDArray[np.floating],
    volumes: NDArray[np.floating],
    dt: float,
    known: NDArray[np.floating],
    guess: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.int64]]:
    """Solve m(u) = known + dt gain(u) by Newton's method; the number of iterations is -1 where it fails."""
    n_samples, n = known.shape
    u, counts = guess.copy(), np.full(n_samples, -1)
    # The Jacobian's bands, [3, sample, node]; samples are one long tridiagonal system, whose blocks aren't coupled.
    bands = np.zeros((3, n_samples, n), dtype=u.dtype)
    share = dt * conductance / volumes
    bands[0, :, 1:] = -share[:, :-1]
    bands[2, :, :-1] = -share[:, 1:]
    diagonal = 2 * share
    diagonal[:, -1] = share[:, -1] + dt / volumes[-1]
    tolerance = max(_UPDATE, _UPDATES_OF_ROUNDING * float(np.finfo(u.dtype).eps))
    for iteration in range(1, _MOST_ITERATIONS + 1):
        falls = conductance * (u[:, :-1] - u[:, 1:])
        gain = np.concatenate([falls[:, :-1] - falls[:, 1:], falls[:, -1:] - u[:, -1:]], axis=1) / volumes
        lacking = known + dt * gain - storage.of(u[:, 1:])
        bands[1] = storage.slope(u[:, 1:]) + diagonal
        update = scipy.linalg.solve_banded((1, 1), bands.reshape(3, -1), lacking.ravel()).reshape(lacking.shape)
        going = counts < 0
        u[going, 1:] += update[going]
        counts[going & (np.abs(update).max(axis=1) < tolerance)] = iteration
        if (counts > 0).all():
            break
    return u, counts


def _assert_solved(counts: NDArray[np.int64], u: NDArray[np.floating], time: float) -> None:
    if (counts < 0).any():
        worst = int(np.argmin(counts))
        raise SolverError(
            f"Newton's method didn't converge for sample {worst} of the batch before t={time:g}, where u is between "
            f"{u[worst].min():.3g} and {u[worst].max():.3g}. Lower dataset.problem.first_step and max_step."
        )
