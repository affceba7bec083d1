"""Jobs in worker processes of one thread each. This module knows nothing about datasets."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
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
        self._n_workers = workers
        self._workers: _Workers | None = None
        self._submit()

    def __next__(self) -> Any:
        try:
            if not self._n_workers:
                (result,) = _in_turn([next(self._jobs)])
                return result
            if not self._results:
                raise StopIteration
            result = self._results.popleft().result()
        except StopIteration:
            raise
        except BaseException as error:
            self.close()
            if isinstance(error, _WorkerDiedError):
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
        if self._workers is not None:
            self._workers.kill()  # nobody needs the jobs that are running, which may take minutes

    def _submit(self) -> None:
        if not self._n_workers:
            return
        jobs = list(islice(self._jobs, self._ahead - len(self._results)))
        if jobs and self._workers is None:
            self._workers = _Workers(min(self._n_workers, len(jobs)))
        for job in jobs:
            assert self._workers is not None
            self._results.append(self._workers.submit(job))
        if not self._results:  # all jobs are done
            self.close()


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


def _in_pool(jobs: Sequence[Job], n_workers: int) -> Iterator[Any]:
    workers = _Workers(n_workers)
    try:
        for future in as_completed([workers.submit(job) for job in jobs]):
            yield future.result()
    except _WorkerDiedError as error:
        raise GenerationError(
            "A worker process died, perhaps for lack of memory. Run the same command again to solve the "
            "missing shards, with fewer workers (workers=1) if it happens again."
        ) from error
    finally:
        workers.kill()  # stopped, or a job failed: nobody needs the jobs that are running, which may take minutes


class _WorkerDiedError(Exception):
    """A process has ended without the result of its job."""


class _Workers:
    """Processes that can be killed at any time, even while they send a result.

    Each has its own pipe, so its end is seen as the end of the pipe. The processes of a ``ProcessPoolExecutor`` share
    one, which the parent holds open, too: it waits for ever for the rest of a result whose sender was killed.
    """

    def __init__(self, n_workers: int) -> None:
        # Spawned, not forked: a fork of a process with running thread pools can hang.
        context = multiprocessing.get_context("spawn")
        self._threads = ThreadPoolExecutor(n_workers)
        self._processes = []
        self._idle: SimpleQueue[Connection] = SimpleQueue()
        with _signals_held():
            for _ in range(n_workers):
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                self._processes.append(process)
                self._idle.put(ours)

    def submit(self, job: Job) -> Future[Any]:
        return self._threads.submit(self._send, job)

    def _send(self, job: Job) -> Any:
        worker = self._idle.get()  # there are as many as threads
        try:
            worker.send(job)
            result, error = worker.recv()
        except (EOFError, OSError) as end:
            raise _WorkerDiedError from end
        finally:
            self._idle.put(worker)
        if error is not None:
            raise error
        return result

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.join()


def _work(parent: Connection) -> None:
    _start_worker()
    with suppress(EOFError, BrokenPipeError):  # the parent has ended
        while True:
            outcome = _outcome(*parent.recv())
            try:
                parent.send(outcome)
            except Exception as reason:  # it can't be pickled
                error = outcome[1] or reason
                parent.send((None, RuntimeError(f"{type(error).__name__}: {error}")))


def _outcome(function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
    try:
        return _alone(function, arguments), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        return None, error


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
