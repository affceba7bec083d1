"""A finished run stays finished, whatever becomes of the board."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from helpers.made_records import record

from neuralop_bench import leaderboard
from neuralop_bench.runs import finished, sweep


@pytest.mark.parametrize(
    "rebuild", [lambda outputs: finished.rebuild_board(outputs, False), sweep._rebuild_board], ids=["run", "sweep"]
)
def test_a_board_that_cannot_be_made_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rebuild: Callable[[Path], str]
) -> None:
    def fail(_: object) -> NoReturn:
        raise ZeroDivisionError("made up\x1b[2J")

    record().save(tmp_path / "lite" / "record.json")
    monkeypatch.setattr(leaderboard, "collect", fail)
    rebuild(tmp_path)
    assert "the leaderboard wasn't rebuilt: made up\\x1b[2J" in capsys.readouterr().err
