"""The tables of one evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import xarray as xr

from neuralop_bench.metrics.bands import BANDS
from neuralop_bench.metrics.relative import relative_l2_per_sample, relative_l2_step, vanishing
from neuralop_bench.records.record import DATA_ERROR_MARGIN
from neuralop_bench.records.rung import Rung
from neuralop_bench.runtime.table import Table, number

Metrics = Mapping[str, float | None]

_SUMMARY = (
    ("relative L2 (mean)", "rel_l2"),
    ("relative L2 (median)", "rel_l2_median"),
    ("relative L2 (95th percentile)", "rel_l2_p95"),
    ("relative L2, first step", "rel_l2_first_step"),
    ("relative L2, last step", "rel_l2_last_step"),
    ("relative H1", "rel_h1"),
    ("VRMSE", "vrmse"),
    ("nRMSE", "nrmse"),
    ("maximum error", "max_error"),
    ("log-spectral distance [dB]", "lsd_db"),
    ("coherent up to [cycles per domain]", "k_eff"),
    ("correlated above 0.8 for [time]", "correlation_time_0.8"),
    ("stable fraction", "stable_fraction"),
    ("diverged samples", "n_diverged"),
    ("references that vanish (sample, channel)", "n_floored_rel_l2"),
    ("relative L2 on valid", "valid_rel_l2"),
)
_COST = (
    ("parameters", "n_parameters"),
    ("operations of one call [GFLOP]", "gflops_forward"),
    ("training [s]", "train_seconds"),
    ("generating train and valid, one core [s]", "generation_seconds"),
    ("of that while training [s]", "stream_seconds"),
    ("training waited for it [s]", "stream_wait_seconds"),
    ("peak memory of training [MB]", "peak_memory_mb"),
    ("one trajectory alone [ms]", "latency_ms"),
    ("trajectories per second", "throughput"),
    ("  in batches of", "throughput_batch_size"),
    ("speed-up over the solver at equal error", "speedup_at_equal_error"),
    ("  the least of its rounds", "speedup_lowest"),
    ("  the largest", "speedup_highest"),
    ("  one trajectory alone", "speedup_at_equal_error_batch_1"),
    ("predictions that pay for data and training", "breakeven_solves"),
)
# Samples that a note lists by number.
_MOST_NAMED = 5
_BAND_RANGES = {"low": "1-3", "mid": "4-11", "high": "12 and above"}
_NYQUIST_RANGES = {"low": "up to 1/8", "mid": "1/8 to 1/2", "high": "above 1/2"}


def result_tables(
    metrics: Metrics,
    errors: xr.Dataset,
    *,
    cost: Metrics | None = None,
    data_error: float | None = None,
    published: tuple[float, str] | None = None,
    columns: Mapping[str, Metrics] | None = None,
    rungs: Sequence[Rung] = (),
    notes: Mapping[str, str] | None = None,
) -> list[Table]:
    """Tables of one evaluation: summary, error over time and by scale, cost, and whatever else was measured.

    Args:
        metrics: columns of test.
        errors: statistics of test.
        cost: of predictions and training.
        data_error: measured error of the test data.
        published: a relative L2 and its source.
        columns: of further test sets.
        rungs: the solver's curve.
        notes: remarks by column.
    """
    columns, cost, notes = columns or {}, cost or {}, notes or {}
    summary = [
        (label, number(metrics[column]))
        for label, column in _SUMMARY
        if column in metrics and (metrics[column] or not column.startswith("n_floored"))
    ]
    summary[1:1] = [(f"  of {name}", number(value)) for name, value in _per_field(errors).items()]
    summary += _beside_data_error(metrics.get("rel_l2"), data_error)
    drift = [(name, number(value)) for name, value in metrics.items() if name.startswith("conserved_")]
    spent = [
        (label, f"{value:,.0f}" if column == "n_parameters" else number(value))
        for label, column in _COST
        if (value := cost.get(column)) is not None
    ]
    candidates = [
        Table("Errors on test", ("metric", "value"), summary),
        *_beside_published(metrics.get("rel_l2"), published),
        _over_time(errors),
        *_bands(metrics),
        Table("Drift of what is conserved or balanced", ("quantity", "relative to the reference"), drift),
        _elsewhere(metrics, columns),
        _beside_solver(metrics, cost, rungs),
        Table("Cost", ("what", "value"), spent),
        Table("Notes", ("of", "note"), list(notes.items()), wraps=True),
    ]
    return [table for table in candidates if table.rows]


def vanishing_note(errors: xr.Dataset) -> dict[str, str]:
    """A note on references too small for an error relative to themselves, by column; empty if there are none."""
    if "target_mean_square" not in errors or not (floored := vanishing(errors)).any():
        return {}
    where = []
    for channel in errors["channel"].values:
        numbers = errors["sample"].values[floored.sel(channel=channel).values]
        if len(numbers):
            shown = ", ".join(map(str, numbers[:_MOST_NAMED])) + (", ..." if len(numbers) > _MOST_NAMED else "")
            every = len(numbers) == errors.sizes["sample"]
            where.append(f"{channel} in {'every sample' if every else f'{len(numbers)} samples ({shown})'}")
    return {
        "rel_l2": f"the reference vanishes, or is below 1 % of its channel's size: {'; '.join(where)}. Relative errors "
        "there are relative to this 1 %"
    }


def _per_field(errors: xr.Dataset) -> dict[str, float]:
    """Relative L2 of each field, mean over samples; empty if there is only one field."""
    if errors.sizes["channel"] == 1:
        return {}
    found = relative_l2_per_sample(errors).mean("sample")
    return {str(name): float(found.sel(channel=name)) for name in errors["channel"].values}


def _over_time(errors: xr.Dataset) -> Table:
    """Errors of the steps, with a column for each field if there are several."""
    by_field = relative_l2_step(errors)
    steps = by_field.mean("channel")
    fields = list(_per_field(errors))
    rows = [
        (
            f"{float(t):g}",
            number(float(steps.sel(time=t).mean())),
            number(float(steps.sel(time=t).median())),
            *(number(float(by_field.sel(time=t, channel=name).mean())) for name in fields),
        )
        for t in errors["time"]
    ]
    header = ("time", "mean over samples", "median", *(f"mean, {name}" for name in fields))
    return Table("Relative L2 over time", header, rows if len(rows) > 1 else [])


def _bands(metrics: Metrics) -> list[Table]:
    heads = ("pooled", "mean over samples")
    kinds = (
        ("Spectral error by band", "cycles per domain", "spec", _BAND_RANGES),
        ("Spectral error by share of the training grid's Nyquist wavenumber", "share", "specn", _NYQUIST_RANGES),
    )
    return [
        Table(
            title,
            ("band", unit, *heads),
            [
                (band, where, number(metrics[f"{name}_{band}"]), number(metrics.get(f"{name}_{band}_mean")))
                for band, where in ranges.items()
                if f"{name}_{band}" in metrics
            ],
        )
        for title, unit, name, ranges in kinds
    ]


def _beside_data_error(found: float | None, data_error: float | None) -> list[tuple[str, str]]:
    if data_error is None:
        return []
    rows = [("error of the data themselves (largest)", number(data_error))]
    if found is not None and found < DATA_ERROR_MARGIN * data_error:
        rows.append((f"below {DATA_ERROR_MARGIN:g} times the data's error", "too close to rank"))
    return rows


def _elsewhere(metrics: Metrics, columns: Mapping[str, Metrics]) -> Table:
    shown = ("rel_l2", *(f"spec_{band}" for band in BANDS), "n_diverged")
    rows = [
        (name, *(number(entry.get(column)) for column in shown), number(_ratio(entry, metrics)))
        for name, entry in {"test": metrics, **columns}.items()
    ]
    header = ("test set", "relative L2", *(f"{band} band" for band in BANDS), "diverged", "of test's")
    return Table("Errors elsewhere", header, rows if len(rows) > 1 else [])


def _ratio(entry: Metrics, metrics: Metrics) -> float | None:
    value, reference = entry.get("rel_l2"), metrics.get("rel_l2")
    return value / reference if value is not None and reference and math.isfinite(reference) else None


def _beside_solver(metrics: Metrics, cost: Metrics, rungs: Sequence[Rung]) -> Table:
    """The solver's curve with the model in its place."""
    entries = [
        (f"solver on {rung.name}", rung.rel_l2, 1e3 * rung.seconds, 1e3 * rung.latency_seconds) for rung in rungs
    ]
    error, throughput, latency = metrics.get("rel_l2"), cost.get("throughput"), cost.get("latency_ms")
    if entries and error is not None and throughput is not None and latency is not None:
        entries.append(("this model", error, 1e3 / throughput, latency))
    entries.sort(key=lambda entry: entry[1])
    header = ("who", "relative L2", "ms per trajectory, batched", "alone")
    return Table("Error and time", header, [(name, *map(number, values)) for name, *values in entries])


def _beside_published(found: float | None, published: tuple[float, str] | None) -> list[Table]:
    if published is None:
        return []
    rows = [("this run", number(found)), (published[1], number(published[0]))]
    return [Table("Relative L2 beside the published one, of another draw of the data", ("source", "value"), rows)]
