"""Small files in the formats that can be imported, and their conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from numpy.typing import NDArray

from data_gen.importing.contents import Given
from data_gen.importing.convert import About, Part, import_data
from data_gen.store import DatasetFile

Fields = dict[str, NDArray[Any]]


def random_array(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


def zero_at_walls(values: NDArray[Any]) -> NDArray[Any]:
    """Fields [sample, x, y] with zeros at the first and last points of both axes."""
    return np.pad(values[:, 1:-1, 1:-1], ((0, 0), (1, 1), (1, 1)))


def mat_v5(path: Path, fields: Fields) -> Path:
    scipy.io.savemat(path, fields)
    return path


def mat_v73(path: Path, fields: Fields) -> Path:
    """As MATLAB writes: column-major, so the axes of the HDF5 dataset are reversed."""
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file.create_dataset(name, data=np.transpose(values)).attrs["MATLAB_class"] = np.bytes_(b"double")
    return path


def pdebench(path: Path, fields: Fields, **attributes: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in fields.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def centres(n: int, length: float = 1.0, start: float = 0.0) -> NDArray[np.float32]:
    return (start + (np.arange(n) + 0.5) * length / n).astype(np.float32)


def well(path: Path, *, n: int = 3, x: NDArray[Any] | None = None, tensors: bool = False) -> Fields:
    """A file as The Well's authors write it: vector fields, fields that are constant along something."""
    x = np.arange(4) * 0.5 if x is None else x
    fields = {
        "t0_fields/tracer": random_array(n, 2, 4, 6),
        "t1_fields/velocity": random_array(n, 2, 4, 6, 2),
        "t0_fields/depth": random_array(4),
    }
    if tensors:
        fields["t2_fields/stress"] = random_array(n, 2, 4, 6, 2, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"grid_type": "cartesian", "n_trajectories": n, "n_spatial_dims": 2, "dataset_name": "mine"})
        for name, values in {"time": np.array([3.0, 4.0]), "x": x, "y": np.arange(6) / 6}.items():
            file[f"dimensions/{name}"] = values
            file[f"dimensions/{name}"].attrs.update({"sample_varying": False, "time_varying": name == "time" and False})
        file["dimensions"].attrs["spatial_dims"] = ["x", "y"]
        for order in range(3):
            names = [name.split("/")[1] for name in fields if name.startswith(f"t{order}")]
            file.create_group(f"t{order}_fields").attrs["field_names"] = names or np.array([], dtype="S1")
        for name, values in fields.items():
            file[name] = values
            varies = name != "t0_fields/depth"
            file[name].attrs.update({"sample_varying": varies, "time_varying": varies, "dim_varying": [True, varies]})
        file.create_group("scalars").attrs["field_names"] = ["Re", "seed_of_sample"]
        file["scalars/Re"], file["scalars/seed_of_sample"] = 100.0, np.arange(n)
        for axis, kind in (("x", "OPEN"), ("y", "PERIODIC")):
            group = file.create_group(f"boundary_conditions/{axis}_{kind.lower()}")
            group.attrs.update({"bc_type": kind, "associated_dims": [axis]})
    return fields


def convert(kind: str, path: Path, out: Path, *splits: str, name: str = "data", **given: Any) -> dict[str, DatasetFile]:
    parts = [Part.parse(text.replace("FILE", str(path))) for text in splits or ("train=FILE",)]
    written, _ = import_data(kind, parts, About(name), out, Given(**given))
    return {split: DatasetFile(entry.path) for split, entry in written.items()}
