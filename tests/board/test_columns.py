"""The table of columns: a new column is one line of it, whatever shows it."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.made_records import record, save

from neuralop_bench import leaderboard
from neuralop_bench.board import columns
from neuralop_bench.board.collect import collect
from neuralop_bench.board.columns import COLUMNS, DOWN, FAMILIES, Column, median
from neuralop_bench.board.comparison import Side, tables
from neuralop_bench.board.rows import Board
from neuralop_bench.evaluation.statistics import compare


def test_a_new_column_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = Column("energy_kwh", median(), "kWh", DOWN, "energy of training", "cost", 9)
    monkeypatch.setattr(columns, "COLUMNS", (*COLUMNS, new))
    records = [record(seed=seed) for seed in (0, 1, 2)]
    measured = [replace(one, cost={**one.cost, "energy_kwh": 1.25 * (1 + one.seed)}) for one in records]
    save(tmp_path, *measured, record("unet"))
    board = Board.of(collect([tmp_path]))
    leaderboard.write(board, tmp_path / "out")
    with open(tmp_path / "out" / "leaderboard.csv", newline="", encoding="utf-8") as handle:
        assert {row["model"]: row["energy_kwh"] for row in csv.DictReader(handle)} == {"fno": "2.5", "unet": ""}
    assert "unet,default-unetcafe,energy_kwh,not measured" in (tmp_path / "out" / "blanks.csv").read_text()
    cost = (tmp_path / "out" / "leaderboard.md").read_text(encoding="utf-8").partition("cost**")[2]
    assert "| kWh |" in cost
    assert "| 2.5 |" in cost
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert 'title="energy of training; lower is better">kWh</th>' in page
    assert '<td data-family="cost" data-sort="2.5" class="number">2.5' in page
    side = Side(tmp_path, board.runs[:3], np.ones((3, 4)))
    compared = {row[0] for table in tables(side, side, compare(side.errors, side.errors)) for row in table.rows}
    assert "energy_kwh" in compared


def test_every_column_is_named_once_and_its_views_exist() -> None:
    names = [column.name for column in COLUMNS]
    assert len(set(names)) == len(names)
    for column in COLUMNS:
        assert (column.family in FAMILIES) == bool(column.label) == bool(column.about), column.name
        assert not column.of or column.of in names
        assert (column.source is None) == (column.name == "rank" or bool(column.of)), column.name
    for family in FAMILIES:
        places = [column.brief for column in COLUMNS if column.family == family and column.brief]
        assert len(set(places)) == len(places), family
