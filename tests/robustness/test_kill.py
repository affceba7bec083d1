"""SIGKILL at any moment: the same command completes the run, with the numbers of a run that nobody disturbed."""

from __future__ import annotations

import csv
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
import torch
import xarray as xr

from conftest import ROOT, Place, Run, Runs
from data_gen.store import DatasetFile
from neuralop_bench.config.compose import compose
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runs import plan
from neuralop_bench.status import states

PHASES = ("generation", "training", "checkpoint", "evaluation", "board")


def _phase(place: Place) -> str:
    """What a process was doing when it was killed, told from what it left."""
    left = {path.name for path in place.root.rglob(".*.tmp")}
    if any(name.startswith((".last.pt", ".best.pt", ".curve.csv")) for name in left):
        return "checkpoint"
    if any(place.outputs.rglob("record.json")):
        return "board"
    if len(list(place.data.rglob("*.hdf5"))) < 3:
        return "generation"
    (curve,) = [*place.outputs.rglob("curve.csv")] or [None]
    return "evaluation" if curve is not None and len(_rows(curve)) == 2 else "training"


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as handle:
        return list(csv.DictReader(handle))


def _assert_nothing_half_written_passes(place: Place) -> None:
    for path in place.data.rglob("*.hdf5"):
        with DatasetFile(path) as file:
            file.sha256()
    for path in place.outputs.rglob("record.json"):
        assert RunRecord.load(path).status == "finished"
    for name in ("leaderboard.csv", "runs.csv"):
        for path in place.outputs.rglob(name):
            assert all(None not in row and None not in row.values() for row in _rows(path)), f"{path} is cut"
            assert path.read_bytes().endswith(b"\r\n")
    for folder, where in states(place.outputs).items():
        finished = (folder / "record.json").exists()
        assert where.progress == ("finished" if finished else "resumable"), where
        assert bool(where.command) is not finished


def _assert_equal_runs(one: Place, other: Place) -> None:
    """Bit for bit, wherever no time is measured."""
    a, b = one.record, other.record
    for name in ("run_id", "status", "metrics", "metric_versions", "data", "config_hash"):
        assert getattr(a, name) == getattr(b, name), name
    assert a.cost["generation_seconds"] is not None
    first, second = one.run_directory, other.run_directory
    weights, others = (torch.load(folder / "best.pt", weights_only=True)["model"] for folder in (first, second))
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    # The table of costs comes last.
    tables, same_tables = ((folder / "report.md").read_text().partition("**Cost**")[0] for folder in (first, second))
    assert tables == same_tables
    with (
        xr.open_dataset(first / "errors.nc", engine="h5netcdf") as errors,
        xr.open_dataset(second / "errors.nc", engine="h5netcdf") as same,
    ):
        assert errors.identical(same)
    curves = [
        [{k: v for k, v in row.items() if k != "seconds"} for row in _rows(f / "curve.csv")] for f in (first, second)
    ]
    assert curves[0] == curves[1]
    for path in one.data.rglob("*.hdf5"):
        assert path.read_bytes() == (other.data / path.relative_to(one.data)).read_bytes()
    (row,), (same_row,) = (_rows(place.outputs / "leaderboard" / "leaderboard.csv") for place in (one, other))
    assert row["rel_l2_mean"] == same_row["rel_l2_mean"]
    assert not [*other.root.rglob("*.tmp"), *other.root.rglob("*.npz"), *other.root.rglob(".shards")]


# Every write of a run in its order, and how many files of the name there are to choose from.
_WRITES = [
    *(("train-00000.npz", "half"), ("valid-00000.npz", "after"), ("ns2d.hdf5", "half"), ("ns2d.hdf5", "after")),
    *(
        ("generation.json", "half"),
        ("ns2d.hdf5", "before"),
        ("generation.json", "after"),
        ("generation.json", "after"),
        ("run.yaml", "half"),
    ),
    *(("last.pt", "half"), ("last.pt", "after"), ("best.pt", "half"), ("best.pt", "after"), ("curve.csv", "half")),
    *(
        ("curve.csv", "after"),
        ("last.pt", "before"),
        ("best.pt", "after"),
        ("errors.nc", "half"),
        ("errors.nc", "after"),
    ),
    *(("report.md", "half"), ("*.png", "half"), ("*.png", "after"), ("record.json", "half"), ("record.json", "before")),
    *(("record.json", "after"), ("runs.csv", "half"), ("leaderboard.csv", "half"), ("leaderboard.csv", "after")),
    ("leaderboard.md", "half"),
]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_run_killed_at_every_one_of_its_writes_ends_as_if_nothing_had_been(
    runs: Runs, alone: Place, place: Place
) -> None:
    for name, stage in _WRITES:
        # Of the checkpoints not the first, so that each attempt gets a little further.
        nth = 5 if name == "last.pt" else 1
        strike = ("kill_at_replace", {"name": name, "stage": stage, "count": nth})
        run = runs.finish(*place.arguments(), strikes=(strike,), figures=True)
        assert run.status == -signal.SIGKILL, f"{name} was not written: {run.err}"
        assert any(place.root.rglob(f".{name}.*.tmp")) == (stage != "after")
        _assert_nothing_half_written_passes(place)
    run = runs.finish(*place.arguments())
    assert run.status == 0, run.err
    _assert_equal_runs(alone, place)


# How far a run has got, and for which share of a run's duration it may go on from there.
_MARKS: list[tuple[Callable[[Place], bool], float]] = [
    (lambda place: place.root.exists(), 0.2),
    (lambda place: any(place.data.rglob("*.npz")), 0.1),
    (lambda place: len(list(place.data.rglob("*.hdf5"))) == 3, 0.2),
    (lambda place: any(place.outputs.rglob("curve.csv")), 0.2),
    (lambda place: any(place.outputs.rglob("report.md")), 0.2),
    (lambda place: any(place.outputs.rglob("record.json")), 0.01),
]


@pytest.mark.slow
@pytest.mark.exhaustive
def test_thirty_kills_at_random_moments_change_no_bit(runs: Runs, alone: Place, tmp_path: Path) -> None:
    rng = random.Random(0)
    started = time.monotonic()
    run = runs.finish(*Place(tmp_path / "timed").arguments())
    duration = time.monotonic() - started
    assert run.status == 0, run.err
    phases: Counter[str] = Counter()
    chains = 0
    while sum(phases.values()) < 30:
        place = Place(tmp_path / str(chains))
        place.root.mkdir()
        chains += 1
        for attempt in count():
            run = runs.start(*place.arguments())
            if sum(phases.values()) < 30 and attempt < len(_MARKS):
                # One attempt after the other gets further: some random time after each of the marks.
                reached, share = _MARKS[attempt]
                while run.status is None and not reached(place):
                    time.sleep(0.002)
                deadline = time.monotonic() + duration * share * rng.random()
                while run.status is None and time.monotonic() < deadline:
                    time.sleep(0.002)
                run.send(signal.SIGKILL)
            if run.wait() == 0:
                break
            assert run.status == -signal.SIGKILL, run.err
            if place.outputs.exists():
                phases[_phase(place)] += 1
                _assert_nothing_half_written_passes(place)
        _assert_equal_runs(alone, place)
    print(f"{chains} runs killed {dict(phases)}")
    assert {"generation", "training", "evaluation"} <= set(phases), phases
    assert max(phases.values()) <= 20, f"hardly more than one phase was hit: {phases}"


def _typed(place: Place, *overrides: str) -> subprocess.Popen[str]:
    """``python run.py ...``, typed in a terminal of its own."""
    return subprocess.Popen(
        [sys.executable, "run.py", *place.arguments(*overrides)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_workers_of_a_killed_generation_die_with_it(place: Place) -> None:
    size = ("workers=2", "splits.train=320", "trainer.epochs=1")
    process = _typed(place, *size)
    deadline = time.monotonic() + 120
    while not any(place.data.rglob("train-*.npz")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    # The pipes close when nobody holds them any more: workers that outlived their parent would let this time out.
    process.communicate(timeout=60)
    kept = len(list(place.data.rglob("train-*.npz")))
    assert 0 < kept < 20, "killed in the middle"
    assert not list(place.data.rglob("*.hdf5"))


@pytest.mark.exhaustive
def test_the_phase_is_read_from_what_a_kill_left(runs: Runs, place: Place) -> None:
    # The distribution over phases above is worth what this tells.
    expected = {
        "valid-00000.npz": "generation",
        "last.pt": "checkpoint",
        "errors.nc": "evaluation",
        "leaderboard.csv": "board",
    }
    for name, phase in expected.items():
        strike = ("kill_at_replace", {"name": name, "stage": "before"})
        run: Run = runs.finish(*place.arguments("trainer.epochs=2"), strikes=(strike,))
        assert run.status == -signal.SIGKILL
        assert _phase(place) == phase


def test_shards_that_are_there_need_no_room_again(runs: Runs, place: Place) -> None:
    # A disk that was large enough for a generation must be large enough to go on with it.
    cfg = compose(*place.arguments())
    before = plan.make(cfg).missing_bytes
    strike = ("kill_at_replace", {"name": "ns2d.hdf5", "stage": "before"})
    assert runs.finish(*place.arguments(), strikes=(strike,)).status == -signal.SIGKILL
    shards = sum(path.stat().st_size for path in place.data.rglob("*.npz"))
    assert shards > before // 2
    assert plan.make(cfg).missing_bytes == max(0, before - shards)
