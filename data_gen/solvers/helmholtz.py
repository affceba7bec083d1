"""Time-harmonic waves on the unit square with absorbing sides: quadratic spectral elements on closed grids.

    -Laplacian u - kappa^2 u = f in (0, 1)^2,    du/dn - i kappa u = 0 on the boundary

for waves u exp(-i omega t) with the local wavenumber kappa = omega / c. The condition on the boundary lets waves out
that meet it at a right angle; others are partly reflected.

Elements are squares of 2 by 2 cells with quadratic functions, and integrals are by Simpson's rule at the nodes. So the
mass matrix is diagonal, coefficients are needed at the nodes only, and all nodes of a uniform grid are unknowns. For
smooth coefficients the error at the nodes is of fourth order in the spacing; waves are too short or too long by about
(kappa h)^4, and this error grows with their distance.

Reference: Cohen (2002), Higher-order numerical methods for transient wave equations, chapter 11 (spectral elements and
their dispersion).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from data_gen.solvers.factorisation import factorised, nested_dissection


class Solution(NamedTuple):
    """A solution and how good it is.

    values: u at the nodes, [n, n], complex.
    residual: norm of what is left over in the discrete equation, relative to that of f.
    power_imbalance: |P - Q| / Q. P is the power of the source, -Im of the integral of f times the conjugate of u; Q is
        that through the boundary, the integral of kappa |u|^2. The discrete equation keeps P = Q.
    """

    values: NDArray[np.complexfloating]
    residual: float
    power_imbalance: float


@functools.lru_cache(maxsize=4)
def _stiffness_and_weights(n: int) -> tuple[scipy.sparse.csr_array, NDArray[np.float64]]:
    """In one dimension, the integrals of products of slopes, [n, n], and Simpson's weights, [n]."""
    h = 1 / (n - 1)
    element = np.array([[7, -8, 1], [-8, 16, -8], [1, -8, 7]]) / (6 * h)
    stiffness, weights = np.zeros((n, n)), np.zeros(n)
    for first in range(0, n - 1, 2):
        here = slice(first, first + 3)
        stiffness[here, here] += element
        weights[here] += h / 3 * np.array([1, 4, 1])
    return scipy.sparse.csr_array(stiffness), weights


@functools.lru_cache(maxsize=4)
def _order(n: int) -> NDArray[np.intp]:
    x, y = np.divmod(np.arange(n * n), n)
    return nested_dissection(x, y, n_lines=1)  # the lines between elements have even numbers


def solve(wavenumber: NDArray[np.floating], source: NDArray[np.inexact]) -> Solution:
    """The solution at the nodes.

    By a sparse factorisation, complex64 for fields in single precision. (257 x 257 nodes take about 0.3 GB.)

    Args:
        wavenumber: kappa, positive, [n, n] with odd n, at the nodes i / (n - 1).
        source: f, [n, n].
    """
    n = len(wavenumber)
    kappa = np.asarray(wavenumber)
    stiffness, weights = _stiffness_and_weights(n)
    volume = np.outer(weights, weights)
    ends = np.zeros(n)
    ends[[0, -1]] = 1
    border = np.multiply.outer(ends, weights) + np.multiply.outer(weights, ends)
    laplacian = scipy.sparse.kron(stiffness, scipy.sparse.diags_array(weights)) + scipy.sparse.kron(
        scipy.sparse.diags_array(weights), stiffness
    )
    terms = volume * kappa**2 + 1j * border * kappa
    dtype = np.complex64 if kappa.dtype == np.float32 else np.complex128
    # Divided by the volumes, all equations have the same size.
    right = np.asarray(source, dtype=dtype).ravel()
    scaled = scipy.sparse.diags_array(1 / volume.ravel()) @ (laplacian - scipy.sparse.diags_array(terms.ravel()))
    matrix = scipy.sparse.csr_array(scaled, dtype=dtype)
    u, order = np.empty_like(right), _order(n)
    u[order] = factorised(matrix[order][:, order], pivots_below=0.01, is_ordered=True).solve(right[order])
    residual = np.linalg.norm(right - matrix @ u) / np.linalg.norm(right)
    u = u.reshape(n, n)
    outflow = (border * kappa * np.abs(u) ** 2).sum()
    inflow = -(volume * source * u.conj()).imag.sum()
    return Solution(u, float(residual), float(abs(outflow - inflow) / outflow))
