"""Generation that is killed, starved or asked for twice: the next run goes on, and nothing half done is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from filelock import FileLock
from helpers.processes import FORKSERVER

from data_gen import store
from data_gen.generation import cache, pool
from data_gen.generation.pool import GenerationError
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import Samples
from data_gen.store import DatasetFile, StoreError

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=16, oversampling=1.0, n_snapshots=2)
N_SAMPLES = 70  # five shards, the last one cut


def _generate_and_hang(root: Path, where: str) -> None:
    """Generate PROBLEM, but hang half way through writing: the third shard or the file."""
    hash_fields, savez = store.hash_fields, np.savez
    calls = {"shard": 0, "file": 0}

    def hang(kind: str) -> None:
        calls[kind] += 1
        if where == kind and calls[kind] == 3:
            (root / "hanging").touch()
            time.sleep(600)

    def hanging_savez(handle: IO[bytes], **arrays: Any) -> None:
        handle.write(b"PK, but not all of it")
        handle.flush()
        hang("shard")
        handle.seek(0)
        savez(handle, **arrays)

    def hanging_hash(arrays: store.Fields) -> str:
        hang("file")
        return hash_fields(arrays)

    np.savez, store.hash_fields = hanging_savez, hanging_hash
    _ensure(root)


def _kill_while_writing(root: Path, where: str) -> None:
    process = FORKSERVER.Process(target=_generate_and_hang, args=(root, where))
    process.start()
    deadline = time.monotonic() + 120
    while not (root / "hanging").exists():
        assert process.is_alive(), "the process to be killed ended by itself"
        assert time.monotonic() < deadline, "the process to be killed never got there"
        time.sleep(0.01)
    process.kill()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (root / "hanging").unlink()


def _ensure(root: Path, n_samples: int = N_SAMPLES) -> Path:
    return cache.ensure(PROBLEM, {"train": n_samples}, 0, root, workers=1)["train"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return _ensure(tmp_path_factory.mktemp("uninterrupted")).read_bytes()


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that this process solves."""
    shards: list[int] = []
    original = cache._solve_shard

    def recording(problem: NavierStokes2D, seed: int, split: str, shard: int, path: Path) -> None:
        shards.append(shard)
        original(problem, seed, split, shard, path)

    monkeypatch.setattr(cache, "_solve_shard", recording)
    return shards


def _assert_nothing_is_left(path: Path) -> None:
    """What a killed run left half written is deleted: nothing else would, and it can be as large as the dataset."""
    left = {entry.relative_to(path.parent.parent).as_posix() for entry in path.parent.parent.rglob("*")}
    assert left - {".lock"} == {"generation.json", "train", "train/ns2d.hdf5"}


def test_a_run_killed_while_writing_a_shard_goes_on_with_the_rest(
    tmp_path: Path, solved: list[int], uninterrupted: bytes
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    _kill_while_writing(root, "shard")
    assert [path.name for path in sorted(root.rglob("*.npz"))] == ["train-00000.npz", "train-00001.npz"]
    assert not list(root.rglob("*.hdf5"))
    path = _ensure(root)
    assert path.read_bytes() == uninterrupted
    assert solved == [2, 3, 4], "the shards that were whole are not solved again"
    _assert_nothing_is_left(path)


def test_a_run_killed_while_writing_the_file_keeps_the_old_one_and_all_shards(
    tmp_path: Path, solved: list[int], uninterrupted: bytes
) -> None:
    root = tmp_path / "data"
    path = _ensure(root, 5)
    before = path.read_bytes()
    solved.clear()
    _kill_while_writing(root, "file")
    assert path.read_bytes() == before
    with DatasetFile(path) as file:
        assert file.n_samples == 5
    assert _ensure(root).read_bytes() == uninterrupted
    assert solved == [], "every shard had been solved"
    _assert_nothing_is_left(path)


@dataclass(frozen=True)
class Mortal(NavierStokes2D):
    """Ends the process that solves it, as a lack of memory would, for as long as the file ``poison`` exists."""

    poison: str = ""

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        if Path(self.poison).exists():
            os._exit(9)
        return super().simulate(rngs)


def test_a_worker_that_dies_is_reported_and_the_next_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison = tmp_path / "poison"
    poison.touch()
    problem = Mortal(viscosity=1e-3, resolution=16, oversampling=1.0, n_snapshots=2, poison=str(poison))
    monkeypatch.setattr(pool.multiprocessing, "get_context", lambda _: FORKSERVER)  # starts faster
    with pytest.raises(GenerationError, match="Run the same command again"):
        cache.ensure(problem, {"train": 20}, 0, tmp_path, workers=2)
    poison.unlink()
    path = cache.ensure(problem, {"train": 20}, 0, tmp_path, workers=1)["train"]
    with DatasetFile(path) as file:
        assert file.n_samples == 20
        file.sha256()


def test_one_process_generates_while_the_others_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generating = threading.Event()
    original = cache._generate

    def announcing(*arguments: object) -> None:
        generating.set()
        original(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(cache, "_generate", announcing)
    base = cache.folder(PROBLEM, 0, tmp_path)
    base.mkdir(parents=True)
    other = FileLock(base / ".lock")
    other.acquire()
    waiting = threading.Thread(target=_ensure, args=(tmp_path, 2))
    waiting.start()
    try:
        assert not generating.wait(0.5), "another process holds the lock"
    finally:
        other.release()
        waiting.join(60)
    assert generating.is_set()
    assert "Waiting for another process" in capsys.readouterr().err


def test_what_was_made_while_waiting_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between the first look and the lock another process may have finished: look again before solving.
    acquire = FileLock.acquire

    def overtaken(lock: FileLock, *arguments: object, **options: object) -> object:
        monkeypatch.setattr(FileLock, "acquire", acquire)
        _ensure(tmp_path, 2)
        monkeypatch.setattr(cache, "_solve_shard", lambda *_: pytest.fail("solved a second time"))
        return acquire(lock, *arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(FileLock, "acquire", overtaken)
    assert _ensure(tmp_path, 2).is_file()


def test_a_short_file_becomes_the_beginning_of_a_longer_one(tmp_path: Path, solved: list[int]) -> None:
    # 5 samples are less than a shard, so all of it is solved again, to the same numbers.
    with DatasetFile(_ensure(tmp_path / "grown", 5)) as file:
        first, fingerprint = file.read_states(slice(None)), file.sha256()
    grown = _ensure(tmp_path / "grown", 20)
    assert solved == [0, 0, 1]
    with DatasetFile(grown) as file:
        assert np.array_equal(file.read_states(slice(0, 5)), first)
        assert file.sha256(5) == fingerprint
    assert grown.read_bytes() == _ensure(tmp_path / "fresh", 20).read_bytes()


def test_a_damaged_file_is_not_extended(tmp_path: Path) -> None:
    # The samples to keep are compared with their hash first: damage must not be copied under a new, valid hash.
    path = _ensure(tmp_path, 20)
    content = bytearray(path.read_bytes())
    with DatasetFile(path) as file:
        frame = file.read_states(3)[1, 0].tobytes()
    content[content.index(frame)] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"ns2d\.hdf5 is damaged: samples 0 to 15"):
        _ensure(tmp_path, 40)
    assert path.read_bytes() == content
