"""Records from any number of machines and people, brought together: which belong on a board, and why others don't.

A board compares. So a record must say where it comes from, and records that are compared must have been measured on the
same test data with the same metrics. Test data made on different kinds of processor are the same if they agree
(``data_gen.agreement``). Other files are left out, each with its reason. They never affect the rest.

Where folders contradict each other, the one that was given first is believed: a stranger's records can be added to a
board, but they can't push out what is on it, however many there are (docs/decisions/025-foreign-files.md).
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from data_gen.agreement import agree
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

# File of a committed board: entries of ``data`` for the test data of records from before entries had an agreement.
TEST_DATA_NAME = "test_data.json"
# Tracks whose rows are shown but never ranked: each sets its own task, so only seeds of one row must agree.
UNRANKED_TRACKS = ("custom",)

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
class Run:
    """A record, with later evaluations and verifications of the run.

    Attributes:
        record: of the run.
        evaluations: on the same data with the same metrics, oldest first; before them those of later folders.
        verifications: of this record.
        known_data: what a committed board says of data with the hash of its test data; empty if nothing.
        most_used_data: hash of the test data of most runs of its group, with which its own agree.
    """

    record: RunRecord
    evaluations: Sequence[Evaluation] = ()
    verifications: Sequence[Verification] = ()
    known_data: Mapping[str, Any] = field(default_factory=dict)
    most_used_data: str = ""

    @property
    def metrics(self) -> dict[str, float | None]:
        """Columns of the record, completed from evaluations."""
        return _completed(self.record.metrics, (entry.metrics for entry in self.evaluations))

    @property
    def cost(self) -> dict[str, float | None]:
        """Costs of the record, replaced by those of the latest evaluation: a speed-up belongs to the times it was
        computed from, and the runs of a sweep slow each other down, unlike a single evaluation."""
        merged = dict(self.record.cost)
        for entry in self.evaluations:
            merged |= {name: value for name, value in entry.cost.items() if value is not None or name not in merged}
        return merged

    @property
    def metric_versions(self) -> dict[str, int]:
        versions = dict(self.record.metric_versions)
        for entry in self.evaluations:
            versions = {**entry.metric_versions, **versions}
        return versions

    @property
    def samples(self) -> dict[str, list[float]]:
        """Columns before their mean over samples; empty for a record of an older format that wasn't evaluated again."""
        return next((entry.samples for entry in (self.record, *self.evaluations) if entry.samples), {})

    @property
    def profile(self) -> dict[str, Any]:
        return next((entry.profile for entry in (self.record, *self.evaluations) if entry.profile), {})

    @property
    def notes(self) -> dict[str, str]:
        """Why a column is empty, or a remark on it."""
        merged: dict[str, str] = {}
        for entry in self.evaluations:
            merged |= entry.notes
        return merged

    @property
    def data_error(self) -> float | None:
        """Of the test data."""
        known = (entry.data.get("test", {}).get("error") for entry in (self.record, *self.evaluations))
        return next((value for value in known if value is not None), None)

    @cached_property
    def further(self) -> dict[str, tuple[str, Mapping[str, float | None]]]:
        """Data hash and columns of each further test set, by its name, from the latest evaluation that has it."""
        latest = {setting: (entry, columns) for entry in self.evaluations for setting, columns in entry.columns.items()}
        found = {}
        for setting, (entry, columns) in sorted(latest.items()):
            data = entry.data.get(setting) or entry.data.get(setting.removesuffix("_interpolated"), {})
            found[setting] = (str(data.get("sha256", "")), columns)
        return found

    @property
    def test_hash(self) -> str:
        return str(self.record.data.get("test", {}).get("sha256", ""))

    @property
    def test_data(self) -> Mapping[str, Any]:
        """The record's entry for its test data, or another one for data with that hash that says more."""
        if self.known_data:
            return self.known_data
        entries = [entry.data.get("test", {}) for entry in (self.record, *self.evaluations)]
        fuller = (entry for entry in entries if "agreement" in entry and entry.get("sha256") == self.test_hash)
        return next(fuller, entries[0])

    @property
    def has_other_digits(self) -> bool:
        """Whether its test data differ from those of most runs of its group in their last digits."""
        return self.most_used_data not in ("", self.test_hash)

    @property
    def row_key(self) -> tuple[str, str, str, str, str]:
        """What seeds of one row share."""
        record = self.record
        return record.track, record.dataset, record.task, record.model, record.variant

    @property
    def group_key(self) -> tuple[str, ...]:
        """What compared rows share."""
        return self.row_key if self.record.track in UNRANKED_TRACKS else self.row_key[:3]


@dataclass(frozen=True, order=True)
class Refusal:
    """A file that isn't on the board, and why.

    Attributes:
        path: of the file.
        reason: what is wrong with it, and how to fix it.
        run_id: of the run, if known.
    """

    path: str
    reason: str
    run_id: str = ""

    def __str__(self) -> str:
        return f"{self.path}{f' ({self.run_id})' if self.run_id else ''}: {self.reason}"


@dataclass(frozen=True)
class Collection:
    """What was found.

    Attributes:
        runs: by row and seed; no two with the same.
        refusals: by path.
    """

    runs: tuple[Run, ...]
    refusals: tuple[Refusal, ...] = ()


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
    ``verifications/*.json``, and of a committed board ``records/<track>/*.json`` with the two others likewise.

    Runs that were moved aside (``.superseded``) don't count. The order of the folders decides which of two records of
    the same run counts, which test data, and which evaluation; the order of files plays no part.
    """
    files = _files(folders)
    refusals: list[Refusal] = []
    records = _readable(RunRecord.load, files.records, refusals)
    found = [_Found(path, record, files.records[path]) for path, record in records]
    found = _sift(found, _without_provenance, refusals)
    found = _sift(found, _contradiction, refusals)
    found = _once_each(found, lambda record: _place(Run(record)), refusals)
    found = _once_each(found, lambda record: record.run_id, refusals)
    # Read one by one, so that parts that aren't needed don't stay in memory.
    evaluations = _readable(Evaluation.load, files.evaluations, refusals)
    verifications = _readable(Verification.load, files.verifications, refusals)
    runs = _joined(found, evaluations, verifications, refusals, files.evaluations)
    known = known_test_data(folders, refusals)
    runs = [replace(run, known_data=known.get(run.test_hash, {})) for run in runs]
    runs = _comparable(runs, {entry.record.run_id: entry for entry in found}, refusals)
    return Collection(tuple(sorted(runs, key=_place)), tuple(sorted(refusals)))


def _place(run: Run) -> tuple[Any, ...]:
    return *run.row_key, run.record.seed


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


def known_test_data(folders: Iterable[Path], refusals: list[Refusal]) -> dict[str, Mapping[str, Any]]:
    """Entries of ``data`` that committed boards keep for old records, by hash. Files that can't be read are refused."""
    known: dict[str, Mapping[str, Any]] = {}
    for path in (folder / TEST_DATA_NAME for folder in folders):
        if not path.is_file():
            continue
        try:
            entries = json.loads(path.read_text(encoding="utf-8"))
            known = {str(entry["sha256"]): dict(entry) for entry in entries} | known  # the first folder counts
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            refusals.append(Refusal(str(path), f"it can't be read ({type(error).__name__}: {error}). Restore it"))
    return known


def _comparable(runs: Sequence[Run], found: Mapping[str, _Found], refusals: list[Refusal]) -> list[Run]:
    """Those with the test data and metrics of most runs of their group in the first folder that has some (in a tie, of
    those used last)."""
    groups: defaultdict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.group_key].append(run)
    kept = []
    for key, members in groups.items():
        finished = [run for run in members if run.record.status == "finished"]
        kept += [run for run in members if run.record.status != "finished"]
        if not finished:
            continue
        first = min(found[run.record.run_id].place for run in finished)
        leading = [run for run in finished if found[run.record.run_id].place == first]
        test, same = _most_used_data(finished, leading)
        versions = _most_used_versions([run for run in finished if run.test_hash in same])
        versions |= _most_used_versions([run for run in leading if run.test_hash in same])
        where = "/".join(key)
        for run in finished:
            if run.test_hash in same:
                reason = _other_metrics(run, versions, where)
            else:
                reason = _other_test_data(run, test, where)
            if reason:
                refusals.append(found[run.record.run_id].refused(reason))
            else:
                kept.append(replace(run, most_used_data=test))
    return kept


def _most_used_data(runs: Sequence[Run], leading: Sequence[Run]) -> tuple[str, set[str]]:
    """The hash of the test data with which those of most leading runs agree, and the hashes of all runs that do.

    In a tie it is that of most runs, then that of the latest.
    """
    entries: dict[str, Mapping[str, Any]] = {}
    for run in sorted(runs, key=lambda run: (run.record.date_utc, run.record.run_id)):
        if "agreement" not in entries.get(run.test_hash, {}):
            entries[run.test_hash] = run.test_data
    counts = Counter(run.test_hash for run in leading)
    latest = dict.fromkeys(entries, "")
    for run in leading:
        latest[run.test_hash] = max(latest[run.test_hash], run.record.date_utc)
    same = {one: {other for other in entries if agree(entries[one], entries[other])} for one in entries}
    most = max(
        counts,
        key=lambda one: (
            sum(counts[other] for other in same[one]),
            max(latest[other] for other in same[one]),
            counts[one],
            latest[one],
            one,
        ),
    )
    return most, same[most]


def _other_test_data(run: Run, test: str, where: str) -> str:
    if "agreement" in run.test_data or run.record.data["test"].get("error") is None:
        todo = "Run it again on the same data (paths.data)."
    else:
        todo = (
            "Its record has only their hash, which is another one if the data were made on another kind of processor. "
            "Evaluate the run again (mode=evaluate force=true), which compares the data themselves, or run it again on "
            "the same data (paths.data)."
        )
    return (
        f"its test data ({run.test_hash[:12]}) aren't those of most records of {where} ({test[:12]}), so they can't be "
        f"compared. {todo}"
    )


def _other_metrics(run: Run, versions: Mapping[str, int], where: str) -> str:
    """Why a run's metrics can't be compared with those of its group; empty if they can."""
    other = sorted(
        f"{name}/v{version}, not v{versions[name]}"
        for name, version in run.metric_versions.items()
        if versions.get(name, version) != version
    )
    if other:
        return (
            f"it was measured by other versions of metrics than most records of {where} ({'; '.join(other)}). Run it "
            "again with force=true, or evaluate it again."
        )
    return ""


def _most_used(choices: Iterable[tuple[Any, str]]) -> Any:
    """The value that occurs most often; in a tie, the one with the latest date."""
    counts: Counter[Any] = Counter()
    latest: dict[Any, str] = {}
    for value, date in choices:
        counts[value] += 1
        latest[value] = max(latest.get(value, ""), date)
    return max(counts, key=lambda value: (counts[value], latest[value], value))


def _most_used_versions(runs: Sequence[Run]) -> dict[str, int]:
    choices: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for run in runs:
        for name, version in run.metric_versions.items():
            choices[name].append((version, run.record.date_utc))
    return {name: _most_used(found) for name, found in choices.items()}


def _completed(
    known: Mapping[str, float | None], later: Iterable[Mapping[str, float | None]]
) -> dict[str, float | None]:
    merged = dict(known)
    for entry in later:
        merged |= {name: value for name, value in entry.items() if merged.get(name) is None}
    return merged
