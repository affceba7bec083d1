"""Rows of text, for the terminal and for markdown."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from data_gen.progress import printable

# Columns of a terminal that every table fits into, and of a log file.
WIDTH = 100


@dataclass(frozen=True)
class Table:
    """Rows of text; ``wraps`` breaks long cells of the last column instead of widening it."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    wraps: bool = False

    def to_markdown(self) -> str:
        rule = "---" if self.wraps else "---:"
        lines = [f"**{self.title}**", "", _line(self.header), _line(["---"] + [rule] * (len(self.header) - 1))]
        return "\n".join([*lines, *(_line(row) for row in self.rows)]) + "\n"

    def to_rich(self) -> RichTable:
        table = RichTable(title=self.title, title_justify="left", box=box.ASCII2)
        for index, name in enumerate(self.header):
            justify = "left" if index == 0 or self.wraps else "right"
            table.add_column(
                name, justify=justify, overflow="fold" if self.wraps else "ellipsis", no_wrap=not self.wraps
            )
        for row in self.rows:
            table.add_row(*row)
        return table


def show(tables: Sequence[Table]) -> None:
    """Print tables to stdout, with ``?`` for what its encoding can't write.

    A log file gets plain text.
    """
    width, colours = (None, "auto") if sys.stdout.isatty() else (WIDTH, None)
    console = Console(width=width, color_system=colours, markup=False, emoji=False, highlight=False)
    for table in tables:
        with console.capture() as captured:
            console.print(table.to_rich())
        sys.stdout.write(printable(captured.get(), sys.stdout.encoding))
    sys.stdout.flush()


def number(value: float | None) -> str:
    """Four significant digits; empty for what was not measured.

    >>> number(0.0345678), number(None), number(float("inf")), number(3.0)
    ('0.03457', '', 'inf', '3')
    """
    if value is None or math.isnan(value):
        return ""
    return f"{value:.4g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
