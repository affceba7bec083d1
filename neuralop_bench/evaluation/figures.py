"""Pictures of a run: training curve, error over the horizon, energy spectra, samples.

They have the width of a page. Okabe and Ito's colours keep lines apart for colour-blind eyes, line styles and maps of
monotone lightness do so in grey print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from data_gen.files import replacing
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch, Predictor
from neuralop_bench.data.trajectories import Windows
from neuralop_bench.metrics.bands import BAND_EDGES, BANDS
from neuralop_bench.metrics.relative import relative_l2_per_sample, relative_l2_step
from neuralop_bench.metrics.spectral import Shells
from neuralop_bench.records.rung import Rung

# Okabe & Ito (2008): black, blue, vermilion.
REFERENCE, PREDICTION, ERROR = "#000000", "#0072B2", "#D55E00"
FIELD_MAP, ERROR_MAP = "viridis", "magma_r"
_N_COLUMNS = 5
_WIDTH = 7.2  # inches: a page between its margins
# An energy below this share of the largest is rounding of float32.
_ENERGY_FLOOR = 1e-14
_FEW_DECADES = 300

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 9,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.6,
}


def run_figures(
    curve: Sequence[Mapping[str, float]],
    best_epoch: int,
    errors: xr.Dataset,
    predictor: Predictor,
    windows: Windows,
    *,
    device: torch.device,
    title: str = "",
) -> dict[str, Figure]:
    """Every figure of a run, by the name of its file.

    ``training`` (if there was one), ``error_growth`` (of one step: ``error_distribution``), ``spectra`` (if measured),
    ``sample_median`` and, of several samples, ``sample_worst``.

    Args:
        curve: rows of curve.csv.
        best_epoch: the epoch whose weights were evaluated.
        errors: what ``evaluate`` returned.
        predictor: predicts the samples that are drawn.
        windows: the samples of ``errors``, in the same order.
        device: where the predictor computes.
        title: names the run in every figure.
    """
    spec = windows.source.spec
    figures: dict[str, Figure] = {}
    if curve:
        figures["training"] = training_figure(curve, best_epoch, title=title)
    if errors.sizes["time"] > 1:
        figures["error_growth"] = error_growth_figure(errors, title=title)
    else:
        figures["error_distribution"] = error_distribution_figure(errors, title=title)
    if "energy_target" in errors:
        figures["spectra"] = spectra_figure(errors, spec, title=title)
    for which, sample in _chosen_samples(errors).items():
        batch = windows[[sample]]
        prediction = predictor.predict(Batch(*(x.to(device) for x in batch)), windows.n_steps)
        figures[f"sample_{which}"] = sample_figure(
            prediction[0].detach().cpu().numpy(),
            batch.target[0].numpy(),
            errors["time"].values,
            spec,
            static=batch.static[0].numpy(),
            title=f"{title + ', ' if title else ''}test sample {sample} ({which} error)",
        )
    return figures


# Curves --------------------------------------------------------------------------------------------------------------


@rc_context(_STYLE)
def training_figure(curve: Sequence[Mapping[str, float]], best_epoch: int, *, title: str = "") -> Figure:
    """Training loss and error on valid against the epoch; the best epoch is marked.

    Args:
        curve: rows with epoch, train_loss and valid_rel_l2. What isn't positive and finite is left out.
        best_epoch: the epoch that is marked.
        title: above the figure.
    """
    figure, axis = _single(title)
    epochs = np.array([row["epoch"] for row in curve])
    marker = "o" if len(epochs) <= 30 else ""
    for name, label, colour, style in (
        ("train_loss", "training loss", REFERENCE, "--"),
        ("valid_rel_l2", "relative L2 on valid", PREDICTION, "-"),
    ):
        values = _positive(np.array([row[name] for row in curve]))
        axis.plot(epochs, values, color=colour, linestyle=style, marker=marker, label=label)
    best = [row["valid_rel_l2"] for row in curve if row["epoch"] == best_epoch]
    if best and np.isfinite(_positive(np.array(best))).all():
        label = f"best, epoch {best_epoch}: {best[0]:.4g}"
        axis.plot(best_epoch, best[0], color=ERROR, marker="*", markersize=10, linestyle="", label=label, zorder=3)
    axis.set(xlabel="epoch", ylabel="loss, relative L2")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if len(curve) == 1:
        axis.set_xlim(epochs[0] - 1, epochs[0] + 1)
    _logarithmic(axis)
    _legend_below(figure, axis)
    return figure


@rc_context(_STYLE)
def error_growth_figure(errors: xr.Dataset, *, title: str = "") -> Figure:
    """Relative L2 of every step against time: median, mean and the range of nine tenths of the samples.

    A sample that diverged has an infinite error: it draws the range to the top and ends the mean.

    Args:
        errors: with the statistics of ``rel_l2``.
        title: above the figure.
    """
    figure, axis = _single(title)
    times = errors["time"].values
    steps = relative_l2_step(errors).mean("channel").transpose("time", "sample").values
    # Errors of samples, not values between two of them: between a finite and an infinite one lies nothing.
    low = np.percentile(steps, 5, axis=1, method="lower")
    high = np.percentile(steps, 95, axis=1, method="higher")
    median = np.median(steps, axis=1)
    average = steps.mean(axis=1)
    finite = steps[np.isfinite(steps) & (steps > 0)]
    top = 10 * finite.max() if finite.size else 1.0
    axis.fill_between(
        times,
        _positive(low),
        _positive(np.minimum(high, top)),
        color=PREDICTION,
        alpha=0.2,
        linewidth=0,
        label="5 % to 95 % of the samples",
    )
    axis.plot(times, _positive(median), color=PREDICTION, marker="o", label="median")
    axis.plot(times, _positive(average), color=ERROR, linestyle="--", label="mean")
    axis.set(xlabel="time", ylabel="relative L2 of the step")
    _logarithmic(axis)
    if not np.isfinite(high).all() and finite.size:
        axis.set_ylim(top=top)
    _legend_below(figure, axis)
    _note_diverged(axis, steps)
    return figure


@rc_context(_STYLE)
def error_against_time_figure(
    rungs: Sequence[Rung], error: float | None, milliseconds: Mapping[str, float | None], *, title: str = ""
) -> Figure:
    """The solver's error against its time on one grid after the other, and the model's: below the curve of the same
    colour it is worth using.

    Args:
        rungs: the solver's.
        error: relative L2 of the model; what isn't positive and finite isn't drawn.
        milliseconds: time per trajectory of the model, ``batched`` and ``alone``.
        title: above the figure.
    """
    figure, axis = _single(title)
    ordered = sorted(rungs, key=lambda rung: rung.rel_l2)
    for kind, colour, style, seconds in (
        ("batched", PREDICTION, "-", [rung.seconds for rung in ordered]),
        ("alone", ERROR, "--", [rung.latency_seconds for rung in ordered]),
    ):
        times = 1e3 * np.array(seconds)
        values = [rung.rel_l2 for rung in ordered]
        axis.plot(times, values, color=colour, linestyle=style, marker="o", label=f"solver, {kind}")
        own = milliseconds.get(kind)
        if error is not None and own is not None and np.isfinite(_positive(np.array([error, own]))).all():
            axis.plot(
                own, error, color=colour, marker="*", markersize=11, linestyle="", label=f"model, {kind}", zorder=3
            )
    for rung in ordered:
        axis.annotate(
            rung.resolution.replace("x", "×"),
            (1e3 * rung.seconds, rung.rel_l2),
            textcoords="offset points",
            xytext=(5, 3),
            color="0.4",
        )
    axis.set(xlabel="ms per trajectory", ylabel="relative L2")
    _logarithmic(axis)
    _logarithmic(axis, "x")
    _legend_below(figure, axis)
    return figure


@rc_context(_STYLE)
def error_distribution_figure(errors: xr.Dataset, *, title: str = "") -> Figure:
    """Share of the samples with at most a given relative L2: what is left of the error growth if there is one step.

    Args:
        errors: with the statistics of ``rel_l2``.
        title: above the figure.
    """
    figure, axis = _single(title)
    per_sample = np.sort(relative_l2_per_sample(errors).mean("channel").values)
    share = np.arange(1, len(per_sample) + 1) / len(per_sample)
    axis.step(_positive(per_sample), share, where="post", color=PREDICTION, marker="o", label="samples")
    for value, label, colour, style in (
        (np.median(per_sample), "median", REFERENCE, ":"),
        (per_sample.mean(), "mean", ERROR, "--"),
    ):
        if np.isfinite(value) and value > 0:
            axis.axvline(value, color=colour, linestyle=style, label=f"{label}: {value:.4g}")
    axis.set(xlabel="relative L2", ylabel="cumulative share of the samples", ylim=(0, 1.05))
    _logarithmic(axis, "x")
    _legend_below(figure, axis)
    _note_diverged(axis, per_sample)
    return figure


@rc_context(_STYLE)
def spectra_figure(errors: xr.Dataset, spec: DatasetSpec, *, title: str = "") -> Figure:
    """Energy per shell of reference, prediction and error at the first, a middle and the last step; mean over channels
    and over the samples that are finite.

    Args:
        errors: with the statistics of ``spectra``.
        spec: of the fields.
        title: above the figure.
    """
    n_steps = errors.sizes["time"]
    chosen = sorted({0, (n_steps - 1) // 2, n_steps - 1} if n_steps > 2 else {0, n_steps - 1})
    figure = Figure(figsize=(max(_WIDTH * len(chosen) / 3, 4.2), 3.0), layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(1, len(chosen), sharex=True, sharey=True, squeeze=False)[0]
    wavenumbers = Shells(spec.grid).wavenumbers * max(spec.grid.lengths)
    largest = 0.0
    for axis, step in zip(panels, chosen, strict=True):
        for name, label, colour, style in (
            ("energy_target", "reference", REFERENCE, "-"),
            ("energy_prediction", "prediction", PREDICTION, "--"),
            ("energy_error", "error", ERROR, ":"),
        ):
            energy = _positive(_mean_spectrum(errors[name].isel(time=step)))
            largest = max(largest, float(np.nanmax(energy, initial=0.0)))
            axis.plot(wavenumbers, energy, color=colour, linestyle=style, label=label)
        if not spec.is_steady:
            axis.set_title(f"t = {float(errors['time'][step]):g}", pad=12)
        axis.set_xlabel("wavenumber [cycles per domain]")
    panels[0].set_ylabel(f"energy per shell{_squared(spec.state)}")
    for axis in panels:
        _logarithmic(axis, "x")
        _logarithmic(axis, "y")
    bottom, top = panels[0].get_ylim()
    if largest > 0:
        panels[0].set_ylim(max(bottom, _ENERGY_FLOOR * largest), top)
    for axis in panels:
        _mark_bands(axis)
    _legend_below(figure, panels[0])
    return figure


# Samples -------------------------------------------------------------------------------------------------------------


@rc_context(_STYLE)
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

    The first channel is drawn; of three space dimensions, the plane in the middle of the last axis. A prediction that
    isn't finite is grey there.

    Args:
        prediction, target: [T, C, *S].
        times: of the snapshots, [T].
        spec: names, units and grid.
        static: coefficient fields [C_s, *S]; the first is drawn beside the fields of a single step.
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


@rc_context(_STYLE)
def data_figure(
    states: NDArray[np.floating], static: NDArray[np.floating], spec: DatasetSpec, *, title: str = ""
) -> Figure:
    """Samples of a dataset: one row each, with the first coefficient (if there is one) and up to five snapshots.

    The first state field is drawn; of three space dimensions, the plane in the middle of the last axis.

    Args:
        states: [sample, T, C, *S].
        static: [sample, C_s, *S]; perhaps no channel.
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
    width = min((_WIDTH - 0.6) / columns, 2.4)
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
    """[sample, T, n]: a panel for each sample, the earlier a snapshot the fainter its line."""
    figure = Figure(figsize=(_WIDTH, 1.5 * len(fields) + 1.0), layout="constrained")
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
        _legend_below(figure, panels[0])
    return figure


def _draw_lines(
    p: NDArray[np.float64], u: NDArray[np.float64], heads: Sequence[str], spec: DatasetSpec, title: str
) -> Figure:
    """[T, n]: fields above, the error with a scale of its own below."""
    figure = Figure(figsize=(max(_WIDTH * len(u) / _N_COLUMNS, 4.2), 3.6), layout="constrained")
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
    width = min((_WIDTH - 1.2) / len(u), 2.0)
    height = min(max(width * tallest / longest, 0.75), 3 * width)  # a row is at least as high as its label is long
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
    width = _WIDTH / 4
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


# What several share --------------------------------------------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)


def _single(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.8, 3.2), layout="constrained")
    figure.suptitle(title, wrap=True)
    return figure, figure.subplots()


def _legend_below(figure: Figure, axis: Axes) -> None:
    # Outside, where it can't cover a line.
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels) if len(labels) <= 3 else 2, columnspacing=1.5
    )


def _logarithmic(axis: Axes, which: Literal["x", "y"] = "y") -> None:
    """Logarithmic scale for what is drawn already; plain numbers between 1, 2 and 5 if it spans few decades."""
    shared = axis.get_shared_x_axes() if which == "x" else axis.get_shared_y_axes()
    boxes = [other.dataLim for other in shared.get_siblings(axis)]
    if not np.isfinite(min(box.minposx if which == "x" else box.minposy for box in boxes)):
        return  # nothing to show
    axis.set(**{f"{which}scale": "log"})
    low, high = axis.get_xlim() if which == "x" else axis.get_ylim()
    if high < _FEW_DECADES * low:
        ticks = axis.xaxis if which == "x" else axis.yaxis
        ticks.set_major_locator(LogLocator(subs=(1, 2, 5)) if high > 5 * low else MaxNLocator(5))
        ticks.set_major_formatter("{x:g}")
        ticks.set_minor_formatter(NullFormatter())


def _note_diverged(axis: Axes, values: NDArray[np.float64]) -> None:
    """values: [..., sample]."""
    n = int((~np.isfinite(values.reshape(-1, values.shape[-1]))).any(axis=0).sum())
    if n:
        axis.set_title(f"{n} of {values.shape[-1]} samples diverged", color=ERROR)


def _mark_bands(axis: Axes) -> None:
    low, high = axis.get_xlim()
    edges = [low, *(edge for edge in BAND_EDGES if low < edge < high), high]
    for band, left, right in zip(BANDS, edges, edges[1:], strict=False):
        axis.text(np.sqrt(left * right), 1.01, band, color="0.4", ha="center", transform=axis.get_xaxis_transform())
    for edge in edges[1:-1]:
        axis.axvline(edge, color="0.6", linewidth=0.8, zorder=0)
    axis.set_xlim(low, high)


def _mean_spectrum(energy: xr.DataArray) -> NDArray[np.float64]:
    """Shells 1 ... B of (sample, channel, shell), without the corner, mean over the finite samples."""
    values = energy.transpose("sample", "channel", "shell").values[..., :-1].mean(axis=1)
    finite = np.isfinite(values).all(axis=1)
    return values[finite].mean(axis=0) if finite.any() else np.full(values.shape[-1], np.nan)


def _chosen_samples(errors: xr.Dataset) -> dict[str, int]:
    order = np.argsort(relative_l2_per_sample(errors).mean("channel").values, kind="stable")
    chosen = {"median": int(order[len(order) // 2])}
    if len(order) > 1:
        chosen["worst"] = int(order[-1])
    return chosen


def _positive(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """What a logarithmic axis can show; NaN elsewhere."""
    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(np.isfinite(values), values, np.nan)


def _name(field: FieldSpec) -> str:
    return field.name if field.unit in ("", "1") else f"{field.name} [{field.unit}]"


def _squared(fields: Sequence[FieldSpec]) -> str:
    units = {field.unit for field in fields}
    return f" [({units.pop()})²]" if len(units) == 1 and units != {"1"} and units != {""} else ""
