"""Implicit diffusion with storage: exact solutions, orders, conservation, independence of samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from data_gen.solvers.storage import State, Storage, march
from data_gen.spec import SolverError

LINEAR = Storage(of=lambda u: 2 * u, slope=lambda u: np.full_like(u, 2.0))
POWER = Storage(
    of=lambda u: u + 2.5 * np.sign(u) * np.abs(u) ** 0.8, slope=lambda u: 1 + 2 * np.maximum(np.abs(u), 1e-12) ** -0.2
)


def x(n: int) -> NDArray[np.float64]:
    return np.linspace(0, 1, n)


def last(storage: Storage, start: NDArray[Any], duration: float, n_steps: int, diffusivity: float = 1e-3) -> State:
    steps = [[duration / n_steps] * n_steps]
    (state,) = march(storage, np.full(len(start), diffusivity), start, 1.0, steps)
    return state


def front(t: float, n: int) -> NDArray[np.float64]:
    """u on a half line that was empty at t = 0, for R = 2 and D = 1e-3."""
    return scipy.special.erfc(x(n) / (2 * np.sqrt(1e-3 / 2 * t)))[None]


def test_a_front_enters_a_linear_medium() -> None:
    errors = [np.abs(last(LINEAR, front(5, n), 10, 200).values - front(15, n)).max() for n in (65, 129, 257)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2, abs=0.1)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(2, abs=0.1)


def test_the_error_is_of_third_order_in_the_step() -> None:
    start = last(POWER, np.full((1, 65), 0.1), 40, 100).values  # smooth at both ends
    fine = last(POWER, start, 80, 640).values
    errors = [np.abs(last(POWER, start, 80, n).values - fine).max() for n in (5, 10, 20)]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(3, abs=0.3)
    assert np.log2(errors[1] / errors[2]) == pytest.approx(3, abs=0.3)


def test_at_last_what_flows_in_flows_out() -> None:
    d = 0.2  # D (1 - u(1)) = u(1), with a straight profile
    found = last(POWER, np.full((1, 33), 0.3), 2000, 200, diffusivity=d).values[0]
    np.testing.assert_allclose(found, 1 - x(33) / (1 + d), atol=1e-9)


@pytest.mark.parametrize("storage", [LINEAR, POWER], ids=["linear", "power"])
def test_inflow_less_outflow_is_stored(storage: Storage) -> None:
    assert last(storage, np.full((2, 65), 0.2), 100, 20).imbalance.max() < 1e-12


def test_a_jump_does_not_overshoot_with_long_steps() -> None:
    found = last(POWER, np.full((1, 65), 0.1), 200, 4).values
    assert found.min() >= 0
    assert found.max() <= 1 + 1e-9


def test_samples_do_not_mix() -> None:
    start = np.stack([np.full(33, 0.2), np.full(33, 1e-3), -0.1 * x(33)])
    together = last(POWER, start, 50, 10)
    for i in range(3):
        alone = last(POWER, start[i : i + 1], 50, 10)
        assert np.array_equal(alone.values[0], together.values[i])
        assert alone.iterations[0] == together.iterations[i]


def test_single_precision_stays_single() -> None:
    start = np.full((1, 65), 0.2)
    single = last(POWER, start.astype(np.float32), 50, 10).values
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, last(POWER, start, 50, 10).values, atol=1e-5)


def test_a_stage_without_a_solution_names_the_sample_and_the_option() -> None:
    # m doesn't increase: its slope is given with the wrong sign.
    wrong = Storage(of=LINEAR.of, slope=lambda u: np.full_like(u, -0.5))
    with pytest.raises(SolverError, match=r"didn't converge for sample 0 .* Lower dataset\.problem\.first_step"):
        last(wrong, np.full((1, 33), 0.2), 1e-3, 1)
