"""Fields on a box with walls, as cosine series: zero normal derivative on the boundary (Neumann).

The grid is closed: n nodes i L / (n - 1) per axis, both walls included. A field is the sum over k of
u_hat[k] cos(pi k_1 x_1 / L) cos(pi k_2 x_2 / L) ...; it is even about each wall. ``CosineSpace`` has the interface of
``data_gen.spectral.Space``, so semilinear equations are solved in either.
"""

from __future__ import annotations

import functools
import math
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_gen.spectral import fast_length


class CosineSpace:
    """Fields on a cube with walls as the real coefficients of cosine series, [..., K+1, ..., K+1].

    K is the number of intervals of the grid, so that all its nodal values are represented.

    Args:
        resolution: nodes per axis of the grid that holds the fields.
        n_dims: dimensions.
        length: side of the cube.
        degree: of the polynomial N(u). Products are computed on a grid of more than (degree + 1) K / 2 intervals, where
            the aliases of wavenumbers up to K fall onto larger ones.
        dtype: of the symbol of the Laplacian, that of the fields.
    """

    def __init__(
        self, resolution: int, n_dims: int, length: float, degree: int, dtype: torch.dtype = torch.float64
    ) -> None:
        self.k_max = resolution - 1
        self.n_dims = n_dims
        self.shape = (resolution,) * n_dims
        self.length = length
        self._dtype = dtype
        # Twice as many points as intervals are transformed.
        self.product_resolution = 1 + fast_length(((degree + 1) * self.k_max) // 2 + 1)

    @cached_property
    def wavenumbers(self) -> tuple[Tensor, ...]:
        """Integer wavenumbers along each axis, shaped so that they broadcast against each other. A wave of wavenumber
        1 is half a wave long."""
        k = torch.arange(self.k_max + 1, dtype=torch.float64, device=torch.get_default_device())
        return tuple(
            k.reshape([-1 if axis == other else 1 for other in range(self.n_dims)]) for axis in range(self.n_dims)
        )

    @cached_property
    def laplacian(self) -> Tensor:
        """Symbol of the Laplacian."""
        squares: list[Tensor] = [(math.pi / self.length * k) ** 2 for k in self.wavenumbers]
        return -functools.reduce(torch.add, squares).to(self._dtype)

    @cached_property
    def multiplicity(self) -> Tensor:
        """Mean square over the box of the wave of each coefficient."""
        return functools.reduce(torch.mul, [torch.where(k > 0, 0.5, 1.0).double() for k in self.wavenumbers])

    @cached_property
    def upper_third(self) -> Tensor:
        """1 where any wavenumber is above 2/3 K, 0 elsewhere."""
        above = [k > 2 / 3 * self.k_max for k in self.wavenumbers]
        return functools.reduce(torch.logical_or, above).double()

    def values(self, u_hat: Tensor, resolution: int | None = None) -> Tensor:
        """Values on the grid for products, or on one of ``resolution`` nodes per axis.

        On a grid too coarse for all coefficients, only those that it holds are used.
        """
        n = self.product_resolution if resolution is None else resolution
        u = u_hat
        for axis in range(-self.n_dims, 0):
            u = _values(u.movedim(axis, -1), n).movedim(-1, axis)
        return u

    def coefficients(self, u: Tensor) -> Tensor:
        """Coefficients of values on any closed grid; zero where the grid holds fewer wavenumbers."""
        u_hat = u
        for axis in range(-self.n_dims, 0):
            u_hat = _coefficients(u_hat.movedim(axis, -1), self.k_max + 1).movedim(-1, axis)
        return u_hat.contiguous()

    def moved(self, u_hat: Tensor, other: CosineSpace) -> Tensor:
        """The same field in another space, padded with zeros or cut off."""
        result = u_hat.new_zeros(*u_hat.shape[: -self.n_dims], *other.shape)
        part = (..., *[slice(0, min(self.k_max, other.k_max) + 1)] * self.n_dims)
        result[part] = u_hat[part]
        return result


# The even extension of n nodes is periodic with 2 (n - 1) points; its Fourier coefficients are real, and half those of
# the cosines. The last cosine of a grid, which is 1 and -1 in turn, has no second half.


def _values(u_hat: Tensor, n: int) -> Tensor:
    """Values at n nodes of the cosine series along the last axis."""
    half = u_hat[..., :n] / 2
    half[..., 0] *= 2
    if half.shape[-1] == n:
        half[..., -1] *= 2
    padded = torch.nn.functional.pad(half, (0, n - half.shape[-1]))
    return torch.fft.irfft(torch.complex(padded, torch.zeros_like(padded)), 2 * (n - 1), norm="forward")[..., :n]


def _coefficients(u: Tensor, n_kept: int) -> Tensor:
    """The first coefficients of the cosine series through values at the nodes along the last axis."""
    even = torch.cat([u, u[..., 1:-1].flip(-1)], dim=-1)
    u_hat = torch.fft.rfft(even, norm="forward").real * 2
    u_hat[..., 0] /= 2
    u_hat[..., -1] /= 2
    return torch.nn.functional.pad(u_hat[..., :n_kept], (0, max(0, n_kept - u.shape[-1])))


class WallDerivatives(NamedTuple):
    """Matrices [n, n] that differentiate values at n closed nodes exactly, if they are those of cosine or sine series.

    of_cosines: of a field with zero slope at the walls, such as a pressure. The result vanishes there.
    of_sines: of a field that vanishes at the walls, such as a velocity normal to them.

    With the weights w of the trapezoidal rule, w of_sines = -(w of_cosines)^T on fields that vanish at the walls: what
    is gained by one is lost by the other (summation by parts).
    """

    of_cosines: NDArray[np.float64]
    of_sines: NDArray[np.float64]


@functools.lru_cache(maxsize=8)
def wall_derivatives(n: int, length: float) -> WallDerivatives:
    """Derivatives on n closed nodes of [0, length]."""
    k = np.arange(n)
    angle = np.pi / (n - 1) * (np.outer(k, k) % (2 * (n - 1)))
    cosines, sines, kappa = np.cos(angle), np.sin(angle), np.pi / length * k
    sines[:, [0, -1]] = 0  # the last sine vanishes at all nodes
    sines[[0, -1]] = 0
    weights = np.where((k == 0) | (k == n - 1), 0.5, 1.0)
    to_cosines = 2 / (n - 1) * weights[:, None] * cosines * weights
    to_sines = 2 / (n - 1) * sines
    return WallDerivatives(-(sines * kappa) @ to_cosines, (cosines * kappa) @ to_sines)
