"""Boards of made records, from memory or from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers.made_records import EVALUATION, RECORD, save

from neuralop_bench.board.collect import Collection, collect
from neuralop_bench.board.rows import Board
from neuralop_bench.board.run import Run
from neuralop_bench.records.record import Evaluation, RunRecord


def made_board(folder: Path, *entries: RunRecord | Evaluation) -> Board:
    """Of files in a folder."""
    return Board.of(collect([save(folder, *entries)]))


def board_of(*runs: Run | RunRecord) -> Board:
    """Of runs; a record alone is one that was never evaluated again."""
    return Board.of(Collection(tuple(Run(run) if isinstance(run, RunRecord) else run for run in runs)))


def small_record(seed: int = 0, rel_l2: float = 0.2, model: str = "fno", **changes: object) -> RunRecord:
    """With three test samples around an error."""
    metrics = {**RECORD.metrics, "rel_l2": rel_l2}
    samples = {"rel_l2": [0.9 * rel_l2, rel_l2, 1.1 * rel_l2]}
    run_id = f"{model}-s{seed}"
    return replace(RECORD, seed=seed, metrics=metrics, model=model, run_id=run_id, samples=samples, **changes)


def evaluated(seed: int = 0, **changes: object) -> Run:
    """Such a record with a thorough evaluation."""
    return Run(small_record(seed), [replace(EVALUATION, run_id=f"fno-s{seed}", **changes)])
