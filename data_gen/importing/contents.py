"""What an importer is told about files, and what it finds in them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.spec import FieldSpec, ParameterSpec, Samples, Scalar


class ImportedFileError(ValueError):
    """A file that can't be imported; the message names the file, the reason and the remedy."""


@dataclass(frozen=True)
class Given:
    """What the user says about the files. None leaves it to the file, or to a default.

    Attributes:
        lengths, boundary, nodes: of the domain, per axis; one entry stands for all axes.
        times: of the stored snapshots.
        interval: between them.
        state, static: names of the fields. If a file names its fields, these choose among them.
        axes: names of the axes of the arrays x and y, of files that hold such bare arrays.
    """

    lengths: tuple[float, ...] | None = None
    boundary: tuple[str, ...] | None = None
    nodes: tuple[str, ...] | None = None
    times: tuple[float, ...] | None = None
    interval: float | None = None
    state: tuple[str, ...] | None = None
    static: tuple[str, ...] | None = None
    axes: Mapping[str, tuple[str, ...]] | None = None


@dataclass(frozen=True)
class Contents:
    """What a file, or a directory of files, holds.

    Attributes:
        files: the files that were read.
        n_samples: in all of them.
        grid, times, state, static, parameters: as in a DatasetSpec.
        equation, reference: defaults for the format.
        notes: what was assumed, for the user to check.
        read: returns the samples with the given indices, in the order of the indices.
        scalars: parameters that differ between the samples, [n_samples] each.
        varying: those of them that are stored (``data_gen.importing.parameters``).
        n_together: consecutive samples that share a chunk of the file, so reading one costs as much as reading all.
    """

    files: tuple[Path, ...]
    n_samples: int
    grid: Grid
    times: tuple[float, ...]
    state: tuple[FieldSpec, ...]
    static: tuple[FieldSpec, ...]
    parameters: Mapping[str, Scalar]
    equation: str
    reference: str
    notes: tuple[str, ...]
    read: Callable[[NDArray[np.int64]], Samples]
    n_together: int = 1
    scalars: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    varying: tuple[ParameterSpec, ...] = ()


def require_names(path: Path, option: str, chosen: Collection[str], known: Collection[str]) -> None:
    """Check that a file has the fields that are asked for.

    Raises:
        ImportedFileError: it lacks some of them.
    """
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ImportedFileError(f"{option}: {path} has no {', '.join(unknown)}; it has {', '.join(known) or 'none'}.")
