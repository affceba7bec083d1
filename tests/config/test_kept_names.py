"""Names that other people's files hold: hashes of configurations and addresses of data. They never move."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import identity, standard_overrides
from neuralop_bench.config.recorded import of_record
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runs.splits import split_of
from neuralop_bench.runtime.hydra_internals import wrapped_composition

ROOT = Path(__file__).parents[2]
# The folder of the data of tasks, as of 30 November 2026.
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


@pytest.mark.usefixtures("no_figures")
def test_a_run_composes_once_for_its_identity(smoke: Callable[..., RunConfig]) -> None:
    seen: list[Any] = []

    def noting(load: Any) -> Any:
        return lambda *arguments, **options: seen.append(options["overrides"]) or load(*arguments, **options)

    cfg = smoke("model=mean_field", "dataset=burgers1d", "trainer.epochs=1")
    with wrapped_composition(noting):
        pipeline.run(cfg)
        assert seen == [standard_overrides(cfg)]
        pipeline.run(cfg)  # returned
        assert seen == 2 * [standard_overrides(cfg)]
