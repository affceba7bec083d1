"""Files: what is written is read back, by other programs too, and damage never passes for data."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from the_well.data import WellDataset

from data_gen import store
from data_gen.grids import Grid
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import DatasetSpec, FieldSpec, Samples
from data_gen.store import DatasetFile, Fields, StoreError

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=12, n_snapshots=5)


def _samples(spec: DatasetSpec, n: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    space, n_state = spec.grid.shape, len(spec.state)
    return Samples(
        rng.standard_normal((n, 0 if spec.is_steady else 1, n_state, *space)),
        rng.standard_normal((n, len(spec.static), *space)),
        rng.standard_normal((n, spec.n_snapshots, n_state, *space)),
        {entry.name: rng.standard_normal(n) for entry in spec.diagnostics},
    )


def _first(samples: Samples, n: int) -> Samples:
    diagnostics = {name: values[:n] for name, values in samples.diagnostics.items()}
    return Samples(*(array[:n] for array in samples[:3]), diagnostics)


def _write(path: Path, spec: DatasetSpec, samples: Samples) -> None:
    fields = store.to_fields(spec, samples)
    n = len(samples.trajectory)
    shards = [{name: values[i : i + 16] for name, values in fields.items()} for i in range(0, n, 16)]
    store.write(path, spec, shards, n, split="train", seed=3, provenance={"generator": "test"})


@pytest.fixture(scope="module")
def ns2d(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples]:
    path = tmp_path_factory.mktemp("well") / "train" / "ns2d.hdf5"
    samples = _samples(PROBLEM.spec, 19)
    _write(path, PROBLEM.spec, samples)
    return path, samples


STEADY = DatasetSpec(
    name="flow",
    version=2,
    equation="-∇·(a∇u) = 1",
    grid=Grid((5, 9), (1.0, 2.0), ("dirichlet", "neumann"), ("closed", "closed")),
    times=(),
    state=(FieldSpec("pressure", "pressure"),),
    static=(FieldSpec("permeability", "permeability"), FieldSpec("forcing", "forcing")),
    parameters={"contrast": 4.0, "law": "two-phase"},
)
TWO_FIELDS = DatasetSpec(
    name="waves",
    version=1,
    equation="u_t = v",
    grid=Grid.periodic(6, n_dims=1),
    times=(1.0, 1.5, 2.5),
    state=(FieldSpec("height", "height", "m"), FieldSpec("velocity", "velocity", "m/s")),
)


@pytest.mark.parametrize("spec", [PROBLEM.spec, STEADY, TWO_FIELDS], ids=lambda spec: spec.name)
def test_what_is_written_is_read_back(spec: DatasetSpec, tmp_path: Path) -> None:
    samples = _samples(spec, 18)
    _write(tmp_path / "data.hdf5", spec, samples)
    with DatasetFile(tmp_path / "data.hdf5") as file:
        assert (file.spec, file.split, file.seed, file.n_samples) == (spec, "train", 3, 18)
        assert np.array_equal(file.read_states(slice(2, 17)), samples.trajectory[2:17].astype(np.float32))
        assert np.array_equal(file.read_states(4), samples.trajectory[4].astype(np.float32))
        assert np.array_equal(file.read_static(slice(None)), samples.static.astype(np.float32))
        assert file.read_static(4).shape == samples.static[4].shape
        if spec.stores_initial:
            assert np.array_equal(file.read_initial(slice(None)), samples.history[:, -1].astype(np.float32))
        else:
            with pytest.raises(StoreError, match="no separate initial state"):
                file.read_initial(0)
        if not spec.is_steady:
            assert np.array_equal(file.read_states(4, slice(1, 3)), samples.trajectory[4, 1:3].astype(np.float32))
        assert len(file.sha256()) == 64


def test_xarray_opens_it_with_the_right_coordinates(ns2d: tuple[Path, Samples]) -> None:
    path, samples = ns2d
    with store.to_xarray(path) as dataset:
        assert dict(dataset.sizes) == {"sample": 19, "time": 5, "x": 12, "y": 12}
        assert dataset["time"].values.tolist() == list(PROBLEM.spec.times)
        assert np.array_equal(dataset["x"], PROBLEM.spec.grid.coordinates()[0])
        assert np.array_equal(dataset["vorticity"], samples.trajectory[:, :, 0].astype(np.float32))
        assert dataset["vorticity"].attrs["units"] == "1/time"
        assert dataset.attrs["viscosity"] == 1e-3
        assert dataset.attrs["split"] == "train"


def test_the_well_opens_it_with_equal_values(ns2d: tuple[Path, Samples]) -> None:
    path, samples = ns2d
    well = WellDataset(path=str(path.parent), n_steps_input=2, n_steps_output=3, use_normalization=False)
    assert len(well) == 19
    assert well.metadata.dataset_name == "ns2d"
    assert well.metadata.boundary_condition_types == ["PERIODIC"]
    for index in (0, 18):
        item = well[index]
        frames = samples.trajectory[index, :, 0].astype(np.float32)
        assert np.array_equal(item["input_fields"][..., 0].numpy(), frames[:2])
        assert np.array_equal(item["output_fields"][..., 0].numpy(), frames[2:])
        assert np.array_equal(item["space_grid"][:, 0, 0].numpy(), PROBLEM.spec.grid.coordinates()[0])


def test_the_well_opens_several_fields_with_walls_and_static_fields(tmp_path: Path) -> None:
    spec = replace(STEADY, times=(0.0, 1.0, 2.0))
    samples = _samples(spec, 3)
    _write(tmp_path / "train" / "flow.hdf5", spec, samples)
    well = WellDataset(path=str(tmp_path / "train"), n_steps_input=1, n_steps_output=1, use_normalization=False)
    item = well[0]
    assert np.array_equal(item["input_fields"][0, ..., 0].numpy(), samples.trajectory[0, 0, 0].astype(np.float32))
    constant = np.moveaxis(samples.static[0], 0, -1).astype(np.float32)
    assert np.array_equal(item["constant_fields"].numpy(), constant)
    assert well.metadata.boundary_condition_types == ["WALL"]


def test_parameters_and_provenance_are_root_attributes(ns2d: tuple[Path, Samples]) -> None:
    with h5py.File(ns2d[0]) as file:
        for name, value in PROBLEM.spec.parameters.items():
            assert file.attrs[name] == value
        assert (file.attrs["seed"], file.attrs["generator"], file.attrs["n_trajectories"]) == (3, "test", 19)
        assert file["vorticity"].dtype == np.float32
        assert file["vorticity"].chunks == (1, 5, 12, 12)
        assert file["t0_fields/vorticity"] == file["vorticity"]


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, PROBLEM.spec, _samples(PROBLEM.spec, 3))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_hash_covers_the_samples_used_and_not_the_length_of_the_file(tmp_path: Path) -> None:
    everything = _samples(PROBLEM.spec, 40)
    for n in (20, 33, 40):
        _write(tmp_path / str(n), PROBLEM.spec, _first(everything, n))
    hashes = {}
    for n in (20, 33, 40):
        with DatasetFile(tmp_path / str(n)) as file:
            hashes[n] = file.sha256()
            assert file.sha256(20) == hashes[20]
            assert file.sha256(7) != file.sha256(8)
            with pytest.raises(ValueError, match="can't be read"):
                file.sha256(n + 1)
    assert len(set(hashes.values())) == 3


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "data.hdf5"
    _write(path, PROBLEM.spec, _samples(PROBLEM.spec, 2))
    before = path.read_bytes()

    def shards():
        yield store.to_fields(PROBLEM.spec, _samples(PROBLEM.spec, 16))
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        store.write(path, PROBLEM.spec, shards(), 32, split="train", seed=0, provenance={})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.hdf5"]


def test_too_few_samples_or_wrong_shapes_are_refused(tmp_path: Path) -> None:
    fields: Fields = store.to_fields(PROBLEM.spec, _samples(PROBLEM.spec, 2))
    with pytest.raises(ValueError, match="should hold 3 samples, but the shards held 2"):
        store.write(tmp_path / "d", PROBLEM.spec, [fields], 3, split="train", seed=0, provenance={})
    with pytest.raises(ValueError, match="don't fit the spec"):
        store.to_fields(NavierStokes2D(viscosity=1e-3, resolution=16).spec, _samples(PROBLEM.spec, 2))
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        _write(tmp_path / "data.hdf5", PROBLEM.spec, _samples(PROBLEM.spec, 1))
    finally:
        os.umask(mask)
    assert (tmp_path / "data.hdf5").stat().st_mode & 0o777 == 0o644


# Diagnostics ---------------------------------------------------------------------------------------------------------


def _names(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return names


def test_diagnostics_are_read_back_in_double_precision(ns2d: tuple[Path, Samples]) -> None:
    path, samples = ns2d
    with DatasetFile(path) as file:
        found = file.read_diagnostics()
    assert list(found) == [entry.name for entry in PROBLEM.spec.diagnostics]
    assert len(found) >= 2
    for name, values in samples.diagnostics.items():
        assert found[name].dtype == np.float64
        assert np.array_equal(found[name], values)
        assert not np.array_equal(values, values.astype(np.float32))


def test_diagnostics_describe_themselves(ns2d: tuple[Path, Samples]) -> None:
    with h5py.File(ns2d[0]) as file:
        for entry in PROBLEM.spec.diagnostics:
            dataset = file[f"diagnostics/{entry.name}"]
            assert (dataset.attrs["units"], dataset.attrs["long_name"]) == (entry.unit, entry.description)
            assert dataset.fletcher32
            assert dataset.dims[0][0] == file["sample"]
        # They are no fields: The Well's readers must not take them for such.
        assert list(file["t0_fields"].attrs["field_names"]) == ["vorticity"]


def test_xarray_opens_diagnostics_too(ns2d: tuple[Path, Samples]) -> None:
    path, samples = ns2d
    with xr.open_dataset(path, engine="h5netcdf", group="diagnostics") as dataset:
        for name, values in samples.diagnostics.items():
            assert np.array_equal(dataset[name], values)
            assert dataset[name].dims == ("sample",)


def test_a_dataset_without_diagnostics_has_none(tmp_path: Path) -> None:
    _write(tmp_path / "data.hdf5", TWO_FIELDS, _samples(TWO_FIELDS, 2))
    with h5py.File(tmp_path / "data.hdf5") as file:
        assert not [name for name in _names(file) if "diagnostics" in name]
    with DatasetFile(tmp_path / "data.hdf5") as file:
        assert file.read_diagnostics() == {}
        assert file.certificate == {}


@pytest.mark.parametrize("change", ["missing", "unknown", "none"])
def test_diagnostics_that_are_not_the_specs_are_refused(change: str) -> None:
    samples = _samples(PROBLEM.spec, 2)
    noted = dict(samples.diagnostics)
    if change == "missing":
        del noted["n_steps"]
    else:
        noted = {} if change == "none" else {**noted, "temperature": np.zeros(2)}
    with pytest.raises(ValueError, match="aren't those of the spec of ns2d"):
        store.to_fields(PROBLEM.spec, samples._replace(diagnostics=noted))


def test_diagnostics_of_too_few_samples_are_refused(tmp_path: Path) -> None:
    samples = _samples(PROBLEM.spec, 2)
    fields = store.to_fields(PROBLEM.spec, samples._replace(diagnostics=_samples(PROBLEM.spec, 1).diagnostics))
    with pytest.raises(ValueError, match="don't fit its spec"):
        store.write(tmp_path / "d", PROBLEM.spec, [fields], 2, split="train", seed=0, provenance={})
    assert list(tmp_path.iterdir()) == []


def test_a_file_whose_diagnostics_are_gone_is_damaged(ns2d: tuple[Path, Samples], tmp_path: Path) -> None:
    path = tmp_path / "less.hdf5"
    path.write_bytes(ns2d[0].read_bytes())
    with h5py.File(path, "r+") as file:
        del file["diagnostics/step_ratio"]
    with pytest.raises(StoreError, match=r"less\.hdf5 is damaged"):
        DatasetFile(path)


def test_the_hash_is_that_of_what_a_model_sees(tmp_path: Path) -> None:
    # Diagnostics and certificates differ between machines where the samples don't.
    samples = _samples(PROBLEM.spec, 3)
    other = samples._replace(diagnostics={name: values + 1 for name, values in samples.diagnostics.items()})
    _write(tmp_path / "a", PROBLEM.spec, samples)
    _write(tmp_path / "b", PROBLEM.spec, other)
    with DatasetFile(tmp_path / "a") as one, DatasetFile(tmp_path / "b") as two:
        assert one.sha256() == two.sha256()
        assert not np.array_equal(one.read_diagnostics()["step_ratio"], two.read_diagnostics()["step_ratio"])


def test_a_certificate_is_read_back_and_kept_by_the_header(tmp_path: Path) -> None:
    path, known = tmp_path / "data.hdf5", {"error": 1.5e-3, "errors": [[1e-3, 1.5e-3]], "diagnostics": {}}
    fields = store.to_fields(PROBLEM.spec, _samples(PROBLEM.spec, 2))
    store.write(path, PROBLEM.spec, [fields], 2, split="train", seed=0, provenance={}, certificate=known)
    with DatasetFile(path) as file:
        assert file.certificate == known
    with h5py.File(path) as file:
        assert json.loads(str(file.attrs["certificate"])) == known
    with h5py.File(path, "r+") as file:
        file.attrs["header"] = np.bytes_(file.attrs["header"].replace(b"0.0015", b"0.0001"))
    with pytest.raises(StoreError, match="header doesn't match the hash"):
        DatasetFile(path)


# Damage --------------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no dataset file .*nothing\.hdf5"):
        DatasetFile(tmp_path / "nothing.hdf5")


def test_another_format_version_is_refused(ns2d: tuple[Path, Samples], tmp_path: Path) -> None:
    path = tmp_path / "new.hdf5"
    path.write_bytes(ns2d[0].read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(StoreError, match="format version 99"):
        DatasetFile(path)


def test_files_of_the_first_format_are_refused(ns2d: tuple[Path, Samples], tmp_path: Path) -> None:
    path = tmp_path / "old.hdf5"
    path.write_bytes(ns2d[0].read_bytes())
    with h5py.File(path, "r+") as file:
        assert file.attrs["format_version"] == 2
        file.attrs["format_version"] = 1
    with pytest.raises(StoreError, match=r"old\.hdf5 has format version 1, but this code reads version 2"):
        DatasetFile(path)


@pytest.mark.parametrize("attribute", ["viscosity", "spec", "n_trajectories", "shard_sha256"])
def test_a_changed_header_is_noticed(ns2d: tuple[Path, Samples], tmp_path: Path, attribute: str) -> None:
    path = tmp_path / "changed.hdf5"
    path.write_bytes(ns2d[0].read_bytes())
    with h5py.File(path, "r+") as file:
        changed = {"viscosity": 2e-3, "spec": b"{}", "n_trajectories": 18, "shard_sha256": np.array(["0"], "S64")}
        file.attrs[attribute] = changed[attribute]
    with pytest.raises(StoreError, match=r"If run\.py generated it"):
        DatasetFile(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_reported(ns2d: tuple[Path, Samples], tmp_path: Path, share: float) -> None:
    content = ns2d[0].read_bytes()
    path = tmp_path / "cut.hdf5"
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError, match=r"cut\.hdf5"), DatasetFile(path) as file:
        file.sha256()
