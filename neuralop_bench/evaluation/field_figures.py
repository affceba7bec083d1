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
from neuralop_bench.surrogate.projection import mask_channel

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

    Every field has rows of its own. In three space dimensions, the plane in the middle of the last axis is drawn. A
    prediction is grey where it isn't finite; so is everything where the equation doesn't hold (``spec.mask``).

    Args:
        prediction, target: [T, C, *S].
        times: of the snapshots, [T].
        spec: names, units and grid.
        static: coefficient fields [C_s, *S]; for a single step, the first is drawn, too.
        title: above the figure.
    """
    chosen = np.unique(np.linspace(0, len(times) - 1, min(_N_COLUMNS, len(times))).round().astype(int))
    where, (p, u) = _planar(spec, *(_masked(x[chosen], static, spec) for x in (prediction, target)))
    title = "\n".join(line for line in (title, f"{_names(spec)}{where}") if line)
    heads = [""] if spec.is_steady else [f"t = {time:g}" for time in times[chosen]]
    if spec.grid.n_dims == 1:
        return _draw_lines(p, u, heads, spec, title)
    if len(u) == 1:
        beside = _planar(spec, np.asarray(static[0], np.float64))[1][0] if static is not None and len(static) else None
        return _draw_single(p[0], u[0], beside, spec, title if spec.is_steady else f"{title}, {heads[0]}")
    return _draw_maps(p, u, heads, spec, title)


@rc_context(RUN_STYLE)
def data_figure(
    states: NDArray[np.floating], static: NDArray[np.floating], spec: DatasetSpec, *, title: str = ""
) -> Figure:
    """Samples of a dataset, with a row for each field: the first coefficient (if there is one), and up to five
    snapshots.

    In three space dimensions, the plane in the middle of the last axis is drawn.

    Args:
        states: [sample, T, C, *S].
        static: [sample, C_s, *S]; C_s may be 0.
        spec: names, units, times and grid.
        title: above the figure.
    """
    times = np.array(spec.times or (0.0,))
    chosen = np.unique(np.linspace(0, len(times) - 1, min(_N_COLUMNS, len(times))).round().astype(int))
    where, (fields,) = _planar(spec, _masked(states[:, chosen], static, spec))
    coefficient = _planar(spec, np.asarray(static[:, 0], np.float64))[1][0] if static.shape[1] else None
    heads = [""] if spec.is_steady else [f"t = {time:g}" for time in times[chosen]]
    title = "\n".join(line for line in (title, f"{_names(spec)}{where}") if line)
    if spec.grid.n_dims == 1:
        return _draw_curves(fields, heads, spec, title)
    n_fields = len(spec.state)
    columns = len(heads) + (coefficient is not None)
    width = min((PAGE_WIDTH - 0.6) / columns, 2.4)
    height = min(max(width * spec.grid.lengths[1] / spec.grid.lengths[0], 0.75), 3 * width)
    figure = Figure(figsize=(width * columns + 0.6, height * len(fields) * n_fields + 1.2), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(len(fields) * n_fields, columns, squeeze=False)
    first = columns - len(heads)
    for channel, entry in enumerate(spec.state):
        rows, limits = panels[channel::n_fields, first:], _limits(fields[:, :, channel])
        images = [
            _show(axis, frame, spec, FIELD_MAP, limits)
            for row, sample in zip(rows, fields[:, :, channel], strict=True)
            for axis, frame in zip(row, sample, strict=True)
        ]
        if n_fields == 1:
            figure.colorbar(images[0], ax=list(rows[-1]), location="bottom", pad=0.05, aspect=40)
        else:
            for row in rows:
                figure.colorbar(images[0], ax=list(row), pad=0.01, aspect=16)
        for number, row in enumerate(panels[channel::n_fields]):
            row[first].set_ylabel(f"{entry.name}, y" if n_fields > 1 else "")
            row[0].set_ylabel(f"sample {number}\n{row[0].get_ylabel() or 'y'}")
    if coefficient is not None:
        shown = [
            _show(axis, frame, spec, "cividis", _limits(coefficient))
            for axis, frame in zip(panels[::n_fields, 0], coefficient, strict=True)
        ]
        figure.colorbar(shown[0], ax=panels[-n_fields, 0], location="bottom", pad=0.05, aspect=16)
        panels[0, 0].set_title(_name(spec.static[0]))
        for axis in panels[:, 0]:
            axis.set_visible(bool(axis.images))
    for axis, head in zip(panels[0, first:], heads, strict=True):
        axis.set_title(head)
    for row in panels:
        for axis in row:
            axis.tick_params(labelleft=axis is row[0], labelbottom=axis in panels[-1])
    return figure


def _draw_curves(fields: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str) -> Figure:
    """[sample, T, C, n]: a row for each sample, a column for each field; earlier snapshots have fainter lines."""
    n_fields = len(spec.state)
    figure = Figure(figsize=(PAGE_WIDTH, 1.5 * len(fields) + 1.0), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(len(fields), n_fields, sharex=True, squeeze=False)
    (x,) = spec.grid.coordinates()
    for number, (row, sample) in enumerate(zip(panels, fields, strict=True)):
        for channel, axis in enumerate(row):
            for i, (head, values) in enumerate(zip(heads, sample[:, channel], strict=True)):
                last = i == len(heads) - 1
                axis.plot(x, values, color=PREDICTION if last else REFERENCE, linestyle="-" if last else "--")
                axis.get_lines()[-1].set(alpha=0.35 + 0.65 * (i + 1) / len(heads), label=head)
        row[0].set_ylabel(f"sample {number}")
    for axis, entry in zip(panels[0], spec.state, strict=True):
        axis.set_title(entry.name if n_fields > 1 else "")
    for axis in panels[-1]:
        axis.set_xlabel("x")
    if heads != [""]:
        legend_below(figure, panels[0, 0])
    return figure


def _draw_lines(
    p: NDArray[np.float64], u: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str
) -> Figure:
    """[T, C, n]: for each field its values at the top; the error below, with its own scale."""
    n_fields = len(spec.state)
    figure = Figure(figsize=(max(PAGE_WIDTH * len(u) / _N_COLUMNS, 4.2), 2.6 * n_fields + 1.0), layout="constrained")
    figure.suptitle(title, wrap=True)
    ratios = (2, 1) * n_fields
    panels = figure.subplots(2 * n_fields, len(u), sharex=True, sharey="row", squeeze=False, height_ratios=ratios)
    (x,) = spec.grid.coordinates()
    for channel, entry in enumerate(spec.state):
        pair = panels[2 * channel : 2 * channel + 2]
        for above, below, prediction, target in zip(*pair, p[:, channel], u[:, channel], strict=True):
            above.plot(x, target, color=REFERENCE, label="reference")
            above.plot(x, _finite(prediction), color=PREDICTION, linestyle="--", label="prediction")
            below.plot(x, _finite(prediction - target), color=ERROR, label="prediction - reference")
        pair[0, 0].set_ylabel(_name(entry))
        pair[1, 0].set_ylabel("error")
    for above, below, head in zip(panels[0], panels[-1], heads, strict=True):
        above.set_title(head)
        below.set_xlabel("x")
        below.locator_params(axis="x", nbins=3)
    lines = [*panels[0, 0].get_lines(), *panels[1, 0].get_lines()]
    figure.legend(handles=lines, loc="outside lower center", ncols=3)
    return figure


def _draw_maps(
    p: NDArray[np.float64], u: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str
) -> Figure:
    """[T, C, n_x, n_y]: for each field a row of reference, prediction and error, with a common scale per row."""
    longest, tallest = spec.grid.lengths[0], spec.grid.lengths[1]
    width = min((PAGE_WIDTH - 1.2) / len(u), 2.0)
    height = min(max(width * tallest / longest, 0.75), 3 * width)  # a row is at least as high as its label
    n_rows = 3 * len(spec.state)
    figure = Figure(figsize=(width * len(u) + 1.2, n_rows * height + 1.0), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(n_rows, len(u), squeeze=False)
    rows = [
        (f"{name}{label}", values, colours, scale)
        for channel, name in enumerate(_row_names(spec))
        for label, values, colours, scale in _compared(p[:, channel], u[:, channel])
    ]
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
    static: NDArray[np.float64] | None,
    spec: DatasetSpec,
    title: str,
) -> Figure:
    """[C, n_x, n_y]: coefficient, and for each field a row of reference, prediction and error."""
    n_fields, first = len(spec.state), int(static is not None)
    n_columns = 3 + first
    width = PAGE_WIDTH / 4
    height = min(max(width * spec.grid.lengths[1] / spec.grid.lengths[0], 0.6), 3 * width)
    figure = Figure(figsize=(width * n_columns, (height + 0.6) * n_fields + 0.6), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(n_fields, n_columns, squeeze=False)
    for channel, (row, name) in enumerate(zip(panels, _row_names(spec), strict=True)):
        columns = _compared(p[channel], u[channel])
        if static is not None and not channel:
            columns = [(_name(spec.static[0]), static, "cividis", _limits(static)), *columns]
        elif static is not None:
            row[0].set_visible(False)
        shown = row[-len(columns) :]
        for axis, (label, values, colours, limits) in zip(shown, columns, strict=True):
            image = _show(axis, values, spec, colours, limits)
            axis.set(title=label, xlabel="x")
            axis.tick_params(labelleft=axis is shown[0])
            figure.colorbar(image, ax=axis, location="bottom", pad=0.03, aspect=16).locator = MaxNLocator(3)
        shown[0].set_ylabel(f"{name}y")
    return figure


def _compared(
    p: NDArray[np.float64], u: NDArray[np.float64]
) -> list[tuple[str, NDArray[np.float64], str, tuple[float, float]]]:
    """Label, values, colours and scale of reference, prediction and error of a field."""
    error, limits = np.abs(p - u), _limits(u)
    return [
        ("reference", u, FIELD_MAP, limits),
        ("prediction", p, FIELD_MAP, limits),
        ("|error|", error, ERROR_MAP, _error_limits(error)),
    ]


def _masked(
    states: NDArray[np.floating], static: NDArray[np.floating] | None, spec: DatasetSpec
) -> NDArray[np.float64]:
    """States [..., T, C, *S] in float64, NaN where the equation doesn't hold."""
    states, channel = np.asarray(states, np.float64), mask_channel(spec)
    if static is None or channel is None:
        return states
    mask = np.moveaxis(static, -1 - spec.grid.n_dims, 0)[channel]
    return np.where(np.expand_dims(mask, (-2 - spec.grid.n_dims, -1 - spec.grid.n_dims)) > 0, states, np.nan)


def _planar(spec: DatasetSpec, *fields: NDArray[np.float64]) -> tuple[str, tuple[NDArray[np.float64], ...]]:
    """Fields [..., *S] of three dimensions on the plane in the middle of the last axis, and words that say so; others
    as they are."""
    if spec.grid.n_dims < 3:
        return "", fields
    middle = spec.grid.shape[2] // 2
    where = f", plane {spec.grid.axis_names[2]} = {spec.grid.coordinates()[2][middle]:g}"
    return where, tuple(values[..., middle] for values in fields)


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
    axis.set_xticks([0, width], ["0", f"{width:.4g}"])
    axis.set_yticks([0, height], ["0", f"{height:.4g}"])
    axis.spines[:].set_visible(True)
    return image


def _limits(values: NDArray[np.floating]) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _error_limits(error: NDArray[np.float64]) -> tuple[float, float]:
    finite = error[np.isfinite(error)]
    return 0.0, float(finite.max()) if finite.size and finite.max() > 0 else 1.0


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _name(field: FieldSpec) -> str:
    return field.name if field.unit in ("", "1") else f"{field.name} [{field.unit}]"


def _names(spec: DatasetSpec) -> str:
    return ", ".join(map(_name, spec.state))


def _row_names(spec: DatasetSpec) -> list[str]:
    """What the labels of a field's rows start with: nothing if there is only one field."""
    return [f"{entry.name}\n" if len(spec.state) > 1 else "" for entry in spec.state]
