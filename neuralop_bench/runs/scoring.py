"""Scores of a trained surrogate: on test, on further test sets, and against the dataset's own solver.

On other resolutions, the model is shown next to a control: its prediction on the training grid, interpolated. The
solver starts from the same inputs as the model. It runs on fractions of the file's grid, given by ``dataset.ladder``,
with the longest steps (or the loosest iterations) that change its error by less than 5 %. On a closed grid it gets a
coefficient in the best of four ways: its values at the nodes, or its arithmetic, geometric or harmonic means over
cells. On grids finer than the file's, the coefficient is drawn again from the streams of the samples, which is more
than the model is given. Where single precision is faster and changes the error by less than 5 %, the solver computes in
it. The same evaluator measures its errors, and it is timed on the same device with the same number of threads. Its
time for an error between those of two grids is interpolated in logarithms along the lower envelope of its curve of
error against time. That curve is measured once for each combination of test data, device, threads and libraries, and
kept beside the data.

Columns:
    transfer_half, transfer_double: rel_l2 on the samples of test, given at half and at double the resolution. Empty for
        a model that only works on the grid it was trained on.
    transfer_half_interpolated, transfer_double_interpolated: rel_l2 of the control.
    ood_factor: rel_l2 on a test set out of distribution (another distribution of inputs, another parameter) divided by
        rel_l2 on test; the geometric mean over all such sets. runs.csv has the factor of each set. A small factor isn't
        good in itself: a model that is bad on test can hardly get worse. So compare errors, not factors.
    speedup_at_equal_error: seconds that the solver takes to reach the model's rel_l2, divided by the model's own
        seconds; per trajectory, each at its best batch size. Both are timed in turns, and the median of five rounds
        counts.
    speedup_lowest, speedup_highest: the least and the largest of these rounds.
    speedup_at_equal_error_batch_1: the same for a single trajectory, from the curve and ``latency_ms``.
    speedup_is_bound: whether the model's error lies beyond the solver's curve, so that the true speed-up is larger (>)
        or smaller (<); 1 and -1 in records, otherwise 0.
    breakeven_solves: number of predictions after which data and training have paid for themselves, (seconds to generate
        train and valid on one core + training seconds times 1 + tuning_trials) / (the solver's seconds - the model's
        seconds); infinite if the solver is faster.
    data_error: largest relative L2 error of a snapshot of the test data, found by solving samples again. A rel_l2
        below three times this value says as much about the data as about the model, and is marked.
"""

from __future__ import annotations

import hashlib
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from data_gen.files import replacing, replacing_stream
from data_gen.grids import Grid
from data_gen.regrid import interpolate
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.config import constructors
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.data.trajectories import Trajectories
from neuralop_bench.evaluation import ladder
from neuralop_bench.evaluation.evaluator import evaluate, summarise
from neuralop_bench.evaluation.profiling import SAMPLE, can_profile, profile, samples
from neuralop_bench.evaluation.tables import result_tables, vanishing_note
from neuralop_bench.metrics.cost import count_parameters, forward_flops, prediction_cost
from neuralop_bench.metrics.metric import Metric, MetricContext
from neuralop_bench.records import published as published_values
from neuralop_bench.records.profile import Profile
from neuralop_bench.records.rung import Rung
from neuralop_bench.runs import splits
from neuralop_bench.runs.splits import LONG, Split
from neuralop_bench.runtime.processes import Processes
from neuralop_bench.runtime.table import Table
from neuralop_bench.surrogate.normalization import Moments
from neuralop_bench.surrogate.surrogate import Surrogate

Columns = dict[str, float | None]

# Test sets with columns of their own on boards (docs/decisions/016-thorough-evaluation.md).
TEST, OUT_OF_DISTRIBUTION = "test", "test_ood_"
TRANSFER = {"transfer_half": "test_half", "transfer_double": "test_double"}
# Suffix for the control: the prediction on the training grid, interpolated.
INTERPOLATED = "_interpolated"
_OF_THE_SOLVER = (
    "speedup_at_equal_error",
    "speedup_lowest",
    "speedup_highest",
    "speedup_at_equal_error_batch_1",
    "speedup_is_bound",
    "breakeven_solves",
)


@dataclass
class Score:
    """An evaluation; its measurements are added one after another.

    Attributes:
        errors: statistics per sample, by test set; ``test`` is among them.
        columns: columns, by test set.
        metrics: the columns of ``test``, and those that boards take from other test sets.
        versions: versions of the metrics.
        cost: cost of predictions, and how it compares with the solver if there is a ladder.
        rungs: the solver's curve of error against time.
        notes: why a column is empty or needs care, by column; why a rung was left out.
        published: a relative L2 to compare with and its source.
        data_error: measured error of the test data, from their certificate.
        data: provenance of the further test sets.
        samples: columns of test before their mean over samples.
        profile: curves and fields of test; None if the evaluator doesn't measure the quantities they need.
    """

    errors: dict[str, xr.Dataset]
    columns: dict[str, Columns]
    metrics: Columns
    versions: dict[str, int]
    cost: Columns = field(default_factory=dict)
    rungs: Sequence[Rung] = ()
    notes: dict[str, str] = field(default_factory=dict)
    published: tuple[float, str] | None = None
    data_error: float | None = None
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    samples: dict[str, list[float]] = field(default_factory=dict)
    profile: Profile | None = None

    @property
    def tables(self) -> list[Table]:
        """Tables for the terminal and the report."""
        return result_tables(
            self.metrics,
            self.errors[TEST],
            cost=self.cost,
            data_error=self.data_error,
            published=self.published,
            columns={name: entry for name, entry in self.columns.items() if name != TEST},
            rungs=self.rungs,
            notes=self.notes,
        )

    def write(self, errors: Path, report: Path) -> dict[str, str]:
        """Write the errors of each test set as NetCDF and the tables as markdown; return the SHA-256 of these files.

        The NetCDF files have checksums that every reader compares. The errors on test are written to ``errors``, others
        beside it.
        """
        written = [report]
        for name, found in self.errors.items():
            path = errors if name == TEST else errors.with_name(f"{errors.stem}.{name}{errors.suffix}")
            arrays = {str(key) for key, entry in found.variables.items() if entry.ndim and entry.dtype.kind in "fiu"}
            with replacing_stream(path) as stream:
                stream.write(found.to_netcdf(engine="h5netcdf", encoding={key: {"fletcher32": True} for key in arrays}))
            written.append(path)
        with replacing(report) as temporary:
            temporary.write_text("\n".join(table.to_markdown() for table in self.tables), encoding="utf-8")
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in written}


def score(cfg: RunConfig, surrogate: Surrogate, train: Trajectories, test: Trajectories, processes: Processes) -> Score:
    """Errors of free-running predictions on test. Only the variance of its targets is used from train."""
    return _score(cfg, surrogate, _context(cfg, train, test), test, processes)


def _score(
    cfg: RunConfig, surrogate: Surrogate, context: MetricContext, test: Trajectories, processes: Processes
) -> Score:
    metrics = _metrics(cfg.evaluator.metrics, context)
    errors = evaluate(surrogate, test.whole(), metrics, batch_size=cfg.evaluator.batch_size, processes=processes)
    columns = _summary(errors, metrics)
    entry = None if cfg.published.id is None else published_values.by_id()[cfg.published.id]
    return Score(
        errors={TEST: errors},
        columns={TEST: columns},
        metrics=dict(columns),
        versions={metric.name: metric.version for metric in metrics},
        notes={**surrogate.normalizer.remarks(test.spec), **vanishing_note(errors)},
        published=None if entry is None else (entry.value, entry.source),
        data_error=test.error,
        samples=samples(errors),
        profile=processes.first_does(lambda: _profile(errors, surrogate, test, processes.device)),
    )


def _profile(errors: xr.Dataset, surrogate: Surrogate, test: Trajectories, device: torch.device) -> Profile | None:
    if not can_profile(errors):
        return None
    windows = test.whole()
    shown = windows[[SAMPLE]]
    prediction = surrogate.predict(Batch(*(x.to(device) for x in shown)), windows.n_steps)
    return profile(errors, prediction, shown.target, test.spec)


def score_thoroughly(
    cfg: RunConfig,
    surrogate: Surrogate,
    train: Trajectories,
    test: Trajectories,
    processes: Processes,
    *,
    spent_seconds: float | None,
) -> Score:
    """``score`` with ``prediction_costs``, and the measurements of ``evaluator.test_splits`` and ``evaluator.ladder``.

    Args:
        cfg: the run's configuration.
        surrogate: the trained surrogate.
        train: the train split, for the variance of its targets.
        test: the test split, whose errors the others are compared with.
        processes: share the predictions; only the first measures times and solves, so that nothing disturbs it.
        spent_seconds: seconds spent on data, tuning and training; None if that isn't known.
    """
    context = _context(cfg, train, test)
    found = _score(cfg, surrogate, context, test, processes)
    if cfg.evaluator.test_splits:
        _add_test_sets(found, cfg, surrogate, context, processes)
        _add_board_columns(found, cfg)

    def measure() -> None:
        found.cost |= prediction_costs(surrogate, test, processes.device)
        if cfg.evaluator.ladder:
            _add_solver(found, cfg, surrogate, test, processes.device, spent_seconds)

    processes.first_does(measure)
    return found


def prediction_costs(surrogate: Surrogate, test: Trajectories, device: torch.device) -> Columns:
    """Parameters, operations, and the time to predict whole trajectories (``metrics.cost``)."""
    windows = test.whole()
    first = Batch(*(x.to(device) for x in windows[[0]]))
    return {
        "n_parameters": surrogate.n_parameters,
        "n_parameters_complex_as_one": count_parameters(surrogate.operator, complex_as=1),
        "gflops_forward": forward_flops(surrogate.operator, surrogate.encode(first.history, first.static)) / 1e9,
        **prediction_cost(surrogate, windows, device=device),
    }


# Further test sets ---------------------------------------------------------------------------------------------------


class _Interpolating:
    """The control for a transfer to another grid: predicts on the training grid and interpolates the prediction."""

    def __init__(self, surrogate: Surrogate, source: Grid, target: Grid) -> None:
        self._surrogate, self._source, self._target = surrogate, source, target

    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        predicted = self._surrogate.predict(batch, n_steps).cpu().numpy()
        return torch.from_numpy(interpolate(predicted, self._source, self._target))


def _add_test_sets(
    found: Score, cfg: RunConfig, surrogate: Surrogate, context: MetricContext, processes: Processes
) -> None:
    for name in splits.measured(cfg):
        split = splits.split_of(cfg, name)
        there = splits.opened(cfg, split)
        found.data[name] = splits.provenance(split, there)
        here = replace(context, spec=there.spec)
        metrics = _metrics(cfg.evaluator.metrics, here)
        rollout_metrics = _metrics(cfg.evaluator.rollout_metrics, here) if name == LONG else []
        for setting, options in _settings(found, cfg, surrogate, split, there, processes).items():
            everything = [*metrics, *rollout_metrics]
            errors = evaluate(
                windows=there.whole(),
                metrics=everything,
                batch_size=cfg.evaluator.batch_size,
                processes=processes,
                **options,
            )
            found.errors[setting], found.columns[setting] = errors, _summary(errors, everything)
            found.metrics |= {column: found.columns[setting][column] for column in _summary(errors, rollout_metrics)}
            found.versions |= {metric.name: metric.version for metric in rollout_metrics}


def _settings(
    found: Score,
    cfg: RunConfig,
    surrogate: Surrogate,
    split: Split,
    there: Trajectories,
    processes: Processes,
) -> dict[str, dict[str, Any]]:
    """The predictors for a test set, by name of the setting, as arguments of ``evaluate``.

    These are the surrogate and, if the grid isn't that of test, the surrogate's interpolated predictions. Imported test
    sets have no such control, since their samples aren't those of test.
    """
    origin = splits.split_of(cfg, TEST)
    grid, nodes = origin.source.spec.grid, there.spec.grid
    if nodes == grid:
        return {split.name: {"predictor": surrogate}}
    settings: dict[str, dict[str, Any]] = {}
    reason = processes.first_does(lambda: _why_not(surrogate, there))  # all processes must try the same
    if reason:
        found.notes[split.name] = reason
    else:
        settings[split.name] = {"predictor": surrogate}
    if split.source.problem is not None:
        inputs = splits.opened(cfg, replace(origin, n_samples=split.n_samples)).whole()
        control = {"predictor": _Interpolating(surrogate, grid, nodes), "inputs": inputs}
        settings[split.name + INTERPOLATED] = control
    return settings


def _why_not(surrogate: Surrogate, there: Trajectories) -> str:
    """Why a surrogate can't predict on a grid it wasn't trained on; an empty string if it can."""
    if not getattr(surrogate.operator, "resolution_free", False):
        return "the model isn't resolution_free: it works on the grid of its training alone"
    device = surrogate.normalizer.state_mean.device
    try:
        surrogate.predict(Batch(*(x.to(device) for x in there.whole()[[0]])), 1)
    except (ValueError, RuntimeError) as reason:  # e.g. a grid too coarse for the model's modes
        return str(reason)
    return ""


def _add_board_columns(found: Score, cfg: RunConfig) -> None:
    """Add the columns that boards take from further test sets, and why a column is empty."""

    def missing(name: str) -> str:
        if name in found.notes:
            return found.notes[name]
        if name in splits.further(cfg):
            return f"{name} isn't among evaluator.test_splits"
        return f"the dataset has no {name}"

    for column, name in TRANSFER.items():
        for suffix in ("", INTERPOLATED):
            found.metrics[column + suffix] = found.columns.get(name + suffix, {}).get("rel_l2")
        if name not in found.columns:
            found.notes[column] = missing(name)
    if LONG not in found.columns:
        found.notes |= dict.fromkeys(cfg.evaluator.rollout_metrics, missing(LONG))
    factors: list[float] = []
    own = found.metrics["rel_l2"]
    for name, entry in found.columns.items():
        if name.startswith(OUT_OF_DISTRIBUTION) and own and math.isfinite(own) and entry["rel_l2"] is not None:
            entry["ood_factor"] = entry["rel_l2"] / own
            factors.append(entry["rel_l2"] / own)
    found.metrics["ood_factor"] = float(np.prod(factors) ** (1 / len(factors))) if factors else None
    if not factors:
        found.notes["ood_factor"] = "there is no test set out of distribution, or no finite error on test"


# The solver ----------------------------------------------------------------------------------------------------------


def _add_solver(
    found: Score,
    cfg: RunConfig,
    surrogate: Surrogate,
    test: Trajectories,
    device: torch.device,
    spent_seconds: float | None,
) -> None:
    """Add the solver's own curve of error against time, and compare the surrogate with it."""
    found.cost |= dict.fromkeys(_OF_THE_SOLVER)
    source = splits.split_of(cfg, TEST).source
    reason = ""
    if source.problem is None:
        reason = "imported data have no solver to compare with"
    elif not cfg.dataset.ladder:
        reason = "dataset.ladder names no grids to solve on"
    else:
        found.rungs, left_out = ladder.climb_once(
            source.folder, source.problem, cfg.dataset.ladder, test.whole(), device=device
        )
        found.notes |= {f"solver on {resolution}": why for resolution, why in left_out.items()}
        if not found.rungs:
            reason = "no grid of dataset.ladder gave a finite solution"
        elif not math.isfinite(found.metrics["rel_l2"] or 0.0):
            reason = "the predictions diverged, so there is no error to compare at"
    if reason:
        found.notes |= {"speedup_at_equal_error": reason, "breakeven_solves": reason}
    else:
        assert source.problem is not None
        error, batch_size = found.metrics["rel_l2"] or 0.0, int(found.cost["throughput_batch_size"] or 1)
        factors = ladder.speedups(
            surrogate, batch_size, found.rungs, source.problem, test.whole(), error, device=device
        )
        _compare(found, error, factors, spent_seconds)


def _compare(found: Score, error: float, factors: Sequence[float], spent_seconds: float | None) -> None:
    own = 1 / (found.cost["throughput"] or math.inf)
    _, bound = ladder.seconds_at_error(found.rungs, error)
    single, _ = ladder.seconds_at_error(found.rungs, error, of="latency_seconds")
    speedup = statistics.median(factors)
    found.cost["speedup_at_equal_error"] = speedup
    found.cost["speedup_lowest"], found.cost["speedup_highest"] = min(factors), max(factors)
    found.cost["speedup_at_equal_error_batch_1"] = 1e3 * single / (found.cost["latency_ms"] or math.inf)
    found.cost["speedup_is_bound"] = {"<": -1.0, "": 0.0, ">": 1.0}[bound]
    if bound:
        side, end = ("less", "larger than on the coarsest") if bound == "<" else ("more", "smaller than on the finest")
        found.notes["speedup_at_equal_error"] = f"the true value is {side}: the error is {end} grid of the solver"
    if spent_seconds is None:
        found.notes["breakeven_solves"] = "what generating the data took isn't known"
    else:
        found.cost["breakeven_solves"] = ladder.breakeven_solves(spent_seconds, speedup * own, own)


# Parts ---------------------------------------------------------------------------------------------------------------


def _metrics(nodes: Mapping[str, Any], context: MetricContext) -> list[Metric]:
    return [constructors.build(node)(context) for node in nodes.values()]


def _context(cfg: RunConfig, train: Trajectories, test: Trajectories) -> MetricContext:
    variance = _channel_variance(train.whole().in_order(cfg.evaluator.batch_size))
    return MetricContext(test.spec, variance, train_grid=train.spec.grid)


def _summary(errors: xr.Dataset, metrics: Sequence[Metric]) -> Columns:
    return {name: None if np.isnan(value) else value for name, value in summarise(errors, metrics).items()}


def _channel_variance(targets: Iterable[Batch]) -> NDArray[np.float64]:
    """Variance of all target values per channel, [C]."""
    moments = Moments()
    for batch in targets:
        moments.add(batch.target.double().transpose(0, 2).flatten(1))
    return moments.result()[1].square().numpy()
