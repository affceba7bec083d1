"""The tables of a leaderboard that people read first: of each task what is accurate, where it fails, what it costs, and
whether it is worth using."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from neuralop_bench.record import DATA_ERROR_MARGIN
from neuralop_bench.table import Table

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]

# Of a model's name with what sets it apart, so that every table fits a terminal.
_WIDEST_NAME = 20

_WHO = ("rank", "model")
_ACCURACY = {
    "seeds": "n_seeds",
    "relative L2": "rel_l2_mean",
    "median": "rel_l2_median",
    "last step": "rel_l2_last_step",
    "H1": "rel_h1",
    "VRMSE": "vrmse",
}
_SPECTRA = {
    "1-3": "spec_low",
    "4-11": "spec_mid",
    "12-": "spec_high",
    "LSD [dB]": "lsd_db",
    "coherent to": "k_eff",
}
_ELSEWHERE = {
    "half grid": "transfer_half",
    "double grid": "transfer_double",
    "shifted": "ood_factor",
    "corr. > .8": "correlation_time_0.8",
    "stable": "stable_fraction",
}
_COST = {
    "parameters": "n_parameters",
    "GFLOP": "gflops_forward",
    "train [s]": "train_seconds",
    "peak MB": "peak_memory_mb",
    "ms alone": "latency_ms",
    "per s": "throughput",
}


def board_tables(rows: Sequence[Row]) -> list[Table]:
    """Tables of every task, in the order of the rows; a table in which nothing was measured is left out.

    Args:
        rows: of ``leaderboard.rows``.
    """
    tables: list[Table] = []
    for (track, _, task), members in groupby(rows, key=lambda row: (row["track"], row["dataset"], row["task"])):
        entries = list(members)
        where = f"{task}, {track}"
        candidates = [
            _table(f"{where}: error on test", _ACCURACY, entries),
            _table(f"{where}: spectral error by cycles per domain", _SPECTRA, entries),
            _table(f"{where}: elsewhere", _ELSEWHERE, entries),
            _table(f"{where}: cost", _COST, entries),
            _beside_solver(f"{where}: beside the solver at equal error", entries),
        ]
        tables += [table for table in candidates if len(table.header) > len(_WHO)]
    return tables


def _table(title: str, columns: Mapping[str, str], rows: Sequence[Row]) -> Table:
    """Of the columns that were measured for at least one row."""
    shown = {head: name for head, name in columns.items() if any(row[name] is not None for row in rows)}
    body = [(*_who(row), *(_cell(row, name) for name in shown.values())) for row in rows]
    return Table(title, (*_WHO, *shown), body)


def _beside_solver(title: str, rows: Sequence[Row]) -> Table:
    if all(row["speedup_at_equal_error"] is None for row in rows):
        return Table(title, _WHO, [])
    body = []
    for row in rows:
        error, data_error = row["rel_l2_mean"], row["data_error"]
        margin = error / data_error if isinstance(error, float) and isinstance(data_error, float) else None
        near = " (!)" if margin is not None and margin < DATA_ERROR_MARGIN else ""
        numbers = (_text(error), _text(margin) + near, _text(row["speedup_at_equal_error"]))
        body.append((*_who(row), *numbers, _text(row["breakeven_solves"]), _verdict(row)))
    return Table(title, (*_WHO, "rel. L2", "x data's", "speed-up", "pays after", "faster"), body)


def _cell(row: Row, column: str) -> str:
    deviation = row["rel_l2_sd"] if column == "rel_l2_mean" else None
    if column == "rel_l2_mean" and not row["n_seeds"]:
        return str(row["status"])
    return _text(row[column]) + (f" ± {_text(deviation)}" if deviation is not None else "")


def _verdict(row: Row) -> str:
    """Who is how many times faster for the same error; beyond the solver's curve at least (>) or at most (<).

    >>> _verdict({"speedup_at_equal_error": 0.25, "speedup_is_bound": "<"})
    'solver, >4x'
    >>> _verdict({"speedup_at_equal_error": 2.0, "speedup_is_bound": "no"})
    'model, 2x'
    """
    speedup, bound = row["speedup_at_equal_error"], row["speedup_is_bound"]
    if not isinstance(speedup, float) or not speedup > 0:
        return ""
    who, factor, signs = ("model", speedup, "<>") if speedup >= 1 else ("solver", 1 / speedup, "><")
    sign = dict(zip("<>", signs, strict=True)).get(str(bound), "")
    return f"{who}, {sign}{_text(float(f'{factor:.2g}'))}x"


def _who(row: Row) -> tuple[str, str]:
    label = str(row["variant"]).rpartition("-")[0]
    name = str(row["model"]) if label in ("", "default") else f"{row['model']} {label}"
    return _text(row["rank"]), name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 3] + "..."


def _text(value: Cell) -> str:
    if not isinstance(value, float | int):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if math.isfinite(value) and (value >= 1000 or float(value).is_integer()) else f"{value:.3g}"
