"""Baselines for every network: the mean, persistence, and regressions between principal components."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor

from data_gen.generation import cache
from data_gen.grids import Grid
from data_gen.store import DatasetFile
from neuralop_bench import pipeline
from neuralop_bench.batch import Batch
from neuralop_bench.config.identity import run_directory
from neuralop_bench.models.mean_field import MeanField
from neuralop_bench.models.pca_regression import PCARegression
from neuralop_bench.models.persistence import Persistence
from neuralop_bench.records.record import RunRecord
from neuralop_bench.records.run_directory import BEST_NAME, LAST_NAME
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate

GRID = Grid.periodic(8)


def pairs(n: int, rank: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Inputs [n, 2, 8, 8] in a space of ``rank`` dimensions, and an affine map of them, [n, 3, 8, 8]."""
    basis, image, shift = np.random.default_rng(7), np.random.default_rng(8), np.random.default_rng(9)
    weights = np.random.default_rng(seed).standard_normal((n, rank))
    inputs = weights @ basis.standard_normal((rank, 2 * 64))
    targets = weights @ image.standard_normal((rank, 3 * 64)) + shift.standard_normal(3 * 64)
    return (
        torch.from_numpy(inputs).float().view(n, 2, 8, 8),
        torch.from_numpy(targets).float().view(n, 3, 8, 8),
    )


def error(prediction: Tensor, target: Tensor) -> float:
    return float((prediction - target).norm() / target.norm())


# Mean and persistence -------------------------------------------------------------------------------------------------


def test_the_mean_is_the_mean_of_the_targets_whatever_the_input() -> None:
    model = MeanField(in_channels=2, out_channels=3, grid=GRID)
    inputs, targets = pairs(20)
    model.prepare(inputs, targets)
    torch.testing.assert_close(model(inputs[:5]), targets.mean(dim=0).expand(5, 3, 8, 8))
    assert torch.equal(model(torch.full((5, 2, 8, 8), torch.inf)), model(inputs[:5]))


def test_the_mean_on_a_finer_grid_is_the_same_at_shared_points() -> None:
    model = MeanField(in_channels=2, out_channels=3, grid=GRID)
    model.prepare(*pairs(20))
    fine = model(torch.zeros(1, 2, 16, 16))
    torch.testing.assert_close(fine[..., ::2, ::2], model(torch.zeros(1, 2, 8, 8)))


def test_persistence_keeps_the_last_frame() -> None:
    torch.manual_seed(0)
    frames = torch.randn(4, 8, 1, 8, 8)
    batch = Batch(frames[:, :3], frames.new_zeros(4, 0, 8, 8), frames[:, 3:])
    operator = Persistence(in_channels=3, out_channels=2, grid=GRID)
    surrogate = Surrogate(operator, Normalizer.fit([batch], bundle=2), bundle=2, residual=True)
    assert torch.equal(surrogate.predict(batch, 5), frames[:, 2:3].expand(4, 5, 1, 8, 8))


def test_persistence_of_a_steady_problem_is_refused_with_the_reason(smoke) -> None:
    with pytest.raises(ValueError, match=r"dataset\.history is 0\. Use surrogate\.residual=false"):
        pipeline.run(smoke("model=persistence", "dataset=darcy2d"))


# Principal components -------------------------------------------------------------------------------------------------


def test_the_ridge_finds_an_affine_map_between_few_components() -> None:
    model = PCARegression(in_channels=2, out_channels=3, grid=GRID, n_components=8)
    model.prepare(*pairs(60))
    inputs, targets = pairs(20, seed=1)
    assert error(model(inputs), targets) < 1e-5


def test_too_few_components_leave_the_part_that_they_miss() -> None:
    inputs, targets = pairs(60)
    model = PCARegression(in_channels=2, out_channels=3, grid=GRID, n_components=2)
    model.prepare(inputs, targets)
    centred = (targets - targets.mean(dim=0)).flatten(1).double()
    missed = torch.linalg.svdvals(centred)[2:].square().sum().sqrt() / targets.double().norm()
    assert error(model(inputs), targets) >= 0.99 * float(missed)
    assert float(missed) > 0.05


def test_the_kernel_finds_a_smooth_map_that_the_ridge_cant() -> None:
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.uniform(-1, 1, (300, 2))).float()
    modes = torch.from_numpy(rng.standard_normal((2, 64))).float()
    inputs = (weights @ modes).view(300, 1, 8, 8)
    targets = (torch.stack([weights[:, 0] * weights[:, 1], weights[:, 0] ** 2], dim=1) @ modes).view(300, 1, 8, 8)
    errors = {}
    for kernel in ("linear", "rbf"):
        model = PCARegression(in_channels=1, out_channels=1, grid=GRID, n_components=4, kernel=kernel)
        model.prepare(inputs[:200], targets[:200])
        errors[kernel] = error(model(inputs[200:]), targets[200:])
    assert errors["rbf"] < 0.05
    assert errors["linear"] > 0.3


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_noise_is_answered_with_the_mean(kernel: str) -> None:
    # Cross-validation chooses the penalty. There is nothing to learn here that holds for new samples.
    torch.manual_seed(0)
    inputs, targets = torch.randn(2, 60, 1, 8, 8).unbind()
    model = PCARegression(in_channels=1, out_channels=1, grid=GRID, n_components=16, kernel=kernel)  # pyright: ignore[reportArgumentType]
    model.prepare(inputs, targets)
    new = torch.randn(60, 1, 8, 8)
    spread = (model(new) - targets.mean(dim=0)).norm() / targets.norm()
    assert spread < 0.3


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_what_was_fitted_comes_back_from_a_file_whatever_its_size(kernel: str) -> None:
    def build() -> PCARegression:
        return PCARegression(in_channels=2, out_channels=3, grid=GRID, kernel=kernel)  # pyright: ignore[reportArgumentType]

    model, other = build(), build()
    inputs, targets = pairs(60, rank=10)
    model.prepare(inputs, targets)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other(inputs), model(inputs))
    assert not torch.equal(build()(inputs), model(inputs))


def test_a_closed_grid_with_other_points_gives_the_same_values_at_shared_nodes() -> None:
    grid = Grid((9, 9), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)
    torch.manual_seed(0)
    inputs, targets = torch.randn(2, 30, 1, 9, 9).unbind()
    model = PCARegression(in_channels=1, out_channels=1, grid=grid)
    model.prepare(inputs, targets)
    fine = torch.randn(3, 1, 17, 17)
    torch.testing.assert_close(model(fine)[..., ::2, ::2], model(fine[..., ::2, ::2]))


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs model\.n_components to be at least 1, got 0"):
        PCARegression(in_channels=1, out_channels=1, grid=GRID, n_components=0)
    with pytest.raises(ValueError, match=r"model\.kernel to be one of linear, rbf, got 'cubic'"):
        PCARegression(in_channels=1, out_channels=1, grid=GRID, kernel="cubic")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"at least 2 training pairs, got 1\. Raise splits\.train"):
        PCARegression(in_channels=2, out_channels=3, grid=GRID).prepare(*pairs(1))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_few_pairs_are_enough_for_a_regression(n: int, kernel: Literal["linear", "rbf"]) -> None:
    inputs, targets = pairs(n)
    model = PCARegression(in_channels=2, out_channels=3, grid=GRID, kernel=kernel)
    model.prepare(inputs, targets)
    mean = targets.mean(dim=0)
    assert (model(inputs) - targets).square().mean() <= (mean - targets).square().mean() * (1 + 1e-5)


# As runs --------------------------------------------------------------------------------------------------------------


def test_a_run_without_parameters_is_prepared_validated_and_recorded(smoke) -> None:
    cfg = smoke("model=pca_ridge")
    record = pipeline.run(cfg)
    folder = run_directory(cfg)
    assert record.status == "finished"
    assert record.metrics["rel_l2"] is not None
    assert 0.03 < record.metrics["rel_l2"] < 0.15
    assert (record.cost["n_parameters"], record.cost["best_epoch"]) == (0, 0)
    assert record.cost["train_seconds"] is not None
    assert record.cost["train_seconds"] > 0
    assert (folder / BEST_NAME).exists()
    assert not (folder / LAST_NAME).exists()
    assert RunRecord.load(folder / "record.json") == record
    surrogate = Surrogate.load(folder)
    history = torch.zeros(1, 10, 1, 32, 32)
    assert surrogate.predict(Batch.given(history), 10).abs().max() > 0


def test_targets_are_encoded_as_the_surrogate_decodes_them() -> None:
    torch.manual_seed(0)
    frames = 3 + 2 * torch.randn(6, 7, 2, 8, 8, dtype=torch.float64)
    batch = Batch(frames[:, :3], torch.randn(6, 1, 8, 8, dtype=torch.float64), frames[:, 3:])
    for residual in (False, True):
        normalizer = Normalizer.fit([batch], bundle=4)
        answer = Surrogate(torch.nn.Identity(), normalizer, bundle=4, residual=residual).encode_target(
            batch.history, batch.static, batch.target
        )
        assert answer.shape == (6, 8, 8, 8)

        class Answer(torch.nn.Module):
            def forward(self, x: Tensor, answer: Tensor = answer) -> Tensor:
                del x
                return answer

        surrogate = Surrogate(Answer(), normalizer, bundle=4, residual=residual)
        torch.testing.assert_close(surrogate(batch.history, batch.static), batch.target)


@pytest.mark.exhaustive
def test_prepare_is_given_the_pairs_of_the_training_split_each_followed_by_its_images(
    smoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(MeanField, "prepare", lambda _, inputs, targets: seen.append((inputs, targets)))
    cfg = smoke("model=mean_field", "splits.train=12", "augmentation=symmetries", "trainer.prepare_copies=3")
    pipeline.run(cfg)
    ((all_inputs, all_targets),) = seen
    assert (len(all_inputs), len(all_targets)) == (36, 36)
    (inputs, *others), (targets, *_) = (fields.unflatten(0, (12, 3)).unbind(1) for fields in (all_inputs, all_targets))
    for other in others:  # other fields with the same values
        assert (other != inputs).flatten(1).any(dim=1).sum() > 8
        torch.testing.assert_close(other.abs().flatten(1).sort().values, inputs.abs().flatten(1).sort().values)
    assert inputs.shape == (12, 10, 32, 32)
    assert targets.shape == (12, 10, 32, 32)
    # In the order of the file, encoded: frames 10 ... 19 of the training data.
    folder = cache.folder(instantiate(cfg.dataset.problem), cfg.dataset.seed, Path(cfg.paths.data))
    with DatasetFile(folder / "train" / "ns2d.hdf5") as file:
        states = torch.from_numpy(file.read_states(slice(0, 12)))[:, :, 0]
    mean, std = states.double().mean(), states.double().std(correction=0)
    torch.testing.assert_close(targets.double(), (states[:, 10:].double() - mean) / std, rtol=1e-4, atol=1e-4)
