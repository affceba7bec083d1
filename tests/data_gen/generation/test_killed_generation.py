"""Generation that is killed, starved or asked for twice: the next run goes on, and nothing half done is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from data_gen.generation import cache
from data_gen.generation.pool import GenerationError
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import Samples
from data_gen.store import DatasetFile, StoreError

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=16, oversampling=1.0, n_snapshots=2)
N_SAMPLES = 70  # five shards, the last one cut

# Generates PROBLEM, but hangs half way through writing: a shard (the third) or the file.
_HANGING = """
import sys, time
from pathlib import Path
import numpy as np
from data_gen import store
from data_gen.generation import cache
from data_gen.problems.ns2d import NavierStokes2D

root, where, n_samples = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
hash_arrays, savez = store.hash_fields, np.savez
calls = {"shard": 0, "file": 0}

def hang(kind, last):
    calls[kind] += 1
    if where == kind and calls[kind] == last:
        (root / "hanging").touch()
        time.sleep(600)

def hanging_savez(handle, **arrays):
    handle.write(b"PK, but not all of it")
    handle.flush()
    hang("shard", 3)
    handle.seek(0)
    savez(handle, **arrays)

def hanging_hash(arrays):
    hang("file", 3)
    return hash_arrays(arrays)

np.savez, store.hash_fields = hanging_savez, hanging_hash
problem = NavierStokes2D(viscosity=1e-3, resolution=16, oversampling=1.0, n_snapshots=2)
cache.ensure(problem, {"train": n_samples}, 0, root, workers=1)
"""

# Two workers that would solve for ever, each holding a lock for as long as it lives.
_ENDLESS = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
from filelock import FileLock
from data_gen.generation import cache
from data_gen.problems.ns2d import NavierStokes2D

root = Path(sys.argv[1])

@dataclass(frozen=True)
class Endless(NavierStokes2D):
    def simulate(self, rngs):
        lock = FileLock(root / f"{os.getpid()}.lock")
        lock.acquire()
        (root / f"{os.getpid()}.held").touch()
        time.sleep(600)

if __name__ == "__main__":
    cache.ensure(Endless(viscosity=1e-3), {"train": 32}, 0, root / "data", workers=2)
"""


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Poll until the process has come to the point where it is to be killed."""
    deadline = time.monotonic() + 120
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            pytest.fail(f"The process to be killed never got there: {process.communicate()[1][-2000:]}")
        time.sleep(0.01)


def _kill_while_writing(root: Path, kind: str, n_samples: int = N_SAMPLES) -> None:
    command = [sys.executable, "-c", _HANGING, str(root), kind, str(n_samples)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        _wait_until((root / "hanging").exists, process)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
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


def test_workers_do_not_outlive_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(_ENDLESS)
    held: list[Path] = []

    def both_at_work() -> bool:
        held[:] = tmp_path.glob("*.held")
        return len(held) == 2

    command = [sys.executable, str(script), str(tmp_path)]
    # To a file: a pipe would stay open as long as a worker lives.
    with open(tmp_path / "errors", "w+") as errors, subprocess.Popen(command, stderr=errors, text=True) as process:
        try:
            _wait_until(both_at_work, process)
        finally:
            process.kill()
    try:
        for path in held:
            # Released by the system when its holder ends; a worker that goes on makes this time out.
            FileLock(path.with_suffix(".lock")).acquire(timeout=30).lock.release()
    finally:
        for path in held:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.stem), signal.SIGKILL)


@dataclass(frozen=True)
class Mortal(NavierStokes2D):
    """Ends the process that solves it, as a lack of memory would, for as long as the file ``poison`` exists."""

    poison: str = ""

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        if Path(self.poison).exists():
            os._exit(9)
        return super().simulate(rngs)


def test_a_worker_that_dies_is_reported_and_the_next_run_goes_on(tmp_path: Path) -> None:
    poison = tmp_path / "poison"
    poison.touch()
    problem = Mortal(viscosity=1e-3, resolution=16, oversampling=1.0, n_snapshots=2, poison=str(poison))
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
