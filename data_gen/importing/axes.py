"""Grids and times of imported files: from the file's coordinates, from what the user says, or assumed.

If both the file and the user give something, they must agree. If neither does, a default is assumed and noted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import AXIS_NAMES, Boundary, Grid, Nodes
from data_gen.importing.contents import Given, ImportedFileError
from data_gen.spec import Scalar

# Single-precision coordinates of a thousand points differ from uniform ones by 1e-4 of the spacing.
_UNIFORM = 1e-3


def find_grid(
    path: Path,
    shape: tuple[int, ...],
    given: Given,
    default: tuple[str, ...],
    coordinates: Sequence[NDArray[Any]] | None,
) -> tuple[Grid, dict[str, Scalar], tuple[str, ...]]:
    """The grid of a file's fields.

    Args:
        path: of the file, for messages.
        shape: number of points per axis.
        given: lengths, boundary and nodes that the user gives.
        default: boundary per axis if the user gives none.
        coordinates: positions of the points along each axis, if the file has them.

    Returns:
        The grid; parameters ``origin_x`` and ``origin_y``, by which the file's coordinates are larger than those of our
        grid, where they are; and notes on what was assumed.

    Raises:
        ImportedFileError: the coordinates aren't uniform, or don't agree with the shape or with what the user says.
    """
    n_dims = len(shape)
    boundary = _per_axis(path, "--boundary", given.boundary, n_dims) or default
    nodes = _per_axis(path, "--nodes", given.nodes, n_dims)
    if coordinates is not None and tuple(len(x) for x in coordinates) != shape:
        raise ImportedFileError(
            f"The coordinates in {path} have {', '.join(str(len(x)) for x in coordinates)} points, but the fields have "
            f"{', '.join(map(str, shape))}. Either the axes aren't in the order samples, times, x, y, or the file has "
            "another format than the one named."
        )
    steps = [_spacing(path, name, x) for name, x in zip(AXIS_NAMES, coordinates or (), strict=False)]
    if nodes is None:
        nodes = tuple(
            "periodic" if kind == "periodic" else _kind_of_nodes(i, coordinates, steps)
            for i, kind in enumerate(boundary)
        )
    lengths, notes = _lengths(path, shape, nodes, given, steps)
    try:
        grid = Grid(shape, lengths, cast(tuple[Boundary, ...], boundary), cast(tuple[Nodes, ...], nodes))
    except ValueError as error:
        raise ImportedFileError(f"{path}: {error} Change --lengths, --boundary or --nodes.") from error
    origin: dict[str, Scalar] = {}
    for name, ours, theirs, h in zip(AXIS_NAMES, grid.coordinates(), coordinates or (), steps, strict=False):
        if abs(float(theirs[0]) - ours[0]) > _UNIFORM * h:
            origin[f"origin_{name}"] = rounded(float(theirs[0]) - ours[0])
    if not steps and given.nodes is None:
        notes = (*notes, f"points are assumed to be {', '.join(dict.fromkeys(nodes))} nodes (--nodes)")
    if origin:
        starts = _listed(x[0] for x in coordinates or ())
        notes = (*notes, f"coordinates are stored starting at 0; in the file they start at {starts}")
    return grid, origin, notes


def _lengths(
    path: Path, shape: tuple[int, ...], nodes: tuple[str, ...], given: Given, steps: Sequence[float]
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Lengths of the domain, and what was assumed. ``steps`` is the spacing per axis, empty without coordinates."""
    found = tuple(h * (n - 1 if kind == "closed" else n) for h, n, kind in zip(steps, shape, nodes, strict=False))
    lengths = _per_axis(path, "--lengths", given.lengths, len(shape))
    if lengths is None and not steps:
        return (1.0,) * len(shape), ("the file has no coordinates: a domain of length 1 is assumed (--lengths)",)
    if lengths is None:
        return tuple(rounded(length) for length in found), ()
    if steps and not np.allclose(lengths, found, rtol=_UNIFORM):
        raise ImportedFileError(
            f"--lengths {_listed(lengths)} doesn't fit the coordinates in {path}: with nodes {', '.join(nodes)}, their "
            f"lengths are {_listed(found)}. Leave --lengths out, or say with --boundary and --nodes where the points "
            "are."
        )
    return lengths, ()


def _kind_of_nodes(axis: int, coordinates: Sequence[NDArray[Any]] | None, steps: Sequence[float]) -> str:
    if coordinates is None:
        return "closed"
    return "centres" if abs(float(coordinates[axis][0]) - steps[axis] / 2) < _UNIFORM * steps[axis] else "closed"


def _spacing(path: Path, name: str, x: NDArray[Any]) -> float:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ImportedFileError(f"The coordinate {name} in {path} isn't a list of at least two finite numbers.")
    h = float(values[-1] - values[0]) / (len(values) - 1)
    if h <= 0 or np.abs(np.diff(values) - h).max() > _UNIFORM * h:
        raise ImportedFileError(
            f"The coordinate {name} in {path} isn't uniform and increasing. Only uniform grids can be imported: "
            "interpolate the fields to one first."
        )
    return h


def find_times(
    path: Path, n: int, given: Given, found: NDArray[Any] | None, *, first: bool = False
) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Times of n snapshots, and notes on what was assumed.

    Args:
        path: of the file, for messages.
        n: number of snapshots.
        given: times or interval that the user gives.
        found: times in the file, if it has them.
        first: the initial state is stored separately, so the snapshots start one interval after it.

    Raises:
        ImportedFileError: the times don't increase, or don't agree with the file or with what the user says.
    """
    if found is not None:
        if found.shape != (n,) or not np.isfinite(found).all() or (np.diff(found) <= 0).any():
            raise ImportedFileError(
                f"The times in {path} must be {n} increasing numbers, got {found.shape[0]} entries."
            )
        told = tuple(rounded(float(t)) for t in found)
    else:
        told = None
    wanted = given.times
    if given.interval is not None:
        start = told[0] if told else given.interval * first
        wanted = tuple(rounded(start + given.interval * i) for i in range(n))
    if wanted is not None and len(wanted) != n:
        raise ImportedFileError(f"--times has {len(wanted)} entries, but the trajectories in {path} have {n} frames.")
    if wanted is not None and any(b <= a for a, b in pairwise(wanted)):
        raise ImportedFileError(f"Times must increase, got {_listed(wanted)}. Change --times or --interval.")
    if wanted is not None and told is not None and not np.allclose(wanted, told, rtol=1e-4, atol=1e-9):
        raise ImportedFileError(
            f"The times in {path} go from {told[0]:g} to {told[-1]:g}, not from {wanted[0]:g} to {wanted[-1]:g}. Leave "
            "--times and --interval out."
        )
    if told is not None or wanted is not None:
        return told or cast(tuple[float, ...], wanted), ()
    note = "the file has no times: an interval of 1 is assumed (--interval, --times)"
    return tuple(float(i + first) for i in range(n)), (note,)


def from_zero(times: tuple[float, ...]) -> tuple[tuple[float, ...], str]:
    """Times counted from the first one, and the note that says so."""
    note = f"times are counted from the first snapshot, which is at {times[0]:g} in the file"
    return tuple(rounded(t - times[0]) for t in times), note


def _per_axis(path: Path, option: str, values: tuple[Any, ...] | None, n_dims: int) -> tuple[Any, ...] | None:
    if values is None or len(values) == n_dims:
        return values
    if len(values) == 1:
        return values * n_dims
    raise ImportedFileError(f"{option} has {len(values)} entries, but {path} has {n_dims} space axes.")


def rounded(value: float) -> float:
    """Without the last digits, which hold the rounding errors of single precision."""
    return float(f"{value:.6g}")


def _listed(values: Any) -> str:
    return ",".join(f"{float(value):g}" for value in values)
