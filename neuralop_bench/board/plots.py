"""Drawings for the page of a board: SVG in its colours, fields as small PNGs, all inside the page."""

from __future__ import annotations

import base64
import io
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from markupsafe import escape
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from neuralop_bench.evaluation.plotting import STYLE, legend_below, plain_numbers, positive, single
from neuralop_bench.evaluation.statistics import crossed_interval
from neuralop_bench.metrics.bands import BAND_EDGES, BELOW_ROUNDING
from neuralop_bench.records.profile import Fields
from neuralop_bench.records.rung import Rung

# Each colour of the page's style sheet is drawn in a colour that occurs nowhere else, then replaced by its variable.
N_SERIES = 10
_INK, _MUTED, _FAINT = "#0b0b0b", "#0d0d0d", "#0c0c0c"
_VARIABLES = {_INK: "var(--ink)", _MUTED: "var(--muted)", _FAINT: "var(--rule)"} | {
    f"#5e1e0{i}": f"var(--s{i})" for i in range(N_SERIES)
}
_MARKERS = "os^Dv<>PXp"
_DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 1)), (0, (5, 1, 1, 1)))
ERROR_MAP = "magma"

_STYLE: dict[Any, Any] = STYLE | {
    "svg.fonttype": "none",
    "svg.hashsalt": "neuralop-bench",
    "font.size": 8.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _FAINT,
    "lines.markersize": 4.5,
}
# Characters of a name in a legend.
_WIDEST_NAME = 24
_SIZE = (4.6, 3.9)  # inches: as wide as a phone shows without shrinking the text much
_MOST_PIXELS = 192


class Series:
    """The colour, marker and dash of each model, the same in all pictures of a page.

    Args:
        names: of all models; the place of a name decides.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._places = {name: place for place, name in enumerate(dict.fromkeys(names))}

    def style(self, name: str) -> dict[str, Any]:
        """Arguments of matplotlib's ``plot``."""
        turn, place = divmod(self._places[name], N_SERIES)
        return {
            "color": f"#5e1e0{place}",
            "marker": _MARKERS[(place + turn) % len(_MARKERS)],  # another one for each colour that is used again
            "linestyle": _DASHES[turn % len(_DASHES)],
        }


@rc_context(_STYLE)
def error_and_time(
    models: Mapping[str, tuple[float, float, tuple[float, float] | None]],
    rungs: Sequence[Rung],
    series: Series,
    label: str,
) -> str:
    """Error against seconds per trajectory, with the solver's curve and the Pareto front of all.

    Args:
        models: seconds, error and the ends of its interval, by name.
        rungs: of the solver.
        series: looks of the models.
        label: for screen readers.
    """
    figure, axis = single(_SIZE)
    points = [(seconds, error) for seconds, error, _ in models.values()]
    if rungs:
        curve = sorted((rung.seconds, rung.rel_l2, rung.resolution) for rung in rungs)
        points += [(seconds, error) for seconds, error, _ in curve]
        seconds, errors, names = zip(*curve, strict=True)
        axis.plot(seconds, errors, color=_INK, marker="s", markersize=3.5, label="the solver on coarser grids")
        for x, y, name in zip(seconds, errors, names, strict=True):
            axis.annotate(name, (x, y), (4, 4), textcoords="offset points", fontsize=6.5, color=_MUTED)
    front = pareto(points)
    if len(front) > 1:
        x, y = zip(*front, strict=True)
        axis.step(x, y, where="post", color=_MUTED, linewidth=5, alpha=0.28, label="not beaten in both", zorder=1)
    for name, (seconds, error, ends) in models.items():
        look = {**series.style(name), "linestyle": ""}
        reach = None if ends is None else [[error - ends[0]], [ends[1] - error]]
        axis.errorbar([seconds], [error], yerr=reach, label=_shown(name), elinewidth=1, markersize=6, **look)
    axis.set(xlabel="seconds per trajectory, batched", ylabel="relative L2 on test")
    # The solver's error may be as small as rounding. The limits fit the models.
    least = min((error for _, error, _ in models.values()), default=0.0) / 5
    _logarithmic(axis, [point for point in points if point[1] >= least])
    _legend(figure, axis)
    return _svg(figure, label)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that no other point equals or beats in both coordinates, sorted by the first.

    >>> pareto([(1.0, 3.0), (2.0, 2.0), (3.0, 2.5), (4.0, 1.0)])
    [(1.0, 3.0), (2.0, 2.0), (4.0, 1.0)]
    """
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


@rc_context(_STYLE)
def error_and_trials(models: Mapping[str, Sequence[float]], series: Series, label: str) -> str:
    """The least error so far against the number of trials of tuning.

    Args:
        models: errors after 1, 2, ... trials, by name; infinite until the first that finished.
        series, label: as in ``error_and_time``.
    """
    figure, axis = single(_SIZE)
    for name, errors in models.items():
        look = series.style(name)
        axis.step(range(1, len(errors) + 1), errors, where="post", label=_shown(name), markersize=3.5, **look)
    axis.set(xlabel="trials", ylabel="least relative L2 on valid")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _logarithmic(axis, [(1.0, error) for errors in models.values() for error in errors], "y")
    _legend(figure, axis)
    return _svg(figure, label)


@rc_context(_STYLE)
def published_and_reached(
    models: Mapping[str, Sequence[tuple[float, float, tuple[float, float]]]], series: Series, label: str
) -> str:
    """Errors reached here against published ones, with a band of a factor of 1.2 around equality.

    Args:
        models: published value, mean over seeds, least and largest of the seeds, by model.
        series, label: as in ``error_and_time``.
    """
    figure, axis = single(_SIZE)
    for name, values in models.items():
        x, y, ends = map(np.array, zip(*values, strict=True))
        reach = [np.maximum(y - ends[:, 0], 0), np.maximum(ends[:, 1] - y, 0)]
        axis.errorbar(x, y, yerr=reach, label=_shown(name), elinewidth=1, **{**series.style(name), "linestyle": ""})
    everything = [value for values in models.values() for x, y, _ in values for value in (x, y)]
    low, high = min(everything) / 1.4, max(everything) * 1.4
    equal = np.array([low, high])
    axis.plot(equal, equal, color=_MUTED, linewidth=1, zorder=1)
    axis.fill_between(equal, equal / 1.2, equal * 1.2, color=_MUTED, alpha=0.15, linewidth=0, zorder=0)
    axis.set(xlabel="published error", ylabel="error reached here")
    _logarithmic(axis, [(x, y) for values in models.values() for x, y, _ in values])
    _legend(figure, axis)
    return _svg(figure, label)


@rc_context(_STYLE)
def error_over_time(
    models: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]], series: Series, label: str
) -> str:
    """Relative L2 of each step with its 95 % interval.

    Args:
        models: times [T] and errors [seed, sample, T], by name.
        series, label: as in ``error_and_time``.
    """
    figure, axis = single(_SIZE)
    shown: list[tuple[float, float]] = []
    for name, (times, errors) in models.items():
        look = series.style(name)
        intervals = [crossed_interval(errors[:, :, step]) for step in range(errors.shape[2])]
        known = [(time, found) for time, found in zip(times, intervals, strict=True) if found is not None]
        if not known:
            continue
        x = [time for time, _ in known]
        axis.fill_between(
            x, [found.low for _, found in known], [found.high for _, found in known],
            color=look["color"], alpha=0.18, linewidth=0,
        )  # fmt: skip
        y = [found.mean for _, found in known]
        axis.plot(x, y, label=_shown(name), markersize=3.5, **{key: look[key] for key in look})
        shown += [(1.0, value) for value in y]
    axis.set(xlabel="time", ylabel="relative L2 of the step")
    _logarithmic(axis, shown, "y")
    _legend(figure, axis)
    return _svg(figure, label)


@rc_context(_STYLE)
def spectra(
    cycles: NDArray[np.float64],
    reference: NDArray[np.float64],
    models: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
    series: Series,
    label: str,
) -> str:
    """Energy of reference and predictions at the top, relative error of each shell below.

    Args:
        cycles: wavenumbers in cycles per domain, [shell].
        reference: energies, [shell].
        models: energies of prediction and error [shell], by name.
        series, label: as in ``error_and_time``.
    """
    figure = Figure(figsize=(_SIZE[0], 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    # The rest is rounding of float32.
    signal = reference > BELOW_ROUNDING * reference.sum()
    x = cycles[signal]
    above.plot(x, reference[signal], color=_INK, linewidth=2.2, alpha=0.8, label="reference")
    shown: list[tuple[float, float]] = [(1.0, float(value)) for value in reference[signal]]
    ratios: list[tuple[float, float]] = []
    for name, (prediction, error) in models.items():
        look = {**series.style(name), "marker": ""}
        above.plot(x, positive(prediction[signal]), label=_shown(name), **look)
        ratio = np.sqrt(positive(error[signal]) / reference[signal])
        below.plot(x, ratio, **look)
        ratios += [(1.0, float(value)) for value in ratio if np.isfinite(value)]
    below.axhline(1.0, color=_MUTED, linewidth=0.8, linestyle=":")
    above.set(ylabel="energy, last step")
    below.set(xlabel="cycles per domain", ylabel="error / reference")
    for axis in (above, below):
        for edge in BAND_EDGES:
            axis.axvline(edge, color=_MUTED, linewidth=0.7, linestyle=":")
    _logarithmic(above, [(value, y) for value, (_, y) in zip(x, shown, strict=True)])
    _logarithmic(below, ratios, "y")
    _legend(figure, above)
    return _svg(figure, label)


@rc_context(_STYLE)
def lines(fields: Fields, color: str, label: str) -> str:
    """Reference, prediction and error in one space dimension.

    Args:
        fields: of a profile.
        color: a name of ``Series.style``.
        label: as in ``error_and_time``.
    """
    figure = Figure(figsize=(3.2, 2.3), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    x = np.arange(len(fields.reference)) * fields.lengths[0] / len(fields.reference)
    above.plot(x, fields.reference, color=_INK, linewidth=2.2, alpha=0.5)
    if fields.prediction is not None and fields.error is not None:
        above.plot(x, fields.prediction, color=color, linewidth=1)
        below.plot(x, fields.error, color=color, linewidth=1)
    above.set_ylabel(fields.name)
    below.set(ylabel="error", xlabel="x")
    return _svg(figure, label)


def image(values: NDArray[np.float64], limits: tuple[float, float], colours: str) -> str:
    """A field [x, y] as the data URI of a PNG, x to the right and y up."""
    low, high = limits
    scaled = np.clip((values - low) / (high - low if high > low else 1.0), 0, 1)
    picture = Image.fromarray(np.rint(scaled.T[::-1] * 255).astype(np.uint8)).convert("P")
    table = (np.asarray(mpl.colormaps[colours](np.arange(256)))[:, :3] * 255).round().astype(np.uint8)
    picture.putpalette(table.tobytes())
    factor = max(1, _MOST_PIXELS // max(picture.size))
    if factor > 1 and max(picture.size) < 48:  # a browser would blur so few pixels or show them as tiles
        picture = picture.resize([n * factor for n in picture.size], Image.Resampling.NEAREST)
    raw = io.BytesIO()
    picture.save(raw, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(raw.getvalue()).decode("ascii")


def standalone(svg: str, colours: Mapping[str, str]) -> str:
    """A drawing as a separate file, with fixed colours and a background.

    Args:
        svg: of a function above.
        colours: by the name of the page's variable.
    """
    for name, colour in colours.items():
        svg = svg.replace(f"var({name})", colour)
    opening, rest = svg.split(">", 1)
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', opening)
    assert box is not None
    width, height = box.groups()
    root = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {opening[5:]}'
    size = f'width="{width}" height="{height}" font-family="system-ui, sans-serif"'
    paper = f'<rect width="{width}" height="{height}" fill="{colours["--paper"]}"/>'
    return f"{root} {size}>{paper}{rest}\n"


def _shown(name: str) -> str:
    """A name for matplotlib, where a dollar sign starts a formula and a leading underscore hides a label."""
    plain = "".join(letter if letter.isprintable() else " " for letter in name)
    plain = plain if len(plain) <= _WIDEST_NAME else plain[: _WIDEST_NAME - 1] + "…"
    return ("\u200a" if plain.startswith("_") else "") + plain.replace("$", r"\$")


def _logarithmic(axis: Axes, points: Sequence[tuple[float, float]], which: str = "xy") -> None:
    """Logarithmic scales with plain numbers, with limits that fit the points; intervals may reach far beyond."""
    axes: tuple[tuple[Literal["x", "y"], int], ...] = (("x", 0), ("y", 1))
    for name, index in axes:
        values = [point[index] for point in points if np.isfinite(point[index]) and point[index] > 0]
        if name not in which or not values:
            continue
        low, high = min(values), max(values)
        axis.set(**{f"{name}scale": "log", f"{name}lim": (low / 1.4, high * 1.4)})
        if low > 1e-3:
            plain_numbers(axis, name, low, high)


def _legend(figure: Figure, axis: Axes) -> None:
    legend_below(figure, axis, 3, columnspacing=1.2, handletextpad=0.5)


def _svg(figure: Figure, label: str) -> str:
    """The drawing alone, in the page's colours and fonts, with identifiers that are unique on the page."""
    raw = io.StringIO()
    with warnings.catch_warnings():
        # The browser has letters that matplotlib's own font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(raw, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = raw.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)  # names of tick labels and models
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    for drawn, variable in _VARIABLES.items():
        text = text.replace(drawn, variable)
    prefix = f"{zlib.crc32(text.encode()):08x}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}", text)
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None
    return f'<svg {box.group()} role="img" aria-label="{escape(label)}" class="plot">{rest.strip()}'
