"""Several equations in one dataset: each sample is what its own problem makes, in units of its size."""

import numpy as np
import pytest

from data_gen.generation.random_streams import generator
from data_gen.problems.burgers1d import Burgers1D
from data_gen.problems.darcy2d import Darcy2D
from data_gen.problems.kdv1d import KortewegDeVries1D
from data_gen.problems.ks1d import KuramotoSivashinsky1D
from data_gen.problems.mixture import Mixture
from data_gen.problems.swift_hohenberg import SwiftHohenberg
from data_gen.random_fields import LogUniform
from data_gen.spec import Problem

KDV = KortewegDeVries1D(n_snapshots=3, resolution=64)
KS = KuramotoSivashinsky1D(n_snapshots=3, resolution=64, warm_up=0.0)


def mixed(**changes: object) -> Mixture:
    arguments = {"problems": {"kdv": KDV, "ks": KS}, "scales": {"kdv": 0.5, "ks": 4.0}, "resolution": 64}
    return Mixture(**(arguments | changes))  # type: ignore[arg-type]


def test_a_sample_is_that_of_its_own_problem() -> None:
    found = mixed().simulate([generator(0, "train", i) for i in range(6)])
    which = found.parameters["equation"]
    assert {0.0, 1.0} == set(which)
    for sample, number in enumerate(which):
        rng = generator(0, "train", sample)
        rng.integers(2)  # the draw of the problem
        problem, scale = ((KDV, 0.5), (KS, 4.0))[int(number)]
        expected = problem.simulate([rng]).trajectory[0] / scale
        np.testing.assert_allclose(found.trajectory[sample], expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_the_solver_goes_on_with_each_samples_own_problem() -> None:
    mixture = mixed()
    found = mixture.simulate([generator(0, "test", i) for i in range(6)])
    solved = mixture.solve(found.trajectory[:, :1], found.static, 2, found.parameters)
    np.testing.assert_allclose(solved.trajectory, found.trajectory[:, 1:], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="equation"):
        mixture.solve(found.trajectory[:, :1], found.static, 2)


def test_only_one_problem_keeps_its_number() -> None:
    rngs = [generator(0, "test", i) for i in range(4)]
    assert mixed(only="ks").simulate(rngs).parameters["equation"].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Darcy2D(), "darcy2d, which is steady"),
        (Burgers1D(viscosity=LogUniform(1e-3, 1e-2), n_snapshots=3, resolution=64), "differ between samples"),
        (KortewegDeVries1D(n_snapshots=4), "n_snapshots"),
        (SwiftHohenberg(n_dims=2, n_snapshots=3), "same axes"),
    ],
)
def test_problems_that_cant_be_mixed_are_refused(problem: Problem, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mixed(problems={"kdv": KDV, "ks": problem})


@pytest.mark.parametrize("change", [{"scales": {"kdv": 1.0}}, {"scales": {"kdv": 1.0, "ks": 0.0}}, {"only": "x"}])
def test_names_and_scales_that_dont_fit_are_refused_by_key(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.{next(iter(change))}"):
        mixed(**change)
