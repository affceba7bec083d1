"""The result of a run, as one JSON file that is written last and never changed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from data_gen.files import replacing

RECORD_FORMAT = 1
RECORD_NAME = "record.json"

Status = Literal["finished", "diverged", "failed"]


class RecordError(RuntimeError):
    """A record can't be read; the message names the file and the reason."""


@dataclass(frozen=True)
class RunRecord:
    """What a run was and what came out of it; the leaderboard reads nothing else.

    Attributes:
        format: version of this layout.
        run_id: track-dataset-model-config_hash-seed.
        model, variant, dataset, track, task, seed: the run's place on the board.
        status: finished, diverged (the loss became non-finite) or failed.
        message: why, if it isn't finished.
        metrics: column to number; None is "not measured".
        metric_versions: metric to version.
        cost: n_parameters, train_seconds, generation_seconds, latency_ms, throughput ...
        data: split to file (below the data folder), sha256 over the samples used, and n.
        config: the whole configuration; config_hash: of the part that is the run's identity.
        environment: versions, device, threads.
        bench_version, commit, dirty: the code; dirty means uncommitted changes in what computes the result.
        date_utc, wall_seconds: when it ended, and how long the last process took.
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
    format: int = RECORD_FORMAT

    def save(self, path: Path) -> None:
        """Write the record atomically. Infinities become the string "inf", which JSON has no number for; NaN becomes
        null."""
        _save(self, path)

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read a record.

        Raises:
            RecordError: the file isn't a record of this format.
        """
        return cls(**_load(path, [field.name for field in fields(cls)]))


@dataclass(frozen=True)
class Evaluation:
    """A later evaluation of a finished run, joined to its record by ``run_id``.

    evaluator: the name of the evaluator's configuration; the other fields are those of a record.
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
    format: int = RECORD_FORMAT

    def save(self, path: Path) -> None:
        """Write atomically, in the notation of records."""
        _save(self, path)

    @classmethod
    def load(cls, path: Path) -> Evaluation:
        """Read an evaluation.

        Raises:
            RecordError: the file isn't an evaluation of this format.
        """
        return cls(**_load(path, [field.name for field in fields(cls)]))


def _save(content: RunRecord | Evaluation, path: Path) -> None:
    with replacing(path) as temporary:
        text = json.dumps(_to_json(asdict(content)), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        if values["format"] != RECORD_FORMAT:
            raise ValueError(f"record format {values['format']}, this code reads {RECORD_FORMAT}")
        for table in ("metrics", "cost"):
            if table in names:
                values[table] = {name: math.inf if v == "inf" else v for name, v in values[table].items()}
        return {name: values[name] for name in names}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is no readable record ({type(error).__name__}: {error}).") from error


def _to_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value
