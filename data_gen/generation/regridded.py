"""Test sets on another grid, made from the samples of an existing test set instead of by solving again."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from data_gen.generation import cache, locks
from data_gen.generation.random_streams import stream
from data_gen.grids import Grid
from data_gen.layout import SHARD_SIZE
from data_gen.regrid import regrid
from data_gen.spec import DatasetSpec
from data_gen.store import DatasetFile, Fields, StoreError, write


def refined(grid: Grid, refine: float) -> Grid:
    """The grid with ``refine`` times as many points per length, e.g. 2 or 0.5.

    Raises:
        ValueError: that isn't a whole number of points.
    """
    try:
        return grid.coarsen(1 / Fraction(refine).limit_denominator(64))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"refine={refine:g} of a test split: {error}") from error


def ensure_regridded(origin: Path, spec: DatasetSpec, path: Path, n_samples: int) -> None:
    """Make a file with the first samples of another file on a finer or coarser grid (``data_gen.regrid``).

    A periodic field is evaluated from its Fourier series. A field on a closed grid keeps its values at every second
    node, or every third, and so on.

    Args:
        origin: a dataset's file, with at least ``n_samples``.
        spec: the origin's on another grid.
        path: the file to make unless it exists: <dataset>/<split>/<name>.hdf5.
        n_samples: how many of the origin's samples.

    Raises:
        ValueError: the origin's fields can't be brought to that grid.
        StoreError: a file is damaged, or the origin is too short.
    """
    split, source = path.parent.name, origin.parent.name
    if stream(split) != stream(source):
        raise ValueError(f"{split} can't be made from {source}: only test sets are made from one another.")
    with DatasetFile(origin) as file:
        seed = file.seed
    if path.is_file():
        with DatasetFile(path) as file:
            if file.spec != spec and replace(file.spec, grid=spec.grid) == spec:
                raise StoreError(
                    f"{path} holds the samples on a grid of {_size(file.spec.grid)} points, not {_size(spec.grid)}. "
                    "Delete it to have it made again, or give the split with another refine another name."
                )
    if cache.file_holds(path, spec, seed, n_samples):
        return
    with locks.locked(path.parent.parent):
        if cache.file_holds(path, spec, seed, n_samples):
            return
        with DatasetFile(origin) as file:
            if file.n_samples < n_samples:
                raise StoreError(
                    f"{origin} holds {file.n_samples} samples, fewer than {n_samples}. Make it longer first."
                )
            file.sha256()
            write(
                path,
                spec,
                (_on_grid(file, shard, spec.grid) for shard in range(-(-n_samples // SHARD_SIZE))),
                n_samples,
                split=split,
                seed=seed,
                provenance=cache.provenance("cpu"),
                certificate={**file.certificate, "regridded_from": f"{source}, {_size(file.spec.grid)}"},
            )


def _on_grid(file: DatasetFile, shard: int, grid: Grid) -> Fields:
    return {
        name: values if values.ndim == 1 else regrid(values, file.spec.grid, grid).astype(np.float32)
        for name, values in file.read_shard(shard).items()
    }


def _size(grid: Grid) -> str:
    return "x".join(map(str, grid.shape))
