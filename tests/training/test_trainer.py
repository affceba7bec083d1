"""The training loop: bitwise resume, selection on valid, divergence."""

from __future__ import annotations

import copy
import csv
import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_gen import store
from data_gen.problems.ns2d import NavierStokes2D
from neuralop_bench.batch import Batch
from neuralop_bench.data.trajectories import Trajectories, Windows
from neuralop_bench.models.fno import FNO
from neuralop_bench.runtime.processes import ALONE
from neuralop_bench.surrogate.boosted import Boosted
from neuralop_bench.surrogate.coarse_solver import CoarseSolver
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate
from neuralop_bench.training import augmentation, losses, schedules
from neuralop_bench.training.optimizers import soap
from neuralop_bench.training.state import Progress
from neuralop_bench.training.tracking import NoTracker
from neuralop_bench.training.trainer import Diverged, Recipe, Residual, Trainer, validate

PROBLEM = NavierStokes2D(viscosity=1e-2, resolution=16, oversampling=1.0, n_snapshots=5)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trajectories]:
    sources = {}
    for number, (split, n) in enumerate({"train": 6, "valid": 3}.items()):
        samples = PROBLEM.simulate([np.random.default_rng((number, i)) for i in range(n)])
        path = tmp_path_factory.mktemp(split) / "ns2d.hdf5"
        fields = [store.to_fields(PROBLEM.spec, samples)]
        store.write(path, PROBLEM.spec, fields, n, split=split, seed=0, provenance={})
        sources[split] = Trajectories(path, n_samples=n, history=2, horizon=3)
    return sources


class _WithDropout(torch.nn.Module):
    """An operator whose forward pass draws random numbers, so a resume must restore their stream."""

    def __init__(self, operator: torch.nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(self.operator(x), 0.2, self.training)


def _surrogate(train: Trajectories) -> Surrogate:
    torch.manual_seed(0)
    operator = FNO(in_channels=2, out_channels=1, grid=PROBLEM.spec.grid, n_modes=4, width=6, n_layers=2)
    normalizer = Normalizer.fit(train.whole().in_order(4), bundle=1)
    return Surrogate(_WithDropout(operator), normalizer, residual=True)


def _fit(
    splits: dict[str, Trajectories],
    folder: Path,
    *,
    surrogate: Surrogate | None = None,
    lr: float = 1e-2,
    loss: losses.Loss = losses.relative_l2,
    schedule: schedules.Schedule = schedules.one_cycle,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    residual: Residual | None = None,
    solver: CoarseSolver | None = None,
    **arguments: float | None,
) -> tuple[Surrogate, Progress]:
    settings = {"epochs": 3, "batch_size": 4, "unroll": 1, "clip_norm": 1.0, "seed": 0, **arguments}
    trainer = Trainer(**settings)  # pyright: ignore[reportArgumentType]
    surrogate = surrogate or _surrogate(splits["train"])
    progress = trainer.fit(
        surrogate,
        splits["train"].windows(trainer.window_steps),
        splits["valid"].whole(),
        Recipe(
            functools.partial(optimizer, lr=lr),
            schedule,
            loss,
            augmentation.Symmetries(PROBLEM.spec),
            residual,
            solver,
        ),
        tracker=NoTracker(),
        folder=folder,
        config="",
        processes=ALONE,
    )
    return surrogate, progress


def test_the_residual_is_added_to_the_loss_with_their_weights(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    asked = []

    def residual(prediction: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        asked.append((prediction.shape, static.shape))
        return torch.full((len(prediction),), 5.0)

    # With a rate of 0 the weights stay as they are, so both trainings have the same losses.
    arguments: dict[str, Any] = {"lr": 0.0, "epochs": 1, "optimizer": torch.optim.SGD}
    _, plain = _fit(splits, tmp_path / "plain", **arguments)
    _, both = _fit(splits, tmp_path / "both", residual=residual, data_weight=2.0, residual_weight=0.1, **arguments)
    assert both.curve[0]["train_loss"] == pytest.approx(2 * plain.curve[0]["train_loss"] + 0.5, rel=1e-6)
    assert asked[0] == ((4, 1, 1, 16, 16), (4, 0, 16, 16))


class _Still(torch.nn.Module):
    """Predicts no increment."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rate * x[:, -1:]


@pytest.mark.parametrize("diverted", [True, False])
def test_diverted_chains_compare_with_what_the_solver_makes_of_predicted_states(
    splits: dict[str, Trajectories], tmp_path: Path, diverted: bool
) -> None:
    solver = CoarseSolver.correctable(PROBLEM, 1.0, relaxation=1.0)
    differences: list[float] = []

    def loss(prediction: torch.Tensor, target: torch.Tensor, scale: losses.Scale) -> torch.Tensor:
        # The prediction is the state that the step started from.
        solved = solver.predict(Batch.given(prediction.detach()), 1)
        differences.append(float((solved - target).norm() / target.norm()))
        return losses.relative_l2(prediction, target, scale)

    surrogate = Surrogate(_Still(), Normalizer.none(splits["train"].spec, bundle=1), residual=True)
    arguments: dict[str, Any] = {"pushforward": 2, "lr": 0.0, "optimizer": torch.optim.SGD, "diverted": diverted}
    _fit(splits, tmp_path, surrogate=surrogate, solver=solver, loss=loss, **arguments)
    assert (max(differences) < 1e-4) is diverted


class _Killed(Exception):
    """Stands for a signal that ends the process."""


def _dying_after(n_calls: int) -> losses.Loss:
    calls: Iterator[int] = iter(range(1, 10**6))

    def loss(prediction: torch.Tensor, target: torch.Tensor, scale: losses.Scale) -> torch.Tensor:
        if next(calls) > n_calls:
            raise _Killed
        return losses.relative_l2(prediction, target, scale)

    return loss


# 18 windows in batches of 4 are 5 steps an epoch: killed in the first epoch, at its end, in the second, in the last.
@pytest.mark.parametrize("n_steps", [2, 5, 7, 14])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["every_step", "every_epoch"])
def test_resumed_training_equals_uninterrupted_training_bit_for_bit(
    splits: dict[str, Trajectories], tmp_path: Path, n_steps: int, checkpoint_seconds: float
) -> None:
    whole, progress = _fit(splits, tmp_path / "whole", checkpoint_seconds=checkpoint_seconds)
    with pytest.raises(_Killed):
        _fit(splits, tmp_path / "cut", loss=_dying_after(n_steps), checkpoint_seconds=checkpoint_seconds)
    torch.manual_seed(123)  # a new process has another random state
    resumed, progress_resumed = _fit(splits, tmp_path / "cut", checkpoint_seconds=checkpoint_seconds)
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
    for row, row_resumed in zip(progress.curve, progress_resumed.curve, strict=True):
        assert {**row, "seconds": 0} == {**row_resumed, "seconds": 0}
    last, last_resumed = (torch.load(tmp_path / run / "last.pt", weights_only=True) for run in ("whole", "cut"))
    for one, two in zip(_tensors(last["optimizer"]), _tensors(last_resumed["optimizer"]), strict=True):
        assert torch.equal(one, two)


def _tensors(node: object) -> list[torch.Tensor]:
    if isinstance(node, torch.Tensor):
        return [node]
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else []
    return [tensor for child in children for tensor in _tensors(child)]


def test_checkpoints_are_taken_on_a_timer_within_an_epoch(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        _fit(splits, tmp_path, loss=_dying_after(2), checkpoint_seconds=0.0)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["progress"]["batch"] == 2
    assert not (tmp_path / "best.pt").exists()


def test_the_time_waited_for_batches_is_counted_over_resumes(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    with pytest.raises(_Killed):
        _fit(splits, tmp_path, loss=_dying_after(7), checkpoint_seconds=0.0)
    path = tmp_path / "last.pt"
    content = torch.load(path, weights_only=True)
    assert 0 < content["progress"]["waited"] <= content["progress"]["seconds"]
    content["progress"]["waited"] = 1000.0
    torch.save(content, path)
    _, progress = _fit(splits, tmp_path, checkpoint_seconds=0.0)
    assert progress.waited > 1000


def test_a_checkpoint_from_before_waiting_was_counted_is_resumed(
    splits: dict[str, Trajectories], tmp_path: Path
) -> None:
    with pytest.raises(_Killed):
        _fit(splits, tmp_path, loss=_dying_after(7), checkpoint_seconds=0.0)
    path = tmp_path / "last.pt"
    content = torch.load(path, weights_only=True)
    del content["progress"]["waited"]
    torch.save(content, path)
    _, progress = _fit(splits, tmp_path)
    assert len(progress.curve) == 3


def test_weights_dont_depend_on_who_reads_the_data(
    splits: dict[str, Trajectories], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    shuffled = Windows.shuffled

    def noted(*arguments: Any, workers: int, **options: Any) -> Iterator[Batch]:
        asked.append(workers)
        return shuffled(*arguments, workers=workers, **options)

    monkeypatch.setattr(Windows, "shuffled", noted)
    train = splits["train"]
    lazy = Trajectories(train.path, n_samples=train.n_samples, history=2, horizon=3, preload_bytes=0)
    found = {}
    for source, workers in ((train, 0), (train, 2), (lazy, 0), (lazy, 1)):
        folder = tmp_path / f"{source.is_preloaded}-{workers}"
        surrogate, _ = _fit({**splits, "train": source}, folder, workers=workers, epochs=1)
        found[folder] = torch.nn.utils.parameters_to_vector(surrogate.parameters())
    assert asked == [0, 2, 0, 1]
    first, *others = found.values()
    assert all(torch.equal(first, other) for other in others)


def test_training_lowers_the_error_and_ends_with_the_best_weights(
    splits: dict[str, Trajectories], tmp_path: Path
) -> None:
    surrogate = _surrogate(splits["train"])
    before = validate(surrogate, splits["valid"].whole(), 4, ALONE)
    # A constant large rate makes the valid error go up and down, so best and last differ.
    surrogate, progress = _fit(splits, tmp_path, surrogate=surrogate, epochs=6, lr=5e-2, schedule=schedules.constant)
    errors = [row["valid_rel_l2"] for row in progress.curve]
    assert progress.best_valid == min(errors) < before
    assert progress.best_epoch == 1 + errors.index(min(errors)) < 6
    after = validate(surrogate, splits["valid"].whole(), 4, ALONE)
    assert after == pytest.approx(progress.best_valid, rel=1e-6)


def test_the_last_weights_are_kept_on_demand(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    surrogate, progress = _fit(splits, tmp_path, epochs=6, lr=5e-2, schedule=schedules.constant, keep="last")
    errors = [row["valid_rel_l2"] for row in progress.curve]
    assert progress.best_epoch == 6 != 1 + errors.index(min(errors))
    after = validate(surrogate, splits["valid"].whole(), 4, ALONE)
    assert after == pytest.approx(errors[-1], rel=1e-6) == progress.best_valid


def test_curve_file_has_one_row_per_epoch(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    _, progress = _fit(splits, tmp_path)
    with open(tmp_path / "curve.csv") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [float(row["valid_rel_l2"]) for row in rows] == [row["valid_rel_l2"] for row in progress.curve]


def test_a_non_finite_loss_is_divergence(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    with pytest.raises(Diverged, match="became nan in epoch 1, step"):
        _fit(splits, tmp_path, lr=1e30, schedule=schedules.constant)


def test_weights_that_never_predict_finitely_are_divergence(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    def always_one(prediction: torch.Tensor, target: torch.Tensor, scale: losses.Scale) -> torch.Tensor:
        return 1.0 + 0.0 * losses.relative_l2(prediction, target, scale)

    surrogate = _surrogate(splits["train"])
    surrogate.normalizer.increment_std.fill_(1e38)
    with pytest.raises(Diverged):
        _fit(splits, tmp_path, surrogate=surrogate, loss=always_one)


def _one_sgd_step(
    surrogate: Surrogate,
    splits: dict[str, Trajectories],
    folder: Path,
    *,
    unroll: int,
    clip_norm: float,
    pushforward: int = 0,
) -> None:
    windows = splits["train"].windows(unroll + pushforward)
    Trainer(epochs=1, batch_size=len(windows), unroll=unroll, pushforward=pushforward, clip_norm=clip_norm, seed=0).fit(
        surrogate,
        windows,
        splits["valid"].whole(),
        Recipe(
            functools.partial(torch.optim.SGD, lr=1.0),
            schedules.constant,
            lambda prediction, target, scale: losses.relative_l2(prediction[:, -1:], target[:, -1:], scale),
            augmentation.none(PROBLEM.spec),
        ),
        tracker=NoTracker(),
        folder=folder,
        config="",
        processes=ALONE,
    )


def test_gradients_are_clipped(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    # With plain gradient descent the change of one step is the rate times the clipped norm.
    surrogate = _surrogate(splits["train"])
    start = copy.deepcopy(surrogate.state_dict())
    _one_sgd_step(surrogate, splits, tmp_path, unroll=1, clip_norm=1e-3)
    moved = sum(float((value - start[name]).square().sum()) for name, value in surrogate.state_dict().items())
    assert math.sqrt(moved) == pytest.approx(1e-3, rel=1e-3)


def test_unrolled_training_differentiates_through_the_rollout(splits: dict[str, Trajectories], tmp_path: Path) -> None:
    # The step must equal one by hand through both applications, and differ from one with the history cut off.
    surrogate = _surrogate(splits["train"])
    surrogate.operator = surrogate.operator.operator  # without dropout
    start = copy.deepcopy(surrogate)
    windows = splits["train"].windows(2)
    batch = windows[list(range(len(windows)))]
    _one_sgd_step(surrogate, splits, tmp_path, unroll=2, clip_norm=1e9)
    trained = torch.nn.utils.parameters_to_vector(surrogate.parameters())

    def by_hand(cut: bool) -> torch.Tensor:
        model = copy.deepcopy(start)
        first = model(batch.history, batch.static)
        history = torch.cat([batch.history[:, 1:], first.detach() if cut else first], dim=1)
        second = model(history, batch.static)
        losses.relative_l2(second, batch.target[:, 1:]).backward()
        return torch.nn.utils.parameters_to_vector(p - p.grad for p in model.parameters())

    assert torch.allclose(trained, by_hand(cut=False), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(trained, by_hand(cut=True), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("n_pushed", [0, 1])
def test_pushforward_starts_from_predictions_without_a_gradient(
    splits: dict[str, Trajectories], tmp_path: Path, n_pushed: int
) -> None:
    surrogate = _surrogate(splits["train"])
    surrogate.operator = surrogate.operator.operator  # without dropout
    model = copy.deepcopy(surrogate)
    windows = splits["train"].windows(2)
    batch = windows[list(range(len(windows)))]
    seed = next(s for s in range(100) if int(torch.randint(2, (), generator=torch.manual_seed(s))) == n_pushed)
    torch.manual_seed(seed)
    _one_sgd_step(surrogate, splits, tmp_path, unroll=1, pushforward=1, clip_norm=1e9)
    trained = torch.nn.utils.parameters_to_vector(surrogate.parameters())
    history = batch.history
    if n_pushed:
        history = torch.cat([history[:, 1:], model(history, batch.static).detach()], dim=1)
    losses.relative_l2(model(history, batch.static), batch.target[:, n_pushed : n_pushed + 1]).backward()
    by_hand = torch.nn.utils.parameters_to_vector(p - p.grad for p in model.parameters())
    assert torch.allclose(trained, by_hand, rtol=1e-4, atol=1e-6)


def test_whole_bundles_are_pushed_forward(splits: dict[str, Trajectories]) -> None:
    surrogate = _surrogate(splits["train"])
    surrogate.bundle = 2
    steps: list[int] = []

    def shifted(history: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        del static
        steps.append(1)
        return history[:, -1:].repeat_interleave(2, dim=1)

    surrogate.forward = shifted  # pyright: ignore[reportAttributeAccessIssue]
    trainer = Trainer(epochs=1, batch_size=4, unroll=2, pushforward=4, clip_norm=None, seed=0)
    frames = torch.arange(8.0).view(1, 8, 1, 1, 1).expand(1, 8, 1, *PROBLEM.spec.grid.shape)
    batch = Batch(frames[:, :2], torch.empty(1, 0, *PROBLEM.spec.grid.shape), frames[:, 2:])
    starts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        steps.clear()
        pushed = trainer._pushed(surrogate, batch, solver=None)
        assert pushed.history.shape[1] == pushed.target.shape[1] == 2
        assert float(pushed.target[0, 0, 0, 0, 0]) == 2 + 2 * len(steps)
        starts.add(len(steps))
    assert starts == {0, 1, 2}


# SOAP renews its eigenbases every ten steps: before and after the first time, and with axes that get none.
@pytest.mark.parametrize(
    ("optimizer", "n_steps"),
    [(torch.optim.AdamW, 4), (soap, 4), (soap, 12), (functools.partial(soap, max_precondition_dim=5), 12)],
)
def test_other_ways_of_training_resume_bit_for_bit(
    splits: dict[str, Trajectories], tmp_path: Path, optimizer: Callable[..., torch.optim.Optimizer], n_steps: int
) -> None:
    fit = functools.partial(_fit, splits, optimizer=optimizer, pushforward=1, epochs=5)
    whole, _ = fit(tmp_path / "whole")
    with pytest.raises(_Killed):
        fit(tmp_path / "cut", loss=_dying_after(n_steps), checkpoint_seconds=0.0)
    torch.manual_seed(123)
    resumed, _ = fit(tmp_path / "cut")
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name


def test_subnormal_numbers_are_zero_in_training_steps_and_nowhere_else(
    splits: dict[str, Trajectories], tmp_path: Path
) -> None:
    def product() -> float:
        return float(torch.tensor([1e-30]) * torch.tensor([1e-10]))

    seen: list[float] = []

    def loss(prediction: torch.Tensor, target: torch.Tensor, scale: losses.Scale) -> torch.Tensor:
        seen.append(product())
        return losses.relative_l2(prediction, target, scale)

    surrogate = _surrogate(splits["train"])
    predict, outside = surrogate.predict, []
    surrogate.predict = lambda *arguments: outside.append(product()) or predict(*arguments)  # pyright: ignore[reportAttributeAccessIssue]
    _fit(splits, tmp_path, surrogate=surrogate, loss=loss)
    assert set(seen) == {0.0}
    assert outside
    assert 0.0 not in (*outside, product())


# Stages -------------------------------------------------------------------------------------------------------------


def _of_stages(train: Trajectories, n_stages: int) -> Surrogate:
    torch.manual_seed(0)
    make = functools.partial(FNO, out_channels=1, grid=PROBLEM.spec.grid, n_modes=4, width=6, n_layers=2)
    stages = [make(in_channels=2 if number == 0 else 3) for number in range(n_stages)]
    normalizer = Normalizer.fit(train.whole().in_order(4), bundle=1)
    surrogate = Surrogate(Boosted(stages) if n_stages > 1 else stages[0], normalizer, residual=True)
    torch.manual_seed(1)
    return surrogate


def test_a_stage_learns_the_residual_of_those_before_it_and_leaves_them_as_they_are(
    splits: dict[str, Trajectories], tmp_path: Path
) -> None:
    train = splits["train"]
    alone, first = _fit(splits, tmp_path / "alone", epochs=3, surrogate=_of_stages(train, 1))
    both, progress = _fit(splits, tmp_path / "both", epochs=6, surrogate=_of_stages(train, 2))
    operator = both.operator
    assert isinstance(operator, Boosted)
    assert progress.curve[2]["valid_rel_l2"] == first.curve[2]["valid_rel_l2"]
    torch.testing.assert_close(operator.stages[0].state_dict(), alone.operator.state_dict(), rtol=0, atol=0)
    pairs = list(train.windows(1).in_order(4))
    assert float(operator.scale[1]) == pytest.approx(alone.residual_size(pairs))
    assert both.residual_size(pairs) < 0.97 * alone.residual_size(pairs)
    assert [row["learning_rate"] for row in progress.curve[3:]] == [row["learning_rate"] for row in first.curve]
    assert both.n_parameters > 2 * alone.n_parameters
    operator.n_active = 1
    batch = pairs[0]
    torch.testing.assert_close(both.predict(batch, 2), alone.predict(batch, 2))


# Two stages of two epochs, of five steps each: killed in the first, at its end, in the second, at the very end.
@pytest.mark.parametrize("n_steps", [3, 10, 12, 19])
@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9], ids=["every_step", "every_epoch"])
def test_a_training_in_stages_resumes_bit_for_bit(
    splits: dict[str, Trajectories], tmp_path: Path, n_steps: int, checkpoint_seconds: float
) -> None:
    fit = functools.partial(_fit, splits, epochs=4, checkpoint_seconds=checkpoint_seconds)
    whole, _ = fit(tmp_path / "whole", surrogate=_of_stages(splits["train"], 2))
    with pytest.raises(_Killed):
        fit(tmp_path / "cut", surrogate=_of_stages(splits["train"], 2), loss=_dying_after(n_steps))
    resumed, _ = fit(tmp_path / "cut", surrogate=_of_stages(splits["train"], 2))
    for (name, one), two in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, two), name
