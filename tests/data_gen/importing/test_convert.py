"""Splits: cut without overlap, added later, checked against each other."""

from __future__ import annotations

import hashlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from helpers.imported_files import convert, mat_v5, pdebench, random_array

from data_gen.importing import blocks
from data_gen.importing.contents import ImportedFileError
from data_gen.importing.convert import About, Part, import_data
from data_gen.store import DatasetFile


def _numbers(file: DatasetFile, source: Path) -> list[int]:
    """Which samples of the source a split holds."""
    sol = scipy.io.loadmat(source)["sol"].astype(np.float32)
    return [int(np.flatnonzero((sol == state[0, 0]).all(axis=(1, 2)))[0]) for state in file.read_states(slice(None))]


def test_one_file_is_cut_in_the_order_given(darcy: Path, tmp_path: Path) -> None:
    files = convert("mat", darcy, tmp_path / "out", "test=FILE:20", "train=FILE:33", "valid=FILE")
    assert _numbers(files["test"], darcy) == list(range(20))
    assert _numbers(files["train"], darcy) == list(range(20, 53))
    assert _numbers(files["valid"], darcy) == list(range(53, 60))


def test_shuffled_samples_are_all_there_once(darcy: Path, tmp_path: Path) -> None:
    parts = [Part("train", darcy, 40), Part("test", darcy)]
    found: dict[int, list[int]] = {}
    for attempt, seed in enumerate((1, 1, 2)):
        written, _ = import_data("mat", parts, About("d"), tmp_path / f"{attempt}", shuffle_seed=seed)
        found[attempt] = [n for entry in written.values() for n in _numbers(DatasetFile(entry.path), darcy)]
        assert sorted(found[attempt]) == list(range(60))
    assert found[0] == found[1] != found[2]
    assert found[0] != sorted(found[0])


def test_blocks_of_reading_do_not_show(darcy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = convert("mat", darcy, tmp_path / "one")["train"].sha256()
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 1)
    assert convert("mat", darcy, tmp_path / "two")["train"].sha256() == one


def test_a_split_is_added_later(darcy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert("mat", darcy, out, "train=FILE:40", "test=FILE")
    _, warnings = import_data("mat", [Part("valid", darcy, 5)], About("data"), out)
    assert "5 of 5 samples of valid have the same input as one of train" in warnings[0]
    with pytest.raises(ImportedFileError, match="already holds valid"):
        import_data("mat", [Part("valid", darcy, 6)], About("data"), out)
    import_data("mat", [Part("valid", darcy, 6)], About("data"), out, replace_existing=True)
    assert DatasetFile(out / "valid" / "data.hdf5").n_samples == 6
    with pytest.raises(ImportedFileError, match="differ in name"):
        import_data("mat", [Part("valid", darcy, 6)], About("other"), out, replace_existing=True)


def test_a_test_set_may_be_on_another_grid(tmp_path: Path) -> None:
    coarse, fine = (
        mat_v5(tmp_path / f"{n}.mat", {"coeff": random_array(4, n, n), "sol": random_array(4, n, n)}) for n in (4, 8)
    )
    with pytest.raises(ImportedFileError, match=r"train and test differ in grid.*test_<name>"):
        import_data("mat", [Part("train", coarse), Part("test", fine)], About("d"), tmp_path / "out")
    import_data("mat", [Part("train", coarse), Part("test_fine", fine)], About("d"), tmp_path / "out")
    assert DatasetFile(tmp_path / "out" / "test_fine" / "d.hdf5").spec.grid.shape == (8, 8)


def test_duplicates_between_train_and_test_are_told(tmp_path: Path) -> None:
    coeff, sol = random_array(40, 4, 4), random_array(40, 4, 4, seed=1)
    coeff[35] = coeff[3]
    coeff[38] = coeff[4]
    path = mat_v5(tmp_path / "d.mat", {"coeff": coeff, "sol": sol})
    parts = [Part("train", path, 30), Part("test", path)]
    _, warnings = import_data("mat", parts, About("d"), tmp_path / "out")
    assert len(warnings) == 1
    assert warnings[0].startswith("2 of 10 samples of test have the same input as one of train, the first is sample 5")


def test_where_it_comes_from_is_stored(darcy: Path, tmp_path: Path) -> None:
    about = About("d", equation="-Δu = 1", reference="me", parameters={"contrast": 4, "law": "two-phase"})
    written, _ = import_data("mat", [Part("train", darcy)], about, tmp_path / "out")
    with h5py.File(written["train"].path) as file:
        assert file.attrs["generator"] == "imported"
        assert file.attrs["source"] == "darcy.mat"
        assert file.attrs["source_sha256"] == hashlib.sha256(darcy.read_bytes()).hexdigest()
        assert file.attrs["source_format"] == "mat"
        assert (file.attrs["contrast"], file.attrs["law"], file.attrs["reference"]) == (4, "two-phase", "me")


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_found(value: float, tmp_path: Path) -> None:
    coeff, sol = random_array(60, 4, 4), random_array(60, 4, 4)
    sol[43, 1, 2] = value
    path = mat_v5(tmp_path / "d.mat", {"coeff": coeff, "sol": sol})
    with pytest.raises(ImportedFileError, match=r"pressure of sample 43 in .*d\.mat"):
        convert("mat", path, tmp_path / "parent" / "out", "train=FILE:30", "test=FILE")
    assert list((tmp_path / "parent").iterdir()) == [], "the split before it is gone, too"


def _some(path: Path, drop: tuple[int | str, ...], *values: tuple[int, float]) -> tuple[list[int], tuple[str, ...]]:
    """Import 60 samples, some of which hold a bad value; the samples that are kept, and the notes."""
    coeff, sol = random_array(60, 4, 4), random_array(60, 4, 4)
    for sample, value in values:
        sol[sample, 1, 2] = value
    source = mat_v5(path / "d.mat", {"coeff": coeff, "sol": sol})
    parts = [Part("train", source, 30), Part("test", source)]
    written, _ = import_data("mat", parts, About("d"), path / "out", drop=drop)
    return [n for entry in written.values() for n in _numbers(DatasetFile(entry.path), source)], written["test"].notes


@pytest.mark.parametrize(
    ("drop", "dropped"), [((3, 43, 17), {3, 17, 43}), (("nan",), {17, 43}), (("nan", 0), {0, 17, 43})]
)
def test_samples_are_left_out(drop: tuple[int | str, ...], dropped: set[int], tmp_path: Path) -> None:
    kept, notes = _some(tmp_path, drop, (43, np.nan), (17, np.inf))
    assert kept == sorted(set(range(60)) - dropped)
    assert any(note.endswith(f"(--drop): {', '.join(map(str, sorted(dropped)))}") for note in notes)


def test_samples_to_leave_out_must_be_clear(darcy: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportedFileError, match=r"--drop 60: .* has the samples 0 to 59"):
        import_data("mat", [Part("train", darcy)], About("d"), tmp_path / "out", drop=(60,))
    other = darcy.with_name("other.mat")
    other.write_bytes(darcy.read_bytes())
    with pytest.raises(ImportedFileError, match="--drop with numbers needs splits of one file"):
        import_data("mat", [Part("train", darcy), Part("test", other)], About("d"), tmp_path / "out", drop=(1,))


def test_what_vanishes_is_told(tmp_path: Path) -> None:
    u = random_array(20, 3, 8)
    u[[2, 5]] = 0
    u[7] = 3
    u[9, 1] = 4
    path = pdebench(tmp_path / "f.hdf5", {"u": u, "v": np.zeros_like(u)})
    _, warnings = import_data("pdebench", [Part("train", path)], About("d"), tmp_path / "out")
    for told in (
        "u of train is zero in 2 of 20 samples (2, 5).",
        "u of train is constant in space in 1 of 20 samples (7).",
        "u of train has snapshots that are constant in space in 1 of 20 samples (9).",
        "v of train is zero in all samples.",
    ):
        assert told in warnings
    assert sum("of train" in warning for warning in warnings) == 4


@pytest.mark.parametrize(
    ("mean", "size", "told"), [(101325, 1e-3, True), (0, 1e-50, True), (101325, 1e3, False), (0, 1e-30, False)]
)
def test_fields_that_single_precision_spoils_are_told(mean: float, size: float, told: bool, tmp_path: Path) -> None:
    path = pdebench(tmp_path / "f.hdf5", {"tensor": mean + size * random_array(20, 3, 8)})
    _, warnings = import_data("pdebench", [Part("train", path)], About("d"), tmp_path / "out")
    assert any("velocity of train doesn't fit single precision" in warning for warning in warnings) == told


def test_single_snapshots_are_refused(tmp_path: Path) -> None:
    path = pdebench(tmp_path / "f.hdf5", {"tensor": random_array(20, 1, 8)})
    with pytest.raises(ImportedFileError, match="a single snapshot per sample, so there is nothing to predict"):
        import_data("pdebench", [Part("train", path)], About("d"), tmp_path / "out")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train=FILE:0"], "at least 1 sample"),
        (["train=FILE:-3"], "at least 1 sample"),
        (["train=FILE:61"], "holds 60 samples, and 0 are in other splits, so train=61 exceeds"),
        (["train=FILE:50", "test=FILE:11"], "50 are in other splits, so test=11 exceeds"),
        (["train=FILE", "test=FILE"], "test=the rest exceeds"),
        (["train=FILE:3", "train=FILE:4"], "train is given twice"),
        (["training=FILE"], "isn't SPLIT=FILE"),
        (["train"], "isn't SPLIT=FILE"),
    ],
)
def test_impossible_splits_are_refused(darcy: Path, tmp_path: Path, splits: list[str], message: str) -> None:
    with pytest.raises(ImportedFileError, match=message):
        convert("mat", darcy, tmp_path / "out", *splits)
    assert not (tmp_path / "out").exists()
