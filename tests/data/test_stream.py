"""Generating while training: which samples come when, whatever the number of workers, and after a resume."""

from __future__ import annotations

import functools
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.jobs import Breaking, die, die_in_the_middle_of_the_result, fail, fail_with_a_lock, sleep_beyond

from data_gen.generation import cache, shards
from data_gen.generation.pool import GenerationError, Job, JobsAhead
from data_gen.generation.streaming import SampleStream
from data_gen.problems.burgers1d import Burgers1D
from data_gen.problems.darcy2d import Darcy2D
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import Problem
from data_gen.store import DatasetFile
from neuralop_bench import pipeline
from neuralop_bench.batch import Batch
from neuralop_bench.config import schema
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import identity
from neuralop_bench.config.messages import describe
from neuralop_bench.config.rules import require_one_process, validate
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.data.stream import StreamedWindows, n_come
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.models.fno import FNO
from neuralop_bench.runs import plan
from neuralop_bench.runtime.processes import ALONE
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training import augmentation, losses, schedules
from neuralop_bench.training.state import Progress
from neuralop_bench.training.tracking import NoTracker
from neuralop_bench.training.trainer import Diverged, Recipe, Trainer

PROBLEM = NavierStokes2D(viscosity=1e-2, resolution=16, oversampling=1.0, n_snapshots=5)
N_TRAIN, N_FRESH, EPOCHS, BATCH_SIZE = 6, 20, 5, 4

Smoke = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trajectories]:
    """train and valid of a training, and in ``longer`` the train split with every fresh sample behind it."""
    root = tmp_path_factory.mktemp("data")
    paths = cache.ensure(PROBLEM, {"train": N_TRAIN + N_FRESH, "valid": 3}, 0, root, workers=1)
    sizes = {"train": ("train", N_TRAIN), "valid": ("valid", 3), "longer": ("train", N_TRAIN + N_FRESH)}
    return {name: Trajectories(paths[split], n_samples=n, history=2, horizon=3) for name, (split, n) in sizes.items()}


def streamed(train: Trajectories, n_steps: int = 1, *, n_fresh: int = N_FRESH, workers: int = 0) -> StreamedWindows:
    budget = {"epochs": EPOCHS, "batch_size": BATCH_SIZE}
    return StreamedWindows(train, n_steps, problem=PROBLEM, seed=0, n_fresh=n_fresh, workers=workers, **budget)


def assert_same(one: Batch, two: Batch) -> None:
    for a, b in zip(one, two, strict=True):
        assert torch.equal(a, b)


# The stream ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problem",
    [PROBLEM, Burgers1D(viscosity=1e-2, resolution=64), Darcy2D(resolution=17, solver_resolution=33)],
    ids=["evolving", "one_dimension", "steady_with_static_fields"],
)
def test_fresh_samples_are_the_bytes_that_a_longer_file_holds(problem: Problem, tmp_path: Path) -> None:
    path = cache.ensure(problem, {"train": 40}, 3, tmp_path, workers=1)["train"]
    with DatasetFile(path) as file:
        states, static = file.read_states(slice(0, 40)), file.read_static(slice(0, 40))
    stream = SampleStream(problem, 3, "train", start=10, stop=40, workers=0)
    for index, sample in zip(range(10, 40), stream, strict=True):
        assert sample.states.dtype == sample.static.dtype == np.float32
        np.testing.assert_array_equal(sample.states, states[index])
        np.testing.assert_array_equal(sample.static, static[index])
    assert stream.seconds > 0


def test_workers_give_the_samples_in_order_and_are_gone_after_the_last() -> None:
    expected = list(SampleStream(PROBLEM, 0, "train", start=5, stop=70, workers=0))
    with closing(SampleStream(PROBLEM, 0, "train", start=5, stop=70, workers=2)) as stream:
        for one, two in zip(expected, stream, strict=True):
            np.testing.assert_array_equal(one.states, two.states)
        assert not multiprocessing.active_children()
    assert next(stream, None) is None


def test_workers_go_no_further_ahead_than_they_may_and_end_in_the_middle_of_a_job(tmp_path: Path) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[Job]:
        for number in range(100):
            taken.append(number)
            yield sleep_beyond, (2, number, str(tmp_path / "sleeping"))

    ahead = JobsAhead(jobs(), workers=1, ahead=3, remedy="")
    assert [next(ahead), next(ahead)] == [0, 1]
    assert taken == [0, 1, 2, 3, 4]
    while not (tmp_path / "sleeping").exists():
        time.sleep(0.01)
    ahead.close()
    assert not multiprocessing.active_children()
    assert next(ahead, None) is None
    ahead.close()  # twice does no harm


@pytest.mark.parametrize(
    ("workers", "error", "kind", "text"),
    [
        (0, MemoryError(), GenerationError, r"memory to generate the data\. Turn a knob"),
        (1, RuntimeError("can't allocate memory"), GenerationError, r"memory to generate the data\. Turn a knob"),
        (0, ArithmeticError("the step became 0"), ArithmeticError, "the step became 0"),
    ],
)
def test_an_error_of_a_job_arrives_and_ends_the_workers(
    workers: int, error: Exception, kind: type[Exception], text: str
) -> None:
    ahead = JobsAhead([(fail, (error,))] * 3, workers=workers, ahead=2, remedy="Turn a knob.")
    with pytest.raises(kind, match=text):
        next(ahead)
    assert not multiprocessing.active_children()


def test_an_error_that_cannot_be_sent_arrives_in_words() -> None:
    with (
        JobsAhead([(fail_with_a_lock, ())], workers=1, ahead=1, remedy="Turn a knob.") as ahead,
        pytest.raises(RuntimeError, match=r"ArithmeticError.*the step became 0"),
    ):
        next(ahead)


@pytest.mark.parametrize("job", [die, die_in_the_middle_of_the_result])
def test_a_worker_that_dies_is_explained(job: Callable[[], object]) -> None:
    ahead = JobsAhead([(job, ())] * 3, workers=1, ahead=2, remedy="Turn a knob.")
    with pytest.raises(GenerationError, match=r"worker process died.*Turn a knob"):
        next(ahead)
    assert not multiprocessing.active_children()


# The reservoir -------------------------------------------------------------------------------------------------------


def test_fresh_samples_come_evenly() -> None:
    come = [n_come(update, n_fresh=7, n_updates=50) for update in range(50)]
    gaps = np.diff(np.flatnonzero(np.diff(come)))
    assert (come[0], come[-1]) == (0, 7)
    assert max(gaps) - min(gaps) <= 1
    assert [n_come(update, n_fresh=9, n_updates=4) for update in range(4)] == [0, 3, 6, 9], "several at once"


def _held(n: int) -> list[int]:
    """Numbers, in the longer file, of the samples in each place when ``n`` fresh ones have come."""
    held = list(range(N_TRAIN))
    for j in range(n):
        held[held.index(min(held))] = N_TRAIN + j  # in place of the oldest
    return held


def test_what_the_reservoir_holds_is_a_function_of_the_update(splits: dict[str, Trajectories]) -> None:
    train, longer = splits["train"], splits["longer"].windows(3)
    windows = streamed(train, 3)
    n_batches = -(-len(windows) // BATCH_SIZE)
    before = train.whole()[range(N_TRAIN)]
    for epoch in range(EPOCHS):
        for batch, _ in enumerate(windows.shuffled(BATCH_SIZE, 0, epoch)):
            held = _held(n_come(epoch * n_batches + batch, N_FRESH, EPOCHS * n_batches))
            assert_same(windows[range(N_TRAIN)], longer[held])
    assert held == _held(N_FRESH)
    assert_same(before, train.whole()[range(N_TRAIN)])  # the split is as it was
    windows.close()


@pytest.mark.parametrize("n_fresh", [3, N_FRESH], ids=["some_stay", "all_replaced"])
def test_a_stream_that_starts_in_the_middle_gives_the_same_batches(
    splits: dict[str, Trajectories], n_fresh: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = streamed(splits["train"], n_fresh=n_fresh)
    batches = [list(whole.shuffled(BATCH_SIZE, 0, epoch)) for epoch in range(EPOCHS)]
    solved: list[int] = []
    original = shards.solve
    monkeypatch.setattr(shards, "solve", lambda *a: solved.append(a[3]) or original(*a))
    late = streamed(splits["train"], n_fresh=n_fresh)
    for one, two in zip(batches[-1][2:], late.shuffled(BATCH_SIZE, 0, EPOCHS - 1, skip=2), strict=True):
        assert_same(one, two)
    assert solved == ([0] if n_fresh == 3 else [1]), "shards of samples that are gone again aren't solved"
    # A look back is a look at the same.
    for one, two in zip(batches[0], whole.shuffled(BATCH_SIZE, 0, 0), strict=True):
        assert_same(one, two)


def test_the_order_of_examples_and_their_number_are_those_of_the_fixed_split(splits: dict[str, Trajectories]) -> None:
    fixed, windows = splits["train"].windows(1), streamed(splits["train"], n_fresh=1)
    assert len(windows) == len(fixed)
    # The only fresh sample comes before the last update.
    for epoch in range(EPOCHS - 1):
        batches = windows.shuffled(BATCH_SIZE, 0, epoch)
        for one, two in zip(fixed.shuffled(BATCH_SIZE, 0, epoch), batches, strict=True):
            assert_same(one, two)


def test_processes_that_load_data_are_refused(splits: dict[str, Trajectories]) -> None:
    with pytest.raises(ValueError, match="a single training process"):
        next(streamed(splits["train"]).shuffled(BATCH_SIZE, seed=0, workers=1))


# Training ------------------------------------------------------------------------------------------------------------


def _fit(
    splits: dict[str, Trajectories],
    folder: Path,
    *,
    workers: int = 0,
    n_fresh: int | None = N_FRESH,
    loss: losses.Loss = losses.relative_l2,
    lr: float = 1e-2,
) -> tuple[Surrogate, Progress]:
    torch.manual_seed(0)
    train = splits["train"]
    operator = FNO(in_channels=2, out_channels=1, grid=PROBLEM.spec.grid, n_modes=4, width=6, n_layers=2)
    surrogate = Surrogate(operator, Normalizer.fit(train.whole().in_order(4), bundle=1), residual=True)
    torch.manual_seed(1)  # of the augmentation: a new process has another random state than a resumed one gets
    trainer = Trainer(epochs=EPOCHS, batch_size=BATCH_SIZE, unroll=1, clip_norm=1.0, seed=0, checkpoint_seconds=1e-9)
    examples = streamed(train, n_fresh=n_fresh, workers=workers) if n_fresh else train.windows(1)
    try:
        progress = trainer.fit(
            surrogate,
            examples,
            splits["valid"].whole(),
            Recipe(
                functools.partial(torch.optim.AdamW, lr=lr),
                schedules.one_cycle,
                loss,
                augmentation.Symmetries(PROBLEM.spec),
            ),
            tracker=NoTracker(),
            folder=folder,
            config="",
            processes=ALONE,
        )
    finally:
        if isinstance(examples, StreamedWindows):
            examples.close()
    return surrogate, progress


def _curve(progress: Progress) -> list[dict[str, float]]:
    return [{**row, "seconds": 0} for row in progress.curve]


def _assert_equal(one: tuple[Surrogate, Progress], two: tuple[Surrogate, Progress]) -> None:
    for (name, a), b in zip(one[0].state_dict().items(), two[0].state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert _curve(one[1]) == _curve(two[1])


class _Killed(Exception):
    """Stands for a signal that ends the process."""


def _dying_after(n_calls: int) -> losses.Loss:
    calls = iter(range(1, 10**6))

    def loss(prediction: torch.Tensor, target: torch.Tensor, scale: losses.Scale) -> torch.Tensor:
        if next(calls) > n_calls:
            raise _Killed
        return losses.relative_l2(prediction, target, scale)

    return loss


@pytest.fixture(scope="module")
def uninterrupted(
    splits: dict[str, Trajectories], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Surrogate, Progress]:
    return _fit(splits, tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.exhaustive
def test_training_doesnt_depend_on_the_number_of_workers(
    splits: dict[str, Trajectories], tmp_path: Path, uninterrupted: tuple[Surrogate, Progress]
) -> None:
    _assert_equal(uninterrupted, _fit(splits, tmp_path, workers=2))
    assert not multiprocessing.active_children()


# 18 windows in batches of 4 are 5 steps an epoch: killed in the first epoch, at an end, in the middle, in the last.
@pytest.mark.parametrize("n_steps", [2, 5, 13, 24])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    splits: dict[str, Trajectories], tmp_path: Path, uninterrupted: tuple[Surrogate, Progress], n_steps: int
) -> None:
    with pytest.raises(_Killed):
        _fit(splits, tmp_path, loss=_dying_after(n_steps))
    resumed = _fit(splits, tmp_path)
    _assert_equal(uninterrupted, resumed)
    assert resumed[1].spent["stream_seconds"] > 0


def test_training_sees_other_examples_than_the_fixed_split_has(
    splits: dict[str, Trajectories], tmp_path: Path, uninterrupted: tuple[Surrogate, Progress]
) -> None:
    fixed, progress = _fit(splits, tmp_path, n_fresh=None)
    assert _curve(progress) != _curve(uninterrupted[1])
    assert progress.spent == {}
    for name, value in fixed.normalizer.state_dict().items():
        assert torch.equal(value, uninterrupted[0].normalizer.state_dict()[name]), "fitted on the fixed split"


@pytest.mark.parametrize(("loss", "error"), [(_dying_after(3), _Killed), (lambda *_: torch.tensor(torch.nan), None)])
def test_no_process_is_left_when_training_fails(
    splits: dict[str, Trajectories], tmp_path: Path, loss: losses.Loss, error: type[Exception] | None
) -> None:
    def failing(prediction: torch.Tensor, target: torch.Tensor, scale: losses.Scale) -> torch.Tensor:
        return loss(prediction, target, scale) * (prediction * 0).sum()

    with pytest.raises(error or Diverged):
        _fit(splits, tmp_path, loss=failing, workers=1)
    assert not multiprocessing.active_children()


# Configuration -------------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive
def test_a_fixed_run_keeps_its_name_and_a_streamed_one_gets_its_own() -> None:
    fixed, stream = identity(compose()), identity(compose("data=stream"))
    assert (fixed.track, fixed.variant) == ("lite", "default-f3e46648")
    assert identity(compose("data=fixed", "data.workers=3")) == fixed
    assert (stream.track, stream.label) == ("custom", "n_fresh=800"), "more samples than the track gives to others"
    assert identity(compose("data=stream", "data.n_fresh=800", "data.workers=0")) == stream
    assert identity(compose("data=stream", "data.n_fresh=801")).config_hash != stream.config_hash


def test_by_default_a_sample_stays_for_an_epoch_at_least() -> None:
    assert schema.n_fresh(compose("data=stream")) == 4 * 200
    assert schema.n_fresh(compose("data=stream", "track=smoke", "trainer.epochs=2", "splits.train=16")) == 32


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("data.n_fresh=10",), r"data\.n_fresh=10 only has an effect with data=stream"),
        (("data=stream", "data.n_fresh=0"), r"data\.n_fresh must be at least 1"),
        (("data=stream", "data.n_fresh=-3"), r"data\.n_fresh must be at least 1"),
        (("data=stream", "trainer.epochs=2", "splits.train=16", "data.n_fresh=33"), "Lower data.n_fresh to at most 32"),
        (("data=stream", "data.workers=-1"), r"data\.workers must be at least 0"),
        (("data=stream", "trainer.workers=1"), r"Use trainer\.workers=0"),
        (("data=stream", "generation.device=cuda"), r"Use generation\.device=cpu"),
    ],
)
def test_what_cant_be_streamed_is_refused(overrides: Sequence[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        compose("track=smoke", *overrides)


def test_an_option_that_isnt_there_is_explained() -> None:
    with pytest.raises(Exception, match="strem") as raised:
        compose("data=strem")
    assert "Did you mean stream" in describe(raised.value)


def test_imported_data_cant_be_streamed() -> None:
    cfg = compose("data=stream")
    cfg.dataset.path, cfg.dataset.name = "folder", "imported"
    cfg.dataset.problem, cfg.dataset.test_splits, cfg.dataset.ladder, cfg.dataset.tolerance = {}, {}, [], None
    with pytest.raises(ConfigError, match=r"which have no solver\. Use data=fixed"):
        validate(cfg)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (("model=persistence",), "model=persistence has no parameters to train"),
        (("model=pca_ridge",), "has no parameters to train"),
        (("preload_gib=0",), "Raise preload_gib"),
        (("trainer.epochs=1", "trainer.batch_size=1000"), "the training has only one update"),
    ],
)
def test_a_run_that_a_stream_doesnt_suit_is_refused(smoke: Smoke, overrides: Sequence[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan.make(smoke("data=stream", *overrides))


def test_several_processes_are_refused() -> None:
    require_one_process(compose(), 2)
    require_one_process(compose("data=stream"), 1)
    with pytest.raises(ConfigError, match="but 2 were started"):
        require_one_process(compose("data=stream"), 2)


# Whole runs ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_figures")
def test_a_streamed_run_says_what_it_drew_and_what_that_cost(smoke: Smoke) -> None:
    overrides = ("dataset=burgers1d", "data=stream")
    cfg = smoke(*overrides)
    fixed = pipeline.run(smoke("dataset=burgers1d"))
    text = plan.describe(plan.make(cfg))
    assert "32 fresh samples, each in memory for 0.5 of the training" in text
    record = pipeline.run(cfg)
    assert not multiprocessing.active_children()
    assert (record.track, record.data["train"]["n_fresh"]) == ("custom", 32)
    assert {key: value for key, value in record.data["train"].items() if key != "n_fresh"} == fixed.data["train"]
    assert record.data["test"] == fixed.data["test"]
    spent = {name: record.cost[name] for name in ("generation_seconds", "stream_seconds", "stream_wait_seconds")}
    assert None not in spent.values()
    assert spent["generation_seconds"] == pytest.approx(fixed.cost["generation_seconds"] + spent["stream_seconds"])
    assert record.metrics["rel_l2"] != fixed.metrics["rel_l2"]
    assert "stream_seconds" not in fixed.cost
    again = pipeline.run(smoke(*overrides, "data.workers=0", "force=true"))
    assert again.metrics == record.metrics
    assert again.run_id == record.run_id


@pytest.mark.exhaustive
def test_an_error_of_the_solver_ends_the_training(splits: dict[str, Trajectories]) -> None:
    problem = Breaking(viscosity=1e-2, resolution=16, oversampling=1.0, n_snapshots=5)
    budget = {"epochs": EPOCHS, "batch_size": BATCH_SIZE, "n_fresh": N_FRESH}
    windows = StreamedWindows(splits["train"], 1, problem=problem, seed=0, workers=1, **budget)
    with pytest.raises(ArithmeticError, match="the solver broke down"):
        list(windows.shuffled(BATCH_SIZE, seed=0))
    assert not multiprocessing.active_children()


# Trains for ever beside two workers; each of them holds a lock for as long as it lives.
_ENDLESS = """
import os, sys, time
from dataclasses import dataclass
from pathlib import Path
from filelock import FileLock
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.generation.streaming import SampleStream

root = Path(sys.argv[1])

@dataclass(frozen=True)
class Endless(NavierStokes2D):
    def simulate(self, rngs):
        lock = FileLock(root / f"{os.getpid()}.lock")
        lock.acquire()
        (root / f"{os.getpid()}.held").touch()
        time.sleep(600)

if __name__ == "__main__":
    stream = SampleStream(Endless(viscosity=1e-3), 0, "train", start=0, stop=64, workers=2)
    time.sleep(600)
"""


@pytest.mark.exhaustive
def test_workers_end_with_a_training_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text(_ENDLESS)
    deadline = time.monotonic() + 120
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=subprocess.PIPE, text=True) as process:
        while len(list(tmp_path.glob("*.held"))) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    workers = [int(path.stem) for path in tmp_path.glob("*.held")]
    assert len(workers) == 2
    while any(Path(f"/proc/{pid}/stat").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [pid for pid in workers if Path(f"/proc/{pid}/stat").exists()]
