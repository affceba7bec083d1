"""Files of The Well, as its authors write them and as we do."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.imported_files import convert, random_array, well

from data_gen import store
from data_gen.grids import Grid
from data_gen.importing.contents import ImportedFileError
from data_gen.importing.convert import About, Part, import_data
from data_gen.spec import DatasetSpec, FieldSpec, Samples
from data_gen.store import DatasetFile

SPEC = DatasetSpec(
    name="waves",
    version=1,
    equation="u_t = v",
    grid=Grid((5, 6), (2.0, 1.0), ("neumann", "periodic"), ("centres", "periodic")),
    times=(0.5, 1.0, 1.5),
    state=(FieldSpec("height", "height of it", "m"), FieldSpec("velocity", "velocity", "m/s")),
    static=(FieldSpec("bottom", "bottom"),),
    parameters={"gravity": 9.81, "n": 3},
)


def _own(path: Path, n: int, seed: int) -> Samples:
    space = SPEC.grid.shape
    samples = Samples(
        random_array(n, 1, 2, *space, seed=seed),
        random_array(n, 1, *space, seed=seed + 1),
        random_array(n, 3, 2, *space, seed=seed + 2),
    )
    shards = [store.to_fields(SPEC, Samples(*(v[i : i + 16] for v in samples[:3]))) for i in range(0, n, 16)]
    store.write(path, SPEC, shards, n, split="train", seed=0, provenance={})
    return samples


def test_a_directory_in_the_wells_format(tmp_path: Path) -> None:
    # Our own files are in its format, which test_store.py shows with the_well's reader.
    one, two = _own(tmp_path / "train" / "a.hdf5", 17, 0), _own(tmp_path / "train" / "b.hdf5", 3, 9)
    file = convert("well", tmp_path / "train", tmp_path / "out")["train"]
    assert file.spec.grid == SPEC.grid
    assert file.spec.times == SPEC.times
    assert (file.spec.state, file.spec.parameters) == (SPEC.state, SPEC.parameters)
    trajectory, static, first = (
        np.concatenate([getattr(s, name) for s in (one, two)]).astype(np.float32)
        for name in ("trajectory", "static", "history")
    )
    assert np.array_equal(file.read_states(slice(None)), trajectory)
    assert np.array_equal(file.read_static(slice(None)), static)
    assert np.array_equal(file.read_initial(slice(None)), first[:, 0])


def test_vectors_and_constant_axes_of_the_well(tmp_path: Path) -> None:
    fields = well(tmp_path / "train" / "w.hdf5")
    out = tmp_path / "out"
    written, _ = import_data("well", [Part("train", tmp_path / "train")], About("w"), out)
    spec, notes = written["train"].spec, written["train"].notes
    assert [field.name for field in spec.state] == ["tracer", "velocity_x", "velocity_y"]
    assert spec.grid == Grid((4, 6), (1.5, 1.0), ("open", "periodic"), ("closed", "periodic"))
    assert spec.times == (0, 1)
    assert any("at 3 in the file" in note for note in notes)
    assert any("seed_of_sample" in note for note in notes)
    assert spec.parameters == {"Re": 100.0}
    with DatasetFile(written["train"].path) as file:
        expected = np.concatenate([fields["t0_fields/tracer"][..., None], fields["t1_fields/velocity"]], axis=-1)
        assert np.array_equal(file.read_states(slice(None)), np.moveaxis(expected, -1, 2).astype(np.float32))
        depth = np.broadcast_to(fields["t0_fields/depth"][:, None], (3, 4, 6)).astype(np.float32)
        assert np.array_equal(file.read_static(slice(None))[:, 0], depth)


def test_what_the_well_has_and_we_do_not(tmp_path: Path) -> None:
    well(tmp_path / "uneven.hdf5", x=np.array([0.0, 0.1, 0.5, 1.0]))
    with pytest.raises(ImportedFileError, match=r"x in .*uneven\.hdf5 isn't uniform"):
        convert("well", tmp_path / "uneven.hdf5", tmp_path / "out")
    well(tmp_path / "tensors.hdf5", tensors=True)
    with pytest.raises(ImportedFileError, match=r"--state and --static: tracer, depth, velocity_x, velocity_y"):
        convert("well", tmp_path / "tensors.hdf5", tmp_path / "out")
    convert("well", tmp_path / "tensors.hdf5", tmp_path / "some", state=("tracer",), static=())
    with h5py.File(tmp_path / "tensors.hdf5", "r+") as file:
        file.attrs["grid_type"] = "spherical"
    with pytest.raises(ImportedFileError, match="spherical grid"):
        convert("well", tmp_path / "tensors.hdf5", tmp_path / "out")
