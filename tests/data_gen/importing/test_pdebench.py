"""Files of PDEBench."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.imported_files import Fields, centres, convert, pdebench, random_array
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.importing.contents import ImportedFileError


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


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_pdebench_fluids(n_dims: int, tmp_path: Path) -> None:
    shape, lengths, starts = (8, 6, 4)[:n_dims], (2.0, 1.5, 1.0)[:n_dims], (-1.0, 0.0, 0.0)
    names = (*("Vx", "Vy", "Vz")[:n_dims], "density", "pressure")  # HDF5 sorts them
    fields: Fields = {name: random_array(17, 3, *shape, seed=i).astype(np.float32) for i, name in enumerate(names)}
    axes = {
        f"{axis}-coordinate": centres(n, length, start)
        for axis, n, length, start in zip("xyz", shape, lengths, starts, strict=False)
    }
    axes["t-coordinate"] = np.linspace(0, 1.5, 4, dtype=np.float32)  # one entry more than data
    numbers = {"eta": 1e-8, "zeta": 1e-8, "M": 0.1}
    path = pdebench(tmp_path / "cfd.hdf5", {**fields, **axes}, **numbers)
    file = convert("pdebench", path, tmp_path / "all")["train"]
    assert [field.name for field in file.spec.state] == list(names)
    assert (file.spec.grid.shape, file.spec.grid.lengths) == (shape, lengths)
    assert file.spec.grid.is_periodic
    assert file.spec.times == (0, 0.5, 1)
    assert file.spec.parameters["origin_x"] == pytest.approx(-1 + 0.125)
    assert {name: file.spec.parameters[name] for name in numbers} == numbers
    assert np.array_equal(file.read_states(16), np.stack([fields[name][16] for name in names], axis=1))
    some = convert("pdebench", path, tmp_path / "some", state=("pressure", "Vx"))["train"]
    assert np.array_equal(some.read_states(3), np.stack([fields["pressure"][3], fields["Vx"][3]], axis=1))


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5", None, ("open", "centres")),
        ("1D_CFD_Rand_Eta1.e-8_Zeta1.e-8_periodic_Train.hdf5", None, ("periodic", "periodic")),
        ("1D_CFD_Shock_Eta1.e-8_Zeta1.e-8_trans_Train.hdf5", ("neumann",), ("neumann", "centres")),
        ("transport.hdf5", None, ("periodic", "periodic")),  # from the values
    ],
)
def test_the_name_of_a_fluids_file_says_its_boundary(
    name: str, given: tuple[str, ...] | None, expected: tuple[str, str], tmp_path: Path
) -> None:
    # A shock tube whose waves haven't reached the ends: the values there are constant, as on walls.
    tube = np.where(np.arange(8) < 4, 1.0, 0.125) * np.ones((3, 4, 1)) * np.array([1, 2, 3])[:, None, None]
    waves = random_array(3, 4, 8)
    values = tube if "Shock" in name else waves
    fields = {"density": values, "pressure": 2 * values, "Vx": 0.1 * values, "x-coordinate": centres(8)}
    file = convert("pdebench", pdebench(tmp_path / name, fields), tmp_path / "out", boundary=given)["train"]
    assert (file.spec.grid.boundary, file.spec.grid.nodes) == ((expected[0],), (expected[1],))


def _grouped(path: Path, data: NDArray[Any], *axes: NDArray[Any]) -> Path:
    """data [sample, time, *space, channel] as PDEBench's shallow water and diffusion files hold it."""
    fields = {f"{number:04d}/data": values for number, values in enumerate(data)}
    for number in range(len(data)):
        fields |= {f"{number:04d}/grid/{axis}": values for axis, values in zip("txy", axes, strict=False)}
    return pdebench(path, fields)


@pytest.mark.parametrize(
    ("shape", "names", "boundary"),
    [
        ((5, 3, 8, 6, 1), ("height",), "neumann"),
        ((5, 3, 8, 6, 2), ("activator", "inhibitor"), "neumann"),
        ((5, 3, 8, 1), ("concentration",), "open"),
        ((5, 3, 8, 3), ("field_0", "field_1", "field_2"), "open"),
    ],
)
def test_pdebench_with_a_group_for_each_sample(
    shape: tuple[int, ...], names: tuple[str, ...], boundary: str, tmp_path: Path
) -> None:
    data = random_array(*shape).astype(np.float32)
    times, axes = np.linspace(0, 0.2, 3, dtype=np.float32), (centres(8, 5, -2.5), centres(6, 5, -2.5))
    path = _grouped(tmp_path / "g.h5", data, times, *axes[: len(shape) - 3])
    files = convert("pdebench", path, tmp_path / "out", "train=FILE:2", "valid=FILE")
    spec = files["train"].spec
    assert tuple(field.name for field in spec.state) == names
    n_dims = len(shape) - 3
    assert spec.grid.shape == shape[2:-1]
    assert spec.grid.lengths == pytest.approx((5.0,) * n_dims)
    assert (spec.grid.boundary, spec.grid.nodes) == ((boundary,) * n_dims, ("centres",) * n_dims)
    assert spec.parameters["origin_x"] == pytest.approx(-2.5)
    assert spec.times == (0, 0.1, 0.2)
    expected = np.moveaxis(data, -1, 2)
    assert np.array_equal(files["train"].read_states(slice(None)), expected[:2])
    assert np.array_equal(files["valid"].read_states(slice(None)), expected[2:])


def test_numbers_of_the_groups_are_values_per_sample(tmp_path: Path) -> None:
    path = _grouped(tmp_path / "g.h5", random_array(3, 4, 8, 1), np.arange(4.0), centres(8))
    with h5py.File(path, "r+") as file:
        for name, nu in zip(file, (1e-3, 1e-1, 1e-2), strict=True):
            file[name].attrs.update({"nu": nu, "mass": 2.0, "config": "text"})
    file = convert("pdebench", path, tmp_path / "out")["train"]
    assert file.read_parameters()[:, 0].tolist() == [1e-3, 1e-1, 1e-2]
    assert [(entry.name, entry.scale) for entry in file.spec.varying] == [("nu", "log")]
    assert file.spec.parameters["mass"] == 2.0
    file = convert("pdebench", path, tmp_path / "none", static=())["train"]
    assert (file.spec.varying, file.spec.parameters["nu"]) == ((), "from 0.001 to 0.1")


@pytest.mark.parametrize("change", ["shape", "grid"])
def test_groups_that_differ_are_refused(change: str, tmp_path: Path) -> None:
    path = _grouped(tmp_path / "g.h5", random_array(3, 4, 8, 1), np.arange(4.0), centres(8))
    with h5py.File(path, "r+") as file:
        name = "0002/data" if change == "shape" else "0002/grid/x"
        values = np.asarray(file[name])
        del file[name]
        file[name] = values[:3] if change == "shape" else values + 1
    with pytest.raises(ImportedFileError, match=r"0002 in .*g\.h5"):
        convert("pdebench", path, tmp_path / "out")


def test_pdebench_incompressible(tmp_path: Path) -> None:
    velocity, particles, force = (
        random_array(*shape, seed=seed).astype(np.float32)
        for seed, shape in enumerate(((2, 4, 8, 6, 2), (2, 4, 8, 6, 1), (2, 8, 6, 2)))
    )
    times = np.tile(np.linspace(0, 0.15, 4, dtype=np.float32), (2, 1))
    fields: Fields = {"velocity": velocity, "particles": particles, "force": force, "t": times}
    path = pdebench(tmp_path / "ns.h5", fields)
    file = convert("pdebench", path, tmp_path / "out", lengths=(8.0, 6.0))["train"]
    assert file.spec.grid == Grid((8, 6), (8.0, 6.0), ("dirichlet",) * 2, ("centres",) * 2)
    assert file.spec.times == (0, 0.05, 0.1, 0.15)
    assert [field.name for field in file.spec.state] == ["velocity_x", "velocity_y", "particles"]
    expected = np.moveaxis(np.concatenate([velocity, particles], axis=-1), -1, 2)
    assert np.array_equal(file.read_states(slice(None)), expected)
    assert [field.name for field in file.spec.static] == ["force_x", "force_y"]
    assert np.array_equal(file.read_static(slice(None)), np.moveaxis(force, -1, 1))
    some = convert("pdebench", path, tmp_path / "some", state=("particles",), static=("force_y",))["train"]
    assert np.array_equal(some.read_states(1)[:, 0], particles[1, ..., 0])
    assert np.array_equal(some.read_static(1)[0], force[1, ..., 1])
    times[1] += 1
    with pytest.raises(ImportedFileError, match="different times"):
        convert("pdebench", pdebench(tmp_path / "uneven.h5", fields), tmp_path / "uneven")
