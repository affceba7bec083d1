"""The evaluator with the standard metrics: what is scored, what is counted, and that batches can't matter.

Metrics come from configs/evaluator, so a new one is tested here without a further line.
"""

import math
import multiprocessing
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hydra.utils import instantiate
from torch import Tensor

from data_gen.problems.ns2d import NavierStokes2D
from data_gen.spec import FieldSpec, Samples
from data_gen.store import to_fields, write
from neuralop_bench.batch import Batch
from neuralop_bench.config.compose import compose
from neuralop_bench.data.trajectories import Trajectories, Windows
from neuralop_bench.evaluation.evaluator import evaluate, summarise
from neuralop_bench.metrics.metric import Metric, MetricContext
from neuralop_bench.runtime.processes import ALONE, Processes

HISTORY, HORIZON, N_SAMPLES = 3, 4, 8


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    """Whole Navier-Stokes trajectories, from t = 2, so that times aren't indices."""
    problem = NavierStokes2D(
        viscosity=1e-3, resolution=16, oversampling=1.0, first_time=2.0, interval=0.5, n_snapshots=HISTORY + HORIZON + 1
    )
    samples = problem.simulate([np.random.default_rng(i) for i in range(N_SAMPLES)])
    # Samples of different size, so that an average over all points isn't the mean over samples.
    size = np.linspace(1, 2, N_SAMPLES)[:, None, None, None, None]
    samples = samples._replace(history=size * samples.history, trajectory=size * samples.trajectory)
    path = tmp_path_factory.mktemp("evaluator") / "ns2d.hdf5"
    write(path, problem.spec, [to_fields(problem.spec, samples)], N_SAMPLES, split="test", seed=0, provenance={})
    return Trajectories(path, n_samples=N_SAMPLES, history=HISTORY, horizon=HORIZON).whole()


@pytest.fixture(scope="module")
def metrics(windows: Windows) -> list[Metric]:
    """Every metric of the standard evaluator."""
    nodes = compose("track=smoke").evaluator.metrics
    context = MetricContext(windows.source.spec, np.array([1.0]), windows.source.spec.grid)
    return [instantiate(node)(context) for node in nodes.values()]


class Predicting:
    """A predictor made of a function of the batch; it keeps the batches it was given."""

    def __init__(self, function: Callable[[Batch, int], Tensor]) -> None:
        self.function, self.batches = function, list[Batch]()

    def predict(self, batch: Batch, n_steps: int) -> Tensor:
        self.batches.append(batch)
        return self.function(batch, n_steps)


def decaying_persistence(batch: Batch, n_steps: int) -> Tensor:
    """Point by point, so a sample's prediction can't depend on its batch."""
    factors = torch.linspace(0.95, 0.8, n_steps).view(1, n_steps, 1, 1, 1)
    return batch.history[:, -1:].roll(1, dims=-1) * factors


def run(
    function: Callable[[Batch, int], Tensor], windows: Windows, metrics: Sequence[Metric], batch_size: int = 3
) -> xr.Dataset:
    return evaluate(Predicting(function), windows, metrics, batch_size=batch_size, processes=ALONE)


def assert_identical(left: dict[str, float], right: dict[str, float]) -> None:
    """Equal to the bit, nan included."""
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert np.float64(value).tobytes() == np.float64(right[name]).tobytes(), name


def test_truth_scores_zero_and_every_column_is_there(windows: Windows, metrics: list[Metric]) -> None:
    columns = summarise(run(lambda batch, _: batch.target, windows, metrics), metrics)
    for name in ("rel_l2", "vrmse", "max_error", "spec_low", "n_diverged", "n_floored_rel_l2"):
        assert columns[name] == 0, name


def test_the_predictor_is_given_history_and_asked_for_the_horizon(windows: Windows, metrics: list[Metric]) -> None:
    asked = []

    def function(batch: Batch, n_steps: int) -> Tensor:
        asked.append(n_steps)
        return batch.target

    predictor = Predicting(function)
    evaluate(predictor, windows, metrics, batch_size=3, processes=ALONE)
    assert asked == [HORIZON] * 3
    assert [len(batch.history) for batch in predictor.batches] == [3, 3, 2]
    assert all(batch.history.shape[1] == HISTORY for batch in predictor.batches)


def test_history_is_never_scored(windows: Windows, metrics: list[Metric]) -> None:
    # Nothing of the target is predicted while the history is perfect: counting it would make the error less than 1.
    columns = summarise(run(lambda batch, _: torch.zeros_like(batch.target), windows, metrics), metrics)
    for name in ("rel_l2", "rel_l2_median", "rel_l2_first_step", "rel_l2_last_step", "max_error", "spec_low"):
        assert columns[name] == pytest.approx(1, rel=1e-12), name
    # Garbage of another size than the field scores badly in proportion.
    garbage = summarise(run(lambda batch, _: -9 * batch.target, windows, metrics), metrics)
    for name in ("rel_l2", "rel_l2_first_step", "rel_l2_last_step", "max_error", "spec_low"):
        assert garbage[name] == pytest.approx(10, rel=1e-6), name
    assert garbage["vrmse"] > 9


def test_scores_are_those_of_a_direct_computation(windows: Windows, metrics: list[Metric]) -> None:
    columns = summarise(run(decaying_persistence, windows, metrics), metrics)
    batch = windows[list(range(N_SAMPLES))]
    prediction = decaying_persistence(batch, HORIZON).double().flatten(1)
    target = batch.target.double().flatten(1)
    ratios = (prediction - target).norm(dim=1) / target.norm(dim=1)
    assert columns["rel_l2"] == pytest.approx(float(ratios.mean()), rel=1e-12)
    assert columns["rel_l2_max"] == pytest.approx(float(ratios.max()), rel=1e-12)


def test_a_single_sample_gives_finite_numbers(windows: Windows, metrics: list[Metric]) -> None:
    source = windows.source
    alone = Trajectories(source.path, n_samples=1, history=HISTORY, horizon=HORIZON).whole()
    columns = summarise(run(decaying_persistence, alone, metrics), metrics)
    everything = summarise(run(decaying_persistence, windows, metrics), metrics)
    assert {name for name, value in columns.items() if not math.isfinite(value)} == {
        name for name, value in everything.items() if not math.isfinite(value)
    }
    assert math.isfinite(columns["rel_l2"])


@pytest.mark.parametrize("batch_size", [3, 7, 100])
def test_batch_size_changes_no_bit(batch_size: int, windows: Windows, metrics: list[Metric]) -> None:
    single = run(decaying_persistence, windows, metrics, batch_size=1)
    together = run(decaying_persistence, windows, metrics, batch_size=batch_size)
    assert single.identical(together)
    for name in single.data_vars:
        assert single[name].values.tobytes() == together[name].values.tobytes(), name
    assert_identical(summarise(single, metrics), summarise(together, metrics))


def test_a_prediction_of_another_shape_is_refused(windows: Windows, metrics: list[Metric]) -> None:
    for wrong in (lambda batch, _: batch.target[:, 1:], lambda batch, _: batch.target[..., :1]):
        with pytest.raises(ValueError, match=r"shape \(3, .*expected \(3, 4, 1, 16, 16\)"):
            run(wrong, windows, metrics)


def test_other_inputs_than_the_scored_windows_own_can_be_given(windows: Windows, metrics: list[Metric]) -> None:
    # The same samples with a shorter history stand for those on another grid.
    path = windows.source.path
    inputs = Trajectories(path, n_samples=N_SAMPLES, history=HISTORY - 1, horizon=HORIZON).whole()
    truth = iter(windows.in_order(5))
    predictor = Predicting(lambda *_: next(truth).target)
    errors = evaluate(predictor, windows, metrics, batch_size=5, processes=ALONE, inputs=inputs)
    assert [batch.history.shape for batch in predictor.batches] == [(n, HISTORY - 1, 1, 16, 16) for n in (5, 3)]
    assert summarise(errors, metrics)["rel_l2"] == 0, "scored against the windows' own targets"


@dataclass(frozen=True)
class _InThreads(Processes):
    """Processes of one test: threads that exchange their items."""

    exchange: dict[int, list[Any]] = field(default_factory=dict)
    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2))

    def gathered(self, items: Sequence[Any]) -> list[Any]:
        self.exchange[self.rank] = list(items)
        self.barrier.wait(timeout=60)
        return [item for rank in range(self.n) for item in self.exchange[rank]]


def test_each_of_several_processes_measures_its_part_and_gets_the_whole(
    windows: Windows, metrics: list[Metric]
) -> None:
    alone = run(decaying_persistence, windows, metrics)
    first = _InThreads(0, 2)
    predictors = [Predicting(decaying_persistence) for _ in range(2)]

    def share(processes: Processes) -> xr.Dataset:
        return evaluate(predictors[processes.rank], windows, metrics, batch_size=3, processes=processes)

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(share, [first, replace(first, rank=1)]))
    assert [[len(batch.history) for batch in predictor.batches] for predictor in predictors] == [[3, 2], [3]]
    for errors in found:
        assert errors.identical(alone)


def _measured_apart(path: Path, samples: list[int]) -> list[dict[str, np.ndarray]]:
    """Statistics of some samples, in a process of their own."""
    part = Trajectories(path, n_samples=N_SAMPLES, history=HISTORY, horizon=HORIZON).whole()
    nodes = compose("track=smoke").evaluator.metrics
    context = MetricContext(part.source.spec, np.array([1.0]), part.source.spec.grid)
    batch = part[samples]
    prediction = decaying_persistence(batch, HORIZON)
    return [instantiate(node)(context).measure(prediction, batch) for node in nodes.values()]


@pytest.mark.exhaustive
def test_the_number_of_processes_changes_no_bit(windows: Windows, metrics: list[Metric]) -> None:
    alone = run(decaying_persistence, windows, metrics)
    shares = [list(range(0, N_SAMPLES, 2)), list(range(1, N_SAMPLES, 2))]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        parts = list(pool.map(_measured_apart, [windows.source.path] * 2, shares))
    apart = alone.copy(deep=True)
    for index, metric in enumerate(metrics):
        for name in metric.variables:
            together = np.concatenate([part[index][name] for part in parts])
            assert together.tobytes() == alone[name].values[np.concatenate(shares)].tobytes(), name
            apart[name] = (alone[name].dims, together)
    assert_identical(summarise(apart, metrics), summarise(alone, metrics))


def test_order_of_samples_changes_no_bit_of_the_summary(windows: Windows, metrics: list[Metric]) -> None:
    errors = run(decaying_persistence, windows, metrics)
    expected = summarise(errors, metrics)
    assert len(set(errors["error_mean_square"].sum(("time", "channel")).values)) == N_SAMPLES
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(N_SAMPLES)
        assert_identical(summarise(errors.isel(sample=order), metrics), expected)


def test_a_diverged_sample_counts_and_scores_infinity_while_the_median_is_finite(
    windows: Windows, metrics: list[Metric]
) -> None:
    def exploding(batch: Batch, n_steps: int) -> Tensor:
        prediction = decaying_persistence(batch, n_steps)
        # The last step of the largest samples becomes non-finite at one point.
        explodes = batch.history.abs().amax(dim=(1, 2, 3, 4)) > bound
        prediction[explodes, -1, 0, 0, 0] = torch.tensor([math.nan, math.inf])[: int(explodes.sum())]
        return prediction

    sizes = windows[list(range(N_SAMPLES))].history.abs().amax(dim=(1, 2, 3, 4)).sort().values
    bound = float(sizes[-3:-1].mean())
    finite = summarise(run(decaying_persistence, windows, metrics), metrics)
    errors = run(exploding, windows, metrics, batch_size=8)
    assert int((~errors["finite"]).sum()) == 2
    columns = summarise(errors, metrics)
    assert columns["n_diverged"] == 2
    for name in (
        "rel_l2",
        "rel_l2_max",
        "rel_l2_p95",
        "rel_l2_last_step",
        "vrmse",
        "max_error",
        "spec_low",
        "spec_low_mean",
    ):
        assert columns[name] == math.inf, name
    assert columns["rel_l2_first_step"] == finite["rel_l2_first_step"]
    assert finite["rel_l2"] / 2 < columns["rel_l2_median"] < math.inf
    # No column turns into "not measured" because of a divergence.
    assert {name for name, value in columns.items() if math.isnan(value)} == {
        name for name, value in finite.items() if math.isnan(value)
    }


def test_predictions_are_scored_in_single_precision(windows: Windows, metrics: list[Metric]) -> None:
    # A solver computes in float64 and a network perhaps in bfloat16; all are scored as float32.
    def double(batch: Batch, n_steps: int) -> Tensor:
        assert n_steps == HORIZON
        return batch.target.double() * (1 + 1e-12)

    assert summarise(run(double, windows, metrics), metrics)["rel_l2"] == 0


def test_dimensions_coordinates_and_versions_are_stored(windows: Windows, metrics: list[Metric]) -> None:
    errors = run(decaying_persistence, windows, metrics)
    assert errors["error_mean_square"].dims == ("sample", "time", "channel")
    assert errors["finite"].dims == ("sample",)
    for metric in metrics:
        assert errors.attrs[f"{metric.name}_version"] == metric.version
        for name, dimensions in metric.variables.items():
            assert errors[name].dims == dimensions
            assert errors[name].dtype == np.float64
            assert errors.sizes["sample"] == N_SAMPLES
    # The times of the predicted snapshots, not of the history.
    assert errors["time"].values.tolist() == [3.5, 4.0, 4.5, 5.0]
    assert errors["channel"].values.tolist() == ["vorticity"]
    assert errors["band"].values.tolist() == ["low", "mid", "high"]


def test_stored_statistics_give_the_same_columns(windows: Windows, metrics: list[Metric], tmp_path: Path) -> None:
    # A board can be recomputed from the file of a run.
    errors = run(decaying_persistence, windows, metrics)
    errors.to_netcdf(tmp_path / "errors.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "errors.nc", engine="h5netcdf") as stored:
        assert_identical(summarise(stored, metrics), summarise(errors, metrics))


def test_metrics_that_share_a_statistic_agree_on_it(windows: Windows, metrics: list[Metric]) -> None:
    batch = windows[[0, 1]]
    prediction = decaying_persistence(batch, HORIZON)
    seen: dict[str, np.ndarray] = {}
    for metric in metrics:
        for name, values in metric.measure(prediction, batch).items():
            assert np.array_equal(seen.setdefault(name, values), values), name


def test_a_steady_problem_has_one_step_at_time_zero(metrics: list[Metric], tmp_path: Path) -> None:
    spec = replace(NavierStokes2D(viscosity=1e-3, resolution=16).spec, times=(), diagnostics=())
    fields = np.random.default_rng(0).standard_normal((2, 1, 1, 16, 16))
    samples = Samples(fields[:, :0], np.empty((2, 0, 16, 16)), fields)
    write(tmp_path / "steady.hdf5", spec, [to_fields(spec, samples)], 2, split="test", seed=0, provenance={})
    whole = Trajectories(tmp_path / "steady.hdf5", n_samples=2, history=0, horizon=1).whole()
    errors = run(lambda batch, _: 1.1 * batch.target, whole, metrics)
    assert errors["time"].values.tolist() == [0.0]
    assert summarise(errors, metrics)["rel_l2"] == pytest.approx(0.1, rel=1e-6)


def test_what_lies_where_the_equation_does_not_hold_is_not_scored(metrics: list[Metric], tmp_path: Path) -> None:
    base = NavierStokes2D(viscosity=1e-3, resolution=16).spec
    spec = replace(base, times=(), diagnostics=(), static=(FieldSpec("distance", ""),), mask="distance")
    rng = np.random.default_rng(0)
    static = rng.standard_normal((2, 1, 16, 16))
    fields = np.where(static > 0, rng.standard_normal((2, 1, 16, 16)), 0)[:, None]
    samples = Samples(fields[:, :0], static, fields)
    write(tmp_path / "masked.hdf5", spec, [to_fields(spec, samples)], 2, split="test", seed=0, provenance={})
    whole = Trajectories(tmp_path / "masked.hdf5", n_samples=2, history=0, horizon=1).whole()
    wrong = run(lambda batch, _: batch.target + 7.0 * (batch.static[:, None] <= 0), whole, metrics)
    assert summarise(wrong, metrics)["rel_l2"] == 0
