"""The Euler equations in bare NumPy: the reconstruction, fluxes and steps of ours, as one writes them down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
GAMMA = 1.4


def steps(u: Array, dt: float, h: float, n_steps: int, stages: int) -> Array:
    """Runge-Kutta steps of a fixed size from the conserved variables [4, n, n] between open ends."""
    for _ in range(n_steps):
        stage = u
        for share in {2: (1.0, 0.5), 3: (1.0, 0.25, 2 / 3)}[stages]:
            stage = (1 - share) * u + share * (stage + dt * _rate(stage, h))
        u = stage
    return u


def _rate(u: Array, h: float) -> Array:
    rho, mx, my, energy = u
    vx, vy = mx / rho, my / rho
    w = np.stack([rho, vx, vy, (GAMMA - 1) * (energy - 0.5 * (mx * vx + my * vy))])
    rows = np.pad(w, ((0, 0), (2, 2), (0, 0)), mode="edge")
    columns = np.pad(w, ((0, 0), (0, 0), (2, 2)), mode="edge")
    difference = rows[:, 1:] - rows[:, :-1]
    half = _half(difference[:, :-1], difference[:, 1:])
    flux = _hllc(rows[:, 1:-2] + half[:, :-1], rows[:, 2:-1] - half[:, 1:], 1, 2)
    rate = (flux[:, :-1] - flux[:, 1:]) / h
    difference = columns[:, :, 1:] - columns[:, :, :-1]
    half = _half(difference[:, :, :-1], difference[:, :, 1:])
    flux = _hllc(columns[:, :, 1:-2] + half[:, :, :-1], columns[:, :, 2:-1] - half[:, :, 1:], 2, 1)
    return rate + (flux[:, :, :-1] - flux[:, :, 1:]) / h


def _half(a: Array, b: Array) -> Array:
    product = np.maximum(a * b, 0)
    return np.divide(product, a + b, out=np.zeros_like(product), where=product > 0)


def _hllc(left: Array, right: Array, normal: int, along: int) -> Array:
    rho_l, u_l, p_l = left[0], left[normal], left[3]
    rho_r, u_r, p_r = right[0], right[normal], right[3]
    square_l, square_r = GAMMA * p_l / rho_l, GAMMA * p_r / rho_r
    root_l, root_r = np.sqrt(rho_l), np.sqrt(rho_r)
    share = root_l / (root_l + root_r)
    jump = u_r - u_l
    mean = u_r - share * jump
    spread = np.sqrt(square_r + share * (square_l - square_r) + 0.5 * share * (1 - share) * jump * jump)
    s_l, s_r = np.minimum(u_l - np.sqrt(square_l), mean - spread), np.maximum(u_r + np.sqrt(square_r), mean + spread)
    q_l, q_r = rho_l * (s_l - u_l), rho_r * (s_r - u_r)
    contact = (p_r - p_l + q_l * u_l - q_r * u_r) / (q_l - q_r)
    from_left = contact >= 0
    rho, u, v, p = (np.where(from_left, left[i], right[i]) for i in (0, normal, along, 3))
    s, q = np.where(from_left, s_l, s_r), np.where(from_left, q_l, q_r)
    energy = p / (GAMMA - 1) + 0.5 * rho * (u * u + v * v)
    gap = s - contact
    rho_star, p_star = q / gap, p + q * (contact - u)
    energy_star = (energy * (s - u) + p_star * contact - p * u) / gap
    s = np.where(from_left, np.minimum(s_l, 0), np.maximum(s_r, 0))
    mass = rho * u + s * (rho_star - rho)
    flux = np.empty_like(left)
    flux[0] = mass
    flux[normal] = rho * u * u + p + s * (rho_star * contact - rho * u)
    flux[along] = mass * v
    flux[3] = u * (energy + p) + s * (energy_star - energy)
    return flux
