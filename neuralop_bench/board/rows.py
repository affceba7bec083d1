"""Rows of a board from runs: seeds combined, ranks by significance, and a reason for every empty cell."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from neuralop_bench.board import columns
from neuralop_bench.board.collect import Collection
from neuralop_bench.board.columns import NO_SAMPLES, Seeds
from neuralop_bench.board.run import UNRANKED_TRACKS, Refusal, Run
from neuralop_bench.board.text import Cell
from neuralop_bench.evaluation.statistics import Pair, Standings, rank
from neuralop_bench.records.trials import Trial

# Numbers that a run has in common (commit, versions ...) are in its row of leaderboard.csv.
RUN_COLUMNS = "run_id track dataset task model variant seed status setting metric value data_sha256".split()
# Digits of a hash that are enough to tell data apart in a table.
_SHORT_HASH = 12


@dataclass(frozen=True)
class Entry:
    """One row: a model's variant on a task, all its seeds together.

    Attributes:
        cells: by column.
        blanks: why a cell is empty, by column.
        seeds: the runs.
    """

    cells: dict[str, Cell]
    blanks: dict[str, str]
    seeds: Seeds

    @property
    def name(self) -> str:
        """The model, with the label of its variant."""
        label = str(self.cells["variant"]).rpartition("-")[0]
        return str(self.cells["model"]) if label in ("", "default") else f"{self.cells['model']} {label}"


@dataclass(frozen=True)
class Group:
    """The rows of one track, dataset and task, which are compared with each other.

    Attributes:
        track, dataset, task: of all.
        entries: best first.
        ranked: those of ``entries`` that have a rank, in the order of ``standings``.
        standings: which model is better than which; None if none is ranked.
        trials: of tuning, by model.
    """

    track: str
    dataset: str
    task: str
    entries: tuple[Entry, ...]
    ranked: tuple[Entry, ...]
    standings: Standings | None
    trials: Mapping[str, Sequence[Trial]] = field(default_factory=dict)

    def compared(self, most: int) -> tuple[list[Entry], list[list[Pair | None]]]:
        """Up to ``most`` ranked rows, best first, and how each compares with every other; None with itself."""
        places = {id(entry): place for place, entry in enumerate(self.ranked)}
        shown = [entry for entry in self.entries if id(entry) in places][:most]
        standings = self.standings
        if standings is None:
            return [], []
        own = [places[id(entry)] for entry in shown]
        return shown, [[None if i == j else standings.pair(i, j) for j in own] for i in own]


@dataclass(frozen=True)
class Board:
    """All groups, by track, dataset and task, with their runs and what was left out."""

    groups: tuple[Group, ...]
    runs: tuple[Run, ...]
    refusals: tuple[Refusal, ...]

    @classmethod
    def of(cls, collection: Collection) -> Board:
        """The board of what was collected.

        A column that a finished seed lacks is empty. Runs that diverged or failed remain visible: a row without a
        finished seed has no numbers, and a row with some unfinished seeds has no rank.
        """
        ordered = sorted(collection.runs, key=lambda run: (*run.row_key, run.record.seed))
        entries = [_entry(Seeds(tuple(members))) for _, members in groupby(ordered, key=lambda run: run.row_key)]
        groups = groupby(entries, key=lambda entry: entry.seeds.runs[0].row_key[:3])
        made = (_group(list(members), collection.trials) for _, members in groups)
        return cls(tuple(made), tuple(ordered), collection.refusals)

    @property
    def entries(self) -> list[Entry]:
        return [entry for group in self.groups for entry in group.entries]

    @property
    def rows(self) -> list[dict[str, Cell]]:
        """Cells of all entries."""
        return [entry.cells for entry in self.entries]


def run_rows(runs: Sequence[Run]) -> Iterator[dict[str, Cell]]:
    """Tidy table: one row per run, test set and measured number."""
    for run in runs:
        record = run.record
        shared: dict[str, Cell] = {name: getattr(record, name) for name in RUN_COLUMNS if hasattr(record, name)}
        test = {**shared, "setting": "test", "data_sha256": run.test_hash[:_SHORT_HASH]}
        if not record.metrics and not record.cost:
            yield test
            continue
        for metric, value in {**run.metrics, **run.cost, "data_error": run.data_error}.items():
            yield {**test, "metric": metric, "value": value}
        for setting, (data_hash, numbers) in run.further.items():
            place = {**shared, "setting": setting, "data_sha256": data_hash[:_SHORT_HASH]}
            for metric, value in numbers.items():
                yield {**place, "metric": metric, "value": value}


def _entry(seeds: Seeds) -> Entry:
    cells, blanks = {}, {}
    for column in columns.COLUMNS:
        if column.of:
            continue
        value = None if column.source is None else column.source.cell(seeds, column.name)
        cells[column.name] = None if value == "" else value
        if column.source is not None and cells[column.name] is None:
            blanks[column.name] = _unfinished(seeds) or column.source.why_empty(seeds, column.name)
    return Entry(cells, blanks, seeds)


def _unfinished(seeds: Seeds) -> str:
    """What became of the seeds, if none finished."""
    if seeds.finished:
        return ""
    ends = (
        f"seed {run.record.seed} {run.record.status}{f' ({run.record.message})' if run.record.message else ''}"
        for run in seeds.runs
    )
    return f"no seed finished: {'; '.join(ends)}"


def _group(entries: list[Entry], trials: Mapping[tuple[str, str], Sequence[Trial]]) -> Group:
    track, dataset, task = entries[0].seeds.runs[0].row_key[:3]
    reasons = [_why_unranked(entry, track) for entry in entries]
    ranked = _same_samples([entry for entry, reason in zip(entries, reasons, strict=True) if not reason])
    errors = [entry.seeds.errors for entry in ranked]
    standings = rank([found for found in errors if found is not None]) if ranked else None
    if standings is not None:
        for entry, place in zip(ranked, standings.ranks, strict=True):
            entry.cells["rank"] = int(place)
    for entry, reason in zip(entries, reasons, strict=True):
        if entry.cells["rank"] is None:
            entry.blanks["rank"] = reason or "its number of test samples differs from that of most rows of its group"
    models = {entry.seeds.runs[0].record.model for entry in entries}
    # Searches tune on the task of a track and dataset that has the dataset's name.
    found = {model: trials.get((track, f"{task}_{model}"), ()) for model in models if task == dataset}
    own = {model: each for model, each in found.items() if each}
    return Group(track, dataset, task, tuple(sorted(entries, key=_order)), tuple(ranked), standings, own)


def _same_samples(entries: Sequence[Entry]) -> list[Entry]:
    """Those with the usual number of test samples. Equal test hashes imply equal numbers unless a record was edited."""
    numbers = [0 if entry.seeds.errors is None else entry.seeds.errors.shape[1] for entry in entries]
    usual = statistics.mode(sorted(numbers)) if numbers else 0
    return [entry for entry, number in zip(entries, numbers, strict=True) if number == usual]


def _why_unranked(entry: Entry, track: str) -> str:
    if track in UNRANKED_TRACKS:
        return f"track {track} sets its own task, so its rows are never ranked"
    if not entry.seeds.finished:
        return "no seed finished"
    if unfinished := [run for run in entry.seeds.runs if run.record.status != "finished"]:
        return "; ".join(f"seed {run.record.seed} {run.record.status}" for run in unfinished) + (
            ": a mean over the remaining seeds would flatter the model"
        )
    return NO_SAMPLES if entry.seeds.errors is None else ""


def _order(entry: Entry) -> tuple[object, ...]:
    score = entry.cells["rel_l2_mean"]
    where = score if isinstance(score, float) else math.inf
    return where, str(entry.cells["model"]), str(entry.cells["variant"])
