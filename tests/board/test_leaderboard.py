"""The files of a board and the command that writes them."""

from __future__ import annotations

import csv
import importlib.util
import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.made_boards import board_of, made_board
from helpers.made_records import RECORD, evaluation, record, save, three_models

from neuralop_bench import leaderboard
from neuralop_bench.board import columns
from neuralop_bench.board.collect import collect
from neuralop_bench.board.rows import Board
from neuralop_bench.board.run import Run

FILES = ("leaderboard.csv", "runs.csv", "blanks.csv", "leaderboard.md", "index.html")
ROOT = Path(__file__).parents[2]


def test_csv_is_rfc_4180_with_empty_cells_for_what_is_missing(tmp_path: Path) -> None:
    awkward = replace(RECORD, variant='a,"b"', metrics={**RECORD.metrics, "rel_l2": 1 / 3})
    leaderboard.write(board_of(awkward), tmp_path)
    raw = (tmp_path / "leaderboard.csv").read_bytes()
    assert raw.count(b"\r\n") == 2
    assert b'"a,""b"""' in raw
    with open(tmp_path / "leaderboard.csv", newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        (row,) = reader
        assert list(reader.fieldnames or ()) == columns.names()
    assert row["rel_l2_mean"] == "0.333333"
    assert row["n_parameters"] == "12345678"
    assert (row["vrmse"], row["max_error"], row["k_eff"], row["dirty"]) == ("", "inf", "", "false")
    with open(tmp_path / "runs.csv", newline="", encoding="utf-8") as handle:
        values = {row["metric"]: row["value"] for row in csv.DictReader(handle)}
    assert values["rel_l2"] == "0.333333"
    assert values["train_seconds"] == "1.5"


def test_command_line_writes_the_board_and_explains_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RECORD.save(tmp_path / "outputs" / "lite" / "record.json")
    RECORD.save(tmp_path / "outputs" / ".superseded" / "old" / "record.json")
    arguments = [str(tmp_path / "outputs"), "-o", str(tmp_path / "board")]
    assert leaderboard.main(arguments) == 0
    assert "1 records" in capsys.readouterr().out
    first = (tmp_path / "board" / "leaderboard.csv").read_bytes()
    assert leaderboard.main(arguments) == 0
    assert (tmp_path / "board" / "leaderboard.csv").read_bytes() == first
    assert leaderboard.main([str(tmp_path / "nowhere"), "-o", str(tmp_path / "board")]) == 1
    assert "nowhere" in capsys.readouterr().err
    (tmp_path / "outputs" / "record.json").write_text("{")
    assert leaderboard.main(arguments) == 0
    assert "record.json" in capsys.readouterr().err
    assert (tmp_path / "board" / "leaderboard.csv").read_bytes() == first


@pytest.fixture(scope="module")
def committed() -> Board:
    return Board.of(collect([ROOT / "leaderboard"]))


def test_committed_records_form_the_committed_board(committed: Board, tmp_path: Path) -> None:
    assert [path.parent for path in (ROOT / "leaderboard").rglob("leaderboard.csv")] == [ROOT / "leaderboard"]
    leaderboard.write(committed, tmp_path, draws=False)
    for name in FILES[:-1]:  # other versions of matplotlib draw other pictures
        assert (tmp_path / name).read_bytes() == (ROOT / "leaderboard" / name).read_bytes(), "run `make board-pages`"


def test_the_readme_and_the_results_show_the_committed_records(committed: Board, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("write_readme_table", ROOT / "scripts" / "write_readme_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    best = min(row["rel_l2_mean"] for row in committed.rows if (row["track"], row["dataset"]) == ("lite", "ns2d"))
    assert set(script.PAGES) == {ROOT / "README.md", ROOT / "docs" / "results.md"}
    for page, content in script.PAGES.items():
        text = page.read_text(encoding="utf-8")
        assert script.filled(page, content(script.shown(committed))) == text, "run `make board-pages`"
        assert f"**{best:.3f}**" in text
    runs = [run.record for group in script.shown(committed) for entry in group.entries for run in entry.seeds.runs]
    n_runs = sum(record.environment["threads"] == 2 for record in runs)
    assert f"{n_runs} used 2 (" in (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    (tmp_path / "page.md").write_text("# A page\n")
    with pytest.raises(ValueError, match="no place"):
        script.filled(tmp_path / "page.md", "")


def test_the_files_are_the_same_to_the_byte_for_any_order_of_records(tmp_path: Path) -> None:
    records = [*three_models(["ns2d"]), record("fno", dataset="darcy2d")]
    entries = [*records, *map(evaluation, records), record("bad", status="diverged", metrics={}, samples={})]
    written = []
    for seed in range(2):
        shuffled = random.Random(seed).sample(entries, len(entries))
        leaderboard.write(made_board(tmp_path / str(seed), *shuffled), tmp_path / f"board{seed}")
        written.append({name: (tmp_path / f"board{seed}" / name).read_bytes() for name in FILES})
    assert written[0] == written[1]


def test_names_are_escaped_in_every_file(tmp_path: Path) -> None:
    evil = 'a,"b"\n<script>alert(1)</script>|=x'
    formula = "=HYPERLINK(1)"
    records = [record(evil), record(formula, error=0.03), record("_under$score", error=0.04)]
    # Files with such names are refused, so these records are in memory only.
    board = board_of(*(Run(entry, [evaluation(entry)]) for entry in records))
    shown = leaderboard.write(board, tmp_path / "out")
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
