"""The leaderboard: a pure function of records and of the evaluations beside them.

    python -m neuralop_bench.leaderboard outputs -o outputs/leaderboard

reads every record below ``outputs`` and writes ``runs.csv`` (tidy: one row per run, test set and measurement),
``leaderboard.csv`` (wide: one row per track, dataset, task, model and variant, seeds aggregated) and
``leaderboard.md``, the tables that people read first, which it prints, too.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from data_gen.files import WriteError, make_folder, replacing, write_errors
from neuralop_bench import published
from neuralop_bench.board_tables import Cell, board_tables
from neuralop_bench.record import RECORD_NAME, Evaluation, RecordError, RunRecord
from neuralop_bench.run_directory import EVALUATIONS, SUPERSEDED
from neuralop_bench.table import Table, show

# Tracks whose rows are shown but never ranked.
UNRANKED_TRACKS = ("custom",)
# Of the board below outputs.
FOLDER = "leaderboard"

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

RUN_COLUMNS = """
    run_id track dataset task model variant seed status setting metric value metric_version data_sha256 config_hash
    bench_version commit dirty date_utc
""".split()

_FROM_METRICS = COLUMNS[COLUMNS.index("rel_l2_median") : COLUMNS.index("valid_rel_l2") + 1]
_FROM_COST = COLUMNS[COLUMNS.index("n_parameters") : COLUMNS.index("breakeven_solves") + 1]
_Kept = TypeVar("_Kept", RunRecord, Evaluation)

# An evaluation repeats what its record says to this relative difference, on another kind of device, too.
_SAME_RUN = 1e-3


class LeaderboardError(RuntimeError):
    """Records that can't stand in one table; the message names them."""


@dataclass(frozen=True)
class Run:
    """A record with what was measured of the run later."""

    record: RunRecord
    evaluations: Sequence[Evaluation] = ()

    @property
    def metrics(self) -> dict[str, float | None]:
        """Columns of the record, and those that it lacks from evaluations."""
        return _completed(self.record.metrics, (entry.metrics for entry in self.evaluations))

    @property
    def cost(self) -> dict[str, float | None]:
        return _completed(self.record.cost, (entry.cost for entry in self.evaluations))

    @property
    def metric_versions(self) -> dict[str, int]:
        versions = dict(self.record.metric_versions)
        for entry in self.evaluations:
            versions = {**entry.metric_versions, **versions}
        return versions

    @property
    def data_error(self) -> float | None:
        """Of the test data."""
        known = (entry.data.get("test", {}).get("error") for entry in (self.record, *self.evaluations))
        return next((value for value in known if value is not None), None)


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """All runs below the folders: ``record.json`` of run directories, with their ``evaluations/*.json``, and the
    committed ``records/<track>/*.json`` with ``evaluations/<track>/*.json``.

    Raises:
        RecordError: a record or an evaluation can't be read.
    """
    folders = list(folders)
    evaluations = [Evaluation.load(path) for path in _evaluation_paths(folders)]
    return [with_evaluations(RunRecord.load(path), evaluations) for path in _record_paths(folders)]


def with_evaluations(record: RunRecord, evaluations: Iterable[Evaluation]) -> Run:
    """A run with those evaluations that are of it and of the same data and metrics; a warning tells of others."""
    fitting = []
    for entry in sorted(evaluations, key=lambda entry: (entry.date_utc, entry.evaluator)):
        if entry.run_id != record.run_id:
            continue
        if reason := _unlike(record, entry):
            print(
                f"Warning: the evaluation {entry.evaluator} of {record.run_id} is left out: {reason}. Repeat it: "
                f"mode=evaluate evaluator={entry.evaluator} run=<directory> force=true.",
                file=sys.stderr,
            )
        else:
            fitting.append(entry)
    return Run(record, fitting)


def _unlike(record: RunRecord, evaluation: Evaluation) -> str:
    """Why an evaluation can't complete a record; empty if it can."""
    if evaluation.data.get("test", {}).get("sha256") != _test_hash(record):
        return "its test data aren't those of the record"
    shared = record.metric_versions.keys() & evaluation.metric_versions.keys()
    differ = sorted(name for name in shared if record.metric_versions[name] != evaluation.metric_versions[name])
    if differ:
        return f"it measured {', '.join(differ)} in another version than the record"
    recorded, found = record.metrics.get("rel_l2"), evaluation.metrics.get("rel_l2")
    same = recorded == found or (recorded and found and abs(found / recorded - 1) <= _SAME_RUN)
    return "" if same else f"its rel_l2 is {found}, but the record's is {recorded}"


def _completed(
    known: Mapping[str, float | None], later: Iterable[Mapping[str, float | None]]
) -> dict[str, float | None]:
    merged = dict(known)
    for entry in later:
        merged |= {name: value for name, value in entry.items() if merged.get(name) is None}
    return merged


def _record_paths(folders: Iterable[Path]) -> list[Path]:
    paths: set[Path] = set()
    for folder in folders:
        paths.update(Path(parent, RECORD_NAME) for parent, files in _walk(folder) if RECORD_NAME in files)
        paths.update(folder.glob("records/*/*.json"))
    return sorted(paths)


def _evaluation_paths(folders: Iterable[Path]) -> list[Path]:
    paths: set[Path] = set()
    for folder in folders:
        for parent, files in _walk(folder):
            if RECORD_NAME in files:
                paths.update(Path(parent).glob(f"{EVALUATIONS}/*.json"))
        paths.update(folder.glob(f"{EVALUATIONS}/*/*.json"))
    return sorted(paths)


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and their files, without those of superseded runs."""
    # Unlike rglob, walk goes on where a folder vanishes: another process may move an old run aside just now.
    for parent, below, files in os.walk(folder):
        if SUPERSEDED in below:
            below.remove(SUPERSEDED)
        yield parent, files


def rows(runs: Sequence[Run]) -> list[dict[str, Cell]]:
    """One row per (track, dataset, task, model, variant), best first within each task, seeds aggregated.

    The order of the runs doesn't matter. A column that not every finished seed has is empty. Runs that diverged or
    failed give a row without numbers, so that they are seen.

    Raises:
        LeaderboardError: two runs of a row used different test data or metric versions, or repeat a seed.
    """
    ordered = sorted(runs, key=lambda run: (_row_key(run), run.record.seed))
    table = [_aggregate(list(group)) for _, group in groupby(ordered, key=_row_key)]
    _assert_one_test_set(table)
    table.sort(key=_order)
    rank: dict[tuple[Cell, ...], int] = {}
    for row in table:
        if row["track"] in UNRANKED_TRACKS or not isinstance(row["rel_l2_mean"], float):
            continue
        task = tuple(row[name] for name in ("track", "dataset", "task"))
        rank[task] = rank.get(task, 0) + 1
        row["rank"] = rank[task]
    return table


def run_rows(runs: Sequence[Run]) -> list[dict[str, Cell]]:
    """Tidy table: one row per run, test set and measured number."""
    table: list[dict[str, Cell]] = []
    for run in sorted(runs, key=lambda run: (_row_key(run), run.record.seed)):
        record = run.record
        shared = {name: getattr(record, name) for name in RUN_COLUMNS if hasattr(record, name)}
        shared |= {"setting": "test", "data_sha256": _test_hash(record)}
        version = ";".join(f"{name}/v{number}" for name, number in sorted(run.metric_versions.items()))
        numbers = {**run.metrics, **run.cost, "data_error": run.data_error}
        if not record.metrics and not record.cost:
            table.append(shared)
            continue
        for metric, value in numbers.items():
            table.append({**shared, "metric": metric, "value": value, "metric_version": version})
        for setting, data_hash, columns in _further(run):
            place = {**shared, "setting": setting, "data_sha256": data_hash, "metric_version": version}
            table += [{**place, "metric": metric, "value": value} for metric, value in columns.items()]
    return table


def _further(run: Run) -> Iterator[tuple[str, str, Mapping[str, float | None]]]:
    """Further test sets with their hashes and columns, of the latest evaluation that has them."""
    latest = {setting: (entry, columns) for entry in run.evaluations for setting, columns in entry.columns.items()}
    for setting, (entry, columns) in sorted(latest.items()):
        data = entry.data.get(setting) or entry.data.get(setting.removesuffix("_interpolated"), {})
        yield setting, str(data.get("sha256", "")), columns


def write(runs: Sequence[Run], folder: Path) -> list[Table]:
    """Write runs.csv, leaderboard.csv and leaderboard.md into ``folder``, each atomically; the tables of the last."""
    make_folder(folder)
    table = rows(runs)
    _write_csv(folder / "runs.csv", RUN_COLUMNS, run_rows(runs))
    _write_csv(folder / "leaderboard.csv", COLUMNS, table)
    shown = board_tables(table)
    with replacing(folder / "leaderboard.md") as temporary:
        temporary.write_text("\n".join(entry.to_markdown() for entry in shown), encoding="utf-8")
    return shown


def rebuild(outputs: Path) -> Path:
    """Rebuild the board of an outputs folder under a lock; returns the path of its leaderboard.csv.

    A record that can't be read is left out with a warning: it must not keep the other runs off the board.

    Raises:
        LeaderboardError: the records can't stand in one table.
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
        evaluations = _readable(Evaluation.load, _evaluation_paths([outputs]))
        records = _readable(RunRecord.load, _record_paths([outputs]))
        write([with_evaluations(record, evaluations) for record in records], folder)
    finally:
        lock.release()
    return folder / "leaderboard.csv"


def _readable(load: Callable[[Path], _Kept], paths: Iterable[Path]) -> list[_Kept]:
    found = []
    for path in paths:
        try:
            found.append(load(path))
        except RecordError as error:
            if path.exists():  # otherwise moved aside by another process just now
                print(f"Warning: the leaderboard lacks a run: {error}", file=sys.stderr)
    return found


def _row_key(run: Run) -> tuple[str, ...]:
    record = run.record
    return record.track, record.dataset, record.task, record.model, record.variant


def _order(row: Mapping[str, Cell]) -> tuple[object, ...]:
    score = row["rel_l2_mean"]
    task = tuple(str(row[name]) for name in ("track", "dataset", "task"))
    return *task, score if isinstance(score, float) else math.inf, str(row["model"]), str(row["variant"])


def _aggregate(runs: list[Run]) -> dict[str, Cell]:
    records = [run.record for run in runs]
    seeds = [record.seed for record in records]
    key = "/".join(_row_key(runs[0]))
    if len(set(seeds)) != len(seeds):
        raise LeaderboardError(f"Two records claim the same seed of {key}: seeds {seeds}.")
    finished = [run for run in runs if run.record.status == "finished"]
    for name, value_of in (
        ("test data", _test_hash),
        ("metric versions", lambda record: tuple(sorted(record.metric_versions.items()))),
    ):
        if len({value_of(run.record) for run in finished}) > 1:
            raise LeaderboardError(
                f"The runs of {key} differ in {name}, so they can't share a row: "
                f"{', '.join(run.record.run_id for run in finished)}. Run the older ones again with force=true."
            )
    main = (finished or runs)[0]
    first = main.record
    config = first.config
    errors = [error for run in finished if (error := run.metrics.get("rel_l2")) is not None]
    row: dict[str, Cell] = dict.fromkeys(COLUMNS)
    row.update({name: getattr(first, name) for name in ("track", "dataset", "task", "model", "variant", "config_hash")})
    row.update({name: _mean(run.metrics.get(name) for run in finished) for name in _FROM_METRICS})
    row.update({name: _mean(run.cost.get(name) for run in finished) for name in _FROM_COST})
    row["speedup_is_bound"] = _bound([run.cost.get("speedup_is_bound") for run in finished])
    row["data_error"] = _mean(run.data_error for run in finished)
    row.update(
        {
            "dataset_version": first.data.get("test", {}).get("version"),
            "data_sha256": _test_hash(first),
            "n_seeds": len(finished),
            "rel_l2_mean": _mean(errors),
            "rel_l2_sd": _deviation(errors),
            "device": _joined(str(record.environment.get("device")) for record in records),
            "precision": _joined(str(record.environment.get("precision")) for record in records),
            "resolution": first.data.get("test", {}).get("resolution"),
            "n_train": first.data.get("train", {}).get("n"),
            "epochs": config.get("trainer", {}).get("epochs"),
            "tuning_trials": config.get("tuning_trials"),
            **published.cells(first),
            "metric_version": _joined(f"{name}/v{version}" for name, version in main.metric_versions.items()),
            "bench_version": _joined(record.bench_version for record in records),
            "commit": _joined(record.commit for record in records),
            "dirty": any(record.dirty for record in records),
            "seeds": ";".join(str(seed) for seed in seeds),
            "status": _joined(record.status for record in records),
            "run_ids": ";".join(record.run_id for record in records),
            "date_utc": max(record.date_utc for record in records),
        }
    )
    return row


def _assert_one_test_set(table: Sequence[Mapping[str, Cell]]) -> None:
    seen: dict[tuple[Cell, ...], Mapping[str, Cell]] = {}
    for row in table:
        if row["track"] in UNRANKED_TRACKS or not row["n_seeds"]:
            continue
        other = seen.setdefault(tuple(row[name] for name in ("track", "dataset", "task")), row)
        shared, versions = _versions(other), _versions(row)
        differ = {
            "data_sha256": other["data_sha256"] != row["data_sha256"],
            # A metric that only one of them has measured is an empty cell of the other.
            "metric_version": any(versions.get(name, version) != version for name, version in shared.items()),
        }
        for name, differs in differ.items():
            if differs:
                one, two = (f"{entry['model']} ({entry['variant']})" for entry in (row, other))
                raise LeaderboardError(
                    f"{one} and {two} of {row['track']}/{row['task']} differ in {name}, so they can't be ranked "
                    "together. Run the older one again with force=true."
                )


def _versions(row: Mapping[str, Cell]) -> dict[str, str]:
    """Metric to version, from a row's list of them."""
    entries = (entry.partition("/") for entry in str(row["metric_version"]).split(";"))
    return {name: version for name, _, version in entries}


def _test_hash(record: RunRecord) -> str:
    return str(record.data.get("test", {}).get("sha256", ""))


def _mean(values: Iterable[float | None]) -> float | None:
    """None if one of them is missing: a mean over some of the seeds would pass for one over all."""
    known = list(values)
    if not known or None in known:
        return None
    return math.fsum(value for value in known if value is not None) / len(known)


def _bound(signs: Sequence[float | None]) -> str | None:
    """How a mean of speed-ups relates to the true one, from the signs of ``speedup_is_bound`` of the seeds."""
    if not signs or None in signs:
        return None
    found = {">" if sign > 0 else "<" for sign in signs if sign}
    return "no" if not found else found.pop() if len(found) == 1 else "mixed"


def _deviation(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.stdev(known) if len(known) > 1 and len(known) == len(values) else None


def _joined(values: Iterable[str]) -> str:
    return ";".join(sorted(set(values)))


def _text(value: Cell) -> str:
    """Empty for what is missing, six significant digits for numbers, every digit of whole ones."""
    if value is None:
        return ""
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value))
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _write_csv(path: Path, columns: Sequence[str], table: Sequence[Mapping[str, Cell]]) -> None:
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)  # RFC 4180
        writer.writerow(columns)
        writer.writerows([_text(row.get(name)) for name in columns] for row in table)


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] = print) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m neuralop_bench.leaderboard", description="Write a leaderboard.")
    parser.add_argument("folders", nargs="+", type=Path, help="folders with records")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder of runs.csv, leaderboard.csv, leaderboard.md"
    )
    options = parser.parse_args(arguments)
    absent = [str(folder) for folder in options.folders if not folder.is_dir()]
    if absent:
        print(f"Error: no folder {', '.join(absent)}.", file=sys.stderr)
        return 1
    try:
        runs = read_runs(options.folders)
        tables = write(runs, options.output)
    except (LeaderboardError, RecordError, WriteError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    show(tables)
    say(f"{len(runs)} records -> {options.output / 'leaderboard.csv'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
