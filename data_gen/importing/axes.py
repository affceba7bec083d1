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
from data_gen.spec import Scalar, even_step

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
        The grid; parameters ``origin_x`` to ``origin_z``, by which the file's coordinates are larger than
        those of our grid, where they are; and notes on what was assumed.

    Raises:
        ImportedFileError: the coordinates aren't uniform, or don't agree with the shape or with what the user says.
    """
    n_dims = len(shape)
    boundary = per_axis(path, "--boundary", given.boundary, n_dims) or default
    nodes = per_axis(path, "--nodes", given.nodes, n_dims)
    if coordinates is not None and tuple(len(x) for x in coordinates) != shape:
        raise ImportedFileError(
            f"The coordinates in {path} have {', '.join(str(len(x)) for x in coordinates)} points, but the fields have "
            f"{', '.join(map(str, shape))}. Either the axes aren't in the order samples, times, space, or the file has "
            "another format than the one named."
        )
    steps = [_spacing(path, name, x) for name, x in zip(AXIS_NAMES, coordinates or (), strict=False)]
    guessed = tuple(map(kind_of_nodes, coordinates)) if coordinates is not None else ("closed",) * n_dims
    told = _nodes_notes(boundary, nodes, coordinates, steps, guessed)
    if nodes is None:
        nodes = tuple(
            "periodic" if kind == "periodic" else guess for kind, guess in zip(boundary, guessed, strict=True)
        )
    lengths, notes = _lengths(path, shape, nodes, given, steps)
    notes = (*told, *notes)
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
    lengths = per_axis(path, "--lengths", given.lengths, len(shape))
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


def kind_of_nodes(x: NDArray[Any]) -> str:
    """Whether coordinates are those of ``closed`` nodes or of cell ``centres``: those that start at 0 or at half a step
    say so, and otherwise the domain with the rounder ends is taken.

    >>> kind_of_nodes(np.linspace(-1, 1, 33)), kind_of_nodes(-1 + (np.arange(32) + 0.5) / 16)
    ('closed', 'centres')
    """
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        return "closed"
    first, last = float(values[0]), float(values[-1])
    h = (last - first) / (len(values) - 1)
    if not h > 0 or abs(first) < _UNIFORM * h:
        return "closed"
    if abs(first - h / 2) < _UNIFORM * h:
        return "centres"
    return "centres" if _digits(first - h / 2, last + h / 2, h) < _digits(first, last, h) else "closed"


def _digits(first: float, last: float, h: float) -> int:
    """Digits that it takes to write the ends of a domain, as they are or as multiples of pi, to a hundredth of h."""
    found = []
    for unit in (1.0, np.pi):
        places = int(np.ceil(2 - np.log10(h / unit)))
        ends = (round(end / unit, places) for end in (first, last))
        found.append(sum(len(f"{abs(end):.15g}".split("e")[0].replace(".", "").strip("0")) for end in ends))
    return min(found)


def _nodes_notes(
    boundary: Sequence[str],
    nodes: Sequence[str] | None,
    coordinates: Sequence[NDArray[Any]] | None,
    steps: Sequence[float],
    guessed: Sequence[str],
) -> tuple[str, ...]:
    """How the coordinates were read where there are two ways, and what the user says against them."""
    notes = []
    for axis, (x, h) in enumerate(zip(coordinates or (), steps, strict=True)):
        if boundary[axis] == "periodic" or (nodes is not None and nodes[axis] == guessed[axis]):
            continue
        first, last = float(x[0]), float(x[-1])
        read = {"closed": f"nodes at both ends of [{first:g}, {last:g}]"}
        ends = (0.0 if abs(end) < _UNIFORM * h else rounded(end) for end in (first - h / 2, last + h / 2))
        read["centres"] = "cell centres of [{:g}, {:g}]".format(*ends)
        found = f"{AXIS_NAMES[axis]} from {first:g} to {last:g} in steps of {rounded(h):g}"
        if nodes is None:
            notes.append(f"{found}: read as {read[guessed[axis]]} (--nodes)")
        elif nodes[axis] in read:
            guess = read[guessed[axis]]
            notes.append(f"{found}: read as {read[nodes[axis]]}, as --nodes says, but they look like {guess}")
    return tuple(notes)


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
        told = _rounded_times(found)
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
        known = told or cast(tuple[float, ...], wanted)
        return known, _uneven(known)
    note = "the file has no times: an interval of 1 is assumed (--interval, --times)"
    return tuple(float(i + first) for i in range(n)), (note,)


def _rounded_times(times: NDArray[Any]) -> tuple[float, ...]:
    """Without rounding errors of single precision, but still apart if they are large and close to each other."""
    told = tuple(rounded(float(t)) for t in times)
    step = float(np.diff(times).min()) if len(times) > 1 else np.inf
    if np.abs(told - times).max() <= _UNIFORM * step:
        return told
    return tuple(round(float(t), int(3 - np.floor(np.log10(step)))) for t in times)


def _uneven(times: tuple[float, ...]) -> tuple[str, ...]:
    if len(times) < 3 or even_step(times) is not None:
        return ()
    steps = np.diff(times)
    return (
        f"times aren't even: their steps go from {steps.min():g} to {steps.max():g}. A model isn't told how long a "
        "step is, so one that predicts frame by frame takes all of them to be alike",
    )


def from_zero(times: tuple[float, ...]) -> tuple[tuple[float, ...], str]:
    """Times counted from the first one, and the note that says so."""
    note = f"times are counted from the first snapshot, which is at {times[0]:g} in the file"
    return tuple(rounded(t - times[0]) for t in times), note


def per_axis(path: Path, option: str, values: tuple[Any, ...] | None, n_dims: int) -> tuple[Any, ...] | None:
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
