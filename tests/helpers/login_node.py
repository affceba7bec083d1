"""Commands that are led to a Slurm of the tests' own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers import slurm

ROOT = Path(__file__).parents[2]
# One core and little memory for a job: two run at a time on the smallest machine.
ON_SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")


@dataclass(frozen=True)
class Cluster:
    """A Slurm at work.

    environment: of a process that is to use it.
    """

    environment: dict[str, str]

    def ask(self, *command: str) -> str:
        """What a client command prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout

    @contextmanager
    def started(self, *arguments: str, script: str = "run.py", threads: int = 1) -> Iterator[subprocess.Popen[str]]:
        """Start a script of the repository, as somebody would on a login node; at the end of the block it is gone."""
        flags = [argument for argument in arguments if argument.startswith("-")]
        values = [argument for argument in arguments if not argument.startswith("-")]
        with subprocess.Popen(
            [sys.executable, str(ROOT / script), *flags, *values],
            env={**self.environment, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def finish(self, *arguments: str, script: str = "run.py", threads: int = 1) -> tuple[int, str, str]:
        """Status, standard output and standard error of a script."""
        with self.started(*arguments, script=script, threads=threads) as process:
            out, err = process.communicate(timeout=300)
        return process.returncode, out, err

    def job_of(self, array_task: int) -> str:
        """Raw id of the newest job with this number within a sweep."""
        jobs = re.findall(rf"^JobId=(\d+) .*ArrayTaskId={array_task} ", self.ask("scontrol", "-o", "show", "job"), re.M)
        return max(jobs, key=int)

    def python_of(self, job: str) -> int:
        """Process id of a job's task; the batch script around it isn't meant."""
        listed = [line.split() for line in self.ask("scontrol", "listpids", job).splitlines()[1:]]
        pids = [int(pid) for pid, _, step, *_ in listed if step == "0"]
        (python,) = [pid for pid in pids if b"submitit.core._submit" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        return python


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    """Wait for something that happens while a launching process is at work."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """A Slurm for the length of the block; where none can be had, the tests that ask for it are skipped."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra 'cluster'")
    # The tests may themselves run within a job of another Slurm: nothing of that one is meant here.
    foreign = ("SLURM", "SBATCH", "SRUN", "SALLOC", "SUBMITIT", "HYDRA", "PYTEST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    # Not below pytest's folder: its base is readable for its owner alone, and sockets want short names.
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
        try:
            started = slurm.start(Path(folder))
        except slurm.Unavailable as error:
            pytest.skip(str(error))
        with slurm.stopped_at_the_end(Path(folder)):
            yield Cluster({**kept, "PYTHONPATH": str(ROOT), **started})
