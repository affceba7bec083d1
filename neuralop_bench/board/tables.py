"""The printed tables of a leaderboard: for each task how accurate models are, which beats which, where they fail, what
they cost, and whether they are worth using."""

from __future__ import annotations

from collections.abc import Sequence

from neuralop_bench.board import columns
from neuralop_bench.board.columns import Column
from neuralop_bench.board.rows import Board, Entry, Group
from neuralop_bench.board.text import SINGLE_SEED, VANISHING, faster, stars, text
from neuralop_bench.records.record import DATA_ERROR_MARGIN
from neuralop_bench.runtime.table import Table

# Characters of a row's name, so that every table fits a terminal.
_WIDEST_NAME = 19
# Models in the table of ratios. Ranks compare all.
_MOST_COMPARED = 12
_WHO = ("rank", "model")


def board_tables(board: Board) -> list[Table]:
    """Tables of every group, in their order; a table in which nothing was measured is left out."""
    tables: list[Table] = []
    for group in board.groups:
        where = f"{group.task}, {group.track}"
        single = any(entry.cells["n_seeds"] == 1 and entry.seeds.interval is not None for entry in group.entries)
        note = f" ({SINGLE_SEED}: one seed, so only test samples are counted)" if single else ""
        if any(entry.seeds.n_vanishing for entry in group.entries):
            note += f" ({VANISHING}: some references vanish, so errors there are relative to 1 % of the channel's size)"
        candidates = [
            _table(f"{where}: error on test{note}", columns.in_brief("always", "accuracy"), group.entries),
            _who_beats_whom(f"{where}: ratio of errors, row to column", group),
            _table(f"{where}: spectral error by cycles per domain", columns.in_brief("spectrum"), group.entries),
            _table(f"{where}: elsewhere", columns.in_brief("elsewhere"), group.entries),
            _table(f"{where}: cost", columns.in_brief("cost"), group.entries),
            _beside_solver(f"{where}: beside the solver at equal error", group.entries),
        ]
        tables += [table for table in candidates if table.rows and len(table.header) > len(_WHO)]
    return tables


def _table(title: str, known: Sequence[Column], entries: Sequence[Entry]) -> Table:
    """Of the columns that were measured for at least one row."""
    shown = [column for column in known if any(entry.cells[column.name] is not None for entry in entries)]
    body = [(*_who(entry), *(_cell(entry, column) for column in shown)) for entry in entries]
    return Table(title, (*_WHO, *(column.label for column in shown)), body)


def _cell(entry: Entry, column: Column) -> str:
    """The error of a row without a finished seed is what became of its seeds."""
    if column.name == "rel_l2_mean" and not entry.seeds.finished:
        return str(entry.cells["status"])
    mark = f" {VANISHING}" if column.name == "rel_l2_mean" and entry.seeds.n_vanishing else ""
    return column.text(entry.cells) + mark


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
        body.append((*_who(entry), *numbers, text(row["breakeven_solves"]), faster(row)))
    return Table(title, (*_WHO, "rel. L2", "x data's", "speed-up", "pays after", "faster"), body)


def _who(entry: Entry) -> tuple[str, str]:
    return text(entry.cells["rank"]), _short(entry.name)


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST_NAME else name[: _WIDEST_NAME - 3] + "..."
