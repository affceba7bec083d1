"""Guesses from the values of a file: the boundary condition of each axis, and whether the file holds both its ends.

Each guess is told with its reason. What the user says is kept, and a note says so if the values contradict it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import AXIS_NAMES
from data_gen.importing.axes import kind_of_nodes, per_axis
from data_gen.importing.contents import Given
from data_gen.spec import Samples

# Samples that are looked at, spread over the file, and the memory that they may take.
_N_LOOKED_AT = 16
_BYTES = 2**27
# Differences that count as rounding: relative to the largest value, as in single precision, but at most, and at least,
# so much relative to the standard deviation.
_ROUNDING, _LARGEST, _SMALLEST = 1e-6, 1e-2, 1e-5
# Smooth periodic fields differ from the last point to the first one as much as between other neighbours.
_SEAM = 3.0


def some_samples(read: Callable[[NDArray[np.int64]], Samples], n_samples: int, n_values: int) -> Samples:
    """A few samples, in double precision. Those with values that a file of ours can't hold are left out.

    Args:
        read: of the file.
        n_samples: in it.
        n_values: of one sample.
    """
    n = min(n_samples, _N_LOOKED_AT, max(2, _BYTES // (8 * max(1, n_values))))
    with np.errstate(invalid="ignore", over="ignore"):
        found = read(np.unique(np.linspace(0, n_samples - 1, n).astype(np.int64)))
        history, static, trajectory = (np.asarray(values, dtype=np.float64) for values in found[:3])
        finite = np.isfinite(trajectory.astype(np.float32)).all(axis=tuple(range(1, trajectory.ndim)))
    return Samples(history[finite], static[finite], trajectory[finite])


def same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether arrays are equal, but for rounding. Constant and empty ones tell nothing."""
    if not one.size or float(np.ptp(one)) == 0:
        return False
    return bool(np.abs(one - other).max() <= _rounding(one))


def _rounding(values: NDArray[Any]) -> float:
    spread = float(values.std())
    return max(_SMALLEST * spread, min(_LARGEST * spread, _ROUNDING * float(np.abs(values).max())))


@dataclass(frozen=True)
class _Ends:
    """What the values at both ends of an axis show.

    are_equal: the ends hold the same values, these vary, and the fields aren't symmetric about the middle.
    first, last: the values there are one constant per field.
    has_seam: the ends differ far more than neighbours do.
    """

    are_equal: bool
    first: bool
    last: bool
    has_seam: bool


def guess_boundary(
    path: Path,
    values: NDArray[np.floating],
    given: Given,
    coordinates: Sequence[NDArray[Any]] | None,
    *,
    is_steady: bool,
) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Boundary conditions of a file that doesn't state them.

    Args:
        path: of the file, for messages.
        values: some of its solutions, [sample, time, field, *space].
        given: what the user says.
        coordinates: positions of the points along each axis, if the file has them.
        is_steady: whether the problem is steady.

    Returns:
        Per axis, the boundary condition and the number of points to leave out at the end (1 if a periodic axis holds
        both its ends); and notes.

    Raises:
        ImportedFileError: the user gives entries for another number of axes.
    """
    n_dims = values.ndim - 3
    boundary = per_axis(path, "--boundary", given.boundary, n_dims)
    nodes = per_axis(path, "--nodes", given.nodes, n_dims)
    found: list[str] = []
    cuts: list[int] = []
    reasons: dict[str, list[str]] = {}
    for axis, name in enumerate(AXIS_NAMES[:n_dims]):
        ends = _look(values, 3 + axis)
        kind = nodes[axis] if nodes else kind_of_nodes(coordinates[axis]) if coordinates is not None else None
        if boundary is None:
            chosen, reason = _steady(ends, kind) if is_steady else _evolving(ends, kind, said=nodes is not None)
        else:
            chosen, reason = boundary[axis], _contradiction(ends, boundary[axis], kind)
        found.append(chosen)
        cuts.append(int(chosen == "periodic" and ends.are_equal))
        if cuts[-1]:
            reason = (
                "the values at both ends are equal, so a periodic axis holds both its ends: the last point is left out"
            )
        if reason:
            reasons.setdefault(reason, []).append(name)
    notes = tuple(f"{' and '.join(names)}: {reason} (--boundary)" for reason, names in reasons.items())
    return tuple(found), tuple(cuts), notes


def _steady(ends: _Ends, kind: str | None) -> tuple[str, str]:
    if kind == "centres":
        return "dirichlet", (
            "this is a steady problem: dirichlet boundaries are assumed, which values at cell centres can't show"
        )
    if kind == "periodic" or ends.are_equal:
        return "periodic", "periodic boundaries follow from --nodes periodic"
    if ends.first and ends.last:
        return "dirichlet", "dirichlet, since the solution is constant at both ends"
    where = "at the first point alone" if ends.first else "at the last point alone" if ends.last else "at neither end"
    return "open", (
        f"open, since the solution of this steady problem is constant {where}, and dirichlet with nodes at both ends "
        "needs both"
    )


def _evolving(ends: _Ends, kind: str | None, *, said: bool) -> tuple[str, str]:
    if ends.are_equal and not said:
        return "periodic", ""
    if ends.first and ends.last and kind != "centres":
        return "dirichlet", "dirichlet, since the values at both ends are constant"
    if said and kind != "periodic":
        return "open", f"open, since {kind} nodes aren't those of a periodic axis"
    if ends.has_seam and not said:
        return "open", "open, since the values at both ends differ far more than those of neighbours do"
    return "periodic", "periodic boundaries are assumed; the values don't contradict it"


def _contradiction(ends: _Ends, boundary: str, kind: str | None) -> str:
    """What in the values contradicts a boundary that the user gives; an empty string if nothing does."""
    if boundary == "periodic":
        contradicted = ends.has_seam and not ends.are_equal
        return (
            "periodic, but the values at both ends differ far more than those of neighbours do" if contradicted else ""
        )
    if ends.are_equal and kind != "centres":
        return f"{boundary}, but the values at both ends are equal, as if a periodic axis held both its ends"
    if boundary == "dirichlet" and kind != "centres" and not (ends.first and ends.last):
        return (
            "dirichlet with nodes at both ends, but the values there aren't constant: models that impose them are "
            "refused. If the points are cell centres, add --nodes centres; otherwise use --boundary open"
        )
    if kind == "centres" and ends.first and ends.last:
        return "nodes are cell centres, but the values at both ends are constant, as if they lay on the boundary"
    return ""


def _look(values: NDArray[np.floating], axis: int) -> _Ends:
    if not values.size or values.shape[axis] < 3:
        return _Ends(are_equal=False, first=False, last=False, has_seam=False)
    kept = [c for c in range(values.shape[2]) if np.ptp(values[:, :, c]) > 0]
    equal, symmetric, constant_first, constant_last, seams = [], [], [], [], []
    for channel in kept:
        moved = np.moveaxis(values[:, :, channel], axis - 1, -1)  # [sample, time, *others, along]
        first, last = moved[..., 0], moved[..., -1]
        tolerance = _rounding(moved)
        equal.append(bool(np.abs(first - last).max() <= tolerance))
        symmetric.append(bool(np.abs(moved[..., 1] - moved[..., -2]).max() <= tolerance))
        constant_first.append(bool(np.ptp(first) <= tolerance))
        constant_last.append(bool(np.ptp(last) <= tolerance))
        across = np.square(first - last).mean(axis=tuple(range(2, first.ndim)))
        inside = float(np.square(np.diff(moved, axis=-1)).mean())
        seams.append(float(np.median(across)) > _SEAM**2 * inside)
    any_kept = bool(kept)
    return _Ends(
        are_equal=any_kept and all(equal) and not all(symmetric) and not all(constant_first),
        first=any_kept and all(constant_first),
        last=any_kept and all(constant_last),
        has_seam=any(seams),
    )
