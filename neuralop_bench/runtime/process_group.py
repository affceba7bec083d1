"""Whether this process is one of several that were started for one run. Imports nothing that takes time."""

from __future__ import annotations

import os


class OtherProcessFailed(RuntimeError):
    """The first of the processes that share a run can't go on and has said why: this one has nothing to add."""


def n_processes() -> int:
    """How many processes the command that started this one has started: torchrun, ``accelerate launch``, srun, or
    submitit. An allocation of several tasks isn't enough: a program started in it without srun is alone."""
    if told := os.environ.get("WORLD_SIZE"):
        return int(told)
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS") or os.environ.get("SUBMITIT_LOCAL_NTASKS") or "1"
    if os.environ.get("SLURM_NTASKS", tasks) != tasks:  # left over from the step in which sbatch was called
        return 1
    return int(tasks) if tasks.isdecimal() else 1


def is_first() -> bool:
    """Whether this process speaks and writes for all that share the run."""
    return n_processes() == 1 or os.environ.get("RANK", "0") == "0"
