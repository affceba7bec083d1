"""What all figures share, those of runs and those of boards: style, logarithmic axes, legends. Needs no torch."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

# Okabe & Ito (2008): black, blue, vermilion. The colours of a run's figures.
REFERENCE, PREDICTION, ERROR = "#000000", "#0072B2", "#D55E00"
FIELD_MAP = "viridis"
PAGE_WIDTH = 7.2  # inches between the margins

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "legend.frameon": False,
    "legend.fontsize": 8,
}

RUN_STYLE: dict[Any, Any] = STYLE | {
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 9,
    "lines.markersize": 3.5,
    "grid.color": "0.9",
}

# A range below this factor gets plain numbers on its axis instead of powers of ten.
_FEW_DECADES = 300


def single(size: tuple[float, float], title: str = "") -> tuple[Figure, Axes]:
    """A figure of one panel, ``size`` in inches."""
    figure = Figure(figsize=size, layout="constrained")
    if title:
        figure.suptitle(title, wrap=True)
    return figure, figure.subplots()


def positive(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """What a logarithmic axis can show; NaN elsewhere."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def plain_numbers(axis: Axes, which: Literal["x", "y"], low: float, high: float) -> None:
    """Write a logarithmic axis that spans few decades, from low to high, with plain numbers: 1, 2 and 5, or closer."""
    if high < _FEW_DECADES * low:
        ticks = axis.xaxis if which == "x" else axis.yaxis
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(4))
        ticks.set_major_formatter("{x:g}")
        ticks.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, axis: Axes, n_columns: int = 0, columnspacing: float = 1.5, **spacing: float) -> None:
    """The legend of a panel, outside, where it can't cover a line; none if nothing has a label.

    ``n_columns``: one per label up to three, otherwise two, if it is 0.
    """
    handles, labels = axis.get_legend_handles_labels()
    n_columns = n_columns or (len(labels) if len(labels) <= 3 else 2)
    if handles:
        figure.legend(
            handles, labels, loc="outside lower center", ncols=n_columns, columnspacing=columnspacing, **spacing
        )
