"""RelativeL2, VRMSE and MaxError: values computed by hand, definitions, floors, predictions that aren't finite."""

import math
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from the_well.benchmark.metrics import VRMSE as WellVRMSE

from data_gen.grids import Grid
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.metric import mean
from neuralop_bench.metrics.relative import (
    NRMSE,
    VRMSE,
    MaxError,
    RelativeH1,
    RelativeL2,
    mean_squares,
    relative_l2_of,
)
from neuralop_bench.metrics.spectral import Spectra

Score = Callable[..., dict[str, float]]
GRID = Grid.periodic(4, n_dims=1)


def random_target(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.fixture
def rel_l2(context: Callable) -> RelativeL2:
    return RelativeL2(context(GRID))


def test_relative_l2_by_hand(score: Score, rel_l2: RelativeL2) -> None:
    # Two samples, two steps, one channel, two points.
    target = np.array([[[[3.0, 4.0]], [[0.0, 12.0]]], [[[1.0, 0.0]], [[0.0, 2.0]]]])
    error = np.array([[[[0.0, 5.0]], [[12.0, 0.0]]], [[[1.0, 0.0]], [[2.0, 1.0]]]])
    columns = score(rel_l2, target + error, target)
    # Sample 1: |e| = 13, |u| = 13. Sample 2: |e| = sqrt 6, |u| = sqrt 5.
    second = math.sqrt(6 / 5)
    assert columns["rel_l2"] == pytest.approx((1 + second) / 2, rel=1e-14)
    assert columns["rel_l2_max"] == pytest.approx(second, rel=1e-14)
    assert columns["rel_l2_median"] == pytest.approx((1 + second) / 2, rel=1e-14)
    assert columns["rel_l2_first_step"] == pytest.approx((5 / 5 + 1 / 1) / 2, rel=1e-14)
    assert columns["rel_l2_last_step"] == pytest.approx((12 / 12 + math.sqrt(5) / 2) / 2, rel=1e-14)
    assert columns["n_floored_rel_l2"] == 0


def test_relative_l2_is_the_ratio_of_trajectory_norms_not_the_mean_over_steps(score: Score, rel_l2: RelativeL2) -> None:
    # A large first snapshot without error, a small second one that is missed altogether.
    target = np.array([[[[10.0] * 4], [[1.0] * 4]]])
    prediction = np.array([[[[10.0] * 4], [[0.0] * 4]]])
    columns = score(rel_l2, prediction, target)
    assert columns["rel_l2"] == pytest.approx(1 / math.sqrt(101), rel=1e-14)
    assert (columns["rel_l2_first_step"], columns["rel_l2_last_step"]) == (0.0, 1.0)


def test_relative_l2_is_the_mean_over_channels_of_their_own_ratios(score: Score, context: Callable) -> None:
    # Channels of very different size count alike.
    target = np.array([[[[1e6] * 4, [1e-3] * 4]]])
    prediction = target * np.array([1.1, 1.3])[:, None]
    assert score(RelativeL2(context(GRID, 2)), prediction, target)["rel_l2"] == pytest.approx(0.2, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_ten_percent_too_much_scores_a_tenth_at_any_scale(score: Score, rel_l2: RelativeL2, scale: float) -> None:
    target = scale * random_target(5, 3, 1, 4)
    columns = score(rel_l2, 1.1 * target, target)
    for name in ("rel_l2", "rel_l2_median", "rel_l2_p95", "rel_l2_max", "rel_l2_first_step", "rel_l2_last_step"):
        assert columns[name] == pytest.approx(0.1, rel=1e-12), name


def test_relative_l2_scales_with_the_error_not_with_the_field(score: Score, rel_l2: RelativeL2) -> None:
    target, error = random_target(5, 3, 1, 4), np.random.default_rng(1).standard_normal((5, 3, 1, 4))
    once = score(rel_l2, target + error, target)["rel_l2"]
    assert score(rel_l2, target - 3 * error, target)["rel_l2"] == pytest.approx(3 * once, rel=1e-12)
    assert score(rel_l2, -7 * (target + error), -7 * target)["rel_l2"] == pytest.approx(once, rel=1e-12)


def test_median_percentile_and_maximum_over_samples(score: Score, rel_l2: RelativeL2) -> None:
    # Sample i has the error i / 100, out of order.
    errors = np.random.default_rng(0).permutation(np.arange(1, 102)) / 100
    target = random_target(101, 2, 1, 4)
    columns = score(rel_l2, target * (1 + errors[:, None, None, None]), target)
    assert columns["rel_l2"] == pytest.approx(0.51, rel=1e-12)
    assert columns["rel_l2_median"] == pytest.approx(0.51, rel=1e-12)
    assert columns["rel_l2_p95"] == pytest.approx(0.96, rel=1e-12)
    assert columns["rel_l2_max"] == pytest.approx(1.01, rel=1e-12)


def test_percentile_is_the_error_of_a_sample(score: Score, rel_l2: RelativeL2) -> None:
    # Interpolation between a finite and an infinite error would give a nan.
    target = random_target(10, 2, 1, 4)
    prediction = 1.5 * target
    prediction[3] = np.nan
    assert score(rel_l2, prediction, target)["rel_l2_p95"] == math.inf


def test_a_vanishing_target_is_floored_and_counted(score: Score, context: Callable) -> None:
    target = random_target(3, 2, 2, 4)
    target[1, :, 0] = 0
    prediction = target.copy()
    prediction[1, :, 0] = 1e-12
    columns = score(RelativeL2(context(GRID, 2)), prediction, target)
    assert columns["n_floored_rel_l2"] == 1
    # An error of 1e-12 over 1 % of the channel's root mean square; one of six ratios.
    size = math.sqrt(np.mean(target[:, :, 0] ** 2))
    assert columns["rel_l2"] == pytest.approx(1e-12 / (0.01 * size) / 6, rel=1e-9)


def test_a_diverged_sample_scores_infinity_and_leaves_the_median(score: Score, rel_l2: RelativeL2) -> None:
    target = random_target(5, 2, 1, 4)
    for bad in (np.nan, np.inf, -np.inf):
        prediction = 1.1 * target
        prediction[2, 1, 0, 0] = bad
        columns = score(rel_l2, prediction, target)
        assert columns["rel_l2"] == columns["rel_l2_max"] == columns["rel_l2_last_step"] == math.inf
        assert columns["rel_l2_median"] == pytest.approx(0.1)
        assert columns["rel_l2_first_step"] == pytest.approx(0.1)


def test_a_reference_that_isnt_finite_is_refused(score: Score, rel_l2: RelativeL2) -> None:
    prediction = random_target(3, 2, 1, 4)
    target = prediction.copy()
    target[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="reference"):
        score(rel_l2, prediction, target)


def test_validation_and_evaluation_score_alike(score: Score, context: Callable) -> None:
    target, prediction = random_target(6, 3, 2, 5), np.random.default_rng(1).standard_normal((6, 3, 2, 5))
    u = torch.from_numpy(target)
    found = relative_l2_of(mean_squares(torch.from_numpy(prediction), Batch(u[:, :0], u[:, 0, :0], u)))
    expected = [
        np.mean([np.linalg.norm(p[:, c] - v[:, c]) / np.linalg.norm(v[:, c]) for c in range(2)])
        for p, v in zip(prediction, target, strict=True)
    ]
    assert found == pytest.approx(mean(np.array(expected)), rel=1e-13)
    columns = score(RelativeL2(context(GRID, 2)), prediction, target)
    assert columns["rel_l2"] == pytest.approx(found, rel=1e-15)


def test_vrmse_by_hand(score: Score, context: Callable) -> None:
    # Variances 1 and 4 per channel and step; root mean square errors 1/2 and 3.
    target = np.array([[[[1.0, -1.0, 1.0, -1.0], [2.0, -2.0, 2.0, -2.0]]]]) + 7
    error = np.array([[[[0.5, 0.5, -0.5, 0.5], [3.0, -3.0, -3.0, 3.0]]]])
    columns = score(VRMSE(context(GRID, 2)), target + error, target)
    assert columns["vrmse"] == pytest.approx((0.5 / 1 + 3 / 2) / 2, rel=1e-12)
    assert columns["n_floored_vrmse"] == 0


def test_predicting_every_snapshots_own_mean_has_vrmse_one(score: Score, context: Callable) -> None:
    target = 5 + random_target(3, 4, 2, 6, 7) * np.arange(1, 5)[:, None, None, None]
    prediction = np.broadcast_to(target.mean(axis=(-2, -1), keepdims=True), target.shape)
    assert score(VRMSE(context(Grid.periodic(6), 2)), prediction, target)["vrmse"] == pytest.approx(1, rel=1e-13)


def test_vrmse_is_the_wells_but_for_the_biased_variance(score: Score, context: Callable) -> None:
    # The Well: unbiased variance plus 1e-7, which is far below the variance here.
    n_points = 5 * 6
    target = 1e3 * random_target(4, 3, 2, 5, 6)
    prediction = target + 1e2 * np.random.default_rng(1).standard_normal(target.shape)
    ours = score(VRMSE(context(Grid.periodic(5), 2)), prediction, target)["vrmse"]
    p, u = (torch.from_numpy(np.moveaxis(x, 2, -1)) for x in (prediction, target))
    theirs = WellVRMSE.eval(p, u, SimpleNamespace(n_spatial_dims=2))
    assert float(theirs.mean()) == pytest.approx(ours * math.sqrt((n_points - 1) / n_points), rel=1e-10)


def test_vrmse_floors_the_variance_of_a_flat_snapshot_and_counts_it(score: Score, context: Callable) -> None:
    target = random_target(2, 2, 2, 4)
    target[1, 0, 1] = 3.0
    prediction = target.copy()
    prediction[1, 0, 1] += 0.02
    columns = score(VRMSE(context(GRID, 2, train_variance=[1.0, 100.0])), prediction, target)
    assert columns["n_floored_vrmse"] == 1
    # sqrt(0.02^2 / (1e-6 * 100)) in one of eight snapshots.
    assert columns["vrmse"] == pytest.approx(2.0 / 8, rel=1e-9)


def test_max_error_by_hand(score: Score, context: Callable) -> None:
    # Largest error 2 at step 1, largest value 5 at step 2: both over the whole trajectory; the sign doesn't matter.
    target = np.array([[[[1.0, -2.0]], [[-5.0, 3.0]]], [[[10.0, 0.0]], [[0.0, 0.0]]]])
    error = np.array([[[[0.5, -2.0]], [[1.0, 0.0]]], [[[0.0, 0.0]], [[1.0, 0.0]]]])
    columns = score(MaxError(context(GRID)), target + error, target)
    assert columns == {"max_error": pytest.approx((2 / 5 + 1 / 10) / 2, rel=1e-14), "n_floored_max_error": 0}


def test_max_error_and_vrmse_of_a_diverged_sample_are_infinite(score: Score, context: Callable) -> None:
    target = random_target(3, 2, 1, 4)
    prediction = target.copy()
    prediction[0, 0, 0, 0] = np.nan
    assert score(MaxError(context(GRID)), prediction, target)["max_error"] == math.inf
    assert score(VRMSE(context(GRID)), prediction, target)["vrmse"] == math.inf


def test_mean_is_exact_whatever_the_order() -> None:
    values = np.array([1e16, 1.0, -1e16, 1.0])
    assert [mean(np.roll(values, shift)) for shift in range(4)] == [0.5] * 4


def test_nrmse_is_the_mean_of_ratios_per_snapshot(score: Score, context: Callable) -> None:
    # The first snapshot is ten times as large as the second, and has no error.
    target = np.array([[[[10.0] * 4], [[1.0] * 4]]])
    prediction = np.array([[[[10.0] * 4], [[0.0] * 4]]])
    columns = score(NRMSE(context(GRID)), prediction, target)
    assert columns == {"nrmse": pytest.approx(0.5, rel=1e-14), "n_floored_nrmse": 0}


@pytest.mark.parametrize("n", [16, 17])
@pytest.mark.parametrize("length", [1.0, 2.5])
def test_relative_h1_of_waves_on_a_circle(n: int, length: float, score: Score, context: Callable) -> None:
    # |u|^2 = 1/2 and |u'|^2 = (2 pi k / L)^2 / 2 of a wave of amplitude 1.
    grid = Grid.periodic(n, n_dims=1, length=length)
    x = grid.coordinates()[0] / length
    target = np.cos(2 * math.pi * (2 * x + 0.1))[None, None, None]
    error = 0.1 * np.cos(2 * math.pi * (5 * x + 0.3))[None, None, None]
    weight = {k: 1 + (2 * math.pi * k / length) ** 2 for k in (2, 5)}
    columns = score(RelativeH1(context(grid)), target + error, target)
    assert columns["rel_h1"] == pytest.approx(0.1 * math.sqrt(weight[5] / weight[2]), rel=1e-12)
    assert columns["n_floored_rel_h1"] == 0


@pytest.mark.parametrize("nodes", ["closed", "centres"])
def test_relative_h1_on_other_axes_takes_differences_of_second_order(
    nodes: str, score: Score, context: Callable
) -> None:
    # Exact for parabolas, at the ends too: u = x^2 on [0, 2], e = 0.5 (x - 1)^2, in two dimensions with y beside x.
    grid = Grid((9, 6), (2.0, 3.0), ("dirichlet",) * 2, (nodes,) * 2)
    x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
    target, error = x**2 + 3 * y, 0.5 * (x - 1) ** 2
    expected = math.sqrt((error**2 + (x - 1) ** 2).mean() / (target**2 + (2 * x) ** 2 + 9).mean())
    columns = score(RelativeH1(context(grid)), (target + error)[None, None, None], target[None, None, None])
    assert columns["rel_h1"] == pytest.approx(expected, rel=1e-12)


def test_relative_h1_converges_with_second_order_on_a_closed_square(score: Score, context: Callable) -> None:
    def field_and_square(x: np.ndarray, y: np.ndarray, k: int) -> tuple[np.ndarray, float]:
        """sin(k pi x) sin(pi y), and the mean over the points of its square and its gradient's."""
        s_x, c_x, s_y, c_y = (f(math.pi * m * z) for m, z in ((k, x), (1, y)) for f in (np.sin, np.cos))
        gradient = math.pi**2 * ((k * c_x * s_y) ** 2 + (s_x * c_y) ** 2)
        return s_x * s_y, float(np.mean((s_x * s_y) ** 2 + gradient))

    errors = []
    for n in (65, 129, 257):
        grid = Grid((n, n), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)
        mesh = np.meshgrid(*grid.coordinates(), indexing="ij")
        (target, of_target), (error, of_error) = (field_and_square(*mesh, k) for k in (1, 3))
        found = score(RelativeH1(context(grid)), (target + 0.2 * error)[None, None, None], target[None, None, None])
        errors.append(abs(found["rel_h1"] - 0.2 * math.sqrt(of_error / of_target)))
    assert min(math.log2(coarse / fine) for coarse, fine in pairwise(errors)) > 1.8


def test_relative_h1_is_infinite_for_a_prediction_that_is_not_finite(score: Score, context: Callable) -> None:
    target = random_target(2, 3, 1, 4)
    prediction = target.copy()
    prediction[1, 2, 0, 3] = np.nan
    assert score(RelativeH1(context(GRID)), prediction, target)["rel_h1"] == math.inf


def test_a_shift_changes_rel_l2_and_rel_h1_but_neither_vrmse_nor_spectra(score: Score, context: Callable) -> None:
    target = random_target(2, 3, 1, 16)
    error = 0.1 * random_target(2, 3, 1, 16)[::-1]
    grid = Grid.periodic(16, n_dims=1)
    before, after = (
        {
            **score(RelativeL2(context(grid)), target + error + shift, target + shift),
            **score(RelativeH1(context(grid)), target + error + shift, target + shift),
            **score(VRMSE(context(grid)), target + error + shift, target + shift),
            **score(Spectra(context(grid)), target + error + shift, target + shift),
        }
        for shift in (0.0, 3.0)
    )
    assert after["rel_l2"] < 0.5 * before["rel_l2"]
    assert after["rel_h1"] < before["rel_h1"]
    for name in ("vrmse", "spec_low", "spec_mid"):
        assert after[name] == pytest.approx(before[name], rel=1e-12), name
