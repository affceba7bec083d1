"""Fields on another grid of the same domain."""

from __future__ import annotations

import numpy as np
import scipy.interpolate
from numpy.typing import NDArray

from data_gen import spectral
from data_gen.grids import Grid


def regrid(values: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.float64]:
    """Values of a field on another grid without interpolation, [..., *space] to [..., *space], float64.

    Along a periodic axis the field is evaluated from its Fourier series, cut off below the coarser grid's Nyquist
    wavenumber or padded with zeros. Along a closed axis the target's nodes must be among the source's; values at other
    nodes are dropped.

    Raises:
        ValueError: the grids aren't of the same domain, or the nodes don't nest.
    """
    _require_same_domain(source, target)
    result = np.asarray(values, dtype=np.float64)
    for axis, (n, m, nodes) in enumerate(zip(source.shape, target.shape, source.nodes, strict=True)):
        if n == m:
            continue
        along = axis - source.n_dims
        result = _resampled(result, along, m) if nodes == "periodic" else _picked(result, along, n, m, nodes)
    return result


def interpolate(values: NDArray[np.floating], source: Grid, target: Grid) -> NDArray[np.float64]:
    """Values of a field on another grid, [..., *space] to [..., *space], float64.

    Along a periodic axis the field is evaluated from its Fourier series, as in ``regrid``; along any other axis, from a
    cubic spline through its values. A non-finite value spreads along its axes.

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
            else:
                result = scipy.interpolate.make_interp_spline(here, result, axis=along, check_finite=False)(there)
    return result


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


def _picked(values: NDArray[np.float64], axis: int, n: int, n_points: int, nodes: str) -> NDArray[np.float64]:
    stride, rest = divmod(n - 1, n_points - 1)
    if nodes != "closed" or rest:
        raise ValueError(
            f"{n_points} nodes aren't among {n} ({nodes}): on a closed axis the number of intervals must be a divisor. "
            "Change refine of the test split, or solve it on a grid of its own (problem.solver_resolution)."
        )
    return np.take(values, range(0, n, stride), axis=axis)
