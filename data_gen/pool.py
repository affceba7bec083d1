"""Jobs in worker processes of one thread each. Knows nothing of datasets."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, resource_tracker
from typing import Any

import torch

# A function that a spawned process can import, and its arguments.
Job = tuple[Callable[..., Any], tuple[Any, ...]]


class GenerationError(RuntimeError):
    """A dataset could not be generated; the message says why and how to go on."""


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than Slurm has given to its task."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(bound, int(given))) if given.isdecimal() else bound


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Any]:
    """Results of the jobs as they are done, in any order; with one worker in this process, in turn.

    Raises:
        GenerationError: a worker process died, or the memory doesn't suffice. A job's own error passes through.
    """
    try:
        yield from _in_turn(jobs) if workers == 1 else _in_pool(jobs, workers)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # as torch says it
            raise
        raise GenerationError(
            "There isn't enough memory to generate the data. Run the same command again to go on with the shards that "
            "are missing, with fewer workers (workers=1), a lower dataset.problem.resolution, or more memory."
        ) from error


def _in_turn(jobs: Sequence[Job]) -> Iterator[Any]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for function, arguments in jobs:
            yield function(*arguments)
    finally:
        torch.set_num_threads(threads)


def _in_pool(jobs: Sequence[Job], workers: int) -> Iterator[Any]:
    # Spawned, not forked: a forked copy of a process whose thread pools have started can hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    others = multiprocessing.active_children()
    try:
        with _signals_held():
            futures = [pool.submit(function, *arguments) for function, arguments in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise GenerationError(
            "A worker process died, perhaps for lack of memory. Run the same command again to go on with the "
            "shards that are missing, with fewer workers (workers=1) if it happens again."
        ) from error
    except BaseException:
        # Stopped, or a shard failed: nobody waits for those in work, which may take minutes.
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Processes started in the block begin with SIGINT and SIGTERM held back; this one answers them after it.

    Ctrl-C reaches the whole group of processes: a worker that is still at its imports would show a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # to start it lets signals through again, so not in the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    # A worker must not outlive a parent that was killed: it would go on solving for nobody.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
