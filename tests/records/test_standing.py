"""What boards say of a record after others have evaluated its checkpoint again."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_records import RECORD

from neuralop_bench.records.record import RecordError, RunRecord, Verification
from neuralop_bench.records.standing import OTHER_DEVICE, SAME_DEVICE, standing, weakest

VERIFICATION = Verification(
    run_id=RECORD.run_id,
    fingerprint=RECORD.fingerprint,
    confirmed=True,
    tolerance=SAME_DEVICE,
    difference=3e-8,
    column="rel_l2",
    environment={"device": "cpu"},
    bench_version="0.1.0",
    commit="c0ffee",
    dirty=False,
    date_utc="2026-01-02T00:00:00+00:00",
)
ELSEWHERE = replace(VERIFICATION, tolerance=OTHER_DEVICE)
FAILED = replace(VERIFICATION, confirmed=False, difference=math.inf)


@pytest.mark.parametrize("difference", [0.0, 3e-8, math.inf])
def test_verification_round_trip(tmp_path: Path, difference: float) -> None:
    kept = replace(VERIFICATION, confirmed=math.isfinite(difference), difference=difference)
    kept.save(tmp_path / "one.json")
    assert Verification.load(tmp_path / "one.json") == kept
    json.loads((tmp_path / "one.json").read_text(), parse_constant=pytest.fail)


def test_a_verification_that_was_changed_by_hand_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    FAILED.save(path)
    path.write_text(path.read_text().replace('"confirmed": false', '"confirmed": true'))
    with pytest.raises(RecordError, match="hash"):
        Verification.load(path)


@pytest.mark.parametrize(
    ("verifications", "expected"),
    [
        ([], "self"),
        ([VERIFICATION], "verified"),
        ([ELSEWHERE], "reproduced"),
        ([ELSEWHERE, VERIFICATION], "verified"),
        ([VERIFICATION, ELSEWHERE], "verified"),
        ([FAILED], "disputed"),
        ([VERIFICATION, replace(ELSEWHERE, confirmed=False), VERIFICATION], "disputed"),
        ([replace(VERIFICATION, run_id="another")], "self"),
        ([replace(FAILED, run_id="another"), ELSEWHERE], "reproduced"),
        ([replace(VERIFICATION, dirty=True)], "self"),
        ([replace(VERIFICATION, dirty=True), ELSEWHERE], "reproduced"),
        ([replace(FAILED, dirty=True), VERIFICATION], "verified"),
        ([replace(VERIFICATION, tolerance=0.5)], "self"),
        ([replace(FAILED, tolerance=0.5)], "self"),
    ],
)
def test_the_word_for_a_record(verifications: list[Verification], expected: str) -> None:
    assert standing(RECORD, verifications) == expected
    assert standing(RECORD, iter(verifications)) == expected
    assert standing(RECORD, reversed(verifications)) == expected


@pytest.mark.parametrize(
    "change",
    [{"metrics": {**RECORD.metrics, "rel_l2": 0.1}}, {"date_utc": "2026-01-03T00:00:00+00:00"}, {"commit": "decaf"}],
    ids=["metrics", "date", "commit"],
)
@pytest.mark.parametrize("verification", [VERIFICATION, FAILED])
def test_another_record_of_the_same_name_is_not_meant(verification: Verification, change: dict[str, object]) -> None:
    another = replace(RECORD, **change)  # pyright: ignore[reportArgumentType]
    assert another.run_id == RECORD.run_id
    assert standing(another, [verification]) == "self"


def _in_format(version: int, path: Path) -> None:
    """A record as an older release wrote it."""
    RECORD.save(path)
    values = json.loads(path.read_text())
    for name in ("sha256", "samples", "profile", *(("files",) if version == 1 else ())):
        del values[name]
    values["format"] = version
    if version > 1:
        values["sha256"] = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(values))


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_records_of_every_format_are_confirmed_alike(tmp_path: Path, version: int) -> None:
    path = tmp_path / "record.json"
    if version == 4:
        RECORD.save(path)
    else:
        _in_format(version, path)
    record = RunRecord.load(path)
    assert record.format == version
    assert standing(record, [VERIFICATION]) == "verified"
    record.save(path)
    assert standing(RunRecord.load(path), [VERIFICATION]) == "verified"


def test_a_row_is_as_well_confirmed_as_its_weakest_seed() -> None:
    words = ("disputed", "self", "reproduced", "verified")
    for i, word in enumerate(words):
        assert weakest(reversed(words[i:])) == word
    assert weakest(["verified"] * 3) == "verified"


@pytest.mark.parametrize(("given", "named"), [([], "nothing"), (["self", "certain"], "certain")])
def test_no_words_or_others_are_refused(given: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=f"got {named}"):
        weakest(given)
