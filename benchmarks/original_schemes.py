"""The schemes behind the field's published data, as described in papers and scripts. Ours are timed against them.

Written from the mathematics, and optimised as carefully as ours: whole batches, in-place operations, nothing computed
twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from data_gen.solvers import etdrk4


def vorticity_step(
    n: int, viscosity: float, dt: float, dtype: torch.dtype, *, real: bool
) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    """Crank-Nicolson for diffusion and explicit Euler for advection, dealiased by the 2/3 rule on the product.

    Li et al. (2021), section 5.3.

    Args:
        n: points per axis.
        viscosity: nu.
        dt: the step.
        dtype: float32 or float64.
        real: False transforms as the released script does: four complex inverse transforms of whole spectra and one
            complex forward transform per step. True uses real transforms of half spectra, a possible improvement.

    Returns:
        The step, which maps spectra to the next ones, and the transform of vorticities [sample, n, n] to spectra.
    """
    k1 = 2 * math.pi * torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None]
    k2 = 2 * math.pi * torch.arange(n // 2 + 1, dtype=torch.float64)[None, :] if real else k1.T
    squared = k1**2 + k2**2
    inverse = torch.where(squared > 0, 1 / squared.clamp(min=1), 0.0)
    keep = (k1.abs() <= 2 * math.pi * n / 3) & (k2.abs() <= 2 * math.pi * n / 3)
    complex_type = torch.complex64 if dtype == torch.float32 else torch.complex128
    to_u, to_v, to_x, to_y = (
        torch.complex(torch.zeros_like(symbol), symbol).to(complex_type)
        for symbol in (k2 * inverse, -k1 * inverse, k1.expand_as(squared), k2.expand_as(squared))
    )
    implicit = 1 + dt * viscosity / 2 * squared
    before = ((2 - implicit) / implicit).to(dtype)
    weight = (dt * keep / implicit).to(dtype)
    x = torch.arange(n, dtype=torch.float64) / n
    phase = 2 * math.pi * (x[:, None] + x[None, :])

    def forward(w: Tensor) -> Tensor:
        return torch.fft.rfft2(w) if real else torch.fft.fft2(w)

    def backward(w_hat: Tensor) -> Tensor:
        return torch.fft.irfft2(w_hat, s=(n, n)) if real else torch.fft.ifft2(w_hat).real

    forcing = (dt * forward(0.1 * (torch.sin(phase) + torch.cos(phase))) / implicit).to(complex_type)

    def step(w_hat: Tensor) -> Tensor:
        u, v, w_x, w_y = (backward(symbol * w_hat) for symbol in (to_u, to_v, to_x, to_y))
        advection = forward((u * w_x).addcmul_(v, w_y))
        return (before * w_hat).sub_(weight * advection).add_(forcing)

    return step, forward


def burgers_stepper(n: int, viscosity: float, dt: float) -> Callable[[Tensor, int], Tensor]:
    """ETDRK4 with a fixed step on n points, the scheme of the published data of Burgers' equation.

    These were made with Chebfun, on 8192 points with dt = 1e-4, and without dealiasing, as here. The function returned
    maps spectra [sample, n/2 + 1] to those after a given number of steps.
    """
    k = 2 * math.pi * torch.arange(n // 2 + 1, dtype=torch.float64)
    half_derivative = torch.complex(torch.zeros_like(k), -k / 2)

    def nonlinear(u_hat: Tensor) -> Tensor:
        u = torch.fft.irfft(u_hat, n, norm="forward")
        return torch.fft.rfft(u.mul_(u), norm="forward").mul_(half_derivative)

    def run(u_hat: Tensor, n_steps: int) -> Tensor:
        return etdrk4.integrate(-viscosity * k**2, nonlinear, u_hat, [[dt] * n_steps])[:, -1]

    return run
