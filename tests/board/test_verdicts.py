"""Verdicts: what a group shows, in sentences."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from helpers.made_boards import made_board
from helpers.made_records import evaluation, record, three_models

from neuralop_bench.board.tables import board_tables
from neuralop_bench.board.verdicts import verdicts


def test_verdicts_are_in_plain_words(tmp_path: Path) -> None:
    records = three_models(["ns2d"])
    (group,) = made_board(tmp_path, *records, *map(evaluation, records)).groups
    words = " ".join(verdicts(group))
    assert "fno has the lowest error" in words
    assert "significantly better than all 2 others" in words
    assert "the dataset's own solver on a coarser grid is faster than fno, lsm and unet (2 times)" in words


def test_a_solver_that_loses_is_said_to(tmp_path: Path) -> None:
    fast = {"speedup_at_equal_error": 3.0, "speedup_is_bound": 0.0, "breakeven_solves": 17345678.0}
    beyond = {"speedup_at_equal_error": 9.0, "speedup_is_bound": -1.0, "breakeven_solves": 5.0}
    records = [record("fno"), record("rough", error=0.5)]
    evaluations = [evaluation(one, cost=cost) for one, cost in zip(records, (fast, beyond), strict=True)]
    (group,) = made_board(tmp_path, *records, *evaluations).groups
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
    (group,) = made_board(tmp_path, *records, *evaluations).groups
    words = " ".join(verdicts(group))
    assert "4 times as large; lsm has the lowest error there" in words, "not of the one that grows least"
    assert "none of its trajectories stays bounded" in words
    bounded = words[words.index("none of its") :]
    assert "lsm and unet do" in bounded or "unet and lsm do" in bounded
    assert "rough" not in bounded, "a model that hardly follows the truth is no example"


def test_verdicts_of_a_best_that_stays_best_elsewhere(tmp_path: Path) -> None:
    records = three_models(["ns2d"])
    (group,) = made_board(tmp_path, *records, *map(evaluation, records)).groups
    words = " ".join(verdicts(group))
    assert "2 times as large; no other model has a lower one." in words
    assert "Over four times the horizon, all its trajectories stay bounded." in words


def test_references_that_vanish_are_told_beside_the_rows_and_in_words(tmp_path: Path) -> None:
    records = three_models(["ns2d"])
    fine = made_board(tmp_path / "fine", *records)
    assert "‡" not in str(board_tables(fine))
    assert "vanish" not in " ".join(verdicts(fine.groups[0]))
    dead = [replace(one, metrics={**one.metrics, "n_floored_rel_l2": 3.0}) for one in records]
    board = made_board(tmp_path / "dead", *dead)
    table = board_tables(board)[0]
    assert "some references vanish" in table.title
    assert all(row[table.header.index("relative L2")].endswith("‡") for row in table.rows)
    assert "3 references on test (sample and channel) vanish" in " ".join(verdicts(board.groups[0]))
