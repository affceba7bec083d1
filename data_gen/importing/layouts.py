"""Which axes of a pair of arrays are samples, times, channels and space: said by the user, or guessed from the shapes.

A file that holds bare arrays x and y doesn't say it. A guess is told in a note. If two readings are as likely, the file
is refused and the message names the option for each.
"""

from __future__ import annotations

from pathlib import Path

from data_gen.grids import AXIS_NAMES
from data_gen.importing.contents import Given, ImportedFileError

Axes = tuple[str, ...]

SAMPLE, TIME, CHANNEL = "sample", "time", "channel"
# A file with so many entries on an axis that could be times or channels holds times.
_CERTAINLY_TIMES = 10
# A first space axis with at most this many points, and this many times fewer than the second, may be channels.
_THIN = 4
# An axis before two space axes with more points may be a third one.
_MOST_CHANNELS = 10


def find_axes(
    path: Path, x: tuple[int, ...], y: tuple[int, ...], given: Given, *, is_first: bool
) -> tuple[Axes, Axes, tuple[str, ...]]:
    """Names of the axes of the arrays x and y, and a note if they were guessed.

    Args:
        path: of the file, for messages.
        x, y: shapes, with the samples first.
        given: what the user says.
        is_first: the values of x are those of the first entry of y, so y holds times.

    Raises:
        ImportedFileError: the axes that the user gives don't fit, no reading fits, or several do.
    """
    told = given.axes or {}
    if unknown := sorted(set(told) - {"x", "y"}):
        raise ImportedFileError(f"--axes names {', '.join(unknown)}, but {path} holds the arrays x and y.")
    shapes = {"x": x, "y": y}
    for name, axes in told.items():
        _require_fit(path, name, shapes[name], axes, times=name == "y")
    n_dims = _n_dims(next(iter(told.values()))) if told else _guessed_n_dims(path, x, y)
    leads = _leads(x, y, n_dims)
    if leads is None or any(_n_dims(axes) != n_dims for axes in told.values()):
        raise _unfit(path, x, y)
    found, space = dict(told), AXIS_NAMES[:n_dims]
    if "x" not in told:
        found["x"] = (SAMPLE, *(CHANNEL,) * len(leads[0]), *space)
    if "y" not in told:
        n_channels = leads[0][0] if leads[0] else 1
        found["y"] = (SAMPLE, *_lead_of_y(path, x, y, leads[1], n_channels, given, is_first, space), *space)
    unsaid = [f"{name} as {', '.join(found[name])}" for name in "xy" if name not in told]
    is_plain = all(n == 1 for lead in leads for n in lead)
    notes = () if (is_plain and n_dims < 3) or not unsaid else (f"reading {' and '.join(unsaid)} (--axes)",)
    return found["x"], found["y"], notes


def _n_dims(axes: Axes) -> int:
    return sum(name in AXIS_NAMES for name in axes)


def _require_fit(path: Path, name: str, shape: tuple[int, ...], axes: Axes, *, times: bool) -> None:
    allowed = (SAMPLE, *((TIME,) if times else ()), CHANNEL)
    n_dims = _n_dims(axes)
    lead, space = axes[: len(axes) - n_dims], axes[len(axes) - n_dims :]
    if lead[:1] != (SAMPLE,) or not {*lead} <= {*allowed} or len({*lead}) != len(lead) or space != AXIS_NAMES[:n_dims]:
        raise ImportedFileError(
            f"--axes {name}={','.join(axes)}: expected sample, then {' and '.join(allowed[1:])} if the array has them, "
            "then the space axes in the order x, y, z."
        )
    if not n_dims or len(axes) != len(shape):
        raise ImportedFileError(
            f"--axes {name}={','.join(axes)} names {len(axes)} axes, but {name} in {path} has the shape {shape}."
        )


def _guessed_n_dims(path: Path, x: tuple[int, ...], y: tuple[int, ...]) -> int:
    fitting = [n_dims for n_dims in (3, 2, 1) if _leads(x, y, n_dims) is not None]
    if not fitting:
        raise _unfit(path, x, y)
    if fitting[:2] == [3, 2] and len({*x[-3:]}) > 1:  # only a cube is certainly one
        if x[-3] > _MOST_CHANNELS:
            raise _ambiguous(path, x, y, (("x", "sample,x,y,z"), ("x", "sample,channel,x,y")))
        del fitting[0]
    if fitting[:2] == [2, 1] and x[-2] <= _THIN and _THIN * x[-2] <= x[-1]:
        raise _ambiguous(path, x, y, (("x", "sample,x,y"), ("x", "sample,channel,x")))
    return fitting[0]


def _leads(x: tuple[int, ...], y: tuple[int, ...], n_dims: int) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Sizes of the axes between the samples and the space axes, if there can be so many of the latter."""
    of_x, of_y = x[1:-n_dims], y[1:-n_dims]
    fits = len(x) > n_dims and len(y) > n_dims and x[-n_dims:] == y[-n_dims:] and x[0] == y[0]
    return (of_x, of_y) if fits and len(of_x) <= 1 and len(of_y) <= 2 and (n_dims == 1 or x[-n_dims] > 1) else None


def _lead_of_y(
    path: Path,
    x: tuple[int, ...],
    y: tuple[int, ...],
    sizes: tuple[int, ...],
    n_channels: int,
    given: Given,
    is_first: bool,
    space: Axes,
) -> Axes:
    if not sizes:
        return ()
    has_times = given.times is not None or given.interval is not None
    if len(sizes) == 1:
        names = len(given.state) if given.state else None
        if sizes == (1,) or n_channels > 1 or (names == sizes[0] and not has_times):
            return (CHANNEL,)
        if is_first or has_times or names == 1 or sizes[0] >= _CERTAINLY_TIMES:
            return (TIME,)
        options = (("y", ",".join((SAMPLE, kind, *space))) for kind in (TIME, CHANNEL))
        raise _ambiguous(path, x, y, tuple(options))
    orders = ((TIME, CHANNEL), (CHANNEL, TIME))
    fitting = [order for order in orders if dict(zip(order, sizes, strict=True))[CHANNEL] == n_channels]
    if len(fitting) != 1:
        raise _ambiguous(path, x, y, tuple(("y", ",".join((SAMPLE, *order, *space))) for order in orders))
    return fitting[0]


def _ambiguous(
    path: Path, x: tuple[int, ...], y: tuple[int, ...], options: tuple[tuple[str, str], ...]
) -> ImportedFileError:
    said = " or ".join(f"--axes {name}={axes}" for name, axes in options)
    return ImportedFileError(
        f"x and y in {path} have the shapes {x} and {y}, which can be read in more than one way. Say which: {said}."
    )


def _unfit(path: Path, x: tuple[int, ...], y: tuple[int, ...]) -> ImportedFileError:
    return ImportedFileError(
        f"x and y in {path} have the shapes {x} and {y}, expected as many samples and the same points: (sample, x), "
        "(sample, x, y), (sample, x, y, z), or the same with channels, and times in y, before the points. Say what the "
        "axes are, e.g. --axes x=sample,channel,x,y --axes y=sample,time,channel,x,y."
    )
