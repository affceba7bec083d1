"""Data of others: every format is read back equal, cut without overlap, and refused where something is wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from numpy.typing import NDArray

from data_gen import store
from data_gen.grids import Grid
from data_gen.importing import convert as conversion
from data_gen.importing.contents import FORMATS, ForeignFileError, Given, open_foreign
from data_gen.importing.convert import About, Part, import_data
from data_gen.spec import DatasetSpec, FieldSpec, Samples
from data_gen.store import DatasetFile

Fields = dict[str, NDArray[Any]]


def _random(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(shape)


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


def convert(kind: str, path: Path, out: Path, *splits: str, name: str = "data", **given: Any) -> dict[str, DatasetFile]:
    parts = [Part.parse(text.replace("FILE", str(path))) for text in splits or ("train=FILE",)]
    written, _ = import_data(kind, parts, About(name), out, Given(**given))
    return {split: DatasetFile(entry.path) for split, entry in written.items()}


def centres(n: int, length: float = 1.0, start: float = 0.0) -> NDArray[np.float32]:
    return (start + (np.arange(n) + 0.5) * length / n).astype(np.float32)


# MATLAB --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [mat_v5, mat_v73])
def test_darcy_of_the_fno_paper(write: Callable[..., Path], tmp_path: Path) -> None:
    coeff, sol = _random(20, 5, 7), _random(20, 5, 7, seed=1)
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
    a, u = _random(3, 16), _random(3, 16, seed=1)
    path = write(tmp_path / "burgers.mat", {"a": a, "u": u, "a_x": a})
    file = convert("mat", path, tmp_path / "out", state=("velocity",), interval=0.5)["train"]
    assert (file.spec.times, file.spec.grid) == ((0.0, 0.5), Grid.periodic(16, n_dims=1))
    states = file.read_states(slice(None))
    assert np.array_equal(states[:, :, 0], np.stack([a, u], axis=1).astype(np.float32))


@pytest.mark.parametrize("write", [mat_v5, mat_v73])
def test_navier_stokes_of_the_fno_paper(write: Callable[..., Path], tmp_path: Path) -> None:
    a, u = _random(18, 6, 8), _random(18, 6, 8, 5, seed=1)
    path = write(tmp_path / "ns.mat", {"a": a, "u": u, "t": np.arange(1.0, 6.0)[None]})
    file = convert("mat", path, tmp_path / "out")["train"]
    assert file.spec.times == (1, 2, 3, 4, 5)
    assert file.spec.grid.shape == (6, 8)
    assert np.array_equal(file.read_states(slice(None))[:, :, 0], np.moveaxis(u, -1, 1).astype(np.float32))
    assert np.array_equal(file.read_initial(slice(None))[:, 0], a.astype(np.float32))


def test_both_versions_of_mat_files_hold_the_same(tmp_path: Path) -> None:
    fields = {"a": _random(19, 6, 8), "u": _random(19, 6, 8, 5), "t": np.arange(1.0, 6.0)[None]}
    hashes = {
        write.__name__: convert("mat", write(tmp_path / f"{write.__name__}.mat", fields), tmp_path / write.__name__)
        for write in (mat_v5, mat_v73)
    }
    assert hashes["mat_v5"]["train"].sha256() == hashes["mat_v73"]["train"].sha256()


# PDEBench ------------------------------------------------------------------------------------------------------------


def test_pdebench_in_one_dimension(tmp_path: Path) -> None:
    tensor = _random(4, 6, 8).astype(np.float32)
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
    tensor, nu = _random(4, 1, 8, 6).astype(np.float32), _random(4, 8, 6, seed=1).astype(np.float32)
    fields = {"tensor": tensor, "nu": nu, "x-coordinate": centres(8), "y-coordinate": centres(6)}
    file = convert("pdebench", pdebench(tmp_path / "d.hdf5", fields, beta=1.0), tmp_path / "out")["train"]
    assert file.spec.grid == Grid((8, 6), (1.0, 1.0), ("dirichlet",) * 2, ("centres",) * 2)
    assert file.spec.parameters == {"beta": 1.0}
    assert np.array_equal(file.read_states(slice(None))[:, 0], tensor)
    assert np.array_equal(file.read_static(slice(None))[:, 0], nu)


def test_pdebench_fluids(tmp_path: Path) -> None:
    names = ("Vx", "Vy", "density", "pressure")
    fields: Fields = {name: _random(17, 3, 8, 6, seed=i).astype(np.float32) for i, name in enumerate(names)}
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


# neuraloperator ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize("old", [False, True])
def test_neuraloperator_files(dtype: torch.dtype, old: bool, tmp_path: Path) -> None:
    x, y = torch.from_numpy(_random(20, 5, 5) > 0).to(dtype), torch.from_numpy(_random(20, 5, 5, seed=1)).float()
    torch.save({"x": x, "y": y}, tmp_path / "d.pt", _use_new_zipfile_serialization=not old)
    file = convert("neuralop", tmp_path / "d.pt", tmp_path / "out", nodes=("centres",))["train"]
    assert file.spec.grid.nodes == ("centres", "centres")
    assert np.array_equal(file.read_static(slice(None))[:, 0], x.float().numpy())
    assert np.array_equal(file.read_states(slice(None))[:, 0, 0], y.numpy())


def test_neuraloperators_own_loader_reads_the_same(tmp_path: Path) -> None:
    from neuralop.data.datasets.pt_dataset import PTDataset

    for split, n in (("train", 6), ("test", 4)):
        content = {"x": torch.from_numpy(_random(n, 5, 5, seed=n) > 0), "y": torch.from_numpy(_random(n, 5, 5))}
        torch.save(content, tmp_path / f"darcy_{split}_5.pt")
    theirs = PTDataset(tmp_path, "darcy", 6, [4], 1, [1], 5, [5], encode_output=False)
    parts = [Part(split, tmp_path / f"darcy_{split}_5.pt") for split in ("train", "test")]
    import_data("neuralop", parts, About("darcy"), tmp_path / "out")
    for split, dataset in (("train", theirs.train_db), ("test", theirs.test_dbs[5])):
        with DatasetFile(tmp_path / "out" / split / "darcy.hdf5") as file:
            for index in range(len(dataset)):
                assert np.array_equal(file.read_static(index), dataset[index]["x"].numpy())
                assert np.array_equal(file.read_states(index)[0], dataset[index]["y"].float().numpy())


def test_trajectories_and_channels_in_neuraloperator_files(tmp_path: Path) -> None:
    x, y = torch.from_numpy(_random(3, 1, 8)), torch.from_numpy(_random(3, 4, 8, seed=1))
    torch.save({"x": x, "y": y}, tmp_path / "b.pt")
    file = convert("neuralop", tmp_path / "b.pt", tmp_path / "out", interval=0.25)["train"]
    assert file.spec.times == (0.25, 0.5, 0.75, 1.0)
    assert np.array_equal(file.read_states(1)[:, 0], y[1].float().numpy())
    assert np.array_equal(file.read_initial(1)[0], x[1, 0].float().numpy())


def test_pickles_are_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "pwned",))

    torch.save({"x": Evil(), "y": torch.zeros(2, 2)}, tmp_path / "evil.pt")
    with pytest.raises(ForeignFileError, match="would run its code"):
        convert("neuralop", tmp_path / "evil.pt", tmp_path / "out")
    assert not (tmp_path / "pwned").exists()


# The Well ------------------------------------------------------------------------------------------------------------

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
        _random(n, 1, 2, *space, seed=seed),
        _random(n, 1, *space, seed=seed + 1),
        _random(n, 3, 2, *space, seed=seed + 2),
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


def well(path: Path, *, n: int = 3, x: NDArray[Any] | None = None, tensors: bool = False) -> Fields:
    """A file as The Well's authors write it: vector fields, fields that are constant along something."""
    x = np.arange(4) * 0.5 if x is None else x
    fields = {
        "t0_fields/tracer": _random(n, 2, 4, 6),
        "t1_fields/velocity": _random(n, 2, 4, 6, 2),
        "t0_fields/depth": _random(4),
    }
    if tensors:
        fields["t2_fields/stress"] = _random(n, 2, 4, 6, 2, 2)
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
    with pytest.raises(ForeignFileError, match=r"x in .*uneven\.hdf5 isn't uniform"):
        convert("well", tmp_path / "uneven.hdf5", tmp_path / "out")
    well(tmp_path / "tensors.hdf5", tensors=True)
    with pytest.raises(ForeignFileError, match=r"--state and --static: tracer, depth, velocity_x, velocity_y"):
        convert("well", tmp_path / "tensors.hdf5", tmp_path / "out")
    convert("well", tmp_path / "tensors.hdf5", tmp_path / "some", state=("tracer",), static=())
    with h5py.File(tmp_path / "tensors.hdf5", "r+") as file:
        file.attrs["grid_type"] = "spherical"
    with pytest.raises(ForeignFileError, match="spherical grid"):
        convert("well", tmp_path / "tensors.hdf5", tmp_path / "out")


# Splits --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def darcy(tmp_path: Path) -> Path:
    coeff, sol = _random(60, 4, 4), _random(60, 4, 4, seed=1)
    return mat_v5(tmp_path / "darcy.mat", {"coeff": coeff, "sol": sol})


def _numbers(file: DatasetFile, source: Path) -> list[int]:
    """Which samples of the source a split holds."""
    sol = scipy.io.loadmat(source)["sol"].astype(np.float32)
    return [int(np.flatnonzero((sol == state[0, 0]).all(axis=(1, 2)))[0]) for state in file.read_states(slice(None))]


def test_one_file_is_cut_in_the_order_given(darcy: Path, tmp_path: Path) -> None:
    files = convert("mat", darcy, tmp_path / "out", "test=FILE:20", "train=FILE:33", "valid=FILE")
    assert _numbers(files["test"], darcy) == list(range(20))
    assert _numbers(files["train"], darcy) == list(range(20, 53))
    assert _numbers(files["valid"], darcy) == list(range(53, 60))


def test_shuffled_samples_are_all_there_once(darcy: Path, tmp_path: Path) -> None:
    parts = [Part("train", darcy, 40), Part("test", darcy)]
    found: dict[int, list[int]] = {}
    for attempt, seed in enumerate((1, 1, 2)):
        written, _ = import_data("mat", parts, About("d"), tmp_path / f"{attempt}", shuffle_seed=seed)
        found[attempt] = [n for entry in written.values() for n in _numbers(DatasetFile(entry.path), darcy)]
        assert sorted(found[attempt]) == list(range(60))
    assert found[0] == found[1] != found[2]
    assert found[0] != sorted(found[0])


def test_blocks_of_reading_do_not_show(darcy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = convert("mat", darcy, tmp_path / "one")["train"].sha256()
    monkeypatch.setattr(conversion, "_BLOCK_BYTES", 1)
    assert convert("mat", darcy, tmp_path / "two")["train"].sha256() == one


def test_a_split_is_added_later(darcy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert("mat", darcy, out, "train=FILE:40", "test=FILE")
    _, warnings = import_data("mat", [Part("valid", darcy, 5)], About("data"), out)
    assert "5 of 5 samples of valid have the same input as one of train" in warnings[0]
    with pytest.raises(ForeignFileError, match="holds valid already"):
        import_data("mat", [Part("valid", darcy, 6)], About("data"), out)
    import_data("mat", [Part("valid", darcy, 6)], About("data"), out, replace_existing=True)
    assert DatasetFile(out / "valid" / "data.hdf5").n_samples == 6
    with pytest.raises(ForeignFileError, match="differ in name"):
        import_data("mat", [Part("valid", darcy, 6)], About("other"), out, replace_existing=True)


def test_a_test_set_may_be_on_another_grid(tmp_path: Path) -> None:
    coarse, fine = (mat_v5(tmp_path / f"{n}.mat", {"coeff": _random(4, n, n), "sol": _random(4, n, n)}) for n in (4, 8))
    with pytest.raises(ForeignFileError, match=r"train and test differ in grid.*test_<name>"):
        import_data("mat", [Part("train", coarse), Part("test", fine)], About("d"), tmp_path / "out")
    import_data("mat", [Part("train", coarse), Part("test_fine", fine)], About("d"), tmp_path / "out")
    assert DatasetFile(tmp_path / "out" / "test_fine" / "d.hdf5").spec.grid.shape == (8, 8)


def test_duplicates_between_train_and_test_are_told(tmp_path: Path) -> None:
    coeff, sol = _random(40, 4, 4), _random(40, 4, 4, seed=1)
    coeff[35] = coeff[3]
    coeff[38] = coeff[4]
    path = mat_v5(tmp_path / "d.mat", {"coeff": coeff, "sol": sol})
    parts = [Part("train", path, 30), Part("test", path)]
    _, warnings = import_data("mat", parts, About("d"), tmp_path / "out")
    assert len(warnings) == 1
    assert warnings[0].startswith("2 of 10 samples of test have the same input as one of train, the first is sample 5")


def test_where_it_comes_from_is_stored(darcy: Path, tmp_path: Path) -> None:
    about = About("d", equation="-Δu = 1", reference="me", parameters={"contrast": 4, "law": "two-phase"})
    written, _ = import_data("mat", [Part("train", darcy)], about, tmp_path / "out")
    with h5py.File(written["train"].path) as file:
        assert file.attrs["generator"] == "imported"
        assert file.attrs["source"] == "darcy.mat"
        assert file.attrs["source_sha256"] == hashlib.sha256(darcy.read_bytes()).hexdigest()
        assert file.attrs["source_format"] == "mat"
        assert (file.attrs["contrast"], file.attrs["law"], file.attrs["reference"]) == (4, "two-phase", "me")


# What is refused -----------------------------------------------------------------------------------------------------


def _wrong(tmp_path: Path) -> dict[str, tuple[str, Path, dict[str, Any], str]]:
    t = tmp_path
    x8, y6 = {"x-coordinate": centres(8)}, {"y-coordinate": centres(6)}
    steady = {"coeff": _random(3, 4, 4), "sol": _random(3, 4, 4)}
    t3 = {"t-coordinate": np.arange(3.0)}
    (t / "text.mat").write_text("nothing")
    torch.save([1, 2], t / "list.pt")
    torch.save({"x": torch.zeros(2, 2), "z": torch.zeros(2, 2)}, t / "xz.pt")
    with h5py.File(t / "groups.hdf5", "w") as file:
        file["0000/data"] = np.zeros((2, 3))
    with h5py.File(t / "notmatlab.mat", "w") as file:
        file["u"] = np.zeros((2, 3))
    swapped = {
        "tensor": _random(2, 1, 8, 6),
        "nu": _random(2, 8, 6),
        "x-coordinate": centres(6),
        "y-coordinate": centres(8),
    }
    odd = np.array([0.0, 0.1, 0.3, 0.35, 0.5, 0.6, 0.9, 1.0])
    tensor = {"tensor": _random(2, 3, 8)}
    return {
        "missing": ("mat", t / "none.mat", {}, "There is no file"),
        "directory": ("mat", t, {}, "is a directory"),
        "keys": ("mat", mat_v5(t / "k.mat", {"p": _random(2, 2), "q": _random(2, 2)}), {}, "it holds p, q"),
        "kind": ("mat", t / "text.mat", {}, "can't be read as mat"),
        "foreign": ("mat", t / "notmatlab.mat", {}, "MATLAB didn't write it"),
        "shapes": ("mat", mat_v5(t / "s.mat", {"coeff": _random(3, 4, 4), "sol": _random(3, 4, 5)}), {}, "for both"),
        "order": (
            "mat",
            mat_v5(t / "o.mat", {"a": _random(3, 4, 4), "u": _random(3, 5, 4, 4)}),
            {},
            "order of axes is",
        ),
        "text": (
            "mat",
            mat_v5(t / "c.mat", {"coeff": _random(2, 4, 4) * 1j, "sol": _random(2, 4, 4)}),
            {},
            "real numbers",
        ),
        "times": ("mat", mat_v5(t / "t.mat", {"u": _random(2, 4, 4, 3), "t": [[1.0, 1.0, 2.0]]}), {}, "3 increasing"),
        "interval": (
            "mat",
            mat_v5(t / "i.mat", {"u": _random(2, 4, 4, 3), "t": [[0.0, 1.0, 2.0]]}),
            {"interval": 0.5},
            "Leave --times and --interval out",
        ),
        "lengths": ("mat", mat_v5(t / "l.mat", steady), {"lengths": (1.0, 2.0, 3.0)}, "--lengths has 3 entries"),
        "negative": ("mat", mat_v5(t / "n.mat", steady), {"lengths": (-1.0,)}, "must be positive.*Change --lengths"),
        "boundary": ("mat", mat_v5(t / "b.mat", steady), {"boundary": ("wet",)}, "Unknown boundary.*'wet'"),
        "steady": ("mat", mat_v5(t / "st.mat", steady), {"interval": 1.0}, "steady problem"),
        "names": ("mat", mat_v5(t / "na.mat", steady), {"state": ("a", "b")}, r"needs 1 name\(s\)"),
        "reserved": ("mat", mat_v5(t / "re.mat", steady), {"state": ("time",)}, "--state 'time'"),
        "groups": ("pdebench", t / "groups.hdf5", {}, "a group for each sample"),
        "no hdf5": ("pdebench", t / "text.mat", {}, "is no HDF5 file"),
        "axes": ("pdebench", pdebench(t / "ax.hdf5", swapped), {}, "have 6, 8 points, but the fields have 8, 6"),
        "uneven": ("pdebench", pdebench(t / "un.hdf5", {**tensor, "x-coordinate": odd}), {}, "x in .* isn't uniform"),
        "length": (
            "pdebench",
            pdebench(t / "le.hdf5", {**tensor, **x8}),
            {"lengths": (2.0,)},
            "--lengths 2 doesn't fit the coordinates",
        ),
        "clock": (
            "pdebench",
            pdebench(t / "cl.hdf5", {"tensor": _random(2, 5, 8), **t3}),
            {},
            "have to be 5 increasing numbers, got 3",
        ),
        "fields": (
            "pdebench",
            pdebench(t / "f.hdf5", {"Vx": _random(2, 3, 8, 6), "Vy": _random(2, 3, 8, 6), **x8, **y6}),
            {"state": ("Vz",)},
            "has no Vz; it has Vx, Vy",
        ),
        "3D": ("pdebench", pdebench(t / "3d.hdf5", {"Vx": _random(1, 2, 3, 3, 3)}), {}, "one and two space"),
        "list": ("neuralop", t / "list.pt", {}, "it holds list"),
        "pt keys": ("neuralop", t / "xz.pt", {}, r"it holds \['x', 'z'\]"),
        "no pt": ("neuralop", t / "text.mat", {}, "can't be loaded as tensors alone"),
        "no well": ("well", t / "groups.hdf5", {}, "lacks dimensions, t0_fields"),
        "empty well": ("well", t / "empty", {}, r"holds no \.hdf5 file"),
    }


WRONG = [
    *"missing directory keys kind foreign shapes order text times interval lengths negative boundary steady".split(),
    *(
        "names",
        "reserved",
        "groups",
        "no hdf5",
        "axes",
        "uneven",
        "length",
        "clock",
        "fields",
        "3D",
        "list",
        "pt keys",
        "no pt",
    ),
    *("no well", "empty well"),
]


def test_every_refusal_is_tested(tmp_path: Path) -> None:
    assert list(_wrong(tmp_path)) == WRONG
    assert {kind for kind, *_ in _wrong(tmp_path).values()} == set(FORMATS)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_left(case: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    kind, path, given, message = _wrong(tmp_path)[case]
    with pytest.raises(ForeignFileError, match=message) as raised:
        convert(kind, path, tmp_path / "parent" / "out", **given)
    assert path.name in str(raised.value) or str(raised.value).startswith("--")
    assert not (tmp_path / "parent").exists() or not list((tmp_path / "parent").iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_found(value: float, tmp_path: Path) -> None:
    coeff, sol = _random(60, 4, 4), _random(60, 4, 4)
    sol[43, 1, 2] = value
    path = mat_v5(tmp_path / "d.mat", {"coeff": coeff, "sol": sol})
    with pytest.raises(ForeignFileError, match=r"pressure of sample 43 in .*d\.mat"):
        convert("mat", path, tmp_path / "parent" / "out", "train=FILE:30", "test=FILE")
    assert list((tmp_path / "parent").iterdir()) == [], "the split before it is gone, too"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (["train=FILE:0"], "at least 1 sample"),
        (["train=FILE:-3"], "at least 1 sample"),
        (["train=FILE:61"], "holds 60 samples, and 0 are in other splits, so train=61 exceeds"),
        (["train=FILE:50", "test=FILE:11"], "50 are in other splits, so test=11 exceeds"),
        (["train=FILE", "test=FILE"], "test=the rest exceeds"),
        (["train=FILE:3", "train=FILE:4"], "train is given twice"),
        (["training=FILE"], "isn't SPLIT=FILE"),
        (["train"], "isn't SPLIT=FILE"),
    ],
)
def test_impossible_splits_are_refused(darcy: Path, tmp_path: Path, splits: list[str], message: str) -> None:
    with pytest.raises(ForeignFileError, match=message):
        convert("mat", darcy, tmp_path / "out", *splits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", list(FORMATS))
def test_a_damaged_file_is_reported(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "whole"
    if kind == "well":
        well(path)
    elif kind == "mat":
        mat_v5(path.with_suffix(".mat"), {"coeff": _random(9, 4, 4), "sol": _random(9, 4, 4)}).rename(path)
    elif kind == "pdebench":
        pdebench(path, {"tensor": _random(9, 4, 4), "x-coordinate": centres(4)})
    else:
        torch.save({"x": torch.ones(9, 4, 4), "y": torch.ones(9, 4, 4)}, path)
    convert(kind, path, tmp_path / "fine")
    content = path.read_bytes()
    for share in (0.0, 0.05, 0.3, 0.7, 0.95):
        cut = tmp_path / "cut.hdf5"
        cut.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ForeignFileError, match=r"cut\.hdf5"):
            convert(kind, cut, tmp_path / "parent" / "out")
    assert not (tmp_path / "parent").exists() or not list((tmp_path / "parent").iterdir())


def test_samples_are_not_read_before_they_are_needed(tmp_path: Path) -> None:
    path = mat_v73(tmp_path / "big.mat", {"coeff": _random(300, 4, 4), "sol": _random(300, 4, 4)})
    with ExitStack() as files:
        found = open_foreign("mat", path, Given(), files)
        assert found.n_samples == 300
        assert found.read(np.array([7, 3])).trajectory.shape == (2, 1, 1, 4, 4)


def test_whole_chunks_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = {"coeff": _random(100, 4, 4), "sol": _random(100, 4, 4, seed=1)}
    one = convert("mat", mat_v73(tmp_path / "one.mat", fields), tmp_path / "one")["train"].sha256()
    with h5py.File(tmp_path / "chunked.mat", "w") as file:
        for name, values in fields.items():
            made = file.create_dataset(name, data=values.T, chunks=(4, 4, 50), compression="gzip")
            made.attrs["MATLAB_class"] = np.bytes_(b"double")
    monkeypatch.setattr(conversion, "_BLOCK_BYTES", 1)
    assert convert("mat", tmp_path / "chunked.mat", tmp_path / "two")["train"].sha256() == one
    with ExitStack() as files:
        assert open_foreign("mat", tmp_path / "chunked.mat", Given(), files).n_together == 50


# Command line --------------------------------------------------------------------------------------------------------


def test_the_command_tells_what_it_did_and_assumed(
    darcy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["mat", f"train={darcy}:40", f"test={darcy}", "--name", "d", "--parameter", "contrast=4"]
    assert conversion.main(command) == 0
    printed = capsys.readouterr().out
    for text in (
        "train    40 samples -> imported/d/train/d.hdf5",
        "pressure from permeability",
        "axis y   4 points, length 1, boundary dirichlet, nodes closed",
        "a domain of length 1 is assumed (--lengths)",
        "A run needs valid as well",
    ):
        assert text in printed, text
    assert conversion.main(command) == 1
    assert "Error: imported/d holds train and test already" in capsys.readouterr().err
    assert conversion.main(["mat", f"valid={darcy}:3", "--name", "d", "--parameter", "contrast=4"]) == 0
    printed = capsys.readouterr().out
    assert "Warning: 3 of 3 samples of valid have the same input" in printed
    assert "python run.py dataset=file dataset.path=imported/d" in printed


@pytest.mark.parametrize("arguments", [["--parameter", "contrast"], ["--parameter", "seed=3"], ["--name", "a/b"]])
def test_bad_arguments_are_explained(darcy: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["mat", f"train={darcy}", *(["--name", "d"] if "--name" not in arguments else []), *arguments]
    assert conversion.main(command) == 1
    assert capsys.readouterr().err.startswith("Error: --")
