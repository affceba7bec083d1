"""Where the data of a run come from: solved on demand, or imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from data_gen import cache
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import DatasetFile


class Source(Protocol):
    """Files of a dataset, by split.

    ``GeneratedDataset`` and ``neuralop_bench.imported.ImportedDataset`` are sources.
    """

    @property
    def spec(self) -> DatasetSpec: ...

    @property
    def problem(self) -> Problem | None:
        """What makes the data; None for imported data, which have no solver."""
        ...

    @property
    def folder(self) -> Path:
        """Of the dataset."""
        ...

    @property
    def root(self) -> Path:
        """Records name files relative to this."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Disk space that an interrupted generation takes already."""
        ...

    def n_missing(self, split: str, n_samples: int) -> int:
        """How many of ``n_samples`` samples have to be made."""
        ...

    def ensure(self, splits: Mapping[str, int], *, workers: int | None = None) -> dict[str, Path]:
        """Files with at least so many samples, made where they are missing."""
        ...

    def generation_seconds(self, split: str) -> float | None:
        """Single-core seconds that solving a split took; None if unknown."""
        ...


class GeneratedDataset:
    """Solutions of a problem, below a folder of all datasets.

    Args:
        problem: what to solve.
        seed: of the dataset.
        root: folder of all datasets.
    """

    def __init__(self, problem: Problem, seed: int, root: Path) -> None:
        self.problem, self.seed, self.root = problem, seed, root
        self.spec = problem.spec
        self.folder = cache.folder(problem, seed, root)

    @property
    def kept_bytes(self) -> int:
        return cache.kept_bytes(self.folder)

    def n_missing(self, split: str, n_samples: int) -> int:
        path = self._path(split)
        if not path.is_file():
            return n_samples
        with DatasetFile(path) as file:  # a damaged one is an error here as it would be in the run
            return max(0, n_samples - file.n_samples)

    def ensure(self, splits: Mapping[str, int], *, workers: int | None = None) -> dict[str, Path]:
        return cache.ensure(self.problem, dict(splits), self.seed, self.root, workers=workers)

    def generation_seconds(self, split: str) -> float | None:
        return cache.generation_seconds(self._path(split))

    def _path(self, split: str) -> Path:
        return self.folder / split / f"{self.spec.name}.hdf5"
