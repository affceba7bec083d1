"""Layout of a dataset file: names, shapes, dimension scales, units, and the groups that The Well's readers expect."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_gen.spec import DatasetSpec

FORMAT_VERSION = 2
# Samples per shard, the unit in which samples are solved, resumed and hashed.
SHARD_SIZE = 16
# Prefixes of the names of initial states, of diagnostics, and of parameters that differ between samples.
INITIAL, DIAGNOSTICS, SCALARS = "initial_", "diagnostics/", "scalars/"

# An h5py object. Its stubs type every child as Group | Dataset | Datatype, so static checks of it are useless.
File = Any


def field_names(spec: DatasetSpec) -> list[str]:
    """Static, initial and evolving fields, in the order in which they are hashed."""
    initial = [INITIAL + field.name for field in spec.state] if spec.stores_initial else []
    return [*(field.name for field in spec.static), *initial, *(field.name for field in spec.state)]


def shapes(spec: DatasetSpec, n_samples: int) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of ``n_samples`` samples, by name."""
    constant = (n_samples, *spec.grid.shape)
    evolving = constant if spec.is_steady else (n_samples, spec.n_snapshots, *spec.grid.shape)
    states = {field.name for field in spec.state}
    fields = {name: evolving if name in states else constant for name in field_names(spec)}
    numbers = [SCALARS + entry.name for entry in spec.varying] + [
        DIAGNOSTICS + entry.name for entry in spec.diagnostics
    ]
    return {**fields, **dict.fromkeys(numbers, (n_samples,))}


def scales(spec: DatasetSpec, n_samples: int) -> dict[str, NDArray[Any]]:
    """Values of the dimension scales, by name."""
    times = np.array(spec.times or (0.0,))
    axes = dict(zip(spec.grid.axis_names, spec.grid.coordinates(), strict=True))
    return {"sample": np.arange(n_samples), "time": times, **axes}


def root_attributes(spec: DatasetSpec, n_samples: int, split: str, seed: int) -> dict[str, Any]:
    """Root attributes of a file, without those of the code that made it and the hashes."""
    return {
        "format_version": FORMAT_VERSION,
        "dataset_name": spec.name,
        "dataset_version": spec.version,
        "equation": spec.equation,
        "reference": spec.reference,
        "split": split,
        "seed": seed,
        "n_trajectories": n_samples,
        "n_spatial_dims": spec.grid.n_dims,
        "grid_type": "cartesian",
        "simulation_parameters": list(spec.parameters),
        **spec.parameters,
    }


def write_header(
    file: File, spec: DatasetSpec, n_samples: int, split: str, seed: int, provenance: dict[str, str]
) -> None:
    """Write everything but the arrays of samples and the hashes."""
    file.attrs.update({**root_attributes(spec, n_samples, split, seed), **provenance})
    for name, values in scales(spec, n_samples).items():
        file[name] = values
        file[name].make_scale(name)
    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = list(spec.grid.axis_names)
    for name in ("time", *spec.grid.axis_names):
        dimensions[name] = file[name]
        dimensions[name].attrs["sample_varying"] = False
        if name != "time":
            dimensions[name].attrs["time_varying"] = False
    scalars = file.create_group("scalars")
    numbers = {name: value for name, value in spec.parameters.items() if not isinstance(value, str)}
    scalars.attrs["field_names"] = [*numbers, *(entry.name for entry in spec.varying)]
    for name, value in numbers.items():
        scalars[name] = float(value)
        scalars[name].attrs.update({"sample_varying": False, "time_varying": False})
    conditions = file.create_group("boundary_conditions")
    for axis, n, boundary in zip(spec.grid.axis_names, spec.grid.shape, spec.grid.boundary, strict=True):
        condition = conditions.create_group(f"{axis}_{boundary}")
        well_type = {"periodic": "PERIODIC", "open": "OPEN"}.get(boundary, "WALL")
        condition.attrs.update(
            {"bc_type": well_type, "associated_dims": [axis], "sample_varying": False, "time_varying": False}
        )
        mask = np.zeros(n, dtype=bool)
        mask[[0, -1]] = True
        condition["mask"] = mask


def create_fields(file: File, spec: DatasetSpec, n_samples: int) -> dict[str, File]:
    """Create empty arrays for the samples; returns them by name."""
    specs = {field.name: field for field in (*spec.static, *spec.state)}
    specs.update({INITIAL + field.name: field for field in spec.state})
    datasets: dict[str, File] = {}
    scalars = file.create_group("t0_fields")
    scalars.attrs["field_names"] = field_names(spec)
    for name in field_names(spec):
        shape = shapes(spec, n_samples)[name]
        # One sample per chunk, because whole samples are read; no compression, because float32 fields hardly compress.
        field = file.create_dataset(name, shape, np.float32, chunks=(1, *shape[1:]))
        evolving = len(shape) == 2 + spec.grid.n_dims
        axes = ("sample", *(("time",) if evolving else ()), *spec.grid.axis_names)
        for axis, scale in enumerate(axes):
            field.dims[axis].attach_scale(file[scale])
        field.attrs.update(
            {
                "units": specs[name].unit,
                "long_name": ("initial " if name.startswith(INITIAL) else "") + specs[name].description,
                "dim_varying": [True] * spec.grid.n_dims,
                "sample_varying": True,
                "time_varying": evolving,
            }
        )
        if spec.varying:  # makes them coordinates for xarray
            field.attrs["coordinates"] = " ".join(entry.name for entry in spec.varying)
        scalars[name] = field
        datasets[name] = field
    for entry in spec.varying:
        number = _per_sample(file, entry.name, n_samples)
        number.attrs.update({"long_name": f"parameter {entry.name}", "sample_varying": True, "time_varying": False})
        file[SCALARS + entry.name] = number
        datasets[SCALARS + entry.name] = number
    for entry in spec.diagnostics:
        name = DIAGNOSTICS + entry.name
        # They have checksums because no hash covers them: they can differ between machines for the same samples.
        datasets[name] = _per_sample(file, name, n_samples)
        datasets[name].attrs.update({"units": entry.unit, "long_name": entry.description})
    for order in ("t1_fields", "t2_fields"):
        file.create_group(order).attrs["field_names"] = np.array([], dtype="S1")
    return datasets


def _per_sample(file: File, name: str, n_samples: int) -> File:
    """An empty array of one number per sample."""
    made = file.create_dataset(name, (n_samples,), np.float64, chunks=(min(SHARD_SIZE, n_samples),), fletcher32=True)
    made.dims[0].attach_scale(file["sample"])
    return made
