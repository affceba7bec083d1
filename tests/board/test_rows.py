"""Rows: seeds aggregated, ranks by significance, a reason for every empty cell, the same file for any order."""

from __future__ import annotations

import csv
import io
import math
import random
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_records import evaluation, record, save, three_models

from neuralop_bench import leaderboard
from neuralop_bench.board import columns
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board, Entry
from neuralop_bench.board.tables import board_tables
from neuralop_bench.board.verdicts import verdicts
from neuralop_bench.evaluation.statistics import crossed_interval
from neuralop_bench.records.record import Evaluation, RunRecord, Verification

FILES = ("leaderboard.csv", "runs.csv", "blanks.csv", "leaderboard.md", "index.html")


def made(folder: Path, *entries: RunRecord | Evaluation) -> Board:
    return Board.of(collect([save(folder, *entries)]))


def only(folder: Path, *entries: RunRecord | Evaluation) -> Entry:
    (entry,) = made(folder, *entries).entries
    return entry


def test_the_files_are_the_same_to_the_byte_for_any_order_of_records(tmp_path: Path) -> None:
    records = three_models()
    entries = [*records, *map(evaluation, records), record("bad", status="diverged", metrics={}, samples={})]
    written = []
    for seed in range(3):
        shuffled = random.Random(seed).sample(entries, len(entries))
        leaderboard.write(made(tmp_path / str(seed), *shuffled), tmp_path / f"board{seed}")
        written.append({name: (tmp_path / f"board{seed}" / name).read_bytes() for name in FILES})
    assert written[0] == written[1] == written[2]


def test_interval_and_spread_are_those_of_the_records(tmp_path: Path) -> None:
    entry = only(tmp_path, *(record(seed=seed) for seed in (0, 1, 2)))
    assert entry.seeds.errors is not None
    expected = crossed_interval(entry.seeds.errors)
    assert expected is not None
    cells = entry.cells
    assert (cells["rel_l2_ci_lo"], cells["rel_l2_ci_hi"]) == (expected.low, expected.high)
    assert expected.low < cells["rel_l2_mean"] < expected.high
    assert cells["rel_l2_mean"] == pytest.approx(entry.seeds.errors.mean(), rel=1e-12)
    assert cells["rel_l2_sd"] == pytest.approx(entry.seeds.errors.mean(axis=1).std(ddof=1), rel=1e-12)


def test_ranks_are_one_and_the_number_that_is_significantly_better(tmp_path: Path) -> None:
    found = made(tmp_path, *three_models(["ns2d"]), record("single", error=0.08))
    assert {row["model"]: row["rank"] for row in found.rows} == {"fno": 1, "lsm": 2, "unet": 2, "single": 4}
    assert [row["model"] for row in found.rows] == ["fno", "lsm", "unet", "single"], "by error"


def test_single_seeds_are_marked(tmp_path: Path) -> None:
    tables = board_tables(made(tmp_path, *three_models(["ns2d"]), record("single", error=0.08)))
    rows = {row[1]: row for row in tables[0].rows}
    assert rows["single"][4].endswith("†")
    assert "†" not in rows["fno"][4]
    assert "one seed" in tables[0].title


def test_who_beats_whom(tmp_path: Path) -> None:
    (table,) = [table for table in board_tables(made(tmp_path, *three_models(["ns2d"]))) if "ratio" in table.title]
    assert list(table.header) == ["rank", "model", "fno", "lsm", "unet"]
    (fno, lsm, unet) = table.rows
    assert fno[2:] == ("", fno[3], fno[4])
    assert float(fno[3].rstrip("*")) == pytest.approx(0.5, rel=0.2)
    assert fno[3].endswith("*")
    assert float(lsm[2].rstrip("*")) == pytest.approx(1 / float(fno[3].rstrip("*")), rel=0.01)
    assert not unet[3].endswith("*")


def test_a_row_with_a_seed_that_diverged_has_no_rank(tmp_path: Path) -> None:
    diverged = record("fno", 2, status="diverged", message="The loss became nan.", metrics={}, samples={}, profile={})
    found = made(tmp_path, record("fno", 0), record("fno", 1), diverged, *(record("unet", s, 0.05) for s in (0, 1)))
    (fno, unet) = found.entries
    assert (fno.cells["rank"], fno.cells["n_seeds"], fno.cells["status"]) == (None, 2, "diverged;self")
    assert "seed 2 diverged" in fno.blanks["rank"]
    assert unet.cells["rank"] == 1


def test_a_run_that_failed_altogether_says_why_everywhere(tmp_path: Path) -> None:
    entry = only(tmp_path, record(status="diverged", message="The loss became nan.", metrics={}, cost={}, samples={}))
    assert entry.cells["rel_l2_mean"] is None
    assert "The loss became nan." in entry.blanks["rel_l2_mean"]


def test_predictions_that_diverged_come_last(tmp_path: Path) -> None:
    good, bad = [record("good", s) for s in (0, 1)], [record("bad", s) for s in (0, 1)]
    bad = [
        replace(
            one, metrics={**one.metrics, "rel_l2": math.inf}, samples={"rel_l2": [math.inf, *one.samples["rel_l2"][1:]]}
        )
        for one in bad
    ]
    first, last = made(tmp_path, *good, *bad).entries
    assert (first.cells["rank"], last.cells["rank"], last.cells["rel_l2_mean"]) == (1, 2, math.inf)
    assert "infinite" in last.blanks["rel_l2_ci_lo"]


def test_records_of_an_older_format_are_shown_and_say_what_is_missing(tmp_path: Path) -> None:
    entry = only(tmp_path / "old", record(samples={}, profile={}))
    assert (entry.cells["rank"], entry.cells["rel_l2_ci_lo"]) == (None, None)
    assert "evaluator=thorough" in entry.blanks["rank"]
    again = evaluation(record(), samples=record().samples)
    entry = only(tmp_path / "evaluated", record(samples={}, profile={}), again)
    assert entry.cells["rank"] == 1


def test_every_column_is_filled_or_has_a_reason(tmp_path: Path) -> None:
    records = three_models()
    found = made(tmp_path, *records, *map(evaluation, records[:5]), record("bad", status="failed", metrics={}, cost={}))
    for entry in found.entries:
        assert list(entry.cells) == columns.names()
        empty = {name for name, value in entry.cells.items() if value is None}
        assert empty == entry.blanks.keys()
        assert all(entry.blanks.values())


def test_reasons_come_from_where_they_are_known(tmp_path: Path) -> None:
    records = [record(seed=seed) for seed in (0, 1)]
    entry = only(tmp_path / "thorough", *records, *map(evaluation, records))
    assert entry.blanks["transfer_half"] == "the model isn't resolution_free"
    assert entry.blanks["correlation_time_0.8"] == "the dataset has no test_long"
    assert "below_rounding" in entry.blanks["spec_high"]
    assert entry.cells["transfer_double"] == pytest.approx(1.1 * entry.cells["rel_l2_mean"])
    entry = only(tmp_path / "one", *records, evaluation(records[0]))
    assert entry.blanks["transfer_double"] == "seed 1: measured by evaluator=thorough, which hasn't been run"
    assert only(tmp_path / "single", records[0]).blanks["rel_l2_sd"] == "one seed"


def test_names_are_escaped_in_every_file(tmp_path: Path) -> None:
    evil = 'a,"b"\n<script>alert(1)</script>|=x'
    formula = "=HYPERLINK(1)"
    records = [record(evil), record(formula, error=0.03), record("_under$score", error=0.04)]
    shown = leaderboard.write(made(tmp_path / "in", *records, *map(evaluation, records)), tmp_path / "out")
    raw = (tmp_path / "out" / "leaderboard.csv").read_bytes().decode("utf-8")
    names = [row["model"] for row in csv.DictReader(io.StringIO(raw, newline=""))]
    assert names == [evil, f"'{formula}", "_under$score"], "a spreadsheet takes what begins with = for a formula"
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert page.count("<script>") == 1
    for table in shown:
        lines = table.to_markdown().splitlines()[2:]
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1, "one line and as many cells per row"
        assert not any("<script" in line for line in lines)


def _verification(of: RunRecord, **changes: object) -> Verification:
    verification = Verification(
        run_id=of.run_id,
        fingerprint=of.fingerprint,
        confirmed=True,
        tolerance=1e-6,
        difference=0.0,
        column="rel_l2",
        environment={"device": "cpu"},
        bench_version="0.1.0",
        commit="c0ffee",
        dirty=False,
        date_utc="2026-01-03T00:00:00+00:00",
    )
    return replace(verification, **changes)


def test_the_status_is_that_of_the_least_trusted_seed(tmp_path: Path) -> None:
    records = [record(seed=seed) for seed in (0, 1)]
    folder = save(tmp_path, *records)
    place = folder / "verifications" / "lite"
    _verification(records[0]).save(place / "0.json")
    assert Board.of(collect([folder])).entries[0].cells["status"] == "self"
    _verification(records[1], tolerance=1e-3).save(place / "1.json")
    assert Board.of(collect([folder])).entries[0].cells["status"] == "reproduced"
    _verification(records[1]).save(place / "2.json")
    assert Board.of(collect([folder])).entries[0].cells["status"] == "verified"
    _verification(records[0], confirmed=False, difference=math.inf).save(place / "3.json")
    assert Board.of(collect([folder])).entries[0].cells["status"] == "disputed"
    other = _verification(replace(records[0], commit="other"))
    assert other.fingerprint != records[0].fingerprint


def test_one_seed_that_was_slowed_down_leaves_the_times_of_a_row_as_they_are(tmp_path: Path) -> None:
    records = [record(seed=seed) for seed in (0, 1, 2)]
    records[1] = replace(records[1], cost={**records[1].cost, "train_seconds": 6000.0, "latency_ms": 500.0})
    cells = made(tmp_path, *records).entries[0].cells
    assert (cells["train_seconds"], cells["latency_ms"]) == (60.0, 5.0)
    records[2] = replace(records[2], cost={**records[2].cost, "latency_ms": None})
    (tmp_path / "less").mkdir()
    assert made(tmp_path / "less", *records).entries[0].cells["latency_ms"] is None, "not of some of the seeds"


def test_verdicts_are_in_plain_words(tmp_path: Path) -> None:
    records = three_models(["ns2d"])
    (group,) = made(tmp_path, *records, *map(evaluation, records)).groups
    words = " ".join(verdicts(group))
    assert "fno is the most accurate" in words
    assert "significantly better than all 2 others" in words
    assert "the dataset's own solver on a coarser grid is faster than fno, lsm and unet (2 times)" in words


def test_a_solver_that_loses_is_said_to(tmp_path: Path) -> None:
    fast = {"speedup_at_equal_error": 3.0, "speedup_is_bound": 0.0, "breakeven_solves": 17345678.0}
    beyond = {"speedup_at_equal_error": 9.0, "speedup_is_bound": -1.0, "breakeven_solves": 5.0}
    records = [record("fno"), record("rough", error=0.5)]
    evaluations = [evaluation(one, cost=cost) for one, cost in zip(records, (fast, beyond), strict=True)]
    (group,) = made(tmp_path, *records, *evaluations).groups
    words = " ".join(verdicts(group))
    assert "3 times) is faster than the dataset's own solver" in words
    assert "pay for themselves after 17 million predictions" in words
    assert "rough is less accurate than the solver on its coarsest grid, so there is no comparison" in words


def test_verdicts_tell_what_happens_on_shifted_inputs_and_far_ahead(tmp_path: Path) -> None:
    elsewhere = {"fno": (4.0, 0.0), "lsm": (1.5, 1.0), "unet": (3.0, 1.0), "rough": (1.0, 1.0)}
    records = [record("fno"), record("lsm", error=0.04), record("unet", error=0.04), record("rough", error=0.9)]
    evaluations = []
    for one in records:
        factor, stable = elsewhere[one.model]
        metrics = {**one.metrics, "ood_factor": factor, "stable_fraction": stable}
        evaluations.append(evaluation(one, metrics=metrics))
    (group,) = made(tmp_path, *records, *evaluations).groups
    words = " ".join(verdicts(group))
    assert "4 times as large; lsm has the lowest error there" in words, "not of the one that grows least"
    assert "none of its trajectories stays bounded" in words
    bounded = words[words.index("none of its") :]
    assert "lsm and unet do" in bounded or "unet and lsm do" in bounded
    assert "rough" not in bounded, "a model that hardly follows the truth is no example"


def test_verdicts_of_a_best_that_stays_best_elsewhere(tmp_path: Path) -> None:
    records = three_models(["ns2d"])
    (group,) = made(tmp_path, *records, *map(evaluation, records)).groups
    words = " ".join(verdicts(group))
    assert "2 times as large; no other model has a lower one." in words
    assert "Over four times the horizon, all its trajectories stay bounded." in words


def test_an_empty_folder_is_an_error_that_says_where_records_lie(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert leaderboard.main([str(tmp_path / "empty"), "-o", str(tmp_path / "board")]) == 1
    message = capsys.readouterr().err
    assert "no record to show" in message
    assert "record.json" in message
    assert not (tmp_path / "board").exists()


def test_the_command_tells_what_it_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(tmp_path / "in", record(), record("bad", config={}))
    assert leaderboard.main([str(folder), "-o", str(tmp_path / "board")]) == 0
    captured = capsys.readouterr()
    assert "1 files left out" in captured.out
    assert "Warning: the leaderboard lacks" in captured.err
    assert "no provenance" in captured.err
    assert "no provenance" in (tmp_path / "board" / "index.html").read_text(encoding="utf-8")
