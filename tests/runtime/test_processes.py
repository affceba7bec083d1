"""One run shared by several processes: the same training to rounding, the same evaluation to the bit."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import xarray as xr

from neuralop_bench import pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import run_directory
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.record import Evaluation, RunRecord
from neuralop_bench.runtime import processes
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.training.state import State
from neuralop_bench.training.trainer import Trainer

ROOT = Path(__file__).parents[2]
# Parts of unequal size, and a last batch with fewer samples than processes; random numbers for every sample.
UNEVEN = (
    "trainer.batch_size=3",
    "trainer.epochs=3",
    "augmentation=symmetries",
    "dataset=burgers1d",
    "evaluator.batch_size=3",
)


def together(n: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", "run.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that one process has made."""
    root = tmp_path_factory.mktemp("alone")
    cfg = compose("track=smoke", *UNEVEN, f"paths.data={root / 'data'}", f"paths.outputs={root / 'outputs'}")
    pipeline.run(cfg)
    return cfg


@pytest.mark.exhaustive
@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_from_its_checkpoint(
    alone: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = RunRecord.load(run_directory(alone) / "record.json")
    paths = (f"paths.data={alone.paths.data}", f"paths.outputs={tmp_path / 'outputs'}")
    end_epoch = Trainer._end_epoch

    def end_second(self: Trainer, state: State, *rest: object) -> None:
        end_epoch(self, state, *rest)  # pyright: ignore[reportArgumentType]
        if state.at.epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_end_epoch", end_second)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(compose("track=smoke", *UNEVEN, *paths))
    done = together(2, "track=smoke", *UNEVEN, *paths)
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout
    assert done.stdout.count("Run directory: ") == 1, "the first alone speaks"
    (path,) = (tmp_path / "outputs").rglob("record.json")
    record = RunRecord.load(path)
    assert (record.config_hash, record.data) == (expected.config_hash, expected.data)
    assert (record.environment["processes"], expected.environment["processes"]) == (2, 1)
    for column in ("rel_l2", "valid_rel_l2", "rel_h1"):
        assert record.metrics[column] == pytest.approx(expected.metrics[column], rel=1e-5)
    weights, theirs = (
        torch.load(folder / "best.pt", weights_only=True)["model"] for folder in (path.parent, run_directory(alone))
    )
    for name, value in theirs.items():
        torch.testing.assert_close(weights[name], value, rtol=1e-3, atol=1e-5, msg=name)
    assert not list((tmp_path / "outputs").rglob(".*.tmp"))


@pytest.mark.slow
@pytest.mark.exhaustive  # two processes evaluate in any case, after they have trained
@pytest.mark.parametrize("n", [2, 3, 4])
def test_any_number_of_processes_gives_the_same_evaluation(alone: RunConfig, tmp_path: Path, n: int) -> None:
    # Of 8 samples in batches of 3, the last of three processes has none at the end.
    def evaluated(folder: Path) -> tuple[Evaluation, xr.Dataset]:
        (path,) = (folder / "evaluations").glob("standard*.json")
        return Evaluation.load(path), xr.load_dataset(path.with_suffix(".nc"), engine="h5netcdf")

    for folder in (tmp_path / "one", tmp_path / "several"):
        shutil.copytree(run_directory(alone), folder)
    pipeline.evaluate_again(compose("mode=evaluate", f"run={tmp_path / 'one'}"))
    done = together(n, "mode=evaluate", f"run={tmp_path / 'several'}")
    assert done.returncode == 0, done.stderr
    (expected, errors), (found, their_errors) = (evaluated(tmp_path / name) for name in ("one", "several"))
    assert found.metrics == expected.metrics
    assert their_errors.sizes["sample"] == alone.splits["test"]
    xr.testing.assert_identical(their_errors, errors)
    assert found.environment["processes"] == n


def test_parts_are_all_of_it_once() -> None:
    for n in (1, 2, 3, 4, 7):
        for n_items in range(10):
            parts = [list(range(n_items))[Processes(rank, n).part_of(n_items)] for rank in range(n)]
            assert sum(parts, []) == list(range(n_items))  # noqa: RUF017
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_lone_process_needs_no_other() -> None:
    one = processes.join("cpu")
    assert (one.n, one.is_first, one.device) == (1, True, torch.device("cpu"))
    assert one.gathered([1, 2]) == one.interleaved([1, 2]) == [1, 2]
    module = torch.nn.Linear(1, 1)
    assert one.sharing(module) is module
    assert one.first_does(lambda: 3) == 3


# Slurm's and submitit's tasks -----------------------------------------------------------------------------------------


@pytest.fixture
def no_tasks(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    for name in (
        "WORLD_SIZE",
        "RANK",
        "LOCAL_RANK",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "SUBMITIT_EXECUTOR",
    ):
        monkeypatch.setenv(name, "")  # what the test writes is undone
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_task_of_a_slurm_step_is_told_to_torch(no_tasks: pytest.MonkeyPatch) -> None:
    step = {"JOB_ID": "7", "NTASKS": "2", "STEP_NUM_TASKS": "2", "PROCID": "1", "LOCALID": "1", "NODEID": "0"}
    step |= {"JOB_NUM_NODES": "1", "NNODES": "1", "JOB_NODELIST": "node3", "NODELIST": "node3"}
    for name, value in step.items():
        no_tasks.setenv(f"SLURM_{name}", value)
    no_tasks.setattr("submitit.slurm.slurm.subprocess.check_output", lambda *_, **__: b"node3", raising=False)
    processes._tell_torch_of_slurm()
    told = {name: os.environ[name] for name in ("MASTER_ADDR", "RANK", "WORLD_SIZE", "LOCAL_RANK")}
    assert told == {"MASTER_ADDR": "node3", "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}


def test_one_process_in_an_allocation_of_several_tasks_is_alone(no_tasks: pytest.MonkeyPatch) -> None:
    no_tasks.setenv("SLURM_JOB_ID", "7")
    no_tasks.setenv("SLURM_NTASKS", "2")
    processes._tell_torch_of_slurm()
    assert "WORLD_SIZE" not in os.environ
    # A job of one task, submitted from a step of two, inherits what that said of itself.
    no_tasks.setenv("SLURM_NTASKS", "1")
    no_tasks.setenv("SLURM_STEP_NUM_TASKS", "2")
    processes._tell_torch_of_slurm()
    assert "WORLD_SIZE" not in os.environ


# Mistakes -------------------------------------------------------------------------------------------------------------


def test_a_lost_companion_is_told_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = RuntimeError(
        "[third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:13717."
    )
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert describe(lost).startswith("Another process of this run has ended")
    assert "n_modes" in describe(ValueError("FNO keeps n_modes=4000"))


def test_what_several_processes_lack_is_said(no_tasks: pytest.MonkeyPatch) -> None:
    no_tasks.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="device=cuda:1 is a single device, but 2 processes share this run"):
        processes.join("cuda:1")
    no_tasks.setitem(sys.modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"2 processes were started .* pip install 'neuralop-bench\[cluster\]'"):
        processes.join("cpu")
    no_tasks.delenv("WORLD_SIZE")
    no_tasks.setenv("SLURM_STEP_NUM_TASKS", "3")
    no_tasks.setitem(sys.modules, "submitit.helpers", None)
    with pytest.raises(ValueError, match="3 tasks were started"):
        processes.join("cpu")


@pytest.mark.usefixtures("no_tasks")
def test_a_sweep_is_started_by_one_process() -> None:
    command = [sys.executable, "run.py", "-m", "seed=0,1"]
    for several in ({"WORLD_SIZE": "2"}, {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}):
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **several}, capture_output=True, text=True)
        assert done.returncode == 1
        assert "hydra.launcher.tasks_per_node=2" in done.stderr


# Where a GPU is at hand -----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpus_share_a_run_and_evaluate_as_a_cpu_does(alone: RunConfig, tmp_path: Path) -> None:
    paths = (f"paths.data={alone.paths.data}", f"paths.outputs={tmp_path / 'outputs'}")
    done = together(min(2, torch.cuda.device_count()), "track=smoke", *UNEVEN, *paths, "device=cuda")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "outputs").rglob("record.json")
    record, expected = RunRecord.load(path), RunRecord.load(run_directory(alone) / "record.json")
    assert record.metrics["rel_l2"] == pytest.approx(expected.metrics["rel_l2"], rel=1e-2)
    assert record.environment["device"] == torch.cuda.get_device_name(0)
    shutil.copytree(path.parent, tmp_path / "copied")
    evaluation = pipeline.evaluate_again(compose("mode=evaluate", f"run={tmp_path / 'copied'}", "device=cpu"))
    assert evaluation.metrics["rel_l2"] == pytest.approx(record.metrics["rel_l2"], rel=1e-3)
    faster = together(
        1, "track=smoke", *UNEVEN, *paths, "device=cuda", "trainer.precision=bf16", "trainer.compile=true"
    )
    assert faster.returncode == 0, faster.stderr
