"""The tables of a leaderboard that people read first: of each task what is accurate, where it fails, what it costs, and
whether it is worth using."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

from neuralop_bench.record import DATA_ERROR_MARGIN
from neuralop_bench.table import Table, number

Cell = str | int | float | bool | None
Row = Mapping[str, Cell]

# Of a model's name with what sets it apart.
_WIDEST_NAME = 30

_ACCURACY = {
    "relative L2": "rel_l2_mean",
    "sd": "rel_l2_sd",
    "median": "rel_l2_median",
    "last step": "rel_l2_last_step",
    "H1": "rel_h1",
    "VRMSE": "vrmse",
    "max": "max_error",
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
    "out of distr.": "ood_factor",
    "correlated [time]": "correlation_time_0.8",
    "stable": "stable_fraction",
}
_COST = {
    "parameters": "n_parameters",
    "GFLOP": "gflops_forward",
    "training [s]": "train_seconds",
    "memory [MB]": "peak_memory_mb",
    "alone [ms]": "latency_ms",
    "per second": "throughput",
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
            _table(f"{where}: error on test", {"seeds": "n_seeds", **_ACCURACY}, entries),
            _table(f"{where}: spectral error by cycles per domain", _SPECTRA, entries),
            _table(f"{where}: elsewhere", _ELSEWHERE, entries),
            _table(f"{where}: cost", _COST, entries),
            _beside_solver(f"{where}: beside the solver at equal error", entries),
        ]
        tables += [table for table in candidates if any(any(row[2:]) for row in table.rows)]
    return tables


def _table(title: str, columns: Mapping[str, str], rows: Sequence[Row]) -> Table:
    body = [(_rank(row), _name(row), *(_text(row[column]) for column in columns.values())) for row in rows]
    return Table(title, ("rank", "model", *columns), body)


def _beside_solver(title: str, rows: Sequence[Row]) -> Table:
    header = ("rank", "model", "relative L2", "of the data's", "speed-up", "pays after", "verdict")
    body = []
    for row in rows:
        speedup, error, data_error = row["speedup_at_equal_error"], row["rel_l2_mean"], row["data_error"]
        if speedup is None:
            body.append((_rank(row), _name(row), *[""] * 5))
            continue
        margin = error / data_error if isinstance(error, float) and isinstance(data_error, float) else None
        near = " (!)" if margin is not None and margin < DATA_ERROR_MARGIN else ""
        cells = (_text(error), number(margin) + near, _text(speedup), _text(row["breakeven_solves"]), _verdict(row))
        body.append((_rank(row), _name(row), *cells))
    return Table(title, header, body)


def _verdict(row: Row) -> str:
    """Who is faster for the same error, in words.

    >>> _verdict({"speedup_at_equal_error": 0.25, "speedup_is_bound": "<"})
    'solver, at least 4x'
    >>> _verdict({"speedup_at_equal_error": 2.0, "speedup_is_bound": "no"})
    'model, 2x'
    """
    speedup, bound = row["speedup_at_equal_error"], row["speedup_is_bound"]
    if not isinstance(speedup, float) or not speedup > 0:
        return ""
    model_wins = speedup >= 1
    factor = f"{speedup if model_wins else 1 / speedup:.2g}x"
    words = {"<": "at most " if model_wins else "at least ", ">": "at least " if model_wins else "at most "}
    return f"{'model' if model_wins else 'solver'}, {words.get(str(bound), '')}{factor}"


def _name(row: Row) -> str:
    label = str(row["variant"]).rpartition("-")[0]
    name = str(row["model"]) if label in ("", "default") else f"{row['model']} {label}"
    return name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 3] + "..."


def _rank(row: Row) -> str:
    rank = row["rank"]
    return str(rank) if rank is not None else "" if row["n_seeds"] else str(row["status"])


def _text(value: Cell) -> str:
    if not isinstance(value, float | int):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if math.isfinite(value) and float(value).is_integer() else number(value)
