"""Jobs in worker processes of one thread each. This module knows nothing about datasets."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import connection, resource_tracker
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from threadpoolctl import threadpool_limits

# A function that a spawned process can import, and its arguments.
Job = tuple[Callable[..., Any], tuple[Any, ...]]


class GenerationError(RuntimeError):
    """A dataset couldn't be generated; the message says why and how to continue."""


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, at most as many as Slurm has given to its task."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return max(1, min(bound, int(given))) if given.isdecimal() else bound


def run_jobs(jobs: Sequence[Job], workers: int) -> Iterator[Any]:
    """Results of the jobs in the order in which they finish. One worker means this process, which does them in turn.

    Raises:
        GenerationError: a worker process died, or there isn't enough memory. Errors of a job are raised unchanged.
    """
    try:
        yield from _in_turn(jobs) if workers == 1 else _in_pool(jobs, workers)
    except (MemoryError, RuntimeError) as error:
        if not _is_lack_of_memory(error):
            raise
        raise GenerationError(
            "There isn't enough memory to generate the data. Run the same command again to solve the missing "
            "shards, with fewer workers (workers=1), a lower dataset.problem.resolution, or more memory."
        ) from error


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "allocate memory" in str(error)  # torch's message


class JobsAhead(Iterator[Any]):
    """Results of jobs in their order, computed by worker processes before they are needed; a context manager.

    Args:
        jobs: taken one by one, as there is room for them.
        workers: number of processes. They have ended after the last result, or after ``close``. 0 does each job in this
            process when its result is needed.
        ahead: how many jobs, at least 1, may be running or have results that wait.
        remedy: what to change if a worker dies or there isn't enough memory.

    Raises:
        GenerationError: in ``__next__``, a worker process died, or there isn't enough memory. Errors of a job are
            raised unchanged.
    """

    def __init__(self, jobs: Iterable[Job], *, workers: int, ahead: int, remedy: str) -> None:
        self._jobs, self._ahead, self._remedy = iter(jobs), ahead, remedy
        self._results: deque[Future[Any]] = deque()
        self._workers: set[BaseProcess] = set()
        self._pool = _pool(workers) if workers else None
        self._submit()

    def __next__(self) -> Any:
        try:
            if self._pool is None:
                (result,) = _in_turn([next(self._jobs)])
                return result
            if not self._results:
                raise StopIteration
            result = self._results.popleft().result()
        except StopIteration:
            raise
        except BaseException as error:
            self.close()
            if isinstance(error, BrokenProcessPool):
                raise GenerationError(f"A worker process died, perhaps for lack of memory. {self._remedy}") from error
            if isinstance(error, Exception) and _is_lack_of_memory(error):
                raise GenerationError(f"There isn't enough memory to generate the data. {self._remedy}") from error
            raise
        self._submit()
        return result

    def __enter__(self) -> JobsAhead:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the workers, even in the middle of a job. There are no further results."""
        self._jobs = iter(())
        self._results.clear()
        if self._pool is not None:
            for worker in self._workers:  # nobody needs the jobs that are running, which may take minutes
                worker.kill()
            self._workers.clear()
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self) -> None:
        if self._pool is None:
            return
        for job in islice(self._jobs, self._ahead - len(self._results)):
            others = set(multiprocessing.active_children())
            with _signals_held():  # the pool starts processes as jobs arrive
                self._results.append(self._pool.submit(_alone, *job))
            self._workers |= set(multiprocessing.active_children()) - others
        if not self._results:  # all jobs are done, so the workers end by themselves
            self._pool.shutdown(wait=True)
            self._workers.clear()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for PyTorch and for the linear algebra of NumPy and SciPy, which would start as many as there are
    cores in each process. Two workers on two cores then hinder each other: sparse factorisations take 10 times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)


def _alone(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with one_thread():  # for each job, because a worker may load a library when it gets its first
        return function(*arguments)


def _in_turn(jobs: Sequence[Job]) -> Iterator[Any]:
    for job in jobs:
        yield _alone(*job)


def _in_pool(jobs: Sequence[Job], workers: int) -> Iterator[Any]:
    pool = _pool(workers)
    others = multiprocessing.active_children()
    try:
        with _signals_held():
            futures = [pool.submit(_alone, *job) for job in jobs]
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool as error:
        raise GenerationError(
            "A worker process died, perhaps for lack of memory. Run the same command again to solve the "
            "missing shards, with fewer workers (workers=1) if it happens again."
        ) from error
    except BaseException:
        # Stopped, or a job failed: nobody needs the jobs that are running, which may take minutes.
        for worker in multiprocessing.active_children():
            if worker not in others:
                worker.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # Spawned, not forked: a fork of a process with running thread pools can hang.
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)


@contextmanager
def _signals_held() -> Iterator[None]:
    """Block SIGINT and SIGTERM in processes started in the block; this process handles them when it ends.

    Ctrl-C reaches the whole process group, and a worker that is still importing would print a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # starting it unblocks signals, so do that before the block
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    # A worker must not outlive a parent that was killed: nobody would use its results.
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
