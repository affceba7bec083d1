"""Pictures of fields: reference, prediction and error of one sample of a run, and samples of a dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.evaluation.plotting import (
    ERROR,
    FIELD_MAP,
    PAGE_WIDTH,
    PREDICTION,
    REFERENCE,
    RUN_STYLE,
    legend_below,
)

ERROR_MAP = "magma_r"
_N_COLUMNS = 5


@rc_context(RUN_STYLE)
def sample_figure(
    prediction: NDArray[np.floating],
    target: NDArray[np.floating],
    times: NDArray[np.floating],
    spec: DatasetSpec,
    *,
    static: NDArray[np.floating] | None = None,
    title: str = "",
) -> Figure:
    """Reference, prediction and error of one sample at up to five times.

    The first channel is drawn, in three space dimensions on the plane in the middle of the last axis. A prediction is
    grey where it isn't finite.

    Args:
        prediction, target: [T, C, *S].
        times: of the snapshots, [T].
        spec: names, units and grid.
        static: coefficient fields [C_s, *S]; for a single step, the first is drawn, too.
        title: above the figure.
    """
    chosen = np.unique(np.linspace(0, len(times) - 1, min(_N_COLUMNS, len(times))).round().astype(int))
    p, u = (np.asarray(x, np.float64)[chosen, 0] for x in (prediction, target))
    field = _name(spec.state[0])
    where = ""
    if u.ndim == 4:
        middle = u.shape[-1] // 2
        p, u = p[..., middle], u[..., middle]
        static = None if static is None else static[..., middle]
        where = f", plane {spec.grid.axis_names[2]} = {spec.grid.coordinates()[2][middle]:g}"
    title = "\n".join(line for line in (title, f"{field}{where}") if line)
    heads = [""] if spec.is_steady else [f"t = {time:g}" for time in times[chosen]]
    if u.ndim == 2:
        return _draw_lines(p, u, heads, spec, title)
    if len(u) == 1:
        beside = None if static is None or not len(static) else static[0]
        return _draw_single(p[0], u[0], beside, spec, title if spec.is_steady else f"{title}, {heads[0]}")
    return _draw_maps(p, u, heads, spec, title)


@rc_context(RUN_STYLE)
def data_figure(
    states: NDArray[np.floating], static: NDArray[np.floating], spec: DatasetSpec, *, title: str = ""
) -> Figure:
    """Samples of a dataset: one row each, with the first coefficient (if there is one) and up to five snapshots.

    The first state field is drawn, in three space dimensions on the plane in the middle of the last axis.

    Args:
        states: [sample, T, C, *S].
        static: [sample, C_s, *S]; C_s may be 0.
        spec: names, units, times and grid.
        title: above the figure.
    """
    times = np.array(spec.times or (0.0,))
    chosen = np.unique(np.linspace(0, len(times) - 1, min(_N_COLUMNS, len(times))).round().astype(int))
    fields = np.asarray(states[:, chosen, 0], np.float64)
    coefficient = np.asarray(static[:, 0], np.float64) if static.shape[1] else None
    if spec.grid.n_dims == 3:
        middle = spec.grid.shape[2] // 2
        fields, coefficient = fields[..., middle], None if coefficient is None else coefficient[..., middle]
    heads = [""] if spec.is_steady else [f"t = {time:g}" for time in times[chosen]]
    title = "\n".join(line for line in (title, _name(spec.state[0])) if line)
    if spec.grid.n_dims == 1:
        return _draw_curves(fields, heads, spec, title)
    columns = len(heads) + (coefficient is not None)
    width = min((PAGE_WIDTH - 0.6) / columns, 2.4)
    height = min(max(width * spec.grid.lengths[1] / spec.grid.lengths[0], 0.75), 3 * width)
    figure = Figure(figsize=(width * columns + 0.6, height * len(fields) + 1.2), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(len(fields), columns, squeeze=False)
    first = columns - len(heads)
    images = [
        _show(axis, frame, spec, FIELD_MAP, _limits(fields))
        for row, sample in zip(panels[:, first:], fields, strict=True)
        for axis, frame in zip(row, sample, strict=True)
    ]
    figure.colorbar(images[0], ax=list(panels[-1, first:]), location="bottom", pad=0.05, aspect=40)
    if coefficient is not None:
        shown = [
            _show(axis, frame, spec, "cividis", _limits(coefficient))
            for axis, frame in zip(panels[:, 0], coefficient, strict=True)
        ]
        figure.colorbar(shown[0], ax=panels[-1, 0], location="bottom", pad=0.05, aspect=16)
        panels[0, 0].set_title(_name(spec.static[0]))
    for axis, head in zip(panels[0, first:], heads, strict=True):
        axis.set_title(head)
    for number, row in enumerate(panels):
        row[0].set_ylabel(f"sample {number}\ny")
        for axis in row:
            axis.tick_params(labelleft=axis is row[0], labelbottom=axis in panels[-1])
    return figure


def _draw_curves(fields: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str) -> Figure:
    """[sample, T, n]: a panel for each sample; earlier snapshots have fainter lines."""
    figure = Figure(figsize=(PAGE_WIDTH, 1.5 * len(fields) + 1.0), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(len(fields), 1, sharex=True, squeeze=False)[:, 0]
    (x,) = spec.grid.coordinates()
    for number, (axis, sample) in enumerate(zip(panels, fields, strict=True)):
        for i, (head, values) in enumerate(zip(heads, sample, strict=True)):
            last = i == len(heads) - 1
            axis.plot(x, values, color=PREDICTION if last else REFERENCE, linestyle="-" if last else "--", label=head)
            axis.get_lines()[-1].set_alpha(0.35 + 0.65 * (i + 1) / len(heads))
        axis.set_ylabel(f"sample {number}")
    panels[-1].set_xlabel("x")
    if heads != [""]:
        legend_below(figure, panels[0])
    return figure


def _draw_lines(
    p: NDArray[np.float64], u: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str
) -> Figure:
    """[T, n]: fields at the top; the error below, with its own scale."""
    figure = Figure(figsize=(max(PAGE_WIDTH * len(u) / _N_COLUMNS, 4.2), 3.6), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(2, len(u), sharex=True, sharey="row", squeeze=False, height_ratios=(2, 1))
    (x,) = spec.grid.coordinates()
    for above, below, head, prediction, target in zip(*panels, heads, p, u, strict=True):
        above.plot(x, target, color=REFERENCE, label="reference")
        above.plot(x, _finite(prediction), color=PREDICTION, linestyle="--", label="prediction")
        below.plot(x, _finite(prediction - target), color=ERROR, label="prediction - reference")
        above.set_title(head)
        below.set_xlabel("x")
        below.locator_params(axis="x", nbins=3)
    panels[0, 0].set_ylabel(_name(spec.state[0]))
    panels[1, 0].set_ylabel("error")
    lines = [*panels[0, 0].get_lines(), *panels[1, 0].get_lines()]
    figure.legend(handles=lines, loc="outside lower center", ncols=3)
    return figure


def _draw_maps(
    p: NDArray[np.float64], u: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str
) -> Figure:
    """[T, n_x, n_y]: one row each of reference, prediction and error, with a common scale per row."""
    longest, tallest = spec.grid.lengths[0], spec.grid.lengths[1]
    width = min((PAGE_WIDTH - 1.2) / len(u), 2.0)
    height = min(max(width * tallest / longest, 0.75), 3 * width)  # a row is at least as high as its label
    figure = Figure(figsize=(width * len(u) + 1.2, 3 * height + 1.0), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(3, len(u), squeeze=False)
    limits = _limits(u)
    error = np.abs(p - u)
    rows = (
        ("reference", u, FIELD_MAP, limits),
        ("prediction", p, FIELD_MAP, limits),
        ("|error|", error, ERROR_MAP, _error_limits(error)),
    )
    for row, (label, values, colours, scale) in zip(panels, rows, strict=True):
        images = [_show(axis, frame, spec, colours, scale) for axis, frame in zip(row, values, strict=True)]
        for axis in row:
            axis.tick_params(labelleft=axis is row[0], labelbottom=axis in panels[-1])
        row[0].set_ylabel(f"{label}\ny")
        figure.colorbar(images[0], ax=list(row), pad=0.01, aspect=16)
    for axis, head in zip(panels[0], heads, strict=True):
        axis.set_title(head)
    for axis in panels[-1]:
        axis.set_xlabel("x")
    return figure


def _draw_single(
    p: NDArray[np.float64],
    u: NDArray[np.float64],
    static: NDArray[np.floating] | None,
    spec: DatasetSpec,
    title: str,
) -> Figure:
    """[n_x, n_y]: coefficient, reference, prediction and error in a row."""
    error, limits = np.abs(p - u), _limits(u)
    columns = [
        ("reference", u, FIELD_MAP, limits),
        ("prediction", p, FIELD_MAP, limits),
        ("|error|", error, ERROR_MAP, _error_limits(error)),
    ]
    if static is not None:
        columns.insert(0, (_name(spec.static[0]), np.asarray(static, np.float64), "cividis", _limits(static)))
    width = PAGE_WIDTH / 4
    height = min(max(width * spec.grid.lengths[1] / spec.grid.lengths[0], 0.6), 3 * width)
    figure = Figure(figsize=(width * len(columns), height + 1.2), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, (label, values, colours, scale) in zip(panels, columns, strict=True):
        image = _show(axis, values, spec, colours, scale)
        axis.set(title=label, xlabel="x")
        axis.tick_params(labelleft=axis is panels[0])
        figure.colorbar(image, ax=axis, location="bottom", pad=0.03, aspect=16).locator = MaxNLocator(3)
    panels[0].set_ylabel("y")
    return figure


def _show(
    axis: Axes, frame: NDArray[np.float64], spec: DatasetSpec, colours: str, limits: tuple[float, float]
) -> AxesImage:
    (width, height), (low, high) = spec.grid.lengths[:2], limits
    # The first index is x: transposed, so that x runs to the right and y up.
    image = axis.imshow(
        np.ma.masked_invalid(frame.T), origin="lower", extent=(0, width, 0, height), cmap=colours, vmin=low, vmax=high
    )
    axis.set_facecolor("0.7")
    axis.grid(visible=False)
    axis.set_xticks([0, width])
    axis.set_yticks([0, height])
    axis.spines[:].set_visible(True)
    return image


def _limits(values: NDArray[np.floating]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _error_limits(error: NDArray[np.float64]) -> tuple[float, float]:
    finite = error[np.isfinite(error)]
    return 0.0, float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _name(field: FieldSpec) -> str:
    return field.name if field.unit in ("", "1") else f"{field.name} [{field.unit}]"
