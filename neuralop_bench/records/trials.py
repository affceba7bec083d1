"""Trials of a search for hyper-parameters, which a board keeps as ``trials/<track>/<dataset>_<model>.csv``."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from data_gen.files import replacing

# Folder of the lists on a committed board.
TRIALS = "trials"


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        settings: overrides that distinguish it from the search's other trials; empty for the starting point.
        epochs: number of epochs.
        valid_rel_l2: its error on valid; infinite if it diverged.
        seconds: duration of the training.
        status: finished or diverged.
        config_hash, commit, date_utc: see ``RunRecord``.
    """

    settings: str
    epochs: int
    valid_rel_l2: float
    seconds: float
    status: str
    config_hash: str
    commit: str
    date_utc: str


def read_trials(path: Path) -> list[Trial]:
    """The trials in a file; none if there is no file.

    Raises:
        ValueError: the file isn't such a list.
    """
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as handle:
        rows = list(cast("csv.DictReader[Any]", csv.DictReader(handle)))
    try:
        return [
            Trial(
                **{**row, "epochs": int(row["epochs"]), **{key: float(row[key]) for key in ("valid_rel_l2", "seconds")}}
            )
            for row in rows
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} isn't a list of trials: {error!r}. Remove it, or restore it.") from error


def write_trials(path: Path, trials: Iterable[Trial]) -> None:
    """Write trials to a file, those of the longest trainings first, each length from the best to the worst.

    Raises:
        WriteError: the file can't be written.
    """
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, [field.name for field in fields(Trial)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(trial) for trial in sorted(trials, key=lambda each: (-each.epochs, each.valid_rel_l2)))


def best_so_far(trials: Sequence[Trial]) -> list[float]:
    """The least error on valid after each trial, in the order in which they ended."""
    ordered = sorted(trials, key=lambda trial: trial.date_utc)
    return list(itertools.accumulate((trial.valid_rel_l2 for trial in ordered), min))
