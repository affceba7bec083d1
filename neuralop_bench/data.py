"""Trajectories on disk as batches: lazy HDF5 with one handle per worker, or in memory when they fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from data_gen.spec import DatasetSpec
from data_gen.store import DatasetFile, StoreError
from neuralop_bench.batch import Batch


class Trajectories:
    """The first ``n_samples`` samples of one split.

    Every sample read is compared with the hash stored when it was written.

    Args:
        path: a dataset file.
        n_samples: samples used.
        history: frames given to a model, K.
        horizon: frames to predict in an evaluation, T.
        preload_bytes: samples that need no more than this are held in memory; others are read when asked for.
        expected: the spec the file must have; None accepts any.

    Attributes:
        spec: what the file holds.
        sha256: hash over the samples used.
        error: largest relative L2 error of a snapshot that the file's certificate has measured; None without one.

    Raises:
        StoreError: the file is damaged, or holds another problem than expected.
        ValueError: the file has too few samples or frames.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_samples: int,
        history: int,
        horizon: int,
        preload_bytes: int = 2**31,
        expected: DatasetSpec | None = None,
    ) -> None:
        self.path, self.n_samples, self.history, self.horizon = Path(path), n_samples, history, horizon
        self._handle: tuple[int, DatasetFile] | None = None
        with DatasetFile(self.path) as file:
            self.spec = file.spec
            if expected is not None and file.spec != expected:
                raise StoreError(f"{path} doesn't hold the problem that the configuration describes. Delete the file.")
            require_frames(self.spec, history, horizon)
            self.sha256 = file.sha256(n_samples)
            self.error: float | None = file.certificate.get("error")
            n_bytes = 4 * self.spec.grid.n_points * n_samples
            n_bytes *= self.spec.n_snapshots * len(self.spec.state) + len(self.spec.static)
            self._states: NDArray[np.float32] | None = None
            self._static: NDArray[np.float32] | None = None
            if n_bytes <= preload_bytes:
                self._states = file.read_states(slice(0, n_samples))
                self._static = file.read_static(slice(0, n_samples))

    @property
    def is_preloaded(self) -> bool:
        return self._states is not None

    def windows(self, n_steps: int) -> Windows:
        """Every stretch of ``history`` frames and ``n_steps`` following ones: the examples of training."""
        require_frames(self.spec, self.history, n_steps)
        starts = self.spec.n_snapshots - self.history - n_steps + 1
        return Windows(self, n_steps, starts)

    def whole(self) -> Windows:
        """One example per sample, from the first frame over the whole horizon: the examples of evaluation."""
        return Windows(self, self.horizon, 1)

    def read(self, sample: NDArray[np.int64], start: NDArray[np.int64], n_frames: int) -> tuple[Any, Any]:
        """States [B, n_frames, C, *S] from the given frames on, and static fields [B, C_s, *S]."""
        if self._states is not None and self._static is not None:
            frames = start[:, None] + np.arange(n_frames)
            return self._states[sample[:, None], frames], self._static[sample]
        file, n, space = self._open(), len(sample), self.spec.grid.shape
        states = np.empty((n, n_frames, len(self.spec.state), *space), np.float32)
        static = np.empty((n, len(self.spec.static), *space), np.float32)
        for row, (i, first) in enumerate(zip(sample, start, strict=True)):
            states[row] = file.read_states(int(i), slice(int(first), int(first) + n_frames))
            if len(self.spec.static):
                static[row] = file.read_static(int(i))
        return states, static

    def _open(self) -> DatasetFile:
        # An HDF5 handle must not be shared with a forked worker, so each process opens its own.
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), DatasetFile(self.path))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class Windows(Dataset[Batch]):
    """Examples cut from trajectories; indexed by a list of numbers, which gives a whole Batch at once."""

    def __init__(self, source: Trajectories, n_steps: int, n_starts: int) -> None:
        self.source, self.n_steps, self._n_starts = source, n_steps, n_starts

    def __len__(self) -> int:
        return self.source.n_samples * self._n_starts

    def __getitem__(self, indices: Sequence[int]) -> Batch:
        sample, start = np.divmod(np.asarray(indices, dtype=np.int64), self._n_starts)
        history = self.source.history
        states, static = self._read(sample, start, history + self.n_steps)
        frames = torch.from_numpy(states)
        return Batch(frames[:, :history], torch.from_numpy(static), frames[:, history:])

    def of_epoch(self, epoch: int, spent: dict[str, float]) -> Windows:
        """The examples of an epoch of training. Those of a stream (``neuralop_bench.streaming``) change from epoch to
        epoch, and what they cost is added to ``spent``."""
        del epoch, spent
        return self

    def in_order(self, batch_size: int) -> Iterator[Batch]:
        """All examples once, in order."""
        return iter(self._loader(BatchSampler(SequentialSampler(self), batch_size, drop_last=False), 0))

    def shuffled(self, batch_size: int, seed: int, *, skip: int = 0, workers: int = 0) -> Iterator[Batch]:
        """All examples once, in an order that is a function of ``seed`` alone, without the first ``skip`` batches."""
        return iter(self._loader(self._order(batch_size, seed)[skip:], workers))

    def n_batches(self, batch_size: int) -> int:
        return -(-len(self) // batch_size)

    def _read(self, sample: NDArray[np.int64], start: NDArray[np.int64], n_frames: int) -> tuple[Any, Any]:
        return self.source.read(sample, start, n_frames)

    def _order(self, batch_size: int, seed: int) -> list[list[int]]:
        order = RandomSampler(self, generator=torch.Generator().manual_seed(seed))
        return list(BatchSampler(order, batch_size, drop_last=False))

    def _loader(self, batches: Any, workers: int) -> DataLoader[Batch]:
        # The loader draws a base seed per pass; a generator of its own keeps it from advancing the global stream.
        return DataLoader(self, batch_size=None, sampler=batches, num_workers=workers, generator=torch.Generator())


def require_frames(spec: DatasetSpec, history: int, n_steps: int) -> None:
    """Check that stored trajectories are long enough for a history and a number of predicted steps.

    Raises:
        ValueError: they are not.
    """
    needed, held = history + n_steps, spec.n_snapshots
    if needed > held:
        raise ValueError(
            f"A history of {history} and {n_steps} predicted steps need {needed} frames, but {spec.name} stores "
            f"{held}. Lower dataset.history, dataset.horizon, trainer.unroll or trainer.pushforward, or raise "
            "dataset.problem.n_snapshots."
        )
