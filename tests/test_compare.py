"""Two runs compared: what differs, who is better, and what can't be compared."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.made_records import EVALUATION, RECORD

from neuralop_bench import compare
from neuralop_bench.board.comparison import names
from neuralop_bench.compare import CompareError
from neuralop_bench.records.record import Evaluation, RunRecord
from neuralop_bench.runtime.table import WIDTH

N = 20
CONFIG = {
    "model": {"label": "fno", "_target_": "a.FNO", "_partial_": True, "width": 32},
    "dataset": {"history": 10, "horizon": 10, "problem": {"viscosity": 1e-4}, "ladder": [1.0]},
    "optimizer": {"_target_": "a.soap", "lr": 1e-3},
    "trainer": {"epochs": 2, "workers": 0},
    "paths": {"data": "data"},
    "overrides": ["model=fno"],
    "device": "auto",
    "seed": 0,
}


def errors(size: float, seed: int = 0, spread: float = 0.02) -> list[float]:
    """Of samples that are hard or easy for every model."""
    rng = np.random.default_rng(0)
    hard = np.exp(0.5 * rng.standard_normal(N))
    own = np.exp(spread * np.random.default_rng([seed, round(1e6 * size)]).standard_normal(N))
    return [float(x) for x in size * hard * own]


def record(model: str = "fno", seed: int = 0, size: float = 0.1, **changes: object) -> RunRecord:
    samples = errors(size, seed)
    settings = {**CONFIG, "model": {**CONFIG["model"], "label": model}, "seed": seed, "overrides": [f"model={model}"]}
    base = replace(
        RECORD,
        run_id=f"lite-ns2d-{model}-abc-s{seed}",
        model=model,
        seed=seed,
        metrics={**RECORD.metrics, "rel_l2": float(np.mean(samples)), "spec_low": 0.1, "k_eff": 12.0},
        data={**RECORD.data, "test": {**RECORD.data["test"], "n": N}},
        config=settings,
        environment={"device": "cpu", "threads": 1, "processor": "one", "precision": "float32"},
        samples={"rel_l2": samples},
    )
    return replace(base, **changes)  # pyright: ignore[reportArgumentType]


def save(folder: Path, *records: RunRecord) -> Path:
    """A folder of seeds; of one record its run directory."""
    for entry in records:
        entry.save(folder / f"seed={entry.seed}" / "record.json")
    return folder / f"seed={records[0].seed}" if len(records) == 1 else folder


@pytest.fixture
def fno(tmp_path: Path) -> Path:
    return save(tmp_path / "fno" / "default-abc", *(record("fno", seed, 0.06) for seed in range(3)))


@pytest.fixture
def unet(tmp_path: Path) -> Path:
    return save(tmp_path / "unet" / "default-abc", *(record("unet", seed, 0.1) for seed in range(2)))


Printed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Printed:
    def main(one: Path, other: Path) -> tuple[int, str, str]:
        status = compare.main([str(one), str(other)])
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return main


# What is said --------------------------------------------------------------------------------------------------------


def test_the_better_of_two_with_several_seeds(fno: Path, unet: Path, run: Printed) -> None:
    status, printed, _ = run(fno, unet)
    assert status == 0
    found, _ = compare.compare(compare.read(fno), compare.read(unet))
    assert found.ratio == pytest.approx(0.6, rel=0.02)
    assert found.counts_seeds
    last = printed.splitlines()[-1]
    assert last.startswith(f"fno has {found.ratio:.2g} times the error of unet (95 %: ")
    assert "significantly better (p = " in last
    assert "only one training" not in printed
    assert max(map(len, printed.splitlines()[:-1])) <= WIDTH
    status, printed, _ = run(unet, fno)
    assert "unet has 1.6" in printed
    assert "significantly worse" in printed


def test_no_difference_is_not_called_equality(tmp_path: Path, run: Printed) -> None:
    one, other = (
        save(tmp_path / model, *(record(model, seed, 0.1 * math.exp(0.2 * seed)) for seed in range(3)))
        for model in ("fno", "unet")
    )
    _, printed, _ = run(one, other)
    assert "no difference shown (p = " in printed
    assert "significantly" not in printed


def test_one_training_is_marked(fno: Path, unet: Path, run: Printed) -> None:
    _, printed, _ = run(fno / "seed=1", unet)
    assert "For fno this counts only one training" in printed
    assert "counting only this training" in printed
    _, printed, _ = run(fno / "seed=1", unet / "seed=0")
    assert "For fno and unet this counts only one training" in printed


@pytest.mark.parametrize(
    ("diverged", "said"),
    [
        ((2, 0), "fno diverged on 2 and unet on 0: there is no ratio of errors, and unet is better."),
        ((0, 1), "fno diverged on 0 and unet on 1: there is no ratio of errors, and fno is better."),
        ((1, 3), "fno diverged on 1 and unet on 3: there is no ratio of errors, and neither is better."),
    ],
)
def test_a_prediction_that_diverged_loses(tmp_path: Path, run: Printed, diverged: tuple[int, int], said: str) -> None:
    folders = []
    for model, n in zip(("fno", "unet"), diverged, strict=True):
        samples = [math.inf] * n + errors(0.1)[n:]
        metrics = {**RECORD.metrics, "rel_l2": math.inf if n else 0.1}
        folders.append(save(tmp_path / model, record(model, samples={"rel_l2": samples}, metrics=metrics)))
    status, printed, _ = run(*folders)
    assert status == 0
    assert said in printed


def test_only_what_differs_is_listed(fno: Path, tmp_path: Path, run: Printed) -> None:
    settings = {
        **CONFIG,
        "model": {"label": "unet", "_target_": "b.UNet", "_partial_": False, "depth": [1, 2]},
        "trainer": {"epochs": 2, "workers": 4},
        "paths": {"data": "elsewhere"},
        "device": "cuda",
        "dataset": {**CONFIG["dataset"], "ladder": []},
        "data": {"stream": True},
    }
    other = save(tmp_path / "u", record("unet", config=settings, commit="decafbad", dirty=True, cost={}))
    _, printed, _ = run(fno, other)
    table = printed.partition("Accuracy")[0]
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:4]]
        for line in table.splitlines()
        if (cells := line.split("|"))[1:]
    }
    assert rows["model._target_"] == ["a.FNO", "b.UNet"]
    assert rows["model.width"] == ["32", ""]
    assert rows["model.depth"] == ["", "[1, 2]"]
    assert rows["data.stream"] == ["", "true"]
    assert rows["seeds"] == ["0, 1, 2", "0"]
    assert rows["epochs"] == ["2", "2"]
    assert rows["training [s]"] == ["1.5", ""]
    assert rows["commit"] == ["c0ffee", "decafbad with uncommitted changes"]
    noise = ("paths", "overrides", "device.", "workers", "ladder", "_partial_", "optimizer", "seed.", "trainer")
    assert not [name for name in rows for word in noise if word in name]
    assert "Cost" not in printed, "one side has none"


def test_columns_of_both_stand_side_by_side(fno: Path, tmp_path: Path, run: Printed) -> None:
    more = record("unet", metric_versions={"rel_l2": 1, "spectra": 2}, cost={"train_seconds": 3.0})
    metrics = {**more.metrics, "rel_l2": 0.24, "vrmse": 0.5}
    other = save(tmp_path / "u", replace(more, metrics=metrics))
    for path in fno.glob("*/record.json"):
        entry = RunRecord.load(path)
        replace(entry, metric_versions={"rel_l2": 1, "spectra": 1}, metrics={**entry.metrics, "rel_l2": 0.06}).save(
            path
        )
    _, printed, _ = run(fno, other)
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for line in printed.splitlines()
        if (cells := line.split("|"))[1:]
    }
    assert rows["rel_l2"] == ["0.06", "0.24", "0.25"]
    assert rows["train_seconds"] == ["1.5", "3", "0.5"]
    assert rows["max_error"] == ["inf", "inf", ""], "no ratio of infinities"
    assert rows["k_eff"] == ["12", "12", "1"]
    assert "vrmse" not in rows, "that one side has measured alone"
    assert "spec_low" not in rows, "of two versions"
    assert "Columns of spectra are left out" in printed


def test_different_tracks_and_devices_are_remarked_on(fno: Path, tmp_path: Path, run: Printed) -> None:
    environment = {"device": "some GPU", "threads": 4}
    other = save(tmp_path / "u", record("unet", track="custom", task="other", environment=environment))
    status, printed, _ = run(fno, other)
    assert status == 0
    assert "different tracks (lite and custom)" in printed
    assert "different tasks (ns2d and other)" in printed
    assert "different devices or numbers of threads" in printed


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({}, {"model": "unet"}, ("fno", "unet")),
        ({}, {"variant": "width=8-abd"}, ("fno default", "fno width=8")),
        ({}, {"variant": "default-abd"}, ("fno default-abc", "fno default-abd")),
        ({}, {"track": "custom"}, ("fno lite", "fno custom")),
        ({}, {"seed": 1}, ("fno seed 0", "fno seed 1")),
        ({}, {"date_utc": "2026-01-09T00:00:00+00:00"}, ("fno (first)", "fno (second)")),
    ],
)
def test_names_tell_the_two_apart(
    tmp_path: Path, first: dict[str, object], second: dict[str, object], expected: tuple[str, str]
) -> None:
    sides = [
        compare.read(save(tmp_path / str(i), record(**change)))  # pyright: ignore[reportArgumentType]
        for i, change in enumerate((first, second))
    ]
    assert names(*sides) == expected


# What is read --------------------------------------------------------------------------------------------------------


def test_seeds_that_are_not_finished_take_no_part(fno: Path, unet: Path, run: Printed) -> None:
    record("unet", 7, status="diverged", message="loss is nan", metrics={}, samples={}).save(
        unet / "seed=7/record.json"
    )
    (unet / "seed=8").mkdir()
    (unet / "seed=8" / "last.pt").write_bytes(b"")
    status, printed, _ = run(fno, unet)
    assert status == 0
    assert [entry.record.seed for entry in compare.read(unet).runs] == [0, 1]
    assert "seed=7 is left out: diverged (loss is nan)" in printed
    assert "seed=8 is left out: resumable" in printed


def _older(entry: RunRecord) -> RunRecord:
    return replace(entry, samples={}, format=3)


def _evaluation(entry: RunRecord, samples: list[float]) -> Evaluation:
    return replace(
        EVALUATION,
        run_id=entry.run_id,
        metrics={"rel_l2": entry.metrics["rel_l2"]},
        metric_versions={"rel_l2": 1},
        data={"test": entry.data["test"]},
        samples={"rel_l2": samples},
    )


def test_errors_of_older_records_come_from_an_evaluation(tmp_path: Path) -> None:
    entry = record()
    run = save(tmp_path / "run", _older(entry))
    _evaluation(entry, entry.samples["rel_l2"]).save(run / "evaluations" / "standard.json")
    assert compare.read(run).errors.tolist() == [entry.samples["rel_l2"]]
    board = tmp_path / "leaderboard"
    _older(entry).save(board / "records" / "lite" / "one.json")
    _evaluation(entry, entry.samples["rel_l2"]).save(board / "evaluations" / "lite" / "one.json")
    assert compare.read(board / "records" / "lite" / "one.json").errors.tolist() == [entry.samples["rel_l2"]]


def test_an_evaluation_of_something_else_does_not_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entry = record()
    run = save(tmp_path / "run", _older(entry))
    unlike = replace(_evaluation(entry, entry.samples["rel_l2"]), data={"test": {"sha256": "bb"}})
    unlike.save(run / "evaluations" / "standard.json")
    with pytest.raises(CompareError, match=r"format 3.*mode=evaluate"):
        compare.read(run)
    assert "left out" in capsys.readouterr().err


def test_committed_records_are_read_from_where_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = record()
    _older(entry).save(tmp_path / "records" / "lite" / "one.json")
    _evaluation(entry, entry.samples["rel_l2"]).save(tmp_path / "evaluations" / "lite" / "one.json")
    monkeypatch.chdir(tmp_path / "records" / "lite")
    assert compare.read(Path("one.json")).errors.shape == (1, N)


# What is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"test": {"sha256": "bb"}}}, ("test data", "aa and bb", "force=true")),
        ({"metric_versions": {"rel_l2": 2}}, ("version of rel_l2", "1 and 2", "force=true")),
        ({"dataset": "darcy2d"}, ("dataset", "ns2d and darcy2d")),
        ({"config": {**CONFIG, "dataset": {"history": 1, "horizon": 10}}}, ("dataset.history", "10 and 1")),
        ({"config": {**CONFIG, "dataset": {"history": 10, "horizon": 5}}}, ("dataset.horizon", "10 and 5")),
        ({"samples": {"rel_l2": errors(0.1)[:-1]}}, ("number of test samples", "20 and 19", "mode=evaluate")),
        ({"samples": {}}, ("no errors per test sample", "mode=evaluate")),
        ({"status": "diverged", "message": "loss is nan"}, ("diverged", "loss is nan", "force=true")),
        ({"status": "failed", "message": ""}, ("failed", "force=true")),
    ],
    ids=["data", "version", "dataset", "history", "horizon", "n", "samples", "diverged", "failed"],
)
def test_what_cannot_be_compared_is_refused(
    fno: Path, tmp_path: Path, run: Printed, change: dict[str, object], words: tuple[str, ...]
) -> None:
    other = save(tmp_path / "unet", record("unet", **change))  # pyright: ignore[reportArgumentType]
    status, printed, message = run(fno, other)
    assert (status, printed) == (1, "")
    assert message.startswith("Error: ")
    assert str(other) in message
    assert not [word for word in words if word not in message], message


@pytest.mark.parametrize("other", ["same", "copy", "seed"])
def test_a_run_is_not_compared_with_itself(fno: Path, tmp_path: Path, run: Printed, other: str) -> None:
    places = {"same": fno, "seed": fno / "seed=1", "copy": Path(shutil.copytree(fno, tmp_path / "copy"))}
    status, _, message = run(fno, places[other])
    assert status == 1
    assert "hold the same run" in message


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": "unet"}, "different configurations"),
        ({"data": {"test": {"sha256": "bb"}}}, "tested on different data"),
        ({"metric_versions": {"rel_l2": 2}}, "different versions"),
        ({"samples": {"rel_l2": [0.1]}}, "different numbers of test samples"),
    ],
)
def test_seeds_that_do_not_belong_together_are_refused(fno: Path, changes: dict[str, object], reason: str) -> None:
    save(fno, record(seed=9, **changes))  # pyright: ignore[reportArgumentType]
    with pytest.raises(CompareError, match=reason):
        compare.read(fno)


def test_a_copied_seed_is_no_other_training(fno: Path) -> None:
    shutil.copytree(fno / "seed=0", fno / "seed=0b")
    with pytest.raises(CompareError, match="a seed twice"):
        compare.read(fno)


def test_what_is_no_run_is_explained(tmp_path: Path, fno: Path, run: Printed) -> None:
    for place, word in ((tmp_path / "nowhere", "doesn't exist"), (tmp_path, "holds no seed=<n>")):
        status, _, message = run(fno, place)
        assert status == 1
        assert word in message
        assert "Give a run directory" in message
    started = tmp_path / "unet" / "seed=0"
    started.mkdir(parents=True)
    (started / "last.pt").write_bytes(b"")
    for place in (started, started.parent):
        status, _, message = run(fno, place)
        assert status == 1
        assert "no finished run" in message
        assert "resumable" in message
        assert "neuralop_bench.status" in message
    (started / "record.json").write_text("{")
    assert "isn't a readable record" in run(fno, started)[2]
