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
from pages import DOCS, ROOT, Block, Session, blocks

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
    assert (row["track"], row["dataset"], row["status"], row["seeds"]) == ("smoke", "ns2d", "finished", "0;1")
    assert 0.01 < float(row["rel_l2_mean"]) < 1
    assert float(row["rel_l2_sd"]) > 0
    assert {row["rank"] for row in rows} == {"1", "2", "3"}


def test_the_commands_showed_what_the_page_says(reader: Session) -> None:
    printed = "\n".join(reader.printed)
    for text in ("record.json", "relative L2 (mean)", "This run is done", "| convnet |", "skipped"):
        assert text in printed, text


def test_a_dry_run_left_nothing(clone: Path) -> None:
    assert not (clone / "outputs" / "lite").exists()
    assert len(list((clone / "data").iterdir())) == 1
