"""Write what README.md shows of the lite track from the committed records: a table, pictures and verdicts.

    python scripts/write_readme_table.py

The table has one line per model in its default recipe, best first: relative L2 on test of each dataset, the mean over
its seeds and their standard deviation. The pictures are error against time, docs/images/board_<dataset>.svg.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from data_gen.files import replacing
from neuralop_bench.board import pictures as board_pictures
from neuralop_bench.board import plots
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board, Entry, Group
from neuralop_bench.board.verdicts import verdicts

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images"
RECORDS = ROOT / "leaderboard"
TRACK = "lite"

_ROUNDING = 1e-3
_PLACE = re.compile(r"(?<=<!-- lite board: made by `make board` -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)


def shown(found: Board) -> list[Group]:
    """The groups of the track."""
    return [group for group in found.groups if group.track == TRACK]


def table(groups: Sequence[Group]) -> str:
    """Models down, datasets across, the best of each dataset in bold."""
    found = {
        (str(entry.cells["model"]), group.dataset): entry
        for group in groups
        for entry in group.entries
        if entry.cells["rel_l2_mean"] is not None and str(entry.cells["variant"]).startswith("default-")
    }
    datasets = [group.dataset for group in groups]
    errors = {place: float(str(entry.cells["rel_l2_mean"])) for place, entry in found.items()}
    best = {name: min(error for (_, dataset), error in errors.items() if dataset == name) for name in datasets}

    def rank(model: str) -> tuple[float, str]:
        """How many times the best error, on average over the datasets it has (geometric mean)."""
        ratios = [errors[model, name] / best[name] for name in datasets if (model, name) in errors]
        return sum(map(math.log, ratios)) / len(ratios), model

    lines = [
        "| model | " + " | ".join(datasets) + " | training, s |",
        "| --- |" + " ---: |" * (len(datasets) + 1),
    ]
    for model in sorted({model for model, _ in errors}, key=rank):
        entries = [found.get((model, name)) for name in datasets]
        cells = [_cell(entry, best[name]) for entry, name in zip(entries, datasets, strict=True)]
        times = " / ".join(_seconds(entry) for entry in entries)
        lines.append(f"| `{model}` | " + " | ".join(cells) + f" | {times} |")
    return "\n".join(lines) + "\n"


def page(text: str, found: Board) -> str:
    """The page with what it shows of the board made anew.

    Raises:
        ValueError: the page has no place for it.
    """
    if not _PLACE.search(text):
        raise ValueError(f"{PAGE} has no place for the table: the two comments around it are missing.")
    groups = shown(found)
    pictures = "".join(
        f'<img src="docs/images/{_picture_name(group)}" width="32%" alt="Error against time on {group.task}">\n'
        for group in groups
    )
    words = "".join(f"- **{group.task}.** {' '.join(verdicts(group))}\n" for group in groups)
    made = "\n".join([table(groups), pictures, words])
    return _PLACE.sub(lambda _: made, text)


def pictures(found: Board) -> Mapping[str, str]:
    """SVG of each dataset, by the name of its file."""
    made = {}
    series = board_pictures.series_of(shown(found))
    for group in shown(found):
        svg = board_pictures.error_and_time(group, series)
        if svg is not None:
            made[_picture_name(group)] = plots.standalone(svg, board_pictures.colours())
    return made


def _picture_name(group: Group) -> str:
    return f"board_{group.dataset}.svg"


def _cell(entry: Entry | None, best: float) -> str:
    if entry is None:
        return ""
    error, deviation = float(str(entry.cells["rel_l2_mean"])), entry.cells["rel_l2_sd"]
    digits = 4 if error < 0.01 else 3
    text = f"{error:.{digits}f}"
    text = f"**{text}**" if error == best else text
    # The seeds of a regression differ by rounding, if at all.
    differ = isinstance(deviation, float) and deviation > _ROUNDING * error
    return f"{text} ± {deviation:.1g}" if differ else text


def _seconds(entry: Entry | None) -> str:
    value = None if entry is None else entry.cells["train_seconds"]
    return "" if value is None else f"{float(str(value)):.0f}"


def main() -> None:
    found = Board.of(collect([RECORDS]))
    text = page(PAGE.read_text(encoding="utf-8"), found)
    with replacing(PAGE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for name, svg in pictures(found).items():
        with replacing(IMAGES / name) as temporary:
            temporary.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
