"""Several processes at once: one generates, each trains, and the board holds them all."""

from __future__ import annotations

import csv
import multiprocessing
import signal
from pathlib import Path

import pytest
from helpers.finishing import finish_runs

from conftest import Place, Runs, wait_until
from data_gen.store import DatasetFile
from neuralop_bench import leaderboard
from neuralop_bench.records.record import RunRecord
from neuralop_bench.status import states


def _board(place: Place) -> list[dict[str, str]]:
    with open(place.outputs / "leaderboard" / "leaderboard.csv", newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_eight_processes_on_an_empty_cache_generate_once_and_give_eight_runs(
    runs: Runs, place: Place, tmp_path: Path
) -> None:
    solved = tmp_path / "solved"
    count = ("count_solved_shards", {"file": str(solved)})
    short = ("trainer.epochs=1",)
    together = [runs.start(*place.arguments(*short, f"seed={seed}"), strikes=(count,)) for seed in range(8)]
    for run in together:
        assert run.wait(300) == 0, run.err
    solvers = solved.read_text().split()
    assert len(solvers) == 3, "three splits of one shard each"
    assert len(set(solvers)) == 1
    assert sum("Waiting for another process" in run.err for run in together) == 7
    records = {record.seed: record for path in place.outputs.rglob("record.json") for record in [RunRecord.load(path)]}
    assert sorted(records) == list(range(8))
    (row,) = _board(place)
    assert (row["n_seeds"], row["seeds"]) == ("8", "0;1;2;3;4;5;6;7")
    assert len({record.metrics["rel_l2"] for record in records.values()}) == 8
    # Two of them again, by themselves, on data made by themselves.
    by_itself = Place(tmp_path / "by_itself")
    for seed in (0, 7):
        run = runs.finish(*by_itself.arguments(*short, f"seed={seed}"))
        assert run.status == 0, run.err
    for path in by_itself.outputs.rglob("record.json"):
        record = RunRecord.load(path)
        assert (record.metrics, record.data) == (records[record.seed].metrics, records[record.seed].data)


@pytest.mark.exhaustive
def test_locks_of_dead_processes_do_not_block(runs: Runs, alone: Place, place: Place) -> None:
    data = place.data / next(alone.data.iterdir()).name
    folder = place.outputs / alone.run_directory.relative_to(alone.outputs)
    for lock in (data / ".lock", folder / ".lock", place.outputs / "leaderboard" / ".lock"):
        lock.parent.mkdir(parents=True)
        lock.write_text("999999999\n")
    run = runs.finish(*place.arguments())
    assert run.status == 0, run.err
    assert place.record.metrics == alone.record.metrics


@pytest.mark.exhaustive
@pytest.mark.parametrize("more", [("force=true",), pytest.param((), marks=pytest.mark.exhaustive)])
def test_a_run_at_work_is_left_alone(runs: Runs, alone: Place, place: Place, more: tuple[str, ...]) -> None:
    first = runs.start(*place.arguments())
    wait_until(lambda: any(place.outputs.rglob("run.yaml")), first)
    first.send(signal.SIGSTOP)  # so that it is at work for as long as this takes
    (where,) = states(place.outputs).values()
    assert where.progress == "running"
    second = runs.finish(*place.arguments(*more))
    first.send(signal.SIGCONT)
    assert second.status == 1
    assert f"Another process is working on this run in {place.run_directory}" in second.err
    assert "Wait for it, or stop it" in second.err
    assert first.wait() == 0, first.err
    assert place.record.metrics == alone.record.metrics
    assert not (place.outputs / ".superseded").exists()


@pytest.mark.exhaustive
def test_a_file_is_not_taken_from_under_its_reader(runs: Runs, place: Place) -> None:
    # A longer file replaces the one that another process holds open.
    run = runs.finish(*place.arguments("trainer.epochs=1"))
    assert run.status == 0, run.err
    (path,) = place.data.rglob("train/*.hdf5")
    with DatasetFile(path) as file:
        before = file.read_states(slice(0, 8)).tobytes()
        run = runs.finish(*place.arguments("trainer.epochs=1", "splits.train=20"))
        assert run.status == 0, run.err
        assert file.read_states(slice(0, 8)).tobytes() == before
        assert file.n_samples == 16
    with DatasetFile(path) as file:
        assert file.n_samples == 20


@pytest.mark.exhaustive
def test_runs_that_finish_at_once_all_reach_the_board(alone: Place, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    alone.record.save(tmp_path / "first.json")
    start = context.Barrier(9)
    finishing = [context.Process(target=finish_runs, args=(str(tmp_path), seed, start)) for seed in range(8)]
    for process in finishing:
        process.start()
    start.wait(60)
    board, seen = tmp_path / "leaderboard" / "leaderboard.csv", [0]
    while any(process.is_alive() for process in finishing):
        leaderboard.rebuild(tmp_path)  # somebody else builds it all the while
        with open(board, newline="") as handle:  # and it is whole whenever it is read
            rows = list(csv.DictReader(handle))
        assert len(rows) <= 1
        seen += [int(row["n_seeds"]) for row in rows]
    assert [process.exitcode for process in finishing] == [0] * 8
    assert seen == sorted(seen), "no row is lost once it is there"
    with open(board, newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert sorted(map(int, row["seeds"].split(";"))) == list(range(32))
