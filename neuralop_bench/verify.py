"""Evaluate the checkpoint of a finished run again and compare every number with its record.

    python -m neuralop_bench.verify outputs/lite/ns2d/fno/default-f3e46648/seed=0

Equal means to 1e-6 on the kind of device that made the record, to 1e-3 on another.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralop_bench import config, pipeline, reproducibility
from neuralop_bench.record import RECORD_NAME, RunRecord
from neuralop_bench.table import Table, number, show

SAME_DEVICE, OTHER_DEVICE = 1e-6, 1e-3


@dataclass(frozen=True)
class Comparison:
    """One column, as recorded and as measured now; a column whose metric has changed since isn't comparable."""

    column: str
    recorded: float | None
    now: float | None
    tolerance: float

    @property
    def difference(self) -> float:
        """Relative difference; infinite if one of the two is missing."""
        if self.recorded == self.now:  # both missing or both infinite, too
            return 0.0
        if self.recorded is None or self.now is None:
            return math.inf
        return abs(self.now - self.recorded) / max(abs(self.recorded), 1e-300)

    @property
    def agrees(self) -> bool:
        return self.difference <= self.tolerance


def verify(run: Path, *, data: Path | None = None, device: str = "auto", trust: Sequence[str] = ()) -> list[Comparison]:
    """Compare a run's record with what its checkpoint scores now.

    Args:
        run: a run directory.
        data: folder of the datasets, if it isn't the one in the record; missing ones are generated. For imported data,
            the folder of the dataset.
        device: where to compute.
        trust: packages, besides the project's own, whose constructors may be called.

    Raises:
        RunError: the run isn't finished, the data differ, or a metric has been redefined since.
        RecordError, CheckpointError, ConfigError: the run can't be read.
    """
    record = RunRecord.load(run / RECORD_NAME)
    cfg = config.of_record(record, run, trust)
    cfg.device = device
    if data is not None:
        config.move_data(cfg, data)
    score = pipeline.score_again(cfg, record, run)
    changed = sorted(name for name, version in record.metric_versions.items() if score.versions.get(name) != version)
    if changed:
        raise pipeline.RunError(
            f"{', '.join(changed)} are defined otherwise now than when the record in {run} was made. Use version "
            f"{record.bench_version} of neuralop-bench, or run it again with force=true."
        )
    kind = reproducibility.environment(reproducibility.resolve_device(device))["device"]
    tolerance = SAME_DEVICE if kind == record.environment.get("device") else OTHER_DEVICE
    names = [*record.metrics, *(name for name in score.metrics if name not in record.metrics)]
    return [Comparison(name, record.metrics.get(name), score.metrics.get(name), tolerance) for name in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status: 0 if the record is confirmed, 1 if it isn't."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.verify", description="Compare a record with what its checkpoint scores now."
    )
    parser.add_argument("run", type=Path, help="a run directory")
    parser.add_argument("--data", type=Path, help="folder of the datasets (default: the one in the record)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index>")
    parser.add_argument("--trust", nargs="*", default=[], metavar="PACKAGE", help="packages whose code may be run")
    options = parser.parse_args(arguments)
    with config.report_errors():
        found = verify(options.run, data=options.data, device=options.device, trust=options.trust)
        rows = [(entry.column, number(entry.recorded), number(entry.now), f"{entry.difference:.1e}") for entry in found]
        show([Table("Record against checkpoint", ("column", "recorded", "now", "difference"), rows)])
        wrong = [entry.column for entry in found if not entry.agrees]
        tolerance = found[0].tolerance
        if wrong:
            print(f"NOT confirmed: {', '.join(wrong)} differ by more than {tolerance:g} (relative).")
            return 1
        print(f"Confirmed: all {len(found)} numbers agree to {tolerance:g} (relative).")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
