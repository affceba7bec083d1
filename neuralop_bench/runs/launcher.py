"""Failures of Hydra's launcher: what became of the jobs that it handed to submitit, and errors of Slurm in words."""

from __future__ import annotations

import re
import time
from typing import Any

from neuralop_bench.runtime.hydra_internals import submitted_jobs

_ELSEWHERE = "use a login node of the cluster, or hydra/launcher=joblib or hydra/launcher=local on this machine."
_ALIVE = ("CONFIGURING", "COMPLETING", "PENDING", "READY", "REQUEUE", "RESIZING", "RUNNING", "SUSPENDED")
_PAUSE_SECONDS = 2.0
# What the state that Slurm reports for a job means for the user.
_MEANING = {
    "OUT_OF_ME": "it took more memory than it asked for. Raise hydra.launcher.mem_gb or lower trainer.batch_size",
    "TIMEOUT": "it ran out of time more often than hydra.launcher.max_num_timeout allows. Raise that or "
    "hydra.launcher.timeout_min",
    "CANCELLED": "it was cancelled",
    "NODE_FAIL": "its node failed",
}
_KILLED = "it was killed, most likely for lack of memory. Raise hydra.launcher.mem_gb or lower trainer.batch_size"
_REFUSED = (
    ("partition", "Choose another with hydra.launcher.partition; sinfo lists them."),
    ("account|qos", "Set hydra.launcher.account or hydra.launcher.qos."),
    (
        "node configuration|memory|cpu|gres",
        "Lower hydra.launcher.mem_gb, hydra.launcher.cpus_per_task or hydra.launcher.gpus_per_node to fit a node.",
    ),
    ("configuration source|slurm.conf", f"This machine isn't part of a Slurm cluster: {_ELSEWHERE}"),
    ("contact|connect|timed out|socket", f"Slurm's controller doesn't answer: try sinfo, or {_ELSEWHERE}"),
)


class LauncherError(RuntimeError):
    """A launcher couldn't start a single job; the message says why and what to do."""


def outcomes(error: BaseException) -> list[Any] | None:
    """The outcome of each submitted job: Hydra's JobReturn, or a message that says why there is none. Waits for all.

    The launcher waits for one job after another, raises for the first that failed, and says nothing about the rest.

    Args:
        error: the exception that the launcher raised.

    Returns:
        Outcomes in the order of the jobs; None if no job was submitted.
    """
    jobs = submitted_jobs(error)
    return None if jobs is None else [_outcome(job) for job in jobs]


def explained(error: Exception) -> Exception:
    """The error of a launcher that couldn't start any job, with a clearer message if the error is known."""
    text = " ".join(str(error).split())
    if 'detect "srun"' in text or 'detect "sbatch"' in text:
        return LauncherError(f"Slurm isn't installed on this machine (srun wasn't found): {_ELSEWHERE}")
    found = re.findall(r"(?:sbatch|srun): (?:error|fatal): (.+?)(?=(?:sbatch|srun): (?:error|fatal):|$)", text)
    if not found:
        return error
    remedy = next((words for pattern, words in _REFUSED if re.search(pattern, text, re.IGNORECASE)), "")
    return LauncherError(
        f"Slurm accepted none of the jobs: {'; '.join(part.strip(' .') for part in found)}. {remedy}".strip()
    )


def _state(job: Any) -> str:
    """The state that Slurm, or the system, reports now."""
    told = job.get_info()
    return str(told.get("State") or told.get("jobState") or "UNKNOWN").upper()


def _goes_on(job: Any) -> bool:
    """Whether a job without a result is alive. Between its end and its return to the queue, after a time limit or a
    preemption, Slurm may report a final state for a moment, and submitit never asks again about such a job."""
    for _ in range(2):
        job.watcher.clear()
        if _state(job).startswith(_ALIVE):
            return True
        time.sleep(_PAUSE_SECONDS)
    return False


def _outcome(job: Any) -> Any:
    try:
        return job.results()[0]
    except Exception as error:
        if _goes_on(job):
            while _goes_on(job):
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
            "same command resumes from the last checkpoint."
        )
