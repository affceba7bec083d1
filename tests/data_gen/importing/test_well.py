"""Files of The Well, as its authors write them and as we do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.imported_files import convert, random_array, well
from numpy.typing import NDArray

from data_gen import store
from data_gen.grids import Grid
from data_gen.importing.contents import Given, ImportedFileError
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


def _with_conditions(path: Path, *conditions: tuple[str, list[str], str, NDArray[Any] | None]) -> Path:
    """A file of 4 x 6 points with these boundary conditions: name, axes, kind and mask."""
    well(path)
    with h5py.File(path, "r+") as file:
        del file["boundary_conditions"]
        for name, axes, kind, mask in conditions:
            group = file.create_group(f"boundary_conditions/{name}")
            group.attrs.update({"bc_type": kind, "associated_dims": axes})
            if mask is not None:
                group["mask"] = mask
    return path


def _line(n: int, *at: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(n), [place % n for place in at])


def _box(*rectangles: tuple[slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros((4, 6), dtype=bool)
    for where in rectangles:
        mask[where] = True
    return mask


_ALL = slice(None)
_PERIODIC_Y = ("y_periodic", ["y"], "PERIODIC", _line(6))
_INSIDE = _box((slice(1, 3), slice(2, 4)))
_STAIRS = _box((_ALL, slice(0, 1)), (slice(2, 4), slice(1, 3)))
# Conditions; --boundary; the boundary of the grid, or the refusal.
_CONDITIONS: dict[str, tuple[list[Any], tuple[str, ...] | None, tuple[str, ...] | str]] = {
    "obstacle in a periodic channel": (
        [("x_periodic", ["x"], "PERIODIC", _line(4, 0)), ("xy_wall", ["x", "y"], "WALL", _INSIDE), _PERIODIC_Y],
        None,
        ("periodic", "periodic"),
    ),
    "both ends": (
        [("x0_wall", ["x"], "WALL", _line(4, 0)), ("xL_wall", ["x"], "wall", _line(4, -1)), _PERIODIC_Y],
        None,
        ("dirichlet", "periodic"),
    ),
    "integers as a mask": (
        [("x_wall_neumann", ["x"], "WALL", _line(4, 0, -1).astype(np.int8)), _PERIODIC_Y],
        None,
        ("neumann", "periodic"),
    ),
    "all faces in one mask": (
        [("yx_wall", ["y", "x"], "WALL", ~_box((slice(1, -1), slice(1, -1))).T)],
        None,
        ("dirichlet", "dirichlet"),
    ),
    "part of a face": (
        [("xy_wall", ["x", "y"], "WALL", _box((slice(0, 1), slice(0, 3)))), _PERIODIC_Y],
        None,
        ("open", "periodic"),
    ),
    "staircase": (
        [
            ("x_open", ["x"], "OPEN", _line(4, 0)),
            ("xy_wall", ["x", "y"], "WALL", _STAIRS),
            ("y_open", ["y"], "OPEN", _line(6, -1)),
        ],
        ("open",),
        ("open", "open"),
    ),
    "differing ends": (
        [("x0_wall", ["x"], "WALL", _line(4, 0)), ("xL_open", ["x"], "OPEN", _line(4, -1)), _PERIODIC_Y],
        None,
        r"axis x is wall \(x0_wall\) at its first end, open \(xL_open\) at its last.* --boundary open,periodic",
    ),
    "one end alone": (
        [("x0_wall", ["x"], "WALL", _line(4, 0)), _PERIODIC_Y],
        None,
        r"open \(no condition\) at its last",
    ),
    "contradicted": (
        [("x_periodic", ["x"], "PERIODIC", _line(4)), _PERIODIC_Y],
        ("open", "periodic"),
        "--boundary open doesn't fit",
    ),
    "mask of another grid": (
        [("x_wall", ["x"], "WALL", _line(5, 0)), _PERIODIC_Y],
        None,
        r"has the shape \(5,\)",
    ),
    "of another kind": ([("x_slip", ["x"], "SLIP", None), _PERIODIC_Y], None, "unknown kind slip"),
}


@pytest.mark.parametrize("case", list(_CONDITIONS))
def test_boundary_conditions_are_read_at_the_faces(case: str, tmp_path: Path) -> None:
    conditions, boundary, expected = _CONDITIONS[case]
    path = _with_conditions(tmp_path / "a.hdf5", *conditions)
    if isinstance(expected, str):
        with pytest.raises(ImportedFileError, match=expected):
            convert("well", path, tmp_path / "out", boundary=boundary)
        return
    spec = convert("well", path, tmp_path / "out", boundary=boundary, static=("depth",))["train"].spec
    assert spec.grid.boundary == expected


@pytest.mark.parametrize(("mask", "is_field"), [(_INSIDE, True), (_STAIRS, True), (_line(4, 0, -1), False)])
def test_obstacles_are_a_static_field(mask: NDArray[np.bool_], is_field: bool, tmp_path: Path) -> None:
    axes = ["x", "y"][: mask.ndim]
    path = _with_conditions(tmp_path / "a.hdf5", ("walls", axes, "WALL", mask), _PERIODIC_Y)
    file = convert("well", path, tmp_path / "out", boundary=("open", "periodic"))["train"]
    names = [field.name for field in file.spec.static]
    assert ("walls" in names) == is_field
    if is_field:
        assert np.array_equal(file.read_static(1)[names.index("walls")], mask)
    if is_field:  # a field of the file that is the same mask isn't stored twice
        with h5py.File(path, "r+") as content:
            content["t0_fields/tracer_mask"] = ~mask
            content["t0_fields/tracer_mask"].attrs.update(
                {"sample_varying": False, "time_varying": False, "dim_varying": [True, True]}
            )
            content["t0_fields"].attrs["field_names"] = ["tracer", "depth", "tracer_mask"]
        again = convert("well", path, tmp_path / "again", boundary=("open", "periodic"))["train"]
        assert {"walls", "tracer_mask"} & {field.name for field in again.spec.static} == {"tracer_mask"}


def _with_scalar(path: Path, value: float | NDArray[Any]) -> Path:
    well(path)
    with h5py.File(path, "r+") as file:
        del file["scalars/Re"]
        file["scalars/Re"] = value
        file["scalars"].attrs["field_names"] = ["Re"]
    return path


# Values of Re in train, valid and test; --static; what becomes of it: None for a value per sample, or the parameter.
_SCALARS: dict[str, tuple[list[Any], tuple[str, ...] | None, Any]] = {
    "the same": ([100.0, 100.0, 100.0], None, 100.0),
    "per sample": ([np.array([1.0, 2.0, 3.0])] * 3, None, None),
    "in test alone": ([100.0, 100.0, 200.0], None, "from 100 to 200"),
    "left out": ([np.array([1.0, 2.0, 3.0])] * 3, ("depth",), "from 1 to 3"),
    "asked for": ([100.0, 100.0, 200.0], ("depth", "Re"), None),
}


@pytest.mark.parametrize("case", list(_SCALARS))
def test_a_parameter_that_varies_is_an_input(case: str, tmp_path: Path) -> None:
    values, static, expected = _SCALARS[case]
    splits = ("train", "valid", "test")
    parts = [
        Part(split, _with_scalar(tmp_path / f"{split}.hdf5", value))
        for split, value in zip(splits, values, strict=True)
    ]
    written, _ = import_data("well", parts, About("w"), tmp_path / "out", Given(static=static))
    assert len({entry.spec.to_json() for entry in written.values()}) == 1
    spec = written["train"].spec
    if expected is not None:
        assert spec.parameters["Re"] == expected
        assert [field.name for field in spec.static] == ["depth"]
        return
    assert "Re" not in spec.parameters
    assert [(entry.name, entry.scale) for entry in spec.varying] == [("Re", "linear")]
    for split, value in zip(splits, values, strict=True):
        with DatasetFile(written[split].path) as file:
            found = file.read_parameters()[:, 0]
            assert np.array_equal(found, np.broadcast_to(value, found.shape))


def test_parameters_of_the_files_of_a_directory_are_an_input(tmp_path: Path) -> None:
    for number, value in enumerate((10.0, 20.0)):
        _with_scalar(tmp_path / "train" / f"{number}.hdf5", value)
    _with_scalar(tmp_path / "valid.hdf5", 10.0)
    out = tmp_path / "out"
    file = convert("well", tmp_path / "train", out)["train"]
    assert file.read_parameters()[:, 0].tolist() == [10.0] * 3 + [20.0] * 3
    # A split that is imported later has the same inputs.
    later = convert("well", tmp_path / "valid.hdf5", out, "valid=FILE")["valid"]
    assert later.spec == file.spec


def test_what_the_well_has_and_we_do_not(tmp_path: Path) -> None:
    well(tmp_path / "uneven.hdf5", x=np.array([0.0, 0.1, 0.5, 1.0]))
    with pytest.raises(ImportedFileError, match=r"x in .*uneven\.hdf5 isn't uniform"):
        convert("well", tmp_path / "uneven.hdf5", tmp_path / "out")
    well(tmp_path / "spherical.hdf5")
    with h5py.File(tmp_path / "spherical.hdf5", "r+") as file:
        file.attrs["grid_type"] = "spherical"
    with pytest.raises(ImportedFileError, match="spherical grid"):
        convert("well", tmp_path / "spherical.hdf5", tmp_path / "out")


@pytest.mark.parametrize(
    ("symmetry", "components"),
    [(None, ("xx", "xy", "yx", "yy")), ("symmetric", ("xx", "xy", "yy")), ("antisymmetric", ("xy",))],
)
def test_components_of_a_tensor_are_fields(symmetry: str | None, components: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "tensors.hdf5"
    stress = well(path, tensors=True)["t2_fields/stress"]
    if symmetry:
        with h5py.File(path, "r+") as content:
            content["t2_fields/stress"].attrs[symmetry] = True
    file = convert("well", path, tmp_path / "out")["train"]
    names = [field.name for field in file.spec.state]
    assert names == ["tracer", "velocity_x", "velocity_y", *(f"stress_{component}" for component in components)]
    expected = [stress[..., "xy".index(i), "xy".index(j)] for i, j in components]
    assert np.array_equal(file.read_states(slice(None))[:, :, 3:], np.stack(expected, axis=2).astype(np.float32))
    some = convert("well", path, tmp_path / "some", state=("stress_xy",), static=())["train"]
    assert np.array_equal(some.read_states(2)[:, 0], stress[2, ..., 0, 1].astype(np.float32))
