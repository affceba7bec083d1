"""Records and evaluations survive a round trip through their files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.made_records import EVALUATION, RECORD

from neuralop_bench.records.record import Evaluation, RecordError, RunRecord


def test_record_round_trip_keeps_infinity_and_missing(tmp_path: Path) -> None:
    RECORD.save(tmp_path / "record.json")
    assert RunRecord.load(tmp_path / "record.json") == RECORD
    # Strict JSON: other programs read records too.
    json.loads((tmp_path / "record.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}'])
def test_an_unreadable_record_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(RecordError, match=r"record\.json"):
        RunRecord.load(tmp_path / "record.json")


def test_evaluation_round_trip_keeps_infinity_in_every_table(tmp_path: Path) -> None:
    EVALUATION.save(tmp_path / "thorough.json")
    assert Evaluation.load(tmp_path / "thorough.json") == EVALUATION
    json.loads((tmp_path / "thorough.json").read_text(), parse_constant=pytest.fail)
