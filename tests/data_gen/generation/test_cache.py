"""Datasets on demand: deterministic, resumable, extensible, safe to ask for twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.processes import FORKSERVER

from data_gen.generation import cache, ledger
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.random_fields import PeriodicGaussianField
from data_gen.store import DatasetFile, StoreError

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=12, n_snapshots=3)


def _ensure(
    root: Path, problem: NavierStokes2D = PROBLEM, seed: int = 0, workers: int = 1, **splits: int
) -> dict[str, Path]:
    return cache.ensure(problem, splits, seed, root, workers=workers)


def _states(path: Path) -> np.ndarray:
    with DatasetFile(path) as file:
        return file.read_states(slice(None))


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The shards that this process solves."""
    calls: list[tuple[str, int]] = []
    original: Callable[..., None] = cache._solve_shard

    def recording(problem: NavierStokes2D, seed: int, split: str, shard: int, path: Path) -> None:
        calls.append((split, shard))
        original(problem, seed, split, shard, path)

    monkeypatch.setattr(cache, "_solve_shard", recording)
    return calls


def test_a_dataset_is_generated_once(tmp_path: Path, solved: list[tuple[str, int]]) -> None:
    paths = _ensure(tmp_path, train=17, test=2)
    assert paths["train"] == cache.folder(PROBLEM, 0, tmp_path) / "train" / "ns2d.hdf5"
    assert solved == [("train", 0), ("train", 1), ("test", 0)]
    with DatasetFile(paths["train"]) as file:
        assert (file.n_samples, file.spec, file.split) == (17, PROBLEM.spec, "train")
    assert _ensure(tmp_path, train=10, test=2) == paths
    assert len(solved) == 3
    assert not list(tmp_path.rglob("*.npz")), "shards go when their split is whole"


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    one = _ensure(tmp_path / "one", workers=1, train=20, test=3)
    two = cache.ensure(PROBLEM, {"train": 20, "test": 3}, 0, tmp_path / "two", workers=2, tolerance=1.0)
    for split, path in one.items():
        assert path.read_bytes() == two[split].read_bytes()


def test_asking_for_more_extends_without_changing_what_is_there(tmp_path: Path, solved: list[tuple[str, int]]) -> None:
    short = _states(_ensure(tmp_path, train=20)["train"])
    solved.clear()
    path = _ensure(tmp_path, train=40)["train"]
    assert solved == [("train", 1), ("train", 2)], "whole shards are kept, the cut one is solved again"
    assert np.array_equal(_states(path)[:20], short)
    fresh = _ensure(tmp_path / "fresh", train=40)["train"]
    assert path.read_bytes() == fresh.read_bytes()
    assert (ledger.generation_seconds(path) or 0) > 0


def test_the_address_is_that_of_the_numbers() -> None:
    base = cache.address(PROBLEM, 0)
    others = [
        replace(PROBLEM, viscosity=2e-3),
        replace(PROBLEM, initial=PeriodicGaussianField(tau=10.0)),
        replace(PROBLEM, n_snapshots=4),
        replace(PROBLEM, resolution=16),
        replace(PROBLEM, inner_batch=4),
    ]
    addresses = [base, cache.address(PROBLEM, 1), *(cache.address(other, 0) for other in others)]
    assert len(set(addresses)) == len(addresses)
    assert cache.address(replace(PROBLEM), 0) == base
    assert len(base) == 8


def test_a_raised_problem_version_is_another_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache.address(PROBLEM, 0)
    monkeypatch.setattr(NavierStokes2D, "version", NavierStokes2D.version + 1)
    assert cache.address(PROBLEM, 0) != before


def test_generation_goes_on_with_the_shards_that_are_missing(
    tmp_path: Path, solved: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _ensure(tmp_path / "whole", train=48)["train"].read_bytes()
    solved.clear()
    recording = cache._solve_shard

    def dying(problem: NavierStokes2D, seed: int, split: str, shard: int, path: Path) -> None:
        if shard == 2:
            raise KeyboardInterrupt
        recording(problem, seed, split, shard, path)

    monkeypatch.setattr(cache, "_solve_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        _ensure(tmp_path / "cut", train=48)
    monkeypatch.setattr(cache, "_solve_shard", recording)
    shards = sorted((tmp_path / "cut").rglob("*.npz"))
    assert len(shards) == 2
    # A shard that a crash left damaged is solved again; the sound one is not.
    shards[0].write_bytes(shards[0].read_bytes()[:-200])
    solved.clear()
    assert _ensure(tmp_path / "cut", train=48)["train"].read_bytes() == whole
    assert solved == [("train", 0), ("train", 2)]


def test_damaged_files_and_those_of_other_datasets_are_reported_and_left_alone(tmp_path: Path) -> None:
    path = _ensure(tmp_path, train=2)["train"]
    other = _ensure(tmp_path, replace(PROBLEM, viscosity=2e-3), train=2)["train"]
    path.write_bytes(other.read_bytes())
    with pytest.raises(StoreError, match="another dataset"):
        _ensure(tmp_path, train=2)
    content = other.read_bytes()[:1000]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"train/ns2d\.hdf5 is damaged"):
        _ensure(tmp_path, train=2)
    assert path.read_bytes() == content


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 1 sample"):
        _ensure(tmp_path, train=0)


def _ensure_in_process(root: Path) -> None:
    _ensure(root, train=20)


def test_processes_that_ask_at_once_share_one_generation(tmp_path: Path) -> None:
    processes = [FORKSERVER.Process(target=_ensure_in_process, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    (path,) = tmp_path.rglob("*.hdf5")
    assert path.read_bytes() == _ensure(tmp_path / "alone", train=20)["train"].read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))
