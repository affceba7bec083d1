"""Evaluate the checkpoint of a finished run again and compare its record with what is found.

    python -m neuralop_bench.verify outputs/lite/ns2d/fno/default-f3e46648/seed=0

These are compared:

- all metrics, the errors per sample, and the curves and fields that boards draw;
- the run's name, track and configuration hash with those that follow from its configuration;
- the checkpoint's architecture with the configuration, and its epoch;
- size and error of the data, and whether they are the same data;
- the numbers of parameters and of operations.

Measured numbers must agree to 1e-6 on the kind of device and processor that made the record, and to 1e-3 on another.
The rest must be the same. Times of predictions are shown but not compared, since they depend on the machine. Times and
memory of the training can't be measured again.

The result is kept in verifications/ of the run directory, whether it confirms the record or not. Boards show it
(``neuralop_bench.records.standing``). It isn't signed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from data_gen.agreement import agree
from data_gen.files import WriteError
from neuralop_bench.config.compose import composed_like
from neuralop_bench.config.identity import identity, standard_overrides
from neuralop_bench.config.messages import report_errors
from neuralop_bench.config.recorded import move_data, of_record
from neuralop_bench.config.schema import RunConfig, flattened, n_fresh
from neuralop_bench.records.profile import Profile, ProfileError
from neuralop_bench.records.record import RECORD_NAME, VERIFICATIONS, RunRecord, Verification
from neuralop_bench.records.run_directory import BEST_NAME, RunError
from neuralop_bench.records.standing import OTHER_DEVICE, SAME_DEVICE
from neuralop_bench.runs.evaluation import Provenance, score_again
from neuralop_bench.runs.scoring import Score
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.table import Table, number, show
from neuralop_bench.surrogate import checkpoint

# Two devices are of one kind if these entries of the environment agree. CPUs with other vector instructions round
# differently: quantiles of an FNO's errors have moved by 3e-6.
_KIND = ("device", "processor", "vector_instructions")
# Costs of predictions that follow from the network alone, and those that depend on the machine.
_COUNTS, _OPERATIONS = ("n_parameters", "n_parameters_complex_as_one"), "gflops_forward"
_TIMES = ("latency_ms", "throughput", "throughput_batch_size")
# Tracks whose rows set their own task, so that no task file says what they may change.
_UNRANKED = "custom"

Value = float | str | None


@dataclass(frozen=True)
class Check:
    """One value, as recorded and as found now.

    Attributes:
        column: a column of the record, or words for another value.
        recorded, now: the value; of several (samples, a curve) the one that differs most.
        difference: relative difference; infinite if one of the two is missing or infinite, or if values that must be
            the same differ.
        tolerance: largest difference that is allowed.
        is_measured: whether the value may differ by rounding.
    """

    column: str
    recorded: Value
    now: Value
    difference: float
    tolerance: float
    is_measured: bool = True

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance


def verify(run: Path, *, data: Path | None = None, device: str = "auto", trust: Sequence[str] = ()) -> list[Check]:
    """Compare a run's record with what is found now.

    Args:
        run: a run directory.
        data: folder of the datasets, if it isn't the one in the record; missing datasets are generated. For imported
            data, the folder of the dataset.
        device: where to compute.
        trust: packages, besides the project's own, whose constructors may be called.

    Raises:
        RunError: the run isn't finished, the data differ, or a metric has been redefined.
        RecordError, CheckpointError, ConfigError: the run can't be read.
    """
    return _compared(RunRecord.load(run / RECORD_NAME), run, data, device, trust)[0]


def verification(record: RunRecord, found: Sequence[Check], *, device: str = "auto") -> Verification:
    """The result of ``verify`` in the form that is kept.

    Args:
        record: that was checked.
        found: by ``verify``.
        device: where it was computed.
    """
    worst = max(found, key=lambda entry: entry.difference)
    return Verification(
        run_id=record.run_id,
        fingerprint=record.fingerprint,
        confirmed=all(entry.agrees for entry in found),
        tolerance=worst.tolerance,
        difference=worst.difference,
        column=worst.column,
        **environment.provenance(environment.resolve_device(device)),
    )


def path_of(found: Verification, run: Path) -> Path:
    """Where a verification is kept. The name depends on its date and content, so that several people's can share a
    folder, and two of the same second don't replace each other."""
    stamp = datetime.fromisoformat(found.date_utc).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    content = hashlib.sha256(json.dumps(asdict(found), sort_keys=True).encode()).hexdigest()[:8]
    return run / VERIFICATIONS / f"{stamp}-{content}.json"


def _compared(
    record: RunRecord, run: Path, data: Path | None, device: str, trust: Sequence[str]
) -> tuple[list[Check], Score]:
    cfg = of_record(record, run, trust)
    cfg.device = device
    if data is not None:
        move_data(cfg, data)
    score, provenance = score_again(cfg, record, run)
    changed = _differing(record.metric_versions, score.versions)
    if changed:
        raise RunError(
            f"{', '.join(changed)} are defined differently now than when the record in {run} was made. Use version "
            f"{record.bench_version} of neuralop-bench, or run it again with force=true."
        )
    here = environment.environment(environment.resolve_device(device))
    is_same = all(here[name] == record.environment.get(name) for name in _KIND)
    found = [
        *_metrics(record, score),
        *_samples(record, score),
        *_pictures(record, score),
        *_names(record, cfg),
        *_weights(record, run),
        *_data(record, cfg, provenance),
        *_costs(record, score),
    ]
    return [replace(entry, tolerance=SAME_DEVICE if is_same else OTHER_DEVICE) for entry in found], score


# What is compared ----------------------------------------------------------------------------------------------------


def _metrics(record: RunRecord, score: Score) -> list[Check]:
    # A record keeps NaN as missing.
    now = {name: None if value is None or math.isnan(value) else value for name, value in score.metrics.items()}
    return [_measured(name, record.metrics.get(name), now.get(name)) for name in dict.fromkeys([*record.metrics, *now])]


def _samples(record: RunRecord, score: Score) -> Iterable[Check]:
    """The errors per sample; records of older formats have none."""
    for name in dict.fromkeys([*record.samples, *score.samples]) if record.samples or record.format >= 4 else ():
        recorded, now = record.samples.get(name, []), score.samples.get(name, [])
        if len(recorded) != len(now):
            yield _same(f"number of samples with {name}", len(recorded), len(now))
        else:
            pairs = zip(recorded, now, strict=True)
            checks = [_measured(f"{name} of sample {i}", *pair) for i, pair in enumerate(pairs)]
            yield max(checks, key=lambda entry: entry.difference)


def _pictures(record: RunRecord, score: Score) -> Iterable[Check]:
    """The curves and fields that boards draw, each relative to its largest value."""
    if not record.profile and record.format < 4:
        return
    if not record.profile or score.profile is None:
        yield _same("curves and fields", bool(record.profile), score.profile is not None)
        return
    try:
        recorded = Profile.from_json(record.profile)
    except ProfileError as error:
        raise RunError(f"The record of {record.run_id} is damaged: {error}. Restore an intact copy.") from error
    now = Profile.from_json(score.profile.to_json())  # rounded like the record's
    curves = ("times", "step_errors", "cycles", "energy_target", "energy_prediction", "energy_error")
    yield from (_array(name, getattr(recorded, name), getattr(now, name)) for name in curves)
    for name in ("name", "unit", "time", "lengths"):
        yield _same(f"{name} of the drawn field", getattr(recorded.fields, name), getattr(now.fields, name))
    levels = 2**16 - 1 if now.fields.reference.ndim == 1 else 2**8 - 1
    yield _array("reference of the drawn field", recorded.fields.reference, now.fields.reference, levels=levels)
    yield _array("error of the drawn field", recorded.fields.error, now.fields.error, levels=levels)


def _names(record: RunRecord, cfg: RunConfig) -> list[Check]:
    """The run's place on boards and its configuration hash, which follow from the configuration."""
    if record.track == _UNRANKED:
        who = replace(identity(cfg, cfg), track=_UNRANKED)
    else:
        # What a track fixes doesn't depend on the model, which may have no file here.
        fixed = [override for override in standard_overrides(cfg) if not override.startswith("model=")]
        who = identity(cfg, composed_like(fixed, like=cfg))
    now = {
        **{name: getattr(who, name) for name in ("track", "dataset", "task", "model", "config_hash")},
        "seed": cfg.seed,
        "run_id": who.run_id(cfg.seed),
    }
    return [_same(name, getattr(record, name), value) for name, value in now.items()]


def _weights(record: RunRecord, run: Path) -> list[Check]:
    """The configuration that the checkpoint was saved with, as far as it decides the architecture, and its epoch.

    That the weights fit this architecture has been checked when they were loaded.
    """
    content = checkpoint.load(run / BEST_NAME)
    recorded, now = (
        flattened({"model": node["model"], "surrogate": node["surrogate"], "history": node["dataset"]["history"]})
        for node in (record.config, yaml.safe_load(content["config"]))
    )
    return [
        *(_same(f"{name} of the checkpoint", recorded.get(name), now.get(name)) for name in {**recorded, **now}),
        _same("best_epoch", record.cost.get("best_epoch"), content["epoch"]),
    ]


def _data(record: RunRecord, cfg: RunConfig, provenance: Provenance) -> Iterable[Check]:
    """What the record says of train, valid and test. Hashes may differ between kinds of processors; whether the data
    agree was decided when they were opened."""
    if cfg.data.stream:
        provenance["train"]["n_fresh"] = n_fresh(cfg)
    for split in dict.fromkeys([*record.data, *provenance]):
        recorded, now = record.data.get(split, {}), provenance.get(split, {})
        if "agreement" in recorded and now.get("error") is not None:  # others are compared by it, whatever the hash
            yield _same(f"numbers of {split}", True, agree({**now, "sha256": ""}, recorded))
        for name in dict.fromkeys([*recorded, *now]):
            if name not in ("file", "sha256", "agreement"):
                check = _measured if name == "error" else _same
                yield check(f"{name} of {split}", recorded.get(name), now.get(name))


def _costs(record: RunRecord, score: Score) -> list[Check]:
    return [
        *(_same(name, record.cost.get(name), score.cost.get(name)) for name in _COUNTS),
        _measured(_OPERATIONS, record.cost.get(_OPERATIONS), score.cost.get(_OPERATIONS)),
    ]


# How it is compared --------------------------------------------------------------------------------------------------


def _measured(column: str, recorded: float | None, now: float | None) -> Check:
    if recorded == now:  # also if both are missing or infinite
        difference = 0.0
    elif recorded is None or now is None or not math.isfinite(recorded + now):
        difference = math.inf
    else:
        difference = abs(now - recorded) / max(abs(recorded), 1e-300)
    return Check(column, recorded, now, difference, 0.0)


def _same(column: str, recorded: Any, now: Any) -> Check:
    difference = 0.0 if recorded == now else math.inf
    return Check(column, _shown(recorded), _shown(now), difference, 0.0, is_measured=False)


def _array(
    column: str, recorded: NDArray[np.float64] | None, now: NDArray[np.float64] | None, *, levels: int | None = None
) -> Check:
    """Compare values relative to the largest one. If they are rounded to levels, they may differ by one level."""
    if recorded is None or now is None or recorded.shape != now.shape:
        shapes = [None if values is None else values.shape for values in (recorded, now)]
        return _same(f"shape of {column}", *shapes)
    step = 0.0 if levels is None else float(np.ptp(recorded)) / levels
    with np.errstate(invalid="ignore"):  # infinity - infinity
        apart = np.abs(now - recorded) - step
    apart[np.isclose(recorded, now, rtol=0, atol=0, equal_nan=True)] = 0
    worst = int(np.argmax(apart))
    largest = float(np.max(np.abs(recorded[np.isfinite(recorded)]), initial=1e-300))
    difference = max(0.0, float(apart.flat[worst]) / largest)
    return Check(column, float(recorded.flat[worst]), float(now.flat[worst]), difference, 0.0)


def _shown(value: Any) -> Value:
    return value if value is None or isinstance(value, int | float) else str(value)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(name for name in {**one, **other} if one.get(name) != other.get(name))


# Command line --------------------------------------------------------------------------------------------------------


def _keep(found: Verification, run: Path) -> str:
    """Write a verification and return a message about it. If the directory, perhaps another user's, can't be written, a
    warning says so and the result still counts."""
    path = path_of(found, run)
    try:
        found.save(path)
    except (WriteError, OSError) as error:
        reason = getattr(error.__cause__ or error, "strerror", None) or str(error)
        print(
            f"Warning: this isn't kept, because {path.parent} can't be written ({reason}). If a board is to show it, "
            "verify a copy of the run directory. Otherwise use --no-save.",
            file=sys.stderr,
        )
        return ""
    if found.dirty:
        return f"Kept in {path}; boards don't count it, because the code here has uncommitted changes."
    return f"Kept in {path}"


def _tables(record: RunRecord, found: Sequence[Check], score: Score) -> list[Table]:
    """Measured numbers, and the other values that differ; times, which aren't compared."""
    header = ("value", "recorded", "now")
    compared = [
        (entry.column, _text(entry.recorded), _text(entry.now), f"{entry.difference:.1e}")
        for entry in found
        if entry.is_measured or not entry.agrees
    ]
    times = [(name, number(record.cost.get(name)), number(score.cost.get(name))) for name in _TIMES]
    return [
        Table("Record against checkpoint", (*header, "difference"), compared),
        Table("Not compared: these depend on the machine", header, times),
    ]


def _text(value: Value) -> str:
    return value if isinstance(value, str) else number(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0 if the record is confirmed, 1 if it isn't."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.verify", description="Compare a record with what its checkpoint scores now."
    )
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--data", type=Path, help="folder of the datasets (default: the one in the record)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index>")
    parser.add_argument("--trust", nargs="*", default=[], metavar="PACKAGE", help="packages whose code may be run")
    parser.add_argument("--no-save", action="store_true", help="leave the run directory as it is")
    options = parser.parse_args(arguments)
    with report_errors():
        record = RunRecord.load(options.run / RECORD_NAME)
        found, score = _compared(record, options.run, options.data, options.device, options.trust)
        show(_tables(record, found, score))
        wrong = [entry.column for entry in found if not entry.agrees]
        tolerance = found[0].tolerance
        if wrong:
            print(f"NOT confirmed: {', '.join(wrong)} differ by more than {tolerance:g} (relative).")
        else:
            print(f"Confirmed: all {len(found)} values agree to {tolerance:g} (relative).")
        if not record.samples:
            print("The record has no errors per sample, which ranks need. So boards show it as `self`.")
        if not options.no_save and (kept := _keep(verification(record, found, device=options.device), options.run)):
            print(kept)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
