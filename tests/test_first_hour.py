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
    pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="not a git checkout"),
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A reader who has done all that the page says."""
    session = Session(tmp_path_factory.mktemp("first_hour"))
    first, *others = blocks(PAGE)
    lines = first.text.splitlines()
    assert lines[0] == "git clone REPOSITORY neuralop-bench"
    assert lines[2] == "make install"
    lines[0] = lines[0].replace("REPOSITORY", str(ROOT))
    lines[2] = f'ln -s "{sys.prefix}" .venv\nexport PYTHONPATH="$PWD"'
    session.follow([Block("bash", "\n".join(lines), ""), *others])
    return session


@pytest.fixture(scope="module")
def clone(reader: Session) -> Path:
    return reader.folder / "neuralop-bench"


def test_it_is_the_clone_that_was_run(reader: Session, clone: Path) -> None:
    assert reader.packages() == {clone}
    assert reader.here == clone


def test_the_own_model_is_on_the_board(clone: Path) -> None:
    with open(clone / "outputs" / "leaderboard" / "leaderboard.csv", newline="") as handle:
        rows = list(csv.DictReader(handle))
    found = {(row["model"], row["variant"].rpartition("-")[0]): row for row in rows}
    assert set(found) == {("fno", "default"), ("convnet", "default"), ("convnet", "width=16")}
    row = found["convnet", "default"]
    assert (row["track"], row["dataset"], row["status"], row["seeds"]) == ("smoke", "ns2d", "self", "0;1")
    assert 0.01 < float(row["rel_l2_mean"]) < 1
    assert float(row["rel_l2_sd"]) > 0
    assert min(int(row["rank"]) for row in rows) == 1


def test_the_commands_showed_what_the_page_says(reader: Session) -> None:
    printed = "\n".join(reader.printed)
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


def test_the_own_model_predicted_the_own_file(reader: Session, clone: Path) -> None:
    with xr.open_dataset(clone / "outputs" / "predicted.hdf5", engine="h5netcdf") as predicted:
        assert dict(predicted.sizes) == {"sample": 1, "time": 10, "x": 32, "y": 32}
        error = predicted["relative_l2"].item()
    assert 0.01 < error < 2
    # The blocks in Python print the same error as the last word of their line.
    from_python = next(
        line for line in "\n".join(reader.printed).splitlines() if "torch.Size([1, 10, 1, 32, 32])" in line
    )
    assert float(from_python.split()[-1]) == pytest.approx(error, rel=1e-4)


def test_a_dry_run_left_nothing(clone: Path) -> None:
    assert not (clone / "outputs" / "lite").exists()
    assert len(list((clone / "data").iterdir())) == 1
