"""Plans: every part of a run is put together before anything is made, and what it takes is estimated honestly."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_gen.store import StoreError
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.identity import run_directory
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records.record import RunRecord
from neuralop_bench.records.run_directory import RunError
from neuralop_bench.runs import plan
from neuralop_bench.surrogate.rollout import rollout
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training.losses import relative_l2

Smoke = Callable[..., RunConfig]


def fresh(tmp_path: Path, *overrides: str) -> RunConfig:
    return compose("track=smoke", f"paths.data={tmp_path / 'data'}", f"paths.outputs={tmp_path / 'out'}", *overrides)


def test_the_activations_are_those_of_a_real_step(finished_run: RunConfig) -> None:
    surrogate = Surrogate.load(run_directory(finished_run))
    own = {p.data_ptr() for p in surrogate.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    history, target = torch.randn(10, 10, 1, 32, 32), torch.randn(10, 1, 1, 32, 32)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = relative_l2(rollout(surrogate, history, torch.zeros(10, 0, 32, 32), 1), target)
    assert loss.requires_grad
    planned = plan.make(finished_run).activation_bytes
    # Not to the byte: on the device meta a freed block can't be told from a new one that takes its place.
    assert planned == pytest.approx(sum(kept.values()), rel=0.1)


def test_parameters_and_data_are_those_of_the_run(finished_run: RunConfig, smoke: Smoke, tmp_path: Path) -> None:
    record = RunRecord.load(run_directory(finished_run) / "record.json")
    made = plan.make(finished_run)
    assert made.n_parameters == record.cost["n_parameters"]
    assert made.n_missing == 0
    for split, entry in made.splits.items():
        path = Path(finished_run.paths.data) / record.data[split]["file"]
        assert 0.9 < entry.n_bytes / path.stat().st_size <= 1.0  # the file also holds its header
    absent = plan.make(smoke("trainer.epochs=1", f"paths.data={tmp_path / 'elsewhere'}"))
    assert absent.n_missing == 32
    assert plan.make(smoke("splits.train=40")).splits["train"].n_missing == 24


def test_a_damaged_dataset_is_known_before_the_run(finished_run: RunConfig, smoke: Smoke, tmp_path: Path) -> None:
    elsewhere, dataset = tmp_path / "copied", plan.make(finished_run).data_folder
    shutil.copytree(dataset, elsewhere / dataset.name)
    for path in elsewhere.rglob("test/*.hdf5"):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match=r"If run\.py generated it"):
        plan.make(smoke("seed=1", f"paths.data={elsewhere}"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("optimizer.lr=-1", "optimizer: Invalid learning rate"),
        ("optimizer.betas=[2,0.9]", "optimizer: Invalid beta"),
        ("scheduler.warmup=2", "scheduler"),
        ("scheduler.start_factor=0", "scheduler"),
        ("model.n_modes=17", "n_modes must be at most 16"),
        ("dataset.problem.viscosity=0", "viscosity must be positive"),
        ("dataset.horizon=15", "need 25 frames"),
        ("augmentation._target_=neuralop_bench.training.losses.relative_l2", "augmentation"),
    ],
)
def test_parts_that_cannot_work_fail_in_the_plan(tmp_path: Path, override: str, expected: str) -> None:
    prefix = "+" if "betas" in override else ""
    with pytest.raises(Exception) as raised:  # noqa: PT011  (the constructors' own)
        plan.make(fresh(tmp_path, prefix + override))
    assert expected in describe(raised.value)
    assert "debug=true" not in describe(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "override",
    [
        "model.width=20000",
        *(
            pytest.param(f"{key}=100000000", marks=pytest.mark.exhaustive)
            for key in ("trainer.batch_size", "splits.train")
        ),
    ],
)
def test_what_this_machine_cannot_hold_is_refused_without_trying(tmp_path: Path, override: str) -> None:
    tracemalloc.start()
    try:
        big = (override, "splits.train=100000000") if "batch" in override else (override,)
        with pytest.raises(RunError, match=r"Training needs about .* of memory|Generating the data needs about"):
            plan.make(fresh(tmp_path, *big))
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_longer_than_the_unrolled_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Set trainer\.unroll=5"):
        fresh(tmp_path, "surrogate.bundle=5")
    assert fresh(tmp_path, "surrogate.bundle=5", "trainer.unroll=5").trainer.unroll == 5


def test_what_follows_the_record_is_told(smoke: Smoke) -> None:
    assert "afterwards" not in plan.describe(plan.make(smoke()))
    text = plan.describe(plan.make(smoke("evaluator=thorough")))
    assert "evaluation     afterwards test_half, test_double, test_long" in text
    assert "and the solver on 7 grids" in text
