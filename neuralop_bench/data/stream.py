"""Solving samples during training: fresh ones replace the oldest in a reservoir of fixed size."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.generation.streaming import SampleStream
from data_gen.spec import Problem
from neuralop_bench.batch import Batch
from neuralop_bench.data.trajectories import Trajectories, cut, order
from neuralop_bench.runtime.processes import ALONE, Processes

# Columns of a record's cost.
SOLVER_SECONDS, WAIT_SECONDS = "stream_seconds", "stream_wait_seconds"


class StreamedWindows:
    """Examples for training, cut from a reservoir of changing samples.

    Before the first update the reservoir holds the training split. Each fresh sample replaces the oldest one. Fresh
    samples continue the split: the j-th is the one that a longer file would hold at n_samples + j. The number of fresh
    samples that have arrived before an update depends only on the update's number; if the solver isn't that far yet,
    training waits. So the results depend neither on the machine's speed nor on the number of workers, and a resumed
    training gives the same bits.

    An epoch still covers every pair (place in the reservoir, start) once, in the same order as the fixed split. The
    number of updates and the schedule are unchanged, too.

    Args:
        train: the split that the reservoir starts with; it isn't changed.
        n_steps: steps that follow the history in an example.
        problem, seed: the problem and the seed that the split was made from.
        n_fresh: fresh samples in the whole training, evenly spread.
        epochs, batch_size: those of the training.
        workers: processes that solve, see ``data_gen.generation.streaming.SampleStream``.

    Raises:
        GenerationError: while examples are read, a worker died or ran out of memory.
    """

    def __init__(
        self,
        train: Trajectories,
        n_steps: int,
        *,
        problem: Problem,
        seed: int,
        n_fresh: int,
        epochs: int,
        batch_size: int,
        workers: int,
    ) -> None:
        self.source, self.n_steps = train, n_steps
        self.spent = dict[str, float]()
        self._n_examples = len(train.windows(n_steps))
        n_updates = epochs * -(-self._n_examples // batch_size)
        self._reservoir = _Reservoir(train, problem, seed, n_fresh, n_updates, workers)

    def __len__(self) -> int:
        return self._n_examples

    def __getitem__(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        """Examples by number, from the current samples of the reservoir."""
        n_starts = self._n_examples // self.source.n_samples
        return cut(self._reservoir.read, indices, n_starts, self.source, self.n_steps)

    def shuffled(
        self,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        *,
        skip: int = 0,
        workers: int = 0,
        pinned: bool = False,
        processes: Processes = ALONE,
    ) -> Iterator[Batch]:
        """See ``Examples``. Each batch is cut from the samples in the reservoir at its update.

        Raises:
            ValueError: ``workers`` isn't 0, or there are several processes, each of which would have its own reservoir.
        """
        if workers or processes.n > 1:
            raise ValueError(
                f"data=stream needs a single training process that reads its own data, got trainer.workers={workers} "
                f"and {processes.n} processes. Use trainer.workers=0 and one process, or data=fixed."
            )
        batches = order(self._n_examples, batch_size, seed, epoch)
        for number in range(skip, len(batches)):
            self._reservoir.move_to(epoch * len(batches) + number, self.spent)
            examples = self[batches[number]]
            yield Batch(*(x.pin_memory() for x in examples)) if pinned else examples

    def close(self) -> None:
        """Stop the worker processes."""
        self._reservoir.close()


class _Reservoir:
    """Samples in memory, as many as the training split has."""

    def __init__(
        self, train: Trajectories, problem: Problem, seed: int, n_fresh: int, n_updates: int, workers: int
    ) -> None:
        self._train, self._problem, self._seed, self._workers = train, problem, seed, workers
        self._n_fresh, self._n_updates = n_fresh, n_updates
        self._stream: SampleStream | None = None
        self._n_come = 0
        self._states, self._static, self._parameters = self._fixed()

    def move_to(self, update: int, spent: dict[str, float]) -> None:
        """Put in the fresh samples that are due before an update of the training, counted from 0."""
        wanted = n_come(update, self._n_fresh, self._n_updates)
        started = time.monotonic()
        if self._stream is None or wanted < self._n_come:
            self._start(wanted)
        assert self._stream is not None
        before = self._stream.seconds
        while self._n_come < wanted:
            place = self._n_come % self._train.n_samples
            self._states[place], self._static[place], self._parameters[place] = next(self._stream)
            self._n_come += 1
        for name, seconds in (
            (SOLVER_SECONDS, self._stream.seconds - before),
            (WAIT_SECONDS, time.monotonic() - started),
        ):
            spent[name] = spent.get(name, 0.0) + seconds

    def read(self, sample: NDArray[np.int64], start: NDArray[np.int64], n_frames: int) -> tuple[Any, Any, Any]:
        frames = start[:, None] + np.arange(n_frames)
        return self._states[sample[:, None], frames], self._static[sample], self._parameters[sample]

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _fixed(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
        """A copy of the training split."""
        every = np.arange(self._train.n_samples)
        return self._train.read(every, np.zeros_like(every), self._train.spec.n_snapshots)

    def _start(self, wanted: int) -> None:
        """Start solving at the oldest sample still in the reservoir after ``wanted``; a resume needs no earlier one."""
        self.close()
        n = self._train.n_samples
        if self._n_come:
            self._states, self._static, self._parameters = self._fixed()
        self._n_come = max(0, wanted - n)
        self._stream = SampleStream(
            self._problem,
            self._seed,
            "train",
            start=n + self._n_come,
            stop=n + self._n_fresh,
            workers=self._workers,
        )


def n_come(update: int, n_fresh: int, n_updates: int) -> int:
    """Number of fresh samples that have arrived before an update, counted from 0.

    None arrive before the first update, all of them before the last.

    >>> [n_come(update, n_fresh=4, n_updates=9) for update in range(9)]
    [0, 0, 1, 1, 2, 2, 3, 3, 4]
    """
    return n_fresh * update // max(1, n_updates - 1)
