"""Files of PDEBench."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.imported_files import Fields, centres, convert, pdebench, random_array

from data_gen.grids import Grid


def test_pdebench_in_one_dimension(tmp_path: Path) -> None:
    tensor = random_array(4, 6, 8).astype(np.float32)
    times = np.linspace(0, 0.6, 7, dtype=np.float32)  # one entry more than data
    path = pdebench(
        tmp_path / "1D.hdf5", {"tensor": tensor, "x-coordinate": centres(8), "t-coordinate": times}, Nu=0.001
    )
    file = convert("pdebench", path, tmp_path / "out")["train"]
    assert file.spec.times == (0, 0.1, 0.2, 0.3, 0.4, 0.5)
    assert (file.spec.grid.lengths, file.spec.grid.nodes) == ((1.0,), ("periodic",))
    assert file.spec.parameters == {"Nu": 0.001, "origin_x": 0.0625}
    assert np.array_equal(file.read_states(slice(None))[:, :, 0], tensor)


def test_pdebench_darcy(tmp_path: Path) -> None:
    tensor, nu = random_array(4, 1, 8, 6).astype(np.float32), random_array(4, 8, 6, seed=1).astype(np.float32)
    fields = {"tensor": tensor, "nu": nu, "x-coordinate": centres(8), "y-coordinate": centres(6)}
    file = convert("pdebench", pdebench(tmp_path / "d.hdf5", fields, beta=1.0), tmp_path / "out")["train"]
    assert file.spec.grid == Grid((8, 6), (1.0, 1.0), ("dirichlet",) * 2, ("centres",) * 2)
    assert file.spec.parameters == {"beta": 1.0}
    assert np.array_equal(file.read_states(slice(None))[:, 0], tensor)
    assert np.array_equal(file.read_static(slice(None))[:, 0], nu)


def test_pdebench_fluids(tmp_path: Path) -> None:
    names = ("Vx", "Vy", "density", "pressure")
    fields: Fields = {name: random_array(17, 3, 8, 6, seed=i).astype(np.float32) for i, name in enumerate(names)}
    axes = {
        "x-coordinate": centres(8, 2, -1),
        "y-coordinate": centres(6, 1.5),
        "t-coordinate": np.linspace(0, 1, 4, dtype=np.float32),
    }
    path = pdebench(tmp_path / "cfd.hdf5", {**fields, **axes})
    file = convert("pdebench", path, tmp_path / "all")["train"]
    assert [field.name for field in file.spec.state] == list(names)
    assert file.spec.grid.lengths == (2, 1.5)
    assert file.spec.parameters["origin_x"] == pytest.approx(-1 + 0.125)
    assert np.array_equal(file.read_states(16), np.stack([fields[name][16] for name in names], axis=1))
    some = convert("pdebench", path, tmp_path / "some", state=("pressure", "Vx"))["train"]
    assert np.array_equal(some.read_states(3), np.stack([fields["pressure"][3], fields["Vx"][3]], axis=1))
