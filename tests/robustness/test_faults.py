"""A full disk, folders that can't be written, no memory, a clock that jumps: an error with a remedy, and a run that
goes on once the cause is gone."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from conftest import ROOT, Place, Run, Runs, Strike, wait_until, workers_of
from neuralop_bench.records import run_directory
from neuralop_bench.records.record import RunRecord
from neuralop_bench.status import states


def _assert_explained(run: Run, *words: str) -> None:
    assert run.status == 1, (run.status, run.err[-2000:])
    assert run.err.count("Error: ") == 1, run.err
    assert "Traceback" not in run.err
    assert "Exception ignored" not in run.err
    for word in words:
        assert word in run.err, run.err


def _assert_completed(run: Run, place: Place, alone: Place) -> None:
    assert run.status == 0, run.err
    assert (place.record.metrics, place.record.data) == (alone.record.metrics, alone.record.data)
    assert not [*place.root.rglob("*.tmp"), *place.root.rglob(".shards"), *place.outputs.rglob("failure.json")]


# Every file that a run writes, in its order, and sizes at which its disk is full: at once, and half way.
_WRITES = [
    *(("train-00000.npz", 0), ("valid-00000.npz", 300_000), ("ns2d.hdf5", 0), ("ns2d.hdf5", 300_000)),
    *(("generation.json", 10), ("run.yaml", 10), ("best.pt", 0), ("best.pt", 100_000), ("curve.csv", 10)),
    *(("last.pt", 0), ("last.pt", 100_000), ("errors.nc", 0), ("errors.nc", 1000), ("report.md", 10)),
    *(("*.png", 0), ("*.png", 10_000), ("record.json", 0), ("record.json", 1000)),
]
_BOARD = [("runs.csv", 0), ("leaderboard.csv", 100), ("leaderboard.md", 10)]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_disk_that_is_full_at_any_write_stops_the_run_with_a_reason(runs: Runs, alone: Place, place: Place) -> None:
    # A limit on the size of files makes the system refuse the write itself, whichever library writes.
    for name, size in _WRITES:
        strike = ("limit_file", {"name": name, "size": size})
        run = runs.finish(*place.arguments(), strikes=(strike,), figures=True)
        _assert_explained(run, "can't be written: file too large", "Free some space", "paths.outputs")
        assert str(place.data if name.endswith(("npz", "hdf5", "generation.json")) else place.outputs) in run.err
        assert not list(place.root.rglob("*.tmp"))
        assert not list(place.outputs.rglob("record.json"))
        (where,) = states(place.outputs).values()
        if name == "run.yaml" and not where.command:
            continue  # nothing is known of the run yet
        assert where.progress == "failed"
        assert "can't be written: file too large" in where.reason
        assert where.command
    run = runs.finish(*place.arguments())
    _assert_completed(run, place, alone)


@pytest.mark.exhaustive
def test_a_disk_that_is_full_at_the_board_leaves_a_finished_run(runs: Runs, alone: Place, place: Place) -> None:
    for name, size in _BOARD:
        run = runs.finish(*place.arguments(), strikes=(("limit_file", {"name": name, "size": size}),))
        assert run.status == 0
        assert "Warning: the run is done, but the leaderboard wasn't rebuilt" in run.err
        assert f"{name} can't be written: file too large" in run.err
        (where,) = states(place.outputs).values()
        assert where.progress == "finished"
    run = runs.finish(*place.arguments())
    _assert_completed(run, place, alone)
    assert (place.outputs / "leaderboard" / "leaderboard.csv").exists()


def _mount(folder: Path, size_kib: int, *options: str) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size_kib}k", *options]), "tmpfs", str(folder)]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mount(folder, 16):
        pytest.skip("no right to mount a file system; the tests with a limit on file sizes cover every write")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small_for_the_data_is_known_before_anything_is_made(
    runs: Runs, small_disk: Path, place: Place
) -> None:
    run = runs.finish(*place.arguments(), f"paths.data={small_disk}")
    _assert_explained(run, "Generating the data needs about 1.5 MiB", "Choose another folder with paths.data")
    assert not list(small_disk.iterdir())


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_disk_that_grows_too_slowly_is_reported_again_and_again_until_it_suffices(
    runs: Runs, alone: Place, small_disk: Path, tmp_path: Path
) -> None:
    # First outputs on the small disk, then data: whatever is the first to be too large for it fails.
    for part, first in (("outputs", 16), ("data", 200)):
        place = Place(tmp_path / part)
        failed: list[str] = []
        for step in range(12):
            size = int(first * 2.2**step)
            subprocess.run(["mount", "-o", f"remount,size={size}k", small_disk], check=True)
            folders = (f"paths.{part}={small_disk / part}",)
            run = runs.finish(*place.arguments(), *folders, strikes=(("without_foresight", {}),))
            if run.status == 0 and "Warning" not in run.err:
                break
            assert not list(small_disk.rglob("*.tmp"))
            if run.status == 0:
                assert "the leaderboard wasn't rebuilt" in run.err
                assert "no space is left" in run.err
                continue
            assert run.status == 1, (run.status, run.err)
            assert "Traceback" not in run.err
            error = run.err.strip().splitlines()[-1]
            assert "can't be written: no space is left" in error, error
            assert "Free some space" in error
            failed.append(Path(error.partition(" can't be written")[0]).name)
        else:
            pytest.fail(f"{size} KiB didn't suffice: {run.err}")
        assert len(failed) > 1, failed
        (record,) = [*place.outputs.rglob("record.json"), *small_disk.rglob("record.json")]
        assert RunRecord.load(record).metrics == alone.record.metrics
        shutil.rmtree(small_disk / part)


# Folders that can't be written ----------------------------------------------------------------------------------------


@pytest.fixture
def locked() -> Iterator[list[Path]]:
    """Folders put in here can't be written until the test ends."""
    folders: list[Path] = []
    yield folders
    for folder in folders:
        folder.chmod(0o755)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "which", ["run directory", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("data", "outputs"))]
)
def test_folders_that_cannot_be_written_are_named(
    runs: Runs, alone: Place, place: Place, locked: list[Path], which: str
) -> None:
    place.data.mkdir()
    folder = {"data": place.data, "outputs": place.outputs}.get(
        which, place.outputs / alone.run_directory.relative_to(alone.outputs)
    )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o555)
    locked.append(folder)
    strikes: tuple[Strike, ...] = (("without_privileges", {}),) if os.getuid() == 0 else ()
    run = runs.finish(*place.arguments(), strikes=strikes)
    _assert_explained(run, str(folder), "can't be written: permission denied", "choose other folders with paths.data")
    folder.chmod(0o755)
    _assert_completed(runs.finish(*place.arguments(), strikes=strikes), place, alone)


@pytest.mark.exhaustive
def test_a_finished_run_can_be_looked_at_where_nothing_can_be_written(
    runs: Runs, place: Place, locked: list[Path]
) -> None:
    assert runs.finish(*place.arguments()).status == 0
    for folder in (place.run_directory, place.outputs / "leaderboard", place.outputs, place.data):
        folder.chmod(0o555)
        locked.append(folder)
    strikes: tuple[Strike, ...] = (("without_privileges", {}),) if os.getuid() == 0 else ()
    run = runs.finish(*place.arguments(), strikes=strikes)
    assert run.status == 0, run.err
    assert "This run is done" in run.out
    assert "relative L2 (mean)" in run.out
    assert "the leaderboard wasn't rebuilt" in run.err


@pytest.mark.exhaustive
def test_a_disk_that_is_mounted_read_only_is_named(runs: Runs, small_disk: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    run = runs.finish(*place.arguments(), f"paths.outputs={small_disk}")
    _assert_explained(run, str(small_disk), "can't be written: read-only file system", "choose other folders")
    subprocess.run(["mount", "-o", "remount,rw,size=32m", small_disk], check=True)
    run = runs.finish(*place.arguments(), f"paths.outputs={small_disk}")
    assert run.status == 0, run.err


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_training_without_memory_is_explained_and_goes_on(runs: Runs, alone: Place, place: Place) -> None:
    run = runs.finish(*place.arguments(), strikes=(("exhaust_at_step", {"count": 20}),))
    _assert_explained(run, "Out of memory. Lower trainer.batch_size")
    (where,) = states(place.outputs).values()
    assert where.progress == "failed"
    assert where.reason.startswith("Out of memory.")
    assert where.reason.endswith("(1 of 2 epochs done)")
    run = runs.finish(*shlex.split(where.command)[2:])
    assert "Resuming" in run.out
    _assert_completed(run, place, alone)


@pytest.mark.exhaustive
def test_a_solver_without_memory_is_explained(runs: Runs, alone: Place, place: Place) -> None:
    run = runs.finish(*place.arguments(), strikes=(("exhaust_in_solver", {}),))
    _assert_explained(run, "There isn't enough memory to generate the data", "workers=1", "dataset.problem.resolution")
    _assert_completed(runs.finish(*place.arguments()), place, alone)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_workers_that_memory_does_not_suffice_for_are_explained(runs: Runs, alone: Place, place: Place) -> None:
    limit = ("limit_memory_of_workers", {"size": 150 * 2**20})
    run = runs.finish(*place.arguments("workers=2"), strikes=(limit,))
    assert run.status == 1
    assert "Error: A worker process died, perhaps for lack of memory. Run the same command again" in run.err
    assert "workers=1" in run.err
    _assert_completed(runs.finish(*place.arguments()), place, alone)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_worker_that_the_system_killed_is_explained_and_its_shards_are_kept(runs: Runs, place: Place) -> None:
    size = ("workers=2", "splits.train=640", "trainer.epochs=1")
    run = runs.start(*place.arguments(*size))
    wait_until(lambda: any(place.data.rglob("train-*.npz")), run)
    os.kill(workers_of(run.pid)[0], signal.SIGKILL)
    assert run.wait() == 1
    _assert_explained(run, "A worker process died, perhaps for lack of memory", "workers=1")
    (where,) = states(place.outputs).values()
    assert where.progress == "failed"
    assert where.reason.startswith("A worker process died")
    kept = {path: path.stat().st_mtime_ns for path in place.data.rglob("train-*.npz")}
    assert 0 < len(kept) < 40
    run = runs.start(*place.arguments(*size))
    wait_until(lambda: len(list(place.data.rglob("train-*.npz"))) > len(kept), run)
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    run.send(signal.SIGKILL)
    run.wait()


# The clock ------------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.parametrize("days", [1.0, -1.0])
def test_a_clock_that_jumps_during_a_run_changes_nothing(runs: Runs, alone: Place, place: Place, days: float) -> None:
    run = runs.finish(*place.arguments(), strikes=(("jump_clock", {"days": days, "at_step": 10}),))
    _assert_completed(run, place, alone)
    for name in ("train_seconds", "generation_seconds"):
        assert 0 < (place.record.cost[name] or 0) < 3600
    assert 0 < place.record.wall_seconds < 3600


@pytest.mark.exhaustive
@pytest.mark.parametrize("days", [1.0, -1.0])
def test_a_clock_that_jumps_between_runs_changes_nothing(runs: Runs, alone: Place, place: Place, days: float) -> None:
    stop = ("stop_at_step", {"count": 20, "signum": signal.SIGTERM})
    assert runs.finish(*place.arguments(), strikes=(stop,)).status == 143
    jump = ("jump_clock", {"days": days})
    _assert_completed(runs.finish(*place.arguments(), strikes=(jump,)), place, alone)
    run = runs.finish(*place.arguments())
    assert run.status == 0
    expected = "which is in the future by this machine's clock" if days > 0 else "made 24.0 hours ago"
    assert expected in run.out.replace("1.0 days", "24.0 hours")


def test_runs_moved_aside_in_one_second_of_a_clock_that_stands_still_are_all_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Standing(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            del tz
            return datetime(2026, 1, 1, tzinfo=UTC)

    monkeypatch.setattr(run_directory, "datetime", Standing)
    for number in range(3):
        folder = tmp_path / "smoke" / "seed=0"
        folder.mkdir(parents=True)
        (folder / "record.json").write_text(str(number))
        run_directory.move_aside(folder, tmp_path)
    kept = (tmp_path / run_directory.SUPERSEDED).rglob("record.json")
    assert sorted(path.read_text() for path in kept) == ["0", "1", "2"]


# Status ---------------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_command_that_status_prints_completes_the_run_as_it_is_printed(
    runs: Runs, alone: Place, place: Place
) -> None:
    stop = ("stop_at_step", {"count": 20, "signum": signal.SIGTERM})
    assert runs.finish(*place.arguments(), strikes=(stop,)).status == 143
    status = [sys.executable, "-m", "neuralop_bench.status", str(place.outputs)]
    told = subprocess.run(status, capture_output=True, text=True, cwd=ROOT, check=False)
    assert told.returncode == 3, "something is left to do"
    assert told.stdout.startswith("resumable ")
    (command,) = [line.partition("-> ")[2] for line in told.stdout.splitlines() if "-> " in line]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, shell=True, cwd=ROOT, env=environment, check=True, capture_output=True, timeout=120)
    assert place.record.metrics == alone.record.metrics
    told = subprocess.run(status, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (told.returncode, told.stdout.split()[0]) == (0, "finished")
    assert "->" not in told.stdout
