"""Compare two finished runs on the same test samples: what differs, which is better, and how certain that is.

    python -m neuralop_bench.compare outputs/lite/ns2d/fno/default-f3e46648 outputs/lite/ns2d/unet/default-21e023ab

Each is a run directory, a folder of several seeds (all finished ones are used), or a record file of a committed board.
Nothing is computed again: the records and the files beside them are enough.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_gen.agreement import agree
from neuralop_bench.board.collect import joined
from neuralop_bench.board.comparability import known_test_data
from neuralop_bench.board.comparison import CompareError, Side, check, tables, verdict
from neuralop_bench.board.run import Run
from neuralop_bench.evaluation import statistics
from neuralop_bench.records import run_directory
from neuralop_bench.records.record import (
    EVALUATIONS,
    RECORD_NAME,
    RECORDS,
    UNTESTED,
    Evaluation,
    RecordError,
    RunRecord,
)
from neuralop_bench.records.run_directory import ERRORS_NAME
from neuralop_bench.runtime.table import plain, show


def read(place: Path) -> Side:
    """All finished seeds of a run with their errors per sample.

    Args:
        place: a run directory, a folder with ``seed=<n>`` directories, or a record file.

    Raises:
        CompareError: there is no finished run, or no errors per sample are kept of one.
        RecordError: a record or an evaluation can't be read.
    """
    remarks: list[str] = []
    if place.is_file():
        paths = [place]
    elif (place / RECORD_NAME).is_file():
        paths = [place / RECORD_NAME]
    else:
        paths, remarks = _finished_seeds(place)
    runs = [_run(path) for path in paths]
    _require_one_run(place, runs)
    found = sorted(zip(runs, paths, strict=True), key=lambda entry: entry[0].record.seed)
    errors = [_errors_per_sample(run, path) for run, path in found]
    _require_same(
        place,
        [len(entry) for entry in errors],
        "have errors of different numbers of test samples",
        "Evaluate them again",
    )
    return Side(place, [run for run, _ in found], np.array(errors, np.float64), remarks)


def _finished_seeds(place: Path) -> tuple[list[Path], list[str]]:
    """Record files of the finished seeds in a folder, and a remark about each of the others."""
    finished, remarks = [], []
    for folder in sorted(place.glob("seed=*")):
        where = run_directory.state(folder)
        if where.progress == "finished":
            finished.append(folder / RECORD_NAME)
        else:
            remarks.append(f"{folder} is left out: {where.progress} ({where.reason}).")
    if finished:
        return finished, remarks
    where = run_directory.state(place)
    if remarks or where.progress != "new":
        reason = " ".join(remarks) or f"{where.progress}: {where.reason}."
        todo = where.command or f"python -m neuralop_bench.status {place} shows the command that completes it"
        raise CompareError(f"{place} holds no finished run. {reason} Complete it first: {todo}.")
    kind = "is neither a record nor a run directory, and holds no seed=<n>" if place.exists() else "doesn't exist"
    raise CompareError(
        f"{place} {kind}. Give a run directory (outputs/<track>/<dataset>/<model>/<variant>/seed=<n>), the folder "
        "above it for all its seeds, or a record file."
    )


def _run(path: Path) -> Run:
    record = RunRecord.load(path)
    if record.status != "finished":
        raise CompareError(
            f"{path} is of a run that {record.status}{record.message and f' ({record.message})'}, so there are no "
            "errors to compare. Fix the cause and run it again with force=true."
        )
    if not record.is_tested:
        raise CompareError(f"{path} is of a run that {UNTESTED}")
    run, refusals = joined(record, [(entry, Evaluation.load(entry)) for entry in _evaluations_of(path)])
    board = _board_of(path)
    known = {} if board is None else known_test_data([board], refusals)
    for refusal in refusals:
        print(f"Warning: left out: {plain(str(refusal))}", file=sys.stderr)
    return replace(run, known_data=known.get(run.test_hash, {}))


def _evaluations_of(path: Path) -> list[Path]:
    """Beside the record of a run; on a committed board in ``evaluations/<track>`` beside ``records/<track>``."""
    if path.name == RECORD_NAME:
        return sorted(path.parent.glob(f"{EVALUATIONS}/*.json"))
    board = _board_of(path)
    committed = None if board is None else board / EVALUATIONS / path.absolute().parent.name / path.name
    return [committed] if committed is not None and committed.is_file() else []


def _board_of(path: Path) -> Path | None:
    """The committed board that a record file, ``records/<track>/<name>``, belongs to; None if to none."""
    track = path.absolute().parent
    return track.parent.parent if path.name != RECORD_NAME and track.parent.name == RECORDS else None


def _require_one_run(place: Path, runs: Sequence[Run]) -> None:
    """Refuse seeds that aren't repetitions of each other."""
    records = [run.record for run in runs]
    same = [(entry.track, entry.dataset, entry.task, entry.model, entry.config_hash) for entry in records]
    _require_same(place, same, "are of different configurations", "Give one of them")
    again = "Run the older ones again with force=true"
    _require_same(
        place, [agree(run.test_data, runs[0].test_data) for run in runs], "were tested on different data", again
    )
    versions = [entry.metric_versions.get("rel_l2") for entry in records]
    _require_same(place, versions, "measured rel_l2 in different versions", again)
    seeds = [entry.seed for entry in records]
    if len(set(seeds)) < len(seeds):
        raise CompareError(
            f"{place} holds a seed twice ({', '.join(map(str, sorted(seeds)))}), but seeds count as independent "
            "trainings. Remove the copy."
        )


def _require_same(place: Path, values: Sequence[object], differ: str, todo: str) -> None:
    if len(set(values)) > 1:
        raise CompareError(f"The seeds in {place} {differ}, so they can't be taken together. {todo}.")


def _errors_per_sample(run: Run, path: Path) -> list[float]:
    """Relative L2 of each test sample: from the record, else from an evaluation, else from errors.nc."""
    for entry in (run.record, *reversed(run.evaluations)):
        if entry.samples.get("rel_l2"):
            return entry.samples["rel_l2"]
    errors = path.with_name(ERRORS_NAME)
    expected = run.record.files.get(ERRORS_NAME)
    reason = f"no evaluation that has them and no {ERRORS_NAME} lie beside it"
    if path.name == RECORD_NAME and errors.is_file() and expected is not None:
        with open(errors, "rb") as handle:
            if hashlib.file_digest(handle, "sha256").hexdigest() == expected:
                return _from_file(errors, path)
        reason = f"{ERRORS_NAME} beside it isn't the one that was written with it"
    raise CompareError(
        f"{path} has no errors per test sample (it has format {run.record.format}; format 4 introduced them), and "
        f"{reason}. Evaluate the run once more, from its directory: python run.py mode=evaluate run=<directory>."
    )


def _from_file(errors: Path, record: Path) -> list[float]:
    import xarray as xr

    from neuralop_bench.evaluation.profiling import samples  # imports torch, so only where it is needed

    with xr.open_dataset(errors, engine="h5netcdf") as found:
        if values := samples(found).get("rel_l2"):
            return values
    raise CompareError(f"The evaluator of {record} didn't measure rel_l2. Evaluate the run again with one that does.")


def compare(one: Side, other: Side) -> tuple[statistics.ModelComparison, list[str]]:
    """Compare the first with the second, sample by sample; with remarks on the comparison.

    Raises:
        CompareError: as ``check``.
    """
    remarks = check(one, other)
    return statistics.compare(one.errors, other.errors), remarks


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0 if the two could be compared, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.compare",
        description="Compare two finished runs on the same test samples: what differs, and which is better.",
    )
    what = "a run directory, a folder of several seeds, or a record file"
    parser.add_argument("one", type=Path, metavar="RUN", help=what)
    parser.add_argument("other", type=Path, metavar="RUN", help=f"what it is compared with: {what}")
    options = parser.parse_args(arguments)
    try:
        one, other = read(options.one), read(options.other)
        found, remarks = compare(one, other)
    except (CompareError, RecordError) as error:
        print(f"Error: {plain(str(error))}", file=sys.stderr)
        return 1
    show(tables(one, other, found))
    for remark in remarks:
        print(f"Note: {plain(remark)}")
    print(verdict(found, one, other))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
