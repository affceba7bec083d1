"""The contract of every problem. A new file in configs/dataset is tested here without further changes.

Problems are those of the smoke track. Orders, exact solutions, conserved quantities and symmetries are tested beside
this file, those of semilinear equations in tests/data_gen/test_semilinear.py.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from helpers.cells import GIVEN_AS_FILES
from hydra.utils import instantiate

from data_gen.generation import certificate
from data_gen.generation.random_streams import generator
from data_gen.spec import Problem, Samples
from neuralop_bench.config.compose import compose
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.runs import splits
from neuralop_bench.runtime.place import CONFIG_DIR

DATASETS = sorted({path.stem for path in (CONFIG_DIR / "task" / "smoke").glob("*.yaml")} - {*GIVEN_AS_FILES})
every_problem = pytest.mark.parametrize("dataset", DATASETS)


@functools.cache
def smoke(dataset: str) -> RunConfig:
    return compose(f"dataset={dataset}", "track=smoke")


def problem_of(dataset: str) -> Problem:
    return instantiate(smoke(dataset).dataset.problem)


@functools.cache
def draw(dataset: str, *samples: int) -> Samples:
    return problem_of(dataset).simulate([generator(0, "test", i) for i in samples])


def test_every_dataset_has_a_smoke_task_or_is_a_variant_of_one() -> None:
    variants = {path.stem for path in (CONFIG_DIR / "dataset").glob("*.yaml")} - {*DATASETS, *GIVEN_AS_FILES}
    assert all(any(name.startswith(f"{base}_") for base in DATASETS) for name in variants)


@every_problem
def test_a_sample_depends_on_its_own_stream_alone(dataset: str) -> None:
    several, alone = draw(dataset, 0, 1, 2), draw(dataset, 2)
    for whole, part in zip(several[:3], alone[:3], strict=True):
        # Up to rounding: transforms of another number of samples may differ in their last digits.
        np.testing.assert_allclose(whole[2:], part, rtol=0, atol=1e-10 * np.abs(part).max(initial=0.0))


@pytest.mark.exhaustive
@every_problem
def test_every_test_split_is_as_accurate_as_it_must_be(dataset: str, tmp_path: Path) -> None:
    cfg = compose(f"dataset={dataset}", "track=smoke", "splits.test=1", f"paths.data={tmp_path}")
    for split in cfg.dataset.test_splits:
        assert splits.ensure(splits.split_of(cfg, split), workers=1).is_file()  # or an error that names the tolerance


@every_problem
def test_samples_have_the_shapes_of_the_spec(dataset: str) -> None:
    spec, samples = problem_of(dataset).spec, draw(dataset, 0, 1, 2)
    assert samples.trajectory.shape == (3, spec.n_snapshots, len(spec.state), *spec.grid.shape)
    assert samples.static.shape == (3, len(spec.static), *spec.grid.shape)
    assert samples.history.shape == (3, 0 if spec.is_steady else 1, len(spec.state), *spec.grid.shape)
    assert samples.diagnostics.keys() == {field.name for field in spec.diagnostics}
    assert all(np.isfinite(array).all() for array in samples[:3])


@every_problem
def test_the_measured_error_is_below_the_tolerance(dataset: str) -> None:
    errors = certificate.measure(problem_of(dataset), [generator(0, "test", 0)], [generator(0, "test", 0)])
    assert 0 <= np.max(errors) <= smoke(dataset).dataset.tolerance


# Solvers that lose too many digits in single precision, and say so.
DOUBLE_ALONE = {"obstacles2d"}


@pytest.mark.parametrize("dataset", sorted(DOUBLE_ALONE))
def test_single_precision_is_refused_where_it_would_be_too_little(dataset: str) -> None:
    samples = draw(dataset, 0, 1, 2)
    with pytest.raises(ValueError, match="float64"):
        problem_of(dataset).solve(samples.history, samples.static, 1, samples.parameters, dtype=np.float32)


@pytest.mark.parametrize("dataset", sorted({*DATASETS} - DOUBLE_ALONE))
def test_single_precision_is_that_of_all_arithmetic(dataset: str) -> None:
    problem, samples = problem_of(dataset), draw(dataset, 0, 1, 2)
    if problem.spec.is_steady:  # solved to a residual that single precision reaches
        problem = problem.relaxed(1e4)
    given = {"parameters": samples.parameters} if samples.parameters else {}
    double, single = (
        problem.solve(samples.history, samples.static, 1, **given, dtype=dtype).trajectory
        for dtype in (np.float64, np.float32)
    )
    error = np.abs(single - double).max() / np.abs(double).max()
    # The same inputs in single precision, but solved in double, would differ by less than 6e-8.
    assert 1e-7 < error < 1e-5


@every_problem
def test_bad_parameters_are_refused_by_name(dataset: str) -> None:
    with pytest.raises(Exception, match="resolution"):  # Hydra's error, which wraps the problem's
        instantiate(smoke(dataset).dataset.problem | {"resolution": 1})
