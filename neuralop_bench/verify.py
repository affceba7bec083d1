"""Evaluate the checkpoint of a finished run again and compare every number with its record.

    python -m neuralop_bench.verify outputs/lite/ns2d/fno/default-f3e46648/seed=0

Numbers must agree to 1e-6 on the kind of device and processor that made the record, and to 1e-3 on another. The result
is kept in verifications/ of the run directory, whether it confirms the record or not. Boards show it
(``neuralop_bench.records.standing``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from data_gen.files import WriteError
from neuralop_bench.config.messages import report_errors
from neuralop_bench.config.recorded import move_data, of_record
from neuralop_bench.records.record import RECORD_NAME, VERIFICATIONS, RunRecord, Verification
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.records.standing import OTHER_DEVICE, SAME_DEVICE
from neuralop_bench.runs.evaluation import score_again
from neuralop_bench.runtime import environment
from neuralop_bench.runtime.table import Table, number, show

# Two devices are of one kind if these entries of the environment agree. CPUs with other vector instructions round
# differently: quantiles of an FNO's errors have moved by 3e-6.
_KIND = ("device", "processor", "vector_instructions")


@dataclass(frozen=True)
class ColumnCheck:
    """One column, as recorded and as measured now."""

    column: str
    recorded: float | None
    now: float | None
    tolerance: float

    @property
    def difference(self) -> float:
        """Relative difference; infinite if only one of the two is missing or infinite."""
        if self.recorded == self.now:  # also if both are missing or infinite
            return 0.0
        if self.recorded is None or self.now is None or not math.isfinite(self.recorded + self.now):
            return math.inf
        return abs(self.now - self.recorded) / max(abs(self.recorded), 1e-300)

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance


def verify(
    run: Path, *, data: Path | None = None, device: str = "auto", trust: Sequence[str] = ()
) -> list[ColumnCheck]:
    """Compare a run's record with what its checkpoint scores now.

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
    return _compared(RunRecord.load(run / RECORD_NAME), run, data, device, trust)


def verification(record: RunRecord, found: Sequence[ColumnCheck], *, device: str = "auto") -> Verification:
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
    """Where a verification is kept. The name depends on date and machine, so that several people's can share a
    folder."""
    stamp = datetime.fromisoformat(found.date_utc).astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    where = hashlib.sha256(json.dumps(found.environment, sort_keys=True).encode()).hexdigest()[:8]
    return run / VERIFICATIONS / f"{stamp}-{where}.json"


def _compared(record: RunRecord, run: Path, data: Path | None, device: str, trust: Sequence[str]) -> list[ColumnCheck]:
    cfg = of_record(record, run, trust)
    cfg.device = device
    if data is not None:
        move_data(cfg, data)
    score = score_again(cfg, record, run)
    changed = sorted(name for name, version in record.metric_versions.items() if score.versions.get(name) != version)
    if changed:
        raise RunError(
            f"{', '.join(changed)} are defined differently now than when the record in {run} was made. Use version "
            f"{record.bench_version} of neuralop-bench, or run it again with force=true."
        )
    here = environment.environment(environment.resolve_device(device))
    is_same = all(here[name] == record.environment.get(name) for name in _KIND)
    tolerance = SAME_DEVICE if is_same else OTHER_DEVICE
    names = [*record.metrics, *(name for name in score.metrics if name not in record.metrics)]
    # A record keeps NaN as missing.
    now = {name: None if value is None or math.isnan(value) else value for name, value in score.metrics.items()}
    return [ColumnCheck(name, record.metrics.get(name), now.get(name), tolerance) for name in names]


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
        found = _compared(record, options.run, options.data, options.device, options.trust)
        rows = [(entry.column, number(entry.recorded), number(entry.now), f"{entry.difference:.1e}") for entry in found]
        show([Table("Record against checkpoint", ("column", "recorded", "now", "difference"), rows)])
        wrong = [entry.column for entry in found if not entry.agrees]
        tolerance = found[0].tolerance
        if wrong:
            print(f"NOT confirmed: {', '.join(wrong)} differ by more than {tolerance:g} (relative).")
        else:
            print(f"Confirmed: all {len(found)} numbers agree to {tolerance:g} (relative).")
        if not options.no_save and (kept := _keep(verification(record, found, device=options.device), options.run)):
            print(kept)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
