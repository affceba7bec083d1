"""Samples that are solved while they are used, instead of being read from a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_gen.generation import shards
from data_gen.generation.pool import JobsAhead
from data_gen.layout import SHARD_SIZE
from data_gen.spec import Problem
from data_gen.store import to_arrays, to_parameters

# A worker that has solved a shard finds the next one waiting, and memory stays bounded.
_SHARDS_PER_WORKER = 2


class Sample(NamedTuple):
    """One solved sample as a file would hold it.

    states: [time, field, *space], float32.
    static: [static field, *space], float32.
    parameters: that differ between samples, [parameter], float64.
    """

    states: NDArray[np.float32]
    static: NDArray[np.float32]
    parameters: NDArray[np.float64]


class SampleStream(Iterator[Sample]):
    """Samples ``start`` to ``stop - 1`` of a split, in order, with the bytes that a file of them would have.

    Args:
        problem: what to solve.
        seed: the dataset's seed.
        split: name of the split.
        start, stop: indices of the samples. Whole shards are solved, as for a file.
        workers: processes of one thread each that solve shards before they are needed; 0 solves in this process, when a
            sample is needed. The bytes don't depend on it.

    Attributes:
        seconds: of one core, spent on the shards that samples have been taken from.

    Raises:
        GenerationError: in ``__next__``, a worker process died, or there isn't enough memory.
    """

    def __init__(self, problem: Problem, seed: int, split: str, *, start: int, stop: int, workers: int) -> None:
        self._jobs = JobsAhead(
            ((_solve, (problem, seed, split, shard)) for shard in range(start // SHARD_SIZE, -(-stop // SHARD_SIZE))),
            workers=workers,
            ahead=max(1, _SHARDS_PER_WORKER * workers),
            remedy="Run the same command again to go on from the last checkpoint, with fewer workers (data.workers=1), "
            "a lower dataset.problem.resolution, or more memory.",
        )
        self.seconds = 0.0
        self._next, self._stop = start, stop
        self._shard: list[NDArray[Any]] | None = None

    def __next__(self) -> Sample:
        if self._next >= self._stop:
            self.close()
            raise StopIteration
        row = self._next % SHARD_SIZE
        if self._shard is None or row == 0:
            *self._shard, seconds = next(self._jobs)
            self.seconds += seconds
        self._next += 1
        return Sample(*(fields[row] for fields in self._shard))

    def close(self) -> None:
        """Stop the workers."""
        self._jobs.close()
        self._stop = self._next


def _solve(problem: Problem, seed: int, split: str, shard: int) -> tuple[NDArray, NDArray, NDArray, float]:
    fields, seconds = shards.solve(problem, seed, split, shard)
    return (*to_arrays(problem.spec, fields), to_parameters(problem.spec, fields), seconds)
