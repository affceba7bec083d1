"""Rows whose test data were made on different kinds of processor stand on one board; rows of other data don't."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import turbulence
from helpers.made_records import N_SAMPLES, evaluation, record, save

from data_gen.agreement import agree, measure, summary
from neuralop_bench import compare
from neuralop_bench.board import page
from neuralop_bench.board.collect import collect
from neuralop_bench.board.comparability import TEST_DATA_NAME
from neuralop_bench.board.comparison import CompareError, Side, check
from neuralop_bench.board.rows import Board
from neuralop_bench.records.record import RunRecord

ROOT = Path(__file__).parents[2]
# Limits MKL, which transforms fields for torch, to code that any processor can run.
OTHER_CODE = {"MKL_CBWR": "COMPATIBLE"}


def entry(values: np.ndarray, sha256: str, **changes: Any) -> dict[str, Any]:
    """A record's entry for test data."""
    return {
        "file": "ns2d-12ec4f6b/test/ns2d.hdf5",
        "n": N_SAMPLES,
        "version": 2,
        "resolution": "16x16",
        "sha256": sha256,
        "error": 1e-3,
        "agreement": summary(measure(values, 2)[:, None]),
        **changes,
    }


def on(test: dict[str, Any], model: str = "fno", seed: int = 0, **changes: Any) -> RunRecord:
    """A record of a run on some test data."""
    made = record(model, seed, **changes)
    return replace(made, data={**made.data, "test": test})


_RNG = np.random.default_rng(0)
_VALUES = _RNG.normal(size=(N_SAMPLES, 3, 16, 16))
HERE = entry(_VALUES, "aa" * 32)
THERE = entry(_VALUES * (1 + 1e-6 * _RNG.normal(size=_VALUES.shape)), "bb" * 32)
OTHERS = entry(_RNG.normal(size=_VALUES.shape), "cc" * 32)


def bare(test: dict[str, Any]) -> dict[str, Any]:
    """As records had it before they had numbers to compare."""
    return {name: value for name, value in test.items() if name != "agreement"}


def models(folder: Path) -> set[str]:
    return {run.record.model for run in collect([folder]).runs}


@pytest.mark.slow
def test_data_made_by_other_code_of_a_library_are_the_same_data(tmp_path: Path) -> None:
    one = turbulence.solve()
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    arguments = [sys.executable, "-m", turbulence.__name__, str(tmp_path / "other.npy")]
    subprocess.run(arguments, env={**os.environ, "PYTHONPATH": paths, **OTHER_CODE}, check=True, timeout=300)
    other = np.load(tmp_path / "other.npy")
    if np.array_equal(one, other):
        pytest.skip("this processor runs the same code either way")
    error = turbulence.error()
    found = collect(
        [
            save(
                tmp_path / "board",
                on(entry(one, "aa" * 32, error=error)),
                on(entry(other, "bb" * 32, error=error), "unet"),
            )
        ]
    )
    assert found.refusals == ()
    assert len(found.runs) == 2
    # They differ by far less than is allowed.
    difference = np.sqrt(np.square(one - other).sum((2, 3)) / np.square(one).sum((2, 3))).max()
    assert difference < 1e-2 * error


def test_rows_of_both_kinds_stand_together_with_a_mark(tmp_path: Path) -> None:
    entries = [on(HERE), on(HERE, seed=1), on(THERE, "unet"), on(OTHERS, "lsm")]
    found = collect([save(tmp_path, *entries)])
    assert {run.record.model for run in found.runs} == {"fno", "unet"}
    (refusal,) = found.refusals
    assert "its test data (cccccccccccc) aren't those of most records" in refusal.reason
    assert "mode=evaluate" not in refusal.reason
    board = Board.of(found)
    (group,) = board.groups
    assert {entry.name: entry.cells["rank"] is not None for entry in group.entries} == {"fno": True, "unet": True}
    assert {entry.name: entry.cells["data_sha256"] for entry in group.entries} == {
        "fno": HERE["sha256"],
        "unet": THERE["sha256"],
    }
    html = page.render(board)
    assert html.count("made on another kind of processor") == 1
    assert f"SHA-256 {THERE['sha256']}; made on another kind of processor" in html


def test_the_data_of_most_runs_count_together_with_those_that_agree(tmp_path: Path) -> None:
    others = [on(OTHERS, "lsm", seed) for seed in range(3)]
    both = [on(test, model, seed) for test, model in ((HERE, "fno"), (THERE, "unet")) for seed in range(2)]
    assert models(save(tmp_path, *others, *both)) == {"fno", "unet"}


def test_data_that_the_board_keeps_count_however_many_runs_have_others(tmp_path: Path) -> None:
    folder = save(tmp_path / "board", on(THERE, "unet"), *(on(OTHERS, "lsm", seed) for seed in range(3)))
    assert models(folder) == {"lsm"}
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / TEST_DATA_NAME).write_text(json.dumps([HERE]))  # another folder doesn't decide
    assert {run.record.model for run in collect([folder, foreign]).runs} == {"lsm"}
    (folder / TEST_DATA_NAME).write_text(json.dumps([HERE]))
    assert models(folder) == {"unet"}


def test_an_old_record_is_known_by_its_hash(tmp_path: Path) -> None:
    old = on(bare(HERE), "fno", date_utc="2025-01-01T00:00:00+00:00"), on(bare(HERE), "fno", 1)
    new = on(THERE, "unet")
    (refusal,) = collect([save(tmp_path / "0", *old, new)]).refusals
    assert refusal.run_id == new.run_id
    # Another record, or an evaluation, of data with that hash tells what they are; or the board itself does.
    assert models(save(tmp_path / "1", *old, new, on(HERE, "lsm"))) == {"fno", "unet", "lsm"}
    again = replace(evaluation(old[0]), data={"test": HERE})
    assert models(save(tmp_path / "2", *old, new, again)) == {"fno", "unet"}
    folder = save(tmp_path / "3", *old, new)
    (folder / TEST_DATA_NAME).write_text(json.dumps([HERE]))
    assert models(folder) == {"fno", "unet"}
    committed, mine = (compare.read(folder / "records" / "lite" / f"{number}.json") for number in (0, 2))
    check(committed, mine)


def test_what_a_board_says_of_its_data_counts_more_than_what_a_record_says(tmp_path: Path) -> None:
    lying = on({**OTHERS, "sha256": HERE["sha256"]}, "liar", date_utc="2025-01-01T00:00:00+00:00")
    folder = save(tmp_path, lying, on(bare(HERE)), on(THERE, "unet"))
    (folder / TEST_DATA_NAME).write_text(json.dumps([HERE]))
    assert models(folder) >= {"fno", "unet"}


@pytest.mark.parametrize("text", ["{", "[1]", "5", '[{"file": "x"}]'])
def test_a_damaged_table_of_data_is_named_and_the_records_stand(tmp_path: Path, text: str) -> None:
    folder = save(tmp_path, on(HERE), on(THERE, "unet"))
    (folder / TEST_DATA_NAME).write_text(text)
    found = collect([folder])
    assert len(found.runs) == 2
    (refusal,) = found.refusals
    assert refusal.path.endswith(TEST_DATA_NAME)


def test_evaluations_on_another_kind_of_processor_belong_to_their_record(tmp_path: Path) -> None:
    there, others = (replace(evaluation(on(HERE)), evaluator=name) for name in ("there", "others"))
    there, others = replace(there, data={"test": THERE}), replace(others, data={"test": OTHERS})
    found = collect([save(tmp_path, on(HERE), there, others)])
    assert [one.evaluator for one in found.runs[0].evaluations] == ["there"]
    assert "aren't those of the record" in found.refusals[0].reason


def test_two_runs_are_compared_across_processors_with_a_remark(tmp_path: Path) -> None:
    folder = save(tmp_path, on(HERE), on(THERE, "unet"), on(OTHERS, "lsm", track="custom"))
    sides = {run.record.model: Side(folder, [run], np.array([run.samples["rel_l2"]])) for run in collect([folder]).runs}
    assert any("different kinds of processor" in remark for remark in check(sides["fno"], sides["unet"]))
    with pytest.raises(CompareError, match="test data"):
        check(sides["fno"], sides["lsm"])


def test_the_committed_board_says_what_its_data_are() -> None:
    board = ROOT / "leaderboard"
    known = {one["sha256"]: one for one in json.loads((board / TEST_DATA_NAME).read_text())}
    for run in collect([board]).runs:
        if run.record.config["dataset"]["path"] is not None:
            continue  # imported: files with another hash are another task
        there, here = run.record.data["test"], known[run.test_hash]
        assert {name: there[name] for name in ("file", "n", "version", "resolution")} == {
            name: here[name] for name in ("file", "n", "version", "resolution")
        }
        assert agree(here, {**here, "sha256": "made elsewhere"})
