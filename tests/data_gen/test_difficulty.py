"""Difficulties of APEBench: our problems with the parameters that follow from them solve its equations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate

from data_gen import difficulty
from neuralop_bench.config.compose import compose

# For each task the difficulties, and u after five snapshots from 0.6 sin(2 pi x) + 0.4 cos(4 pi x + 1) at every 20th of
# 160 points: made with exponax 0.1.0 in float64, ETDRK4 and 64 steps per snapshot. With dispersion exponax is accurate
# to first order in the step, so for kdv 256, 512 and 1024 steps were extrapolated to infinitely many.
TASKS: dict[str, tuple[Callable[..., dict[str, float]], dict[str, float], list[float]]] = {
    "advection": (
        difficulty.advection1d,
        {"gamma1": -4.0},
        [
            -0.0876756748,
            0.2161209223,
            0.0876756748,
            0.3838790777,
            0.7608524626,
            0.2161209223,
            -0.7608524626,
            -0.8161209223,
        ],
    ),
    "diffusion": (
        difficulty.diffusion1d,
        {"gamma2": 4.0},
        [
            0.2031923463,
            0.1013182437,
            0.3876258788,
            0.7342249032,
            0.2031923463,
            -0.7342249032,
            -0.7940105714,
            -0.1013182437,
        ],
    ),
    "burgers": (
        difficulty.burgers1d,
        {"gamma2": 1.5, "delta": -1.5},
        [
            0.2132794102,
            0.0933036258,
            0.3237124399,
            0.7151493844,
            0.3228968611,
            -0.9075519788,
            -0.6576925828,
            -0.0737463747,
        ],
    ),
    "kdv": (
        difficulty.kdv1d,
        {"gamma3": -14.0, "gamma4": -9.0, "delta": -2.0},
        [
            0.2176697044,
            0.0875077232,
            0.3072202261,
            0.7003353983,
            0.4001072347,
            -0.9397569124,
            -0.6152151116,
            -0.0645701644,
        ],
    ),
    "ks": (
        difficulty.ks1d,
        {"gamma2": -2.0, "gamma4": -18.0, "delta": -1.0},
        [
            0.2258820688,
            0.0809402731,
            0.3370423246,
            0.7523622354,
            0.3001112413,
            -0.9005585997,
            -0.7153857034,
            -0.0697260092,
        ],
    ),
}


def _problem(name: str) -> Any:
    return instantiate(compose(f"experiment=paper/apebench_{name}").dataset.problem)


@pytest.mark.parametrize("name", TASKS)
def test_an_experiment_has_the_parameters_of_its_difficulties(name: str) -> None:
    function, difficulties, _ = TASKS[name]
    problem = _problem(name)
    for key, value in function(**difficulties, n_points=160).items():
        assert getattr(problem, key) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name", TASKS)
def test_the_problem_of_an_experiment_solves_apebenchs_equation(name: str) -> None:
    _, _, expected = TASKS[name]
    problem = _problem(name)
    problem = replace(problem, warm_up=0.0) if name == "ks" else problem
    x = np.arange(160) / 160
    start = 0.6 * np.sin(2 * np.pi * x) + 0.4 * np.cos(4 * np.pi * x + 1)
    found = problem.solve(start[None, None, None], np.empty((1, 0, 160)), 5).trajectory
    np.testing.assert_allclose(found[0, -1, 0, ::20], expected, atol=2e-6)


def test_a_larger_state_makes_the_same_equation_as_difficult() -> None:
    plain = difficulty.burgers1d(gamma2=1.5, delta=-1.5, n_points=160)
    larger = difficulty.burgers1d(gamma2=1.5, delta=-3.0, n_points=160, largest=2.0)
    assert larger == pytest.approx(plain)
