"""What can be done with a finished run: load it, evaluate it again, verify it, compare it, predict with it."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from data_gen.store import DatasetFile
from neuralop_bench import compare, pipeline, predict, verify
from neuralop_bench.batch import Batch
from neuralop_bench.compare import CompareError
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity, run_directory
from neuralop_bench.config.recorded import of_record
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.predict import InputError
from neuralop_bench.records.profile import Profile
from neuralop_bench.records.record import Evaluation, RecordError, RunRecord, Verification
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.records.standing import standing
from neuralop_bench.runs.evaluation import Provenance, score_again
from neuralop_bench.runs.scoring import Score
from neuralop_bench.runtime import environment
from neuralop_bench.surrogate.surrogate import Surrogate

Change = Callable[[h5py.File], None]
pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def test_file(finished: Path, data_folder: Path) -> Path:
    return data_folder / RunRecord.load(finished / "record.json").data["test"]["file"]


def change_record(run: Path, **changes: object) -> None:
    """Rewrite a record as somebody would who makes one up: consistent in itself."""
    path = run / "record.json"
    replace(RunRecord.load(path), **changes).save(path)  # pyright: ignore[reportArgumentType]


# Surrogate.load ------------------------------------------------------------------------------------------------------


def test_a_loaded_surrogate_scores_what_the_record_says(finished: Path, test_file: Path) -> None:
    surrogate = Surrogate.load(finished)
    assert not surrogate.training
    assert surrogate.n_history == 10
    with DatasetFile(test_file) as file:
        frames = torch.from_numpy(file.read_states(slice(0, 8)))
        assert surrogate.spec == file.spec
    prediction = surrogate.predict(Batch.given(frames[:, :10]), n_steps=10)
    error, norm = ((x.double()).square().sum(dim=(1, 2, 3, 4)) for x in (prediction - frames[:, 10:], frames[:, 10:]))
    by_hand = float((error / norm).sqrt().mean())
    assert by_hand == pytest.approx(RunRecord.load(finished / "record.json").metrics["rel_l2"], rel=1e-6)


def test_the_checkpoint_alone_is_enough(finished: Path, tmp_path: Path) -> None:
    shutil.copy(finished / "best.pt", tmp_path / "best.pt")
    one, two = (Surrogate.load(folder).state_dict() for folder in (finished, tmp_path))
    assert all(torch.equal(one[name], two[name]) for name in one)


# mode=evaluate -------------------------------------------------------------------------------------------------------


def test_evaluating_again_repeats_the_numbers_beside_the_record(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (copied / "record.json").read_bytes()
    asked = compose("mode=evaluate", f"run={copied}")
    evaluation = pipeline.evaluate_again(asked)
    record = RunRecord.load(copied / "record.json")
    assert (copied / "record.json").read_bytes() == before, "a record is never changed"
    assert evaluation == Evaluation.load(copied / "evaluations" / "standard.json")
    assert evaluation.run_id == record.run_id
    known = {name: value for name, value in record.metrics.items() if value is not None}
    assert {name for name, value in evaluation.metrics.items() if value is not None} == set(known)
    assert {name: evaluation.metrics[name] for name in known} == pytest.approx(known, rel=1e-6)
    assert evaluation.data["test"] == record.data["test"]
    with (
        xr.open_dataset(copied / "evaluations" / "standard.nc", engine="h5netcdf") as again,
        xr.open_dataset(copied / "errors.nc", engine="h5netcdf") as first,
    ):
        xr.testing.assert_allclose(again, first)
    capsys.readouterr()
    assert pipeline.evaluate_again(asked) == evaluation
    assert "This evaluation is done" in capsys.readouterr().out


@pytest.mark.exhaustive
def test_an_evaluation_rebuilds_the_board_of_the_given_outputs_and_no_other(finished: Path, tmp_path: Path) -> None:
    board, run = tmp_path / "leaderboard", tmp_path / "incoming" / "a" / "b" / "c" / "seed=0"
    board.mkdir()
    shutil.copytree(finished, run)
    config = RunRecord.load(run / "record.json").config
    change_record(run, config={**config, "paths": {**config["paths"], "outputs": str(tmp_path)}})
    only = [f"~evaluator.metrics.{name}" for name in compose().evaluator.metrics.keys() - {"rel_l2"}]
    asked = ("mode=evaluate", f"run={run}", "force=true", *only)
    pipeline.evaluate_again(compose(*asked, f"paths.outputs={tmp_path / 'mine'}"))
    assert not any(board.iterdir())
    pipeline.evaluate_again(compose(*asked, f"paths.outputs={tmp_path}"), draws=False)
    assert (board / "leaderboard.csv").is_file()


def test_another_evaluator_has_another_name(copied: Path) -> None:
    names = compose().evaluator.metrics.keys() - {"rel_l2"}
    without = [f"~evaluator.metrics.{name}" for name in names]
    evaluation = pipeline.evaluate_again(compose("mode=evaluate", f"run={copied}", *without))
    assert set(evaluation.metric_versions) == {"rel_l2"}
    assert evaluation.evaluator.startswith("standard-")
    assert (copied / "evaluations" / f"{evaluation.evaluator}.json").is_file()


@pytest.mark.parametrize("override", ["model.width=8", "track=lite", "trainer.epochs=3", "seed=1", "model=fno_2020"])
def test_what_the_run_decides_cannot_be_given_beside_it(copied: Path, override: str) -> None:
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        pipeline.evaluate_again(compose("mode=evaluate", f"run={copied}", override))


def test_evaluation_needs_a_finished_run(tmp_path: Path, copied: Path) -> None:
    with pytest.raises(ConfigError, match="run="):
        pipeline.evaluate_again(compose("mode=evaluate"))
    with pytest.raises(RecordError, match="nowhere"):
        pipeline.evaluate_again(compose("mode=evaluate", f"run={tmp_path / 'nowhere'}"))
    change_record(copied, status="diverged")
    with pytest.raises(RunError, match="diverged"):
        pipeline.evaluate_again(compose("mode=evaluate", f"run={copied}"))


# verify --------------------------------------------------------------------------------------------------------------


def test_an_honest_record_is_confirmed(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(copied)]) == 0
    printed = capsys.readouterr().out
    assert "Confirmed: all" in printed
    (path,) = (copied / "verifications").iterdir()
    assert f"Kept in {path}" in printed
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}\.json", path.name)
    kept, record = Verification.load(path), RunRecord.load(copied / "record.json")
    assert (kept.run_id, kept.fingerprint) == (record.run_id, record.fingerprint)
    assert (kept.confirmed, kept.tolerance) == (True, 1e-6)
    assert kept.difference <= 1e-6
    assert kept.column in record.metrics
    assert kept.environment["device"] == record.environment["device"]
    assert path.name.startswith(datetime.fromisoformat(kept.date_utc).strftime("%Y%m%dT%H%M%SZ-"))
    assert ("uncommitted" in printed) == kept.dirty
    assert standing(record, [replace(kept, dirty=False)]) == "verified"
    assert standing(record, [replace(kept, dirty=True)]) == "self"


@pytest.mark.parametrize(("factor", "status"), [(1 + 1e-5, 1), (1 + 1e-8, 0), (0.9, 1)])
def test_a_record_that_claims_other_numbers_is_not(
    copied: Path, capsys: pytest.CaptureFixture[str], factor: float, status: int
) -> None:
    metrics = RunRecord.load(copied / "record.json").metrics
    change_record(copied, metrics={**metrics, "rel_l2": (metrics["rel_l2"] or 0) * factor})
    assert verify.main([str(copied)]) == status
    printed = capsys.readouterr().out
    assert ("NOT confirmed: rel_l2 differ" in printed) == bool(status)
    (path,) = (copied / "verifications").iterdir()
    kept = Verification.load(path)
    assert kept.confirmed == (status == 0)
    if status:
        assert (kept.column, kept.difference) == ("rel_l2", pytest.approx(abs(1 / factor - 1), rel=1e-2))
    words = {0: "verified", 1: "disputed"}
    assert standing(RunRecord.load(copied / "record.json"), [replace(kept, dirty=False)]) == words[status]


def test_a_number_on_one_side_alone_is_an_infinite_difference(copied: Path) -> None:
    metrics = RunRecord.load(copied / "record.json").metrics
    change_record(copied, metrics={**metrics, "vrmse": math.inf})
    assert verify.main([str(copied)]) == 1
    (path,) = (copied / "verifications").iterdir()
    assert (Verification.load(path).column, Verification.load(path).difference) == ("vrmse", math.inf)


def test_verifying_can_leave_the_directory_as_it_is(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(copied), "--no-save"]) == 0
    assert not (copied / "verifications").exists()
    (copied / "verifications").write_text("in the way")
    assert verify.main([str(copied)]) == 0
    printed = capsys.readouterr()
    assert "Confirmed: all" in printed.out
    assert "Kept" not in printed.out
    assert f"{copied / 'verifications'} can't be written" in printed.err
    assert "--no-save" in printed.err


def test_what_could_not_be_compared_leaves_no_verification(copied: Path) -> None:
    change_record(copied, metric_versions={"rel_l2": 0})
    with pytest.raises(SystemExit):
        verify.main([str(copied)])
    assert not (copied / "verifications").exists()


def test_a_record_that_leaves_a_number_out_or_makes_one_up_is_not(copied: Path) -> None:
    metrics = RunRecord.load(copied / "record.json").metrics
    change_record(copied, metrics={**{k: v for k, v in metrics.items() if k != "vrmse"}, "fantasy": 0.1})
    wrong = {entry.column for entry in verify.verify(copied) if not entry.agrees}
    assert wrong == {"vrmse", "fantasy"}


@pytest.mark.parametrize("name", ["device", "processor", "vector_instructions"])
def test_another_device_is_allowed_a_thousandth(copied: Path, name: str) -> None:
    record = RunRecord.load(copied / "record.json")
    change_record(
        copied,
        environment={**record.environment, name: "another"},
        metrics={**record.metrics, "rel_l2": (record.metrics["rel_l2"] or 0) * (1 + 1e-4)},
    )
    assert all(entry.agrees for entry in verify.verify(copied))


@pytest.fixture(scope="module")
def rescored(finished_run: RunConfig) -> tuple[Score, Provenance]:
    """What ``verify`` computes for the finished run, once for all edits of its record."""
    run = run_directory(finished_run)
    record = RunRecord.load(run / "record.json")
    return score_again(of_record(record, run), record, run)


def _steps_halved(record: RunRecord) -> dict[str, Any]:
    shown = Profile.from_json(record.profile)
    return {"profile": replace(shown, step_errors=shown.step_errors / 2).to_json()}


def _field_of_less_error(record: RunRecord) -> dict[str, Any]:
    shown = Profile.from_json(record.profile)
    assert shown.fields.error is not None
    return {"profile": replace(shown, fields=replace(shown.fields, error=shown.fields.error / 2)).to_json()}


def _in_data(**changes: object) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda record: {"data": {**record.data, "test": {**record.data["test"], **changes}}}


def _in_cost(**changes: object) -> Callable[[RunRecord], dict[str, Any]]:
    return lambda record: {"cost": {**record.cost, **changes}}


def _wider(record: RunRecord) -> dict[str, Any]:
    return {"config": {**record.config, "model": {**record.config["model"], "width": 1}}}


def _wider_and_consistent(record: RunRecord) -> dict[str, Any]:
    """With the names that a run of this configuration has."""
    changes = _wider(record)
    cfg = of_record(replace(record, **changes), Path())
    who = replace(identity(cfg), track=record.track)
    return {**changes, "config_hash": who.config_hash, "run_id": who.run_id(record.seed)}


EDITS: dict[str, tuple[Callable[[RunRecord], dict[str, Any]], str]] = {
    "samples in another order": (lambda record: {"samples": {"rel_l2": record.samples["rel_l2"][::-1]}}, "of sample"),
    "a sample less": (lambda record: {"samples": {"rel_l2": record.samples["rel_l2"][1:]}}, "number of samples"),
    "no samples": (lambda _: {"samples": {}}, "number of samples"),
    "smaller errors over time": (_steps_halved, "step_errors"),
    "a better picture": (_field_of_less_error, "error of the drawn field"),
    "no picture": (lambda _: {"profile": {}}, "curves and fields"),
    "fewer parameters": (_in_cost(n_parameters=1), "n_parameters"),
    "fewer operations": (_in_cost(gflops_forward=1e-9), "gflops_forward"),
    "an earlier epoch": (_in_cost(best_epoch=-1), "best_epoch"),
    "another architecture": (_wider, "config_hash"),
    "another architecture, consistently": (_wider_and_consistent, "model.width of the checkpoint"),
    "another hash": (lambda _: {"config_hash": "00000000"}, "config_hash"),
    "a track whose rules it breaks": (lambda record: {"track": record.config["track"]}, "track"),
    "another task": (lambda _: {"task": "another"}, "task"),
    "another model": (lambda _: {"model": "unet"}, "model"),
    "another seed": (lambda _: {"seed": 7}, "seed"),
    "more test data": (_in_data(n=1000), "n of test"),
    "numbers of other data": (
        lambda record: _in_data(agreement=record.data["valid"]["agreement"])(record),
        "numbers of test",
    ),
    "data of a smaller error": (_in_data(error=1e-9), "error of test"),
    "data of another version": (_in_data(version=0), "version of test"),
}


@pytest.mark.parametrize(("edit", "named"), EDITS.values(), ids=EDITS)
def test_every_edit_that_can_be_found_out_is(
    copied: Path,
    rescored: tuple[Score, Provenance],
    monkeypatch: pytest.MonkeyPatch,
    edit: Callable[[RunRecord], dict[str, Any]],
    named: str,
) -> None:
    monkeypatch.setattr(verify, "score_again", lambda *_: deepcopy(rescored))
    assert all(entry.agrees for entry in verify.verify(copied))
    change_record(copied, **edit(RunRecord.load(copied / "record.json")))
    found = verify.verify(copied)
    wrong = [entry.column for entry in found if not entry.agrees]
    assert any(named in column for column in wrong), wrong
    record = RunRecord.load(copied / "record.json")
    kept = replace(verify.verification(record, found), dirty=False)
    assert standing(record, [kept]) == "disputed"


def test_times_and_memory_are_the_machines(
    copied: Path,
    rescored: tuple[Score, Provenance],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(verify, "score_again", lambda *_: deepcopy(rescored))
    cost = RunRecord.load(copied / "record.json").cost
    change_record(copied, cost={**cost, "latency_ms": 1234.0, "train_seconds": 1.0, "peak_memory_mb": 1.0})
    assert verify.main([str(copied), "--no-save"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"latency_ms\s*\|\s*1234 \|", printed.split("Not compared")[1])


def test_two_verifications_of_one_second_are_both_kept(
    copied: Path, rescored: tuple[Score, Provenance], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "score_again", lambda *_: deepcopy(rescored))
    now = environment.provenance(torch.device("cpu"))
    monkeypatch.setattr(environment, "provenance", lambda *_, **__: now)
    assert verify.main([str(copied)]) == 0
    record = RunRecord.load(copied / "record.json")
    change_record(copied, metrics={**record.metrics, "vrmse": 0.0})
    assert verify.main([str(copied)]) == 1
    found = [Verification.load(path).confirmed for path in (copied / "verifications").iterdir()]
    assert sorted(found) == [False, True]


def test_other_weights_are_found_out(copied: Path) -> None:
    content = torch.load(copied / "best.pt", weights_only=True)
    name = next(name for name in content["model"] if name.startswith("operator"))
    content["model"][name] += 0.05
    torch.save(content, copied / "best.pt")
    assert any(not entry.agrees for entry in verify.verify(copied))


def test_other_data_and_redefined_metrics_are_found_out(copied: Path) -> None:
    record = RunRecord.load(copied / "record.json")
    others = {**record.data["test"], "sha256": "0" * 64, "agreement": record.data["valid"]["agreement"]}
    change_record(copied, data={**record.data, "test": others})
    with pytest.raises(RunError, match=r"test data.*differ by more than a tenth of their own error"):
        verify.verify(copied)
    del others["agreement"]  # as of an old record
    change_record(copied, data={**record.data, "test": others})
    with pytest.raises(RunError, match=r"test data.*their hashes differ"):
        verify.verify(copied)
    change_record(copied, data=record.data, metric_versions={**record.metric_versions, "rel_l2": 0})
    with pytest.raises(RunError, match="rel_l2 are defined differently"):
        verify.verify(copied)


def test_a_record_from_another_kind_of_processor_is_verified_here(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = RunRecord.load(copied / "record.json")
    change_record(copied, data={split: {**entry, "sha256": "0" * 64} for split, entry in record.data.items()})
    assert all(entry.agrees for entry in verify.verify(copied))
    assert "The test data here differ from those of the record in their last digits" in capsys.readouterr().out


def test_a_record_of_somebody_elses_code_needs_trust(copied: Path) -> None:
    record = RunRecord.load(copied / "record.json")
    model = {"label": "theirs", "_target_": "somebody.Model", "_partial_": True}
    change_record(copied, config={**record.config, "model": model})
    with pytest.raises(ConfigError, match=r"trust=\[somebody\]"):
        verify.verify(copied)


# compare -------------------------------------------------------------------------------------------------------------


def test_two_runs_are_compared_on_the_same_samples(
    finished: Path, copied: Path, data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = (f"paths.data={data_folder}", f"paths.outputs={tmp_path / 'outputs'}")
    cfg = compose("track=smoke", "model=persistence", "trainer.epochs=1", *paths)
    pipeline.run(cfg)
    capsys.readouterr()
    assert compare.main([str(finished), str(run_directory(cfg))]) == 0
    printed = capsys.readouterr().out
    one, other = compare.read(finished), compare.read(run_directory(cfg))
    assert one.errors.mean() == pytest.approx(one.first.metrics["rel_l2"], rel=1e-12)
    ratio = np.exp(np.log(one.errors[0] / other.errors[0]).mean())
    assert compare.compare(one, other)[0].ratio == pytest.approx(ratio, rel=1e-12)
    assert f"error of fno / error of persistence, geometric mean | {ratio:.4g}".split() == [
        word for line in printed.splitlines() if "geometric" in line for word in line.strip("| ").split()
    ]
    assert printed.splitlines()[-1].startswith("fno has ")
    # Before records kept errors per sample, they were in errors.nc alone.
    change_record(copied, samples={}, profile={}, format=3)
    np.testing.assert_array_equal(compare.read(copied).errors, one.errors)
    with open(copied / "errors.nc", "ab") as file:
        file.write(b"more")
    with pytest.raises(CompareError, match=r"errors\.nc beside it isn't the one"):
        compare.read(copied)
    (copied / "errors.nc").unlink()
    with pytest.raises(CompareError, match=r"no errors\.nc lie beside it"):
        compare.read(copied)
    pipeline.evaluate_again(compose("mode=evaluate", f"run={copied}"))
    np.testing.assert_allclose(compare.read(copied).errors, one.errors, rtol=1e-6)


# predict -------------------------------------------------------------------------------------------------------------


def own_file(path: Path, source: Path, change: Change | None = None, n_frames: int = 10) -> Path:
    """A user's own file: bare arrays, no metadata of ours."""
    with h5py.File(source, "r") as given, h5py.File(path, "w") as file:
        file["vorticity"] = given["vorticity"][:3, :n_frames]
        for name in ("x", "y"):
            file[name] = given[name][:]
        file["time"] = given["time"][:n_frames]
        if change is not None:
            change(file)
    return path


@pytest.mark.parametrize("how", ["itself", "symbolic link", "hard link", "the run's checkpoint"])
def test_a_prediction_never_replaces_what_it_is_made_from(
    finished: Path, test_file: Path, tmp_path: Path, how: str
) -> None:
    source, output = own_file(tmp_path / "in.hdf5", test_file), tmp_path / "out.hdf5"
    if how == "symbolic link":
        output.symlink_to(source)
    elif how == "hard link":
        output.hardlink_to(source)
    else:
        output = source if how == "itself" else finished / "best.pt"
    before = output.read_bytes()
    with pytest.raises(predict.InputError, match="would replace"):
        predict.predict(finished, source, output)
    assert output.read_bytes() == before


def test_predictions_of_an_own_file_are_the_surrogates(finished: Path, test_file: Path, tmp_path: Path) -> None:
    source, output = own_file(tmp_path / "in.hdf5", test_file), tmp_path / "new" / "out.hdf5"
    assert predict.main([str(finished), str(source), "-o", str(output), "--steps", "4"]) == 0
    with h5py.File(source, "r") as file:
        history = torch.from_numpy(file["vorticity"][:])[:, :, None]
    expected = Surrogate.load(finished).predict(Batch.given(history), n_steps=4)[:, :, 0].numpy()
    with xr.open_dataset(output, engine="h5netcdf") as written:
        assert dict(written.sizes) == {"sample": 3, "time": 4, "x": 32, "y": 32}
        np.testing.assert_allclose(written["vorticity"].values, expected, rtol=0, atol=1e-6)
        assert written["time"].values.tolist() == [10, 11, 12, 13]
        assert written.attrs["run_id"] == RunRecord.load(finished / "record.json").run_id
        assert "relative_l2" not in written


def test_frames_beyond_the_history_are_compared(finished: Path, test_file: Path, tmp_path: Path) -> None:
    result = predict.predict(finished, test_file, tmp_path / "out.hdf5")
    record = RunRecord.load(finished / "record.json")
    assert float(result["relative_l2"].mean()) == pytest.approx(record.metrics["rel_l2"], rel=1e-6)


def test_a_finer_grid_is_fine_for_a_model_that_is_free_of_resolution(finished: Path, tmp_path: Path) -> None:
    x = np.arange(64) / 64
    wave = np.sin(2 * np.pi * x)[:, None] * np.cos(4 * np.pi * x)[None, :]
    for n, name in ((64, "fine"), (32, "coarse")):
        with h5py.File(tmp_path / f"{name}.hdf5", "w") as file:
            file["vorticity"] = np.broadcast_to(wave[:: 64 // n, :: 64 // n], (1, 10, n, n))
    fine, coarse = (
        predict.predict(finished, tmp_path / f"{name}.hdf5", tmp_path / "out.hdf5", n_steps=2)["vorticity"].values
        for name in ("fine", "coarse")
    )
    assert fine.shape == (1, 2, 64, 64)
    assert np.abs(fine[:, :, ::2, ::2] - coarse).max() < 0.02 * np.abs(coarse).max()


def _replace(name: str, value: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


def _group(file: h5py.File) -> None:
    _replace("vorticity", None)(file)
    file.create_group("vorticity")


def _spoil(file: h5py.File) -> None:
    file["vorticity"][0, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (_replace("vorticity", None), "no dataset 'vorticity'"),
        (_replace("vorticity", np.zeros((3, 10, 32, 32), np.complex64)), "expected a dataset of real numbers"),
        (_group, "expected a dataset of real numbers"),
        (_replace("vorticity", np.zeros((3, 10, 32))), "expected [sample, time, x, y]"),
        (_replace("vorticity", np.zeros((3, 9, 32, 32))), "holds 9 frames per sample, but the model is given 10"),
        (_replace("vorticity", np.zeros((0, 10, 32, 32))), "holds no sample"),
        (_replace("vorticity", np.zeros((3, 10, 8, 8))), "coordinates 'x'"),
        (_replace("x", np.linspace(0, 1, 32)), "coordinates 'x'"),  # a closed grid where a periodic one is needed
        (_replace("time", np.arange(10) * 0.5), "1 apart"),
        (_spoil, "aren't finite"),
    ],
)
def test_a_file_that_does_not_fit_is_explained(
    finished: Path, test_file: Path, tmp_path: Path, change: Change, expected: str
) -> None:
    source = own_file(tmp_path / "in.hdf5", test_file, change)
    with pytest.raises(InputError) as raised:
        predict.predict(finished, source, tmp_path / "out.hdf5")
    assert expected in str(raised.value)
    assert str(source) in str(raised.value)
    assert not (tmp_path / "out.hdf5").exists()


def test_no_file_and_no_hdf5_file_are_explained(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        predict.predict(finished, tmp_path / "nothing.hdf5", tmp_path / "out.hdf5")
    (tmp_path / "text.hdf5").write_text("text")
    with pytest.raises(InputError, match="isn't an HDF5 file"):
        predict.predict(finished, tmp_path / "text.hdf5", tmp_path / "out.hdf5")
    with pytest.raises(InputError, match="At least 1 step"):
        predict.predict(finished, tmp_path / "text.hdf5", tmp_path / "out.hdf5", n_steps=0)


# dry_run -------------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cfg = compose("track=smoke", "dry_run=true", f"paths.data={tmp_path / 'd'}", f"paths.outputs={tmp_path / 'o'}")
    pipeline.execute(cfg)
    printed = capsys.readouterr().out
    for text in ("new", "16 samples, 1.25 MiB, 16 to generate", "s per sample and core", "111,665", "about "):
        assert text in printed
    assert str(run_directory(cfg)) in printed
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_a_finished_run_says_so(finished_run: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    paths = (f"paths.data={finished_run.paths.data}", f"paths.outputs={finished_run.paths.outputs}")
    pipeline.execute(compose("track=smoke", "trainer.epochs=1", "dry_run=true", *paths))
    printed = capsys.readouterr().out
    assert "already finished" in printed
    assert "nothing to do" in printed
    pipeline.execute(compose("track=smoke", "trainer.epochs=1", "dry_run=true", "force=true", *paths))
    assert "force=true moves it aside" in capsys.readouterr().out
    assert (run_directory(finished_run) / "record.json").is_file()
