"""Test sets on another grid, made from an existing one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.grids import closed, periodic

from data_gen import store
from data_gen.generation import cache
from data_gen.generation.regridded import ensure_regridded, refined
from data_gen.grids import Grid
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.regrid import regrid
from data_gen.spec import DatasetSpec, FieldSpec
from data_gen.store import DatasetFile, StoreError

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=12, n_snapshots=3, first_time=1.0)
HALF, DOUBLE = (replace(PROBLEM.spec, grid=Grid.periodic(n)) for n in (6, 24))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    cache.ensure(PROBLEM, {"test": 20, "train": 2}, 0, folder, workers=1)
    return folder


@pytest.fixture
def origin(root: Path, tmp_path: Path) -> Path:
    """A dataset of its own for each test."""
    path = cache.folder(PROBLEM, 0, root)
    for split in ("test", "train"):
        copy = tmp_path / path.name / split / "ns2d.hdf5"
        copy.parent.mkdir(parents=True)
        copy.write_bytes((path / split / "ns2d.hdf5").read_bytes())
    return tmp_path / path.name / "test" / "ns2d.hdf5"


def _beside(origin: Path, split: str) -> Path:
    return origin.parent.parent / split / origin.name


def test_a_regridded_file_holds_the_same_samples(origin: Path) -> None:
    for split, spec in (("test_half", HALF), ("test_double", DOUBLE)):
        path = _beside(origin, split)
        ensure_regridded(origin, spec, path, 18)
        with DatasetFile(origin) as first, DatasetFile(path) as other:
            assert (other.spec, other.split, other.seed, other.n_samples) == (spec, split, 0, 18)
            other.sha256()
            before, after = first.read_states(slice(0, 18)), other.read_states(slice(None))
            expected = regrid(before, PROBLEM.spec.grid, spec.grid).astype(np.float32)
            assert np.array_equal(after, expected)
            initial = regrid(first.read_initial(slice(0, 18)), PROBLEM.spec.grid, spec.grid).astype(np.float32)
            assert np.array_equal(other.read_initial(slice(None)), initial)
            for name, values in first.read_diagnostics().items():
                assert np.array_equal(other.read_diagnostics()[name], values[:18])
            assert other.certificate == {**first.certificate, "regridded_from": "test, 12x12"}
            assert other.certificate["error"] > 0
    # The low waves are those of the origin, to the last digit that float32 keeps.
    with DatasetFile(origin) as first, DatasetFile(_beside(origin, "test_half")) as half:
        fine, coarse = (np.fft.rfft2(f.read_states(slice(0, 18)), norm="forward") for f in (first, half))
    assert np.abs(coarse[..., :3, :3] - fine[..., :3, :3]).max() < 1e-7


def test_steady_problems_on_closed_grids_are_regridded_too(tmp_path: Path) -> None:
    spec = DatasetSpec(
        name="flow",
        version=1,
        equation="",
        grid=closed(9, 5),
        times=(),
        state=(FieldSpec("pressure", "p"),),
        static=(FieldSpec("permeability", "a"),),
        diagnostics=(FieldSpec("residual", "r"),),
    )
    rng = np.random.default_rng(0)
    fields: store.Fields = {name: rng.random((5, 9, 5), dtype=np.float32) for name in ("permeability", "pressure")}
    fields[store.DIAGNOSTICS + "residual"] = rng.random(5)
    origin = tmp_path / "test" / "flow.hdf5"
    store.write(origin, spec, [fields], 5, split="test", seed=4, provenance={})
    path = _beside(origin, "test_half")
    ensure_regridded(origin, replace(spec, grid=closed(5, 3)), path, 3)
    with DatasetFile(path) as file:
        assert file.seed == 4
        assert np.array_equal(file.read_states(slice(None))[:, 0, 0], fields["pressure"][:3, ::2, ::2])
        assert np.array_equal(file.read_static(slice(None))[:, 0], fields["permeability"][:3, ::2, ::2])
        assert np.array_equal(file.read_diagnostics()["residual"], fields["diagnostics/residual"][:3])


def test_a_regridded_file_is_made_once_and_made_longer(origin: Path) -> None:
    path = _beside(origin, "test_half")
    ensure_regridded(origin, HALF, path, 3)
    short = path.stat().st_ino
    ensure_regridded(origin, HALF, path, 2)
    assert path.stat().st_ino == short
    with DatasetFile(path) as file:
        first, fingerprint = file.read_states(slice(None)), file.sha256()
    ensure_regridded(origin, HALF, path, 20)
    with DatasetFile(path) as file:
        assert file.n_samples == 20
        assert np.array_equal(file.read_states(slice(0, 3)), first)
        assert file.sha256(3) == fingerprint
    again = _beside(origin, "test_again")
    ensure_regridded(origin, HALF, again, 20)
    with DatasetFile(path) as one, DatasetFile(again) as two:
        assert one.sha256() == two.sha256()


def test_an_origin_that_is_too_short_makes_nothing(origin: Path) -> None:
    with pytest.raises(StoreError, match="holds 20 samples, fewer than 21"):
        ensure_regridded(origin, HALF, _beside(origin, "test_half"), 21)
    assert not _beside(origin, "test_half").exists()


@pytest.mark.parametrize("name", ["vorticity", "initial_vorticity", "diagnostics/n_steps"])
def test_damage_of_the_origin_is_not_passed_on(origin: Path, name: str) -> None:
    with h5py.File(origin) as file:
        dataset = file[name]
        assert isinstance(dataset, h5py.Dataset)
        # Of the last shard: sample 17, which isn't among those asked for, makes the file no more to be trusted.
        offset = dataset.id.get_chunk_info(1 if name.startswith("diag") else 17).byte_offset
    content = bytearray(origin.read_bytes())
    content[offset] ^= 1
    origin.write_bytes(content)
    with pytest.raises(StoreError, match=r"test/ns2d\.hdf5 is damaged"):
        ensure_regridded(origin, HALF, _beside(origin, "test_half"), 3)
    assert not _beside(origin, "test_half").exists()


def test_a_grid_that_does_not_fit_makes_nothing(origin: Path) -> None:
    path = _beside(origin, "test_half")
    with pytest.raises(ValueError, match="domains or boundaries differ"):
        ensure_regridded(origin, replace(HALF, grid=Grid.periodic(6, length=2.0)), path, 3)
    assert not path.exists()
    assert not list(origin.parent.parent.rglob("*.tmp"))


def test_only_test_sets_are_made_from_one_another(origin: Path) -> None:
    train = _beside(origin, "train")
    for source, split in ((train, "test_half"), (origin, "train"), (train, "valid")):
        with pytest.raises(ValueError, match=f"{split} can't be made from {source.parent.name}"):
            ensure_regridded(source, HALF, _beside(origin, split), 2)
    half = _beside(origin, "test_half")
    ensure_regridded(origin, HALF, half, 2)
    ensure_regridded(half, DOUBLE, _beside(origin, "test_there_and_back"), 2)
    with DatasetFile(_beside(origin, "test_there_and_back")) as file:
        assert file.certificate["regridded_from"] == "test_half, 6x6"


def test_a_file_on_another_grid_is_named_and_kept(origin: Path) -> None:
    path = _beside(origin, "test_other")
    ensure_regridded(origin, HALF, path, 2)
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"test_other/ns2d\.hdf5 holds the samples on a grid of 6x6 points, not 24x24"):
        ensure_regridded(origin, DOUBLE, path, 2)
    assert path.read_bytes() == before
    path.unlink()
    ensure_regridded(origin, DOUBLE, path, 2)


def test_a_file_of_another_dataset_is_named(origin: Path) -> None:
    path = _beside(origin, "test_half")
    path.parent.mkdir()
    path.write_bytes(origin.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 1
    with pytest.raises(StoreError, match="format version 1"):
        ensure_regridded(origin, HALF, path, 2)


@pytest.mark.parametrize(
    ("grid", "refine", "shape"),
    [
        *((periodic(64, 32), 0.5, (32, 16)), (periodic(64), 2, (128,)), (periodic(64), 1.5, (96,))),
        *((closed(85), 0.5, (43,)), (closed(421), 1 / 3, (141,)), (periodic(48), 1, (48,))),
    ],
)
def test_refine_counts_points_per_length(grid: Grid, refine: float, shape: tuple[int, ...]) -> None:
    found = refined(grid, refine)
    assert found == replace(grid, shape=shape)
    assert np.allclose(np.array(grid.spacing) / np.array(found.spacing), refine)


@pytest.mark.parametrize(("refine", "shown"), [(0.4, "0.4"), (1 / 64, "0.015625"), (0, "0")])
def test_a_refine_without_whole_points_is_explained(refine: float, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^refine={shown} of a test split: "):
        refined(periodic(64), refine)
