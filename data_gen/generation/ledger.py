"""The ledger of a dataset: the single-core seconds that solving its samples took, in ``generation.json``.

It is information for people. No data depend on it, and a ledger that can't be read counts as empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from data_gen.files import replacing
from data_gen.generation import shards
from data_gen.layout import SHARD_SIZE

_NAME = "generation.json"


def generation_seconds(path: Path) -> float | None:
    """Single-core seconds that solving the samples of a dataset file took; None if unknown."""
    entry = _read(path.parent.parent).get(path.parent.name)
    return None if entry is None else entry["core_seconds"]


def seconds_per_sample(base: Path) -> float | None:
    """Single-core seconds per sample of a dataset so far; None if no sample has been solved.

    Args:
        base: folder of the dataset.
    """
    entries = _read(base)
    n_samples = sum(entry["n_samples"] for entry in entries.values())
    return sum(entry["core_seconds"] for entry in entries.values()) / n_samples if n_samples else None


def note(base: Path, split: str, n_samples: int, solved: Mapping[int, Path]) -> bool:
    """Note what the samples of a file cost, as recorded in the shards that it was made from.

    Args:
        base: folder of the dataset.
        split: of the file.
        n_samples: in the file.
        solved: shard files by number.

    Returns:
        False if the file isn't longer than noted before, or a shard is missing or damaged.
    """
    entries = _read(base)
    before = entries.get(split, {"n_samples": 0, "core_seconds": 0.0})
    n_kept = int(before["n_samples"]) // SHARD_SIZE
    new = range(n_kept, -(-n_samples // SHARD_SIZE))
    if n_samples <= before["n_samples"] or not set(new) <= set(solved):
        return False
    try:
        seconds = sum(shards.read_seconds(solved[index]) for index in new)
    except Exception:  # damaged since the file was written, which no longer needs them
        return False
    entries[split] = {"n_samples": n_samples, "core_seconds": seconds + (before["core_seconds"] if n_kept else 0.0)}
    with replacing(base / _NAME) as temporary:
        temporary.write_text(json.dumps(entries, indent=2))
    return True


def _read(base: Path) -> dict[str, dict[str, float]]:
    """Samples and seconds by split."""
    try:
        entries = json.loads((base / _NAME).read_text())
        return {
            split: {"n_samples": int(entry["n_samples"]), "core_seconds": float(entry["core_seconds"])}
            for split, entry in entries.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
