"""Rows of text, for the terminal and for markdown."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from data_gen.progress import plain, printable

# Width, in characters, that tables of results fit into.
WIDTH = 100
_ENDLESS = 10_000


@dataclass(frozen=True)
class Table:
    """Rows of text. ``wraps`` breaks long cells into lines instead of widening their column."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    wraps: bool = False

    def to_markdown(self) -> str:
        rule = "---" if self.wraps else "---:"
        lines = [f"**{plain(self.title)}**", "", _line(self.header), _line(["---"] + [rule] * (len(self.header) - 1))]
        return "\n".join([*lines, *(_line(row) for row in self.rows)]) + "\n"

    def to_rich(self) -> RichTable:
        table = RichTable(title=plain(self.title), title_justify="left", box=box.ASCII2)
        for index, name in enumerate(self.header):
            table.add_column(plain(name), justify="left" if index == 0 or self.wraps else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*map(plain, row))
        return table


def show(tables: Sequence[Table]) -> None:
    """Print tables to stdout, with ``?`` for characters that its encoding doesn't have.

    A log file gets plain text at the table's full width.
    """
    for table in tables:
        drawn = table.to_rich()
        console = _console(table, drawn)
        with console.capture() as captured:
            console.print(drawn)
        sys.stdout.write(printable(captured.get(), sys.stdout.encoding))
    sys.stdout.flush()


def _console(table: Table, drawn: RichTable) -> Console:
    if sys.stdout.isatty():
        return Console(markup=False, emoji=False, highlight=False)
    natural = Console(width=_ENDLESS, markup=False).measure(drawn).maximum
    width = WIDTH if table.wraps else max(WIDTH, natural)
    return Console(width=width, color_system=None, markup=False, emoji=False, highlight=False)


def number(value: float | None) -> str:
    """A number with four significant digits; an empty string if it wasn't measured.

    >>> number(0.0345678), number(None), number(float("inf")), number(3.0)
    ('0.03457', '', 'inf', '3')
    """
    if value is None or math.isnan(value):
        return ""
    return f"{value:.4g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(_escaped, cells)) + " |"


def _escaped(text: str) -> str:
    """A text for one line of markdown. What could start a cell, a tag, code or a link is escaped."""
    words = " ".join(plain(text).split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
    return words.replace("`", "\\`").replace("](", "]\\(")
