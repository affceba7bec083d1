"""Training losses: values by hand, means over samples, gradients where the error vanishes."""

import math

import pytest
import torch
from torch import Tensor

from neuralop_bench.training.losses import (
    Loss,
    mse,
    relative_h1,
    relative_l2,
    relative_l2_and_spectrum,
    relative_l2_per_step,
)

RATIOS = [relative_l2, relative_l2_per_step, relative_h1]
LOSSES = pytest.mark.parametrize("loss", [*RATIOS, relative_l2_and_spectrum])


def pair() -> tuple[Tensor, Tensor]:
    """Two steps of two points: a large first step and a small second one, one channel; prediction and target."""
    target = torch.tensor([[[[3.0, 4.0]], [[0.0, 12.0]]], [[[1.0, 0.0]], [[0.0, 2.0]]]], dtype=torch.float64)
    error = torch.tensor([[[[0.0, 5.0]], [[12.0, 0.0]]], [[[1.0, 0.0]], [[2.0, 1.0]]]], dtype=torch.float64)
    return target + error, target


def test_relative_l2_by_hand() -> None:
    assert float(relative_l2(*pair())) == pytest.approx((13 / 13 + math.sqrt(6 / 5)) / 2, rel=1e-14)


def test_relative_l2_per_step_by_hand() -> None:
    expected = (5 / 5 + 12 / 12 + 1 / 1 + math.sqrt(5) / 2) / 4
    assert float(relative_l2_per_step(*pair())) == pytest.approx(expected, rel=1e-14)


def test_relative_h1_weighs_a_wave_by_its_wavenumber_up_to_the_cutoff() -> None:
    x = torch.arange(64, dtype=torch.float64) / 64
    column, row = torch.meshgrid(2 * math.pi * x, 2 * math.pi * x, indexing="ij")
    target = torch.cos(column).view(1, 1, 1, 64, 64)

    def wave(p: int, q: int) -> Tensor:
        return 0.1 * torch.cos(p * column + q * row).view(1, 1, 1, 64, 64)

    for p, q, weight in ((0, 0, 1), (3, 0, 10), (-3, 2, 14), (19, 0, 362), (20, 0, 1), (25, 4, 17)):
        size = 2 if (p, q) == (0, 0) else 1  # the mean square of a constant is twice a cosine's
        expected = 0.1 * math.sqrt(size * weight / 2)
        assert float(relative_h1(target + wave(p, q), target)) == pytest.approx(expected, rel=1e-10)
    with_more = float(relative_h1(target + wave(25, 0), target, cutoff=26))
    assert with_more == pytest.approx(0.1 * math.sqrt(626 / 2), rel=1e-10)


def test_relative_h1_agrees_with_the_gradients_of_a_band_limited_field() -> None:
    x = torch.arange(50, dtype=torch.float64) / 50
    field, slope = torch.sin(2 * math.pi * 3 * x), 3 * torch.cos(2 * math.pi * 3 * x)  # the slope per 2 pi
    target, target_slope = field + 1, slope
    error, error_slope = 0.2 * torch.cos(2 * math.pi * 5 * x), -torch.sin(2 * math.pi * 5 * x)
    expected = (error.square() + error_slope.square()).mean() / (target.square() + target_slope.square()).mean()
    found = relative_h1((target + error).view(1, 1, 1, -1), target.view(1, 1, 1, -1))
    assert float(found) == pytest.approx(math.sqrt(float(expected)), rel=1e-12)


@pytest.mark.parametrize("n_dims", [1, 2])
def test_the_penalty_weighs_every_shell_alike(n_dims: int) -> None:
    x = 2 * math.pi * torch.arange(16, dtype=torch.float64) / 16
    large, small = (torch.cos(k * x).view(16, *(1,) * (n_dims - 1)).expand((16,) * n_dims) for k in (1, 6))
    target = (large + 1e-2 * small)[None, None, None]

    def penalty(prediction: Tensor) -> float:
        plain = relative_l2(prediction, target)
        return float(relative_l2_and_spectrum(prediction, target, weight=9, least=1e-12) - plain)

    # Nine shells, of which one has an energy 21 % too high: whichever it is.
    for wrong in (1.1 * large + 1e-2 * small, large + 1.1e-2 * small):
        assert penalty(wrong[None, None, None]) == pytest.approx(math.log(1.21) ** 2, rel=1e-3)
    assert penalty(target.roll(3, dims=3)) == pytest.approx(0, abs=1e-9)  # phases don't count
    more = float(relative_l2_and_spectrum(target, 0.9 * target, least=1e9))
    assert more == pytest.approx(1 / 9, rel=1e-6)  # energies that are too small don't count


def test_mse_by_hand() -> None:
    assert float(mse(*pair())) == pytest.approx((25 + 144 + 1 + 5) / 8, rel=1e-14)


def test_the_two_losses_weigh_steps_differently() -> None:
    target = torch.tensor([10.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    prediction = torch.tensor([10.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 4)
    assert float(relative_l2(prediction, target)) == pytest.approx(1 / math.sqrt(101))
    assert float(relative_l2_per_step(prediction, target)) == pytest.approx(0.5)


@pytest.mark.parametrize("loss", RATIOS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_channels_and_samples_count_alike_whatever_their_size(loss: Loss, scale: float) -> None:
    torch.manual_seed(0)
    target = torch.randn(3, 2, 2, 5, 5) * torch.tensor([1.0, scale]).view(2, 1, 1)
    factors, sizes = torch.tensor([0.1, 0.3]).view(2, 1, 1), torch.tensor([1.0, scale])
    assert float(loss(target * (1 + factors), target, sizes)) == pytest.approx(0.2, rel=1e-5)
    assert float(loss(target * 1.1, target, sizes)) == pytest.approx(0.1, rel=1e-5)


@LOSSES
def test_loss_is_the_mean_over_samples(loss: Loss) -> None:
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 7, 3, 2, 6, dtype=torch.float64)
    single = [float(loss(p, u)) for p, u in zip(prediction.split(1), target.split(1), strict=True)]
    assert float(loss(prediction, target)) == pytest.approx(sum(single) / 7, rel=1e-13)


@LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_where_the_error_or_the_target_vanishes(loss: Loss, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    target = torch.randn(3, 2, 1, 4, dtype=dtype)
    target[1] = 0
    prediction = target.clone()
    prediction[2] += 0.1
    prediction.requires_grad_()
    value = loss(prediction, target)
    value.backward()
    assert torch.isfinite(value)
    assert prediction.grad is not None
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad[:2].abs().max() == 0
    assert prediction.grad[2].abs().min() > 0


@LOSSES
def test_an_exact_prediction_costs_nothing(loss: Loss) -> None:
    target = torch.randn(2, 2, 1, 4, generator=torch.Generator().manual_seed(0))
    assert float(loss(target, target)) < 1e-18


@pytest.mark.parametrize("loss", RATIOS)
def test_eps_bounds_the_mean_square_of_the_target_as_a_fraction_of_the_channels(loss: Loss) -> None:
    target = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    prediction = torch.full_like(target, 3.0)  # mean square 1 in units of the channel's size
    size = torch.tensor([3.0])
    assert float(loss(prediction, target, size, eps=1e-2)) == pytest.approx(10.0, rel=1e-12)
    assert float(loss(prediction, target, size)) == pytest.approx(1e2, rel=1e-9)
