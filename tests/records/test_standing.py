"""What boards say of a record after others have evaluated its checkpoint again."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.made_boards import small_record

from neuralop_bench.records.record import RecordError, RunRecord, Verification
from neuralop_bench.records.standing import OTHER_DEVICE, SAME_DEVICE, standing, weakest

RECORD = replace(small_record(), data={"test": {"file": "a.hdf5", "sha256": "aa", "n": 3}}, files={"errors.nc": "bb"})
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
        ([VERIFICATION, replace(FAILED, tolerance=OTHER_DEVICE), VERIFICATION], "disputed"),
        ([replace(VERIFICATION, run_id="another")], "self"),
        ([replace(FAILED, run_id="another"), ELSEWHERE], "reproduced"),
        ([replace(VERIFICATION, dirty=True)], "self"),
        ([replace(VERIFICATION, dirty=True), ELSEWHERE], "reproduced"),
        ([replace(FAILED, dirty=True), VERIFICATION], "verified"),
        ([replace(VERIFICATION, tolerance=0.5)], "self"),
        ([replace(FAILED, tolerance=0.5)], "self"),
        ([replace(VERIFICATION, difference=1e-3)], "self"),
        ([replace(VERIFICATION, difference=math.nan)], "self"),
        ([replace(FAILED, difference=0.0)], "self"),
    ],
)
def test_the_word_for_a_record(verifications: list[Verification], expected: str) -> None:
    assert standing(RECORD, verifications) == expected
    assert standing(RECORD, iter(verifications)) == expected
    assert standing(RECORD, reversed(verifications)) == expected


def _changed(name: str) -> Any:
    """Another value of a field."""
    value = getattr(RECORD, name)
    if name == "data":
        return {**value, "test": {**value["test"], "n": 4}}
    if name == "samples":
        return {"rel_l2": value["rel_l2"][::-1]}
    if isinstance(value, dict):
        return {**value, "more": "cc"}
    return not value if isinstance(value, bool) else value + type(value)(1)


@pytest.mark.parametrize("name", [entry.name for entry in fields(RunRecord) if entry.name not in ("run_id", "format")])
@pytest.mark.parametrize("verification", [VERIFICATION, FAILED], ids=["confirmed", "not"])
def test_a_verification_is_of_the_whole_record(verification: Verification, name: str) -> None:
    another = replace(RECORD, **{name: _changed(name)})
    assert another.run_id == RECORD.run_id
    assert standing(another, [verification]) == "self"


@pytest.mark.parametrize(
    "change",
    [
        {"config": {**RECORD.config, "paths": {"data": "elsewhere"}}},
        {"files": {"other.nc": "bb"}},
        {"format": 3},
    ],
    ids=["folders", "files", "format"],
)
def test_names_of_files_are_not_verified(change: dict[str, Any]) -> None:
    assert standing(replace(RECORD, **change), [VERIFICATION]) == "verified"


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


@pytest.mark.parametrize("version", [1, 2, 3])
def test_records_without_errors_per_sample_are_never_verified(tmp_path: Path, version: int) -> None:
    path = tmp_path / "record.json"
    _in_format(version, path)
    record = RunRecord.load(path)
    assert record.format == version
    confirmed, failed = (replace(one, fingerprint=record.fingerprint) for one in (VERIFICATION, FAILED))
    assert standing(record, [confirmed]) == "self"
    assert standing(record, [confirmed, failed]) == "disputed"


def test_a_record_that_claims_to_be_too_old_for_a_hash_is_not_verified(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    RECORD.save(path)
    assert standing(RunRecord.load(path), [VERIFICATION]) == "verified"
    values = json.loads(path.read_text())
    del values["sha256"]
    values |= {"format": 1, "samples": {"rel_l2": [0.0, 0.3, 0.3]}}
    path.write_text(json.dumps(values))
    assert standing(RunRecord.load(path), [VERIFICATION]) == "self"


def test_a_row_is_as_well_confirmed_as_its_weakest_seed() -> None:
    words = ("disputed", "self", "reproduced", "verified")
    for i, word in enumerate(words):
        assert weakest(reversed(words[i:])) == word
    assert weakest(["verified"] * 3) == "verified"


@pytest.mark.parametrize(("given", "named"), [([], "nothing"), (["self", "certain"], "certain")])
def test_no_words_or_others_are_refused(given: list[str], named: str) -> None:
    with pytest.raises(ValueError, match=f"got {named}"):
        weakest(given)
