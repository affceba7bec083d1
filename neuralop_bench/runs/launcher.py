"""Jobs that Hydra's launcher handed to submitit, when one of them, or Slurm itself, has let it down."""

from __future__ import annotations

import re
import time
from typing import Any

from neuralop_bench.runtime.hydra_internals import submitted_jobs

_ELSEWHERE = "use a login node of the cluster, or hydra/launcher=joblib or hydra/launcher=local on this machine."
_ALIVE = ("CONFIGURING", "COMPLETING", "PENDING", "READY", "REQUEUE", "RESIZING", "RUNNING", "SUSPENDED")
_PAUSE_SECONDS = 2.0
# What Slurm's state of a job means for its owner.
_MEANING = {
    "OUT_OF_ME": "it took more memory than it asked for. Raise hydra.launcher.mem_gb or lower trainer.batch_size",
    "TIMEOUT": "its time was over more often than hydra.launcher.max_num_timeout allows. Raise that or "
    "hydra.launcher.timeout_min",
    "CANCELLED": "somebody cancelled it",
    "NODE_FAIL": "its node failed",
}
_KILLED = "it was killed, most likely for lack of memory. Raise hydra.launcher.mem_gb or lower trainer.batch_size"
_REFUSED = (
    ("partition", "Choose another with hydra.launcher.partition; sinfo lists them."),
    ("account|qos", "Set hydra.launcher.account or hydra.launcher.qos."),
    (
        "node configuration|memory|cpu|gres",
        "Lower hydra.launcher.mem_gb, hydra.launcher.cpus_per_task or hydra.launcher.gpus_per_node to what a node has.",
    ),
    ("configuration source|slurm.conf", f"This machine belongs to no cluster that Slurm knows: {_ELSEWHERE}"),
    ("contact|connect|timed out|socket", f"Slurm's controller doesn't answer: try sinfo, or {_ELSEWHERE}"),
)


class LauncherError(RuntimeError):
    """A launcher couldn't start a single job; the message says why and what to do."""


def outcomes(error: BaseException) -> list[Any] | None:
    """What became of each job that was submitted: Hydra's JobReturn, or in words why there is none. Waits for them all.

    The launcher waits for one job after the other, raises for the first that ended badly, and says nothing of the rest.

    Args:
        error: what the launcher raised.

    Returns:
        In the order of the jobs; None if no job was submitted.
    """
    jobs = submitted_jobs(error)
    return None if jobs is None else [_outcome(job) for job in jobs]


def explained(error: Exception) -> Exception:
    """An error of a launcher that could start no job, in words if it is known."""
    text = " ".join(str(error).split())
    if 'detect "srun"' in text or 'detect "sbatch"' in text:
        return LauncherError(f"There is no Slurm on this machine, srun isn't found: {_ELSEWHERE}")
    found = re.findall(r"(?:sbatch|srun): (?:error|fatal): (.+?)(?=(?:sbatch|srun): (?:error|fatal):|$)", text)
    if not found:
        return error
    remedy = next((words for pattern, words in _REFUSED if re.search(pattern, text, re.IGNORECASE)), "")
    return LauncherError(
        f"Slurm took none of the jobs: {'; '.join(part.strip(' .') for part in found)}. {remedy}".strip()
    )


def _state(job: Any) -> str:
    """As Slurm, or the system, has it now."""
    told = job.get_info()
    return str(told.get("State") or told.get("jobState") or "UNKNOWN").upper()


def _outcome(job: Any) -> Any:
    try:
        return job.results()[0]
    except Exception as error:
        # submitit may take a job for dead that is being queued again, after a time limit or a preemption.
        if _state(job).startswith(_ALIVE):
            while _state(job).startswith(_ALIVE):
                time.sleep(_PAUSE_SECONDS)
            return _outcome(job)
        state = _state(job)
        meaning = next((words for name, words in _MEANING.items() if state.startswith(name)), "")
        if re.search("memory limit|oom.kill", str(error), re.IGNORECASE):  # where Slurm has no state for it
            meaning = _MEANING["OUT_OF_ME"]
        if not meaning:
            last = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")
            is_killed = "not produced any output" in str(error)
            meaning = _KILLED if is_killed else f"{type(error).__name__}: {last.strip()}"
        return (
            f"Job {job.job_id} ended without a result: {meaning}. Its log is {job.paths.stderr}; the "
            "same command goes on from the last checkpoint."
        )
