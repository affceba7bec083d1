"""The result of a run: one JSON file that is written last and never changed."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import TypeAdapter

from data_gen.files import replacing
from neuralop_bench.records import foreign
from neuralop_bench.records.foreign import (
    Config,
    Count,
    DateUtc,
    Environment,
    Error,
    Flag,
    Name,
    NotNegative,
    Numbers,
    Packed,
    Rungs,
    RunId,
    Samples,
    Splits,
    TestSets,
    Text,
    Texts,
    Versions,
    Words,
)
from neuralop_bench.runtime.table import plain

# Format 2 added the hash over the content; files of format 1 are read without that check. Format 3 added columns, cost,
# rungs and notes to evaluations. Format 4 added samples and profile.
RECORD_FORMAT = 4
RECORD_NAME = "record.json"
# Folders on a committed board, each with a subfolder per track. In a run directory, the last two are beside the record.
RECORDS, EVALUATIONS, VERIFICATIONS = "records", "evaluations", "verifications"

# What a message says of a run whose record isn't tested.
UNTESTED = "was never evaluated on test. Repeat its command with evaluator=standard: it goes on from there."

# A score closer than this factor to the error of its test data says as much about the data as about the model.
DATA_ERROR_MARGIN = 3.0

Status = Literal["finished", "diverged", "failed"]


class RecordError(RuntimeError):
    """A record can't be read. The message names the file, the reason and what to do."""


@dataclass(frozen=True)
class _Saved:
    """Content of one JSON file with a hash over it."""

    def save(self, path: Path) -> None:
        """Write the file atomically. JSON has no infinity, so it becomes the string "inf"; NaN becomes null."""
        values = _to_json(asdict(self))
        with replacing(path) as temporary:
            text = json.dumps({**values, "sha256": _hash(values)}, indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            RecordError: the file has an unknown format, lacks a field, or doesn't match its hash.
        """
        return cls(**_load(path, cls))


@dataclass(frozen=True)
class RunRecord(_Saved):
    """A run and its results; the leaderboard reads nothing else.

    Attributes:
        format: version of the file format.
        run_id: track-dataset-model-config_hash-seed.
        model, variant, dataset, track, task, seed: the run's place on the board.
        status: finished, diverged (the loss became non-finite) or failed.
        message: the reason, if it isn't finished.
        metrics: number by column; None means "not measured".
        metric_versions: version by metric.
        cost: n_parameters, train_seconds, generation_seconds, latency_ms, throughput ... With data=stream also
            stream_seconds, the part of generation_seconds spent during training, and stream_wait_seconds, the part of
            train_seconds in which training waited for samples.
        data: by split: file (relative to the data folder), sha256 over the samples used, and n. For train with
            data=stream also n_fresh, the number of further samples drawn.
        config: the whole configuration.
        config_hash: hash of the part of config that is the run's identity.
        environment: versions, device, threads.
        bench_version, commit, dirty: the code; dirty means uncommitted changes in the code that computes the result.
        date_utc, wall_seconds: when the run ended, and how long its last process took.
        files: SHA-256 of errors.nc and report.md, which are beside the record.
        samples: columns of test before their mean over samples, in the order of the file: ``rel_l2``.
        profile: curves and fields of test, made by ``records.profile.Profile.to_json``; empty if the evaluator measured
            no spectra.

    Everything of test is missing if ``is_tested`` is false.
    """

    run_id: RunId
    model: Name
    variant: Name
    dataset: Name
    track: Name
    task: Name
    seed: Count
    status: Status
    message: Text
    metrics: Numbers
    metric_versions: Versions
    cost: Numbers
    data: Splits
    config: Config
    config_hash: Words
    environment: Environment
    bench_version: Words
    commit: Words
    dirty: Flag
    date_utc: DateUtc
    wall_seconds: NotNegative
    files: Texts = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    profile: Packed = field(default_factory=dict)
    format: Count = RECORD_FORMAT

    @property
    def is_tested(self) -> bool:
        """Whether test was opened. Trials of a search only have an error on valid."""
        return bool(self.config.get("evaluator", {}).get("on_test", True))

    @property
    def result(self) -> str:
        """The error of a finished run in words."""
        name, where = ("rel_l2", "") if self.is_tested else ("valid_rel_l2", " on valid")
        score = self.metrics.get(name)
        return "no relative L2" if score is None else f"relative L2{where} {score:.4g}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything but the format, the folders of the run and the names of the files beside it."""
        values = {entry.name: _to_json(getattr(self, entry.name)) for entry in fields(self) if entry.name != "format"}
        values["config"] = {key: value for key, value in values["config"].items() if key != "paths"}
        values["files"] = sorted(values["files"].values())
        return _hash(values)


@dataclass(frozen=True)
class Evaluation(_Saved):
    """A later evaluation of a finished run, joined to its record by ``run_id``.

    Fields that it shares with a record have the same meaning.

    Attributes:
        evaluator: the name of the evaluator's configuration.
        metrics: columns of test, and those that boards take from further test sets.
        columns: numbers by test set and column.
        cost: cost of predictions at the time of this evaluation, and how it compares with the solver.
        rungs: the solver's curve, each entry a ``records.rung.Rung``.
        notes: why a column is empty or needs care; why a grid is missing from the curve.
    """

    run_id: RunId
    evaluator: Name
    metrics: Numbers
    metric_versions: Versions
    data: Splits
    config: Config
    environment: Environment
    bench_version: Words
    commit: Words
    dirty: Flag
    date_utc: DateUtc
    wall_seconds: NotNegative
    files: Texts = field(default_factory=dict)
    columns: TestSets = field(default_factory=dict)
    cost: Numbers = field(default_factory=dict)
    rungs: Rungs = field(default_factory=list)
    notes: Texts = field(default_factory=dict)
    samples: Samples = field(default_factory=dict)
    profile: Packed = field(default_factory=dict)
    format: Count = RECORD_FORMAT


@dataclass(frozen=True)
class Verification(_Saved):
    """The result of evaluating the checkpoint of a finished run again, perhaps by someone else. It isn't signed.

    Attributes:
        run_id, fingerprint: those of the record.
        confirmed: whether every value agrees within ``tolerance``.
        tolerance: relative tolerance; tighter on the kind of device that made the record.
        difference: the largest relative difference; infinite if a number is missing on one side, or if a value that
            must be the same isn't.
        column: the value with that difference.
        environment, bench_version, commit, dirty, date_utc: those of the verification.
    """

    run_id: RunId
    fingerprint: Words
    confirmed: Flag
    tolerance: NotNegative
    difference: Error
    column: Words
    environment: Environment
    bench_version: Words
    commit: Words
    dirty: Flag
    date_utc: DateUtc
    format: Count = RECORD_FORMAT


def load_record(place: Path | str) -> RunRecord:
    """The record of a run.

    Args:
        place: the run directory, or the file itself.

    Raises:
        RecordError: there is no record, or it can't be read.
    """
    path = Path(place)
    return RunRecord.load(path / RECORD_NAME if path.is_dir() else path)


def _load(path: Path, kind: type[_Saved]) -> dict[str, Any]:
    try:
        values = foreign.json_content(path)
        version = values["format"]
        if not (type(version) is int and 1 <= version <= RECORD_FORMAT):
            raise RecordError(
                f"{path} has format {plain(str(version))}, but this code reads formats 1 to {RECORD_FORMAT}. Use the "
                "release that wrote it, or run again with force=true."
            )
        expected = values.pop("sha256", None)
        if (version, expected) != (1, None) and expected != _hash(values):
            raise ValueError("its content doesn't match the hash stored with it")
        if version < RECORD_FORMAT:
            added = [entry for entry in fields(kind) if entry.default_factory is not MISSING]
            values = {**{entry.name: entry.default_factory() for entry in added}, **values}  # pyright: ignore
        for table in ("metrics", "cost", "columns", "samples", "difference"):
            if table in values:
                values[table] = _with_infinities(values[table])
        found = {entry.name: values[entry.name] for entry in fields(kind)}
        # Only compared: a whole number that became a float would change the fingerprint.
        foreign.check(_schema(kind), found)
        return found
    except (OSError, ValueError, KeyError) as error:
        raise RecordError(
            f"{path} isn't a readable record ({type(error).__name__}: {error}). Restore an intact copy, or delete it: "
            "the command that wrote it then writes it again, from the checkpoint beside it."
        ) from error


@cache
def _schema(kind: type[_Saved]) -> TypeAdapter[_Saved]:
    return TypeAdapter(kind)


def _with_infinities(value: Any) -> Any:
    if isinstance(value, dict):
        # Thousands of records on a board share these names.
        return {sys.intern(name): _with_infinities(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_with_infinities(entry) for entry in value]
    return math.inf if value == "inf" else value


def _hash(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
