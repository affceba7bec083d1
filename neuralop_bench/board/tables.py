"""The tables of a leaderboard that people read first: of each task what is accurate, who beats whom, where models fail,
what they cost, and whether they are worth using."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from neuralop_bench.board.rows import Board, Cell, Entry, Group
from neuralop_bench.records.record import DATA_ERROR_MARGIN
from neuralop_bench.runtime.table import Table

# Of a model's name with what sets it apart, so that every table fits a terminal.
_WIDEST_NAME = 20
# Models compared with each other in a table; ranks compare all.
_MOST_COMPARED = 12
# Adjusted p-values below these earn a star each.
_STARS = (0.05, 0.01, 0.001)
# Marks intervals and ranks that know nothing about another training.
SINGLE_SEED = "†"

_WHO = ("rank", "model")
_ACCURACY = {
    "n": "n_seeds",
    "relative L2": "rel_l2_mean",
    "95 % interval": "rel_l2_ci_lo",
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


def board_tables(board: Board) -> list[Table]:
    """Tables of every group, in their order; a table in which nothing was measured is left out."""
    tables: list[Table] = []
    for group in board.groups:
        where = f"{group.task}, {group.track}"
        single = any(entry.cells["n_seeds"] == 1 and entry.interval is not None for entry in group.entries)
        note = f" ({SINGLE_SEED}: one seed, so test samples alone are counted)" if single else ""
        candidates = [
            _table(f"{where}: error on test{note}", _ACCURACY, group.entries),
            _who_beats_whom(f"{where}: ratio of errors, row to column", group),
            _table(f"{where}: spectral error by cycles per domain", _SPECTRA, group.entries),
            _table(f"{where}: elsewhere", _ELSEWHERE, group.entries),
            _table(f"{where}: cost", _COST, group.entries),
            _beside_solver(f"{where}: beside the solver at equal error", group.entries),
        ]
        tables += [table for table in candidates if table.rows and len(table.header) > len(_WHO)]
    return tables


def _table(title: str, columns: Mapping[str, str], entries: Sequence[Entry]) -> Table:
    """Of the columns that were measured for at least one row."""
    shown = {head: name for head, name in columns.items() if any(entry.cells[name] is not None for entry in entries)}
    body = [(*_who(entry), *(_cell(entry, name) for name in shown.values())) for entry in entries]
    return Table(title, (*_WHO, *shown), body)


def _who_beats_whom(title: str, group: Group) -> Table:
    """Below 1 the row's model is better; a star for p < .05, .01, .001, adjusted for all pairs of the group."""
    compared, pairs = group.compared(_MOST_COMPARED)
    if len(compared) < 2:
        return Table(title, _WHO, [])
    body = [
        (*_who(entry), *("" if pair is None else f"{text(pair.ratio)}{stars(pair.p_value)}" for pair in row))
        for entry, row in zip(compared, pairs, strict=True)
    ]
    heads = [_short(entry.name) for entry in compared]
    return Table(f"{title} (* p < .05, ** .01, *** .001)", (*_WHO, *heads), body)


def stars(p_value: float) -> str:
    """One for each level that an adjusted p-value is below.

    >>> stars(0.2), stars(0.004)
    ('', '**')
    """
    return "*" * sum(p_value < level for level in _STARS)


def _beside_solver(title: str, entries: Sequence[Entry]) -> Table:
    rows = [entry.cells for entry in entries]
    if all(row["speedup_at_equal_error"] is None for row in rows):
        return Table(title, _WHO, [])
    body = []
    for entry in entries:
        row = entry.cells
        error, data_error = row["rel_l2_mean"], row["data_error"]
        margin = error / data_error if isinstance(error, float) and isinstance(data_error, float) else None
        near = " (!)" if margin is not None and margin < DATA_ERROR_MARGIN else ""
        numbers = (text(error), text(margin) + near, text(row["speedup_at_equal_error"]))
        body.append((*_who(entry), *numbers, text(row["breakeven_solves"]), verdict(row)))
    return Table(title, (*_WHO, "rel. L2", "x data's", "speed-up", "pays after", "faster"), body)


def _cell(entry: Entry, column: str) -> str:
    row = entry.cells
    if column == "rel_l2_ci_lo":
        return interval(entry)
    if column == "rel_l2_mean" and not row["n_seeds"]:
        return str(row["status"])
    deviation = row["rel_l2_sd"] if column == "rel_l2_mean" else None
    return text(row[column]) + (f" ± {text(deviation)}" if deviation is not None else "")


def interval(entry: Entry) -> str:
    """Of the mean error, marked if it comes from one seed; empty if there is none."""
    found = entry.interval
    if found is None:
        return ""
    return f"{text(found.low)}–{text(found.high)}" + ("" if found.counts_seeds else f" {SINGLE_SEED}")


def verdict(row: Mapping[str, Cell]) -> str:
    """Who is how many times faster for the same error; beyond the solver's curve at least (>) or at most (<).

    >>> verdict({"speedup_at_equal_error": 0.25, "speedup_is_bound": "<"})
    'solver, >4x'
    >>> verdict({"speedup_at_equal_error": 2.0, "speedup_is_bound": "no"})
    'model, 2x'
    """
    speedup, bound = row["speedup_at_equal_error"], row["speedup_is_bound"]
    if not isinstance(speedup, float) or not speedup > 0:
        return ""
    who, factor, signs = ("model", speedup, "<>") if speedup >= 1 else ("solver", 1 / speedup, "><")
    sign = dict(zip("<>", signs, strict=True)).get(str(bound), "")
    return f"{who}, {sign}{text(float(f'{factor:.2g}'))}x"


def _who(entry: Entry) -> tuple[str, str]:
    return text(entry.cells["rank"]), _short(entry.name)


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 3] + "..."


def text(value: Cell) -> str:
    """Three significant digits, whole numbers from 1000 on; empty for what is missing."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        return "" if value is None else str(value)
    return f"{value:,.0f}" if math.isfinite(value) and (value >= 1000 or float(value).is_integer()) else f"{value:.3g}"
