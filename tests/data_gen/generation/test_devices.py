"""Data made on other devices: the same samples, many shards at once, one process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from data_gen import store
from data_gen.generation import cache, ledger
from data_gen.generation.pool import Job
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.store import DatasetFile

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=12, n_snapshots=3)
# To the generation any name but "cpu" is a device; torch takes this one for the processor.
DEVICE = "cpu:0"


def _work(problem: NavierStokes2D = PROBLEM, device: str = "cuda:1", **splits: int) -> cache._Request:
    return cache._Request(problem, splits, 0, Path("base"), None, device)


def _todo(**shards: int) -> list[tuple[str, int]]:
    return [(split, shard) for split, n in shards.items() for shard in range(n)]


def _memory(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    def free(device: str) -> tuple[int, int]:
        assert device == "cuda:1"
        return n_bytes, 2**40

    monkeypatch.setattr(torch.cuda, "mem_get_info", free)


def test_a_device_gives_the_samples_of_the_processor(tmp_path: Path) -> None:
    splits = {"train": 40, "test": 3}
    here = cache.ensure(PROBLEM, splits, 0, tmp_path / "here", workers=1)
    there = cache.ensure(PROBLEM, splits, 0, tmp_path / "there", workers=1, device=DEVICE)
    for split, path in here.items():
        with DatasetFile(path) as one, DatasetFile(there[split]) as two:
            assert one.sha256() == two.sha256()
            assert one.certificate == two.certificate
        with h5py.File(path) as one, h5py.File(there[split]) as two:
            assert (one.attrs["device"], two.attrs["device"]) == ("cpu", DEVICE)
    assert path.parent.parent.name == there[split].parent.parent.name, "a device isn't part of the address"
    assert not list(tmp_path.rglob("*.npz"))
    assert (ledger.generation_seconds(there["train"]) or 0) > 0


def test_shards_solved_at_once_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_groups", lambda _, todo: [("train", [shard for _, shard in todo])])
    expected = cache.ensure(PROBLEM, {"train": 40}, 0, tmp_path / "apart", workers=1)["train"]
    path = cache.ensure(PROBLEM, {"train": 40}, 0, tmp_path / "at_once", workers=1, device=DEVICE)["train"]
    with DatasetFile(expected) as one, DatasetFile(path) as two:
        assert one.sha256() == two.sha256()
        for name, values in one.read_diagnostics().items():
            assert np.array_equal(two.read_diagnostics()[name], values)


def test_what_was_solved_before_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.solve_part(PROBLEM, {"train": 64}, 0, tmp_path, part=1, n_parts=2, workers=1)  # shards 0 and 2
    groups: list[list[int]] = []
    solve = cache._solve_shards

    def recording(work: cache._Request, split: str, shards: list[int]) -> int:
        groups.append(shards)
        return solve(work, split, shards)

    monkeypatch.setattr(cache, "_solve_shards", recording)
    monkeypatch.setattr(cache, "_solve_shard", lambda *_: pytest.fail("solved as on the processor"))
    cache.ensure(PROBLEM, {"train": 64}, 0, tmp_path, device=DEVICE)
    assert groups == [[1], [3]]


def test_one_process_drives_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    run_jobs = cache.run_jobs

    def recording(jobs: list[Job], workers: int) -> Iterator[object]:
        asked.append(workers)
        return run_jobs(jobs, workers)

    monkeypatch.setattr(cache, "run_jobs", recording)
    cache.ensure(PROBLEM, {"train": 40}, 0, tmp_path, workers=8, device=DEVICE)
    assert asked == [1]


def test_a_group_holds_shards_of_one_split(monkeypatch: pytest.MonkeyPatch) -> None:
    _memory(monkeypatch, 2**40)
    todo = [("train", 0), ("test", 0), ("train", 2), ("test", 1), ("train", 3)]
    groups = list(cache._groups(_work(train=64, test=32), todo))
    assert groups == [("train", [0, 2, 3]), ("test", [0, 1])]


@pytest.mark.parametrize(("shares", "sizes"), [(0.0, [1] * 7), (0.9, [1] * 7), (3.5, [3, 3, 1]), (7.0, [7])])
def test_a_group_is_as_large_as_the_memory_allows(
    monkeypatch: pytest.MonkeyPatch, shares: float, sizes: list[int]
) -> None:
    stored = 8 * 12 * 12 * 3 * store.SHARD_SIZE
    _memory(monkeypatch, int(shares * stored * cache._COPIES_ON_DEVICE))
    groups = list(cache._groups(_work(train=112), _todo(train=7)))
    assert [len(shards) for _, shards in groups] == sizes
    assert [shard for _, shards in groups for shard in shards] == list(range(7))


def test_longer_trajectories_make_smaller_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    _memory(monkeypatch, 8 * 12 * 12 * 3 * store.SHARD_SIZE * cache._COPIES_ON_DEVICE * 8)
    sizes = [
        len(next(cache._groups(_work(replace(PROBLEM, **change), train=160), _todo(train=10)))[1])
        for change in ({}, {"n_snapshots": 6}, {"resolution": 24})
    ]
    assert sizes == [8, 4, 2]


def test_a_group_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    _memory(monkeypatch, 2**50)
    groups = list(cache._groups(_work(train=1600), _todo(train=100)))
    assert [len(shards) for _, shards in groups] == [64, 36]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_graphics_card_gives_the_same_numbers_up_to_rounding(tmp_path: Path) -> None:
    splits = {"train": 40}
    here = cache.ensure(PROBLEM, splits, 0, tmp_path / "here", workers=1)["train"]
    there = cache.ensure(PROBLEM, splits, 0, tmp_path / "there", tolerance=1.0, device="cuda")["train"]
    with DatasetFile(here) as one, DatasetFile(there) as two:
        two.sha256()
        a, b = (file.read_states(slice(None)) for file in (one, two))
        assert np.abs(a - b).max() <= 2e-7 * np.abs(a).max()
        assert two.certificate["error"] == pytest.approx(one.certificate["error"], rel=1e-3)
        assert two.read_diagnostics()["n_steps"].tolist() == one.read_diagnostics()["n_steps"].tolist()
