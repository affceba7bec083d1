"""Tells whether this process is one of several that were started for one run. Imports nothing slow."""

from __future__ import annotations

import os


class OtherProcessFailed(RuntimeError):
    """The first of the processes that share a run has failed and printed why. This one has nothing to add."""


def n_processes() -> int:
    """Number of processes that torchrun, ``accelerate launch``, srun or submitit started together with this one.

    A Slurm allocation of several tasks isn't enough: a program started in it without srun is a single process.
    """
    if told := os.environ.get("WORLD_SIZE"):
        return int(told)
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SUBMITIT_LOCAL_NTASKS") or "1"
    if os.environ.get("SLURM_NTASKS", tasks) != tasks:  # inherited from the step that called sbatch
        return 1
    return int(tasks) if tasks.isdecimal() else 1


def is_first() -> bool:
    """Whether this process prints and writes for all processes of the run."""
    return n_processes() == 1 or os.environ.get("RANK", "0") == "0"
