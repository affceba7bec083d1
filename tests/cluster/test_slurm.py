"""Sweeps through ``hydra/launcher=slurm``, on a real Slurm: what comes out, and what jobs survive."""

from __future__ import annotations

import csv
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.login_node import ON_SLURM, Cluster, running_cluster, wait_until

from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.records.record import RunRecord
from neuralop_bench.runs import splits

pytestmark = [pytest.mark.cluster, pytest.mark.exhaustive, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
LAUNCHERS = {"slurm": ON_SLURM, "basic": ()}
GRID = ("model=fno", "dataset=burgers1d", "seed=0,1")


@dataclass(frozen=True)
class Sweep:
    """A sweep of the smoke track that was asked for, and what it left."""

    outputs: Path
    data: Path

    def arguments(self, launcher: str, *overrides: str) -> tuple[str, ...]:
        paths = (f"paths.data={self.data}", f"paths.outputs={self.outputs}")
        return ("-m", "track=smoke", *LAUNCHERS[launcher], *paths, *overrides)

    @property
    def records(self) -> dict[tuple[str, str, int], RunRecord]:
        found = [RunRecord.load(path) for path in self.outputs.rglob("record.json")]
        return {(record.model, record.dataset, record.seed): record for record in found}

    @property
    def written(self) -> dict[Path, int]:
        """When each record was written."""
        return {path: path.stat().st_mtime_ns for path in self.outputs.rglob("record.json")}

    @property
    def board(self) -> list[dict[str, str]]:
        with open(self.outputs / "leaderboard" / "leaderboard.csv", newline="") as handle:
            return list(csv.DictReader(handle))

    def has_resumed(self, seed: int) -> bool:
        """Whether a job has gone on with a run of this seed."""
        logs = [path.read_text() for path in self.outputs.glob(".sweeps/*/.submitit/*/*_log.out")]
        return any(re.search(rf"Resuming .*seed={seed} after", log) for log in logs)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster() as started:
        yield started


@pytest.fixture(scope="module")
def swept(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A model with two seeds, every run as a job."""
    folder = tmp_path_factory.mktemp("swept")
    sweep = Sweep(folder / "outputs", folder / "data")
    # More threads than a job asks for: they must not reach it.
    status, _, err = cluster.finish(*sweep.arguments("slurm", *GRID), threads=2)
    assert status == 0, err
    return sweep


@pytest.mark.exhaustive
def test_every_job_of_a_sweep_gives_a_record_and_all_of_them_one_board(swept: Sweep) -> None:
    assert len(swept.records) == len(swept.written) == 2
    assert {record.status for record in swept.records.values()} == {"finished"}
    (row,) = swept.board
    assert (row["model"], row["n_seeds"], row["seeds"], row["status"]) == ("fno", "2", "0;1", "self")
    # All jobs wanted data that weren't there; one made them for all.
    assert len({record.data["test"]["sha256"] for record in swept.records.values()}) == 1


def test_a_job_uses_as_many_threads_as_it_asked_for(swept: Sweep) -> None:
    assert {record.environment["threads"] for record in swept.records.values()} == {1}


def test_a_job_on_slurm_gives_the_numbers_of_a_run_without_it(swept: Sweep, tmp_path: Path) -> None:
    paths = (f"paths.data={swept.data}", f"paths.outputs={tmp_path}")
    here = pipeline.run(compose("track=smoke", "model=fno", "dataset=burgers1d", "seed=1", *paths))
    there = swept.records["fno", "burgers1d", 1]
    assert (there.metrics, there.data, there.config_hash) == (here.metrics, here.data, here.config_hash)


@pytest.mark.exhaustive
def test_another_launcher_completes_what_slurm_has_begun(cluster: Cluster, swept: Sweep) -> None:
    before = swept.written
    more = ("model=fno", "dataset=burgers1d", "seed=0,1,2")
    status, _, err = cluster.finish(*swept.arguments("basic", *more))
    assert status == 0, err
    after = swept.written
    assert {path: after[path] for path in before} == before, "what is done stays as it is"
    assert [path.parent.name for path in after.keys() - before.keys()] == ["seed=2"]
    assert {row["seeds"] for row in swept.board} == {"0;1;2"}


@pytest.mark.exhaustive
def test_a_preempted_job_is_queued_again_and_a_killed_one_by_the_same_command(
    cluster: Cluster, data_folder: Path, tmp_path: Path
) -> None:
    # A checkpoint after every step: the training is long enough to be hit, and never back at its beginning.
    training = ("model=fno", "dataset=burgers1d", "trainer.epochs=20", "trainer.checkpoint_seconds=1e-6")
    sweep = Sweep(tmp_path / "outputs", data_folder)
    command = sweep.arguments("slurm", *training, "seed=0,1")

    hit: dict[int, str] = {}

    def hit_both() -> bool:
        for seed in {0, 1} - hit.keys():
            for last in sweep.outputs.glob(f"*/*/*/*/seed={seed}/last.pt"):
                assert not last.with_name("record.json").exists(), "too late"
                hit[seed] = cluster.job_of(seed)
                if seed == 0:  # as Slurm does before the time is up, or before it gives the node to another
                    cluster.ask("scancel", "--signal=USR2", hit[seed])
                else:  # as the system does when memory runs out
                    os.kill(cluster.python_of(hit[seed]), signal.SIGKILL)
        return len(hit) == 2

    with cluster.started(*command) as launching:
        wait_until(hit_both, launching)
        # Queued again, it has to wait for two minutes; only then can that be cut short.
        wait_until(lambda: "Reason=BeginTime" in cluster.ask("scontrol", "show", "job", hit[0]), launching)
        cluster.ask("scontrol", "update", f"JobId={hit[0]}", "StartTime=now")
        _, err = launching.communicate(timeout=120)
    assert launching.returncode == 1
    assert "Traceback" not in err
    assert "1 of 2 jobs didn't finish" in err, "the sweep waited for the other"
    assert re.search("seed=1: Job .* it was killed.* hydra.launcher.mem_gb .* the same command resumes", err)
    assert [seed for _, _, seed in sweep.records] == [0]
    assert sweep.has_resumed(0)
    assert not sweep.has_resumed(1)

    status, out, err = cluster.finish(*command)
    assert status == 0, err
    assert "1 of 2 runs are done already." in out
    assert sweep.has_resumed(1)
    paths = (f"paths.data={data_folder}", f"paths.outputs={tmp_path / 'undisturbed'}")
    for seed in (0, 1):
        undisturbed = pipeline.run(compose("track=smoke", *training, *paths, f"seed={seed}"))
        record = sweep.records["fno", "burgers1d", seed]
        assert (record.metrics, record.config_hash) == (undisturbed.metrics, undisturbed.config_hash)


@pytest.mark.exhaustive
def test_parts_of_a_dataset_are_solved_by_jobs_and_put_together(cluster: Cluster, tmp_path: Path) -> None:
    # Eight shards' worth of one split, so that either part has some.
    small = ("dataset=ns2d", "dataset.problem.resolution=8", "dataset.problem.n_snapshots=3", "dataset.tolerance=null")
    which = ("track=smoke", *small, "splits.train=40", "generation.splits=[train]")
    paths = (f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}")
    parts = ("generation.n_parts=2", "generation.part=range(2)")
    script = "scripts/generate_data.py"
    status, _, err = cluster.finish("-m", *ON_SLURM, *which, *paths, *parts, script=script)
    assert status == 0, err
    assert len(list((tmp_path / "data").rglob("*.npz"))) == 3
    assert not list((tmp_path / "data").rglob("*.hdf5"))
    status, out, err = cluster.finish(*which, *paths, script=script)
    assert status == 0, err
    alone = compose(*which, "mode=generate", f"paths.data={tmp_path / 'alone'}")
    (path,) = splits.generate(alone)
    assert path.read_bytes() == Path(out.strip()).read_bytes(), "as one process makes them"


@pytest.mark.exhaustive
def test_a_job_that_asks_for_a_gpu_gets_one_and_its_cores(cluster: Cluster, data_folder: Path, tmp_path: Path) -> None:
    # The node counts a GPU that isn't there, so the run itself is done without.
    asked = ("hydra/launcher=slurm_gpu", "hydra.launcher.cpus_per_task=2", "hydra.launcher.mem_gb=2")
    sweep = Sweep(tmp_path, data_folder)
    run = ("model=persistence", "dataset=burgers1d", "device=cpu")
    status, _, err = cluster.finish(*sweep.arguments("basic", *asked, *run))
    assert status == 0, err
    (record,) = sweep.records.values()
    assert record.environment["threads"] == 2
    (name,) = {path.parent.name for path in tmp_path.glob(".sweeps/*/.submitit/*/*_result.pkl")}
    job = cluster.ask("scontrol", "show", "job", name)
    assert "TresPerNode=gres:gpu:1" in job
    assert "JobName=neuralop-bench" in job


@pytest.mark.exhaustive  # two processes are tried in any case (tests/runtime/test_processes.py)
def test_two_tasks_share_a_run(cluster: Cluster, data_folder: Path, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "outputs", data_folder)
    run = ("model=fno", "dataset=burgers1d")
    status, _, err = cluster.finish(*sweep.arguments("slurm", *run, "seed=0"), "hydra.launcher.tasks_per_node=2")
    assert status == 0, err
    _, *arguments = sweep.arguments("basic", *run, "seed=1")
    cluster.ask("srun", "--ntasks=2", "--mem=4G", sys.executable, str(ROOT / "run.py"), *arguments)
    alone = f"paths.outputs={tmp_path / 'alone'}"
    for seed in (0, 1):
        record = sweep.records["fno", "burgers1d", seed]
        paths = (f"paths.data={data_folder}", alone)
        expected = pipeline.run(compose("track=smoke", *run, *paths, f"seed={seed}"))
        assert record.environment["processes"] == 2
        assert record.config_hash == expected.config_hash
        assert record.metrics["rel_l2"] == pytest.approx(expected.metrics["rel_l2"], rel=1e-5)
