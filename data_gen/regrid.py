"""Fields on another grid of the same domain."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, get_args

import numpy as np
import scipy.interpolate
from numpy.typing import NDArray

from data_gen import spectral
from data_gen.grids import Grid

# Means of a positive coefficient over a cell. Across layers the harmonic mean is the effective coefficient, along them
# the arithmetic one, and of a chessboard the geometric one.
Mean = Literal["arithmetic", "geometric", "harmonic"]
MEANS: tuple[Mean, ...] = get_args(Mean)
# Of the conductance between two neighbours: the arithmetic mean across the flow and then the harmonic one along it,
# which is too large, the other way round, which is too small, and the geometric mean of these two bounds (Cardwell &
# Parsons 1945, Average permeabilities of heterogeneous oil sands, Trans. AIME 160).
FaceMean = Literal["arithmetic-harmonic", "harmonic-arithmetic", "between"]
FACE_MEANS: tuple[FaceMean, ...] = get_args(FaceMean)


def regrid(values: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.float64]:
    """Values of a field on another grid without interpolation, [..., *space] to [..., *space], float64.

    Along a periodic axis the field is evaluated from its Fourier series, cut off below the coarser grid's Nyquist
    wavenumber or padded with zeros. Along a closed axis the target's nodes must be among the source's; values at other
    nodes are dropped. Along an axis of cell centres the values are averages over cells, and those over larger cells are
    their means.

    Raises:
        ValueError: the grids aren't of the same domain, or the nodes or cells don't nest.
    """
    _require_same_domain(source, target)
    result = np.asarray(values, dtype=np.float64)
    for axis, (n, m, nodes) in enumerate(zip(source.shape, target.shape, source.nodes, strict=True)):
        if n == m:
            continue
        along = axis - source.n_dims
        resampled = {"periodic": _resampled, "closed": _picked, "centres": _merged}[nodes]
        result = resampled(result, along, m)
    return result


def interpolate(values: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.float64]:
    """Values of a field on another grid, [..., *space] to [..., *space], float64.

    Along a periodic axis the field is evaluated from its Fourier series, as in ``regrid``; along any other axis, from a
    cubic spline through its values. Averages over cells are merged as in ``regrid`` where the cells nest. A non-finite
    value spreads along its axes.

    Raises:
        ValueError: the grids aren't of the same domain, or the source has fewer than four nodes along an axis that
            isn't periodic.
    """
    _require_same_domain(source, target)
    result = np.asarray(values, dtype=np.float64)
    coordinates = zip(source.coordinates(), target.coordinates(), source.nodes, strict=True)
    for axis, (here, there, nodes) in enumerate(coordinates):
        along = axis - source.n_dims
        if len(here) == len(there):
            continue
        with np.errstate(invalid="ignore"):
            if nodes == "periodic":
                result = _resampled(result, along, len(there))
            elif nodes == "centres" and len(here) % len(there) == 0:
                result = _merged(result, along, len(there))
            else:
                result = _applied(_spline(tuple(here), tuple(there)), result, along)
    return result


def averaged(values: NDArray[np.floating], source: Grid, target: Grid, mean: Mean) -> NDArray[np.float64]:
    """Means of a positive field over the cells of a coarser closed grid, [..., *space] to [..., *space], float64.

    The cell of a node reaches halfway to its neighbours, and ends at the boundary. Within the source's cells the field
    is constant. Unlike in ``regrid``, the target's nodes needn't be among the source's.

    Raises:
        ValueError: the grids aren't of the same domain, an axis isn't closed, or a value isn't positive.
    """
    _require_same_domain(source, target)
    values = np.asarray(values, dtype=np.float64)
    if set(source.nodes) != {"closed"}:
        raise ValueError(f"Means over cells need axes that are closed, got {source.nodes}.")
    if not (values > 0).all():
        raise ValueError(f"The {mean} mean over cells needs positive values, got {values.min():g}.")
    there, back = {
        "arithmetic": (np.positive, np.positive),
        "geometric": (np.log, np.exp),
        "harmonic": (np.reciprocal, np.reciprocal),
    }[mean]
    result = there(values)
    for axis, (n, m) in enumerate(zip(source.shape, target.shape, strict=True)):
        result = _applied(_overlap(n, m), result, axis - source.n_dims)
    return back(result)


def averaged_to_faces(values: NDArray[np.floating], n_nodes: int, mean: FaceMean) -> list[NDArray[np.float64]]:
    """Effective coefficients between neighbouring nodes of a coarser closed grid, for each axis, of a positive field
    [sample, *space] on a closed grid of the same number of nodes along all axes. Within its cells it is constant.

    Args:
        values: the field.
        n_nodes: of the coarser grid, per axis.
        mean: how to average.

    Returns:
        For each axis the field [sample, *space] on ``n_nodes`` nodes, but on ``n_nodes`` - 1 faces along this axis.
    """
    if mean == "between":
        bounds = [averaged_to_faces(values, n_nodes, bound) for bound in FACE_MEANS[:2]]
        return [np.sqrt(upper * lower) for upper, lower in zip(*bounds, strict=True)]
    given, n = np.asarray(values, dtype=np.float64), values.shape[-1]

    def along(a: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return 1 / _applied(_between(n, n_nodes), 1 / a, axis)

    def across(a: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        for other in set(range(1, given.ndim)) - {axis}:
            a = _applied(_overlap(n, n_nodes), a, other)
        return a

    first, second = (across, along) if mean == "arithmetic-harmonic" else (along, across)
    return [second(first(given, axis), axis) for axis in range(1, given.ndim)]


def _applied(matrix: NDArray[np.float64], values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    return np.moveaxis(np.tensordot(values, matrix, axes=(axis, 1)), -1, axis)


# Splines through n values are linear in them. A product with a matrix takes a quarter of the time of SciPy's way.
@lru_cache(maxsize=32)
def _spline(here: tuple[float, ...], there: tuple[float, ...]) -> NDArray[np.float64]:
    """The matrix that takes values at the nodes ``here`` to those of their cubic spline at ``there``."""
    return scipy.interpolate.make_interp_spline(here, np.eye(len(here)))(there)


@lru_cache(maxsize=32)
def _overlap(n: int, m: int) -> NDArray[np.float64]:
    """Shares of the cells of n closed nodes in those of m, [m, n]."""
    return _shares(_edges(n), _edges(m))


@lru_cache(maxsize=32)
def _between(n: int, m: int) -> NDArray[np.float64]:
    """Shares of the cells of n closed nodes in the intervals between m of them, [m - 1, n]."""
    return _shares(_edges(n), np.linspace(0, 1, m))


def _edges(n: int) -> NDArray[np.float64]:
    """Of the cells of n closed nodes."""
    return np.clip((np.arange(n + 1) - 0.5) / (n - 1), 0, 1)


def _shares(fine: NDArray[np.float64], coarse: NDArray[np.float64]) -> NDArray[np.float64]:
    ends = np.minimum(coarse[1:, None], fine[None, 1:]) - np.maximum(coarse[:-1, None], fine[None, :-1])
    shares = np.maximum(ends, 0)
    return shares / shares.sum(axis=1, keepdims=True)


def _require_same_domain(source: Grid, target: Grid) -> None:
    same = ("lengths", "boundary", "nodes")
    if source.n_dims != target.n_dims or any(getattr(source, name) != getattr(target, name) for name in same):
        raise ValueError(f"A field on {source} can't be brought to {target}: their domains or boundaries differ.")


def _resampled(values: NDArray[np.float64], axis: int, n_points: int) -> NDArray[np.float64]:
    n = values.shape[axis]
    u_hat = np.moveaxis(np.fft.rfft(values, axis=axis, norm="forward"), axis, -1)
    kept = 1 + min(spectral.max_wavenumber(size, dealiased=False) for size in (n, n_points))
    other = np.zeros((*u_hat.shape[:-1], n_points // 2 + 1), dtype=u_hat.dtype)
    other[..., :kept] = u_hat[..., :kept]
    return np.moveaxis(np.fft.irfft(other, n_points, norm="forward"), -1, axis)


def _picked(values: NDArray[np.float64], axis: int, n_points: int) -> NDArray[np.float64]:
    n = values.shape[axis]
    stride, rest = divmod(n - 1, n_points - 1)
    if rest:
        raise ValueError(
            f"{n_points} nodes aren't among {n} (closed): on a closed axis the number of intervals must be a divisor. "
            "Change refine of the test split, or solve it on a grid of its own (problem.solver_resolution)."
        )
    return np.take(values, range(0, n, stride), axis=axis)


def _merged(values: NDArray[np.float64], axis: int, n_cells: int) -> NDArray[np.float64]:
    n = values.shape[axis]
    if n % n_cells:
        raise ValueError(
            f"{n} cells can't be merged into {n_cells} (centres): the number of cells must be a divisor. Change refine "
            "of the test split, or solve it on a grid of its own (problem.resolution)."
        )
    last = np.moveaxis(values, axis, -1)
    return np.moveaxis(last.reshape(*last.shape[:-1], n_cells, n // n_cells).mean(axis=-1), -1, axis)
