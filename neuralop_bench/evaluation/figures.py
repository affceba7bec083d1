"""Figures of a run: training curve, error over the horizon, energy spectra, samples.

They have the width of a page. Okabe and Ito's colours are safe for colour-blind readers; line styles and maps of
monotone lightness survive grey print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from data_gen.files import replacing
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch, Predictor
from neuralop_bench.data.trajectories import Windows
from neuralop_bench.evaluation.field_figures import sample_figure
from neuralop_bench.evaluation.plotting import (
    ERROR,
    PAGE_WIDTH,
    PREDICTION,
    REFERENCE,
    RUN_STYLE,
    legend_below,
    plain_numbers,
    positive,
    single,
)
from neuralop_bench.metrics.bands import BAND_EDGES, BANDS
from neuralop_bench.metrics.relative import relative_l2_per_sample, relative_l2_step
from neuralop_bench.metrics.spectral import Shells
from neuralop_bench.records.rung import Rung

_SIZE = (4.8, 3.2)  # inches, of a single panel
# An energy below this share of the largest is rounding of float32.
_ENERGY_FLOOR = 1e-14


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

    ``training`` (if there was one), ``error_growth`` (``error_distribution`` for a single step), ``spectra`` (if
    measured), ``sample_median`` and, with several samples, ``sample_worst``.

    Args:
        curve: rows of curve.csv.
        best_epoch: the epoch whose weights were evaluated.
        errors: from ``evaluate``.
        predictor: predicts the samples that are drawn.
        windows: the samples of ``errors``, in the same order.
        device: of the predictor.
        title: of every figure, to name the run.
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
            static=batch.static[0, : len(spec.static)].numpy(),
            title=f"{title + ', ' if title else ''}test sample {sample} ({which} error)",
        )
    return figures


# Curves --------------------------------------------------------------------------------------------------------------


@rc_context(RUN_STYLE)
def training_figure(curve: Sequence[Mapping[str, float]], best_epoch: int, *, title: str = "") -> Figure:
    """Training loss and error on valid against the epoch; the best epoch is marked.

    Args:
        curve: rows with epoch, train_loss and valid_rel_l2. Values that aren't positive and finite are left out.
        best_epoch: the epoch that is marked.
        title: above the figure.
    """
    figure, axis = single(_SIZE, title)
    epochs = np.array([row["epoch"] for row in curve])
    marker = "o" if len(epochs) <= 30 else ""
    for name, label, colour, style in (
        ("train_loss", "training loss", REFERENCE, "--"),
        ("valid_rel_l2", "relative L2 on valid", PREDICTION, "-"),
    ):
        values = positive(np.array([row[name] for row in curve]))
        axis.plot(epochs, values, color=colour, linestyle=style, marker=marker, label=label)
    best = [row["valid_rel_l2"] for row in curve if row["epoch"] == best_epoch]
    if best and np.isfinite(positive(np.array(best))).all():
        label = f"best, epoch {best_epoch}: {best[0]:.4g}"
        axis.plot(best_epoch, best[0], color=ERROR, marker="*", markersize=10, linestyle="", label=label, zorder=3)
    axis.set(xlabel="epoch", ylabel="loss, relative L2")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    if len(curve) == 1:
        axis.set_xlim(epochs[0] - 1, epochs[0] + 1)
    _logarithmic(axis)
    legend_below(figure, axis)
    return figure


@rc_context(RUN_STYLE)
def error_growth_figure(errors: xr.Dataset, *, title: str = "") -> Figure:
    """Relative L2 of every step against time: median, mean and the range of nine tenths of the samples.

    A sample that diverged has an infinite error: from there on, the range reaches the top and the mean ends.

    Args:
        errors: with the statistics of ``rel_l2``.
        title: above the figure.
    """
    figure, axis = single(_SIZE, title)
    times = errors["time"].values
    steps = relative_l2_step(errors).mean("channel").transpose("time", "sample").values
    # Quantiles that are errors of samples. There is nothing to interpolate between a finite and an infinite error.
    low = np.percentile(steps, 5, axis=1, method="lower")
    high = np.percentile(steps, 95, axis=1, method="higher")
    median = np.median(steps, axis=1)
    average = steps.mean(axis=1)
    finite = steps[np.isfinite(steps) & (steps > 0)]
    top = 10 * finite.max() if finite.size else 1.0
    axis.fill_between(
        times,
        positive(low),
        positive(np.minimum(high, top)),
        color=PREDICTION,
        alpha=0.2,
        linewidth=0,
        label="5 % to 95 % of the samples",
    )
    axis.plot(times, positive(median), color=PREDICTION, marker="o", label="median")
    axis.plot(times, positive(average), color=ERROR, linestyle="--", label="mean")
    axis.set(xlabel="time", ylabel="relative L2 of the step")
    _logarithmic(axis)
    if not np.isfinite(high).all() and finite.size:
        axis.set_ylim(top=top)
    legend_below(figure, axis)
    _note_diverged(axis, steps)
    return figure


@rc_context(RUN_STYLE)
def error_against_time_figure(
    rungs: Sequence[Rung], error: float | None, milliseconds: Mapping[str, float | None], *, title: str = ""
) -> Figure:
    """Error against time of the solver, grid by grid, and of the model. A model below the curve of its colour is worth
    using.

    Args:
        rungs: of the solver.
        error: relative L2 of the model; drawn if it is positive and finite.
        milliseconds: time per trajectory of the model, ``batched`` and ``alone``.
        title: above the figure.
    """
    figure, axis = single(_SIZE, title)
    ordered = sorted(rungs, key=lambda rung: rung.rel_l2)
    for kind, colour, style, seconds in (
        ("batched", PREDICTION, "-", [rung.seconds for rung in ordered]),
        ("alone", ERROR, "--", [rung.latency_seconds for rung in ordered]),
    ):
        times = 1e3 * np.array(seconds)
        values = [rung.rel_l2 for rung in ordered]
        axis.plot(times, values, color=colour, linestyle=style, marker="o", label=f"solver, {kind}")
        own = milliseconds.get(kind)
        if error is not None and own is not None and np.isfinite(positive(np.array([error, own]))).all():
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
    legend_below(figure, axis)
    return figure


@rc_context(RUN_STYLE)
def error_distribution_figure(errors: xr.Dataset, *, title: str = "") -> Figure:
    """Cumulative distribution of the relative L2 over samples, in place of the error growth if there is one step.

    Args:
        errors: with the statistics of ``rel_l2``.
        title: above the figure.
    """
    figure, axis = single(_SIZE, title)
    per_sample = np.sort(relative_l2_per_sample(errors).mean("channel").values)
    share = np.arange(1, len(per_sample) + 1) / len(per_sample)
    axis.step(positive(per_sample), share, where="post", color=PREDICTION, marker="o", label="samples")
    for value, label, colour, style in (
        (np.median(per_sample), "median", REFERENCE, ":"),
        (per_sample.mean(), "mean", ERROR, "--"),
    ):
        if np.isfinite(value) and value > 0:
            axis.axvline(value, color=colour, linestyle=style, label=f"{label}: {value:.4g}")
    axis.set(xlabel="relative L2", ylabel="cumulative share of the samples", ylim=(0, 1.05))
    _logarithmic(axis, "x")
    legend_below(figure, axis)
    _note_diverged(axis, per_sample)
    return figure


@rc_context(RUN_STYLE)
def spectra_figure(errors: xr.Dataset, spec: DatasetSpec, *, title: str = "") -> Figure:
    """Energy per shell of reference, prediction and error at the first, a middle and the last step, mean over finite
    samples. Every field has a row of its own.

    Args:
        errors: with the statistics of ``spectra``.
        spec: of the fields.
        title: above the figure.
    """
    n_steps = errors.sizes["time"]
    chosen = sorted({0, (n_steps - 1) // 2, n_steps - 1} if n_steps > 2 else {0, n_steps - 1})
    size = (max(PAGE_WIDTH * len(chosen) / 3, 4.2), 2.2 * len(spec.state) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(title, wrap=True)
    panels = figure.subplots(len(spec.state), len(chosen), sharex=True, sharey="row", squeeze=False)
    for channel, (row, field) in enumerate(zip(panels, spec.state, strict=True)):
        _draw_spectra(row, errors.isel(channel=channel, time=chosen), spec)
        name = f"{field.name}\n" if len(spec.state) > 1 else ""
        row[0].set_ylabel(f"{name}energy per shell{_squared(field)}")
    if not spec.is_steady:
        for axis, step in zip(panels[0], chosen, strict=True):
            axis.set_title(f"t = {float(errors['time'][step]):g}", pad=12)
    for axis in panels[-1]:
        axis.set_xlabel("wavenumber [cycles per domain]")
    for axis in panels.flat:
        _mark_bands(axis)
    legend_below(figure, panels[0, 0])
    return figure


def _draw_spectra(panels: Sequence[Axes], errors: xr.Dataset, spec: DatasetSpec) -> None:
    """Spectra of a channel, a panel for each time."""
    wavenumbers = Shells(spec.grid).wavenumbers * max(spec.grid.lengths)
    largest = 0.0
    for step, axis in enumerate(panels):
        for name, label, colour, style in (
            ("energy_target", "reference", REFERENCE, "-"),
            ("energy_prediction", "prediction", PREDICTION, "--"),
            ("energy_error", "error", ERROR, ":"),
        ):
            energy = positive(_mean_spectrum(errors[name].isel(time=step)))
            largest = max(largest, float(np.nanmax(energy, initial=0.0)))
            axis.plot(wavenumbers, energy, color=colour, linestyle=style, label=label)
    for axis in panels:
        _logarithmic(axis, "x")
        _logarithmic(axis, "y")
    bottom, top = panels[0].get_ylim()
    if largest > 0:
        panels[0].set_ylim(max(bottom, _ENERGY_FLOOR * largest), top)


# Shared --------------------------------------------------------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=200)


def _logarithmic(axis: Axes, which: Literal["x", "y"] = "y") -> None:
    """Logarithmic scale for what has been drawn, with plain numbers if it spans few decades."""
    shared = axis.get_shared_x_axes() if which == "x" else axis.get_shared_y_axes()
    boxes = [other.dataLim for other in shared.get_siblings(axis)]
    if not np.isfinite(min(box.minposx if which == "x" else box.minposy for box in boxes)):
        return  # nothing to show
    axis.set(**{f"{which}scale": "log"})
    plain_numbers(axis, which, *(axis.get_xlim() if which == "x" else axis.get_ylim()))


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
    """Shells 1 ... B of (sample, shell), without the corner, mean over the finite samples."""
    values = energy.transpose("sample", "shell").values[:, :-1]
    finite = np.isfinite(values).all(axis=1)
    return values[finite].mean(axis=0) if finite.any() else np.full(values.shape[-1], np.nan)


def _chosen_samples(errors: xr.Dataset) -> dict[str, int]:
    order = np.argsort(relative_l2_per_sample(errors).mean("channel").values, kind="stable")
    chosen = {"median": int(order[len(order) // 2])}
    if len(order) > 1:
        chosen["worst"] = int(order[-1])
    return chosen


def _squared(field: FieldSpec) -> str:
    return "" if field.unit in ("", "1") else f" [({field.unit})²]"
