"""Datasets that were made elsewhere: a folder with one file in our format for each split.

Doesn't import torch, because the configuration reads its defaults (name and sizes) from the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import h5py
import numpy as np

from data_gen.spec import DatasetSpec
from data_gen.store import DatasetFile, StoreError

SPLITS = ("train", "valid", "test")
_HOW = "docs/importing_data.md shows how to import files (python scripts/import_data.py --help)."


class ImportedDataset:
    """``<folder>/<split>/<any name>.hdf5`` for each of some splits.

    A source of data (``neuralop_bench.data.sources``) that can't make any, as it has neither a problem nor a solver.

    Args:
        folder: given by ``dataset.path``; relative to the working directory, ``~`` is the user's home.
        splits: those that are used.

    Attributes:
        spec: what their files hold.
        sizes: samples per split.
        content: for each split, a hash over the file's spec, its samples and their number, but not its name or folder.

    Raises:
        StoreError: the folder or a split is missing, a file is damaged, or the splits hold different things.
    """

    problem = None
    kept_bytes = 0

    def __init__(self, folder: Path | str, splits: Sequence[str] = SPLITS) -> None:
        self.folder = Path(folder).expanduser()
        self.root = self.folder
        self._paths = {split: _only_file(self.folder, split) for split in splits}
        specs: dict[str, DatasetSpec] = {}
        self.sizes: dict[str, int] = {}
        self.content: dict[str, str] = {}
        for split, path in self._paths.items():
            with DatasetFile(path) as file:
                specs[split], self.sizes[split] = file.spec, file.n_samples
            with h5py.File(path) as file:  # the header was compared with this hash when it was read
                self.content[split] = cast(bytes, file.attrs["header_sha256"]).decode()[:16]
        self.spec = specs[splits[0]]
        for split in splits[1:]:
            differing = _differences(self.spec, specs[split])
            if differing:
                raise StoreError(
                    f"{self._paths[split]} doesn't match {self._paths[splits[0]]}: they differ in "
                    f"{', '.join(differing)}. Import all splits with the same options."
                )

    def further(self, name: str) -> ImportedDataset:
        """A further test set in the same folder, perhaps on another grid.

        Raises:
            StoreError: there is none of that name, it is damaged, or its fields or its steps in time differ.
        """
        found = ImportedDataset(self.folder, (name,))
        if misfits := _misfits(self.spec, found.spec):
            raise StoreError(
                f"{found._paths[name]} can't be a test set for the data in {self.folder}: they differ in "
                f"{' and '.join(misfits)}. Only its grid, the number of its times and its parameters may differ."
            )
        return found

    def n_missing(self, split: str, n_samples: int) -> int:
        """0, as imported data can't be extended.

        Raises:
            StoreError: the file has fewer samples.
        """
        if n_samples > self.sizes[split]:
            raise StoreError(
                f"{self._paths[split]} holds {self.sizes[split]} samples, but splits.{split}={n_samples}. "
                f"Lower splits.{split}; imported data can't be extended."
            )
        return 0

    def ensure(self, splits: Mapping[str, int], *, workers: int | None = None) -> dict[str, Path]:
        """Paths of the files, by split. Nothing is generated.

        Raises:
            StoreError: a file has fewer samples than asked for.
        """
        del workers
        for split, n_samples in splits.items():
            self.n_missing(split, n_samples)
        return {split: self._paths[split] for split in splits}

    def generation_seconds(self, split: str) -> float | None:
        """None: the time that the original solver took isn't known."""
        del split


def further_test_sets(folder: Path | str) -> list[str]:
    """Names of the further test sets, test_<name>, in a folder of imported data."""
    return sorted({path.parent.name for path in Path(folder).expanduser().glob("test_*/*.hdf5")})


def _only_file(folder: Path, split: str) -> Path:
    if folder.is_file():
        raise StoreError(f"dataset.path={folder} is a file, expected a folder with train/, valid/, test/. {_HOW}")
    if not folder.is_dir():
        raise StoreError(f"dataset.path={folder}: there is no such folder (relative to {Path.cwd()}). {_HOW}")
    found = sorted((folder / split).glob("*.hdf5"))
    if not found:
        present = sorted(path.parent.name for path in folder.glob("*/*.hdf5")) or "no split at all"
        raise StoreError(
            f"dataset.path={folder} has no {split} split ({split}/<name>.hdf5); it has {present}. A run needs train, "
            "valid and test. You can split the samples of one file: "
            f"python scripts/import_data.py FORMAT train=FILE:900 valid=FILE:100 test=OTHER. {_HOW}"
        )
    if len(found) > 1:
        raise StoreError(f"{folder / split} contains several files, expected one: {', '.join(p.name for p in found)}.")
    return found[0]


def _misfits(trained: DatasetSpec, other: DatasetSpec) -> list[str]:
    """What keeps a model that was trained on one dataset from being measured on another."""
    found = [name for name in ("state", "static", "is_steady") if getattr(trained, name) != getattr(other, name)]
    if trained.grid.n_dims != other.grid.n_dims:
        found.append("dimensions")
    n = min(trained.n_snapshots, other.n_snapshots)
    if not np.allclose(np.diff(trained.times[:n]), np.diff(other.times[:n]), rtol=1e-3, atol=0):
        found.append("steps in time")
    return found


def _differences(one: DatasetSpec, other: DatasetSpec) -> list[str]:
    return [name for name in one.__dataclass_fields__ if getattr(one, name) != getattr(other, name)]
