"""Trajectories on disk as batches: lazy HDF5 with one handle per worker, or in memory when they fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from data_gen.spec import DatasetSpec, ParameterSpec
from data_gen.store import DatasetFile, StoreError
from neuralop_bench.batch import Batch
from neuralop_bench.runtime.processes import ALONE, Processes

Read = Callable[[NDArray[np.int64], NDArray[np.int64], int], tuple[Any, Any, Any]]

# A prime far above any number of epochs, so that no two (seed, epoch) share an order of the samples.
_EPOCH_STRIDE = 1_000_003


class Trajectories:
    """The first ``n_samples`` samples of one split.

    Every sample read is compared with the hash stored when it was written.

    Args:
        path: a dataset file.
        n_samples: number of samples used.
        history: frames given to a model, K.
        horizon: frames to predict in an evaluation, T.
        preload_bytes: samples are held in memory if they need no more than this; otherwise they are read on demand.
        expected: the spec the file must have; None accepts any.
        channels: parameters that models are given, each as a static channel that is constant in space.

    Attributes:
        spec: the file's spec, with these channels.
        sha256: hash over the samples used.
        agreement: numbers that the same samples agree with if they were made on another kind of processor
            (``data_gen.agreement``).
        error: largest relative L2 error of a snapshot, from the file's certificate; None without one.

    Raises:
        StoreError: the file is damaged, its problem isn't the expected one, or it lacks a parameter.
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
        channels: Sequence[ParameterSpec] = (),
    ) -> None:
        self.path, self.n_samples, self.history, self.horizon = Path(path), n_samples, history, horizon
        self._handle: tuple[int, DatasetFile] | None = None
        with DatasetFile(self.path) as file:
            self.spec = replace(file.spec, channels=tuple(channels))
            if expected is not None and file.spec != expected:
                raise StoreError(
                    f"{path} doesn't contain the configured problem. If run.py generated it, delete it, and the same "
                    "command generates it again."
                )
            require_frames(self.spec, history, horizon)
            self._parameters = file.read_parameters(slice(0, n_samples))
            for entry in channels:
                _channel(self.spec, entry, self._parameters)  # an error if there is no such parameter
            self.sha256, self.agreement = file.identity(n_samples)
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
        """Training examples: all windows of ``history`` frames and the ``n_steps`` frames that follow."""
        require_frames(self.spec, self.history, n_steps)
        starts = self.spec.n_snapshots - self.history - n_steps + 1
        return Windows(self, n_steps, starts)

    def whole(self) -> Windows:
        """Evaluation examples: one per sample, from the first frame over the whole horizon."""
        return Windows(self, self.horizon, 1)

    def read(self, sample: NDArray[np.int64], start: NDArray[np.int64], n_frames: int) -> tuple[Any, Any, Any]:
        """States [B, n_frames, C, *S] starting at the given frames, static fields [B, C_s, *S], and the parameters that
        differ between samples [B, P]."""
        if self._states is not None and self._static is not None:
            frames = start[:, None] + np.arange(n_frames)
            return self._states[sample[:, None], frames], self._static[sample], self._parameters[sample]
        file, n, space = self._open(), len(sample), self.spec.grid.shape
        states = np.empty((n, n_frames, len(self.spec.state), *space), np.float32)
        static = np.empty((n, len(self.spec.static), *space), np.float32)
        for row, (i, first) in enumerate(zip(sample, start, strict=True)):
            states[row] = file.read_states(int(i), slice(int(first), int(first) + n_frames))
            if len(self.spec.static):
                static[row] = file.read_static(int(i))
        return states, static, self._parameters[sample]

    def _open(self) -> DatasetFile:
        # An HDF5 handle must not be shared with a forked worker, so each process opens its own.
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), DatasetFile(self.path))
        return self._handle[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}


class Examples(Protocol):
    """The examples of a training: ``Windows``, or a stream (``neuralop_bench.data.stream``).

    Attributes:
        source: the train split.
        n_steps: steps that follow the history in an example.
        spent: cost of the examples so far, as columns of a record's cost; empty if they cost nothing.
    """

    source: Trajectories
    n_steps: int
    spent: dict[str, float]

    def __len__(self) -> int: ...

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
        """All examples once, in batches, without the first ``skip`` batches.

        The order depends only on ``seed`` and ``epoch``.

        Args:
            batch_size: examples in a batch.
            seed: seed of the training.
            epoch: number of the epoch, counted from 0.
            skip: number of batches to leave out.
            workers: processes that read ahead, two batches each. They change neither batches nor order.
            pinned: put batches in pinned memory, from which a GPU can copy while it computes.
            processes: if there are several, each gets its part of every batch, or one example if a batch has fewer
                examples than there are processes.
        """
        ...


class Windows(Dataset[Batch]):
    """Examples cut from trajectories. Indexing with a list of numbers gives a whole Batch."""

    def __init__(self, source: Trajectories, n_steps: int, n_starts: int) -> None:
        self.source, self.n_steps, self._n_starts = source, n_steps, n_starts
        self.spent: dict[str, float] = {}

    def __len__(self) -> int:
        return self.source.n_samples * self._n_starts

    def __getitem__(self, indices: Sequence[int] | NDArray[np.int64]) -> Batch:
        return cut(self.source.read, indices, self._n_starts, self.source, self.n_steps)

    def in_order(self, batch_size: int, processes: Processes = ALONE) -> Iterator[Batch]:
        """All examples once, in order; with several processes, each gets every n-th batch."""
        starts = range(0, len(self), batch_size)[processes.rank :: processes.n]
        return iter(self._loader([range(i, min(i + batch_size, len(self))) for i in starts]))

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
        """See ``Examples``. If the data aren't held in memory, the next batch is read while one is in use."""
        batches = order(len(self), batch_size, seed, epoch)[skip:]
        if processes.n > 1:
            parts = [batch[processes.part_of(len(batch))] for batch in batches]
            batches = [part if len(part) else batch[:1] for part, batch in zip(parts, batches, strict=True)]
        loaded = iter(self._loader(batches, workers, pinned))
        return loaded if self.source.is_preloaded else _read_ahead(loaded)

    def _loader(self, batches: Sequence[Any], workers: int = 0, pinned: bool = False) -> DataLoader[Batch]:
        # The loader draws a base seed per pass. With its own generator it doesn't advance the global one.
        return DataLoader(
            self,
            batch_size=None,
            sampler=batches,  # pyright: ignore[reportArgumentType]  (any collection of indices works)
            num_workers=workers,
            pin_memory=pinned,
            generator=torch.Generator(),
        )


def cut(
    read: Read, indices: Sequence[int] | NDArray[np.int64], n_starts: int, source: Trajectories, n_steps: int
) -> Batch:
    """Examples by number: example i is sample i // n_starts, starting at frame i % n_starts.

    Args:
        read: a function like ``Trajectories.read``.
        indices: numbers of the examples.
        n_starts: examples per sample.
        source: says how many frames are given, and which parameters are channels.
        n_steps: frames that follow.
    """
    sample, start = np.divmod(np.asarray(indices, dtype=np.int64), n_starts)
    states, static, parameters = read(sample, start, source.history + n_steps)
    static, frames = with_channels(source.spec, static, parameters), torch.from_numpy(states)
    history, target = frames[:, : source.history], frames[:, source.history :]
    return Batch(history, torch.from_numpy(static), target, torch.from_numpy(parameters))


def with_channels(
    spec: DatasetSpec, static: NDArray[np.float32], parameters: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Static fields [B, C_s, *S], followed by the channels of a spec.

    Args:
        spec: of the samples.
        static: its static fields.
        parameters: that differ between samples, [B, P].
    """
    if not spec.channels:
        return static
    values = np.stack([_channel(spec, entry, parameters) for entry in spec.channels], axis=1)
    space = static.shape[2:]
    constant = np.broadcast_to(values.reshape(*values.shape, *(1,) * len(space)), (*values.shape, *space))
    return np.concatenate([static, constant], axis=1)


def _channel(spec: DatasetSpec, entry: ParameterSpec, parameters: NDArray[np.float64]) -> NDArray[np.float32]:
    """Values of a channel, [B]; those of a test set may be equal for all samples."""
    names = [known.name for known in spec.varying]
    if entry.name in names:
        return entry.encoded(parameters[:, names.index(entry.name)])
    constant = spec.parameters.get(entry.name)
    if constant is None or isinstance(constant, str):
        raise StoreError(
            f"The model is given the parameter {entry.name}, but a file of {spec.name} has no values of it. Import the "
            "file with them, or use dataset.conditioning=none."
        )
    return entry.encoded(np.full(len(parameters), float(constant)))


def order(n_examples: int, batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of an epoch: numbers of examples, shuffled; the last batch may be smaller."""
    generator = torch.Generator().manual_seed(seed * _EPOCH_STRIDE + epoch)
    # An array, whose parts are views: a list of numbers would take five times the memory.
    shuffled = torch.randperm(n_examples, generator=generator).numpy()
    return [shuffled[i : i + batch_size] for i in range(0, n_examples, batch_size)]


def _read_ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, each read by a thread while the one before it is in use."""
    with ThreadPoolExecutor(1) as thread:
        upcoming = thread.submit(next, batches, None)
        while (batch := upcoming.result()) is not None:
            upcoming = thread.submit(next, batches, None)
            yield batch


def require_frames(spec: DatasetSpec, history: int, n_steps: int) -> None:
    """Check that stored trajectories are long enough for a history and a number of predicted steps.

    Raises:
        ValueError: they aren't.
    """
    needed, held = history + n_steps, spec.n_snapshots
    if needed > held:
        raise ValueError(
            f"A history of {history} and {n_steps} predicted steps need {needed} frames, but {spec.name} stores "
            f"{held}. Lower dataset.history, dataset.horizon, trainer.unroll or trainer.pushforward, or raise "
            "dataset.problem.n_snapshots."
        )
