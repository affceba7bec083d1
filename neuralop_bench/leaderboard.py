"""The leaderboard: a pure function of records.

    python -m neuralop_bench.leaderboard outputs -o outputs/leaderboard

reads every record below ``outputs`` and writes ``runs.csv`` (tidy: one row per run and measurement),
``leaderboard.csv`` (wide: one row per track, dataset, task, model and variant, seeds aggregated) and
``leaderboard.md``.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from filelock import FileLock

from data_gen.files import WriteError, make_folder, replacing, write_errors
from neuralop_bench.record import RECORD_NAME, RecordError, RunRecord

Cell = str | int | float | bool | None

# Tracks whose rows are shown but never ranked.
UNRANKED_TRACKS = ("custom",)
# Folders below outputs whose records don't count: runs that force=true replaced.
SUPERSEDED = ".superseded"
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
_FROM_COST = COLUMNS[COLUMNS.index("n_parameters") : COLUMNS.index("data_error") + 1]
# What people read first.
_READ_FIRST = """
    rank track dataset task model variant n_seeds rel_l2_mean rel_l2_sd rel_l2_median rel_l2_last_step
    vrmse spec_low spec_mid spec_high n_parameters train_seconds latency_ms status
""".split()


class LeaderboardError(RuntimeError):
    """Records that can't stand in one table; the message names them."""


def read_records(folders: Iterable[Path]) -> list[RunRecord]:
    """All records below the folders: ``record.json`` of run directories, and the committed ``records/<track>/*.json``.

    Raises:
        RecordError: a record can't be read.
    """
    return [RunRecord.load(path) for path in _record_paths(folders)]


def _record_paths(folders: Iterable[Path]) -> list[Path]:
    paths: set[Path] = set()
    for folder in folders:
        # Unlike rglob, walk goes on where a folder vanishes: another process may move an old run aside just now.
        for parent, below, files in os.walk(folder):
            if SUPERSEDED in below:
                below.remove(SUPERSEDED)
            if RECORD_NAME in files:
                paths.add(Path(parent, RECORD_NAME))
        paths.update(folder.glob("records/*/*.json"))
    return sorted(paths)


def rows(records: Sequence[RunRecord]) -> list[dict[str, Cell]]:
    """One row per (track, dataset, task, model, variant), best first within each task, seeds aggregated.

    The order of the records doesn't matter. Runs that diverged or failed give a row without numbers, so that they are
    seen.

    Raises:
        LeaderboardError: two runs of a row used different test data or metric versions, or repeat a seed.
    """
    ordered = sorted(records, key=lambda record: (_row_key(record), record.seed))
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


def run_rows(records: Sequence[RunRecord]) -> list[dict[str, Cell]]:
    """Tidy table: one row per run and measured number."""
    table: list[dict[str, Cell]] = []
    for record in sorted(records, key=lambda record: (_row_key(record), record.seed)):
        shared = {name: getattr(record, name) for name in RUN_COLUMNS if hasattr(record, name)}
        shared |= {"setting": "test", "data_sha256": _test_hash(record)}
        version = ";".join(f"{name}/v{number}" for name, number in sorted(record.metric_versions.items()))
        numbers = {**record.metrics, **record.cost}
        if not numbers:
            table.append(shared)
        for metric, value in numbers.items():
            table.append({**shared, "metric": metric, "value": value, "metric_version": version})
    return table


def write(records: Sequence[RunRecord], folder: Path) -> None:
    """Write runs.csv, leaderboard.csv and leaderboard.md into ``folder``, each atomically."""
    make_folder(folder)
    table = rows(records)
    _write_csv(folder / "runs.csv", RUN_COLUMNS, run_rows(records))
    _write_csv(folder / "leaderboard.csv", COLUMNS, table)
    with replacing(folder / "leaderboard.md") as temporary:
        temporary.write_text(to_markdown(table))


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
        records = []
        for path in _record_paths([outputs]):
            try:
                records.append(RunRecord.load(path))
            except RecordError as error:
                if path.exists():  # otherwise moved aside by another process just now
                    print(f"Warning: the leaderboard lacks a run: {error}", file=sys.stderr)
        write(records, folder)
    finally:
        lock.release()
    return folder / "leaderboard.csv"


def to_markdown(table: Sequence[Mapping[str, Cell]]) -> str:
    """The columns that people read first."""
    lines = ["| " + " | ".join(_READ_FIRST) + " |", "|" + " --- |" * len(_READ_FIRST)]
    lines += ["| " + " | ".join(_text(row.get(name)) for name in _READ_FIRST) + " |" for row in table]
    return "\n".join(lines) + "\n"


def _row_key(record: RunRecord) -> tuple[str, ...]:
    return record.track, record.dataset, record.task, record.model, record.variant


def _order(row: Mapping[str, Cell]) -> tuple[object, ...]:
    score = row["rel_l2_mean"]
    task = tuple(str(row[name]) for name in ("track", "dataset", "task"))
    return *task, score if isinstance(score, float) else math.inf, str(row["model"]), str(row["variant"])


def _aggregate(records: list[RunRecord]) -> dict[str, Cell]:
    seeds = [record.seed for record in records]
    if len(set(seeds)) != len(seeds):
        raise LeaderboardError(f"Two records claim the same seed of {'/'.join(_row_key(records[0]))}: seeds {seeds}.")
    finished = [record for record in records if record.status == "finished"]
    for name, value_of in (
        ("test data", _test_hash),
        ("metric versions", lambda r: tuple(sorted(r.metric_versions.items()))),
    ):
        if len({value_of(record) for record in finished}) > 1:
            raise LeaderboardError(
                f"The runs of {'/'.join(_row_key(records[0]))} differ in {name}, so they can't share a row: "
                f"{', '.join(record.run_id for record in finished)}. Run the older ones again with force=true."
            )
    first = (finished or records)[0]
    config = first.config
    errors = [record.metrics["rel_l2"] for record in finished if record.metrics.get("rel_l2") is not None]
    row: dict[str, Cell] = dict.fromkeys(COLUMNS)
    row.update({name: getattr(first, name) for name in ("track", "dataset", "task", "model", "variant", "config_hash")})
    row.update({name: _mean(record.metrics.get(name) for record in finished) for name in _FROM_METRICS})
    row.update({name: _mean(record.cost.get(name) for record in finished) for name in _FROM_COST})
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
            "published_value": config.get("published", {}).get("value"),
            "published_source": config.get("published", {}).get("source"),
            "metric_version": _joined(f"{name}/v{version}" for name, version in first.metric_versions.items()),
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
    known = [float(value) for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None


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
        records = read_records(options.folders)
        write(records, options.output)
    except (LeaderboardError, RecordError, WriteError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    say(f"{len(records)} records -> {options.output / 'leaderboard.csv'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
