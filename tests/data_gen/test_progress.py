"""Progress on a terminal and in a log file, whatever the terminal can show."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from data_gen import progress

ROOT = Path(__file__).parents[2]


class _Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _train(clock: _Clock, *, n_epochs: int, n_steps: int, step_seconds: float) -> None:
    with progress.track("Training", n_epochs * n_steps, "steps") as bar:
        for epoch in range(1, n_epochs + 1):
            for _ in range(n_steps):
                clock.now += step_seconds
                bar.advance(1, f"epoch {epoch}, step", milestone=False)
            bar.advance(0, f"epoch {epoch}, loss 0.5, valid 0.25")


def test_a_log_has_one_line_per_epoch(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _train(clock, n_epochs=3, n_steps=10, step_seconds=2.0)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "Training: 10/30 steps, 0.5/s, 40 s left, epoch 1, loss 0.5, valid 0.25",
        "Training: 20/30 steps, 0.5/s, 20 s left, epoch 2, loss 0.5, valid 0.25",
        "Training: 30/30 steps, 0.5/s, 0 s left, epoch 3, loss 0.5, valid 0.25",
    ]


def test_short_epochs_share_a_line_per_ten_seconds(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _train(clock, n_epochs=100, n_steps=4, step_seconds=0.125)  # 50 s in all
    epochs = re.findall(r"epoch (\d+), loss", capsys.readouterr().err)
    assert epochs == ["20", "40", "60", "80", "100"]


def test_a_log_always_has_the_last_line(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _train(clock, n_epochs=2, n_steps=4, step_seconds=0.01)
    assert len(re.findall("epoch 2, loss", capsys.readouterr().err)) == 1


def test_long_epochs_give_a_sign_of_life_every_minute(clock: _Clock, capsys: pytest.CaptureFixture[str]) -> None:
    _train(clock, n_epochs=1, n_steps=150, step_seconds=1.0)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines] == ["60/150", "120/150", "150/150"]
    assert [line.endswith("step") for line in lines] == [True, True, False]
    assert "1 min 30 s left" in lines[0]


def test_what_was_done_before_counts_as_done_but_not_as_speed(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress.track("Generating ns2d", 100, "samples", done=60) as bar:
        clock.now += 10
        bar.advance(20)
    assert capsys.readouterr().err == "Generating ns2d: 80/100 samples, 2/s, 10 s left\n"


# Streams of all kinds, each in a process of its own ------------------------------------------------------------------

_WORK = """
from data_gen.progress import track
with track("Lösung", 4, "steps") as bar:
    for i in range(4):
        bar.advance(1, "ν = 1 ± 0, loss 0.123456789", milestone=False)
    bar.advance(0, "ν = 1 ± 0, loss 0.123456789")
print("done")
"""
_TABLE = """
from neuralop_bench.runtime.table import Table, show
show([Table("Fehler ±", ("größe", "value"), [("ν " * 60, "1")])])
"""


def _environment(**more: str) -> dict[str, str]:
    unset = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM", "PYTHONIOENCODING")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def _on_terminal(width: int, **environment: str) -> str:
    """What a process prints on a terminal of a width, as bytes decode."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-c", _WORK], stdout=theirs, stderr=theirs, stdin=theirs, env=_environment(**environment)
    )
    os.close(theirs)
    printed = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the terminal's other end is closed
            break
        if not block:
            break
        printed += block
    os.close(ours)
    assert process.wait(timeout=60) == 0, printed.decode(errors="replace")
    return printed.decode()


def _lines(printed: str) -> list[str]:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed)
    return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]


@pytest.mark.parametrize(
    ("width", "environment"),
    [
        (140, {"TERM": "xterm-256color"}),
        (40, {"TERM": "xterm"}),
        (140, {"TERM": "xterm", "NO_COLOR": "1"}),
        (140, {"TERM": "xterm", "PYTHONIOENCODING": "ascii"}),
        (40, {"TERM": "xterm", "PYTHONIOENCODING": "ascii:strict"}),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "-".join(value.values()),
)
def test_a_terminal_has_a_bar_that_fits(width: int, environment: dict[str, str]) -> None:
    printed = _on_terminal(width, **environment)
    lines = _lines(printed)
    assert lines[-1] == "done"
    bars = [line for line in lines if "/4 steps" in line]
    assert bars, printed
    assert max(map(len, bars)) <= width, "a line that wraps can't be redrawn"
    assert "\x1b[2K" in printed, "the line is redrawn"
    if "PYTHONIOENCODING" in environment:
        assert printed.isascii()
        assert "L?sung: 4/4 steps" in printed
    else:
        assert "Lösung: 4/4 steps" in printed
    if width == 140:
        assert ("loss 0.123456789") in bars[-1]
        assert ("----" if "PYTHONIOENCODING" in environment else "━━━━") in bars[-1]
    if "NO_COLOR" in environment:
        assert not re.search(r"\x1b\[([0-9]+;)*[349][0-9](;[0-9]+)*m", printed)


def test_a_terminal_that_cannot_redraw_gets_lines() -> None:
    printed = _on_terminal(120, TERM="dumb")
    assert "\x1b" not in printed
    assert len([line for line in _lines(printed) if "/4 steps" in line]) == 1


@pytest.mark.parametrize(
    "environment",
    [{}, {"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1:strict"}, {"FORCE_COLOR": "1"}, {"LC_ALL": "C"}],
    ids=lambda value: "-".join(value.values()) or "plain",
)
def test_a_file_gets_plain_lines(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WORK],
        env=_environment(**environment),
        capture_output=True,
        check=True,
        timeout=60,
    )
    encoding = environment.get("PYTHONIOENCODING", "utf-8").split(":")[0]
    err, out = done.stderr.decode(encoding), done.stdout.decode(encoding)
    (line,) = err.splitlines()
    assert line.startswith("L?sung: 4/4 steps" if encoding == "ascii" else "Lösung: 4/4 steps")
    assert line.endswith("loss 0.123456789")
    assert "\x1b" not in err
    assert out == "done\n"


@pytest.mark.parametrize("encoding", ["ascii:strict", "utf-8"])
def test_a_table_is_written_in_any_encoding(encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _TABLE],
        env=_environment(PYTHONIOENCODING=encoding, FORCE_COLOR="1"),
        capture_output=True,
        check=True,
        timeout=60,
    )
    title, *lines = done.stdout.decode().splitlines()
    assert title.strip() == ("Fehler ?" if encoding.startswith("ascii") else "Fehler ±")
    assert "\x1b" not in done.stdout.decode()
    assert len(lines) == 5, "a log is as wide as the table"
    assert len(set(map(len, lines))) == 1
