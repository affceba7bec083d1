"""Files on three space axes, in every format: values, grid and fields."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from helpers.imported_files import Fields, centres, convert, mat_v5, mat_v73, pdebench, random_array
from numpy.typing import NDArray
from the_well.data import WellDataset

from data_gen.importing.contents import ImportedFileError

SPACE = (4, 6, 8)
# Axes: sample, time, field and space.
STATES = random_array(3, 2, 3, *SPACE)
CUBES = random_array(3, 2, 4, 4, 4, seed=1)


def _matlab(write: Callable[[Path, Fields], Path]) -> Callable[[Path], NDArray[np.float64]]:
    def make(path: Path) -> NDArray[np.float64]:
        u = STATES[:, :, 0]
        write(path, {"a": u[:, 0], "u": np.moveaxis(u, 1, -1), "t": np.array([[0.0, 0.5]])})
        return u[:, :, None]

    return make


def _npz(path: Path) -> NDArray[np.float64]:
    with open(path, "wb") as file:
        np.savez(file, u=STATES[:, :, 0], t=np.array([0.0, 0.5]))
    return STATES[:, :, :1]


def _npz_pair_of_cubes(path: Path) -> NDArray[np.float64]:
    with open(path, "wb") as file:
        np.savez(file, x=CUBES[:, 0], y=CUBES, t=np.array([0.0, 0.5]))
    return CUBES[:, :, None]


def _neuralop(path: Path) -> NDArray[np.float64]:
    states = torch.from_numpy(STATES)
    torch.save({"x": states[:, 0], "y": states}, path)
    return STATES


def _pdebench(path: Path) -> NDArray[np.float64]:
    axes = {f"{name}-coordinate": centres(n) for name, n in zip("xyz", SPACE, strict=True)}
    fields = {name: STATES[:, :, field] for field, name in enumerate(("density", "pressure", "velocity"))}
    pdebench(path, {**fields, "t-coordinate": np.array([0, 0.5]), **axes})
    return STATES


def _pdebench_groups(path: Path) -> NDArray[np.float64]:
    with h5py.File(path, "w") as file:
        for number, sample in enumerate(STATES):
            file[f"{number:04d}/data"] = np.moveaxis(sample, 1, -1)
            for name, values in {"t": np.array([0, 0.5]), **dict(zip("xyz", map(centres, SPACE), strict=True))}.items():
                file[f"{number:04d}/grid/{name}"] = values
    return STATES


def _well(path: Path) -> NDArray[np.float64]:
    velocity = random_array(3, 2, *SPACE, 3)
    with h5py.File(path, "w") as file:
        file.attrs.update({"grid_type": "cartesian", "n_trajectories": 3})
        file["dimensions/time"] = np.array([0, 0.5])
        for name, n in zip("xyz", SPACE, strict=True):
            file[f"dimensions/{name}"] = np.arange(n) / n
        file["dimensions"].attrs["spatial_dims"] = list("xyz")
        file.create_group("t0_fields").attrs["field_names"] = np.array([], dtype="S1")
        file["t1_fields/velocity"] = velocity
        file["t1_fields"].attrs["field_names"] = ["velocity"]
        attributes = {"sample_varying": True, "time_varying": True, "dim_varying": [True] * 3}
        file["t1_fields/velocity"].attrs.update(attributes)
        file.create_group("scalars").attrs["field_names"] = np.array([], dtype="S1")
        for axis in "xyz":
            group = file.create_group(f"boundary_conditions/{axis}_periodic")
            group.attrs.update({"bc_type": "PERIODIC", "associated_dims": [axis]})
    return np.moveaxis(velocity, -1, 2)


# The format, what makes the file, and the names of the fields.
FILES: dict[str, tuple[str, Callable[[Path], NDArray[np.float64]], tuple[str, ...]]] = {
    "mat": ("mat", _matlab(mat_v5), ("state",)),
    "mat 7.3": ("mat", _matlab(mat_v73), ("state",)),
    "npz": ("npz", _npz, ("state",)),
    "npz, x and y": ("npz", _npz_pair_of_cubes, ("state",)),
    "neuralop": ("neuralop", _neuralop, ("state_0", "state_1", "state_2")),
    "pdebench": ("pdebench", _pdebench, ("density", "pressure", "velocity")),
    "pdebench, groups": ("pdebench", _pdebench_groups, ("field_0", "field_1", "field_2")),
    "well": ("well", _well, ("velocity_x", "velocity_y", "velocity_z")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_on_three_axes_is_imported(name: str, tmp_path: Path) -> None:
    kind, make, fields = FILES[name]
    states = make(tmp_path / "some.file")
    told: dict[str, Any] = {} if kind == "well" else {"boundary": ("periodic",)}
    told |= {"interval": 0.5} if kind == "neuralop" else {}
    with convert(kind, tmp_path / "some.file", tmp_path / "out", **told)["train"] as file:
        assert tuple(field.name for field in file.spec.state) == fields
        assert file.spec.grid.shape == states.shape[3:]
        assert file.spec.grid.is_periodic
        assert file.spec.grid.lengths == pytest.approx((1.0,) * 3)
        assert file.spec.times == (0.0, 0.5)
        np.testing.assert_array_equal(file.read_states(slice(None)), states.astype(np.float32))


def test_channels_or_a_third_axis_must_be_said_where_either_can_be(tmp_path: Path) -> None:
    values = random_array(3, 12, 6, 8)
    with open(tmp_path / "some.npz", "wb") as file:
        np.savez(file, x=values, y=2 * values)
    with pytest.raises(ImportedFileError, match="--axes x=sample,x,y,z or --axes x=sample,channel,x,y"):
        convert("npz", tmp_path / "some.npz", tmp_path / "out")
    axes = {"x": ("sample", "x", "y", "z")}
    with convert("npz", tmp_path / "some.npz", tmp_path / "out", axes=axes)["train"] as read:
        assert read.spec.grid.shape == (12, 6, 8)


def _obstacle() -> NDArray[np.bool_]:
    mask = np.zeros(SPACE, dtype=bool)
    mask[1:3, 2:4, 3:6] = True
    return mask


def _of_every_order(path: Path) -> None:
    """Scalars, vectors and tensors between walls at both ends of z; x and y are periodic. The fields of The Well may be
    constant along axes, in time, or for all samples."""
    fields = {
        "t0_fields/pressure": (random_array(3, 2, *SPACE), True, True, (True, True, True)),
        "t0_fields/stratification": (random_array(8), False, False, (False, False, True)),
        "t1_fields/velocity": (random_array(3, 2, *SPACE, 3), True, True, (True, True, True)),
        "t1_fields/shear": (random_array(3, 6, 8, 3), True, False, (False, True, True)),
        "t2_fields/stress": (random_array(3, 2, *SPACE, 3, 3), True, True, (True, True, True)),
    }
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"grid_type": "cartesian", "n_trajectories": 3, "n_spatial_dims": 3, "dataset_name": "mine"})
        steady = {"sample_varying": False, "time_varying": False}
        places = {"x": np.arange(4) / 4, "y": np.arange(6) / 4, "z": (np.arange(8) + 0.5) / 4}
        for name, values in {"time": np.array([0.0, 0.5]), **places}.items():
            file[f"dimensions/{name}"] = values.astype(np.float32)
            file[f"dimensions/{name}"].attrs.update(steady)
        file["dimensions"].attrs["spatial_dims"] = list("xyz")
        for order in range(3):
            names = [name.split("/")[1] for name in fields if name.startswith(f"t{order}")]
            file.create_group(f"t{order}_fields").attrs["field_names"] = names
        for name, (values, of_sample, of_time, axes) in fields.items():
            file[name] = values.astype(np.float32)
            file[name].attrs.update({"sample_varying": of_sample, "time_varying": of_time, "dim_varying": axes})
        file.create_group("scalars").attrs["field_names"] = ["Re", "clock"]
        file["scalars/Re"], file["scalars/clock"] = np.array([10.0, 20.0, 200.0]), np.array([0.0, 1.0])
        file["scalars/Re"].attrs.update({"sample_varying": True, "time_varying": False})
        file["scalars/clock"].attrs.update({"sample_varying": False, "time_varying": True})
        ends = {axis: np.isin(np.arange(n), (0, n - 1)) for axis, n in zip("xyz", SPACE, strict=True)}
        conditions = {
            "x_periodic": (["x"], "PERIODIC", ends["x"]),
            "y_periodic": (["y"], "PERIODIC", ends["y"]),
            "z_wall": (["z"], "WALL", ends["z"]),
            "xyz_block": (["x", "y", "z"], "WALL", _obstacle()),
        }
        for name, (axes, kind, mask) in conditions.items():
            group = file.create_group(f"boundary_conditions/{name}")
            group.attrs.update({"bc_type": kind, "associated_dims": axes, "associated_fields": [], **steady})
            group["mask"] = mask


def test_fields_of_every_order_between_walls_are_those_of_the_wells_reader(tmp_path: Path) -> None:
    _of_every_order(tmp_path / "train" / "a.hdf5")
    options: dict[str, Any] = {"boundary_return_type": None}  # it reads walls of boxes only with a warning
    reader = WellDataset(path=str(tmp_path / "train"), use_normalization=False, **options)
    with convert("well", tmp_path / "train", tmp_path / "out")["train"] as file:
        assert (file.spec.grid.boundary, file.spec.grid.nodes) == (
            ("periodic", "periodic", "dirichlet"),
            ("periodic", "periodic", "centres"),
        )
        assert file.spec.grid.lengths == (1.0, 1.5, 2.0)
        state, static = ([field.name for field in fields] for fields in (file.spec.state, file.spec.static))
        assert state == [name for names in reader.metadata.field_names.values() for name in names]
        assert len(state) == 1 + 3 + 9
        constant = [name for names in reader.metadata.constant_field_names.values() for name in names]
        assert static == [*constant, "xyz_block"]
        for sample in range(3):
            item = reader[sample]
            frames = torch.cat([item["input_fields"], item["output_fields"]]).movedim(-1, 1)
            assert np.array_equal(file.read_states(sample), frames.numpy())
            found = file.read_static(sample)
            assert np.array_equal(found[:-1], item["constant_fields"].movedim(-1, 0).numpy())
            assert np.array_equal(found[-1], _obstacle())
        assert file.read_parameters()[:, 0].tolist() == [10.0, 20.0, 200.0]
        assert [(entry.name, entry.scale) for entry in file.spec.varying] == [("Re", "log")]
