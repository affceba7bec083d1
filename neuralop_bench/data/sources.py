"""Where the data of a run come from: solved on demand, or imported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from data_gen.generation import cache, ledger, regridded
from data_gen.spec import DatasetSpec, Problem
from data_gen.store import DatasetFile


class Source(Protocol):
    """Files of a dataset, by split.

    ``GeneratedDataset``, ``RegriddedDataset`` and ``neuralop_bench.data.imported.ImportedDataset`` are sources.
    """

    @property
    def spec(self) -> DatasetSpec: ...

    @property
    def problem(self) -> Problem | None:
        """The problem that the data solve; None for imported data, which have no solver."""
        ...

    @property
    def folder(self) -> Path:
        """Folder of the dataset."""
        ...

    @property
    def root(self) -> Path:
        """Records name files relative to this folder."""
        ...

    @property
    def kept_bytes(self) -> int:
        """Disk space already used by an interrupted generation."""
        ...

    def n_missing(self, split: str, n_samples: int) -> int:
        """How many of ``n_samples`` samples have to be made."""
        ...

    def ensure(self, splits: Mapping[str, int], *, workers: int | None = None) -> dict[str, Path]:
        """Files with at least the given numbers of samples; missing ones are made."""
        ...

    def generation_seconds(self, split: str) -> float | None:
        """Single-core seconds that solving a split took; None if unknown."""
        ...


class GeneratedDataset:
    """Solutions of a problem, in a subfolder of the folder of all datasets.

    Args:
        problem: the problem to solve.
        seed: seed of the dataset.
        root: folder of all datasets.
        tolerance: largest measured error that is accepted; None accepts any.
        device: device for solvers that use torch.
    """

    def __init__(
        self, problem: Problem, seed: int, root: Path, *, tolerance: float | None = None, device: str = "cpu"
    ) -> None:
        self.problem, self.seed, self.root = problem, seed, root
        self.tolerance, self.device = tolerance, device
        self.spec = problem.spec
        self.folder = cache.folder(problem, seed, root)

    @property
    def kept_bytes(self) -> int:
        return cache.kept_bytes(self.folder)

    def n_missing(self, split: str, n_samples: int) -> int:
        path = self._path(split)
        if not path.is_file():
            return n_samples
        with DatasetFile(path) as file:  # a damaged file is an error here, as it would be in the run
            return max(0, n_samples - file.n_samples)

    def ensure(self, splits: Mapping[str, int], *, workers: int | None = None) -> dict[str, Path]:
        return cache.ensure(
            self.problem,
            dict(splits),
            self.seed,
            self.root,
            workers=workers,
            tolerance=self.tolerance,
            device=self.device,
        )

    def solve_part(self, splits: Mapping[str, int], part: int, n_parts: int, *, workers: int | None = None) -> None:
        """Solve one of several shares of the shards. A later ``ensure`` puts the file together."""
        cache.solve_part(
            self.problem,
            dict(splits),
            self.seed,
            self.root,
            part=part,
            n_parts=n_parts,
            workers=workers,
            tolerance=self.tolerance,
            device=self.device,
        )

    def generation_seconds(self, split: str) -> float | None:
        return ledger.generation_seconds(self._path(split))

    def _path(self, split: str) -> Path:
        return self.folder / split / f"{self.spec.name}.hdf5"


class RegriddedDataset:
    """The samples of a test set on a finer or coarser grid (``data_gen.regrid``).

    Args:
        origin: the source of the samples.
        origin_split: name of their split there.
        refine: points per length of the new grid, relative to the origin's.

    Raises:
        ValueError: the grid has no such refinement.
    """

    def __init__(self, origin: GeneratedDataset | RegriddedDataset, origin_split: str, refine: float) -> None:
        self.origin, self.origin_split, self.refine = origin, origin_split, refine
        self.problem, self.folder, self.root, self.kept_bytes = origin.problem, origin.folder, origin.root, 0
        self.spec = replace(origin.spec, grid=regridded.refined(origin.spec.grid, refine))

    def n_missing(self, split: str, n_samples: int) -> int:
        return max(0, n_samples - cache.n_stored(self._path(split)))

    def ensure(self, splits: Mapping[str, int], *, workers: int | None = None) -> dict[str, Path]:
        (origin,) = self.origin.ensure({self.origin_split: max(splits.values())}, workers=workers).values()
        for split, n in splits.items():
            regridded.ensure_regridded(origin, self.spec, self._path(split), n)
        return {split: self._path(split) for split in splits}

    def generation_seconds(self, split: str) -> float | None:
        del split
        return self.origin.generation_seconds(self.origin_split)

    def _path(self, split: str) -> Path:
        return self.folder / split / f"{self.spec.name}.hdf5"
