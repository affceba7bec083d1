"""Files that can't be imported are refused in every format, and the message says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers.imported_files import Fields, centres, convert, mat_v5, pdebench, random_array, well

from data_gen.importing.contents import ImportedFileError
from data_gen.importing.formats import FORMATS


def _text(path: Path) -> Path:
    path.write_text("nothing")
    return path


def _saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def _hdf5(path: Path, name: str) -> Path:
    with h5py.File(path, "w") as file:
        file[name] = np.zeros((2, 3))
    return path


def _npz(path: Path, **arrays: Any) -> Path:
    with open(path, "wb") as file:
        np.savez(file, **arrays)
    return path


def _npy(path: Path) -> Path:
    with open(path, "wb") as file:
        np.save(file, np.zeros((2, 2)))
    return path


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def _arrays(**shapes: tuple[int, ...]) -> Fields:
    return {name: random_array(*shape) for name, shape in shapes.items()}


_STEADY = _arrays(coeff=(3, 4, 4), sol=(3, 4, 4))
_X8, _Y6 = {"x-coordinate": centres(8)}, {"y-coordinate": centres(6)}
_UNEVEN = {"x-coordinate": np.array([0.0, 0.1, 0.3, 0.35, 0.5, 0.6, 0.9, 1.0])}
_SWAPPED = {"x-coordinate": centres(6), "y-coordinate": centres(8)}
_TWO_FIELDS = {**_arrays(Vx=(2, 3, 8, 6), Vy=(2, 3, 8, 6)), **_X8, **_Y6}

# By format and case: what makes the file, what the user says, and what the message must say.
_MAT: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "missing": (lambda path: path, {}, "There is no file"),
    "directory": (_folder, {}, "is a directory"),
    "keys": (lambda path: mat_v5(path, _arrays(p=(2, 2), q=(2, 2))), {}, "it holds p, q"),
    "kind": (_text, {}, "can't be read as mat"),
    "not of MATLAB": (lambda path: _hdf5(path, "u"), {}, "MATLAB didn't write it"),
    "shapes": (lambda path: mat_v5(path, _arrays(coeff=(3, 4, 4), sol=(3, 4, 5))), {}, "for both"),
    "order": (lambda path: mat_v5(path, _arrays(a=(3, 4, 4), u=(3, 5, 4, 4))), {}, "order of axes is"),
    "complex": (lambda path: mat_v5(path, {**_STEADY, "coeff": _STEADY["coeff"] * 1j}), {}, "real numbers"),
    "times": (
        lambda path: mat_v5(path, {**_arrays(u=(2, 4, 4, 3)), "t": np.array([[1.0, 1.0, 2.0]])}),
        {},
        "3 increasing",
    ),
    "interval": (
        lambda path: mat_v5(path, {**_arrays(u=(2, 4, 4, 3)), "t": np.array([[0.0, 1.0, 2.0]])}),
        {"interval": 0.5},
        "Leave --times and --interval out",
    ),
    "lengths": (lambda path: mat_v5(path, _STEADY), {"lengths": (1.0, 2.0, 3.0)}, "--lengths has 3 entries"),
    "negative": (lambda path: mat_v5(path, _STEADY), {"lengths": (-1.0,)}, "must be positive.*Change --lengths"),
    "boundary": (lambda path: mat_v5(path, _STEADY), {"boundary": ("wet",)}, "Unknown boundary.*'wet'"),
    "steady": (lambda path: mat_v5(path, _STEADY), {"interval": 1.0}, "steady problem"),
    "names": (lambda path: mat_v5(path, _STEADY), {"state": ("a", "b")}, r"needs 1 name\(s\)"),
    "reserved": (lambda path: mat_v5(path, _STEADY), {"state": ("time",)}, "--state 'time'"),
}
_PDEBENCH: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "groups": (lambda path: _hdf5(path, "0000/data"), {}, "0000 has no data and grid"),
    "no hdf5": (_text, {}, "isn't an HDF5 file"),
    "axes": (
        lambda path: pdebench(path, {**_arrays(tensor=(2, 1, 8, 6), nu=(2, 8, 6)), **_SWAPPED}),
        {},
        "have 6, 8 points, but the fields have 8, 6",
    ),
    "uneven": (lambda path: pdebench(path, {**_arrays(tensor=(2, 3, 8)), **_UNEVEN}), {}, "x in .* isn't uniform"),
    "length": (
        lambda path: pdebench(path, {**_arrays(tensor=(2, 3, 8)), **_X8}),
        {"lengths": (2.0,)},
        "--lengths 2 doesn't fit the coordinates",
    ),
    "clock": (
        lambda path: pdebench(path, {**_arrays(tensor=(2, 5, 8)), "t-coordinate": np.arange(3.0)}),
        {},
        "must be 5 increasing numbers, got 3",
    ),
    "fields": (lambda path: pdebench(path, _TWO_FIELDS), {"state": ("Vz",)}, "has no Vz; it has Vx, Vy"),
    "samples of the force": (
        lambda path: pdebench(path, _arrays(velocity=(3, 4, 6, 6, 2), particles=(3, 4, 6, 6, 1), force=(2, 6, 6, 2))),
        {},
        "force_x in .* the states have 3 samples",
    ),
    "4D": (lambda path: pdebench(path, _arrays(Vx=(1, 2, 3, 3, 3, 3))), {}, "one, two and three space"),
}
_NEURALOP: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "list": (lambda path: _saved(path, [1, 2]), {}, "it holds list"),
    "keys": (lambda path: _saved(path, dict.fromkeys("xz", torch.zeros(2, 2))), {}, r"it holds \['x', 'z'\]"),
    "few numbers": (
        lambda path: _saved(path, {"x": torch.zeros(1).expand(2**40, 2), "y": torch.zeros(2, 2)}),
        {},
        "far fewer numbers are stored",
    ),
    "no pt": (_text, {}, "can't be loaded as tensors alone"),
}
_NPZ: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "keys": (lambda path: _npz(path, a=np.zeros((2, 2))), {}, "neither x and y nor u; it holds a"),
    "objects": (lambda path: _npz(path, x=np.array([{}]), y=np.zeros((1, 2))), {}, "run their code"),
    "one array": (lambda path: _npy(path), {}, r"isn't an \.npz file"),
    "no npz": (_text, {}, r"isn't an \.npz file"),
}
_WELL: dict[str, tuple[Callable[[Path], Path], dict[str, Any], str]] = {
    "no well": (lambda path: _hdf5(path, "0000/data"), {}, "lacks dimensions, t0_fields"),
    "empty": (_folder, {}, r"holds no \.hdf5 file"),
}
_REFUSALS = {"mat": _MAT, "pdebench": _PDEBENCH, "neuralop": _NEURALOP, "npz": _NPZ, "well": _WELL}


@pytest.mark.parametrize(("kind", "case"), [(kind, case) for kind in FORMATS for case in _REFUSALS[kind]])
def test_what_is_wrong_is_said_and_nothing_is_left(kind: str, case: str, tmp_path: Path) -> None:
    make, given, message = _REFUSALS[kind][case]
    path = make(tmp_path / "some.file")
    with pytest.raises(ImportedFileError, match=message) as raised:
        convert(kind, path, tmp_path / "parent" / "out", **given)
    assert path.name in str(raised.value) or str(raised.value).startswith("--")
    assert not (tmp_path / "parent").exists() or not list((tmp_path / "parent").iterdir())


@pytest.mark.parametrize("kind", list(FORMATS))
def test_a_damaged_file_is_reported(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    if kind == "well":
        well(path)
    elif kind == "mat":
        mat_v5(path.with_suffix(".mat"), {"coeff": random_array(9, 4, 4), "sol": random_array(9, 4, 4)}).rename(path)
    elif kind == "pdebench":
        pdebench(path, {"tensor": random_array(9, 4, 4), "x-coordinate": centres(4)})
    elif kind == "npz":
        _npz(path, x=np.ones((9, 4, 4)), y=np.ones((9, 4, 4)))
    else:
        torch.save({"x": torch.ones(9, 4, 4), "y": torch.ones(9, 4, 4)}, path)
    convert(kind, path, tmp_path / "fine")
    content = path.read_bytes()
    for share in (0.0, 0.05, 0.3, 0.7, 0.95):
        cut = tmp_path / "cut.hdf5"
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ImportedFileError, match=r"cut\.hdf5"):
            convert(kind, cut, tmp_path / "parent" / "out")
    assert not (tmp_path / "parent").exists() or not list((tmp_path / "parent").iterdir())
