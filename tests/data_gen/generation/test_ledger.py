"""The ledger: what solving took, added up."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from data_gen.generation import cache, ledger, shards
from data_gen.problems.ns2d import NavierStokes2D

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=8, oversampling=1.0, n_snapshots=2)


def _ensure(root: Path, n_samples: int) -> Path:
    return cache.ensure(PROBLEM, {"train": n_samples}, 0, root, workers=1)["train"]


def test_the_ledger_adds_up_the_solving_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that moves by one second per look makes every shard cost one second.
    ticks = count()
    monkeypatch.setattr(shards.time, "process_time", lambda: float(next(ticks)))
    path = _ensure(tmp_path, 40)
    assert ledger.generation_seconds(path) == 3
    _ensure(tmp_path, 70)  # two shards are kept, three are solved
    assert ledger.generation_seconds(path) == 6
    assert ledger.generation_seconds(path.parent.parent / "test" / path.name) is None
    assert ledger.generation_seconds(tmp_path / "nothing" / "train" / "ns2d.hdf5") is None
