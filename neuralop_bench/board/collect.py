"""Records from any number of machines and people, brought together: which belong on a board, and why others don't.

A board compares. So a record must say where it comes from, and records that are compared must have been measured on the
same test data with the same metrics. Test data made on different kinds of processor are the same if they agree
(``data_gen.agreement``). Other files are left out, each with its reason. They never affect the rest.

Where folders contradict each other, the one that was given first is believed: a stranger's records can be added to a
board, but they can't push out what is on it, however many there are (docs/decisions/025-foreign-files.md).
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from data_gen.agreement import agree
from neuralop_bench.board.comparability import comparable, known_test_data
from neuralop_bench.board.run import Refusal, Run
from neuralop_bench.records.record import (
    EVALUATIONS,
    RECORD_NAME,
    RECORDS,
    VERIFICATIONS,
    Evaluation,
    RecordError,
    RunRecord,
    Verification,
)
from neuralop_bench.records.run_directory import SUPERSEDED
from neuralop_bench.records.trials import TRIALS, Trial, read_trials

# An evaluation agrees with its record to this relative difference, even on another kind of device.
_SAME_RUN = 1e-3
# A column agrees with the mean over its samples to this relative difference. Sums in another order differ by 1e-15.
_SAME_MEAN = 1e-9
# Costs that depend on the network alone.
_COUNTS = ("n_parameters", "n_parameters_complex_as_one")
_PROVENANCE = {
    "config_hash": "config_hash is missing",
    "config": "the configuration is missing",
    "environment": "the environment (device, libraries) is missing",
    "bench_version": "bench_version is missing",
}
# Clocks may differ by this much.
_CLOCK_SKEW = timedelta(days=1)

# Parts that many files have in common.
_SHARED = ("config", "environment", "metric_versions", "data", "rungs", "notes")

_Kept = TypeVar("_Kept", RunRecord, Evaluation, Verification)


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        runs: by row and seed; no two with the same.
        refusals: by path.
        trials: of tuning, by track and ``<dataset>_<model>``.
    """

    runs: tuple[Run, ...]
    refusals: tuple[Refusal, ...] = ()
    trials: Mapping[tuple[str, str], Sequence[Trial]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    path: Path
    record: RunRecord
    place: int = 0  # of its folder, among those given

    def refused(self, reason: str) -> Refusal:
        return Refusal(str(self.path), reason, self.record.run_id)


@dataclass
class _Files:
    """Paths by what they should be, each with the place of its folder among those given."""

    records: dict[Path, int] = field(default_factory=dict)
    evaluations: dict[Path, int] = field(default_factory=dict)
    verifications: dict[Path, int] = field(default_factory=dict)


def collect(folders: Sequence[Path]) -> Collection:
    """All runs below the folders: ``record.json`` of run directories, with their ``evaluations/*.json`` and
    ``verifications/*.json``, and of a committed board ``records/<track>/*.json`` with the two others likewise. Its
    ``trials/<track>/*.csv`` are lists of trials.

    Runs that were moved aside (``.superseded``) don't count. The order of the folders decides which of two records of
    the same run counts, which test data, and which evaluation; the order of files plays no part.
    """
    files = _files(folders)
    refusals: list[Refusal] = []
    records = _readable(RunRecord.load, files.records, refusals)
    found = [_Found(path, record, files.records[path]) for path, record in records if record.is_tested]
    found = _sift(found, _without_provenance, refusals)
    found = _sift(found, _contradiction, refusals)
    found = _once_each(found, lambda record: _place(Run(record)), refusals)
    found = _once_each(found, lambda record: record.run_id, refusals)
    # Read one by one, so that parts that aren't needed don't stay in memory.
    evaluations = _readable(Evaluation.load, files.evaluations, refusals)
    verifications = _readable(Verification.load, files.verifications, refusals)
    runs = _joined(found, evaluations, verifications, refusals, files.evaluations)
    own_data = known_test_data(folders[:1], refusals)
    known = known_test_data(folders[1:], refusals) | own_data
    runs = [replace(run, known_data=known.get(run.test_hash, {})) for run in runs]
    places = {entry.record.run_id: entry.place for entry in found}
    runs, reasons = comparable(runs, places, list(own_data.values()))
    refusals += [entry.refused(reasons[name]) for entry in found if (name := entry.record.run_id) in reasons]
    trials = _trials(folders, refusals)
    return Collection(tuple(sorted(runs, key=_place)), tuple(sorted(refusals)), trials)


def _place(run: Run) -> tuple[Any, ...]:
    return *run.row_key, run.record.seed


def _trials(folders: Iterable[Path], refusals: list[Refusal]) -> dict[tuple[str, str], list[Trial]]:
    found: dict[tuple[str, str], list[Trial]] = {}
    for path in (path for folder in folders for path in sorted(folder.glob(f"{TRIALS}/*/*.csv"))):
        try:
            found.setdefault((path.parent.name, path.stem), read_trials(path))
        except ValueError as error:
            refusals.append(Refusal(str(path), str(error).removeprefix(f"{path} ")))
    return found


def _files(folders: Iterable[Path]) -> _Files:
    files = _Files()
    for place, folder in enumerate(folders):
        for parent, names in _walk(folder):
            if RECORD_NAME in names:
                files.records.setdefault(Path(parent, RECORD_NAME), place)
                _add(files.evaluations, Path(parent).glob(f"{EVALUATIONS}/*.json"), place)
                _add(files.verifications, Path(parent).glob(f"{VERIFICATIONS}/*.json"), place)
        _add(files.records, folder.glob(f"{RECORDS}/*/*.json"), place)
        _add(files.evaluations, folder.glob(f"{EVALUATIONS}/*/*.json"), place)
        _add(files.verifications, folder.glob(f"{VERIFICATIONS}/*/*.json"), place)
    return files


def _add(known: dict[Path, int], paths: Iterable[Path], place: int) -> None:
    for path in paths:
        known.setdefault(path, place)


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Folders and their files, without those of superseded runs."""
    # Unlike rglob, walk survives a folder that vanishes: another process may be moving an old run aside.
    for parent, below, names in os.walk(folder):
        if SUPERSEDED in below:
            below.remove(SUPERSEDED)
        yield parent, names


def _readable(
    load: Callable[[Path], _Kept], paths: Iterable[Path], refusals: list[Refusal]
) -> Iterator[tuple[Path, _Kept]]:
    known: dict[str, dict[str, Any]] = {}
    # A later date can decide which of two files counts.
    latest = (datetime.now(UTC) + _CLOCK_SKEW).isoformat(timespec="seconds")
    for path in sorted(paths):
        try:
            entry = load(path)
        except RecordError as error:
            if path.exists():  # otherwise another process has just moved it aside
                refusals.append(Refusal(str(path), str(error).removeprefix(f"{path} ")))
            continue
        if entry.date_utc > latest:
            reason = f"its date, {entry.date_utc}, is in the future by this machine's clock. Correct the clock."
            refusals.append(Refusal(str(path), reason, entry.run_id))
            continue
        # Thousands of runs share a few configurations and machines. Copies of those would take most of the memory.
        shared = {name: value for name in _SHARED if (value := getattr(entry, name, None)) is not None}
        yield path, replace(entry, **{name: known.setdefault(repr(value), value) for name, value in shared.items()})


def _sift(found: Sequence[_Found], why_not: Callable[[RunRecord], str], refusals: list[Refusal]) -> list[_Found]:
    kept = []
    for entry in found:
        if reason := why_not(entry.record):
            refusals.append(entry.refused(reason))
        else:
            kept.append(entry)
    return kept


def _without_provenance(record: RunRecord) -> str:
    """What is missing to know where a record comes from; empty if nothing is."""
    missing = [words for name, words in _PROVENANCE.items() if not getattr(record, name)]
    if record.status == "finished":
        test = record.data.get("test", {})
        if not test.get("sha256"):
            missing.append("the hash of the test data is missing")
        if record.metrics.get("rel_l2") is not None and "rel_l2" not in record.metric_versions:
            missing.append("the version of the metric rel_l2 is missing")
    if not missing:
        return ""
    return f"it has no provenance: {'; '.join(missing)}. Run it with this project, and don't edit the record."


def _contradiction(entry: RunRecord | Evaluation) -> str:
    """Where the errors per sample aren't those of the columns; empty if they are. A run that diverged has neither."""
    if isinstance(entry, RunRecord) and entry.status != "finished":
        return ""
    for name, values in entry.samples.items():
        mean, n_samples = entry.metrics.get(name), entry.data.get("test", {}).get("n", len(values))
        if len(values) != n_samples:
            return f"it has {name} of {len(values)} samples, but its test data have {n_samples}"
        found = sum(values) / len(values) if values else math.nan
        if mean is None or not math.isclose(found, mean, rel_tol=_SAME_MEAN):
            return f"its {name} is {mean}, but the mean over its samples is {found}"
    return ""


def _once_each(found: Sequence[_Found], key_of: Callable[[RunRecord], Any], refusals: list[Refusal]) -> list[_Found]:
    """One record for each key: any of several copies; of different ones, that in the first folder, then the latest."""
    groups: defaultdict[Any, list[_Found]] = defaultdict(list)
    for entry in found:
        groups[key_of(entry.record)].append(entry)
    kept = []
    for entries in groups.values():
        # Alone, it costs no fingerprint, which takes as long as reading the file.
        chosen = max(entries, key=_precedence) if len(entries) > 1 else entries[0]
        kept.append(chosen)
        refusals += [
            entry.refused(
                "another record claims the same run and counts instead, because it "
                + ("was made later or keeps more" if entry.place == chosen.place else "lies in a folder given before")
                + f" ({chosen.path}, {chosen.record.date_utc}). Keep one of the two."
            )
            for entry in entries
            if entry.record.fingerprint != chosen.record.fingerprint
        ]
    return kept


def _precedence(entry: _Found) -> tuple[Any, ...]:
    """The first folder comes before later ones, then the latest date, then the newest format, which keeps more."""
    record = entry.record
    return -entry.place, record.date_utc, record.format, record.fingerprint, str(entry.path)


def joined(record: RunRecord, evaluations: Iterable[tuple[Path, Evaluation]]) -> tuple[Run, list[Refusal]]:
    """A run with its evaluations on the same data and metrics, and why others were refused."""
    refusals: list[Refusal] = []
    (run,) = _joined([_Found(Path(), record)], evaluations, (), refusals)
    return run, refusals


def _joined(
    found: Sequence[_Found],
    evaluations: Iterable[tuple[Path, Evaluation]],
    verifications: Iterable[tuple[Path, Verification]],
    refusals: list[Refusal],
    places: Mapping[Path, int] | None = None,
) -> list[Run]:
    records = {entry.record.run_id: entry.record for entry in found}
    fitting: defaultdict[str, list[tuple[int, Evaluation]]] = defaultdict(list)
    seen: set[tuple[str, str, str]] = set()
    for path, entry in evaluations:
        record = records.get(entry.run_id)
        if record is None:
            continue
        if reason := _unlike(record, entry):
            refusals.append(
                Refusal(
                    str(path),
                    f"{reason}. Repeat it: mode=evaluate evaluator={entry.evaluator} run=<directory> force=true.",
                    entry.run_id,
                )
            )
        elif (key := (entry.run_id, entry.evaluator, entry.date_utc)) not in seen:  # a copy, otherwise
            seen.add(key)
            # Drop what the record has, too.
            lean = {name: {} for name in ("samples", "profile") if getattr(record, name)}
            place = places[path] if places else 0
            fitting[entry.run_id].append((place, replace(entry, **lean) if lean else entry))
    checked: defaultdict[str, list[Verification]] = defaultdict(list)
    for _, entry in verifications:
        checked[entry.run_id].append(entry)
    return [
        Run(
            entry.record,
            [one for _, one in sorted(fitting[entry.record.run_id], key=_least_believed_first)],
            sorted(checked[entry.record.run_id], key=lambda one: (one.date_utc, one.fingerprint)),
        )
        for entry in found
    ]


def _least_believed_first(found: tuple[int, Evaluation]) -> tuple[int, str, str]:
    place, entry = found
    return -place, entry.date_utc, entry.evaluator


def _unlike(record: RunRecord, evaluation: Evaluation) -> str:
    """Why an evaluation can't complete a record; empty if it can."""
    if not agree(evaluation.data.get("test", {}), record.data.get("test", {})):
        return "its test data aren't those of the record"
    if contradiction := _contradiction(evaluation):
        return contradiction
    shared = record.metric_versions.keys() & evaluation.metric_versions.keys()
    differ = sorted(name for name in shared if record.metric_versions[name] != evaluation.metric_versions[name])
    if differ:
        return f"it measured {', '.join(differ)} in another version than the record"
    for name in _COUNTS:  # a board shows those of the evaluation
        recorded, found = record.cost.get(name), evaluation.cost.get(name)
        if None not in (recorded, found) and recorded != found:
            return f"its {name} is {found}, but the record's is {recorded}"
    recorded, found = record.metrics.get("rel_l2"), evaluation.metrics.get("rel_l2")
    same = recorded == found or (recorded and found and abs(found / recorded - 1) <= _SAME_RUN)
    return "" if same else f"its rel_l2 is {found}, but the record's is {recorded}"
