"""Turbulence on a small grid, in which the last bits of a float64 reach those of a float32.

python -m helpers.turbulence FILE    # the vorticity as .npy
"""

from __future__ import annotations

import math
import sys

import numpy as np
from numpy.typing import NDArray

from data_gen.generation import certificate
from data_gen.generation.random_streams import generator
from data_gen.problems.ns2d import NavierStokes2D, SinusoidalForcing
from data_gen.random_fields import VortexBandField

_LENGTH = 2 * math.pi
# Kolmogorov flow, long enough before t = 0 that rounding errors of 1e-16 grow to 1e-12.
PROBLEM = NavierStokes2D(
    viscosity=3e-3,
    resolution=32,
    oversampling=2,
    interval=0.1,
    n_snapshots=10,
    forcing=SinusoidalForcing((0, 4), 0.0, -4.0),
    drag=0.1,
    length=_LENGTH,
    initial=VortexBandField(peak=4.0, tau=1.0, kinetic_energy=1.5, length=_LENGTH),
    warm_up=12.0,
)


def solve() -> NDArray[np.float32]:
    """Vorticity, [sample, time, x, y]."""
    samples = PROBLEM.simulate([generator(0, "test", index) for index in range(4)])
    return samples.trajectory[:, :, 0].astype(np.float32)


def error() -> float:
    """Measured on the first sample."""
    return float(np.max(certificate.measure(PROBLEM, *([generator(0, "test", 0)] for _ in range(2)))))


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    np.save(sys.argv[1], solve())
