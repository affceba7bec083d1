"""Forks one run after another from a process that has imported everything: real processes that can be killed, without
the seconds of imports. Reads one JSON object per line: arguments, folder of the streams, interventions.

An intervention strikes at one exact point of a run, which no timing could meet: see the functions in ``STRIKES``.
"""

from __future__ import annotations

import ctypes
import fnmatch
import json
import multiprocessing
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def kill_at_replace(name: str, stage: str, count: int = 1) -> None:
    """SIGKILL when the count-th file of this name is to take its place: half written, before it does, or after it."""
    real, seen = os.replace, 0

    def replace(source: Any, target: Any) -> None:
        nonlocal seen
        seen += fnmatch.fnmatch(Path(target).name, name)
        strikes = seen == count and fnmatch.fnmatch(Path(target).name, name)
        if strikes and stage == "half":
            os.truncate(source, Path(source).stat().st_size // 2)
        if not strikes or stage == "after":
            real(source, target)
        if strikes:
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace


def limit_file(name: str, size: int, count: int = 1) -> None:
    """No file may grow beyond ``size`` bytes while the count-th file of this name is written: the system itself refuses
    the write, in the middle of it, no matter who writes."""
    from data_gen import files

    make, unlink, seen = files.NamedTemporaryFile, Path.unlink, 0

    def make_limited(*arguments: Any, **options: Any) -> Any:
        nonlocal seen
        handle = make(*arguments, **options)
        if fnmatch.fnmatch(options["prefix"], f".{name}."):
            seen += 1
            if seen == count:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        return handle

    def unlink_and_lift(path: Path, *arguments: Any, **options: Any) -> None:
        unlink(path, *arguments, **options)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    files.NamedTemporaryFile, Path.unlink = make_limited, unlink_and_lift


def without_privileges() -> None:
    """Permissions bind root, too: its capabilities are given up."""
    header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset")


def stop_at_step(count: int, signum: int) -> None:
    """A signal in the count-th training step of this process."""
    _at_step(count, lambda: os.kill(os.getpid(), signum))


def exhaust_at_step(count: int) -> None:
    """A tensor that no memory holds, in the count-th training step of this process."""
    import torch

    _at_step(count, lambda: torch.empty(2**46))


def _at_step(count: int, strike: Any) -> None:
    from neuralop_bench.training.trainer import Trainer

    real, seen = Trainer._step, 0

    def step(*arguments: Any) -> float:
        nonlocal seen
        seen += 1
        if seen == count:
            strike()
        return real(*arguments)

    Trainer._step = step  # pyright: ignore[reportAttributeAccessIssue]


def exhaust_in_solver() -> None:
    """An array that no memory holds, when a shard is solved in this process."""
    import numpy as np

    from data_gen.problems.ns2d import NavierStokes2D

    NavierStokes2D.simulate = lambda *_: np.empty(2**45)  # pyright: ignore[reportAttributeAccessIssue]


def limit_memory_of_workers(size: int) -> None:
    """Processes that generate data get so much address space, from their start on; this one keeps its own."""
    from data_gen.generation import pool

    starting = pool._signals_held

    @contextmanager
    def limiting() -> Iterator[None]:
        with starting():
            yield
            for worker in multiprocessing.active_children():
                resource.prlimit(worker.pid, resource.RLIMIT_AS, (size, size))

    pool._signals_held = limiting


def jump_clock(days: float, at_step: int = 0) -> None:
    """From a training step on (0: from the start) the wall clock is off by so many days."""
    from neuralop_bench.records import run_directory
    from neuralop_bench.runs import finished
    from neuralop_bench.runtime import environment

    real, off = time.time, [0.0 if at_step else days]

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=off[0])

    time.time = lambda: real() + 86400 * off[0]
    finished.datetime = environment.datetime = run_directory.datetime = Shifted  # pyright: ignore[reportPrivateImportUsage]
    assert abs((Shifted.now(UTC) - datetime.now(UTC)).total_seconds()) < 86400 * abs(days) + 1
    if at_step:
        _at_step(at_step, lambda: off.__setitem__(0, days))


def without_foresight() -> None:
    """The space that a run looks for at its start is taken by somebody else after that."""
    from neuralop_bench.runs import plan

    plan._require_room = lambda _: None


def without_figures() -> None:
    """No figures are drawn, neither of the run nor of the board."""
    from neuralop_bench.board import pictures
    from neuralop_bench.runs import training

    training._draw = lambda *_: []
    pictures.plots_of = lambda *_: []


def count_solved_shards(file: str) -> None:
    """Append a line for every shard that this process solves."""
    from data_gen.generation import cache

    solve = cache._solve_shard

    def counted(*arguments: Any) -> None:
        with open(file, "a") as handle:
            handle.write(f"{os.getpid()}\n")
        solve(*arguments)

    cache._solve_shard = counted


STRIKES = {
    function.__name__: function
    for function in (
        *(kill_at_replace, limit_file, without_privileges, stop_at_step, exhaust_at_step, exhaust_in_solver),
        *(limit_memory_of_workers, jump_clock, without_foresight, without_figures),
        count_solved_shards,
    )
}


def _become(job: dict[str, Any]) -> None:
    """In the forked process: everything as if ``python run.py ...`` had been typed in a terminal of its own."""
    os.setpgid(0, 0)
    for number, name in ((1, "out"), (2, "err")):
        descriptor = os.open(Path(job["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w", buffering=1), open(2, "w", buffering=1)  # noqa: SIM115
    os.chdir(ROOT)
    sys.argv = [str(ROOT / "run.py"), *job["arguments"]]
    for name, options in job["strikes"]:
        STRIKES[name](**options)


def _serve() -> None:
    import torch
    import torch._dynamo  # what a plan on the device meta asks for

    import neuralop_bench.__main__ as command
    from data_gen.problems import ns2d  # noqa: F401
    from neuralop_bench import verify  # noqa: F401
    from neuralop_bench.models import fno  # noqa: F401

    torch.set_num_threads(1)
    running: dict[int, Path] = {}
    pending = b""
    print("ready", flush=True)
    while True:
        if select.select([0], [], [], 0.005)[0]:
            read = os.read(0, 2**16)
            if not read:
                return
            *lines, pending = (pending + read).split(b"\n")
            for line in lines:
                job = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    _become(job)
                    command.main()  # and on to the end of the script: the interpreter ends as it always does
                    return
                running[pid] = Path(job["folder"])
                Path(job["folder"], "pid").write_text(str(pid))
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                folder = running.pop(pid)
                Path(folder, "status.part").write_text(str(os.waitstatus_to_exitcode(status)))
                Path(folder, "status.part").rename(folder / "status")


if __name__ == "__main__":
    _serve()
