"""docs/first_hour.md, followed literally in a fresh clone.

Everything committed is under test, nothing else: the clone doesn't see uncommitted changes. One command is replaced:
``make install`` takes over a minute in a fresh clone, and what it would make is the environment that this test runs in.
``.venv`` is a link to that one instead, and PYTHONPATH puts the clone's packages first, which is checked.
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import pytest
import xarray as xr
from helpers.pages import DOCS, ROOT, Block, Session, blocks

PAGE = DOCS / "first_hour.md"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.exhaustive,
    pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git checkout"),
]


def test_a_reader_who_does_what_the_page_says_gets_what_it_says(tmp_path: Path) -> None:
    # One test: spread over two processes, several would each have the page followed again.
    reader = Session(tmp_path)
    first, *others = blocks(PAGE)
    lines = first.text.splitlines()
    assert lines[0] == "git clone REPOSITORY neuralop-bench"
    assert lines[2] == "make install"
    lines[0] = lines[0].replace("REPOSITORY", str(ROOT))
    lines[2] = f'ln -s "{sys.prefix}" .venv\nexport PYTHONPATH="$PWD"'
    reader.follow([Block("bash", "\n".join(lines), ""), *others])
    clone = tmp_path / "neuralop-bench"
    assert reader.packages() == {clone}
    assert reader.here == clone
    printed = "\n".join(reader.printed)
    _assert_printed_what_the_page_says(printed)
    _assert_own_model_is_on_the_board(clone / "outputs" / "leaderboard" / "leaderboard.csv")
    _assert_own_model_predicted_own_file(clone / "outputs" / "predicted.hdf5", printed)
    # A dry run leaves nothing.
    assert not (clone / "outputs" / "lite").exists()
    assert len(list((clone / "data").iterdir())) == 1


def _assert_printed_what_the_page_says(printed: str) -> None:
    for text in (
        "record.json",
        "relative L2 (mean)",
        "This run is done",
        "1 skipped",
        "3 runs: 3 finished",
        "| convnet |",
        "Relative L2 against the frames that follow",
        "that was meant to fail",
    ):
        assert text in printed, text


def _assert_own_model_is_on_the_board(board: Path) -> None:
    with open(board, newline="") as handle:
        rows = list(csv.DictReader(handle))
    found = {(row["model"], row["variant"].rpartition("-")[0]): row for row in rows}
    assert set(found) == {("fno", "default"), ("convnet", "default"), ("convnet", "width=16")}
    row = found["convnet", "default"]
    assert (row["track"], row["dataset"], row["status"], row["seeds"]) == ("smoke", "ns2d", "self", "0;1")
    assert 0.01 < float(row["rel_l2_mean"]) < 1
    assert float(row["rel_l2_sd"]) > 0
    assert min(int(row["rank"]) for row in rows) == 1


def _assert_own_model_predicted_own_file(prediction: Path, printed: str) -> None:
    with xr.open_dataset(prediction, engine="h5netcdf") as predicted:
        assert dict(predicted.sizes) == {"sample": 1, "time": 10, "x": 32, "y": 32}
        error = predicted["relative_l2"].item()
    assert 0.01 < error < 2
    # The blocks in Python print the same error as the last word of their line.
    from_python = next(line for line in printed.splitlines() if "torch.Size([1, 10, 1, 32, 32])" in line)
    assert float(from_python.split()[-1]) == pytest.approx(error, rel=1e-4)
