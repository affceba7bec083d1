"""Sweeps as a user starts them: what is done isn't launched again, one bad job harms no other, and a table tells."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.command import Told, table, told
from hydra.errors import MissingConfigException

from neuralop_bench import status
from neuralop_bench.config.messages import describe
from neuralop_bench.records.record import RunRecord
from neuralop_bench.records.sweep_file import SweepFile, sweeps

ROOT = Path(__file__).parents[2]
QUICK = ("track=smoke", "dataset=burgers1d", "trainer.epochs=1")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture
def paths(tmp_path: Path, data_folder: Path) -> tuple[str, str]:
    return f"paths.data={data_folder}", f"paths.outputs={tmp_path / 'outputs'}"


@pytest.fixture
def sweep(paths: tuple[str, str]) -> Callable[..., Told]:
    """A sweep in this process."""
    return lambda *arguments: told("-m", *arguments, *paths)


def launched(paths: tuple[str, str], *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A sweep in a process of its own, as launchers of processes want."""
    return subprocess.run(
        [sys.executable, "run.py", "-m", *arguments, *paths],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def records(tmp_path: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("record.json")}


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.usefixtures("no_figures")
def test_a_grid_is_completed_by_any_launcher_and_done_once(
    sweep: Callable[..., Told], paths: tuple[str, str], tmp_path: Path
) -> None:
    grid = ("track=smoke", "model=mean_field,persistence", "dataset=burgers1d,darcy2d")
    first = launched(paths, *JOBLIB, *grid, "seed=0")
    assert first.returncode == 0, first.stderr
    left_out = "model=persistence dataset=darcy2d"
    assert table(first.stdout)[left_out] == "left out"
    assert "3 finished, 1 left out" in first.stdout
    before = records(tmp_path)
    assert len(before) == 3
    # More of it, by another launcher, tried out before.
    more = (*grid, "seed=0,1")
    dry = sweep(*more, "dry_run=true")
    assert dry.status == 0, dry.err
    states = dry.states
    assert [states[f"model=mean_field dataset=burgers1d seed={seed}"] for seed in (0, 1)] == ["finished", "waiting"]
    assert states[f"{left_out} seed=1"] == "left out"
    assert records(tmp_path) == before
    second = sweep(*more)
    assert second.status == 0, second.err
    assert "3 of 8 runs are done already." in second.out
    assert "6 finished, 2 left out" in second.out
    assert before.items() < records(tmp_path).items()
    assert len(records(tmp_path)) == 6
    with open(tmp_path / "outputs" / "leaderboard" / "leaderboard.csv", newline="") as handle:
        assert {row["seeds"] for row in csv.DictReader(handle)} == {"0;1"}
    assert status.main([str(tmp_path / "outputs")]) == 0


def _assert_one_of_three_finished(tmp_path: Path, status: int, out: str, err: str) -> None:
    assert status == 1
    assert len(records(tmp_path)) == 1
    assert table(out) == {
        "model.n_modes=4000": "failed",
        "model.n_modes=4": "finished",
        "model.n_modes=abc": "failed",
    }
    message = err.partition("Error: 2 of 3 jobs didn't finish:")[2]
    assert "model.n_modes=4000: FNO keeps n_modes=4000 per axis, but the grid has 256 points" in message
    assert "model.n_modes=abc: model.n_modes must be of type int" in message
    assert "the same command" in message
    assert "Traceback" not in err


THREE = (*QUICK, "model.n_modes=4000,4,abc")


@pytest.mark.usefixtures("no_figures")
def test_one_failing_job_leaves_the_others_running(sweep: Callable[..., Told], tmp_path: Path) -> None:
    done = sweep(*THREE)
    _assert_one_of_three_finished(tmp_path, done.status, done.out, done.err)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.cluster
def test_one_failing_process_leaves_the_others_running(paths: tuple[str, str], tmp_path: Path) -> None:
    done = launched(paths, *JOBLIB, *THREE)
    _assert_one_of_three_finished(tmp_path, done.returncode, done.stdout, done.stderr)


# Dies, as a process that takes too much memory does, with one of the seeds.
MORTAL = """
import os, signal
import torch

class Mortal(torch.nn.Module):
    resolution_free = True

    def __init__(self, *, in_channels: int, out_channels: int, grid) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        if torch.initial_seed() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.scale * x[:, :1]
"""


@pytest.mark.slow
@pytest.mark.exhaustive  # of Slurm's jobs it is tried in any case
@pytest.mark.cluster
def test_a_killed_job_takes_no_other_with_it(paths: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "mortal.py").write_text(MORTAL)
    model = ("model=external", "model.target=mortal.Mortal", "model.label=mortal", "trust=[mortal]")
    model = (*model, "model.pass={in_channels: in_channels, out_channels: out_channels, grid: grid}")
    done = launched(paths, *JOBLIB, *QUICK, *model, "seed=0,1,2,3", PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert done.returncode == 1
    assert table(done.stdout) == {"seed=0": "finished", "seed=1": "failed", "seed=2": "finished", "seed=3": "finished"}
    assert "seed=1: Its process was killed, most likely for lack of memory. Lower trainer.batch_size" in done.stderr


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_figures")
@pytest.mark.filterwarnings("default")  # optuna's database
def test_optuna_minimises_the_error_on_valid(sweep: Callable[..., Told], tmp_path: Path) -> None:
    axes = ("model.width=choice(4,8)", "optimizer.lr=tag(log,interval(1e-3,2e-2))")
    done = sweep(*QUICK, "hydra/sweeper=optuna", "hydra.sweeper.n_trials=3", *axes)
    assert done.status == 0, done.err
    found = [RunRecord.load(path) for path in records(tmp_path)]
    assert len(found) == 3
    best = min(record.metrics["valid_rel_l2"] or 0 for record in found)
    assert f"Best value: {best}" in done.out


def test_a_missing_launcher_is_named_with_its_extra() -> None:
    for group, name, extra in (
        ("launcher", "joblib", "cluster"),
        ("launcher", "slurm", "cluster"),
        ("sweeper", "optuna", "sweep"),
    ):
        error = MissingConfigException("", f"hydra/{group}/{name}", ["basic"])
        assert f"pip install 'neuralop-bench[{extra}]'" in describe(error)
    assert "neuralop-bench[" not in describe(MissingConfigException("", "model/fnoo", ["fno"]))


def test_status_shows_runs_of_a_sweep_that_have_not_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SweepFile("python run.py -m seed=0,1", "2026-01-01T00:00:00+00:00", ("a/seed=0", "a/seed=1")).save(tmp_path)
    (tmp_path / ".sweeps" / "damaged.json").write_text("{")
    assert status.main([str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "2 runs: 2 waiting" in out
    assert "waiting a/seed=1" in out
    assert "-> python run.py -m seed=0,1" in out
    # The same sweep again replaces the note of the first.
    SweepFile("python run.py -m seed=1,0", "2026-01-02T00:00:00+00:00", ("a/seed=1", "a/seed=0")).save(tmp_path)
    assert [entry.command for entry in sweeps(tmp_path)] == ["python run.py -m seed=1,0"]


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_with_the_same_command(paths: tuple[str, str], tmp_path: Path) -> None:
    arguments = (
        "track=smoke",
        "dataset=burgers1d",
        "trainer.epochs=4000",
        "trainer.checkpoint_seconds=0.01",
        "seed=0,1",
    )
    command = [sys.executable, "run.py", "-m", *arguments, *paths]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        outputs = tmp_path / "outputs"
        while not any(outputs.rglob("last.pt")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 143, out
    assert "the same command continues from there" in out
    found = status.states(outputs)
    assert [where.progress for where in found.values()] == ["resumable"]
    (entry,) = sweeps(outputs)
    assert len(entry.runs) == 2
    text, waits = status.report_sweep(entry, outputs, found)
    assert "1 resumable, 1 waiting" in text
    assert waits


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_figures")
def test_a_sweep_asks_for_what_a_finished_run_lacks(sweep: Callable[..., Told], tmp_path: Path) -> None:
    quick = ("track=smoke", "dataset=burgers1d", "model=mean_field", "seed=0,1")
    assert sweep(*quick).status == 0
    before = records(tmp_path)
    # An evaluation that goes beyond the record, of runs that are finished; the same run twice; and all of it anew.
    further = ("evaluator=thorough", "evaluator.test_splits=[test_half]", "evaluator.ladder=false")
    thorough = (*quick, *further, "device=cpu,auto")
    dry = sweep(*thorough, "dry_run=true")
    assert dry.status == 0, dry.err
    assert dry.states == {
        "seed=0 device=cpu": "waiting",
        "seed=0 device=auto": "left out",
        "seed=1 device=cpu": "waiting",
        "seed=1 device=auto": "left out",
    }
    done = sweep(*thorough)
    assert done.status == 0, done.err
    assert records(tmp_path) == before
    assert len(list((tmp_path / "outputs").rglob("evaluations/thorough*.json"))) == 2
    again = sweep(*thorough, "force=true", "model.nothing=1,2")
    assert again.status == 1
    assert records(tmp_path) == before, "an impossible run takes no good one off the board"
    anew = sweep(*quick, "force=true")
    assert anew.status == 0, anew.err
    assert "are done already" not in anew.out
    superseded = {path for path in records(tmp_path) if ".superseded" in path.parts}
    assert len(superseded) == 2
    assert len(records(tmp_path)) == 4


def test_a_search_with_optuna_has_no_dry_run(sweep: Callable[..., Told], tmp_path: Path) -> None:
    done = sweep("hydra/sweeper=optuna", "track=smoke", "dry_run=true")
    assert done.status == 1
    assert "dry_run=true can't show the trials of a search" in done.err
    assert not (tmp_path / "outputs").exists()
