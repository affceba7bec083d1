"""The program in this process: without the seconds that a process of its own takes to import everything."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hydra.core.global_hydra import GlobalHydra

from neuralop_bench import __main__ as program


@dataclass(frozen=True)
class Told:
    """What a command line came to."""

    status: int
    out: str
    err: str

    @property
    def states(self) -> dict[str, str]:
        """State of each job in the table of a sweep."""
        return table(self.out)


def told(*arguments: str) -> Told:
    """``python run.py`` with these arguments; flags come first."""
    out, err = io.StringIO(), io.StringIO()
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch, _logging_kept():
        patch.setattr(sys, "argv", ["run.py", *arguments])
        patch.setenv("HYDRA_FULL_ERROR", "0")  # the program sets it
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                program.main()
                status = 0
            except SystemExit as stop:
                status = stop.code if isinstance(stop.code, int) else -1
    return Told(status, out.getvalue(), err.getvalue())


def table(text: str) -> dict[str, str]:
    """State of each job in the table of a sweep, whose long names are folded."""
    states: dict[str, str] = {}
    for line in text.partition("| job")[2].splitlines():
        job, state = (cell.strip() for cell in line.split("|")[1:3]) if line.startswith("| ") else ("", "")
        if state:
            states[job] = state
        elif job:
            name, state = states.popitem()
            states[f"{name} {job}"] = state
    return states


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
