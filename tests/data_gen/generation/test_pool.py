"""Worker processes: none outlives its parent, and each has one thread."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
import scipy.sparse.linalg
import torch
from filelock import FileLock
from helpers.processes import FORKSERVER
from threadpoolctl import threadpool_info, threadpool_limits

from data_gen.generation.pool import run_jobs


def _hold(folder: Path) -> None:
    """Hold a lock for as long as this process lives."""
    FileLock(folder / "worker.lock").acquire()
    (folder / "held").write_text(str(os.getpid()))
    (folder / "held").rename(folder / "worker")
    time.sleep(600)


def _run_for_ever(folder: Path) -> None:
    list(run_jobs([(_hold, (folder,))], 2))


def test_a_worker_does_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    parent = FORKSERVER.Process(target=_run_for_ever, args=(tmp_path,))
    parent.start()
    deadline = time.monotonic() + 120
    try:
        while not (tmp_path / "worker").exists():
            assert parent.is_alive()
            assert time.monotonic() < deadline, "the worker never started"
            time.sleep(0.01)
    finally:
        parent.kill()
    parent.join(60)
    try:
        # Released by the system when its holder ends; a worker that goes on makes this time out.
        FileLock(tmp_path / "worker.lock").acquire(timeout=30).lock.release()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int((tmp_path / "worker").read_text()), signal.SIGKILL)


def _threads_of_libraries() -> set[int]:
    assert scipy.sparse.linalg.splu
    return {torch.get_num_threads(), *(each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas")}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_has_one_thread_whatever_library_it_uses(monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    with threadpool_limits(2):
        assert list(run_jobs([(_threads_of_libraries, ())] * 2, workers)) == [{1}, {1}]
        assert _threads_of_libraries() == {2}
    torch.set_num_threads(threads)
