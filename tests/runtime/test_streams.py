"""Printing to streams that are closed ends nothing, and reaches no file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
from neuralop_bench.config.messages import report_errors
with report_errors():
    with open("file", "w") as file:
        for _ in range(3):
            print("progress", file=sys.stderr, flush=True)
        print("result", flush=True)
        assert file.fileno() > 2
        for descriptor in closed:
            os.write(descriptor, b"from a library")
    raise ValueError("the end")
"""


@pytest.mark.parametrize("closed", [[2], [1], [0, 1, 2]], ids=str)
def test_a_closed_stream_ends_nothing(closed: list[int], tmp_path: Path) -> None:
    shell = " ".join(f"{descriptor}>&-" for descriptor in closed)
    command = f"exec \"{sys.executable}\" -c 'closed = {closed}\n{PROGRAM}' {shell}".replace("\\n", "\n")
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert (tmp_path / "file").read_text() == ""
    assert done.stdout == ("" if 1 in closed else "result\n")
    assert ("Error: the end" in done.stderr) == (2 not in closed)
    assert "Traceback" not in done.stderr


def test_a_stderr_without_reader_ends_nothing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-c", f"closed = [2]\n{PROGRAM}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=writer,
        text=True,
    )
    os.close(writer)
    assert done.returncode == 1
    assert done.stdout == "result\n"
