"""Results as tables, for the terminal and for markdown."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xarray as xr
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from data_gen.progress import printable
from neuralop_bench.metrics.relative import relative_l2_step
from neuralop_bench.metrics.spectral import BANDS

_SUMMARY = (
    ("relative L2 (mean)", "rel_l2"),
    ("relative L2 (median)", "rel_l2_median"),
    ("relative L2 (95th percentile)", "rel_l2_p95"),
    ("relative L2, first step", "rel_l2_first_step"),
    ("relative L2, last step", "rel_l2_last_step"),
    ("VRMSE", "vrmse"),
    ("maximum error", "max_error"),
    ("diverged samples", "n_diverged"),
    ("relative L2 on valid", "valid_rel_l2"),
)
_LOG_WIDTH = 160
_BAND_RANGES = {"low": "1-3", "mid": "4-11", "high": "12 and above"}


@dataclass(frozen=True)
class Table:
    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def to_markdown(self) -> str:
        lines = [f"**{self.title}**", "", _line(self.header), _line(["---"] + ["---:"] * (len(self.header) - 1))]
        return "\n".join([*lines, *(_line(row) for row in self.rows)]) + "\n"

    def to_rich(self) -> RichTable:
        table = RichTable(title=self.title, title_justify="left", box=box.ASCII2)
        for index, name in enumerate(self.header):
            table.add_column(name, justify="left" if index == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        return table


def result_tables(
    metrics: Mapping[str, float | None], errors: xr.Dataset, published: tuple[float, str] | None = None
) -> list[Table]:
    """Summary, error over time, and error by scale, of one evaluation; beside them a published relative L2 and its
    source."""
    summary = [(label, number(metrics.get(column))) for label, column in _SUMMARY]
    steps = relative_l2_step(errors).mean("channel")
    over_time = [
        (f"{float(t):g}", number(float(steps.sel(time=t).mean())), number(float(steps.sel(time=t).median())))
        for t in errors["time"]
    ]
    bands = [
        (band, _BAND_RANGES[band], number(metrics.get(f"spec_{band}")), number(metrics.get(f"spec_{band}_mean")))
        for band in BANDS
    ]
    return [
        Table("Errors on test", ("metric", "value"), summary),
        *_beside_published(metrics.get("rel_l2"), published),
        *([Table("Relative L2 over time", ("time", "mean over samples", "median"), over_time)] * (len(over_time) > 1)),
        Table("Spectral error by band", ("band", "cycles per domain", "pooled", "mean over samples"), bands),
    ]


def _beside_published(found: float | None, published: tuple[float, str] | None) -> list[Table]:
    if published is None:
        return []
    rows = [("this run", number(found)), (published[1], number(published[0]))]
    return [Table("Relative L2 beside the published one, of another draw of the data", ("source", "value"), rows)]


def show(tables: Sequence[Table]) -> None:
    """Print tables to stdout, with ``?`` for what its encoding can't write.

    A log file gets plain text, as wide as the tables are.
    """
    console = Console() if sys.stdout.isatty() else Console(width=_LOG_WIDTH, color_system=None)
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
