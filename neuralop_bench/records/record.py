"""The result of a run, as one JSON file that is written last and never changed."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self

from data_gen.files import replacing

# 2 added the hash over the content; files of format 1 are read without that check. 3 added columns, cost, rungs and
# notes to evaluations. 4 added samples and profile.
RECORD_FORMAT = 4
RECORD_NAME = "record.json"
# Folders of what belongs to records: beside them in a run directory, by track on a committed board, which keeps the
# records themselves in the first.
RECORDS, EVALUATIONS, VERIFICATIONS = "records", "evaluations", "verifications"

# Closer to the error of its test data, a score tells as much about these as about the model.
DATA_ERROR_MARGIN = 3.0

Status = Literal["finished", "diverged", "failed"]


class RecordError(RuntimeError):
    """A record can't be read; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class _Saved:
    """What is kept as one JSON file with a hash over its content."""

    def save(self, path: Path) -> None:
        """Write the file atomically. Infinities become the string "inf", which JSON has no number for; NaN becomes
        null."""
        values = _to_json(asdict(self))
        with replacing(path) as temporary:
            text = json.dumps({**values, "sha256": _hash(values)}, indent=2, ensure_ascii=False, allow_nan=False)
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that ``save`` wrote.

        Raises:
            RecordError: it has an unknown format, lacks a field, or doesn't match its hash.
        """
        return cls(**_load(path, cls))


@dataclass(frozen=True)
class RunRecord(_Saved):
    """What a run was and what came out of it; the leaderboard reads nothing else.

    Attributes:
        format: version of this layout.
        run_id: track-dataset-model-config_hash-seed.
        model, variant, dataset, track, task, seed: the run's place on the board.
        status: finished, diverged (the loss became non-finite) or failed.
        message: why, if it isn't finished.
        metrics: column to number; None is "not measured".
        metric_versions: metric to version.
        cost: n_parameters, train_seconds, generation_seconds, latency_ms, throughput ... With data=stream also
            stream_seconds, the part of generation_seconds that was spent while training, and stream_wait_seconds, the
            part of train_seconds in which training waited for it.
        data: split to file (below the data folder), sha256 over the samples used, and n; of train with data=stream also
            n_fresh, how many samples after those were drawn.
        config: the whole configuration; config_hash: of the part that is the run's identity.
        environment: versions, device, threads.
        bench_version, commit, dirty: the code; dirty means uncommitted changes in what computes the result.
        date_utc, wall_seconds: when it ended, and how long the last process took.
        files: SHA-256 of errors.nc and report.md, which lie beside it.
        samples: columns of test before their mean over samples, in the order of the file: ``rel_l2``.
        profile: curves and fields of test, as ``records.profile.Profile.to_json`` makes them; empty if the evaluator
            measured no spectra.
    """

    run_id: str
    model: str
    variant: str
    dataset: str
    track: str
    task: str
    seed: int
    status: Status
    message: str
    metrics: dict[str, float | None]
    metric_versions: dict[str, int]
    cost: dict[str, float | None]
    data: dict[str, dict[str, Any]]
    config: dict[str, Any]
    config_hash: str
    environment: dict[str, Any]
    bench_version: str
    commit: str
    dirty: bool
    date_utc: str
    wall_seconds: float
    files: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    format: int = RECORD_FORMAT

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what a verification confirms, the same in every format of the file."""
        return _hash({name: _to_json(getattr(self, name)) for name in ("run_id", "date_utc", "commit", "metrics")})


@dataclass(frozen=True)
class Evaluation(_Saved):
    """A later evaluation of a finished run, joined to its record by ``run_id``.

    The fields that it shares with a record mean the same.

    Attributes:
        evaluator: the name of the evaluator's configuration.
        metrics: columns of test, and those that boards take from further test sets.
        columns: test set to column to number.
        cost: what predictions took when this was measured, and how that compares with the solver.
        rungs: the solver's curve, as ``records.rung.Rung`` tells.
        notes: why a column is empty, or what has to be known of it; why a grid is missing from the curve.
    """

    run_id: str
    evaluator: str
    metrics: dict[str, float | None]
    metric_versions: dict[str, int]
    data: dict[str, dict[str, Any]]
    config: dict[str, Any]
    environment: dict[str, Any]
    bench_version: str
    commit: str
    dirty: bool
    date_utc: str
    wall_seconds: float
    files: dict[str, str] = field(default_factory=dict)
    columns: dict[str, dict[str, float | None]] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)
    rungs: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class Verification(_Saved):
    """What came out when the checkpoint of a finished run was evaluated again, perhaps by somebody else.

    Attributes:
        run_id, fingerprint: of the record.
        confirmed: every number agreed to ``tolerance``.
        tolerance: relative; tighter on the kind of device that made the record.
        difference: the largest relative one; infinite if a number is missing on one side.
        column: where it is.
        environment, bench_version, commit, dirty, date_utc: of the verification.
    """

    run_id: str
    fingerprint: str
    confirmed: bool
    tolerance: float
    difference: float
    column: str
    environment: dict[str, Any]
    bench_version: str
    commit: str
    dirty: bool
    date_utc: str
    format: int = RECORD_FORMAT


def load_record(place: Path | str) -> RunRecord:
    """The record of a run.

    Args:
        place: the run directory, or the file itself.

    Raises:
        RecordError: there is none, or it can't be read.
    """
    path = Path(place)
    return RunRecord.load(path / RECORD_NAME if path.is_dir() else path)


def _load(path: Path, kind: type[_Saved]) -> dict[str, Any]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        version = values["format"]
        if version not in range(1, RECORD_FORMAT + 1):
            raise RecordError(
                f"{path} has format {version}, but this code reads 1 to {RECORD_FORMAT}. Use the release that wrote "
                "it, or run again with force=true."
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
        return {entry.name: values[entry.name] for entry in fields(kind)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path} is no readable record ({type(error).__name__}: {error}). Get back a sound copy, or delete it: the "
            "command that wrote it writes it again, from the checkpoint that lies beside it."
        ) from error


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
