"""Chebyshev expansion of exp(t A) for linear waves du/dt = A u, whose energy doesn't change.

In some inner product A is skew-symmetric, so its eigenvalues are imaginary and bounded by a radius. On [-i radius,
i radius] the exponential has a series in Chebyshev polynomials, whose coefficients are Bessel functions. They fall
faster than any power once their number exceeds z = t radius. So about z + 10 products with A give any time to rounding,
at most one per 1 / radius of time: where a time step is limited by stability, this is about as many as a leapfrog
scheme takes. No step can be unstable, and the error in time is known before.

References: Tal-Ezer & Kosloff (1984), An accurate and efficient scheme for propagating the time dependent Schroedinger
equation, J. Chem. Phys. 81; Tal-Ezer (1986), Spectral methods in time for hyperbolic equations, SIAM J. Numer. Anal.
23.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor


def n_terms(z: float, tolerance: float) -> int:
    """Terms of the series whose rest is below ``tolerance``, relative to the norm of the state; at least 2."""
    # |J_k(z)| < (e z / 2 k)^k beyond k = z, so the rest is about its first terms.
    candidates = np.arange(math.ceil(z + 20 + 12 * z ** (1 / 3) - 2 * math.log10(tolerance)))
    rest = np.cumsum(np.abs(2 * scipy.special.jv(candidates, z))[::-1])[::-1]
    return max(2, int(np.count_nonzero(rest > tolerance)))


def advance(
    rate: Callable[[Tensor], Tensor], state: Tensor, duration: float, radii: Sequence[float], tolerance: float
) -> tuple[Tensor, NDArray[np.int64]]:
    """The states exp(duration A) u.

    Args:
        rate: A u for states [sample, ...], linear; no operation mixes samples.
        state: u, [sample, ...], float64 or float32.
        duration: of the step.
        radii: bound of the eigenvalues of A, for each sample.
        tolerance: of the norm of the error, relative to that of u, both in A's inner product.

    Returns:
        States, and the number of products with A for each sample.
    """
    counts = np.array([n_terms(radius * duration, tolerance) for radius in radii])
    table = np.zeros((counts.max(), len(counts)))  # 0 beyond a sample's own terms
    for sample, (radius, count) in enumerate(zip(radii, counts, strict=True)):
        table[:count, sample] = 2 * scipy.special.jv(np.arange(count), radius * duration)
    table[0] /= 2
    shape = (-1, len(counts), *[1] * (state.ndim - 1))
    weights = torch.as_tensor(table).to(state).reshape(shape)
    scale = torch.as_tensor(1 / np.asarray(radii)).to(state).reshape(shape[1:])
    before, now = state, scale * rate(state)
    total = weights[0] * before + weights[1] * now
    for weight in weights[2:]:
        # exp(i z y) = sum of J_k(z) i^k T_k(y): the factors i^k turn the minus sign of T's recurrence into a plus.
        before, now = now, before.addcmul(scale, rate(now), value=2)
        total.addcmul_(weight, now)
    return total, counts - 1
