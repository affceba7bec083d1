"""Trajectories and Windows: which frames, in which order, from memory or from disk."""

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler

from data_gen.grids import Grid
from data_gen.layout import SHARD_SIZE
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import DatasetSpec, FieldSpec, Samples
from data_gen.store import DatasetFile, StoreError, to_fields, write
from neuralop_bench.batch import Batch
from neuralop_bench.data.trajectories import Trajectories, Windows

N_SAMPLES = 20  # more than a shard
N_FRAMES = 7


@pytest.fixture(scope="module")
def ns2d(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solved Navier-Stokes trajectories."""
    problem = NavierStokes2D(
        viscosity=1e-2, resolution=16, oversampling=1.0, interval=0.25, n_snapshots=N_FRAMES, inner_batch=N_SAMPLES
    )
    samples = problem.simulate([np.random.default_rng(i) for i in range(N_SAMPLES)])
    return save(tmp_path_factory.mktemp("ns2d") / "ns2d.hdf5", problem.spec, samples)


COUPLED = DatasetSpec(
    name="coupled",
    version=1,
    equation="none",
    grid=Grid((5, 6), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed")),
    times=tuple(0.5 * t for t in range(N_FRAMES)),
    state=(FieldSpec("pressure", "p"), FieldSpec("velocity", "v")),
    static=(FieldSpec("permeability", "a"),),
)
STEADY = replace(COUPLED, name="steady", times=(), state=(FieldSpec("pressure", "p"),))


@pytest.fixture(scope="module")
def coupled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two state fields and a static one, made of random numbers."""
    return save(tmp_path_factory.mktemp("coupled") / "coupled.hdf5", COUPLED, noise(COUPLED))


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One state field that doesn't move, with its coefficient."""
    return save(tmp_path_factory.mktemp("steady") / "steady.hdf5", STEADY, noise(STEADY))


def noise(spec: DatasetSpec) -> Samples:
    rng = np.random.default_rng(0)
    space = spec.grid.shape
    trajectory = rng.standard_normal((N_SAMPLES, spec.n_snapshots, len(spec.state), *space))
    static = rng.standard_normal((N_SAMPLES, len(spec.static), *space))
    return Samples(trajectory[:, :1], static, trajectory, {e.name: np.zeros(N_SAMPLES) for e in spec.diagnostics})


def save(path: Path, spec: DatasetSpec, samples: Samples) -> Path:
    fields = to_fields(spec, samples)
    starts = range(0, N_SAMPLES, SHARD_SIZE)
    shards = [{name: values[i : i + SHARD_SIZE] for name, values in fields.items()} for i in starts]
    write(path, spec, shards, N_SAMPLES, split="train", seed=0, provenance={})
    return path


def assert_same(left: Batch, right: Batch) -> None:
    for name, a, b in zip(Batch._fields, left, right, strict=True):
        assert torch.equal(a, b), name


def assert_same_sequence(left: list[Batch], right: list[Batch]) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert_same(a, b)


def open_both(path: Path, **arguments: int) -> tuple[Trajectories, Trajectories]:
    """The same data held in memory and read from disk."""
    preloaded, lazy = (Trajectories(path, preload_bytes=bound, **arguments) for bound in (2**31, 0))
    assert preloaded.is_preloaded
    assert not lazy.is_preloaded
    return preloaded, lazy


@pytest.mark.parametrize(("history", "n_steps"), [(2, 1), (2, 3), (1, 6), (0, 2), (4, 3)])
def test_windows_are_all_stretches_of_all_samples(coupled: Path, history: int, n_steps: int) -> None:
    with h5py.File(coupled) as file:
        states = np.stack([file["pressure"][:], file["velocity"][:]], axis=2)
        static = file["permeability"][:][:, None]
    for source in open_both(coupled, n_samples=18, history=history, horizon=1):
        windows = source.windows(n_steps)
        n_starts = N_FRAMES - history - n_steps + 1
        assert len(windows) == 18 * n_starts
        batch = windows[list(range(len(windows)))]
        assert batch.history.dtype == batch.target.dtype == batch.static.dtype == torch.float32
        expected = [(sample, start) for sample in range(18) for start in range(n_starts)]
        for i, (sample, start) in enumerate(expected):
            middle = start + history
            assert np.array_equal(batch.history[i], states[sample, start:middle])
            assert np.array_equal(batch.target[i], states[sample, middle : middle + n_steps])
            assert np.array_equal(batch.static[i], static[sample])


def test_whole_trajectories_start_at_the_first_frame_and_end_with_the_horizon(coupled: Path) -> None:
    with h5py.File(coupled) as file:
        pressure = file["pressure"][:]
    for source in open_both(coupled, n_samples=3, history=2, horizon=4):
        whole = source.whole()
        assert (len(whole), whole.n_steps) == (3, 4)
        batch = whole[[0, 1, 2]]
        assert batch.history.shape == (3, 2, 2, 5, 6)
        assert batch.target.shape == (3, 4, 2, 5, 6)
        assert np.array_equal(batch.history[:, :, 0], pressure[:3, :2])
        assert np.array_equal(batch.target[:, :, 0], pressure[:3, 2:6])


def test_a_steady_problem_is_a_trajectory_of_one_step_without_history(steady: Path) -> None:
    with h5py.File(steady) as file:
        pressure, permeability = file["pressure"][:], file["permeability"][:]
    for source in open_both(steady, n_samples=N_SAMPLES, history=0, horizon=1):
        for windows in (source.windows(1), source.whole()):
            batch = windows[[5, 3]]
            assert batch.history.shape == (2, 0, 1, 5, 6)
            assert np.array_equal(batch.target[:, 0, 0], pressure[[5, 3]])
            assert np.array_equal(batch.static[:, 0], permeability[[5, 3]])


def test_reading_from_disk_and_from_memory_give_the_same_batches(ns2d: Path) -> None:
    preloaded, lazy = open_both(ns2d, n_samples=N_SAMPLES, history=3, horizon=4)
    for left, right in [(preloaded.windows(2), lazy.windows(2)), (preloaded.whole(), lazy.whole())]:
        assert_same_sequence(list(left.in_order(7)), list(right.in_order(7)))
        assert_same_sequence(list(left.shuffled(7, 5)), list(right.shuffled(7, 5)))


def test_samples_are_preloaded_up_to_their_size_in_memory(coupled: Path) -> None:
    n_bytes = 4 * 5 * 6 * (N_FRAMES * 2 + 1) * 4  # float32, points, fields, samples
    arguments = {"n_samples": 4, "history": 1, "horizon": 1}
    assert Trajectories(coupled, preload_bytes=n_bytes, **arguments).is_preloaded
    assert not Trajectories(coupled, preload_bytes=n_bytes - 1, **arguments).is_preloaded


def test_in_order_gives_every_example_once_and_keeps_the_short_last_batch(coupled: Path) -> None:
    whole = Trajectories(coupled, n_samples=N_SAMPLES, history=1, horizon=2).whole()
    batches = list(whole.in_order(8))
    assert [len(batch.target) for batch in batches] == [8, 8, 4]
    everything = Batch(*(torch.cat(parts) for parts in zip(*batches, strict=True)))
    assert_same(everything, whole[list(range(N_SAMPLES))])


def order_of(windows: Windows, batches: list[Batch]) -> list[int]:
    """The numbers of the examples in some batches, recognised by their content."""
    known = {x.numpy().tobytes(): i for i, x in enumerate(windows[list(range(len(windows)))].target)}
    assert len(known) == len(windows)
    return [known[x.numpy().tobytes()] for batch in batches for x in batch.target]


def test_shuffled_is_a_permutation_that_the_seed_decides(coupled: Path) -> None:
    windows = Trajectories(coupled, n_samples=N_SAMPLES, history=1, horizon=1).windows(2)
    orders = {seed: order_of(windows, list(windows.shuffled(9, seed))) for seed in (0, 1)}
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(len(windows)))
    assert orders[0] != orders[1]
    assert orders[0] != sorted(orders[0])
    torch.manual_seed(99)  # the global stream has no say
    assert order_of(windows, list(windows.shuffled(9, 0))) == orders[0]
    # Nor does the batch size: another size cuts the same order elsewhere.
    assert order_of(windows, list(windows.shuffled(4, 0))) == orders[0]


def test_loading_leaves_the_global_random_stream_alone(coupled: Path) -> None:
    # Else a resumed training, which loads fewer batches, would draw other numbers.
    windows = Trajectories(coupled, n_samples=N_SAMPLES, history=1, horizon=1).windows(2)
    before = torch.get_rng_state()
    list(windows.shuffled(9, 0))
    list(windows.in_order(9))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("skip", [0, 1, 3, 100])
def test_skipping_leaves_out_the_first_batches_and_changes_no_other(coupled: Path, skip: int) -> None:
    windows = Trajectories(coupled, n_samples=N_SAMPLES, history=1, horizon=1).windows(2)
    assert_same_sequence(list(windows.shuffled(9, 3, skip=skip)), list(windows.shuffled(9, 3))[skip:])


def test_workers_read_lazily_through_handles_of_their_own(ns2d: Path) -> None:
    source = Trajectories(ns2d, n_samples=N_SAMPLES, history=3, horizon=4, preload_bytes=0)
    windows = source.windows(1)
    expected = list(windows.shuffled(16, 0))  # opens a handle in this process, which the workers must not use
    assert_same_sequence(list(windows.shuffled(16, 0, workers=2)), expected)
    assert_same(windows[[0]], Trajectories(ns2d, n_samples=1, history=3, horizon=4).windows(1)[[0]])


@pytest.mark.parametrize("skip", [0, 2])
def test_batches_dont_depend_on_the_number_of_workers(coupled: Path, skip: int) -> None:
    windows = Trajectories(coupled, n_samples=N_SAMPLES, history=1, horizon=1, preload_bytes=0).windows(2)
    expected = list(windows.shuffled(9, 5, skip=skip))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (1, 2):
        assert_same_sequence(list(windows.shuffled(9, 5, skip=skip, workers=workers)), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_order_is_the_one_that_torch_samples(coupled: Path) -> None:
    # Runs that were interrupted with an older version go on in the same order.
    windows = Trajectories(coupled, n_samples=N_SAMPLES, history=1, horizon=1).windows(2)
    sampler = RandomSampler(windows, generator=torch.Generator().manual_seed(7))
    expected = [windows[numbers] for numbers in BatchSampler(sampler, 9, drop_last=False)]
    assert_same_sequence(list(windows.shuffled(9, 0, epoch=7)), expected)


def test_a_forked_process_opens_the_file_for_itself(ns2d: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A handle that two processes share may mix up their reads, which no test of the values would catch reliably.
    windows = Trajectories(ns2d, n_samples=5, history=3, horizon=4, preload_bytes=0).windows(1)
    opened = []
    monkeypatch.setattr(
        "neuralop_bench.data.trajectories.DatasetFile", lambda path: opened.append(path) or DatasetFile(path)
    )
    for pid, n_opened in [(1, 1), (1, 1), (2, 2), (2, 2)]:
        monkeypatch.setattr("neuralop_bench.data.trajectories.os.getpid", lambda pid=pid: pid)
        windows[[0, 4]]
        assert len(opened) == n_opened


def test_a_pickled_copy_opens_the_file_for_itself(ns2d: Path) -> None:
    # What a spawned worker gets; an open HDF5 handle can't be pickled.
    windows = Trajectories(ns2d, n_samples=5, history=3, horizon=4, preload_bytes=0).windows(1)
    first = windows[[0, 4]]
    assert_same(pickle.loads(pickle.dumps(windows))[[0, 4]], first)


def test_hash_is_the_stores_over_the_samples_used(coupled: Path) -> None:
    hashes = [Trajectories(coupled, n_samples=n, history=1, horizon=1).sha256 for n in (3, 17, N_SAMPLES)]
    with DatasetFile(coupled) as file:
        assert hashes == [file.sha256(3), file.sha256(17), file.sha256()]
    assert len(set(hashes)) == 3


def test_spec_is_the_files(ns2d: Path) -> None:
    source = Trajectories(ns2d, n_samples=1, history=1, horizon=1)
    assert source.spec.name == "ns2d"
    assert source.spec.n_snapshots == N_FRAMES
    again = Trajectories(ns2d, n_samples=1, history=1, horizon=1, expected=source.spec)
    assert again.spec == source.spec


def test_a_file_of_another_problem_is_refused(coupled: Path) -> None:
    for change in ({"version": 2}, {"times": COUPLED.times[:-1]}, {"parameters": {"viscosity": 1e-3}}):
        with pytest.raises(StoreError, match="doesn't contain the configured problem"):
            Trajectories(coupled, n_samples=1, history=1, horizon=1, expected=replace(COUPLED, **change))


def test_a_damaged_sample_is_found_when_the_data_are_opened(coupled: Path, tmp_path: Path) -> None:
    copy = tmp_path / "coupled.hdf5"
    copy.write_bytes(coupled.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["velocity"][18, 3, 2, 2] += 1e-6
    for preload_bytes in (2**31, 0):
        # The second shard is damaged; the first can be used.
        Trajectories(copy, n_samples=SHARD_SIZE, history=1, horizon=1, preload_bytes=preload_bytes)
        with pytest.raises(StoreError, match="is damaged: samples 16 to 19"):
            Trajectories(copy, n_samples=17, history=1, horizon=1, preload_bytes=preload_bytes)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"There is no dataset file .*absent\.hdf5"):
        Trajectories(tmp_path / "absent.hdf5", n_samples=1, history=1, horizon=1)


def test_more_samples_than_the_file_holds_are_refused(coupled: Path) -> None:
    with pytest.raises(ValueError, match="holds 20 samples, so 21 can't be read"):
        Trajectories(coupled, n_samples=21, history=1, horizon=1)


def test_trajectories_that_are_too_short_are_refused_with_the_knobs_to_turn(coupled: Path) -> None:
    message = r"A history of 4 and 4 predicted steps need 8 frames, but coupled stores 7\. Lower dataset\.history"
    with pytest.raises(ValueError, match=message):
        Trajectories(coupled, n_samples=1, history=4, horizon=4)
    source = Trajectories(coupled, n_samples=1, history=4, horizon=3)
    assert len(source.windows(3)) == 1
    with pytest.raises(ValueError, match=message):
        source.windows(4)
