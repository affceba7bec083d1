"""Axes of bare arrays x and y: said, guessed and told, or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.imported_files import convert, random_array

from data_gen.importing.contents import Given, ImportedFileError
from data_gen.importing.convert import About, Part, import_data
from data_gen.importing.layouts import find_axes

S, C, T, X, Y = "sample", "channel", "time", "x", "y"


@pytest.mark.parametrize(
    ("x", "y", "given", "expected"),
    [
        ((9, 16, 16), (9, 16, 16), {}, ((S, X, Y), (S, X, Y))),
        ((9, 1, 16, 16), (9, 1, 16, 16), {}, ((S, C, X, Y), (S, C, X, Y))),
        ((9, 3, 16, 16), (9, 1, 16, 16), {}, ((S, C, X, Y), (S, C, X, Y))),
        ((9, 3, 16, 16), (9, 16, 16), {}, ((S, C, X, Y), (S, X, Y))),
        ((9, 2, 16, 16), (9, 2, 16, 16), {}, ((S, C, X, Y), (S, C, X, Y))),
        ((9, 64), (9, 64), {}, ((S, X), (S, X))),
        ((9, 16, 16), (9, 20, 16, 16), {}, ((S, X, Y), (S, T, X, Y))),
        ((9, 16, 16), (9, 2, 16, 16), {"interval": 0.1}, ((S, X, Y), (S, T, X, Y))),
        ((9, 16, 16), (9, 2, 16, 16), {"state": ("a", "b")}, ((S, X, Y), (S, C, X, Y))),
        ((9, 16, 16), (9, 2, 16, 16), {"axes": {"y": (S, C, X, Y)}}, ((S, X, Y), (S, C, X, Y))),
        ((9, 2, 16, 16), (9, 5, 2, 16, 16), {}, ((S, C, X, Y), (S, T, C, X, Y))),
        ((9, 2, 16, 16), (9, 2, 5, 16, 16), {}, ((S, C, X, Y), (S, C, T, X, Y))),
        ((9, 4, 64), (9, 4, 64), {"axes": {"x": (S, C, X), "y": (S, C, X)}}, ((S, C, X), (S, C, X))),
    ],
)
def test_axes_are_found(
    x: tuple[int, ...], y: tuple[int, ...], given: dict[str, Any], expected: tuple[Any, Any]
) -> None:
    *found, notes = find_axes(Path("f.pt"), x, y, Given(**given), is_first=False)
    assert tuple(found) == expected
    channels = any(n > 1 for n in (*x[1:-2], *y[1:-2]))
    assert bool(notes) == (channels and len(given.get("axes", ())) < 2), "a guess is told"


@pytest.mark.parametrize(
    ("x", "y", "axes", "message"),
    [
        ((9, 16, 16), (9, 2, 16, 16), {}, "--axes y=sample,time,x,y or --axes y=sample,channel,x,y"),
        ((9, 2, 64), (9, 2, 64), {}, "--axes x=sample,x,y or --axes x=sample,channel,x"),
        ((9, 2, 16, 16), (9, 2, 2, 16, 16), {}, "sample,time,channel,x,y or"),
        ((9, 16, 16), (9, 3, 2, 16, 16), {}, "sample,time,channel,x,y or"),
        ((9, 16, 16), (9, 16, 15), {}, "expected as many samples and the same points"),
        ((9, 16), (8, 16), {}, "expected as many samples and the same points"),
        ((9, 16, 16), (9, 2, 16, 16), {"y": (S, C, X)}, "names 3 axes, but y in"),
        ((9, 16, 16), (9, 2, 16, 16), {"y": (C, S, X, Y)}, "expected sample, then"),
        ((9, 2, 16, 16), (9, 16, 16), {"x": (S, T, X, Y)}, "expected sample, then channel"),
        ((9, 16, 16), (9, 16, 16), {"z": (S, X, Y)}, "names z"),
    ],
)
def test_what_is_ambiguous_or_does_not_fit_is_refused(
    x: tuple[int, ...], y: tuple[int, ...], axes: dict[str, tuple[str, ...]], message: str
) -> None:
    with pytest.raises(ImportedFileError, match=message):
        find_axes(Path("f.pt"), x, y, Given(axes=axes), is_first=False)


def test_channels_become_fields(tmp_path: Path) -> None:
    x, y = random_array(9, 3, 8, 8), random_array(9, 8, 8, 2, seed=1)
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(np.moveaxis(y, -1, 1))}, tmp_path / "f.pt")
    file = convert("neuralop", tmp_path / "f.pt", tmp_path / "out", state=("u", "v"))["train"]
    assert [field.name for field in (*file.spec.state, *file.spec.static)] == [
        "u",
        "v",
        "input_0",
        "input_1",
        "input_2",
    ]
    assert np.array_equal(file.read_static(slice(None)), x.astype(np.float32))
    assert np.array_equal(file.read_states(slice(None))[:, 0], np.moveaxis(y, -1, 1).astype(np.float32))


def test_channels_and_times_become_trajectories_of_fields(tmp_path: Path) -> None:
    x, y = random_array(9, 2, 8, 8), random_array(9, 2, 5, 8, 8, seed=1)
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, tmp_path / "f.pt")
    file = convert("neuralop", tmp_path / "f.pt", tmp_path / "out", interval=0.5)["train"]
    assert file.spec.times == (0.5, 1, 1.5, 2, 2.5)
    assert np.array_equal(file.read_states(slice(None)), np.moveaxis(y, 1, 2).astype(np.float32))
    assert np.array_equal(file.read_initial(slice(None)), x.astype(np.float32))


def test_trajectories_that_start_at_x_need_no_option(tmp_path: Path) -> None:
    y = torch.from_numpy(random_array(9, 2, 8, 8))
    torch.save({"x": y[:, 0], "y": y}, tmp_path / "f.pt")
    written, _ = import_data("neuralop", [Part("train", tmp_path / "f.pt")], About("d"), tmp_path / "out")
    assert written["train"].spec.times == (0, 1)
    assert any("x equals the first snapshot of y" in note for note in written["train"].notes)


def test_axes_are_refused_where_the_format_says_them(darcy: Path, tmp_path: Path) -> None:
    with pytest.raises(ImportedFileError, match="--axes is for the formats neuralop"):
        convert("mat", darcy, tmp_path / "out", axes={"x": (S, X, Y)})
