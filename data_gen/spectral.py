"""Fourier coefficients of real periodic fields, in compact form.

A real field with wavenumbers |k_i| <= K is a half spectrum of 2K+1 by K+1 complex numbers (2D): rows k1 = 0..K, -K..-1,
columns k2 = 0..K. In one dimension (functions that end in _1d) it is the K+1 numbers of k = 0..K. Coefficients are
those of the Fourier series (transforms normalised "forward"), so they don't depend on the grid. To change the
resolution, they are padded with zeros or cut off.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from functools import cached_property

import scipy.fft
import torch
from jaxtyping import Complex, Float
from torch import Tensor


def max_wavenumber(resolution: int, *, dealiased: bool) -> int:
    """Largest wavenumber K kept on a grid of ``resolution`` points.

    Dealiased (2/3 rule): the largest K < n/3, so that products of two kept modes alias onto dropped modes only.
    Otherwise: the largest K < n/2. This leaves out the Nyquist mode of an even grid, because the grid can't hold its
    phase.
    """
    return (resolution - 1) // 3 if dealiased else (resolution - 1) // 2


def wavenumbers(k_max: int, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Integer wavenumbers (k1 [2K+1, 1], k2 [1, K+1]) of the compact half spectrum, float64."""
    k = torch.arange(k_max + 1, dtype=torch.float64, device=device)
    rows = torch.cat([k, -k[1:].flip(0)])
    return rows[:, None], k[None, :]


def to_grid(u_hat: Complex[Tensor, "... rows columns"], resolution: int) -> Float[Tensor, "... resolution resolution"]:
    """Values on the n x n grid of the field with compact coefficients ``u_hat``.

    On a grid too coarse for all coefficients, those with |k_i| < n/2 are used, so nothing is aliased.
    """
    k_stored = u_hat.shape[-1] - 1
    k_max = min(k_stored, max_wavenumber(resolution, dealiased=False))
    full = u_hat.new_zeros(*u_hat.shape[:-2], resolution, resolution // 2 + 1)
    full[..., : k_max + 1, : k_max + 1] = u_hat[..., : k_max + 1, : k_max + 1]
    if k_max:
        full[..., -k_max:, : k_max + 1] = u_hat[..., -k_max:, : k_max + 1]
    return torch.fft.irfft2(full, s=(resolution, resolution), norm="forward")


def from_grid(u: Float[Tensor, "... n n"], k_max: int) -> Complex[Tensor, "... rows columns"]:
    """Compact coefficients |k_i| <= k_max of grid values; zero where the grid holds fewer wavenumbers."""
    full = torch.fft.rfft2(u, norm="forward")
    held = min(k_max, max_wavenumber(u.shape[-1], dealiased=False))
    compact = full.new_zeros(*u.shape[:-2], 2 * k_max + 1, k_max + 1)
    compact[..., : held + 1, : held + 1] = full[..., : held + 1, : held + 1]
    if held:
        compact[..., -held:, : held + 1] = full[..., -held:, : held + 1]
    return compact


def centred(u_hat: Complex[Tensor, "... rows columns"]) -> Complex[Tensor, "... rows columns"]:
    """The rows in the order k1 = -K..K, so that k and -k are opposite each other."""
    k_max = u_hat.shape[-1] - 1
    return torch.cat([u_hat[..., k_max + 1 :, :], u_hat[..., : k_max + 1, :]], dim=-2)


def compact(u_hat: Complex[Tensor, "... rows columns"]) -> Complex[Tensor, "... rows columns"]:
    """Inverse of ``centred``."""
    k_max = u_hat.shape[-1] - 1
    return torch.cat([u_hat[..., k_max:, :], u_hat[..., :k_max, :]], dim=-2)


def pad(u_hat: Complex[Tensor, "... rows columns"], k_max: int) -> Complex[Tensor, "... more more"]:
    """The same field padded with zeros to wavenumbers up to ``k_max``, which must be at least those it has."""
    held = u_hat.shape[-1] - 1
    wide = u_hat.new_zeros(*u_hat.shape[:-2], 2 * k_max + 1, k_max + 1)
    wide[..., : held + 1, : held + 1] = u_hat[..., : held + 1, :]
    if held:
        wide[..., -held:, : held + 1] = u_hat[..., -held:, :]
    return wide


def tail(u_hat: Complex[Tensor, "sample rows columns"]) -> Float[Tensor, " sample"]:
    """Share of the variance in the upper third of the kept wavenumbers (the larger of |k1|, |k2| above 2/3 K)."""
    k_max = u_hat.shape[-1] - 1
    k1, k2 = wavenumbers(k_max, u_hat.device)
    energy = u_hat.abs().square() * torch.where(k2 > 0, 2.0, 1.0)  # a column k2 > 0 stands for -k2, too
    upper = torch.maximum(k1.abs(), k2.abs()) > 2 / 3 * k_max
    total = energy.sum(dim=(-2, -1)) - energy[..., 0, 0]
    return (energy * upper).sum(dim=(-2, -1)) / total.clamp(min=torch.finfo(total.dtype).tiny)


def wavenumbers_1d(k_max: int, device: torch.device | str = "cpu") -> Float[Tensor, " modes"]:
    """Integer wavenumbers 0 ... k_max, float64."""
    return torch.arange(k_max + 1, dtype=torch.float64, device=device)


def to_grid_1d(u_hat: Complex[Tensor, "... modes"], resolution: int) -> Float[Tensor, "... resolution"]:
    """Values on ``resolution`` points of the field with coefficients ``u_hat``. On a grid too coarse for all of them,
    those with |k| < n/2 are used."""
    k_max = min(u_hat.shape[-1] - 1, max_wavenumber(resolution, dealiased=False))
    return torch.fft.irfft(u_hat[..., : k_max + 1], resolution, norm="forward")


def from_grid_1d(u: Float[Tensor, "... n"], k_max: int) -> Complex[Tensor, "... modes"]:
    """Coefficients k = 0 ... k_max of grid values; zero where the grid holds fewer wavenumbers."""
    held = min(k_max, max_wavenumber(u.shape[-1], dealiased=False))
    u_hat = torch.fft.rfft(u, norm="forward")[..., : held + 1]
    return torch.nn.functional.pad(u_hat, (0, k_max - held))


# Arrays for padding that a space keeps: one per axis, for two numbers of fields.
_KEPT = 6


class Space:
    """Real periodic fields on a cube as compact Fourier coefficients, [..., K+1, 2K+1, ..., 2K+1].

    The first axis holds the wavenumbers 0 ... K, the others 0 ... K, -K ... -1. K is the largest wavenumber below half
    the resolution, so that a coefficient never loses its phase.

    Args:
        resolution: points per axis of the grid that holds the fields.
        n_dims: dimensions.
        length: side of the cube.
        degree: of the polynomial N(u). Products are computed on a grid of more than (degree + 1) K points, where the
            aliases of wavenumbers up to K fall onto larger ones.
        dtype: of the symbols of derivatives, that of the fields.
    """

    def __init__(
        self, resolution: int, n_dims: int, length: float, degree: int, dtype: torch.dtype = torch.float64
    ) -> None:
        self.k_max = max_wavenumber(resolution, dealiased=False)
        self.n_dims = n_dims
        self._dtype = dtype
        self.shape = (self.k_max + 1, *[2 * self.k_max + 1] * (n_dims - 1))
        self.length = length
        self.product_resolution = 4 * fast_length(-(-((degree + 1) * self.k_max + 1) // 4))
        self._padded: dict[tuple[int, ...], tuple[Tensor, Tensor, Tensor]] = {}

    @cached_property
    def wavenumbers(self) -> tuple[Tensor, ...]:
        """Integer wavenumbers along each axis, shaped so that they broadcast against each other."""
        k = torch.arange(self.k_max + 1, dtype=torch.float64, device=torch.get_default_device())
        both = torch.cat([k, -k[1:].flip(0)])
        shapes = [[-1 if axis == other else 1 for other in range(self.n_dims)] for axis in range(self.n_dims)]
        return tuple((both if axis else k).reshape(shapes[axis]) for axis in range(self.n_dims))

    @cached_property
    def derivatives(self) -> tuple[Tensor, ...]:
        """Symbols of the first derivatives: i 2 pi k / length along each axis."""
        return tuple((2j * math.pi / self.length * k).to(self._dtype.to_complex()) for k in self.wavenumbers)

    @cached_property
    def laplacian(self) -> Tensor:
        """Symbol of the Laplacian: minus the squared length of the wave vector."""
        squares: list[Tensor] = [(2 * math.pi / self.length * k) ** 2 for k in self.wavenumbers]
        return -functools.reduce(torch.add, squares).to(self._dtype)

    @cached_property
    def multiplicity(self) -> Tensor:
        """How many wave vectors a coefficient stands for: k and -k where the first wavenumber is above 0."""
        return torch.where(self.wavenumbers[0] > 0, 2.0, 1.0).double()

    @cached_property
    def upper_third(self) -> Tensor:
        """1 where any wavenumber is above 2/3 K, 0 elsewhere."""
        above = [k.abs() > 2 / 3 * self.k_max for k in self.wavenumbers]
        return functools.reduce(torch.logical_or, above).double()

    def derivative(self, u_hat: Tensor, axis: int) -> Tensor:
        """Coefficients of the derivative along an axis."""
        return u_hat * self.derivatives[axis]

    # Back to values, one axis is transformed after another, so lines of zeros aren't transformed. Each is moved to the
    # end first, because transforms of contiguous numbers are the fastest. This leaves the axes of the grid in the
    # reverse order in memory. Functions of values keep that order, and the transform of their results undoes it.

    def values(self, u_hat: Tensor, resolution: int | None = None) -> Tensor:
        """Values on the grid for products, or on one of ``resolution`` points per axis.

        On a grid too coarse for all coefficients, only wavenumbers below half its points are used.
        """
        n = self.product_resolution if resolution is None else resolution
        k_max = min(self.k_max, max_wavenumber(n, dealiased=False))
        padded = self._kept_zeros if resolution is None else _zeros
        u = u_hat if k_max == self.k_max else u_hat.narrow(-self.n_dims, 0, k_max + 1)
        if self.n_dims < 3:
            return self._reversed(torch.fft.irfft(self._half(u, n, k_max, padded), n, norm="forward"))
        # Padded fields are large in three dimensions, so there is one at a time.
        result = torch.empty((*u.shape[:-3], n, n, n), dtype=u.real.dtype, device=u.device)
        for field, own in zip(result.view(-1, n, n, n), u.reshape(-1, *u.shape[-3:]), strict=True):
            torch.fft.irfft(self._half(own, n, k_max, padded), n, norm="forward", out=field)
        return self._reversed(result)

    def _half(self, u: Tensor, n: int, k_max: int, padded: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Tensor:
        """Values along all axes but the first, which comes last and is padded."""
        for transformed in range(self.n_dims - 1):
            u = u.movedim(-1 - transformed, -1) if transformed else u
            wide, low, high = padded(u, n, k_max + 1, k_max)
            low.copy_(u[..., : k_max + 1])
            high.copy_(u[..., u.shape[-1] - k_max :])
            u = torch.fft.ifft(wide, norm="forward")
        u = u.movedim(-self.n_dims, -1) if self.n_dims > 1 else u
        half, low, _ = padded(u, n // 2 + 1, k_max + 1, 0)
        low.copy_(u)
        return half

    def coefficients(self, u: Tensor) -> Tensor:
        """Coefficients of values on any grid; zero where the grid holds fewer wavenumbers."""
        k_max = min(self.k_max, max_wavenumber(u.shape[-1], dealiased=False))
        if self.n_dims == 1 and k_max == self.k_max:
            return torch.fft.rfft(u, norm="forward")[..., : k_max + 1]
        make = torch.empty if k_max == self.k_max else torch.zeros
        result = make((*u.shape[: -self.n_dims], *self.shape), dtype=u.dtype.to_complex(), device=u.device)
        axes, every = tuple(range(-self.n_dims, 0)), self._reversed(u)
        # On some processors the last digits of several transforms at once in three dimensions depend on their number.
        fields = [(result, every)] if self.n_dims < 3 else zip(result.flatten(0, -4), every.flatten(0, -4), strict=True)
        for own, field in fields:
            transformed = self._reversed(torch.fft.rfftn(field, dim=axes, norm="forward"))
            for part in blocks(k_max, self.n_dims):
                own[(..., *part)] = transformed[(..., *part)]
        return result

    def _reversed(self, u: Tensor) -> Tensor:
        """The axes of space in the reverse order."""
        if self.n_dims == 1:
            return u
        batch = u.ndim - self.n_dims
        return u.permute(*range(batch), *range(u.ndim - 1, batch - 1, -1))

    def _kept_zeros(self, u: Tensor, *lengths: int) -> tuple[Tensor, Tensor, Tensor]:
        """``_zeros``, kept from one product to the next: the places of the zeros are always the same."""
        key = (*u.shape[:-1], *lengths)
        if key not in self._padded:
            if len(self._padded) == _KEPT:  # batches of many sizes
                self._padded.clear()
            self._padded[key] = _zeros(u, *lengths)
        return self._padded[key]

    def moved(self, u_hat: Tensor, other: Space) -> Tensor:
        """The same field in another space, padded with zeros or cut off."""
        result = u_hat.new_zeros(*u_hat.shape[: -self.n_dims], *other.shape)
        for part in blocks(min(self.k_max, other.k_max), self.n_dims):
            result[(..., *part)] = u_hat[(..., *part)]
        return result


def _zeros(u: Tensor, n: int, n_low: int, n_high: int) -> tuple[Tensor, Tensor, Tensor]:
    """Zeros in place of the last axis, ``n`` long, and views of its beginning and its end."""
    wide = u.new_zeros(*u.shape[:-1], n)
    return wide, wide[..., :n_low], wide[..., n - n_high :]


def fast_length(at_least: int) -> int:
    """The least number of points that a transform takes quickly."""
    return scipy.fft.next_fast_len(at_least, real=True)  # pyright: ignore[reportReturnType] the stubs allow None


def blocks(k_max: int, n_dims: int) -> list[tuple[slice, ...]]:
    """Where the wavenumbers up to ``k_max`` lie in the coefficients of any space that holds them."""
    both = [slice(0, k_max + 1), slice(-k_max, None)] if k_max else [slice(0, 1)]
    return [(slice(0, k_max + 1), *part) for part in itertools.product(both, repeat=n_dims - 1)]
