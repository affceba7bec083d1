"""The exact solution of the Riemann problem of an ideal gas, and problems with known difficulties.

Toro (2009), Riemann Solvers and Numerical Methods for Fluid Dynamics, chapter 4. After Sod's tube come the
five tests of tables 4.1 and 6.1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import root_scalar

State = tuple[float, float, float]  # density, velocity, pressure


class Tube(NamedTuple):
    """Two states, the place of the cut between them on [0, 1], and the time at which they are compared."""

    left: State
    right: State
    cut: float
    time: float


TUBES = {
    "sod": Tube((1.0, 0.0, 1.0), (0.125, 0.0, 0.1), 0.5, 0.2),
    "sod_with_a_flow": Tube((1.0, 0.75, 1.0), (0.125, 0.0, 0.1), 0.3, 0.2),
    "two_rarefactions": Tube((1.0, -2.0, 0.4), (1.0, 2.0, 0.4), 0.5, 0.15),
    "blast": Tube((1.0, 0.0, 1000.0), (1.0, 0.0, 0.01), 0.5, 0.012),
    "three_discontinuities": Tube((5.99924, 19.5975, 460.894), (5.99242, -6.19633, 46.0950), 0.4, 0.035),
    "slow_contact": Tube((1.0, -19.59745, 1000.0), (1.0, -19.59745, 0.01), 0.8, 0.012),
}


def exact(left: State, right: State, speeds: NDArray[np.float64], gamma: float = 1.4) -> NDArray[np.float64]:
    """Density, velocity and pressure on the rays x / t, [3, *speeds]. Not if they leave a vacuum."""

    def change(p: float, side: State) -> float:
        """How much the velocity differs from that of a side where the pressure is p (eqs. 4.6 and 4.7)."""
        rho, _, p_k = side
        if p > p_k:
            return (p - p_k) * np.sqrt(2 / rho / ((gamma + 1) * p + (gamma - 1) * p_k))
        return 2 * np.sqrt(gamma * p_k / rho) / (gamma - 1) * ((p / p_k) ** ((gamma - 1) / (2 * gamma)) - 1)

    def excess(p: float) -> float:
        return change(p, left) + change(p, right) + right[1] - left[1]

    p = root_scalar(excess, bracket=(1e-12, 1e6), xtol=1e-14, rtol=1e-14).root
    u = (left[1] + right[1] + change(p, right) - change(p, left)) / 2

    def beside(side: State, xi: NDArray[np.float64]) -> NDArray[np.float64]:
        """The solution to the left of the contact; ``side`` is the state far left."""
        rho, u_k, p_k = side
        c = np.sqrt(gamma * p_k / rho)
        ratio, share = p / p_k, (gamma - 1) / (gamma + 1)
        outer = np.array(side)[:, None]
        if ratio > 1:
            inner = np.array([rho * (ratio + share) / (share * ratio + 1), u, p])[:, None]
            shock = u_k - c * np.sqrt((gamma + 1) / (2 * gamma) * ratio + (gamma - 1) / (2 * gamma))
            return np.where(xi < shock, outer, inner)
        inner = np.array([rho * ratio ** (1 / gamma), u, p])[:, None]
        fan = 2 / (gamma + 1) + share / c * (u_k - xi)
        fan = np.maximum(fan, 1e-12)  # beyond the fan it isn't used
        within = np.array([rho * fan ** (2 / (gamma - 1)), 2 / (gamma + 1) * (c + (gamma - 1) / 2 * u_k + xi), 0 * xi])
        within[2] = p_k * fan ** (2 * gamma / (gamma - 1))
        tail = u - c * ratio ** ((gamma - 1) / (2 * gamma))
        return np.where(xi < u_k - c, outer, np.where(xi > tail, inner, within))

    mirror = np.array([1.0, -1.0, 1.0])[:, None]
    u_star, xi = u, speeds.ravel()
    from_left = beside(left, xi)
    u = -u  # the right side, seen in a mirror
    from_right = mirror * beside((right[0], -right[1], right[2]), -xi)
    return np.where(xi < u_star, from_left, from_right).reshape(3, *speeds.shape)
