"""Pictures of an evaluation: fields of one sample, error over time, energy spectra."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from data_gen.spec import DatasetSpec
from data_gen.store import replacing
from neuralop_bench.evaluation.tables import spectrum_by_shell
from neuralop_bench.metrics.relative import relative_l2_step
from neuralop_bench.metrics.spectral import BAND_EDGES, Shells

# Okabe & Ito's colours keep apart for colour-blind eyes; line styles keep them apart in grey print.
REFERENCE, PREDICTION, ERROR = "#000000", "#0072B2", "#D55E00"
_N_COLUMNS = 5


def sample_figure(
    prediction: NDArray[np.floating], target: NDArray[np.floating], times: NDArray[np.floating], spec: DatasetSpec
) -> Figure:
    """Reference, prediction and error of one sample over time.

    Args:
        prediction, target: [T, C, *S], of which the first channel is drawn, in one or two space dimensions.
        times: of the snapshots, [T].
        spec: names and grid.
    """
    chosen = np.unique(np.linspace(0, len(times) - 1, min(_N_COLUMNS, len(times))).round().astype(int))
    p, u = prediction[chosen, 0], target[chosen, 0]
    if u.ndim == 2:
        return _lines(p, u, times[chosen], spec)
    if u.ndim != 3:
        raise ValueError(f"Samples are drawn in one or two space dimensions, got {u.ndim - 1}.")
    figure = Figure(figsize=(2.1 * len(chosen) + 1.2, 6.4), layout="constrained")
    axes = figure.subplots(3, len(chosen), squeeze=False)
    extent = (0.0, spec.grid.lengths[0], 0.0, spec.grid.lengths[1])
    bound, error_bound = float(np.abs(u).max()), float(np.abs(p - u).max())
    rows = (
        ("reference", u, "RdBu_r", (-bound, bound)),
        ("prediction", p, "RdBu_r", (-bound, bound)),
        ("|prediction - reference|", np.abs(p - u), "cividis", (0.0, error_bound or 1.0)),
    )
    for row, (label, values, colours, (low, high)) in zip(axes, rows, strict=True):
        image = None
        for axis, frame in zip(row, values, strict=True):
            # First index is x: transposed, so that x runs to the right and y up.
            image = axis.imshow(frame.T, origin="lower", extent=extent, cmap=colours, vmin=low, vmax=high)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(label)
        assert image is not None
        figure.colorbar(image, ax=list(row), shrink=0.9, pad=0.01)
    for axis, time in zip(axes[0], times[chosen], strict=True):
        axis.set_title(f"t = {time:g}", fontsize=10)
    figure.suptitle(f"{spec.name}: {spec.state[0].name} of the test sample with the median error", fontsize=11)
    return figure


def _lines(p: NDArray[np.floating], u: NDArray[np.floating], times: NDArray[np.floating], spec: DatasetSpec) -> Figure:
    figure = Figure(figsize=(3.2 * len(times) + 1.0, 3.2), layout="constrained")
    (x,) = spec.grid.coordinates()
    for axis, time, prediction, target in zip(
        figure.subplots(1, len(times), squeeze=False)[0], times, p, u, strict=True
    ):
        axis.plot(x, target, color=REFERENCE, label="reference")
        axis.plot(x, prediction, color=PREDICTION, linestyle="--", label="prediction")
        axis.plot(x, prediction - target, color=ERROR, linestyle=":", label="error")
        axis.set(title=f"t = {time:g}", xlabel="x")
    figure.axes[0].set_ylabel(spec.state[0].name)
    figure.axes[0].legend(fontsize=8)
    return figure


def spectra_figure(errors: xr.Dataset, spec: DatasetSpec) -> Figure:
    """Energy per shell of reference, prediction and error at the last step, and relative L2 over time."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    wavenumbers = Shells(spec.grid).wavenumbers * max(spec.grid.lengths)
    for name, label, colour, style in (
        ("energy_target", "reference", REFERENCE, "-"),
        ("energy_prediction", "prediction", PREDICTION, "--"),
        ("energy_error", "error", ERROR, ":"),
    ):
        energy = spectrum_by_shell(errors, name)
        left.loglog(wavenumbers, np.where(energy > 0, energy, np.nan), color=colour, linestyle=style, label=label)
    for edge in BAND_EDGES:
        left.axvline(edge, color="0.8", linewidth=0.8, zorder=0)
    left.set(
        xlabel="cycles per domain", ylabel="energy per shell", title=f"Spectra at t = {float(errors['time'][-1]):g}"
    )
    left.legend()
    steps = relative_l2_step(errors).mean("channel")
    median = steps.median("sample")
    right.plot(errors["time"], median, color=PREDICTION, marker="o", markersize=4, label="median over samples")
    right.fill_between(
        errors["time"],
        steps.quantile(0.05, "sample"),
        steps.quantile(0.95, "sample"),
        color=PREDICTION,
        alpha=0.2,
        linewidth=0,
        label="5 % to 95 %",
    )
    right.set(xlabel="time", ylabel="relative L2", title="Error over time", ylim=(0, None))
    right.legend()
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically."""
    with replacing(path) as temporary, matplotlib.rc_context({"savefig.dpi": 120}):
        figure.savefig(temporary, format="png")
