"""Shards of 16 consecutive samples: how they are solved, and the files that keep them until their split is complete."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_gen.files import replacing_stream
from data_gen.generation.memory import keep_freed_memory
from data_gen.generation.random_streams import generator
from data_gen.layout import DIAGNOSTICS, SHARD_SIZE
from data_gen.spec import DatasetSpec, Problem, SolverError
from data_gen.store import DatasetFile, Fields, hash_fields, require_fields, to_fields


@contextmanager
def naming(dataset: str, split: str, indices: Sequence[int]) -> Iterator[None]:
    """Say in a solver's error which samples it was given: it only knows their places in the batch."""
    try:
        yield
    except SolverError as error:
        raise SolverError(f"{dataset}, {split}, batch of samples {indices[0]} to {indices[-1]}: {error}") from error


def solve(problem: Problem, seed: int, split: str, shard: int) -> tuple[Fields, float]:
    """The fields that a file stores for the 16 samples of a shard, and the seconds of one core that solving took.

    Raises:
        SolverError: the solver left its region of validity.
    """
    keep_freed_memory()
    started = time.process_time()  # not wall time: next to a training there may be fewer cores than processes
    indices = range(shard * SHARD_SIZE, (shard + 1) * SHARD_SIZE)
    with naming(problem.spec.name, split, indices):
        fields = to_fields(problem.spec, problem.simulate([generator(seed, split, index) for index in indices]))
    return fields, time.process_time() - started


def write(path: Path, fields: Fields, seconds: float) -> None:
    """Keep a solved shard, with its hash and the seconds that solving took.

    Raises:
        WriteError: the disk is full, or the folder can't be written.
    """
    extra: dict[str, Any] = {"seconds": seconds, "sha256": hash_fields(fields)}
    with replacing_stream(path) as stream:
        np.savez(stream, **fields, **extra)


def read(path: Path) -> Fields:
    """The fields of a shard.

    Raises:
        ValueError: the fields don't have the hash that was stored with them. A damaged header can raise anything.
    """
    with open(path, "rb") as handle, np.load(handle) as archive:
        fields = {name: archive[name] for name in archive.files if name != "seconds"}
    expected = str(fields.pop("sha256"))
    if hash_fields(fields) != expected:
        raise ValueError(f"{path} is damaged.")
    return fields


def read_seconds(path: Path) -> float:
    """Seconds that solving a shard took. The fields, which are large, are not read."""
    with open(path, "rb") as handle, np.load(handle) as archive:
        return float(archive["seconds"])


def is_intact(path: Path, spec: DatasetSpec) -> bool:
    """True if a shard can be read back as it was written, and belongs to this dataset."""
    if not path.is_file():
        return False
    try:
        require_fields(spec, read(path))
    except Exception:  # NumPy evaluates text in the file's header, so damage there can raise anything
        return False
    return True


def n_reusable(path: Path) -> int:
    """Shards of an existing dataset file that needn't be solved again when the file is made longer.

    Raises:
        StoreError: the file is damaged.
    """
    if not path.is_file():
        return 0
    with DatasetFile(path) as file:
        file.sha256()
        return file.n_samples // SHARD_SIZE


def read_all(path: Path, n_kept: int, shards: Sequence[Path]) -> Iterator[Fields]:
    """The first ``n_kept`` shards of a dataset file, then those in files of their own."""
    if n_kept:
        with DatasetFile(path) as file:
            for shard in range(n_kept):
                yield file.read_shard(shard)
    for shard in shards:
        yield read(shard)


def read_diagnostics(
    spec: DatasetSpec, path: Path, n_kept: int, shards: Sequence[Path], n_samples: int
) -> dict[str, np.ndarray]:
    """Diagnostics of the first ``n_samples`` samples of ``read_all``, [sample] each.

    The fields, which are large, are not read.
    """
    parts: dict[str, list[np.ndarray]] = {entry.name: [] for entry in spec.diagnostics}
    if n_kept:
        with DatasetFile(path) as file:
            for name, values in file.read_diagnostics().items():
                parts[name].append(values[: n_kept * SHARD_SIZE])
    for shard in shards:
        with open(shard, "rb") as handle, np.load(handle) as archive:
            for name, values in parts.items():
                values.append(archive[DIAGNOSTICS + name])
    return {name: np.concatenate(values)[:n_samples] for name, values in parts.items()}
