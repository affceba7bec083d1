"""Parameters of equations from the difficulties of APEBench, in one dimension.

APEBench writes an equation of its tasks, with a snapshot per unit of time, as

    u_t = a_1 u_x + a_2 u_xx + a_3 u_xxx + a_4 u_xxxx + b (u^2 / 2)_x    on [0, 1), periodic

and names it by the difficulties gamma_j = a_j N^j 2^(j-1) and delta = b M N, where N is the number of points and M the
largest initial value. They resemble the stability numbers of compact finite differences: with gamma_1 = 1, a wave
travels one cell per snapshot. Each function below returns the arguments of a problem whose snapshots are those of the
equation above. Signs are APEBench's: gamma_2 > 0 and gamma_4 < 0 damp, and delta < 0 stands for u u_x on the left.

Reference: Koehler et al. (2024), APEBench, arXiv 2411.00180, section 3 and appendix B.

>>> burgers1d(gamma2=1.5, delta=-1.5, n_points=160)
{'viscosity': 0.003125, 'interval': 0.009375}
"""

from __future__ import annotations

import math


def advection1d(*, gamma1: float, n_points: int) -> dict[str, float]:
    """Arguments of ``Advection1D`` with ``length=1``."""
    return {"speed": -_linear(1, gamma1, n_points), "interval": 1.0}


def diffusion1d(*, gamma2: float, n_points: int) -> dict[str, float]:
    """Arguments of ``Diffusion1D`` with ``length=1``."""
    return {"diffusivity": _linear(2, gamma2, n_points), "interval": 1.0}


def burgers1d(*, gamma2: float, delta: float, n_points: int, largest: float = 1.0) -> dict[str, float]:
    """Arguments of ``Burgers1D``, whose convection has the factor 1 and so fixes the unit of time."""
    interval = _convection(delta, n_points, largest)
    return {"viscosity": _linear(2, gamma2, n_points) / interval, "interval": interval}


def kdv1d(*, gamma3: float, gamma4: float, delta: float, n_points: int, largest: float = 1.0) -> dict[str, float]:
    """Arguments of ``KortewegDeVries1D``. Its factors 6 and 1 fix the units of time and length."""
    dispersion, convection = -_linear(3, gamma3, n_points), _convection(delta, n_points, largest)
    length = math.sqrt(convection / (6 * dispersion))
    interval = dispersion * length**3
    damping = -_linear(4, gamma4, n_points) * length**4 / interval
    return {"length": length, "interval": interval, "hyper_viscosity": damping}


def ks1d(*, gamma2: float, gamma4: float, delta: float, n_points: int, largest: float = 1.0) -> dict[str, float]:
    """Arguments of ``KuramotoSivashinsky1D``, conservative. Its linear factors fix the units of time and length."""
    production, damping = -_linear(2, gamma2, n_points), -_linear(4, gamma4, n_points)
    length = math.sqrt(production / damping)
    interval = production * length**2
    steepening = _convection(delta, n_points, largest) * length / interval
    return {"length": length, "interval": interval, "steepening": steepening}


def _linear(order: int, gamma: float, n_points: int) -> float:
    return gamma / (n_points**order * 2 ** (order - 1))


def _convection(delta: float, n_points: int, largest: float) -> float:
    return -delta / (largest * n_points)
