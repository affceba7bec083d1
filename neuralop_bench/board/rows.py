"""Rows of a board from runs: seeds aggregated, ranks by significance, and a reason for every cell that is empty."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from neuralop_bench.board.collect import UNRANKED_TRACKS, Collection, Refusal, Run
from neuralop_bench.evaluation.statistics import Interval, Pair, Standings, crossed_interval, rank
from neuralop_bench.records import published, standing

Cell = str | int | float | bool | None

COLUMNS = """
    rank track dataset task dataset_version data_sha256 model variant n_seeds
    rel_l2_mean rel_l2_sd rel_l2_ci_lo rel_l2_ci_hi rel_l2_median rel_l2_first_step rel_l2_last_step
    rel_h1 vrmse max_error spec_low spec_mid spec_high lsd_db k_eff correlation_time_0.8 stable_fraction
    transfer_half transfer_double ood_factor valid_rel_l2
    n_parameters gflops_forward train_seconds latency_ms throughput peak_memory_mb
    speedup_at_equal_error speedup_is_bound breakeven_solves data_error
    device precision resolution n_train epochs tuning_trials metric_version bench_version commit dirty config_hash
    seeds status comparable published_value published_source run_ids date_utc
""".split()

# What a run has in common for all its numbers (commit, versions ...) stands in its row of leaderboard.csv.
RUN_COLUMNS = "run_id track dataset task model variant seed status setting metric value data_sha256".split()

_FROM_METRICS = COLUMNS[COLUMNS.index("rel_l2_median") : COLUMNS.index("valid_rel_l2") + 1]
_FROM_COST = COLUMNS[COLUMNS.index("n_parameters") : COLUMNS.index("breakeven_solves") + 1]
# Measured by the thorough evaluator alone.
_THOROUGH = {
    *("correlation_time_0.8", "stable_fraction", "transfer_half", "transfer_double", "ood_factor"),
    *("speedup_at_equal_error", "speedup_is_bound", "breakeven_solves"),
}
# Notes of evaluations go by the measurement, which may fill several columns.
_NOTED_AS = {
    "correlation_time_0.8": "correlation",
    "stable_fraction": "stability",
    "speedup_is_bound": "speedup_at_equal_error",
}
_BANDS = ("spec_low", "spec_mid", "spec_high")
# Digits of a hash that tell data apart in a table.
_SHORT_HASH = 12


@dataclass(frozen=True)
class Entry:
    """One row: a model's variant on a task, its seeds together.

    Attributes:
        cells: by column.
        blanks: why a cell is empty, by column.
        runs: all, by seed.
        interval: of the mean error; None if the records keep no errors per sample, or if one is infinite.
    """

    cells: dict[str, Cell]
    blanks: dict[str, str]
    runs: tuple[Run, ...]
    interval: Interval | None

    @property
    def finished(self) -> tuple[Run, ...]:
        return _finished(self.runs)

    @property
    def errors(self) -> NDArray[np.float64] | None:
        """Relative L2 [seed, sample] of the finished seeds; None if one keeps none."""
        return _errors(self.finished)

    @property
    def name(self) -> str:
        """The model, with what sets its variant apart."""
        label = str(self.cells["variant"]).rpartition("-")[0]
        return str(self.cells["model"]) if label in ("", "default") else f"{self.cells['model']} {label}"


@dataclass(frozen=True)
class Group:
    """Rows of one track, dataset and task, which are compared with each other.

    Attributes:
        track, dataset, task: of all.
        entries: best first.
        ranked: those of ``entries`` that have a rank, in the order of ``standings``.
        standings: who is better than whom; None if nobody is ranked.
    """

    track: str
    dataset: str
    task: str
    entries: tuple[Entry, ...]
    ranked: tuple[Entry, ...]
    standings: Standings | None

    def compared(self, most: int) -> tuple[list[Entry], list[list[Pair | None]]]:
        """Up to ``most`` ranked rows, best first, and how each stands beside each other; None beside itself."""
        places = {id(entry): place for place, entry in enumerate(self.ranked)}
        shown = [entry for entry in self.entries if id(entry) in places][:most]
        standings = self.standings
        if standings is None:
            return [], []
        own = [places[id(entry)] for entry in shown]
        return shown, [[None if i == j else standings.pair(i, j) for j in own] for i in own]


@dataclass(frozen=True)
class Board:
    """All groups, by track, dataset and task, and what was left out."""

    groups: tuple[Group, ...]
    runs: tuple[Run, ...]
    refusals: tuple[Refusal, ...]

    @property
    def entries(self) -> list[Entry]:
        return [entry for group in self.groups for entry in group.entries]

    @property
    def rows(self) -> list[dict[str, Cell]]:
        """Cells of all entries."""
        return [entry.cells for entry in self.entries]


def board(collection: Collection) -> Board:
    """Seeds aggregated, groups ranked. A column that not every finished seed has is empty. Runs that diverged or failed
    stay in sight: a row without a finished seed has no numbers, one with some has no rank."""
    ordered = sorted(collection.runs, key=lambda run: (*run.row_key, run.record.seed))
    entries = [_entry(tuple(members)) for _, members in groupby(ordered, key=lambda run: run.row_key)]
    groups = [_group(list(members)) for _, members in groupby(entries, key=lambda entry: entry.runs[0].row_key[:3])]
    return Board(tuple(groups), tuple(ordered), collection.refusals)


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
        for setting, data_hash, columns in _further(run):
            place = {**shared, "setting": setting, "data_sha256": data_hash[:_SHORT_HASH]}
            for metric, value in columns.items():
                yield {**place, "metric": metric, "value": value}


def columns_of(run: Run, setting: str) -> Mapping[str, float | None]:
    """What was measured on a further test set; empty if nothing was."""
    return next((columns for name, _, columns in _further(run) if name == setting), {})


def settings(run: Run) -> list[str]:
    """Further test sets on which something was measured."""
    return [name for name, _, _ in _further(run)]


def _further(run: Run) -> Iterator[tuple[str, str, Mapping[str, float | None]]]:
    """Further test sets with their hashes and columns, of the latest evaluation that has them."""
    latest = {setting: (entry, columns) for entry in run.evaluations for setting, columns in entry.columns.items()}
    for setting, (entry, columns) in sorted(latest.items()):
        data = entry.data.get(setting) or entry.data.get(setting.removesuffix("_interpolated"), {})
        yield setting, str(data.get("sha256", "")), columns


def _finished(runs: Iterable[Run]) -> tuple[Run, ...]:
    return tuple(run for run in runs if run.record.status == "finished")


def _errors(runs: Sequence[Run]) -> NDArray[np.float64] | None:
    found = [run.samples.get("rel_l2", []) for run in runs]
    if not found or not found[0] or len({len(values) for values in found}) > 1:
        return None
    return np.array(found, np.float64)


def _group(entries: list[Entry]) -> Group:
    track, dataset, task = entries[0].runs[0].row_key[:3]
    ranked = [] if track in UNRANKED_TRACKS else [entry for entry in entries if not _why_unranked(entry)]
    ranked = _same_samples(ranked)
    standings = rank([errors for entry in ranked if (errors := entry.errors) is not None]) if ranked else None
    if standings is not None:
        for entry, place in zip(ranked, standings.ranks, strict=True):
            entry.cells["rank"] = int(place)
    for entry in entries:
        if entry.cells["rank"] is None:
            custom = f"track {track} sets its own task, so its rows are never ranked"
            other = "it has another number of test samples than most of its group"
            reason = custom if track in UNRANKED_TRACKS else _why_unranked(entry) or other
            entry.blanks["rank"] = reason
    return Group(track, dataset, task, tuple(sorted(entries, key=_order)), tuple(ranked), standings)


def _same_samples(entries: Sequence[Entry]) -> list[Entry]:
    """Of equal test hashes the number of samples is equal, too, unless a record was tampered with."""
    numbers = [errors.shape[1] for entry in entries if (errors := entry.errors) is not None]
    usual = statistics.mode(sorted(numbers)) if numbers else 0
    return [entry for entry in entries if (errors := entry.errors) is not None and errors.shape[1] == usual]


def _why_unranked(entry: Entry) -> str:
    if not entry.finished:
        return "no seed finished"
    if open_ones := [run for run in entry.runs if run.record.status != "finished"]:
        return "; ".join(f"seed {run.record.seed} {run.record.status}" for run in open_ones) + (
            ": a mean over the seeds that survive would flatter the model"
        )
    if entry.errors is None:
        return _NO_SAMPLES
    return ""


_NO_SAMPLES = (
    "a record of an older format keeps no errors per sample: evaluate the run again (mode=evaluate evaluator=thorough "
    "run=<directory>)"
)


def _order(entry: Entry) -> tuple[object, ...]:
    score = entry.cells["rel_l2_mean"]
    where = score if isinstance(score, float) else math.inf
    return where, str(entry.cells["model"]), str(entry.cells["variant"])


def _entry(runs: tuple[Run, ...]) -> Entry:
    records = [run.record for run in runs]
    finished = _finished(runs)
    first = (finished or runs)[0].record
    config = first.config
    means = [error for run in finished if (error := run.metrics.get("rel_l2")) is not None]
    errors = _errors(finished)
    interval = None if errors is None else crossed_interval(errors)
    row: dict[str, Cell] = dict.fromkeys(COLUMNS)
    row.update({name: getattr(first, name) for name in ("track", "dataset", "task", "model", "variant", "config_hash")})
    row.update({name: _mean(run.metrics.get(name) for run in finished) for name in _FROM_METRICS})
    row.update({name: _median(run.cost.get(name) for run in finished) for name in _FROM_COST})
    row.update(published.cells(first))
    row["speedup_is_bound"] = _bound([run.cost.get("speedup_is_bound") for run in finished])
    row["data_error"] = _mean(run.data_error for run in finished)
    row.update(
        {
            "dataset_version": first.data.get("test", {}).get("version"),
            "data_sha256": first.data.get("test", {}).get("sha256"),
            "n_seeds": len(finished),
            "rel_l2_mean": _mean(run.metrics.get("rel_l2") for run in finished),
            "rel_l2_sd": _deviation(means),
            "rel_l2_ci_lo": None if interval is None else interval.low,
            "rel_l2_ci_hi": None if interval is None else interval.high,
            "device": _joined(str(record.environment.get("device", "")) for record in records),
            "precision": _joined(str(record.environment.get("precision", "")) for record in records),
            "resolution": first.data.get("test", {}).get("resolution"),
            "n_train": first.data.get("train", {}).get("n"),
            "epochs": config.get("trainer", {}).get("epochs"),
            "tuning_trials": config.get("tuning_trials"),
            "metric_version": _joined(
                f"{name}/v{version}" for run in finished for name, version in run.metric_versions.items()
            ),
            "bench_version": _joined(record.bench_version for record in records),
            "commit": _joined(record.commit for record in records),
            "dirty": any(record.dirty for record in records),
            "seeds": ";".join(str(record.seed) for record in records),
            "status": _status(runs),
            "run_ids": ";".join(record.run_id for record in records),
            "date_utc": max(record.date_utc for record in records),
        }
    )
    row = {name: None if value == "" else value for name, value in row.items()}
    blanks = {name: _why_blank(name, runs, errors) for name in COLUMNS if name != "rank" and row[name] is None}
    return Entry(row, blanks, runs, interval)


def _status(runs: Sequence[Run]) -> str:
    """How far the numbers can be trusted, and what became of seeds that didn't finish."""
    found = {run.record.status for run in runs if run.record.status != "finished"}
    if finished := _finished(runs):
        found.add(standing.weakest(standing.standing(run.record, run.verifications) for run in finished))
    return _joined(found)


def _why_blank(column: str, runs: Sequence[Run], errors: NDArray[np.float64] | None) -> str:
    finished = _finished(runs)
    if not finished:
        return "no seed finished: " + "; ".join(
            f"seed {run.record.seed} {run.record.status}{f' ({run.record.message})' if run.record.message else ''}"
            for run in runs
        )
    if column == "rel_l2_sd":
        return "one seed" if len(finished) == 1 else "an error is infinite"
    if column in ("rel_l2_ci_lo", "rel_l2_ci_hi"):
        return _NO_SAMPLES if errors is None else "an error is infinite, or there is a single test sample"
    if column in ("published_value", "published_source", "comparable"):
        return "nothing is published for this model on this problem and grid"
    if column == "commit":
        return "the code was installed, not checked out: bench_version tells which"
    if column == "tuning_trials":
        return "the recipe doesn't say"
    return _why_unmeasured(column, finished)


def _why_unmeasured(column: str, finished: Sequence[Run]) -> str:
    noted = _NOTED_AS.get(column, column)
    missing = [run for run in finished if {**run.metrics, **run.cost}.get(column) is None]
    for run in missing:
        if note := run.notes.get(noted) or run.notes.get(column):
            return note
    where = "" if len(missing) == len(finished) else f"seed {missing[0].record.seed}: " if missing else ""
    if column in _THOROUGH and any(not run.evaluations for run in missing):
        return f"{where}measured by evaluator=thorough, which hasn't been run"
    if column in _BANDS and all("spectra" in run.metric_versions for run in missing):
        return f"{where}below_rounding: the reference has less than 1e-10 of its energy in this band"
    return f"{where}not measured"


def _mean(values: Iterable[float | None]) -> float | None:
    """None if one of them is missing: a mean over some of the seeds would pass for one over all."""
    known = list(values)
    if not known or None in known:
        return None
    return math.fsum(value for value in known if value is not None) / len(known)


def _median(values: Iterable[float | None]) -> float | None:
    """Of times: whatever else ran on a machine only ever adds to them. None if one is missing."""
    known = list(values)
    if not known or None in known:
        return None
    return float(statistics.median(value for value in known if value is not None))


def _bound(signs: Sequence[float | None]) -> str | None:
    """How speed-ups of several seeds relate to the true one, from the signs of ``speedup_is_bound`` of the seeds."""
    if not signs or None in signs:
        return None
    found = {">" if sign > 0 else "<" for sign in signs if sign}
    return "no" if not found else found.pop() if len(found) == 1 else "mixed"


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.stdev(known) if len(known) > 1 and len(known) == len(values) else None


def _joined(values: Iterable[str]) -> str:
    return ";".join(sorted({value for value in values if value}))
