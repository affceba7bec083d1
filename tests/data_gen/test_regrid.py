"""Fields on other grids: exact where they can be, refused where not; files of test sets made from one another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen import store
from data_gen.generation import cache
from data_gen.generation.regridded import ensure_regridded, refined
from data_gen.grids import Boundary, Grid, Nodes
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.regrid import interpolate, regrid
from data_gen.spec import DatasetSpec, FieldSpec
from data_gen.store import DatasetFile, StoreError


def _closed(*shape: int) -> Grid:
    n = len(shape)
    return Grid(shape, (1.0,) * n, ("dirichlet",) * n, ("closed",) * n)


def _periodic(*shape: int, length: float = 1.0) -> Grid:
    n = len(shape)
    return Grid(shape, (length,) * n, ("periodic",) * n, ("periodic",) * n)


def _waves(grid: Grid, seed: int, k_max: int) -> np.ndarray:
    """A sum of all waves with |k_i| <= k_max on the grid's nodes, the same function on any grid."""
    rng = np.random.default_rng(seed)
    x = np.meshgrid(*grid.coordinates(), indexing="ij")
    total = np.zeros(grid.shape)
    for k in itertools.product(range(-k_max, k_max + 1), repeat=grid.n_dims):
        phase = sum(2 * math.pi * k_i / length * x_i for k_i, length, x_i in zip(k, grid.lengths, x, strict=True))
        a, b = rng.standard_normal(2)
        total += a * np.cos(phase) + b * np.sin(phase)
    return total


# Periodic axes --------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 20), m=st.integers(2, 20), length=st.sampled_from([1.0, 6.5]), seed=st.integers(0, 99))
def test_waves_that_both_grids_hold_are_exact_in_one_dimension(n: int, m: int, length: float, seed: int) -> None:
    k_max = (min(n, m) - 1) // 2
    source, target = _periodic(n, length=length), _periodic(m, length=length)
    expected = _waves(target, seed, k_max)
    assert np.abs(regrid(_waves(source, seed, k_max), source, target) - expected).max() < 1e-12 * max(n, m)


@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(5, 9), st.integers(5, 9)), other=st.tuples(st.integers(5, 9), st.integers(5, 9)))
def test_waves_that_both_grids_hold_are_exact_in_two_dimensions(shape: tuple[int, int], other: tuple[int, int]) -> None:
    source, target = _periodic(*shape), _periodic(*other)
    assert np.abs(regrid(_waves(source, 1, 2), source, target) - _waves(target, 1, 2)).max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 16), more=st.integers(0, 16), seed=st.integers(0, 99))
def test_there_and_back_again_is_the_cut_off_field(n: int, more: int, seed: int) -> None:
    # Only the Nyquist wave of an even grid is lost, and no second trip loses more.
    coarse, fine = _periodic(n), _periodic(n + more)
    values = np.random.default_rng(seed).standard_normal(n)
    back = regrid(regrid(values, coarse, fine), fine, coarse)
    spectrum = np.fft.rfft(values)
    if more and n % 2 == 0:
        spectrum[-1] = 0
    np.testing.assert_allclose(back, np.fft.irfft(spectrum, n), rtol=0, atol=1e-14)
    again = regrid(regrid(back, coarse, fine), fine, coarse)
    np.testing.assert_allclose(again, back, rtol=0, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(2, 16), m=st.integers(2, 16), seed=st.integers(0, 99))
def test_the_mean_stays_and_a_refinement_keeps_the_energy(n: int, m: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((3, n))
    moved = regrid(values, _periodic(n), _periodic(m))
    np.testing.assert_allclose(moved.mean(axis=-1), values.mean(axis=-1), atol=1e-14)
    energy, before = (moved**2).mean(axis=-1), (values**2).mean(axis=-1)
    assert np.all(energy <= before * (1 + 1e-12))
    if m > n and n % 2:
        np.testing.assert_allclose(energy, before, rtol=1e-12)


@pytest.mark.parametrize("m", [3, 5, 7, 9, 16])
def test_the_nyquist_wave_of_an_even_grid_is_left_out(m: int) -> None:
    # A grid can't tell its phase, so no other grid can have it.
    assert np.abs(regrid(np.array([1.0, -1.0] * 4), _periodic(8), _periodic(m))).max() < 1e-15
    # Of a finer grid the wave that is Nyquist's on the coarser one goes too.
    wave = np.cos(2 * np.pi * 4 * np.arange(16) / 16)
    assert np.abs(regrid(wave, _periodic(16), _periodic(8))).max() < 1e-15


def test_an_equal_grid_changes_nothing() -> None:
    values = np.array([[1.0, -1.0], [3.0, 5.0]] * 4).T  # a Nyquist wave among it
    assert np.array_equal(regrid(values, _periodic(2, 8), _periodic(2, 8)), values)


def test_axes_before_those_of_space_are_carried_along() -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 4, 7, 9)).astype(np.float32)
    source, target = _periodic(7, 9), _periodic(10, 5)
    moved = regrid(values, source, target)
    assert moved.shape == (2, 3, 4, 10, 5)
    assert moved.dtype == np.float64
    for index in itertools.product(range(2), range(3), range(4)):
        np.testing.assert_allclose(moved[index], regrid(values[index], source, target), atol=1e-14)


# Closed axes ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(intervals=st.integers(1, 6), stride=st.integers(1, 5))
def test_nodes_of_a_closed_axis_are_picked_out(intervals: int, stride: int) -> None:
    fine, coarse = _closed(intervals * stride + 1), _closed(intervals + 1)
    function: Callable[[np.ndarray], np.ndarray] = lambda x: np.exp(3 * x)  # noqa: E731
    picked = regrid(function(fine.coordinates()[0]), fine, coarse)
    np.testing.assert_allclose(picked, function(coarse.coordinates()[0]), rtol=1e-13)


def test_values_at_closed_nodes_are_taken_bit_by_bit() -> None:
    values = np.random.default_rng(0).standard_normal((2, 9, 13))
    assert np.array_equal(regrid(values, _closed(9, 13), _closed(3, 5)), values[:, ::4, ::3])


def test_every_axis_is_treated_in_its_own_way() -> None:
    boundary: tuple[Boundary, ...] = ("neumann", "periodic")
    nodes: tuple[Nodes, ...] = ("closed", "periodic")
    source, target = (Grid(shape, (2.0, 3.0), boundary, nodes) for shape in ((9, 6), (5, 11)))
    fields = []
    for grid in (source, target):
        x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
        fields.append(x**3 * (1 + np.cos(2 * np.pi * 2 * y / 3)))
    np.testing.assert_allclose(regrid(fields[0], source, target), fields[1], atol=1e-13)


@pytest.mark.parametrize(("n", "m"), [(9, 4), (5, 9), (9, 6), (9, 8)])
def test_closed_nodes_that_are_not_there_are_refused(n: int, m: int) -> None:
    with pytest.raises(ValueError, match=rf"^{m} nodes aren't among {n} \(closed\): .*Change refine"):
        regrid(np.zeros(n), _closed(n), _closed(m))


def test_cell_centres_are_never_those_of_another_grid() -> None:
    source, target = (Grid((n,), (1.0,), ("neumann",), ("centres",)) for n in (9, 3))
    with pytest.raises(ValueError, match=r"3 nodes aren't among 9 \(centres\)"):
        regrid(np.zeros(9), source, target)
    assert np.array_equal(regrid(np.arange(9.0), source, source), np.arange(9.0))


@pytest.mark.parametrize(
    "target",
    [
        *(_periodic(4, length=2.0), _periodic(4, 4), _closed(4)),
        *(Grid((4,), (1.0,), (b,), ("closed",)) for b in ("neumann", "open")),
    ],
)
def test_another_domain_is_refused(target: Grid) -> None:
    source = _closed(7) if target.boundary == ("neumann",) else _periodic(8)
    with pytest.raises(ValueError, match="their domains or boundaries differ"):
        regrid(np.zeros(source.shape), source, target)


# The grid that is asked for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "refine", "shape"),
    [
        *((_periodic(64, 32), 0.5, (32, 16)), (_periodic(64), 2, (128,)), (_periodic(64), 1.5, (96,))),
        *((_closed(85), 0.5, (43,)), (_closed(421), 1 / 3, (141,)), (_periodic(48), 1, (48,))),
    ],
)
def test_refine_counts_points_per_length(grid: Grid, refine: float, shape: tuple[int, ...]) -> None:
    found = refined(grid, refine)
    assert found == replace(grid, shape=shape)
    assert np.allclose(np.array(grid.spacing) / np.array(found.spacing), refine)


@pytest.mark.parametrize(("refine", "shown"), [(0.4, "0.4"), (1 / 64, "0.015625"), (0, "0")])
def test_a_refine_without_whole_points_is_explained(refine: float, shown: str) -> None:
    with pytest.raises(ValueError, match=rf"^refine={shown} of a test split: "):
        refined(_periodic(64), refine)


# Files ----------------------------------------------------------------------------------------------------------------

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
        grid=_closed(9, 5),
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
    ensure_regridded(origin, replace(spec, grid=_closed(5, 3)), path, 3)
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


# Interpolation --------------------------------------------------------------------------------------------------------


def test_closed_axes_are_interpolated_by_cubic_splines() -> None:
    coarse, fine = _closed(9, 9), _closed(33, 17)

    def field(grid: Grid) -> np.ndarray:
        x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
        return (x**3 - 2 * x * y**2 + y**3)[None]

    np.testing.assert_allclose(interpolate(field(coarse), coarse, fine), field(fine), atol=1e-12)
    np.testing.assert_allclose(interpolate(field(fine), fine, coarse), field(coarse), atol=1e-12)


def test_interpolation_of_a_smooth_field_is_of_fourth_order() -> None:
    fine = _closed(241)

    def error(n: int) -> float:
        coarse = _closed(n)
        (x,), (there,) = coarse.coordinates(), fine.coordinates()
        return float(np.abs(interpolate(np.cos(9 * x), coarse, fine) - np.cos(9 * there)).max())

    assert math.log2(error(16) / error(31)) == pytest.approx(4, abs=0.5)


def test_periodic_axes_are_interpolated_by_their_fourier_series() -> None:
    source, target = _periodic(12, 9), _periodic(7, 16)
    values = _waves(source, seed=3, k_max=4)
    np.testing.assert_array_equal(interpolate(values, source, target), regrid(values, source, target))


def test_other_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="domains or boundaries differ"):
        interpolate(np.zeros(8), _periodic(8), _periodic(16, length=2.0))
