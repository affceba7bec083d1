"""A dataset made in parts: on several machines that know nothing of each other but the files."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from helpers.processes import FORKSERVER

from data_gen.generation import cache, ledger
from data_gen.generation.certificate import CertificateError
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import Problem, Samples
from data_gen.store import DatasetFile

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=8, oversampling=1.0, n_snapshots=2)
SPLITS = {"train": 70, "test": 20}  # five shards and two, and two certificates


@dataclass(frozen=True)
class Gated(NavierStokes2D):
    """Solves nothing until the file ``gate`` exists, and notes in its folder who solves."""

    gate: str = ""

    def simulate(self, rngs: Sequence[np.random.Generator]) -> Samples:
        gate = Path(self.gate)
        (gate.parent / f"at-work-{os.getpid()}").touch()
        while not gate.exists():
            time.sleep(0.01)
        with open(gate.parent / f"solved-{os.getpid()}", "a") as note:
            note.write(f"{len(rngs)}\n")
        return super().simulate(rngs)


def _gated(folder: Path) -> Gated:
    return Gated(viscosity=1e-3, resolution=8, oversampling=1.0, n_snapshots=2, gate=str(folder / "open"))


def _part(root: Path, part: int, n_parts: int, problem: Problem = PROBLEM, **splits: int) -> None:
    cache.solve_part(problem, splits or SPLITS, 0, root, part=part, n_parts=n_parts, workers=1)


def _ensure(root: Path, problem: Problem = PROBLEM, **splits: int) -> dict[str, Path]:
    return cache.ensure(problem, splits or SPLITS, 0, root, workers=1)


def _start(root: Path, part: int, n_parts: int, problem: Problem = PROBLEM, **splits: int):
    process = FORKSERVER.Process(target=_part, args=(root, part, n_parts, problem), kwargs=splits)
    process.start()
    return process


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def _bytes(paths: dict[str, Path]) -> dict[str, bytes]:
    return {split: path.read_bytes() for split, path in paths.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files as one machine makes them."""
    return _bytes(_ensure(tmp_path_factory.mktemp("one_machine")))


@pytest.fixture
def solved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | str]]:
    """What this process solves."""
    calls: list[tuple[str, int | str]] = []
    solve, measure = cache._solve_shard, cache._measure

    def recording_solve(problem: Problem, seed: int, split: str, shard: int, path: Path) -> None:
        calls.append((split, shard))
        solve(problem, seed, split, shard, path)

    def recording_measure(work: cache._Request, split: str) -> object:
        calls.append((split, "certificate"))
        return measure(work, split)

    monkeypatch.setattr(cache, "_solve_shard", recording_solve)
    monkeypatch.setattr(cache, "_measure", recording_measure)
    return calls


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A folder whose file ``open`` lets ``Gated`` problems go on; opened at the end, so that nothing hangs."""
    folder = tmp_path / "gate"
    folder.mkdir()
    yield folder
    (folder / "open").touch()


@pytest.mark.parametrize("n_parts", [1, 2, 3, 20])
def test_parts_together_are_the_whole(
    tmp_path: Path, whole: dict[str, bytes], solved: list[tuple[str, int | str]], n_parts: int
) -> None:
    shares = []
    for part in reversed(range(n_parts)):
        _part(tmp_path, part, n_parts)
        shares.append(solved.copy())
        solved.clear()
    everything = [entry for share in shares for entry in share]
    assert len(everything) == len(set(everything)) == 9, "nothing is solved twice"
    assert max(map(len, shares)) - min(map(len, shares)) <= 1, "the parts are of one size"
    assert not list(tmp_path.rglob("*.hdf5"))
    paths = _ensure(tmp_path)
    assert solved == [], "nothing is left to be solved"
    assert _bytes(paths) == whole
    left = {path.name for path in cache.folder(PROBLEM, 0, tmp_path).iterdir()}
    assert left == {"train", "test", "generation.json", ".lock"}
    assert (ledger.generation_seconds(paths["train"]) or 0) > 0


def test_the_certificate_of_a_split_belongs_to_one_part(tmp_path: Path, solved: list[tuple[str, int | str]]) -> None:
    found = []
    for part in range(4):
        _part(tmp_path, part, 4)
        found += [(part, split) for split, what in solved if what == "certificate"]
        solved.clear()
    assert found == [(0, "train"), (2, "test")]


def test_a_part_that_was_left_out_is_made_up_for(
    tmp_path: Path, whole: dict[str, bytes], solved: list[tuple[str, int | str]]
) -> None:
    _part(tmp_path, 1, 3)
    solved.clear()
    assert _bytes(_ensure(tmp_path)) == whole
    assert len(solved) == 6


def test_a_part_that_has_been_solved_is_not_solved_again(tmp_path: Path, solved: list[tuple[str, int | str]]) -> None:
    _part(tmp_path, 1, 2)
    (shard,) = [path for path in tmp_path.rglob("*.npz") if "00002" in path.name]
    shard.write_bytes(shard.read_bytes()[:-100])  # what a crash left damaged
    solved.clear()
    _part(tmp_path, 1, 2)
    assert solved == [("train", 2)]


def test_parts_make_a_shorter_file_longer(
    tmp_path: Path, whole: dict[str, bytes], solved: list[tuple[str, int | str]]
) -> None:
    _ensure(tmp_path, train=20)
    solved.clear()
    for part in range(2):
        _part(tmp_path, part, 2)
    shards = [("train", shard) for shard in range(1, 5)]
    assert sorted(solved, key=str) == sorted([*shards, ("test", 0), ("test", 1), ("test", "certificate")], key=str)
    assert _bytes(_ensure(tmp_path)) == whole


def test_nothing_is_done_for_data_that_are_there(tmp_path: Path, solved: list[tuple[str, int | str]]) -> None:
    _ensure(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    solved.clear()
    _part(tmp_path, 0, 2)
    assert solved == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("part", "n_parts"), [(2, 2), (-1, 2), (0, 0)])
def test_there_is_no_such_part(tmp_path: Path, part: int, n_parts: int) -> None:
    with pytest.raises(ValueError, match=f"There is no part {part} of {n_parts}"):
        _part(tmp_path, part, n_parts)
    assert list(tmp_path.iterdir()) == []


def test_the_part_that_measures_finds_data_too_inaccurate(tmp_path: Path) -> None:
    for part in (0, 1):
        arguments = {"part": part, "n_parts": 2, "workers": 1, "tolerance": 1e-12}
        if part == 0:
            with pytest.raises(CertificateError, match=r"train: .*dataset\.tolerance"):
                cache.solve_part(PROBLEM, {"train": 20}, 0, tmp_path, **arguments)
        else:
            cache.solve_part(PROBLEM, {"train": 20}, 0, tmp_path, **arguments)
    assert [path.name for path in tmp_path.rglob("*.npz")] == ["train-00000.npz"], "part 0 solved none"


# Side by side --------------------------------------------------------------------------------------------------------


def test_parts_at_once_and_the_whole_in_the_end(tmp_path: Path, whole: dict[str, bytes]) -> None:
    processes = [_start(tmp_path, part, 2) for part in range(2)]
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(tmp_path.rglob("*.npz"))) == 7
    assert _bytes(_ensure(tmp_path)) == whole


def test_the_whole_waits_for_a_part_at_work(
    tmp_path: Path, gate: Path, capsys: pytest.CaptureFixture[str], solved: list[tuple[str, int | str]]
) -> None:
    problem, paths = _gated(gate), {}
    part = _start(tmp_path, 1, 2, problem, train=20)  # shard 0
    _wait_until(lambda: any(gate.glob("at-work-*")))
    waiting = threading.Thread(target=lambda: paths.update(_ensure(tmp_path, problem, train=20)))
    waiting.start()
    try:
        waiting.join(0.5)
        assert waiting.is_alive()
        assert solved == [], "the part may be about to solve just that"
    finally:
        (gate / "open").touch()
        waiting.join(60)
        part.join(60)
    assert part.exitcode == 0
    assert solved == [("train", "certificate"), ("train", 1)]
    assert "Waiting for another process that solves a part" in capsys.readouterr().err
    with DatasetFile(paths["train"]) as file:
        assert file.n_samples == 20


def test_a_part_that_is_killed_blocks_nobody(tmp_path: Path, gate: Path, solved: list[tuple[str, int | str]]) -> None:
    problem = _gated(gate)
    part = _start(tmp_path, 1, 2, problem, train=20)
    _wait_until(lambda: any(gate.glob("at-work-*")))
    part.kill()
    part.join(60)
    (gate / "open").touch()
    path = _ensure(tmp_path, problem, train=20)["train"]
    assert solved == [("train", "certificate"), ("train", 0), ("train", 1)]
    assert not list(path.parent.parent.glob(".part-*"))
    with DatasetFile(path) as file:
        assert file.n_samples == 20
        file.sha256()


def test_the_same_part_twice_is_solved_once(tmp_path: Path, gate: Path) -> None:
    problem = _gated(gate)
    twins = [_start(tmp_path, 0, 1, problem, test=20) for _ in range(2)]
    _wait_until(lambda: any(gate.glob("at-work-*")))
    time.sleep(0.3)
    (gate / "open").touch()
    for twin in twins:
        twin.join(60)
    assert [twin.exitcode for twin in twins] == [0, 0]
    (note,) = gate.glob("solved-*")
    assert note.read_text().split() == ["4", "16", "16"], "the certificate and both shards"


def test_other_parts_go_on_while_one_is_at_work(tmp_path: Path, gate: Path) -> None:
    problem = _gated(gate)
    slow = _start(tmp_path, 1, 3, problem, train=32)
    _wait_until(lambda: any(gate.glob("at-work-*")))
    base = cache.folder(problem, 0, tmp_path)
    other = threading.Thread(target=_part, args=(tmp_path, 2, 3, problem), kwargs={"train": 32})
    other.start()
    _wait_until(lambda: len(list(gate.glob("at-work-*"))) == 2)
    (gate / "open").touch()
    slow.join(60)
    other.join(60)
    assert {path.name for path in base.glob(".shards/*.npz")} == {"train-00000.npz", "train-00001.npz"}


def test_a_part_waits_for_the_process_that_makes_the_whole(tmp_path: Path, solved: list[tuple[str, int | str]]) -> None:
    base = cache.folder(PROBLEM, 0, tmp_path)
    base.mkdir(parents=True)
    lock = FileLock(base / ".lock")
    lock.acquire()
    part = threading.Thread(target=_part, args=(tmp_path, 0, 1), kwargs={"test": 2})
    part.start()
    try:
        part.join(0.3)
        assert part.is_alive()
        assert solved == []
    finally:
        lock.release()
        part.join(60)
    assert ("test", 0) in solved


def test_asking_for_data_that_are_there_disturbs_no_part(tmp_path: Path) -> None:
    # The split is whole, but somebody makes it longer: what lies half written beside it is not a leftover.
    path = _ensure(tmp_path, train=3)["train"]
    scratch = path.parent.parent / ".shards"
    scratch.mkdir()
    half_written = scratch / ".train-00001.npz.abc.tmp"
    half_written.touch()
    lock = FileLock(path.parent.parent / ".part-1-of-2.lock")
    lock.acquire()
    try:
        assert _ensure(tmp_path, train=3)["train"] == path
        assert half_written.exists()
    finally:
        lock.release()
    _ensure(tmp_path, train=3)
    assert not half_written.exists()


def test_parts_of_another_number_are_no_other_dataset(tmp_path: Path, whole: dict[str, bytes]) -> None:
    # Two jobs of four have ended when the user starts all of it again, in three.
    for part, n_parts in ((0, 4), (1, 4), (0, 3), (1, 3), (2, 3)):
        _part(tmp_path, part, n_parts)
    assert _bytes(_ensure(tmp_path)) == whole
