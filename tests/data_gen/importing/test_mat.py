"""MATLAB files of both versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.imported_files import convert, mat_v5, mat_v73, random_array, zero_at_walls
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.importing.contents import ImportedFileError
from data_gen.importing.convert import About, Part, import_data


@pytest.mark.parametrize("write", [mat_v5, mat_v73])
def test_darcy_of_the_fno_paper(write: Callable[..., Path], tmp_path: Path) -> None:
    coeff, sol = random_array(20, 5, 7), zero_at_walls(random_array(20, 5, 7, seed=1))
    path = write(tmp_path / "piececonst.mat", {"coeff": coeff, "sol": sol, "Kcoeff": coeff, "Kcoeff_x": coeff})
    files = convert("mat", path, tmp_path / "out", "train=FILE:17", "test=FILE")
    spec = files["train"].spec
    assert spec.is_steady
    assert spec.grid == Grid((5, 7), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)
    assert np.array_equal(files["train"].read_static(slice(None))[:, 0], coeff[:17].astype(np.float32))
    assert np.array_equal(files["train"].read_states(slice(None))[:, 0, 0], sol[:17].astype(np.float32))
    assert np.array_equal(files["test"].read_states(slice(None))[:, 0, 0], sol[17:].astype(np.float32))


@pytest.mark.parametrize("write", [mat_v5, mat_v73])
def test_burgers_of_the_fno_paper_is_two_frames(write: Callable[..., Path], tmp_path: Path) -> None:
    a, u = random_array(3, 16), random_array(3, 16, seed=1)
    path = write(tmp_path / "burgers.mat", {"a": a, "u": u, "a_x": a})
    file = convert("mat", path, tmp_path / "out", state=("velocity",), interval=0.5)["train"]
    assert (file.spec.times, file.spec.grid) == ((0.0, 0.5), Grid.periodic(16, n_dims=1))
    states = file.read_states(slice(None))
    assert np.array_equal(states[:, :, 0], np.stack([a, u], axis=1).astype(np.float32))


@pytest.mark.parametrize("write", [mat_v5, mat_v73])
def test_navier_stokes_of_the_fno_paper(write: Callable[..., Path], tmp_path: Path) -> None:
    a, u = random_array(18, 6, 8), random_array(18, 6, 8, 5, seed=1)
    path = write(tmp_path / "ns.mat", {"a": a, "u": u, "t": np.arange(1.0, 6.0)[None]})
    file = convert("mat", path, tmp_path / "out")["train"]
    assert file.spec.times == (1, 2, 3, 4, 5)
    assert file.spec.grid.shape == (6, 8)
    assert np.array_equal(file.read_states(slice(None))[:, :, 0], np.moveaxis(u, -1, 1).astype(np.float32))
    assert np.array_equal(file.read_initial(slice(None))[:, 0], a.astype(np.float32))


def test_both_versions_of_mat_files_hold_the_same(tmp_path: Path) -> None:
    fields = {"a": random_array(19, 6, 8), "u": random_array(19, 6, 8, 5), "t": np.arange(1.0, 6.0)[None]}
    hashes = {
        write.__name__: convert("mat", write(tmp_path / f"{write.__name__}.mat", fields), tmp_path / write.__name__)
        for write in (mat_v5, mat_v73)
    }
    assert hashes["mat_v5"]["train"].sha256() == hashes["mat_v73"]["train"].sha256()


def test_an_initial_state_that_is_the_first_snapshot_is_counted_once(tmp_path: Path) -> None:
    u = random_array(18, 6, 8, 5)
    path = mat_v5(tmp_path / "ns.mat", {"a": u[..., 0].astype(np.float32), "u": u})
    for given, times in (({}, (0, 1, 2, 3, 4)), ({"times": (0.0, 1.0, 2.0, 4.0, 8.0)}, (0, 1, 2, 4, 8))):
        file = convert("mat", path, tmp_path / str(times), **given)["train"]
        assert file.spec.times == times
        assert not file.spec.stores_initial
        assert np.array_equal(file.read_states(slice(None))[:, :, 0], np.moveaxis(u, -1, 1).astype(np.float32))


def test_an_initial_state_of_its_own_is_not_lost(tmp_path: Path) -> None:
    path = mat_v5(tmp_path / "ns.mat", {"a": random_array(18, 6, 8), "u": random_array(18, 6, 8, 3, seed=1)})
    with pytest.raises(ImportedFileError, match=r"a in .* differs from the first snapshot of u, whose time is 0"):
        convert("mat", path, tmp_path / "out", times=(0.0, 1.0, 2.0))


@pytest.mark.parametrize(
    ("times", "even"),
    [
        (np.linspace(0, 2, 201, dtype=np.float32), True),
        (1000 + np.linspace(0, 0.2, 21, dtype=np.float32), True),
        (np.array([0, 0.1, 0.3, 0.6, 1.0]), False),
    ],
)
def test_uneven_times_are_told(times: NDArray[Any], even: bool, tmp_path: Path) -> None:
    path = mat_v5(tmp_path / "u.mat", {"u": random_array(3, 6, 8, len(times)), "t": times[None]})
    written, _ = import_data("mat", [Part("train", path)], About("d"), tmp_path / "out")
    found = written["train"]
    assert np.abs(np.array(found.spec.times) - (times - times[0])).max() < 1e-2 * np.diff(times).min()
    assert any(note.startswith("times aren't even: their steps go from") for note in found.notes) != even
