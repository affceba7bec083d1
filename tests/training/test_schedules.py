"""Learning-rate schedules: the rate of every optimiser step."""

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LRScheduler

from neuralop_bench.training import schedules
from neuralop_bench.training.schedules import Schedule


def rates(schedule: Schedule, *, n_epochs: int, steps_per_epoch: int, **options: float) -> list[float]:
    """The rate of every step of a training that starts from 1e-2 and steps the schedule as the trainer does."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2)
    scheduler: LRScheduler = schedule(optimizer, n_epochs=n_epochs, steps_per_epoch=steps_per_epoch, **options)
    values = []
    for _ in range(n_epochs * steps_per_epoch):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return values


def test_step_decay_counts_epochs_not_steps() -> None:
    values = rates(schedules.step_decay, n_epochs=7, steps_per_epoch=3, every=2, factor=0.1)
    expected = [1e-2] * 6 + [1e-3] * 6 + [1e-4] * 6 + [1e-5] * 3
    assert values == pytest.approx(expected, rel=1e-9)


def test_step_decay_doesnt_depend_on_the_length_of_the_training() -> None:
    long, short = (rates(schedules.step_decay, n_epochs=n, steps_per_epoch=2, every=3) for n in (9, 4))
    assert long[:8] == short
    assert len(set(long)) == 3


@pytest.mark.parametrize("anneal", ["cos", "linear"])
@pytest.mark.parametrize("steps_per_epoch", [1, 7])
def test_one_cycle_starts_low_peaks_at_the_given_rate_and_ends_near_zero_with_the_last_step(
    steps_per_epoch: int, anneal: str
) -> None:
    n_steps = 20 * steps_per_epoch
    values = rates(
        schedules.one_cycle,
        n_epochs=20,
        steps_per_epoch=steps_per_epoch,
        warmup=0.25,
        start_factor=10.0,
        final_factor=100.0,
        anneal=anneal,
    )
    assert values[0] == pytest.approx(1e-3)
    assert max(values) == pytest.approx(1e-2)
    assert values[-1] == pytest.approx(1e-5)
    peak = values.index(max(values))
    assert peak == n_steps // 4 - 1
    assert values[: peak + 1] == sorted(values[: peak + 1])
    assert values[peak:] == sorted(values[peak:], reverse=True)
    middle = (values[peak] + values[-1]) / 2
    steps = np.diff(values[peak:])
    assert np.allclose(steps, steps[0]) == (anneal == "linear")
    assert values[peak + (n_steps - 1 - peak) // 2] == pytest.approx(middle, rel=0.2)


def test_one_cycle_keeps_momentum_alone() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-2, momentum=0.9)
    schedules.one_cycle(optimizer, n_epochs=10, steps_per_epoch=1)
    assert optimizer.param_groups[0]["momentum"] == 0.9


@pytest.mark.parametrize("warmup", [0.2, 0.25, 0.3])
@pytest.mark.parametrize("n_steps", [1, 2, 3, 4, 5, 10])
def test_one_cycle_serves_the_shortest_trainings(n_steps: int, warmup: float) -> None:
    values = rates(schedules.one_cycle, n_epochs=1, steps_per_epoch=n_steps, warmup=warmup)
    assert all(0 < value <= 1e-2 * (1 + 1e-12) for value in values)


def test_inverse_time_halves_the_rate_after_one_over_the_given_rate_steps() -> None:
    values = rates(schedules.inverse_time, n_epochs=5, steps_per_epoch=5, rate=0.1)
    assert values[0] == 1e-2
    assert values[10] == pytest.approx(5e-3)
    assert values[24] == pytest.approx(1e-2 / 3.4)
    assert rates(schedules.inverse_time, n_epochs=25, steps_per_epoch=1, rate=0.1) == values


def test_warmup_cosine_rises_from_zero_in_a_line_and_falls_to_zero_in_half_a_cosine() -> None:
    values = rates(schedules.warmup_cosine, n_epochs=10, steps_per_epoch=2, warmup=0.2)
    assert values[:5] == pytest.approx([0, 2.5e-3, 5e-3, 7.5e-3, 1e-2])
    assert values[12] == pytest.approx(5e-3)
    assert values[4:] == pytest.approx([5e-3 * (1 + np.cos(np.pi * i / 16)) for i in range(16)])
    assert rates(schedules.warmup_cosine, n_epochs=4, steps_per_epoch=1, warmup=0.0)[0] == 1e-2


def test_constant_never_changes_the_rate() -> None:
    assert rates(schedules.constant, n_epochs=4, steps_per_epoch=3) == [1e-2] * 12
