"""The printed tables: which rows and columns they have, and that they fit a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_boards import board_of, evaluated, made_board, small_record
from helpers.made_records import record, three_models

from neuralop_bench.board import columns
from neuralop_bench.board.tables import board_tables
from neuralop_bench.runtime.table import WIDTH, show


def test_tables_hold_every_model_and_fit_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = replace(
        small_record(model="a_model_with_a_long_name", rel_l2=0.5), variant="width=64+n_layers=9+lr=0.1-abcd1234"
    )
    diverged = replace(small_record(model="bad"), status="diverged", metrics={}, cost={}, data={})
    numbers = dict.fromkeys(columns.names(), 123456.789)
    cost = {**numbers, "speedup_is_bound": -1.0}
    full = replace(small_record(model="full"), metrics={**numbers, "rel_l2": 0.0123456}, cost=cost)
    seeds = [replace(full, seed=seed, run_id=f"full-{seed}") for seed in (1, 2)]
    tables = board_tables(board_of(long, diverged, full, *seeds))
    show(tables)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= WIDTH
    assert "…" not in printed
    kinds = [table.title.partition(": ")[2] for table in tables]
    assert [kind.split()[0] for kind in kinds] == ["error", "ratio", "spectral", "elsewhere", "cost", "beside"]
    for table in tables:
        ranked = ["full", "a_model_with_a_l..."]
        assert [row[1] for row in table.rows] == (ranked if "ratio" in table.title else [*ranked, "bad"])
    assert tables[0].rows[0][3] == "0.0123 ± 0"
    assert tables[0].rows[2][3] == "diverged"


@pytest.mark.parametrize(
    ("speedup", "bound", "words"),
    [
        (0.25, "no", "solver, 4x"),
        (0.25, "<", "solver, >4x"),
        (0.25, ">", "solver, <4x"),
        (3.0, "no", "model, 3x"),
        (3.0, ">", "model, >3x"),
        (3.0, "<", "model, <3x"),
    ],
)
def test_the_verdict_says_who_is_faster(speedup: float, bound: str, words: str) -> None:
    cost = {"speedup_at_equal_error": speedup, "speedup_is_bound": {"<": -1.0, "no": 0.0, ">": 1.0}[bound]}
    (table,) = [table for table in board_tables(board_of(evaluated(cost=cost))) if "solver" in table.title]
    assert table.rows[0][-1] == words


def test_an_error_close_to_that_of_the_data_is_marked() -> None:
    data = {"test": {"sha256": "aa", "error": 0.1}}
    (table,) = [table for table in board_tables(board_of(evaluated(data=data))) if "solver" in table.title]
    assert table.rows[0][3] == "2 (!)"


def test_single_seeds_are_marked(tmp_path: Path) -> None:
    tables = board_tables(made_board(tmp_path, *three_models(["ns2d"]), record("single", error=0.08)))
    rows = {row[1]: row for row in tables[0].rows}
    assert rows["single"][4].endswith("†")
    assert "†" not in rows["fno"][4]
    assert "one seed" in tables[0].title


def test_who_beats_whom(tmp_path: Path) -> None:
    (table,) = [
        table for table in board_tables(made_board(tmp_path, *three_models(["ns2d"]))) if "ratio" in table.title
    ]
    assert list(table.header) == ["rank", "model", "fno", "lsm", "unet"]
    (fno, lsm, unet) = table.rows
    assert fno[2:] == ("", fno[3], fno[4])
    assert float(fno[3].rstrip("*")) == pytest.approx(0.5, rel=0.2)
    assert fno[3].endswith("*")
    assert float(lsm[2].rstrip("*")) == pytest.approx(1 / float(fno[3].rstrip("*")), rel=0.01)
    assert not unet[3].endswith("*")
