"""dataset=file: whole runs on imported data, for every model, wherever the files lie."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import scipy.sparse.linalg
import torch
from numpy.typing import NDArray

from data_gen.importing.contents import Given
from data_gen.importing.convert import About, Part, import_data
from data_gen.store import DatasetFile, StoreError
from neuralop_bench import pipeline, predict, status, verify
from neuralop_bench.config.compose import compose as composed
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity, run_directory
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.record import Evaluation
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.runs import plan

# A model that fits the small grids below.
SMALL = ("model.n_modes=4", "model.width=6", "model.n_layers=2", "model.projection_width=8")

Compose = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("no_figures")


def _darcy(n: int, resolution: int, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Two-phase coefficients 3 and 12 as their Boolean, and solutions of -div(a grad u) = 1, u = 0 on the boundary."""
    rng = np.random.default_rng(seed)
    phase, solutions = np.zeros((n, resolution, resolution), bool), np.zeros((n, resolution, resolution))
    h, inner = 1 / (resolution - 1), resolution - 2
    index = np.arange(inner**2).reshape(inner, inner)
    x = np.linspace(0, 1, resolution)
    for i in range(n):
        waves = sum(
            rng.standard_normal() * np.outer(np.cos(np.pi * k * x), np.cos(np.pi * m * x)) / (k * k + m * m + 1)
            for k in range(4)
            for m in range(4)
            if k + m
        )
        phase[i] = waves > 0
        a = np.where(phase[i], 12.0, 3.0)
        faces = {0: (a[1:, 1:-1] + a[:-1, 1:-1]) / 2, 1: (a[1:-1, 1:] + a[1:-1, :-1]) / 2}
        diagonal = faces[0][1:] + faces[0][:-1] + faces[1][:, 1:] + faces[1][:, :-1]
        down, right = -faces[0][1:-1].ravel(), -faces[1][:, 1:-1].ravel()
        rows = np.concatenate([index.ravel(), index[:-1].ravel(), index[:, :-1].ravel()])
        columns = np.concatenate([index.ravel(), index[1:].ravel(), index[:, 1:].ravel()])
        upper = scipy.sparse.coo_matrix((np.concatenate([diagonal.ravel(), down, right]), (rows, columns)))
        matrix = (upper + upper.T - scipy.sparse.diags_array(upper.diagonal())).tocsc()
        solutions[i, 1:-1, 1:-1] = scipy.sparse.linalg.spsolve(matrix, np.full(inner**2, h * h)).reshape(inner, inner)
    return phase, solutions


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Darcy flow at 16 x 16 as neuraloperator publishes it (x Boolean, y single precision), imported."""
    folder = tmp_path_factory.mktemp("darcy")
    for split, n in (("train", 48), ("test", 12)):
        phase, solutions = _darcy(n, 16, seed=n)
        content = {"x": torch.from_numpy(phase), "y": torch.from_numpy(solutions).float()}
        torch.save(content, folder / f"darcy_{split}_16.pt")
    train, test = folder / "darcy_train_16.pt", folder / "darcy_test_16.pt"
    parts = [Part("train", train, 40), Part("valid", train), Part("test", test)]
    _, warnings = import_data("neuralop", parts, About("darcy16"), folder / "imported")
    assert not warnings
    return folder / "imported"


@pytest.fixture(scope="module")
def waves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Translating waves on a periodic square, from a MATLAB file: twenty frames."""
    folder = tmp_path_factory.mktemp("waves")
    rng = np.random.default_rng(0)
    x = np.arange(32) / 32
    phase = rng.uniform(0, 1, (24, 1, 1, 1)) + x[:, None, None] + x[None, :, None] - 0.05 * np.arange(21)
    u = np.sin(2 * np.pi * phase) * rng.uniform(1, 2, (24, 1, 1, 1))
    scipy.io.savemat(folder / "waves.mat", {"a": u[..., 0], "u": u[..., 1:], "t": np.arange(1, 21)[None]})
    parts = [
        Part("train", folder / "waves.mat", 16),
        Part("valid", folder / "waves.mat", 4),
        Part("test", folder / "waves.mat"),
    ]
    import_data("mat", parts, About("waves"), folder / "imported")
    return folder / "imported"


@pytest.fixture
def on(tmp_path: Path) -> Compose:
    """Compose a smoke run on a folder: on(folder, "seed=1") -> RunConfig."""

    def compose(folder: Path | str, *overrides: str) -> RunConfig:
        fixed = ("track=smoke", "dataset=file", f"dataset.path={folder}", f"paths.outputs={tmp_path / 'out'}")
        return composed(*fixed, *(SMALL if not any(o.startswith("model=") for o in overrides) else ()), *overrides)

    return compose


def test_a_run_on_imported_data_does_all_that_a_run_does(
    on: Compose, imported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = on(imported, "trainer.batch_size=8", "optimizer.lr=1e-2")
    pipeline.execute(on(imported, "trainer.batch_size=8", "optimizer.lr=1e-2", "dry_run=true"))
    planned = capsys.readouterr().out
    assert f"data           {imported}" in planned
    assert "generation   nothing to do" in planned
    record = pipeline.run(cfg)
    assert (record.dataset, record.track, record.status) == ("darcy16", "smoke", "finished")
    assert record.task.startswith("darcy16-")
    assert {split: entry["n"] for split, entry in record.data.items()} == {"train": 40, "valid": 8, "test": 12}
    assert record.data["test"]["file"] == "test/darcy16.hdf5"
    with DatasetFile(imported / "test" / "darcy16.hdf5") as file:
        assert record.data["test"]["sha256"] == file.sha256()
    rel_l2 = record.metrics["rel_l2"]
    assert rel_l2 is not None
    assert 0.001 < rel_l2 < 1
    assert record.cost["generation_seconds"] is None
    assert plan.make(cfg).source.problem is None, "no problem, so no solver"
    with open(tmp_path / "out" / "leaderboard" / "leaderboard.csv", newline="") as handle:
        (row,) = csv.DictReader(handle)
    assert (row["dataset"], row["rank"], row["task"]) == ("darcy16", "1", record.task)
    folder = run_directory(cfg)
    assert folder.parts[-5:-2] == ("smoke", "darcy16", "fno")
    assert pipeline.run(cfg) == record
    assert "This run is done" in capsys.readouterr().out
    assert all(entry.agrees for entry in verify.verify(folder))
    again = pipeline.evaluate_again(composed("mode=evaluate", f"run={folder}"))
    assert again.metrics["rel_l2"] == pytest.approx(rel_l2, rel=1e-6)
    thorough = pipeline.evaluate_again(composed("mode=evaluate", f"run={folder}", "evaluator=thorough"))
    assert (thorough.cost["speedup_at_equal_error"], thorough.metrics["transfer_half"]) == (None, None)
    assert thorough.notes["speedup_at_equal_error"] == "imported data have no solver to compare with"
    assert thorough.notes["transfer_half"] == "the dataset has no test_half"
    assert (thorough.rungs, thorough.data["test"]["error"]) == ([], None)
    result = predict.predict(folder, imported / "test" / "darcy16.hdf5", tmp_path / "p.hdf5")
    assert result["pressure"].shape == (12, 1, 16, 16)
    assert float(result["relative_l2"].mean()) == pytest.approx(rel_l2, rel=1e-6)
    (found,) = status.states(tmp_path / "out").values()
    assert found.progress == "finished"


# One of those with parameters, one without, and one that takes several frames at once.
@pytest.mark.parametrize("model", ["unet", "pca_ridge", "fno_3d"])
def test_a_model_fits_imported_trajectories(model: str, on: Compose, waves: Path) -> None:
    cfg = on(waves, f"model={model}", "dataset.history=10")
    made = plan.make(cfg)
    assert made.n_parameters >= 0
    assert (cfg.dataset.history, cfg.dataset.horizon) == (10, 10)
    assert identity(cfg).track == "smoke"


def test_a_time_dependent_run(on: Compose, waves: Path) -> None:
    record = pipeline.run(on(waves, "dataset.history=16", "surrogate.residual=true"))
    assert record.status == "finished"
    assert record.config["dataset"]["horizon"] == 4


@pytest.mark.exhaustive
def test_imported_test_sets_are_measured_on_other_grids_too(on: Compose, imported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "with_more"
    shutil.copytree(imported, folder)
    for name, resolution in (("test_fine", 24), ("test_ood_seed", 16)):
        phase, solutions = _darcy(5, resolution, seed=7)
        content = {"x": torch.from_numpy(phase), "y": torch.from_numpy(solutions).float()}
        torch.save(content, tmp_path / f"{name}.pt")
        import_data("neuralop", [Part(name, tmp_path / f"{name}.pt")], About("darcy16"), folder)
    cfg = on(folder, "trainer.epochs=1", "trainer.batch_size=8")
    assert identity(cfg) == identity(on(imported, "trainer.epochs=1", "trainer.batch_size=8"))
    pipeline.run(cfg)
    run = run_directory(cfg)
    thorough = pipeline.evaluate_again(composed("mode=evaluate", f"run={run}", "evaluator=thorough"))
    assert {name: (entry["n"], entry["resolution"]) for name, entry in thorough.data.items() if name != "test"} == {
        "test_fine": (5, "24x24"),
        "test_ood_seed": (5, "16x16"),
    }
    for name in ("test_fine", "test_ood_seed"):
        predicted = predict.predict(run, folder / name / "darcy16.hdf5", tmp_path / "p.hdf5")
        assert thorough.columns[name]["rel_l2"] == pytest.approx(float(predicted["relative_l2"].mean()), rel=1e-5)
    assert thorough.metrics["ood_factor"] is not None
    with pytest.raises(ConfigError, match=r"no split test_half; there are .*test_fine, test_ood_seed"):
        pipeline.evaluate_again(composed("mode=evaluate", f"run={run}", "evaluator.test_splits=[test_half]"))
    import_data(
        "neuralop",
        [Part("test_ood_seed", tmp_path / "test_ood_seed.pt")],
        About("darcy16"),
        folder,
        Given(state=("head",)),
        replace_existing=True,
    )
    with pytest.raises(StoreError, match=r"can't be a test set for the data in .* they differ in state"):
        pipeline.evaluate_again(composed("mode=evaluate", f"run={run}", "evaluator=thorough", "force=true"))


def test_arrays_of_apebench_are_scored_on_long_rollouts(tmp_path: Path) -> None:
    rng, x = np.random.default_rng(0), np.arange(160) / 160
    for split, n_frames in (("train", 6), ("valid", 6), ("test", 6), ("test_long", 111)):
        phase = rng.uniform(size=(4, 1, 1)) + x - 0.01 * np.arange(n_frames)[:, None]
        np.savez(tmp_path / f"{split}.npz", u=np.sin(2 * np.pi * phase), t=0.01 * np.arange(n_frames))
    parts = [Part(split, tmp_path / f"{split}.npz") for split in ("train", "valid", "test", "test_long")]
    import_data("npz", parts, About("apebench_advection"), tmp_path / "imported")
    sizes = ("splits.train=4", "splits.valid=4", "splits.test=4", "dataset.horizon=5", "trainer.epochs=1")
    where = (f"dataset.path={tmp_path / 'imported'}", f"paths.outputs={tmp_path / 'out'}", "device=cpu")
    cfg = composed("experiment=paper/apebench_imported", "model.width=4", *sizes, *where)
    pipeline.run(cfg)
    evaluation = Evaluation.load(next((run_directory(cfg) / "evaluations").glob("*.json")))
    assert 0 < evaluation.metrics["nrmse_gmean_100"] < 100
    assert evaluation.data["test_long"]["n"] == 4
    shutil.rmtree(tmp_path / "imported" / "test_long")
    with pytest.raises(
        ConfigError, match=r"no split test_long; there are train, valid, test\. .* add it to dataset\.path"
    ):
        plan.make(cfg)  # before anything is trained


@pytest.mark.network
def test_files_that_neuraloperator_published_run_end_to_end(on: Compose, tmp_path: Path) -> None:
    # Its wheels up to 0.3.0 carry small Darcy files; later releases download others.
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "download", "--no-deps", "-d", tmp_path)
    subprocess.run([*map(str, pip), "neuraloperator==0.3.0"], check=True, timeout=300)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.endswith(".pt"):
                archive.extract(name, tmp_path)
    published = tmp_path / "neuralop" / "datasets" / "data"
    train, small, large = (published / f"darcy_{name}.pt" for name in ("train_16", "test_16", "test_32"))
    parts = [Part("train", train, 900), Part("valid", train), Part("test", small)]
    import_data("neuralop", parts, About("darcy16"), tmp_path / "darcy16")
    import_data("neuralop", [Part("test", large)], About("darcy32"), tmp_path / "darcy32")
    original = torch.load(large, weights_only=True)
    with DatasetFile(tmp_path / "darcy32" / "test" / "darcy32.hdf5") as file:
        assert np.array_equal(file.read_states(slice(None))[:, 0, 0], original["y"].numpy())
        assert np.array_equal(file.read_static(slice(None))[:, 0], original["x"].numpy())
    record = pipeline.run(on(tmp_path / "darcy16", "optimizer.lr=1e-2", "trainer.epochs=3"))
    assert {split: entry["n"] for split, entry in record.data.items()} == {"train": 900, "valid": 100, "test": 50}
    assert (record.metrics["rel_l2"] or 1) < 0.3, "0.49 is what the mean field scores"
    assert verify.main([str(next((tmp_path / "out").rglob("record.json")).parent)]) == 0


def test_the_files_fill_in_what_is_left_open(on: Compose, imported: Path, waves: Path) -> None:
    steady, moving = on(imported), on(waves)
    assert (steady.dataset.history, steady.dataset.horizon, steady.task) == (0, 1, "darcy16")
    assert (moving.dataset.history, moving.dataset.horizon) == (1, 19)
    assert steady.splits == {"train": 40, "valid": 8, "test": 12}
    fewer = on(imported, "splits.train=10")
    assert fewer.splits == {"train": 10, "valid": 8, "test": 12}


def test_what_is_asked_of_the_files_is_the_task(on: Compose, imported: Path, waves: Path) -> None:
    # No task file fixes it, so runs that differ in it are shown apart and ranked each among their own.
    plain = identity(on(waves))
    for override in ("dataset.history=3", "dataset.horizon=2", "splits.train=8"):
        other = identity(on(waves, override))
        assert other.task != plain.task, override
        assert other.config_hash != plain.config_hash, override
        assert (other.track, other.label) == ("smoke", plain.label)
    wider = identity(on(waves, "model.width=9"))
    assert wider.config_hash != plain.config_hash
    assert wider.task == plain.task
    assert identity(on(waves, "trainer.epochs=3")).track == "custom"
    assert identity(on(imported)).task != plain.task


def test_the_identity_is_in_the_data_and_not_in_their_place(
    on: Compose, imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = identity(on(imported))
    moved = tmp_path / "a=b" / "elsewhere"
    shutil.copytree(imported, moved)
    for split in ("train", "valid", "test"):
        (moved / split / "darcy16.hdf5").rename(moved / split / "renamed.hdf5")
    assert identity(on(moved)) == before
    monkeypatch.chdir(tmp_path)
    assert identity(on("a=b/elsewhere")) == before
    monkeypatch.setenv("HOME", str(tmp_path / "a=b"))
    assert identity(on("~/elsewhere")) == before
    # The same name, other numbers.
    phase, solutions = _darcy(12, 16, seed=99)
    torch.save({"x": torch.from_numpy(phase), "y": torch.from_numpy(solutions).float()}, tmp_path / "other.pt")
    part = [Part("test", tmp_path / "other.pt")]
    import_data("neuralop", part, About("darcy16"), moved, replace_existing=True)
    changed = identity(on(moved))
    assert changed.config_hash != before.config_hash
    assert changed.task != before.task


@pytest.mark.exhaustive
def test_a_moved_dataset_can_be_named(on: Compose, imported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(imported, moved)
    cfg = on(moved, "trainer.epochs=1", "trainer.batch_size=8")
    record, folder = pipeline.run(cfg), run_directory(cfg)
    shutil.rmtree(moved)
    with pytest.raises(StoreError, match=r"dataset\.path=.*moved: there is no such folder"):
        verify.verify(folder)
    assert all(entry.agrees for entry in verify.verify(folder, data=imported))
    asked = ("mode=evaluate", f"run={folder}", "dataset=file", f"dataset.path={imported}")
    assert pipeline.evaluate_again(composed(*asked)).run_id == record.run_id
    # Another dataset in its place is noticed.
    shutil.copytree(imported, moved)
    shutil.copy(moved / "valid" / "darcy16.hdf5", moved / "test" / "darcy16.hdf5")
    with pytest.raises((RunError, StoreError)):
        verify.verify(folder, data=moved)
    with pytest.raises(ConfigError, match=r"dataset\.seed"):
        composed(*asked, "dataset.seed=1")


def _without(imported: Path, to: Path, split: str) -> Path:
    shutil.copytree(imported, to)
    shutil.rmtree(to / split)
    return to


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset=file",), "dataset=file needs the folder of imported data: dataset.path=<folder>"),
        (("dataset=file", "dataset.path="), "dataset.path=<folder>"),
        (("dataset=file", "dataset.path=nowhere/at/all"), "dataset.path=nowhere/at/all: there is no such folder"),
        (("dataset=file", "dataset.path=FILE"), "is a file, expected a folder with train/, valid/, test/"),
        (("dataset=file", "dataset.path=NOVALID"), "has no valid split"),
        (("dataset=file", "dataset.path=DIR", "splits.test=13"), "holds 12 samples, but splits.test=13"),
        (("dataset=file", "dataset.path=DIR", "dataset.history=1"), "need 2 frames, but darcy16 stores 1"),
        (("dataset=file", "dataset.path=DIR", "dataset.seed=1"), "dataset.seed is for generated data"),
        (("dataset=file", "dataset.path=DIR", "dataset.name=x"), "dataset.name and dataset.content can't be set"),
        (("dataset=file", "dataset.path=DIR", "surrogate.residual=true"), "surrogate.residual=false"),
        (("dataset=ns2d", "dataset.path=DIR"), "dataset.problem is for generated data"),
    ],
)
def test_mistakes_are_explained(overrides: tuple[str, ...], message: str, imported: Path, tmp_path: Path) -> None:
    names = {
        "FILE": str(imported / "test" / "darcy16.hdf5"),
        "DIR": str(imported),
        "NOVALID": str(_without(imported, tmp_path / "some", "valid")),
    }
    given = [key + equals + names.get(value, value) for key, equals, value in (o.partition("=") for o in overrides)]
    with pytest.raises(Exception) as raised:  # noqa: PT011  (OmegaConf's and ours)
        plan.make(composed("track=smoke", *SMALL, *given))
    assert message in describe(raised.value)
    if "NOVALID" in str(overrides):
        assert "scripts/import_data.py FORMAT train=FILE:900 valid=FILE:100" in describe(raised.value)


def test_splits_that_hold_different_things_are_refused(imported: Path, waves: Path, tmp_path: Path) -> None:
    mixed = _without(imported, tmp_path / "mixed", "test")
    shutil.copytree(waves / "test", mixed / "test")
    with pytest.raises(StoreError, match=r"they differ in name, equation, grid, times"):
        composed("track=smoke", "dataset=file", f"dataset.path={mixed}")
    shutil.copy(imported / "test" / "darcy16.hdf5", mixed / "test")
    with pytest.raises(StoreError, match=r"several files, expected one: darcy16\.hdf5, waves\.hdf5"):
        composed("track=smoke", "dataset=file", f"dataset.path={mixed}")


def test_a_damaged_file_is_an_error_before_anything_is_written(on: Compose, imported: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(imported, broken)
    path = broken / "valid" / "darcy16.hdf5"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(StoreError, match=r"valid/darcy16\.hdf5"):
        on(broken)
    assert not (tmp_path / "out").exists()


def test_a_generated_dataset_is_a_folder_of_files_too(on: Compose, smoke: Compose) -> None:
    cfg = smoke()
    source = plan.make(cfg).source
    paths = source.ensure(cfg.splits, workers=1)
    again = on(source.folder)
    assert (again.dataset.name, again.splits) == ("ns2d", cfg.splits)
    assert plan.make(again).source.ensure(again.splits) == paths
