"""Names that other people's files hold: hashes of configurations and addresses of data. They never move."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest

from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import identity
from neuralop_bench.config.recorded import of_record
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runs.splits import split_of

ROOT = Path(__file__).parents[2]
# The folder of every task's data, as of 28 November 2026.
ADDRESSES = Path(__file__).with_name("data_addresses.csv")


def _addresses() -> Iterator[tuple[str, dict[str, str]]]:
    """Folders by split, for each command that chooses a task."""
    with open(ADDRESSES, newline="") as handle:
        for command, rows in groupby(csv.DictReader(handle), key=lambda row: row["overrides"]):
            yield command, {row["split"]: row["folder"] for row in rows}


@pytest.mark.parametrize(("command", "folders"), [pytest.param(*entry, id=entry[0]) for entry in _addresses()])
def test_data_keep_their_address(command: str, folders: dict[str, str]) -> None:
    cfg = compose(*command.split())
    assert {split: split_of(cfg, split).source.folder.name for split in folders} == folders


def test_committed_records_keep_their_hash() -> None:
    # Seeds share it, so one record stands for each row.
    paths = sorted((ROOT / "leaderboard" / "records").rglob("*_seed0.json"))
    assert paths
    for path in paths:
        record = RunRecord.load(path)
        run = of_record(record, path)
        who = identity(run)
        assert (who.config_hash, who.variant, who.run_id(run.seed), who.task) == (
            record.config_hash,
            record.variant,
            record.run_id,
            record.task,
        )
