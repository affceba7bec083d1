"""Rows: seeds combined, ranks by significance, a reason for every empty cell."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_boards import board_of, evaluated, made_board, small_record
from helpers.made_records import EVALUATION, evaluation, record, save, three_models

from neuralop_bench.board import columns, pictures
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board, Entry, run_rows
from neuralop_bench.board.run import Run
from neuralop_bench.evaluation.statistics import crossed_interval
from neuralop_bench.records.record import Evaluation, RunRecord, Verification


def only(folder: Path, *entries: RunRecord | Evaluation) -> Entry:
    (entry,) = made_board(folder, *entries).entries
    return entry


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
    found = made_board(tmp_path, *three_models(["ns2d"]), record("single", error=0.08))
    assert {row["model"]: row["rank"] for row in found.rows} == {"fno": 1, "lsm": 2, "unet": 2, "single": 4}
    assert [row["model"] for row in found.rows] == ["fno", "lsm", "unet", "single"], "by error"


def test_a_row_with_a_seed_that_diverged_has_no_rank(tmp_path: Path) -> None:
    diverged = record("fno", 2, status="diverged", message="The loss became nan.", metrics={}, samples={}, profile={})
    found = made_board(
        tmp_path, record("fno", 0), record("fno", 1), diverged, *(record("unet", s, 0.05) for s in (0, 1))
    )
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
    first, last = made_board(tmp_path, *good, *bad).entries
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
    found = made_board(
        tmp_path, *records, *map(evaluation, records[:5]), record("bad", status="failed", metrics={}, cost={})
    )
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
    cells = made_board(tmp_path, *records).entries[0].cells
    assert (cells["train_seconds"], cells["latency_ms"]) == (60.0, 5.0)
    records[2] = replace(records[2], cost={**records[2].cost, "latency_ms": None})
    (tmp_path / "less").mkdir()
    assert made_board(tmp_path / "less", *records).entries[0].cells["latency_ms"] is None, "not of some of the seeds"


def test_two_evaluations_of_one_second_have_one_curve_of_the_solver() -> None:
    curves = [[{**evaluation(record()).rungs[0], "seconds": seconds}] for seconds in (0.1, 0.2)]
    runs = [evaluated(rungs=curve, evaluator=name).evaluations[0] for curve, name in zip(curves, "ab", strict=True)]
    (group,) = board_of(Run(small_record(), runs)).groups
    assert [rung.seconds for rung in pictures.rungs_of(group)] == [0.1]


# Single cells -------------------------------------------------------------------------------------------------------


def test_seeds_are_aggregated_with_the_sample_standard_deviation() -> None:
    (row,) = board_of(small_record(0, 0.1), small_record(1, 0.2), small_record(2, 0.6)).rows
    assert row["rel_l2_mean"] == pytest.approx(0.3)
    assert row["rel_l2_sd"] == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert (row["n_seeds"], row["seeds"], row["rank"]) == (3, "0;1;2", 1)


def test_custom_runs_are_shown_and_never_ranked() -> None:
    table = board_of(small_record(track="custom", rel_l2=0.01), small_record()).rows
    assert {row["track"]: row["rank"] for row in table} == {"custom": None, "lite": 1}


def test_diverged_runs_are_shown_without_numbers() -> None:
    diverged = replace(small_record(model="bad"), status="diverged", metrics={}, data={})
    table = board_of(diverged, small_record()).rows
    assert [(row["model"], row["rank"], row["rel_l2_mean"], row["status"]) for row in table] == [
        ("fno", 1, 0.2, "self"),
        ("bad", None, None, "diverged"),
    ]


def test_a_metric_that_only_one_model_has_leaves_an_empty_cell() -> None:
    more = small_record(0, 0.1, model="other", metric_versions={"rel_l2": 1, "vrmse": 3})
    more = replace(more, metrics={**more.metrics, "vrmse": 0.5})
    first, second = board_of(small_record(0), more).rows
    assert (first["model"], first["vrmse"]) == ("other", 0.5)
    assert second["vrmse"] is None
    (row,) = board_of(more, replace(small_record(1, model="other"), variant=more.variant)).rows
    assert row["vrmse"] is None, "a mean over some of the seeds would pass for one over all"


def test_an_evaluation_fills_what_its_record_lacks() -> None:
    (row,) = board_of(evaluated()).rows
    assert (row["transfer_half"], row["speedup_at_equal_error"], row["speedup_is_bound"]) == (0.25, 0.4, "<")
    assert (row["breakeven_solves"], row["data_error"], row["vrmse"]) == (math.inf, 0.01, 0.7)
    assert row["rel_l2_median"] == 0.1, "what the record has measured stands"
    assert row["metric_version"] == "rel_l2/v1;vrmse/v2"


def test_a_column_that_some_seeds_lack_is_empty() -> None:
    (row,) = board_of(evaluated(0), Run(small_record(1))).rows
    assert (row["n_seeds"], row["rel_l2_mean"], row["transfer_half"]) == (2, 0.2, None)
    other = evaluated(1, metrics={**EVALUATION.metrics, "transfer_half": 0.35})
    (row,) = board_of(evaluated(0), other).rows
    assert row["transfer_half"] == pytest.approx(0.3)


@pytest.mark.parametrize(("signs", "shown"), [((0.0, 0.0), "no"), ((1.0, 0.0), ">"), ((-1.0, 1.0), "mixed")])
def test_bounds_of_several_seeds(signs: tuple[float, float], shown: str) -> None:
    runs = [evaluated(s, cost={**EVALUATION.cost, "speedup_is_bound": sign}) for s, sign in enumerate(signs)]
    (row,) = board_of(*runs).rows
    assert row["speedup_is_bound"] == shown


def test_further_test_sets_have_rows_of_their_own() -> None:
    table = {(row["setting"], row["metric"]): row for row in run_rows([evaluated()])}
    assert table["test", "transfer_half"]["value"] == 0.25
    assert table["test_half", "rel_l2"]["value"] == 0.25
    assert table["test_half", "rel_l2"]["data_sha256"] == "bb"
    assert table["test", "rel_l2"]["data_sha256"] == "aa"


def test_evaluations_are_found_beside_runs_and_in_a_committed_board(tmp_path: Path) -> None:
    run, committed = tmp_path / "outputs" / "lite" / "seed=0", tmp_path / "board"
    small_record(0).save(run / "record.json")
    EVALUATION.save(run / "evaluations" / "thorough.json")
    small_record(1).save(committed / "records" / "lite" / "one.json")
    replace(EVALUATION, run_id="fno-s1").save(committed / "evaluations" / "lite" / "one.json")
    found = collect([tmp_path / "outputs", committed]).runs
    assert sorted(run.record.seed for run in found) == [0, 1]
    assert all(len(run.evaluations) == 1 for run in found)
