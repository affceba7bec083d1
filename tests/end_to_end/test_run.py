"""Whole runs: data, training, evaluation, record and board, as a user starts them."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import xarray as xr
from helpers.command import told

from data_gen.store import DatasetFile, StoreError
from neuralop_bench import pipeline
from neuralop_bench.config import constructors
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity, run_directory
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.committed_board import CommittedBoard, FilingError
from neuralop_bench.records.record import RunRecord
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.runs import plan
from neuralop_bench.runs.job import Job
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.verify import verify

ROOT = Path(__file__).parents[2]

Smoke = Callable[..., RunConfig]


def _same_numbers(one: RunRecord, two: RunRecord) -> bool:
    return (one.metrics, one.data, one.config_hash) == (two.metrics, two.data, two.config_hash)


def test_a_run_leaves_everything_it_promises(smoke: Smoke, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = smoke()
    record = pipeline.run(cfg)
    folder = run_directory(cfg)
    printed = capsys.readouterr().out
    assert RunRecord.load(folder / "record.json") == record
    assert record.status == "finished"
    assert {path.name for path in folder.iterdir()} >= {"best.pt", "last.pt", "curve.csv", "errors.nc", "report.md"}
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "training.png",
        "error_growth.png",
        "spectra.png",
        "sample_median.png",
        "sample_worst.png",
    }
    for text in ("relative L2 (mean)", "Spectral error by band", "leaderboard.csv"):
        assert text in printed
    # A short training beats neither much nor nothing: better than predicting zero, and worse than exact.
    rel_l2, valid = record.metrics["rel_l2"], record.metrics["valid_rel_l2"]
    assert rel_l2 is not None
    assert valid is not None
    assert 0.001 < rel_l2 < 0.5
    with xr.open_dataset(folder / "errors.nc", engine="h5netcdf") as errors:
        assert dict(errors.sizes) == {
            "sample": 8,
            "time": 10,
            "channel": 1,
            "shell": 17,
            "band": 3,
            "quantity": 3,
        }
        assert errors["time"].values.tolist() == list(range(10, 20))
        squares = errors[["error_mean_square", "target_mean_square"]].sum(("time", "channel"))
        by_hand = float(((squares.error_mean_square / squares.target_mean_square) ** 0.5).mean())
    assert rel_l2 == pytest.approx(by_hand, rel=1e-12)
    assert set(record.data) == {"train", "valid", "test"}
    with DatasetFile(Path(cfg.paths.data) / record.data["test"]["file"]) as file:
        assert record.data["test"]["sha256"] == file.sha256(8)
    assert record.cost["n_parameters"] == sum(
        p.numel()
        for name, p in torch.load(folder / "best.pt", weights_only=True)["model"].items()
        if "operator" in name
    )
    board = Path(cfg.paths.outputs) / "leaderboard" / "leaderboard.csv"
    with open(board, newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert float(row["rel_l2_mean"]) == pytest.approx(rel_l2, rel=1e-5)
    assert (row["rank"], row["track"], row["model"], row["seeds"]) == ("1", "smoke", "fno", "0")


@pytest.mark.usefixtures("no_figures")
def test_no_machine_path_enters_a_record_with_the_default_folders(
    tmp_path: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Records are published: with the default, relative folders nothing in them may tell where they were made.
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(data_folder)
    pipeline.run(compose("track=smoke", "trainer.epochs=1"))
    (path,) = Path("outputs").rglob("record.json")
    assert str(tmp_path) not in path.read_text()
    assert str(data_folder) not in path.read_text()


def test_the_same_run_again_returns_the_record(repeated: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    path = run_directory(repeated) / "record.json"
    before = path.stat().st_mtime_ns
    assert pipeline.run(repeated) == RunRecord.load(path)
    assert path.stat().st_mtime_ns == before
    printed = capsys.readouterr().out
    assert "This run is done" in printed
    assert "relative L2 (mean)" in printed


@pytest.mark.usefixtures("no_figures")
def test_repeating_with_force_gives_the_same_numbers_and_keeps_the_old_run(repeated: RunConfig) -> None:
    outputs = Path(repeated.paths.outputs)
    first = RunRecord.load(run_directory(repeated) / "record.json")
    second = pipeline.run(replace(repeated, force=True))
    assert _same_numbers(first, second)
    kept = list((outputs / ".superseded").rglob("record.json"))
    assert [RunRecord.load(path) for path in kept] == [first]
    with open(outputs / "leaderboard" / "runs.csv", newline="") as handle:
        rows = [(row["setting"], row["metric"]) for row in csv.DictReader(handle)]
    assert len(set(rows)) == len(rows), "the old run must not count twice"
    with open(outputs / "leaderboard" / "leaderboard.csv", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert row["date_utc"] == second.date_utc


def test_an_impossible_run_with_force_leaves_the_old_run_in_place(repeated: RunConfig) -> None:
    path = run_directory(repeated) / "record.json"
    before = path.read_bytes()
    with pytest.raises(ValueError, match="device"):
        pipeline.run(replace(repeated, force=True, device="nowhere"))
    assert path.read_bytes() == before
    assert not (Path(repeated.paths.outputs) / ".superseded").exists()


@pytest.mark.exhaustive
@pytest.mark.usefixtures("no_figures")
def test_a_sweep_over_seeds_gives_three_records_and_one_row(tmp_path: Path, data_folder: Path) -> None:
    paths = (f"paths.outputs={tmp_path / 'out'}", f"paths.data={data_folder}")
    done = told("-m", "track=smoke", "model=fno", "dataset=burgers1d", "trainer.epochs=1", "seed=0,1,2", *paths)
    assert done.status == 0, done.err
    records = [RunRecord.load(path) for path in (tmp_path / "out").rglob("record.json")]
    assert sorted(record.seed for record in records) == [0, 1, 2]
    errors = {record.metrics["rel_l2"] for record in records}
    assert len(errors) == 3, "seeds must give different models"
    with open(tmp_path / "out" / "leaderboard" / "leaderboard.csv", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["n_seeds"], row["seeds"]) == ("3", "0;1;2")
    assert float(row["rel_l2_mean"]) == pytest.approx(sum(e for e in errors if e) / 3, rel=1e-5)
    assert float(row["rel_l2_sd"]) > 0


@pytest.mark.usefixtures("no_figures")
def test_one_diverged_job_of_a_sweep_leaves_the_others_running(tmp_path: Path, data_folder: Path) -> None:
    paths = (f"paths.outputs={tmp_path}", f"paths.data={data_folder}")
    done = told("-m", "track=smoke", "trainer.epochs=1", "optimizer.lr=1e30,1e-3", *paths)
    assert done.status == 1
    assert "loss became" in done.err
    assert "Traceback" not in done.err
    statuses = sorted(RunRecord.load(path).status for path in tmp_path.rglob("record.json"))
    assert statuses == ["diverged", "finished"]


def test_divergence_is_recorded_and_shown(smoke: Smoke) -> None:
    cfg = smoke("optimizer.lr=1e30")
    for _ in range(2):  # the second call returns the record
        with pytest.raises(RunError, match=r"Lower optimizer\.lr"):
            pipeline.run(cfg)
    record = RunRecord.load(run_directory(cfg) / "record.json")
    assert (record.status, record.metrics) == ("diverged", {})
    assert "test" not in record.data, "test is not opened before a model is trained"
    with open(Path(cfg.paths.outputs) / "leaderboard" / "leaderboard.csv", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["status"], row["rank"], row["rel_l2_mean"]) == ("diverged", "", "")


@pytest.mark.usefixtures("no_figures")
def test_a_second_process_in_the_same_run_says_so(smoke: Smoke) -> None:
    cfg = smoke("trainer.epochs=1")
    folder = run_directory(cfg)
    folder.mkdir(parents=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD_LOCK, str(folder / ".lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunError, match="Another process"):
            pipeline.run(cfg)
    finally:
        holder.kill()
        holder.communicate()
    assert pipeline.run(cfg).status == "finished", "a lock left by a dead process must not block"


_HOLD_LOCK = """
import sys, time
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model.n_modes=17", "n_modes must be at most 16"),
        ("dataset.problem.viscosity=0", "dataset.problem.viscosity must be positive"),
        ("dataset.problem.viscosity=-1e-3", "dataset.problem.viscosity must be positive"),
        ("dataset.horizon=15", "need 25 frames"),
        ("trainer.unroll=11", "need 21 frames"),
        ("+model.activation=sine", "model.activation"),
        ("device=tpu9", "device"),
        pytest.param(
            "device=cuda",
            "isn't available: 0 CUDA devices",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device"),
        ),
    ],
)
def test_impossible_runs_fail_before_any_data_is_made(tmp_path: Path, override: str, expected: str) -> None:
    folders = (f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'outputs'}")
    with pytest.raises(Exception) as raised:  # noqa: PT011  (the constructors' own)
        pipeline.run(compose("track=smoke", *folders, override))
    assert expected in describe(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_figures")
def test_a_run_starts_from_the_weights_of_a_run_on_other_data(
    smoke: Smoke, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("trainer.epochs=1", "splits.train=8", "splits.valid=4", "splits.test=4")
    first = smoke("dataset=burgers1d", *small)
    source = pipeline.run(first)
    start = f"init_from={run_directory(first)}"
    still = ("optimizer.lr=1e-12", "optimizer.weight_decay=0")
    tuned = smoke("dataset=kdv1d", *small, *still, start)
    record = pipeline.run(tuned)
    assert f"Starting from {source.run_id}. Afresh: nothing." in capsys.readouterr().out
    assert record.config["initial"]["run_id"] == source.run_id
    assert record.config_hash != identity(smoke("dataset=kdv1d", *small, *still)).config_hash
    weights, given = (dict(Surrogate.load(run_directory(cfg)).operator.named_parameters()) for cfg in (tuned, first))
    torch.testing.assert_close(weights, given, rtol=1e-5, atol=1e-8)
    for other, expected in (
        ("model=unet", "is a run of neuralop_bench.models.fno.FNO, but model=unet is another network"),
        ("model.width=7", "of the same name and shape for only 257 of"),
    ):
        with pytest.raises(ConfigError, match=expected):
            pipeline.run(smoke("dataset=kdv1d", *small, other, start))
    file = tmp_path / "published.pth"
    torch.save(Surrogate.load(run_directory(first)).operator.state_dict(), file)
    from_file = pipeline.run(smoke("dataset=kdv1d", *small, *still, f"init_from={file}"))
    assert "Starting from published.pth. Afresh: nothing." in capsys.readouterr().out
    assert from_file.config["initial"]["file"] == "published.pth"
    assert from_file.metrics["rel_l2"] == record.metrics["rel_l2"]
    with pytest.raises(ConfigError, match="is a file of a run"):
        pipeline.run(smoke("dataset=kdv1d", *small, f"init_from={run_directory(first) / 'best.pt'}"))
    tuned.initial["sha256"] = "0" * 64
    with pytest.raises(ConfigError, match="has changed since"):
        pipeline.run(tuned)


@pytest.mark.usefixtures("no_figures")
def test_a_trial_leaves_test_closed_and_can_go_on_with_it(smoke: Smoke, tmp_path: Path) -> None:
    small = ("dataset=burgers1d", "trainer.epochs=1", "splits.train=8", "splits.valid=4", "splits.test=4", "seed=7")
    trial = pipeline.run(smoke(*small, "evaluator=valid"))
    assert (set(trial.metrics), set(trial.data)) == ({"valid_rel_l2"}, {"train", "valid"})
    assert pipeline.run(smoke(*small, "evaluator=valid")) == trial
    folder = run_directory(smoke(*small))
    with pytest.raises(RunError, match="never evaluated on test"):
        verify(folder)
    with pytest.raises(FilingError, match="never evaluated on test"):
        CommittedBoard(tmp_path).file(folder)
    valid, standard = (Job((), run=smoke(*small, *more), folder=folder) for more in (["evaluator=valid"], []))
    assert (valid.is_done, standard.is_done) == (True, False)
    assert "the command goes on with test" in plan.describe(plan.make(smoke(*small), identity(smoke(*small))))
    again = pipeline.evaluate_again(compose("mode=evaluate", f"run={folder}"))
    whole = pipeline.run(smoke(*small))
    assert whole.metrics["rel_l2"] == again.metrics["rel_l2"]
    assert whole.metrics["valid_rel_l2"] == trial.metrics["valid_rel_l2"]
    for name in ("train_seconds", "peak_memory_mb"):
        assert whole.cost[name] == trial.cost[name], "it wasn't trained again"
    for more in ("paths.board=board", "evaluator.test_splits=[all]"):
        with pytest.raises(ConfigError, match="leaves test closed"):
            smoke(*small, "evaluator=valid", more)


@pytest.mark.parametrize("damage", [pytest.param("truncated", marks=pytest.mark.exhaustive), "flipped"])
@pytest.mark.usefixtures("no_figures")
def test_damaged_data_is_reported_and_left_alone(
    finished_run: RunConfig, smoke: Smoke, tmp_path: Path, damage: str
) -> None:
    before = RunRecord.load(run_directory(finished_run) / "record.json")
    copied = tmp_path / "data"
    dataset = Path(before.data["test"]["file"]).parts[0]
    shutil.copytree(Path(finished_run.paths.data) / dataset, copied / dataset)
    (test_file,) = copied.glob("*/test/ns2d.hdf5")
    content = bytearray(test_file.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) * 3 // 4] ^= 1
    test_file.write_bytes(content)
    with pytest.raises(StoreError) as raised:
        pipeline.run(smoke("trainer.epochs=1", "seed=1", f"paths.data={copied}"))
    assert str(test_file) in str(raised.value)
    assert "If run.py generated it, delete it" in str(raised.value)
    assert test_file.read_bytes() == bytes(content), "what is damaged is evidence; nothing overwrites it"
    test_file.unlink()
    record = pipeline.run(smoke("trainer.epochs=1", "seed=1", f"paths.data={copied}"))
    assert record.status == "finished"
    assert record.data["test"] == before.data["test"]


@pytest.mark.usefixtures("no_figures")
def test_bf16_is_another_run_and_is_recorded(smoke: Smoke) -> None:
    plain, coarse = smoke("dataset=burgers1d"), smoke("dataset=burgers1d", "trainer.precision=bf16")
    assert identity(plain).config_hash != identity(coarse).config_hash
    found, expected = pipeline.run(coarse), pipeline.run(plain)
    assert (found.environment["precision"], expected.environment["precision"]) == ("bf16", "float32")
    assert found.metrics["rel_l2"] != expected.metrics["rel_l2"]
    assert found.metrics["rel_l2"] == pytest.approx(expected.metrics["rel_l2"], rel=0.05)
    with pytest.raises(constructors.ConfigError, match=r"trainer\.precision must be float32 or bf16, got 'fp8'"):
        smoke("trainer.precision=fp8")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's own, in its compiler
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler here")
def test_a_compiled_run_is_the_same_run(smoke: Smoke) -> None:
    plain, compiled = smoke("dataset=burgers1d"), smoke("dataset=burgers1d", "trainer.compile=true")
    assert identity(plain) == identity(compiled)
    found = pipeline.run(compiled)
    assert found.environment["compiled"] is True
    expected = pipeline.run(replace(plain, force=True))
    assert found.metrics["rel_l2"] == pytest.approx(expected.metrics["rel_l2"], rel=1e-4)
