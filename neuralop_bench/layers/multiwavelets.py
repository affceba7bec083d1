"""Legendre multiwavelets: orthonormal piecewise polynomials on nested grids, and the filters between two scales.

On every cell of a grid a function is given by k coefficients, those of the first k Legendre polynomials. Joining two
cells into one keeps k numbers of the 2 k, which describe a polynomial on the larger cell, and k wavelet coefficients,
which describe the rest:

    s_l = H0 x_2l + H1 x_2l+1,    d_l = G0 x_2l + G1 x_2l+1
    x_2l = H0^T Sigma_0 s_l + G0^T Sigma_0 d_l,    x_2l+1 = H1^T Sigma_1 s_l + G1^T Sigma_1 d_l

Sigma_0 and Sigma_1 are the Gram matrices of the polynomials on either half. They are identities for Legendre
polynomials, whose weight is constant, so they are left out here. Then [[H0, H1], [G0, G1]] is an orthogonal matrix.

Reference: Alpert, Beylkin, Gines, Vozovoi (2002), Adaptive Solution of Partial Differential Equations in Multiwavelet
Bases; Gupta, Xiao, Bogdan (2021), arXiv 2109.13459.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from neuralop_bench.layers.precision import unrounded, widened

Details = Literal["all", "diagonal"]
Matrix = NDArray[np.float64]


class Filters(NamedTuple):
    """The k x k matrices from the coefficients on the left (0) and the right (1) cell to those on both."""

    H0: Matrix
    H1: Matrix
    G0: Matrix
    G1: Matrix


def legendre(k: int, x: NDArray[np.float64]) -> Float[np.ndarray, "k point"]:
    """The first k Legendre polynomials, orthonormal on [0, 1], at the points x."""
    norms = np.sqrt(2 * np.arange(k) + 1)
    return (np.polynomial.legendre.legvander(2 * x - 1, k - 1) * norms).T


def legendre_filters(k: int) -> Filters:
    """The filters of k Legendre polynomials, in double precision.

    H follows from the polynomials by Gauss-Legendre quadrature, which is exact for them:

        H0_ij = 1/sqrt(2) int_0^1 phi_i(x/2) phi_j(x) dx,    H1_ij = 1/sqrt(2) int_0^1 phi_i((x+1)/2) phi_j(x) dx

    The wavelets are the polynomials of the left cell after Gram-Schmidt against [H0, H1] and against each other.

    >>> filters = legendre_filters(1)  # Haar wavelets
    >>> [round(float(matrix[0, 0]), 4) for matrix in filters]
    [0.7071, 0.7071, 0.7071, -0.7071]
    """
    nodes, weights = np.polynomial.legendre.leggauss(k)
    x, weights = (nodes + 1) / 2, weights / 2
    right = (weights * legendre(k, x)).T / math.sqrt(2)
    H = np.hstack([legendre(k, x / 2) @ right, legendre(k, (x + 1) / 2) @ right])
    Q, R = np.linalg.qr(np.hstack([H.T, np.eye(2 * k)[:, :k]]))
    G = (Q[:, k:] * np.sign(np.diag(R)[k:])).T
    return Filters(H[:, :k], H[:, k:], G[:, :k], G[:, k:])


def n_bands(n_dims: int, details: Details) -> int:
    """Products of H and G with at least one G, or the product of G alone."""
    return 2**n_dims - 1 if details == "all" else 1


class Multiwavelets(nn.Module):
    """Decomposition of coefficients on cells into those on cells of twice the size and wavelets, and back.

    Args:
        k: polynomials per axis.
        n_dims: axes.
        details: bands of wavelets to keep. With ``all`` the map is orthogonal. With ``diagonal`` the last band (G G)
            alone is kept, as in the published code, and what the others describe is lost.
    """

    matrix: Float[Tensor, "band_and_coefficient parity_and_coefficient"]

    def __init__(self, k: int, n_dims: int, details: Details = "all") -> None:
        super().__init__()
        H0, H1, G0, G1 = legendre_filters(k)
        axis = np.array([[H0, H1], [G0, G1]]).transpose(0, 2, 1, 3)  # [H or G, coefficient, parity, coefficient]
        whole = reduce(_tensor_product, [axis] * n_dims).reshape((2 * k) ** n_dims, (2 * k) ** n_dims)
        chosen = whole if details == "all" else np.concatenate([whole[: k**n_dims], whole[-(k**n_dims) :]])
        self.k, self.details = k, details
        self._n_dims, self._coefficients = n_dims, k**n_dims
        self.register_buffer("matrix", torch.from_numpy(chosen), persistent=False)

    def decompose(
        self, x: Float[Tensor, "batch channel *space"]
    ) -> tuple[Float[Tensor, "batch channel *half"], Float[Tensor, "batch band_and_channel *half"]]:
        """Join pairs of cells along every axis, in tensor products of the filters.

        In two dimensions the coefficients are s (H on both axes) and those of three bands of wavelets (H G, G H, G G,
        the first factor for the first axis).

        Args:
            x: channels are pairs (channel, coefficient) with k^n_dims coefficients; every axis has an even number of
                cells.

        Shapes: d has its bands one after another, each with the channels of x.
        """
        x = widened(x)
        matrix = self.matrix.to(x)
        half = [n // 2 for n in x.shape[2:]]
        # [batch, channel, coefficient, half, parity, half, parity, ...] to [batch channel, parities coefficient, cells]
        cells = x.reshape(x.shape[0], -1, self._coefficients, *(size for n in half for size in (n, 2)))
        cells = cells.permute(0, 1, *range(4, 4 + 2 * self._n_dims, 2), 2, *range(3, 3 + 2 * self._n_dims, 2))
        cells = cells.reshape(-1, matrix.shape[1], math.prod(half))
        with unrounded(cells):
            y = torch.bmm(matrix.expand(len(cells), -1, -1), cells)
        y = y.view(x.shape[0], -1, matrix.shape[0] // self._coefficients, self._coefficients, *half)
        return y[:, :, 0].flatten(1, 2), y[:, :, 1:].transpose(1, 2).flatten(1, 3)

    def reconstruct(
        self, s: Float[Tensor, "batch channel *half"], d: Float[Tensor, "batch band_and_channel *half"]
    ) -> Float[Tensor, "batch channel *space"]:
        """The inverse of ``decompose`` with ``all`` bands, and its transpose with ``diagonal``."""
        s, d = widened(s), widened(d)
        half = s.shape[2:]
        matrix = self.matrix.to(s).T
        bands = (s.shape[0], -1, s.shape[1] // self._coefficients, self._coefficients, *half)
        y = torch.cat([s.view(bands), d.view(bands)], dim=1).transpose(1, 2)
        y = y.reshape(-1, matrix.shape[1], math.prod(half))
        with unrounded(y):
            cells = torch.bmm(matrix.expand(len(y), -1, -1), y)
        cells = cells.view(*s.shape[:1], -1, *(2,) * self._n_dims, self._coefficients, *half)
        axes = (axis for i in range(self._n_dims) for axis in (3 + self._n_dims + i, 2 + i))
        return cells.permute(0, 1, 2 + self._n_dims, *axes).reshape(*s.shape[:2], *(2 * n for n in half))


def _tensor_product(
    a: Float[np.ndarray, "b i p j"], b: Float[np.ndarray, "c k q l"]
) -> Float[np.ndarray, "bc ik pq jl"]:
    product = np.einsum("bipj,ckql->bcikpqjl", a, b)
    return product.reshape([m * n for m, n in zip(a.shape, b.shape, strict=True)])
