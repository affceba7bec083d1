"""Finite volumes for -div(a grad u) = f on a square with u = 0 on its boundary: five-point scheme on closed grids.

The solver uses the coefficient only on the faces between neighbouring nodes. Each sample is solved by the cheapest of
three methods, which depends on its coefficient:

- ``POISSON``: conjugate gradients preconditioned by a fast Poisson solver (discrete sine transforms). The number of
  iterations is bounded by the contrast max a / min a, whatever the grid.
- ``SCALED``: the same with the Poisson solver between two factors a^-1/2. For v = a^1/2 u the equation becomes
  -Laplacian v + q v = a^-1/2 f, q = Laplacian(a^1/2) / a^1/2, so contrast has no effect if a is smooth. The mean of q
  is added to the Laplacian, which saves up to 45 % of the iterations. Reference: Concus and Golub (1973), Use of fast
  direct methods for the efficient numerical solution of nonseparable elliptic equations, SIAM J. Numer. Anal. 10.
- ``DIRECT``: a factorisation, for rough coefficients of high contrast, for small grids, and if an iteration doesn't
  converge. It is banded on small grids, otherwise sparse.

The preconditioner always uses single precision. It costs half as much, and the residuals of a double-precision
iteration are still those of double precision. The results of a sample don't depend on the other samples of a call, to
the bit.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
import scipy.linalg
import scipy.sparse
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from data_gen.solvers.factorisation import factorised
from data_gen.spec import SolverError

POISSON, SCALED, DIRECT = 0, 1, 2

# Interior points per axis up to which products with a dense sine matrix are faster than fast sine transforms.
_DENSE_SINES = 128
# The cost of a direct solution in iterations (250 on 421 x 421 nodes, 110 on 85 x 85), and the iterations after which a
# direct solution is started. Both are larger on large grids: a factorisation of 841 x 841 nodes takes 1.3 GB.
_DIRECT_COST, _DIRECT_COST_LARGE = 200, 400
_MOST_ITERATIONS, _MOST_ITERATIONS_LARGE = 300, 600
_LARGE = 600  # nodes per axis
# Nodes per axis up to which a banded factorisation is faster than any iteration: 3 times on 11, 1.3 times on 22.
_BANDED = 25
# A direct solution is refined up to three times, until its relative residual is below this.
_REFINED = 1e-10
# Points of the samples that are solved together. Small grids share the cost of a call; large ones must fit the cache.
_POINTS_TOGETHER = 20_000


class Faces(NamedTuple):
    """Coefficient on the faces between neighbouring nodes of n x n nodes.

    x: [sample, n - 1, n], between (i, j) and (i + 1, j).
    y: [sample, n, n - 1], between (i, j) and (i, j + 1).
    """

    x: NDArray[np.floating]
    y: NDArray[np.floating]


class EllipticSolution(NamedTuple):
    """Solutions and how they were computed, per sample.

    values: [sample, n, n], zero on the boundary.
    method: POISSON, SCALED or DIRECT, [sample].
    iterations: of the conjugate gradients, including those before a change to the direct method, [sample].
    residual: ‖f - A u‖ / ‖f‖ over the interior nodes, computed from u itself, [sample].
    """

    values: NDArray[np.floating]
    method: NDArray[np.int64]
    iterations: NDArray[np.int64]
    residual: NDArray[np.float64]


def harmonic_faces(coefficient: NDArray[np.floating]) -> Faces:
    """Faces of a coefficient [sample, n, n] given at the nodes: the harmonic mean 2 a b / (a + b) of two neighbours.

    It makes the flux exact across a jump half way between two nodes. With the arithmetic mean, errors for coefficients
    of two phases are 4 times as large.
    """
    a = np.asarray(coefficient)

    def mean(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.floating]:
        return 2 / (1 / first + 1 / second)

    return Faces(mean(a[:, :-1], a[:, 1:]), mean(a[:, :, :-1], a[:, :, 1:]))


def residual(
    values: Float[Tensor, "batch n n"], coefficient: Float[Tensor, "batch n n"], right: float
) -> Float[Tensor, "batch n-2 n-2"]:
    """-div(a grad u) - f at the interior nodes, in tensors. The boundary's values are taken as 0."""
    u, a = pad(values[:, 1:-1, 1:-1], (1, 1, 1, 1)), coefficient
    flows = [
        2 / (1 / a[:, :-1] + 1 / a[:, 1:]) * u.diff(dim=1),
        2 / (1 / a[:, :, :-1] + 1 / a[:, :, 1:]) * u.diff(dim=2),
    ]
    divergence = flows[0].diff(dim=1)[:, :, 1:-1] + flows[1].diff(dim=2)[:, 1:-1]
    return -divergence * (values.shape[1] - 1) ** 2 - right


def dual_norm(right: Float[Tensor, "batch m m"]) -> Float[Tensor, " batch"]:
    """The norm (r . (-Laplacian)^-1 r)^1/2 of a field at the interior nodes, up to a constant factor.

    It is the norm of grad z, where -Laplacian z = r and z = 0 on the boundary: dual to that of gradients (H^-1).
    """
    m = right.shape[-1]
    k = torch.arange(1, m + 1, dtype=right.dtype, device=right.device)
    sines = torch.sin(math.pi / (m + 1) * torch.outer(k, k) % (2 * math.pi)) * math.sqrt(2 / (m + 1))
    eigenvalues = (2 * (m + 1) * torch.sin(math.pi * k / (2 * (m + 1)))).square()
    squares = (sines @ right @ sines).square() / (eigenvalues[:, None] + eigenvalues)
    return squares.flatten(1).sum(dim=1).sqrt()


def contrast(faces: Faces) -> NDArray[np.float64]:
    """Largest over smallest coefficient of each sample, [sample]."""
    x, y = faces.x[:, :, 1:-1], faces.y[:, 1:-1]  # faces between two boundary nodes carry no flux
    axes = (1, 2)
    return np.maximum(x.max(axes), y.max(axes)) / np.minimum(x.min(axes), y.min(axes))


def roughness(faces: Faces) -> NDArray[np.float64]:
    """Largest ratio of two coefficients on opposite faces of one interior node, [sample]; 1 + O(spacing) if smooth."""
    ratios = []
    for before, after in (
        (faces.x[:, :-1, 1:-1], faces.x[:, 1:, 1:-1]),
        (faces.y[:, 1:-1, :-1], faces.y[:, 1:-1, 1:]),
    ):
        ratio = after / before
        ratios.append(np.maximum(ratio.max(axis=(1, 2)), 1 / ratio.min(axis=(1, 2))))
    return np.maximum(*ratios)


def choose(contrast: float, roughness: float, n_nodes: int) -> int:
    """The method for one coefficient, from an estimate of the iterations that each would take.

    The estimate was fitted on 85 to 841 nodes per axis. A wrong one costs time, not accuracy.
    """
    # Between two phases the contrast is a single jump, which slows down only a few modes.
    poisson = 10 * math.sqrt(contrast)
    if roughness >= contrast / 4:
        poisson = min(poisson, 10 + 34 * math.log10(contrast))
    # The steepest slope of log a. If neighbouring coefficients differ widely, a^1/2 has no useful Laplacian.
    slope = math.log(roughness) * (n_nodes - 1)
    scaled = (10 + 0.35 * slope) * roughness
    if min(poisson, scaled) > (_DIRECT_COST if n_nodes < _LARGE else _DIRECT_COST_LARGE):
        return DIRECT
    return POISSON if poisson <= scaled else SCALED


def samples_together(n_nodes: int) -> int:
    """How many samples on n x n nodes to solve in one call. It affects speed and memory, not results."""
    return max(1, _POINTS_TOGETHER // n_nodes**2)


def solve(
    faces: Faces,
    right: NDArray[np.floating],
    spacing: float,
    *,
    tolerance: float = 1e-8,
    method: int | None = None,
    max_iterations: int | None = None,
) -> EllipticSolution:
    """Solve A u = f, h^2 (A u)_ij = sum over the four neighbours of face coefficient times (u_ij - u_neighbour).

    The arithmetic is that of the faces, float64 or float32. In float32, relative residuals below about 1e-5 may not be
    reached.

    Args:
        faces: positive coefficients.
        right: f at the nodes, [sample, n, n]; the values on the boundary don't matter.
        spacing: distance h between neighbouring nodes, equal along both axes.
        tolerance: largest relative residual that is accepted. At extreme contrast on fine grids, rounding errors may
            exceed it; the result of the direct method is then accepted, with its true residual.
        method: POISSON, SCALED or DIRECT for all samples; by default each sample's own coefficient decides, and small
            grids are solved directly.
        max_iterations: of the conjugate gradients; a sample that needs more is solved directly. None takes 300, on
            large grids 600.

    Raises:
        ValueError: fewer than 3 nodes per axis, shapes that don't fit, or a coefficient that isn't finite and positive.
        SolverError: the residual of the direct method is above the tolerance and above what rounding explains.
    """
    b = _scaled_interior(faces, right, spacing)
    norms = np.sqrt([float(np.vdot(sample, sample)) for sample in b])
    norms[norms == 0] = 1.0  # without a force the solution is 0, and the iteration ends at once
    b /= norms[:, None, None]
    n_samples = len(b)
    result = EllipticSolution(
        np.zeros_like(b), np.empty(n_samples, np.int64), np.zeros(n_samples, np.int64), np.full(n_samples, math.inf)
    )
    kappa, jump = contrast(faces), roughness(faces)
    if method is None and b.shape[1] <= _BANDED:
        method = DIRECT
        result.values[:], result.residual[:] = _solve_banded(faces, b)
    chosen = [method if method is not None else choose(k, j, b.shape[1]) for k, j in zip(kappa, jump, strict=True)]
    result.method[:] = chosen
    together = samples_together(b.shape[1])
    if max_iterations is None:
        max_iterations = _MOST_ITERATIONS if b.shape[1] < _LARGE else _MOST_ITERATIONS_LARGE
    for iterative in (POISSON, SCALED):
        members = np.flatnonzero(result.method == iterative)
        for start in range(0, len(members), together):
            chunk = members[start : start + together]
            operator = _Operator(Faces(faces.x[chunk], faces.y[chunk]))
            preconditioner = _Preconditioner(operator if iterative == SCALED else None, b[chunk].shape)
            found = _conjugate_gradients(operator, preconditioner, b[chunk], tolerance, max_iterations)
            result.values[chunk], result.iterations[chunk], result.residual[chunk] = found
    # A residual that is NaN fails this comparison as well.
    result.method[~(result.residual <= tolerance) & (result.method != DIRECT)] = DIRECT
    for index in np.flatnonzero((result.method == DIRECT) & ~(result.residual <= tolerance)):
        sample = slice(index, index + 1)
        found = _factorise_and_solve(Faces(faces.x[sample], faces.y[sample]), b[sample])
        result.values[sample], result.residual[sample], attainable = found
        if not result.residual[index] <= max(tolerance, attainable):
            raise SolverError(
                f"Sample {index} of the batch was solved to a relative residual of {result.residual[index]:.2g}, not "
                f"{tolerance:g}, by the direct method after {result.iterations[index]} iterations; its coefficient has "
                f"contrast {kappa[index]:.3g}. Lower dataset.problem.permeability.contrast, or raise "
                "dataset.problem.residual_tolerance."
            )
    np.multiply(result.values, norms[:, None, None], out=result.values)
    return result


def assemble(faces: Faces) -> scipy.sparse.csc_matrix:
    """The matrix h^2 A of one sample over its interior nodes, row by row."""
    x, y = faces.x[0, :, 1:-1], faces.y[0, 1:-1]
    m = x.shape[1]
    along = y[:, 1:].copy()
    along[:, -1] = 0  # the last node of a row and the first of the next aren't neighbours
    off_x, off_y = -x[1:-1].ravel(), -along.ravel()[:-1]
    centre = (x[:-1] + x[1:] + y[:, :-1] + y[:, 1:]).ravel()
    bands: Any = [centre, off_y, off_y, off_x, off_x]
    offsets: Any = [0, 1, -1, m, -m]
    return scipy.sparse.csc_matrix(scipy.sparse.diags(bands, offsets))


def _scaled_interior(faces: Faces, right: NDArray[np.floating], spacing: float) -> NDArray[np.floating]:
    """h^2 f with zeros on the boundary, after checking the arguments."""
    n_samples, n = right.shape[0], right.shape[-1]
    if n < 3 or right.shape != (n_samples, n, n):
        raise ValueError(f"Expected a right-hand side [sample, n, n] with n of at least 3, got {right.shape}.")
    if faces.x.shape != (n_samples, n - 1, n) or faces.y.shape != (n_samples, n, n - 1):
        raise ValueError(
            f"Faces of shapes {faces.x.shape} and {faces.y.shape} don't fit a right-hand side {right.shape}."
        )
    for values in faces:
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise ValueError(
                "The coefficient must be finite and positive everywhere. Change dataset.problem.permeability."
            )
    b = np.zeros(right.shape, faces.x.dtype)
    b[:, 1:-1, 1:-1] = right[:, 1:-1, 1:-1]
    b *= spacing**2
    return b


class _Operator:
    """h^2 A for some samples. Fields are [sample, n, n] with zeros on the boundary."""

    def __init__(self, faces: Faces) -> None:
        n_samples, n = len(faces.x), faces.x.shape[2]
        self.n = n
        # Entry (i, j) holds the face towards the previous node along the axis. Fields can then be treated as lines of
        # n^2 numbers, with neighbours n or 1 apart, so every operation uses contiguous memory. Only boundary nodes get
        # values from across the ends of a row.
        self._x, self._y = np.zeros((2, n_samples, n, n), faces.x.dtype)
        self._x[:, 1:], self._y[:, :, 1:] = faces
        self._x.shape = self._y.shape = (n_samples, n * n)
        self._flux = np.empty((n_samples, n * n), faces.x.dtype)

    @property
    def diagonal(self) -> NDArray[np.floating]:
        """Sum of the four faces of each interior node, [sample, n - 2, n - 2]."""
        x, y = (faces.reshape(-1, self.n, self.n) for faces in (self._x, self._y))
        return x[:, 1:-1, 1:-1] + x[:, 2:, 1:-1] + y[:, 1:-1, 1:-1] + y[:, 1:-1, 2:]

    def apply(self, u: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """out = h^2 A u."""
        n = self.n
        u_line, out_line = u.reshape(len(u), n * n), out.reshape(len(out), n * n)
        inside = slice(n, -n)
        flux = self._flux[:, n:]
        np.subtract(u_line[:, n:], u_line[:, :-n], out=flux)
        flux *= self._x[:, n:]
        np.subtract(flux[:, :-n], flux[:, n:], out=out_line[:, inside])
        flux = self._flux[:, n : -n + 1]
        np.subtract(u_line[:, n : -n + 1], u_line[:, n - 1 : -n], out=flux)
        flux *= self._y[:, n : -n + 1]
        out_line[:, inside] += flux[:, :-1]
        out_line[:, inside] -= flux[:, 1:]
        out[:, 0] = out[:, -1] = 0
        out[:, :, 0] = out[:, :, -1] = 0


class _Preconditioner:
    """The inverse of the five-point Laplacian, perhaps between two factors a^-1/2, in single precision."""

    def __init__(self, scaled_by: _Operator | None, shape: tuple[int, ...]) -> None:
        n_samples, n = shape[0], shape[1]
        m = n - 2
        k = np.arange(1, m + 1)
        eigenvalues = 4 * np.sin(np.pi * k / (2 * (m + 1))) ** 2
        laplacian = (eigenvalues[:, None] + eigenvalues[None, :])[None]
        self._scale = None
        if scaled_by is not None:
            # a is four times the mean of a node's faces here, so that the scaled matrix has the Laplacian's diagonal.
            scale = np.zeros(shape)
            scale[:, 1:-1, 1:-1] = 2 / np.sqrt(scaled_by.diagonal)
            self._scale = scale[:, 1:-1, 1:-1].astype(np.float32)
            # h^2 q is the sum over a row of the scaled matrix minus that of the Laplacian. (The latter is 0 except
            # along the boundary, where it is 4 m in total.)
            image = np.zeros(shape)
            scaled_by.apply(scale, image)
            mean = (_dot(scale, image) - 4 * m) / m**2
            laplacian = laplacian + np.maximum(mean, 0.0)[:, None, None]
        inverse = 1 / laplacian
        if m <= _DENSE_SINES:
            sines = np.sqrt(2 / (m + 1)) * np.sin(np.pi * (np.outer(k, k) % (2 * (m + 1))) / (m + 1))
            self._sines: NDArray[np.float32] | None = sines.astype(np.float32)
        else:
            self._sines = None
            inverse /= (2 * (m + 1)) ** 2  # two transforms along two axes multiply by this
        self._inverse = inverse.astype(np.float32)
        self._work = np.empty((n_samples, m, m), np.float32)
        self._spare = np.empty_like(self._work)

    def apply(self, r: NDArray[np.floating], out: NDArray[np.floating]) -> None:
        """out = the preconditioned r; out's boundary stays as it is."""
        work, inside = self._work, (slice(None), slice(1, -1), slice(1, -1))
        if self._scale is None:
            np.copyto(work, r[inside], casting="same_kind")
        else:
            np.multiply(r[inside], self._scale, out=work, casting="same_kind")
        if self._sines is None:
            work = _sine_transform(work)
            work *= self._inverse
            work = _sine_transform(work)
        else:
            self._transform(self._sines)
            work *= self._inverse
            self._transform(self._sines)
        if self._scale is None:
            np.copyto(out[inside], work)
        else:
            np.multiply(work, self._scale, out=out[inside])

    def _transform(self, sines: NDArray[np.float32]) -> None:
        np.matmul(self._work, sines, out=self._spare)
        np.matmul(sines, self._spare, out=self._work)


def _sine_transform(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Type I sine transform along both axes, [sample, m, m]; overwrites its argument."""
    transformed: Any = scipy.fft.dstn(values, type=1, axes=(1, 2), overwrite_x=True)
    return transformed


def _dot(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Inner product of each sample. For a row times a column, matmul calls the dot product of BLAS, sample by sample.
    So no sample depends on the others."""
    n_samples, n = len(a), math.prod(a.shape[1:])
    return np.matmul(a.reshape(n_samples, 1, n), b.reshape(n_samples, n, 1))[:, 0, 0]


def _conjugate_gradients(
    operator: _Operator,
    preconditioner: _Preconditioner,
    b: NDArray[np.floating],
    tolerance: float,
    max_iterations: int,
) -> tuple[NDArray[np.floating], NDArray[np.int64], NDArray[np.floating]]:
    """Solutions for right-hand sides of norm 1 (or 0), iterations and true residual norms.

    A sample that has converged, or whose iteration broke down, no longer changes while the others continue.
    """
    column = (slice(None), None, None)
    u, z, p, q, spare = (np.zeros_like(b) for _ in range(5))
    r = b.copy()
    iterations = np.zeros(len(b), np.int64)
    residual = np.sqrt(_dot(r, r))
    stuck = np.zeros(len(b), bool)
    # The recursion's residual drifts from the true one. If the true one is still too large, the iteration restarts.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        while True:
            active = (residual > tolerance) & (iterations < max_iterations) & ~stuck
            if not active.any():
                return u, iterations, residual
            before, rho = residual, np.ones(len(b), b.dtype)
            p[:] = 0
            first = True
            while active.any():
                preconditioner.apply(r, z)
                rho, previous = _dot(r, z), rho
                if not first:
                    p *= np.where(active, rho / previous, 0.0)[column]
                first = False
                p += z
                operator.apply(p, q)
                curvature = _dot(p, q)
                active &= (curvature > 0) & np.isfinite(rho)
                step = np.where(active, rho / curvature, 0.0)[column]
                u += np.multiply(p, step, out=spare)
                r -= np.multiply(q, step, out=spare)
                iterations += active
                active &= (np.sqrt(_dot(r, r)) > tolerance) & (iterations < max_iterations)
            operator.apply(u, q)
            np.subtract(b, q, out=r)
            residual = np.sqrt(_dot(r, r))
            # If a round brought no progress, another won't either; the caller then uses the direct method.
            stuck = ~(residual < 0.5 * before)


def _solve_banded(faces: Faces, b: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Solutions by a banded Cholesky factorisation of each sample, and their residual norms."""
    x, y = faces.x[:, :, 1:-1], faces.y[:, 1:-1]
    n_samples, m = len(b), x.shape[2]
    # LAPACK's lower bands: entry [k, j] is that of row j + k and column j.
    bands = np.zeros((n_samples, m + 1, m, m), b.dtype)
    bands[:, 0] = x[:, :-1] + x[:, 1:] + y[:, :, :-1] + y[:, :, 1:]
    bands[:, 1, :, :-1] = -y[:, :, 1:-1]
    bands[:, m, :-1] = -x[:, 1:-1]
    right = b[:, 1:-1, 1:-1].reshape(n_samples, m * m)
    lapack: Any = scipy.linalg.get_lapack_funcs("pbsv", (bands, right))
    u, residual = np.zeros_like(b), np.zeros_like(b)
    for sample, (matrix, values) in enumerate(zip(bands.reshape(n_samples, m + 1, m * m), right, strict=True)):
        u[sample, 1:-1, 1:-1] = lapack(matrix, values, lower=1)[1].reshape(m, m)
    _Operator(faces).apply(u, residual)
    np.subtract(b, residual, out=residual)
    return u, np.sqrt(_dot(residual, residual))


def _factorise_and_solve(faces: Faces, b: NDArray[np.floating]) -> tuple[NDArray[np.floating], float, float]:
    """Solution of one sample by sparse factorisation with iterative refinement, its residual norm, and the norm that
    rounding errors can have: some ulps of the terms that cancel in the residual."""
    # The matrix is symmetric and diagonally dominant: no pivoting, and a fill-reducing order of A + A^T.
    factors = factorised(assemble(faces))
    operator = _Operator(faces)
    inside = (0, slice(1, -1), slice(1, -1))
    u, q, r, residual = np.zeros_like(b), np.zeros_like(b), b, math.inf
    for _ in range(3):
        improved = u.copy()
        improved[inside] += factors.solve(r[inside].ravel()).reshape(r[inside].shape)
        operator.apply(improved, q)
        remaining = b - q
        norm = float(np.linalg.norm(remaining))
        if not norm < residual:
            break
        u, r, residual = improved, remaining, norm
        if residual < _REFINED:
            break
    terms = 2 * float(np.linalg.norm(operator.diagonal[0] * u[inside]))
    return u, residual, 2 * float(np.finfo(b.dtype).eps) * terms
