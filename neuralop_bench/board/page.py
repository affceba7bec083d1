"""The board as one page: tables, pictures, verdicts and provenance in a single file that needs no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from neuralop_bench.board import columns, pictures
from neuralop_bench.board.columns import Column, Seeds
from neuralop_bench.board.pictures import MOST_PICTURED
from neuralop_bench.board.plots import Series
from neuralop_bench.board.reached import reached
from neuralop_bench.board.rows import Board, Entry, Group
from neuralop_bench.board.text import SINGLE_SEED, stars, text
from neuralop_bench.board.verdicts import verdicts
from neuralop_bench.evaluation.statistics import SIGNIFICANCE, Pair
from neuralop_bench.records import published
from neuralop_bench.records.run_directory import command_line

# Rows of a task whose whole configuration is printed.
_MOST_CONFIGS = 60
# Test sets on other grids, and what a prediction on the training grid is called after interpolation to one.
_HALF, _DOUBLE, _INTERPOLATED = "test_half", "test_double", "_interpolated"
# Said of a row whose test data have another hash than those of most rows, and agree with them.
_OTHER_DIGITS = (
    "; made on another kind of processor than those of most rows, and equal to them up to less than a tenth of the "
    "data's own error"
)


def render(board: Board) -> str:
    """HTML of a board. The same records give the same bytes."""
    environment = Environment(
        loader=PackageLoader("neuralop_bench.board"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    series = pictures.series_of(board.groups)
    return environment.get_template("index.html.j2").render(
        style=_part(environment, "style.css"),
        script=_part(environment, "board.js"),
        n_runs=len(board.runs),
        n_models=len({entry.name for entry in board.entries}),
        date=max((run.record.date_utc for run in board.runs), default="")[:10],
        versions=sorted({run.record.bench_version for run in board.runs}),
        tracks=list(dict.fromkeys(group.track for group in board.groups)),
        datasets=sorted({group.dataset for group in board.groups}),
        families={name: words for name, words in columns.FAMILIES.items() if words},
        columns=columns.on_page(),
        single=SINGLE_SEED,
        overviews=_overviews(board.groups),
        groups=[_section(group, number, series) for number, group in enumerate(board.groups)],
        published=_published(board),
        reached=Markup(pictures.published_and_reached(board.groups) or ""),
        refusals=board.refusals,
    )


def _part(environment: Environment, name: str) -> Markup:
    """A template file that goes into the page unescaped, since it is our own."""
    loader = environment.loader
    assert loader is not None
    return Markup(loader.get_source(environment, name)[0])


# All tasks together --------------------------------------------------------------------------------------------------


def _overviews(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """For each ranked track, models down and tasks across."""
    found = []
    for track in dict.fromkeys(group.track for group in groups if group.ranked):
        members = [group for group in groups if group.track == track]
        cells: dict[str, dict[str, Entry]] = {}
        for group in members:
            for entry in group.entries:
                cells.setdefault(entry.name, {})[group.task] = entry
        models = sorted(cells, key=lambda name: (_mean_place(cells[name], members), name))
        rows = [(name, [_overview_cell(cells[name].get(group.task)) for group in members]) for name in models]
        heads = [{"name": group.task, "id": _id(number)} for number, group in enumerate(groups) if group in members]
        found.append(
            {"track": track, "heads": heads, "rows": rows[:MOST_PICTURED], "n_more": len(rows[MOST_PICTURED:])}
        )
    return found


def _mean_place(entries: Mapping[str, Entry], groups: Sequence[Group]) -> float:
    """Log of the geometric mean, over the model's tasks, of its error over the best error."""
    logs = []
    for group in groups:
        entry = entries.get(group.task)
        if entry is None:
            continue
        error, best = (one.cells["rel_l2_mean"] for one in (entry, group.entries[0]))
        if isinstance(error, float) and isinstance(best, float) and best > 0 and math.isfinite(error):
            logs.append(math.log(error / best) if error > 0 else -math.inf)
    return sum(logs) / len(logs) if logs else math.inf


def _overview_cell(entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {"text": "–", "rank": ""}
    rank = text(entry.cells["rank"])
    interval = entry.seeds.interval
    mark = f" {SINGLE_SEED}" if interval is not None and not interval.counts_seeds else ""
    error = text(entry.cells["rel_l2_mean"]) or str(entry.cells["status"])
    return {"text": error + mark, "rank": rank}


def _published(board: Board) -> list[dict[str, Any]]:
    """Published values, each with the rows of the same model and problem and their differences."""
    beside: dict[str, list[dict[str, str]]] = {}
    for row in reached(board.groups):
        beside.setdefault(row.published.id, []).append(
            {
                "where": f"{row.entry.seeds.first.track}/{row.entry.seeds.first.task}",
                "name": row.entry.name,
                "error": text(row.mean),
                "differs": "; ".join(row.differences),
            }
        )
    return [{"value": value, "rows": beside.get(value.id, [])} for value in published.load()]


# One task ------------------------------------------------------------------------------------------------------------


def _id(number: int) -> str:
    """Of a section. Not made from names, which may contain anything."""
    return f"task-{number}"


def _section(group: Group, number: int, series: Series) -> dict[str, Any]:
    profiles = pictures.profiles_of(group)
    return {
        "id": _id(number),
        "track": group.track,
        "dataset": group.dataset,
        "task": group.task,
        "verdicts": verdicts(group),
        "rows": [_row(entry) for entry in group.entries],
        "against": _against(group),
        "solver": _solver(group),
        "plots": pictures.plots_of(group, profiles, series),
        "transfer": _transfer(group),
        "fields": pictures.fields_of(group, profiles, series),
        "provenance": [_provenance(entry, place) for place, entry in enumerate(group.entries)],
    }


def _row(entry: Entry) -> dict[str, Any]:
    cells = [_cell(entry, column) for column in columns.on_page()]
    return {
        "name": entry.name,
        "rank": entry.cells["rank"],
        "rank_why": entry.blanks.get("rank", ""),
        "cells": cells,
    }


def _cell(entry: Entry, column: Column) -> dict[str, Any]:
    name = column.of or column.name
    value = entry.cells[name]
    shown = column.text(entry.cells)
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return {
        "text": shown,
        "why": "" if shown else entry.blanks.get(name, ""),
        "sort": "" if number is None else f"{number:.9g}",
        "family": column.family,
        "is_number": not column.is_text,
    }


def _against(group: Group) -> dict[str, Any] | None:
    """Which model beats which, and how certain that is."""
    compared, pairs = group.compared(MOST_PICTURED)
    if len(compared) < 2:
        return None
    rows = [
        {
            "name": entry.name,
            "cells": [
                None if pair is None else _pair(entry, other, pair) for other, pair in zip(compared, row, strict=True)
            ],
        }
        for entry, row in zip(compared, pairs, strict=True)
    ]
    return {"heads": [entry.name for entry in compared], "rows": rows}


def _pair(entry: Entry, other: Entry, pair: Pair) -> dict[str, str]:
    better = "better" if pair.ratio < 1 else "worse"
    is_sure = pair.p_value < SIGNIFICANCE
    return {
        "text": f"{text(pair.ratio)}{stars(pair.p_value)}",
        "about": f"{entry.name}'s error is {text(pair.ratio)} times {other.name}'s: "
        + (f"significantly {better}, " if is_sure else "no difference shown, ")
        + f"p = {pair.p_value:.2g} (adjusted)",
        "kind": better if is_sure else "open",
    }


def _solver(group: Group) -> list[dict[str, str]]:
    return [
        {
            "grid": rung.name,
            "steps": f"{rung.relaxation:g}x",
            "error": text(rung.rel_l2),
            "batched": text(1e3 * rung.seconds),
            "alone": text(1e3 * rung.latency_seconds),
        }
        for rung in pictures.rungs_of(group)
    ]


def _transfer(group: Group) -> dict[str, Any] | None:
    """Errors on other grids beside those of an interpolated prediction on the training grid, and on further test
    sets."""
    rows, shifted = [], []
    measured = {setting for entry in group.entries for run in entry.seeds.finished for setting in run.further}
    others = sorted(measured - {grid + suffix for grid in (_HALF, _DOUBLE) for suffix in ("", _INTERPOLATED)})
    for entry in group.entries:
        half, double = (
            [_error_on(entry.seeds, grid + suffix) for suffix in ("", _INTERPOLATED)] for grid in (_HALF, _DOUBLE)
        )
        if any(half + double):
            whys = (entry.blanks.get("transfer_half"), None, None, entry.blanks.get("transfer_double"), None)
            errors = (*half, text(entry.cells["rel_l2_mean"]), *double)
            cells = [{"text": error, "why": why or "not measured"} for error, why in zip(errors, whys, strict=True)]
            rows.append({"name": entry.name, "cells": cells})
        if any(errors := [_error_on(entry.seeds, setting) for setting in others]):
            shifted.append({"name": entry.name, "cells": errors})
    return {"rows": rows, "others": others, "shifted": shifted} if rows or shifted else None


def _error_on(seeds: Seeds, setting: str) -> str:
    """Relative L2 on a further test set, mean over seeds; empty if a seed lacks it."""
    found = (run.further[setting][1].get("rel_l2") if setting in run.further else None for run in seeds.finished)
    return text(columns.of_all(found, columns.average))


def _provenance(entry: Entry, place: int) -> dict[str, Any]:
    records = [run.record for run in entry.seeds.runs]
    first = records[0]
    environment = first.environment
    hardware = {str(record.environment.get("processor", "")) for record in records}
    threads = {str(record.environment.get("threads", "")) for record in records}
    overrides = [str(one) for one in first.config.get("overrides", ()) if not str(one).startswith(("paths.", "seed="))]
    seeds = ",".join(str(record.seed) for record in records)
    again = command_line(overrides, *(["-m"] if len(records) > 1 else []), f"seed={seeds}")
    measured = sorted({str(one.environment.get("threads", "")) for run in entry.seeds.runs for one in run.evaluations})
    facts = {
        "runs": ", ".join(record.run_id for record in records),
        "status": str(entry.cells["status"]),
        "command": again,
        "configuration": f"{first.variant} (hash {first.config_hash})",
        "code": f"version {entry.cells['bench_version']}, commit {entry.cells['commit'] or 'unknown'}"
        + (", with uncommitted changes" if entry.cells["dirty"] else ""),
        "test data": f"version {entry.cells['dataset_version']}, SHA-256 {entry.cells['data_sha256']}"
        + (_OTHER_DIGITS if any(run.has_other_digits for run in entry.seeds.runs) else ""),
        "train data": "SHA-256 " + ", ".join({str(one.data.get("train", {}).get("sha256", "")): "" for one in records}),
        "hardware": f"{entry.cells['device']}; {', '.join(sorted(hardware))}; threads: {', '.join(sorted(threads))}"
        + (f" (times measured with {', '.join(measured)})" if measured else ""),
        "libraries": ", ".join(f"{name} {version}" for name, version in environment.get("libraries", {}).items()),
        "metrics": str(entry.cells["metric_version"] or ""),
        "date": str(entry.cells["date_utc"]),
    }
    config = ""
    if place < _MOST_CONFIGS:
        config = yaml.safe_dump(first.config, sort_keys=True, allow_unicode=True, width=100)
    return {"name": entry.name, "facts": facts, "config": config, "blanks": entry.blanks}
