"""The ends of runs in worker processes, in a module of their own: a worker imports the module of what it does."""

from __future__ import annotations

from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

from neuralop_bench import leaderboard
from neuralop_bench.records.record import RunRecord


def finish_runs(folder: str, number: int, start: Barrier) -> None:
    """The ends of four runs: a record, then the board. Begins when all others are there, too."""
    outputs = Path(folder)
    record = RunRecord.load(outputs / "first.json")
    start.wait(60)
    for seed in range(number, 32, 8):
        (outputs / f"seed={seed}").mkdir()
        replace(record, seed=seed, run_id=f"run-s{seed}").save(outputs / f"seed={seed}" / "record.json")
        leaderboard.rebuild(outputs)
