"""A file that is deleted, cut or altered between two runs: harmless, or an error that names it and the remedy; never a
wrong number."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr

from conftest import Place, Runs
from data_gen.store import DatasetFile, StoreError
from neuralop_bench import leaderboard, pipeline
from neuralop_bench.config.compose import compose
from neuralop_bench.config.messages import describe
from neuralop_bench.records.record import Evaluation, RecordError, RunRecord
from neuralop_bench.records.run_directory import state
from neuralop_bench.status import states
from neuralop_bench.surrogate import checkpoint
from neuralop_bench.surrogate.checkpoint import CheckpointError
from neuralop_bench.surrogate.surrogate import Surrogate


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 5] ^= 4
    path.write_bytes(content)


pytestmark = pytest.mark.usefixtures("no_figures")

DAMAGES: dict[str, Callable[[Path], None]] = {"deleted": Path.unlink, "cut": _cut, "altered": _flip}


@pytest.fixture(scope="module")
def finished(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("finished"))
    run = runs.finish(*place.arguments("trainer.epochs=1"))
    assert run.status == 0, run.err
    return place


@pytest.fixture(scope="module")
def stopped(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """In the second epoch of two."""
    place = Place(tmp_path_factory.mktemp("stopped"))
    stop = ("stop_at_step", {"count": 25, "signum": signal.SIGTERM})
    assert runs.finish(*place.arguments(), strikes=(stop,)).status == 143
    return place


def _copy(place: Place, root: Path) -> Place:
    shutil.copytree(place.root, root, dirs_exist_ok=True)
    return Place(root)


def _run(place: Place, *overrides: str) -> RunRecord:
    return pipeline.run(compose(*place.arguments(*overrides)))


def _remedied(place: Place, path: Path, error: BaseException, *overrides: str) -> RunRecord:
    """What the message of an error says helps: the file's deletion, or force=true."""
    text = describe(error)
    assert str(path) in text
    if "elete" in text:
        path.unlink(missing_ok=True)
        return _run(place, *overrides)
    assert "force=true" in text
    return _run(place, *overrides, "force=true")


# The subtlest one; make test-all tries the others as well.
EACH_DAMAGE = pytest.mark.parametrize(
    "damage", [name if name == "altered" else pytest.param(name, marks=pytest.mark.exhaustive) for name in DAMAGES]
)


@EACH_DAMAGE
@pytest.mark.parametrize(
    "name",
    [
        *("record.json", "errors.nc", "best.pt"),
        *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("report.md", "curve.csv", "run.yaml", "last.pt")),
    ],
)
def test_damage_in_a_finished_run_yields_no_wrong_number(
    finished: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    place = _copy(finished, tmp_path)
    path, report = place.run_directory / name, (finished.run_directory / "report.md").read_text()
    DAMAGES[damage](path)
    capsys.readouterr()
    try:
        record = _run(place, "trainer.epochs=1")
    except RecordError as error:
        assert name == "record.json"
        record = _remedied(place, path, error, "trainer.epochs=1")
    assert record.metrics == finished.record.metrics
    assert (name, damage) != ("record.json", "deleted") or "Resuming" in capsys.readouterr().out
    out = capsys.readouterr().out
    if name == "report.md":
        assert str(path) in out
        assert "the record has all numbers" in out
        assert "relative L2 (mean)" not in out
    elif name != "record.json":
        assert report in out
    assert place.record.metrics == finished.record.metrics


@pytest.mark.exhaustive
def test_a_damaged_curve_is_written_again_though_no_epoch_is_left(runs: Runs, alone: Place, place: Place) -> None:
    strike = ("kill_at_replace", {"name": "errors.nc", "stage": "before"})
    assert runs.finish(*place.arguments(), strikes=(strike,)).status == -signal.SIGKILL
    path = place.run_directory / "curve.csv"
    sound = path.read_bytes()
    _cut(path)
    record = _run(place)
    assert record.metrics == alone.record.metrics
    assert path.read_bytes() == sound


@pytest.mark.exhaustive
@pytest.mark.slow
@EACH_DAMAGE
@pytest.mark.parametrize(
    "name", ["last.pt", "best.pt", *(pytest.param(n, marks=pytest.mark.exhaustive) for n in ("curve.csv", "run.yaml"))]
)
def test_damage_in_a_stopped_run_is_reported_before_it_goes_on_or_harmless(
    stopped: Place, alone: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    place = _copy(stopped, tmp_path)
    path = place.run_directory / name
    DAMAGES[damage](path)
    capsys.readouterr()
    try:
        record = _run(place)
    except CheckpointError as error:
        assert name in ("last.pt", "best.pt")
        assert "Training:" not in capsys.readouterr().err, "said at the end of a training it would be too late"
        where = state(place.run_directory)
        assert where.progress == "failed"
        assert str(path) in where.reason
        record = _remedied(place, path, error)
    else:
        assert name in ("curve.csv", "run.yaml") or (name, damage) == ("last.pt", "deleted")
    assert record.metrics == alone.record.metrics
    rows = [place.run_directory / "curve.csv" for place in (place, alone)]
    curves = [[line.rpartition(",")[0] for line in path.read_text().splitlines()] for path in rows]
    assert curves[0] == curves[1]


@pytest.mark.exhaustive
def test_status_gives_no_command_of_another_run(stopped: Place, tmp_path: Path) -> None:
    place = _copy(stopped, tmp_path)
    path = place.run_directory / "run.yaml"
    sound, content = state(place.run_directory), path.read_bytes()
    assert sound.command
    rng = random.Random(0)
    lost = 0
    for at in rng.sample(range(len(content)), 150):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        where = state(place.run_directory)
        assert where.progress == "resumable"
        assert where.command in ("", sound.command)
        if not where.command:
            lost += 1
            assert f"{path} is missing or damaged" in where.reason
    assert lost > 100
    path.unlink()
    (where,) = states(place.outputs).values()
    assert (where.progress, where.command) == ("resumable", "")


def test_no_altered_bit_of_a_record_passes(finished: Place, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    content = (finished.run_directory / "record.json").read_bytes()
    rng = random.Random(0)
    for at in [*rng.sample(range(len(content)), 400), *range(len(content) - 120, len(content))]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        try:
            record = RunRecord.load(path)
        except RecordError as error:
            text = str(error)
        else:
            text = f"{path}: delete it" if record == finished.record else "passed for sound"
        assert str(path) in text
        assert "delete it" in text or "force=true" in text


def test_no_altered_bit_of_a_checkpoint_passes(finished: Place, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    content = (finished.run_directory / "best.pt").read_bytes()
    sound = checkpoint.load(finished.run_directory / "best.pt")
    rng = random.Random(0)
    caught = 0
    for at in [*rng.sample(range(len(content)), 60), *rng.sample(range(len(content) - 4000, len(content)), 60)]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :])
        try:
            found = checkpoint.load(path)
        except CheckpointError:
            caught += 1
            continue
        assert found.keys() == sound.keys()
        assert all(torch.equal(found["model"][name], values) for name, values in sound["model"].items())
    assert caught > 60


def test_an_altered_error_is_noticed_when_it_is_read(finished: Place, tmp_path: Path) -> None:
    path = tmp_path / "errors.nc"
    content = (finished.run_directory / "errors.nc").read_bytes()
    with xr.open_dataset(finished.run_directory / "errors.nc", engine="h5netcdf") as errors:
        sound = errors.load()
    values = np.ascontiguousarray(sound["error_mean_square"].values)
    at = content.index(values.tobytes()[:64])
    path.write_bytes(content[: at + 13] + bytes([content[at + 13] ^ 1]) + content[at + 14 :])
    with xr.open_dataset(path, engine="h5netcdf") as errors, pytest.raises(OSError, match=r"(?i)read"):
        errors.load()


@EACH_DAMAGE
def test_damage_to_the_board_is_mended_by_the_next_run(finished: Place, tmp_path: Path, damage: str) -> None:
    place = _copy(finished, tmp_path)
    names = ("leaderboard.csv", "runs.csv", "leaderboard.md")
    for name in names:
        DAMAGES[damage](place.outputs / "leaderboard" / name)
    _run(place, "trainer.epochs=1")
    for name in names:
        assert (place.outputs / "leaderboard" / name).read_text() == (
            finished.outputs / "leaderboard" / name
        ).read_text()


def test_a_damaged_record_keeps_no_other_run_off_the_board(
    finished: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = _copy(finished, tmp_path)
    damaged = place.run_directory / "record.json"
    sound = damaged.parent.with_name("seed=1")
    shutil.copytree(damaged.parent, sound)
    other = RunRecord.load(sound / "record.json")
    _cut(damaged)
    board = leaderboard.rebuild(place.outputs)
    assert other.run_id in board.read_text()
    warning = capsys.readouterr().err
    assert f"Warning: the leaderboard lacks {damaged}" in warning
    assert "delete it" in warning
    found = {folder.name: where for folder, where in states(place.outputs).items()}
    assert found["seed=0"].progress == "failed"
    assert str(damaged) in found["seed=0"].reason
    assert found["seed=0"].command.endswith("force=true")
    assert found["seed=1"].progress == "finished"


@EACH_DAMAGE
@pytest.mark.parametrize(
    "name", ["train/ns2d.hdf5", pytest.param("test/ns2d.hdf5", marks=pytest.mark.exhaustive), "generation.json"]
)
def test_damaged_data_are_named_and_made_again(finished: Place, tmp_path: Path, name: str, damage: str) -> None:
    place = _copy(finished, tmp_path)
    shutil.rmtree(place.outputs)
    (path,) = place.data.glob(f"*/{name}")
    DAMAGES[damage](path)
    try:
        record = _run(place, "trainer.epochs=1")
    except StoreError as error:
        assert path.suffix == ".hdf5"
        assert damage != "deleted"
        record = _remedied(place, path, error, "trainer.epochs=1")
    assert record.metrics == finished.record.metrics


@pytest.mark.parametrize("text", ["", "{", "[]", '{"message": 3}', '{"message": "x"}'])
def test_a_damaged_note_of_a_failure_is_harmless(stopped: Place, tmp_path: Path, text: str) -> None:
    place = _copy(stopped, tmp_path)
    (place.run_directory / "failure.json").write_text(text)
    where = state(place.run_directory)
    assert where.progress == "failed"
    assert where.command == state(stopped.run_directory).command


# Newer formats --------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_record_of_a_newer_format_is_left_alone_with_a_word(finished: Place, tmp_path: Path) -> None:
    place = _copy(finished, tmp_path)
    path = place.run_directory / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    before = path.read_bytes()
    with pytest.raises(
        RecordError, match=r"record\.json has format 99, but this code reads formats 1 to 4.*the release that wrote it"
    ):
        _run(place, "trainer.epochs=1")
    assert path.read_bytes() == before
    record = _run(place, "trainer.epochs=1", "force=true")
    assert record.metrics == finished.record.metrics
    assert before in [kept.read_bytes() for kept in (place.outputs / ".superseded").rglob("record.json")]


def test_records_of_the_first_format_are_still_read(finished: Place, tmp_path: Path) -> None:
    values = json.loads((finished.run_directory / "record.json").read_text())
    del values["sha256"], values["files"]
    path = tmp_path / "record.json"
    path.write_text(json.dumps({**values, "format": 1}))
    assert RunRecord.load(path).metrics == finished.record.metrics
    path.write_text(json.dumps(values))
    with pytest.raises(RecordError, match="hash"):  # a second format without its hash
        RunRecord.load(path)


@pytest.mark.exhaustive
@pytest.mark.parametrize("change", ["cut", pytest.param("newer", marks=pytest.mark.exhaustive)])
def test_an_evaluation_that_cannot_be_read_is_named_and_can_be_repeated(
    finished: Place, tmp_path: Path, change: str
) -> None:
    place = _copy(finished, tmp_path)
    asked = ("mode=evaluate", f"run={place.run_directory}", f"paths.data={place.data}")
    first = pipeline.evaluate_again(compose(*asked))
    path = place.run_directory / "evaluations" / "standard.json"
    if change == "cut":
        _cut(path)
    else:
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(RecordError) as raised:
        pipeline.evaluate_again(compose(*asked))
    assert str(path) in str(raised.value)
    again = pipeline.evaluate_again(compose(*asked, "force=true"))
    assert again.metrics == first.metrics
    assert Evaluation.load(path) == again
    path.with_suffix(".md").unlink()
    assert pipeline.evaluate_again(compose(*asked)) == again


@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_a_checkpoint_of_a_newer_format_is_left_alone_with_a_word(stopped: Place, tmp_path: Path, name: str) -> None:
    place = _copy(stopped, tmp_path)
    path = place.run_directory / name
    torch.save({**torch.load(path, weights_only=True), "format": 2}, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=rf"{name} can't be read .*but this code reads format 1.*force=true"):
        _run(place)
    assert path.read_bytes() == before


def test_a_checkpoint_of_another_training_is_refused(stopped: Place, tmp_path: Path) -> None:
    place = _copy(stopped, tmp_path)
    path = place.run_directory / "last.pt"
    content = torch.load(path, weights_only=True)
    del content["optimizer"]["param_groups"]
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"doesn't fit this training .*force=true"):
        _run(place)


@pytest.mark.parametrize("difference", ["size mismatch for", "Missing key"])
@pytest.mark.parametrize("name", ["last.pt", "best.pt"])
def test_weights_of_another_architecture_are_refused_in_a_line(
    stopped: Place, tmp_path: Path, name: str, difference: str
) -> None:
    place = _copy(stopped, tmp_path)
    path = place.run_directory / name
    content = torch.load(path, weights_only=True)
    weights = content["model"]
    weight = next(key for key in weights if key.startswith("operator."))
    if difference == "Missing key":
        del weights[weight]
    else:
        weights[weight] = weights[weight].new_zeros(3, *weights[weight].shape)
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=rf"{name} doesn't fit the configured .*: {difference}.*force=true"):
        Surrogate.load(place.run_directory) if name == "best.pt" else _run(place)


def test_the_best_weights_are_those_of_the_best_epoch(stopped: Place, tmp_path: Path) -> None:
    # Weights of an epoch that wasn't the best would be scored under its name.
    place = _copy(stopped, tmp_path)
    path = place.run_directory / "best.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "epoch": 7}, path)
    with pytest.raises(CheckpointError, match=r"best\.pt is from epoch 7, but the best one was 1\. .*force=true"):
        _run(place)


def test_a_dataset_of_a_newer_format_is_left_alone_with_a_word(finished: Place, tmp_path: Path) -> None:
    place = _copy(finished, tmp_path)
    (path,) = place.data.glob("*/test/ns2d.hdf5")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(StoreError, match=r"has format version 99.*the release that wrote it"):
        DatasetFile(path)
    with pytest.raises(StoreError, match="has format version 99"):
        _run(place, "trainer.epochs=1", "seed=5")


def test_weights_written_just_before_a_kill_count_as_the_best_of_the_epoch_that_is_repeated(
    stopped: Place, tmp_path: Path
) -> None:
    # On a GPU the repeated epoch can come out a little worse: then these weights stay, and so must their score.
    place = _copy(stopped, tmp_path)
    path = place.run_directory / "best.pt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "epoch": 2, "valid_rel_l2": 1e-9}, path)
    record = _run(place)
    assert (record.cost["best_epoch"], record.metrics["valid_rel_l2"]) == (2, 1e-9)
    kept = torch.load(path, weights_only=True)["model"]
    assert all(torch.equal(kept[name], values) for name, values in content["model"].items())
