"""evaluator=thorough: what is measured beyond test, from the run to the board."""

from __future__ import annotations

import csv
import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from data_gen.regrid import interpolate
from data_gen.store import DatasetFile
from neuralop_bench import pipeline
from neuralop_bench.batch import Batch
from neuralop_bench.config.compose import compose
from neuralop_bench.config.identity import run_directory
from neuralop_bench.evaluation import ladder
from neuralop_bench.metrics.relative import relative_l2_per_sample
from neuralop_bench.models.fno import FNO
from neuralop_bench.records.record import EVALUATIONS, Evaluation, RunRecord
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.records.rung import Rung
from neuralop_bench.runtime.table import WIDTH
from neuralop_bench.surrogate.checkpoint import CheckpointError
from neuralop_bench.surrogate.surrogate import Surrogate

pytestmark = pytest.mark.usefixtures("no_figures")
# Of the smoke track's test sets those that are quickly made.
SMALL = ("trainer.epochs=1", "evaluator.test_splits=[test_half,test_long,test_ood_amplitude]", "dataset.ladder=[1,0.5]")


@dataclass(frozen=True)
class Evaluated:
    folder: Path
    data: Path
    outputs: Path
    record: RunRecord
    evaluation: Evaluation
    printed: str

    @property
    def overrides(self) -> tuple[str, ...]:
        return ("track=smoke", "evaluator=thorough", *SMALL, f"paths.data={self.data}", f"paths.outputs={self.outputs}")


@pytest.fixture(scope="module")
def evaluated(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """A run with evaluator=thorough, reduced."""
    outputs = tmp_path_factory.mktemp("thorough")
    capture = pytest.MonkeyPatch()
    lines: list[str] = []
    capture.setattr("sys.stdout.write", lambda text: lines.append(text) or len(text))
    overrides = ("track=smoke", "evaluator=thorough", *SMALL, f"paths.data={data_folder}", f"paths.outputs={outputs}")
    cfg = compose(*overrides)
    try:
        record = pipeline.run(cfg)
    finally:
        capture.undo()
    folder = run_directory(cfg)
    (path,) = (folder / EVALUATIONS).glob("*.json")
    return Evaluated(folder, data_folder, outputs, record, Evaluation.load(path), "".join(lines))


def test_the_record_holds_test_alone_and_the_evaluation_the_rest(evaluated: Evaluated) -> None:
    record, evaluation = evaluated.record, evaluated.evaluation
    assert evaluation.run_id == record.run_id
    assert evaluation.evaluator.startswith("thorough-"), "other test sets than those of the evaluator"
    assert "transfer_half" not in record.metrics
    assert evaluation.metrics["rel_l2"] == record.metrics["rel_l2"]
    assert set(evaluation.columns) == {"test_half", "test_half_interpolated", "test_long", "test_ood_amplitude"}
    assert set(evaluation.data) == {"test", "test_half", "test_long", "test_ood_amplitude"}
    assert evaluation.data["test_half"]["resolution"] == "16x16"
    assert evaluation.metric_versions.keys() - record.metric_versions.keys() == {"correlation", "stability"}
    for name in ("gflops_forward", "peak_memory_mb", "throughput_batch_size"):
        assert record.cost[name], name


def test_columns_of_boards_are_taken_from_their_test_sets(evaluated: Evaluated) -> None:
    metrics, columns = evaluated.evaluation.metrics, evaluated.evaluation.columns
    assert metrics["transfer_half"] == columns["test_half"]["rel_l2"]
    assert metrics["transfer_half_interpolated"] == columns["test_half_interpolated"]["rel_l2"]
    ratio = columns["test_ood_amplitude"]["rel_l2"] / metrics["rel_l2"]
    assert metrics["ood_factor"] == pytest.approx(ratio)
    assert columns["test_ood_amplitude"]["ood_factor"] == pytest.approx(ratio)
    assert metrics["correlation_time_0.8"] == columns["test_long"]["correlation_time_0.8"]
    assert 0 < metrics["correlation_time_0.8"] <= 40, "of a rollout four times as long as those of training"
    assert 0 <= metrics["stable_fraction"] <= 1
    assert metrics["transfer_double"] is None
    assert evaluated.evaluation.notes["transfer_double"] == "test_double isn't among evaluator.test_splits"


def test_the_control_is_the_prediction_on_the_training_grid_interpolated(evaluated: Evaluated) -> None:
    surrogate = Surrogate.load(evaluated.folder)

    def frames(split: str) -> tuple[torch.Tensor, Any]:
        with DatasetFile(evaluated.data / evaluated.evaluation.data[split]["file"]) as file:
            return torch.from_numpy(file.read_states(slice(0, 8))), file.spec.grid

    (here, grid), (there, coarse) = frames("test"), frames("test_half")
    prediction = surrogate.predict(Batch.given(here[:, :10]), 10).numpy()
    error = interpolate(prediction, grid, coarse) - there[:, 10:].numpy()
    sizes = [np.sqrt(np.sum(np.square(x, dtype=np.float64), axis=(1, 2, 3, 4))) for x in (error, there[:, 10:].numpy())]
    by_hand = float(np.mean(sizes[0] / sizes[1]))
    assert evaluated.evaluation.metrics["transfer_half_interpolated"] == pytest.approx(by_hand, rel=1e-5)


def test_statistics_of_every_test_set_are_stored(evaluated: Evaluated) -> None:
    name = evaluated.evaluation.evaluator
    for setting, columns in evaluated.evaluation.columns.items():
        path = evaluated.folder / "evaluations" / f"{name}.{setting}.nc"
        assert path.name in evaluated.evaluation.files
        with xr.open_dataset(path, engine="h5netcdf") as errors:
            assert float(relative_l2_per_sample(errors).mean()) == pytest.approx(columns["rel_l2"], rel=1e-12)


def test_the_surrogate_stands_beside_the_solver(evaluated: Evaluated) -> None:
    cost, error = evaluated.evaluation.cost, evaluated.evaluation.metrics["rel_l2"]
    rungs = [Rung(**entry) for entry in evaluated.evaluation.rungs]
    assert [rung.resolution for rung in rungs] == ["32x32", "16x16"]
    assert rungs[0].rel_l2 < rungs[1].rel_l2 < error
    _, bound = ladder.seconds_at_error(rungs, error)
    assert 0 < cost["speedup_lowest"] <= cost["speedup_at_equal_error"] <= cost["speedup_highest"]
    single, _ = ladder.seconds_at_error(rungs, error, of="latency_seconds")
    assert cost["speedup_at_equal_error_batch_1"] == pytest.approx(1e3 * single / cost["latency_ms"])
    assert (bound, cost["speedup_is_bound"]) == ("<", -1)
    assert "larger than on the coarsest" in evaluated.evaluation.notes["speedup_at_equal_error"]
    spent = evaluated.record.cost["generation_seconds"] + evaluated.record.cost["train_seconds"]
    assert cost["breakeven_solves"] == ladder.breakeven_solves(
        spent, cost["speedup_at_equal_error"] / cost["throughput"], 1 / cost["throughput"]
    )
    assert (evaluated.folder / "evaluations" / f"{evaluated.evaluation.evaluator}.png").stat().st_size > 10_000


def test_the_board_shows_what_was_measured_later(evaluated: Evaluated) -> None:
    board = evaluated.outputs / "leaderboard"
    with open(board / "leaderboard.csv", newline="") as handle:
        (row,) = csv.DictReader(handle)
    evaluation = evaluated.evaluation
    for column in ("transfer_half", "ood_factor", "correlation_time_0.8", "stable_fraction"):
        assert float(row[column]) == pytest.approx(evaluation.metrics[column], rel=1e-5), column
    for column in ("speedup_at_equal_error", "breakeven_solves"):
        assert float(row[column]) == pytest.approx(evaluation.cost[column], rel=1e-5), column
    assert (row["speedup_is_bound"], row["transfer_double"]) == ("<", "")
    assert float(row["data_error"]) == pytest.approx(evaluated.record.data["test"]["error"], rel=1e-5)
    with open(board / "runs.csv", newline="") as handle:
        table = {(row["setting"], row["metric"]): row for row in csv.DictReader(handle)}
    entry = table["test_half_interpolated", "rel_l2"]
    assert float(entry["value"]) == pytest.approx(evaluation.metrics["transfer_half_interpolated"], rel=1e-5)
    assert entry["data_sha256"] == evaluation.data["test_half"]["sha256"][:12] != table["test", "rel_l2"]["data_sha256"]
    assert "x data's" in (board / "leaderboard.md").read_text()


def test_tables_fit_a_terminal(evaluated: Evaluated) -> None:
    lines = evaluated.printed.splitlines()
    for title in ("Errors on test", "Spectral error by band", "Errors elsewhere", "Error and time", "Cost", "Notes"):
        assert title in map(str.rstrip, lines), title
    tables = [line for line in lines if line.startswith(("|", "+"))]
    assert max(map(len, tables)) <= WIDTH
    assert not [line for line in tables if "…" in line], "a cell is cut"


@pytest.mark.exhaustive
def test_what_is_measured_is_not_measured_again(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ladder, "climb", lambda *_, **__: pytest.fail("the solver's curve is kept"))
    assert pipeline.run(compose(*evaluated.overrides)) == evaluated.record
    assert "This evaluation is done" in capsys.readouterr().out
    # Another run on the same data: only its own predictions are new.
    other = compose(*evaluated.overrides, "seed=1")
    pipeline.run(other)
    (path,) = (run_directory(other) / "evaluations").glob("*.json")
    assert Evaluation.load(path).rungs == evaluated.evaluation.rungs


@pytest.mark.exhaustive
@pytest.mark.parametrize("damage", ["cut", pytest.param("other_key", marks=pytest.mark.exhaustive)])
def test_a_damaged_or_foreign_curve_is_measured_again(
    damage: str, evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(evaluated.folder, tmp_path / "run"))
    data = tmp_path / "data"
    folder = Path(evaluated.record.data["test"]["file"]).parts[0]
    shutil.copytree(evaluated.data / folder, data / folder)
    (kept,) = (data / folder).glob("ladder-*.json")
    content = json.loads(kept.read_text())
    content["key"]["threads"] = 99
    kept.write_text(json.dumps(content) if damage == "other_key" else kept.read_text()[:100])
    rung = Rung("16x16", 1.0, 1e-3, 2.0, 1.0, batch_size=2)
    monkeypatch.setattr(ladder, "climb", lambda *_, **__: ([rung], {"8x8": "unstable"}))
    asked = ("mode=evaluate", f"run={run}", "evaluator=thorough", "evaluator.test_splits=[]", f"paths.data={data}")
    for _ in range(2):
        evaluation = pipeline.evaluate_again(compose(*asked, "force=true"))
        assert [entry["rel_l2"] for entry in evaluation.rungs] == [1e-3]
        assert evaluation.notes["solver on 8x8"] == "unstable"
    assert json.loads(kept.read_text())["left_out"] == {"8x8": "unstable"}


def test_a_model_of_one_grid_has_an_empty_cell_with_a_reason(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(evaluated.folder, tmp_path / "run"))
    monkeypatch.setattr(FNO, "resolution_free", False)
    splits = ("evaluator=thorough", "evaluator.test_splits=[test_half]", "evaluator.ladder=false")
    asked = ("mode=evaluate", f"run={run}", *splits, f"paths.data={evaluated.data}")
    evaluation = pipeline.evaluate_again(compose(*asked))
    assert evaluation.metrics["transfer_half"] is None
    assert "isn't resolution_free" in evaluation.notes["transfer_half"]
    control = evaluated.evaluation.metrics["transfer_half_interpolated"]
    assert evaluation.metrics["transfer_half_interpolated"] == control
    assert "speedup_at_equal_error" not in evaluation.cost


@pytest.mark.exhaustive
def test_a_grid_too_coarse_for_a_model_is_an_empty_cell_with_a_reason(smoke: Any) -> None:
    splits = ("evaluator=thorough", "evaluator.test_splits=[test_half]", "evaluator.ladder=false")
    cfg = smoke("trainer.epochs=1", "model.n_modes=12", *splits)
    pipeline.run(cfg)
    (path,) = (run_directory(cfg) / "evaluations").glob("*.json")
    evaluation = Evaluation.load(path)
    assert evaluation.metrics["transfer_half"] is None
    assert "n_modes must be at most 8" in evaluation.notes["transfer_half"]
    assert evaluation.metrics["transfer_half_interpolated"] is not None


def test_a_diverged_model_has_no_speed_up(
    evaluated: Evaluated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(evaluated.folder, tmp_path / "run"))
    monkeypatch.setattr(
        Surrogate, "predict", lambda _, batch, n: batch.history[:, -1:].repeat(1, n, 1, 1, 1) * math.nan
    )
    asked = ("mode=evaluate", f"run={run}", "evaluator=thorough", "evaluator.test_splits=[]")
    evaluation = pipeline.evaluate_again(compose(*asked, f"paths.data={evaluated.data}"))
    assert evaluation.metrics["rel_l2"] == math.inf
    assert evaluation.cost["speedup_at_equal_error"] is None
    assert "diverged" in evaluation.notes["speedup_at_equal_error"]
    assert evaluation.rungs == evaluated.evaluation.rungs


def test_a_run_without_its_checkpoint_cannot_be_evaluated(evaluated: Evaluated, tmp_path: Path) -> None:
    run = Path(shutil.copytree(evaluated.folder, tmp_path / "run"))
    (run / "best.pt").unlink()
    asked = ("mode=evaluate", f"run={run}", "evaluator=thorough", "force=true", f"paths.data={evaluated.data}")
    with pytest.raises(CheckpointError, match=r"best\.pt"):
        pipeline.evaluate_again(compose(*asked))


def test_test_data_that_changed_since_training_are_refused(evaluated: Evaluated, tmp_path: Path) -> None:
    run = Path(shutil.copytree(evaluated.folder, tmp_path / "run"))
    record = RunRecord.load(run / "record.json")
    record.data["test"].update(sha256="0" * 64, agreement=record.data["train"]["agreement"])
    record.save(run / "record.json")
    asked = ("mode=evaluate", f"run={run}", "evaluator=thorough", "force=true", f"paths.data={evaluated.data}")
    with pytest.raises(RunError, match="differ by more than a tenth of their own error"):
        pipeline.evaluate_again(compose(*asked))
