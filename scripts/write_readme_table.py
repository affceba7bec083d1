"""Write what README.md and docs/results.md show of the lite track, from the committed records.

    python scripts/write_readme_table.py

README.md gets a short table of the models with three seeds, and one sentence per dataset. docs/results.md gets the
table of all models with deviations and training times, all verdicts, and pictures of error against time,
docs/images/board_<dataset>.svg. docs/images/published.svg shows what the experiments of papers reached.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from data_gen.files import replacing
from neuralop_bench.board import pictures as board_pictures
from neuralop_bench.board import plots
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board, Entry, Group
from neuralop_bench.board.verdicts import verdicts

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
RECORDS = ROOT / "leaderboard"
TRACK = "lite"

_LINE_LENGTH = 120
_SEEDS = 3
_ROUNDING = 1e-3
_PLACE = re.compile(r"(?<=<!-- lite board: made by `make board` -->\n\n).*?(?=\n<!-- end -->)", re.DOTALL)


def shown(found: Board) -> list[Group]:
    """The groups of the track."""
    return [group for group in found.groups if group.track == TRACK]


def table(groups: Sequence[Group], *, details: bool) -> str:
    """Models down, best first; datasets across. Bold where no model of the dataset is significantly better.

    ``details`` adds the standard deviation of seeds, the seconds of training, and models with fewer than three seeds.
    """
    found = {
        (str(entry.cells["model"]), group.dataset): entry
        for group in groups
        for entry in group.entries
        if entry.cells["rel_l2_mean"] is not None
        and str(entry.cells["variant"]).startswith("default-")
        and (details or _is_repeated(entry))
    }
    datasets = [group.dataset for group in groups]
    errors = {place: float(str(entry.cells["rel_l2_mean"])) for place, entry in found.items()}
    best = {name: min(error for (_, dataset), error in errors.items() if dataset == name) for name in datasets}

    def rank(model: str) -> tuple[float, str]:
        """How many times the best error, on average over the datasets it has (geometric mean)."""
        ratios = [errors[model, name] / best[name] for name in datasets if (model, name) in errors]
        return sum(map(math.log, ratios)) / len(ratios), model

    heads = ["model", *datasets, *(["training, s"] if details else [])]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for model in sorted({model for model, _ in errors}, key=rank):
        entries = [found.get((model, name)) for name in datasets]
        cells = [f"`{model}`", *(_cell(entry, details) for entry in entries)]
        if details:
            cells.append(" / ".join(map(_seconds, entries)))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def short(groups: Sequence[Group]) -> str:
    """What README.md shows: datasets and models with three seeds."""
    repeated = [group for group in groups if any(map(_is_repeated, group.entries))]
    return table(repeated, details=False) + "\n" + _list(repeated, 1)


def _is_repeated(entry: Entry) -> bool:
    return int(str(entry.cells["n_seeds"])) >= _SEEDS


def full(groups: Sequence[Group]) -> str:
    """What docs/results.md shows."""
    threads = textwrap.fill(_threads(groups), _LINE_LENGTH) + "\n"
    images = "".join(f"![Error against time on {group.task}](images/{_picture_name(group)})\n" for group in groups)
    return "\n".join([table(groups, details=True), threads, _list(groups, None), images])


PAGES: Mapping[Path, Callable[[Sequence[Group]], str]] = {ROOT / "README.md": short, ROOT / "docs" / "results.md": full}


def filled(path: Path, made: str) -> str:
    """A page with what it shows of the board replaced by ``made``.

    Raises:
        ValueError: the page has no place for it.
    """
    text = path.read_text(encoding="utf-8")
    if not _PLACE.search(text):
        raise ValueError(f"{path} has no place for the table: the two comments around it are missing.")
    return _PLACE.sub(lambda _: made, text)


def pictures(found: Board) -> Mapping[str, str]:
    """SVGs by the names of their files."""
    series = board_pictures.series_of(shown(found))
    made = {_picture_name(group): board_pictures.error_and_time(group, series) for group in shown(found)}
    made["published.svg"] = board_pictures.published_and_reached(found.groups)
    return {name: plots.standalone(svg, board_pictures.colours()) for name, svg in made.items() if svg is not None}


def _list(groups: Sequence[Group], n_sentences: int | None) -> str:
    """The first sentences of each dataset's verdict, or all of them."""
    items = (f"- **{group.task}.** {' '.join(verdicts(group)[:n_sentences])}" for group in groups)
    return "".join(
        textwrap.fill(item, _LINE_LENGTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False) + "\n"
        for item in items
    )


def _threads(groups: Sequence[Group]) -> str:
    """How many threads the trainings and the timed predictions used."""
    runs = [run for group in groups for entry in group.entries for run in entry.seeds.runs]
    found = Counter(run.record.environment.get("threads") for run in runs)
    (most, n_runs), *others = found.most_common()
    sentence = f"Of {len(runs)} trainings, {n_runs} used {most} thread{'' if most == 1 else 's'}"
    for n_threads, n_runs in others:
        models = sorted({run.record.model for run in runs if run.record.environment.get("threads") == n_threads})
        sentence += f", and {n_runs} used {n_threads} ({', '.join(f'`{model}`' for model in models)})"
    timed = sorted({str(one.environment.get("threads")) for run in runs for one in run.evaluations})
    return f"{sentence}. Predictions were timed with {' or '.join(timed)} threads." if timed else f"{sentence}."


def _picture_name(group: Group) -> str:
    return f"board_{group.dataset}.svg"


def _cell(entry: Entry | None, details: bool) -> str:
    if entry is None:
        return ""
    error, deviation = float(str(entry.cells["rel_l2_mean"])), entry.cells["rel_l2_sd"]
    digits = 4 if error < 0.01 else 3
    text = f"{error:.{digits}f}"
    text = f"**{text}**" if entry.cells["rank"] == 1 else text
    # The seeds of a regression differ by rounding, if at all.
    differ = isinstance(deviation, float) and deviation > _ROUNDING * error
    return f"{text} ± {deviation:.1g}" if details and differ else text


def _seconds(entry: Entry | None) -> str:
    value = None if entry is None else entry.cells["train_seconds"]
    return "" if value is None else f"{float(str(value)):.0f}"


def main() -> None:
    found = Board.of(collect([RECORDS]))
    for path, content in PAGES.items():
        text = filled(path, content(shown(found)))
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    for name, svg in pictures(found).items():
        with replacing(IMAGES / name) as temporary:
            temporary.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
