"""Write the table of the lite track in README.md from the committed records.

    python scripts/write_readme_table.py

One line per model in its default recipe, best first; relative L2 on test of each dataset, the mean over its seeds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from data_gen.files import replacing
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Cell, board

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
RECORDS = ROOT / "leaderboard"
TRACK = "lite"

_PLACE = re.compile(r"(?<=<!-- lite board: made by `make board` -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)


def table(rows: Sequence[dict[str, Cell]]) -> str:
    """The rows of the track as markdown: models down, datasets across, the best of each dataset in bold."""
    shown = [
        row
        for row in rows
        if row["track"] == TRACK and row["rel_l2_mean"] is not None and str(row["variant"]).startswith("default-")
    ]
    datasets = sorted({str(row["dataset"]) for row in shown})
    found = {(str(row["model"]), str(row["dataset"])): row for row in shown}
    errors = {place: float(str(row["rel_l2_mean"])) for place, row in found.items()}
    best = {name: min(error for (_, dataset), error in errors.items() if dataset == name) for name in datasets}

    def rank(model: str) -> tuple[float, str]:
        """How many times the best error, on average over the datasets it has (geometric mean)."""
        ratios = [errors[model, name] / best[name] for name in datasets if (model, name) in errors]
        return sum(map(math.log, ratios)) / len(ratios), model

    def cell(model: str, dataset: str) -> str:
        error = errors.get((model, dataset))
        if error is None:
            return ""
        text = f"{error:.2g}" if error < 0.01 else f"{error:.3f}"
        return f"**{text}**" if error == best[dataset] else text

    def seconds(model: str, dataset: str) -> str:
        value = found.get((model, dataset), {}).get("train_seconds")
        return "" if value is None else f"{float(str(value)):.0f}"

    lines = [
        "| model | " + " | ".join(datasets) + " | training, s |",
        "| --- |" + " ---: |" * (len(datasets) + 1),
    ]
    for model in sorted({model for model, _ in errors}, key=rank):
        times = " / ".join(seconds(model, name) for name in datasets)
        lines.append(f"| `{model}` | " + " | ".join(cell(model, name) for name in datasets) + f" | {times} |")
    return "\n".join(lines) + "\n"


def page(text: str, rows: Sequence[dict[str, Cell]]) -> str:
    """The page with its table made anew.

    Raises:
        ValueError: the page has no place for it.
    """
    if not _PLACE.search(text):
        raise ValueError(f"{PAGE} has no place for the table: the two comments around it are missing.")
    return _PLACE.sub(lambda _: table(rows), text)


def main() -> None:
    rows = board(collect([RECORDS])).rows
    text = page(PAGE.read_text(encoding="utf-8"), rows)
    with replacing(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
