"""The leaderboard: a pure function of records and of the evaluations and verifications beside them.

    python -m neuralop_bench.leaderboard outputs -o outputs/leaderboard
    python -m neuralop_bench.leaderboard leaderboard theirs -o merged

reads every record below the folders and writes ``leaderboard.csv`` (wide: one row per track, dataset, task, model and
variant, seeds aggregated), ``runs.csv`` (tidy: one row per run, test set and measurement), ``blanks.csv`` (why a cell
of the first is empty), ``leaderboard.md`` (the printed tables) and ``index.html``, a page in a single file. Records
that can't be compared with the others are left out, and a warning gives the reason.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from data_gen.files import WriteError, make_folder, replacing, write_errors
from neuralop_bench.board import columns
from neuralop_bench.board.collect import Collection, collect
from neuralop_bench.board.rows import RUN_COLUMNS, Board, run_rows
from neuralop_bench.board.tables import board_tables
from neuralop_bench.board.text import Cell, Cells
from neuralop_bench.runtime.table import Table, plain, show

# Folder of the board in outputs.
FOLDER = "leaderboard"
PAGE_NAME = "index.html"

_MOST_SHOWN = 40
_BLANK_COLUMNS = ("track", "dataset", "task", "model", "variant", "column", "reason")
# Spreadsheets read text that starts with one of these as a formula, and a record may contain anything.
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")


def write(found: Board, folder: Path, *, draws: bool = True) -> list[Table]:
    """Write the files of a board into ``folder``, each atomically, and return the tables of leaderboard.md.

    ``draws``: also write index.html, whose pictures take a second or two.
    """
    make_folder(folder)
    _write_csv(folder / "runs.csv", RUN_COLUMNS, run_rows(found.runs))
    _write_csv(folder / "leaderboard.csv", columns.names(), found.rows)
    _write_csv(folder / "blanks.csv", _BLANK_COLUMNS, _blanks(found))
    shown = board_tables(found)
    with replacing(folder / "leaderboard.md") as temporary:
        temporary.write_text("\n".join(entry.to_markdown() for entry in shown), encoding="utf-8")
    if draws:
        from neuralop_bench.board import page  # imports matplotlib, which takes a second

        with replacing(folder / PAGE_NAME) as temporary:
            temporary.write_text(page.render(found), encoding="utf-8")
    return shown


def rebuild(outputs: Path, *, draws: bool = True) -> Path:
    """Rebuild the board of an outputs folder under a lock; returns the path of its leaderboard.csv.

    A warning names each file that was left out; the other runs are on the board all the same. ``draws``: as in
    ``write``.

    Raises:
        WriteError: the board can't be written.
    """
    folder = outputs / FOLDER
    make_folder(folder)
    lock = FileLock(folder / ".lock")
    with write_errors(folder / ".lock"):
        lock.acquire()
    try:
        for leftover in folder.glob(".*.tmp"):  # of a process that was killed while it wrote the board
            leftover.unlink(missing_ok=True)
        found = collect([outputs])
        write(Board.of(found), folder, draws=draws)
    finally:
        lock.release()
    _warn(found)
    return folder / "leaderboard.csv"


def _warn(found: Collection) -> None:
    for refusal in found.refusals:
        print(f"Warning: the leaderboard lacks {plain(str(refusal))}", file=sys.stderr)


def _first_rows(table: Table) -> Table:
    """As many rows as a terminal shows; leaderboard.md has all."""
    if len(table.rows) <= _MOST_SHOWN:
        return table
    return replace(
        table, title=f"{table.title}, first {_MOST_SHOWN} of {len(table.rows)}", rows=table.rows[:_MOST_SHOWN]
    )


def _blanks(found: Board) -> Iterable[dict[str, Cell]]:
    for entry in found.entries:
        place = {name: entry.cells[name] for name in _BLANK_COLUMNS[:-2]}
        for column in columns.names():
            if column in entry.blanks:
                yield {**place, "column": column, "reason": entry.blanks[column]}


def _text(value: Cell) -> str:
    """Empty for a missing value, six significant digits of a number, all digits of a whole number."""
    if value is None:
        return ""
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value))
        return "" if math.isnan(value) else f"{value:.6g}"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _write_csv(path: Path, header: Sequence[str], table: Iterable[Cells]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)  # RFC 4180
        writer.writerow(header)
        writer.writerows([_text(row.get(name)) for name in header] for row in table)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Command line; returns the exit status: 1 if there is no record to show."""
    parser = argparse.ArgumentParser(prog="python -m neuralop_bench.leaderboard", description="Write a leaderboard.")
    parser.add_argument("folders", nargs="+", type=Path, help="folders with records: outputs, or a committed board")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the board")
    options = parser.parse_args(arguments)
    absent = [str(folder) for folder in options.folders if not folder.is_dir()]
    if absent:
        print(f"Error: no folder {', '.join(absent)}.", file=sys.stderr)
        return 1
    found = collect(options.folders)
    _warn(found)
    if not found.runs:
        where = ", ".join(map(str, options.folders))
        print(
            f"Error: no record to show in {where}. A run leaves <folder>/.../record.json; a committed board has "
            "<folder>/records/<track>/*.json.",
            file=sys.stderr,
        )
        return 1
    try:
        tables = write(Board.of(found), options.output)
    except WriteError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    show([_first_rows(table) for table in tables])
    left_out = f", {len(found.refusals)} files left out (see above)" if found.refusals else ""
    say(f"{len(found.runs)} records -> {options.output / PAGE_NAME}, {options.output / 'leaderboard.csv'}{left_out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
