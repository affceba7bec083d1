"""Runs as real processes that can be killed, and the run that nobody disturbs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from neuralop_bench.records.record import RunRecord

ROOT = Path(__file__).parents[2]
Strike = tuple[str, dict[str, Any]]


@dataclass
class Run:
    """A process at work on a run."""

    folder: Path
    pid: int

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it lives."""
        path = self.folder / "status"
        return int(path.read_text()) if path.exists() else None

    @property
    def out(self) -> str:
        return (self.folder / "out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / "err").read_text()

    def send(self, signum: int, *, to_group: bool = False) -> None:
        if self.status is None:
            (os.killpg if to_group else os.kill)(self.pid, signum)

    def wait(self, seconds: float = 120) -> int:
        deadline = time.monotonic() + seconds
        while self.status is None:
            if time.monotonic() > deadline:
                os.killpg(self.pid, signal.SIGKILL)
                pytest.fail(f"no end after {seconds} s: {self.err[-2000:]}")
            time.sleep(0.003)
        assert self.status is not None
        return self.status


class Runs:
    """Starts runs of the smoke track."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "helpers" / "server.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"

    def start(self, *arguments: str, strikes: tuple[Strike, ...] = (), figures: bool = False) -> Run:
        """Start a run; without figures, which take as long as all else of it, unless it is asked for them."""
        assert self._server.stdin is not None
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        (folder / "err").touch()
        given = strikes if figures else (*strikes, ("without_figures", {}))
        job = {"arguments": arguments, "folder": str(folder), "strikes": given}
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        deadline = time.monotonic() + 30
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return Run(folder, int((folder / "pid").read_text()))

    def finish(self, *arguments: str, strikes: tuple[Strike, ...] = (), figures: bool = False) -> Run:
        """Start a run and wait for its end."""
        run = self.start(*arguments, strikes=strikes, figures=figures)
        run.wait()
        return run

    def close(self) -> None:
        with self._server:  # closes its pipes, at which it ends
            pass


@pytest.fixture(scope="session")
def runs() -> Iterator[Runs]:
    # Not below tmp_path: its base is readable for its owner alone, and by name for nobody else.
    with tempfile.TemporaryDirectory() as folder:
        started = Runs(Path(folder))
        yield started
        started.close()


@dataclass(frozen=True)
class Place:
    """Folders of their own for data and outputs, and the arguments that choose them."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    def arguments(self, *overrides: str) -> tuple[str, ...]:
        # A checkpoint after every step; trajectories of a third of the smoke track's length, since many runs are made.
        short = ("dataset.history=3", "dataset.horizon=3", "dataset.problem.n_snapshots=6", "trainer.batch_size=3")
        common = ("track=smoke", *short, "trainer.checkpoint_seconds=1e-6")
        return *common, f"paths.data={self.data}", f"paths.outputs={self.outputs}", *overrides

    @property
    def run_directory(self) -> Path:
        (found,) = {path.parent for path in self.outputs.glob("*/*/*/*/seed=*/.lock")}  # none of .superseded
        return found

    @property
    def record(self) -> RunRecord:
        return RunRecord.load(self.run_directory / "record.json")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="session")
def alone(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The run that nobody disturbs."""
    place = Place(tmp_path_factory.mktemp("alone"))
    run = runs.finish(*place.arguments())
    assert run.status == 0, run.err
    return place


def wait_until(condition: Callable[[], bool], run: Run, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert run.status is None, f"it ended before: {run.err}"
        assert time.monotonic() < deadline, run.err
        time.sleep(0.001)


def workers_of(pid: int) -> list[int]:
    """Processes that generate data for another."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
