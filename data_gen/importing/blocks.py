"""The samples of a file of others, a block at a time: read, checked, and hashed to find inputs that occur twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen import hdf5, progress
from data_gen.importing.contents import Contents, ImportedFileError
from data_gen.importing.remarks import Remarks
from data_gen.layout import SCALARS, SHARD_SIZE
from data_gen.spec import DatasetSpec, Samples
from data_gen.store import DatasetFile, Fields, to_fields

# Samples are read in blocks of as many whole shards as fit in this. A block grows to the size of a file's chunks, up to
# ``_LARGER`` times this.
_BLOCK_BYTES = 2**27
_LARGER = 8


def shards(
    source: Contents,
    spec: DatasetSpec,
    samples: NDArray[np.int64],
    bar: progress.Bar,
    hashes: list[bytes],
    remarks: Remarks,
) -> Iterator[Fields]:
    """The samples, one shard at a time. A hash of each sample's input is appended to ``hashes``."""
    for numbers, found, fields in blocks(source, spec, samples):
        _require_finite(source, fields, numbers)
        remarks.look(found, fields)
        hashes += _input_hashes(spec, fields)
        for start in range(0, len(numbers), SHARD_SIZE):
            shard = {name: values[start : start + SHARD_SIZE] for name, values in fields.items()}
            yield shard
            bar.advance(len(next(iter(shard.values()))))


def blocks(
    source: Contents, spec: DatasetSpec, samples: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Samples, Fields]]:
    """Several whole shards at a time: the numbers of the samples, the samples as read, and the fields to be stored."""
    frames = spec.n_snapshots * len(spec.state) + len(spec.static) + len(spec.state)
    block = max(1, _BLOCK_BYTES // (8 * spec.grid.n_points * frames * SHARD_SIZE)) * SHARD_SIZE
    if source.n_together > block:
        block = min(-(-source.n_together // SHARD_SIZE) * SHARD_SIZE, _LARGER * block)
    for first in range(0, len(samples), block):
        numbers = samples[first : first + block]
        yield numbers, *_read(source, spec, numbers)


def _read(source: Contents, spec: DatasetSpec, numbers: NDArray[np.int64]) -> tuple[Samples, Fields]:
    """Samples as read, and the fields to be stored."""
    try:
        found = source.read(numbers)
        with np.errstate(over="ignore"):  # values beyond single precision are found later
            history, static, trajectory = (np.asarray(values, dtype=np.float32) for values in found[:3])
        parameters = {entry.name: source.scalars[entry.name][numbers] for entry in source.varying}
        return found, to_fields(spec, Samples(history, static, trajectory, parameters=parameters))
    except (ImportedFileError, MemoryError):
        raise
    except Exception as error:  # a damaged file can make a reader raise anything
        cause = hdf5.why(error) or f"{hdf5.words(error)}. If the file is damaged, download or copy it again."
        raise ImportedFileError(
            f"Samples {numbers[0]} to {numbers[-1]} of {source.files[0]} can't be read: {cause}"
        ) from error


def _require_finite(source: Contents, fields: Fields, numbers: NDArray[np.int64]) -> None:
    for name, values in fields.items():
        fine = finite(values)
        if not fine.all():
            bad = numbers[~fine]
            more = f" and {len(bad) - 1} more near it" if len(bad) > 1 else ""
            raise ImportedFileError(
                f"{name} of sample {bad[0]}{more} in {source.files[0]} has values that are NaN, infinite or beyond "
                "single precision. --drop nan leaves such samples out."
            )


def finite(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Which samples hold finite numbers only, [sample]."""
    return np.all(np.isfinite(values.reshape(len(values), -1)), axis=1)


def _input_hashes(spec: DatasetSpec, fields: Fields) -> list[bytes]:
    """One hash per sample of what a model is given: the static fields, the parameters and the first state."""
    names = [*(field.name for field in spec.static), *(SCALARS + entry.name for entry in spec.varying)]
    if not spec.is_steady:
        names += [f"initial_{field.name}" if spec.stores_initial else field.name for field in spec.state]
    result = []
    for index in range(len(next(iter(fields.values())))):
        digest = hashlib.sha256()
        for name in names:
            values = fields[name][index]
            digest.update((values[0] if values.ndim > spec.grid.n_dims else values).tobytes())
        result.append(digest.digest())
    return result


def hashes_of(path: Path) -> list[bytes]:
    """The hashes of the inputs in a file that was imported before."""
    with DatasetFile(path) as file:
        return [
            entry
            for shard in range(-(-file.n_samples // SHARD_SIZE))
            for entry in _input_hashes(file.spec, file.read_shard(shard))
        ]


def duplicates(hashes: Mapping[str, list[bytes]]) -> list[str]:
    """Warnings about inputs that train holds twice or shares with another split."""
    shown = set(hashes.get("train", ()))
    warnings = []
    for split, entries in hashes.items():
        common = [index for index, entry in enumerate(entries) if entry in shown]
        if split != "train" and common:
            warnings.append(
                f"{len(common)} of {len(entries)} samples of {split} have the same input as one of train, the first is "
                f"sample {common[0]}. Errors on them measure memory, not generalisation."
            )
    if len(shown) < len(hashes.get("train", ())):
        warnings.append(f"train has {len(hashes['train']) - len(shown)} inputs that it holds more than once.")
    return warnings
