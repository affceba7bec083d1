"""What a trained surrogate scores: on test, on further test sets, and beside the dataset's own solver.

On other resolutions stands the control beside the model: the prediction made on the training grid, interpolated. The
solver is given what the model is given, on the fractions ``dataset.ladder`` of the file's grid, with the longest steps
(or the loosest iterations) that change its error by less than 5 %. It goes through the same evaluator and is timed on
the same device with the same threads; what it takes for an error between two grids is interpolated in logarithms
along the lower envelope of its curve. That curve is measured once per test data, device, threads and libraries, and
kept beside the data.

Columns:
    transfer_half, transfer_double: rel_l2 on the samples of test, given on half and on double the resolution. Empty for
        a model that works on the grid of its training alone.
    transfer_half_interpolated, transfer_double_interpolated: rel_l2 of the control.
    ood_factor: rel_l2 on a test set out of distribution (another law of inputs, another parameter) over that on test;
        the geometric mean over all such sets, each of which has its own in runs.csv.
    speedup_at_equal_error: seconds that the solver takes for an error as large as the model's rel_l2, over the model's
        own seconds; per trajectory, each at its best batch size.
    speedup_at_equal_error_batch_1: the same for one trajectory alone.
    speedup_is_bound: whether the model's error lies beyond the solver's curve, so that the true speed-up is larger (>)
        or smaller (<); 1 and -1 in records, otherwise 0.
    breakeven_solves: predictions after which data and training are paid for, (seconds to generate train and valid on
        one core + training seconds times 1 + tuning_trials) / (the solver's seconds - the model's seconds); infinite if
        the solver is faster.
    data_error: largest relative L2 error of a snapshot of the test data, found by solving samples again. A rel_l2
        below three times it tells as much about the data as about the model, and is marked.
"""

from __future__ import annotations

import hashlib
import math
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
from neuralop_bench import constructors, datasets
from neuralop_bench.batch import Batch, Trajectory
from neuralop_bench.config import RunConfig
from neuralop_bench.data import Trajectories
from neuralop_bench.datasets import Split
from neuralop_bench.evaluation import ladder
from neuralop_bench.evaluation.evaluator import evaluate, summarise
from neuralop_bench.evaluation.ladder import Rung
from neuralop_bench.evaluation.tables import result_tables
from neuralop_bench.metrics.cost import count_parameters, forward_flops, prediction_cost
from neuralop_bench.metrics.metric import Metric, MetricContext
from neuralop_bench.normalization import Moments
from neuralop_bench.surrogate import Surrogate
from neuralop_bench.table import Table

Columns = dict[str, float | None]

# Test sets that boards know by name (docs/decisions/016-thorough-evaluation.md).
TEST, LONG, OUT_OF_DISTRIBUTION = "test", "test_long", "test_ood_"
TRANSFER = {"transfer_half": "test_half", "transfer_double": "test_double"}
# Of the control: the prediction made on the training grid, interpolated.
INTERPOLATED = "_interpolated"


@dataclass(frozen=True)
class Score:
    """An evaluation.

    Attributes:
        errors: statistics per sample, by test set; ``test`` is among them.
        columns: of each test set.
        metrics: the columns of ``test``, and those that boards take from other test sets.
        versions: of the metrics.
        cost: what predictions take, beside the solver if there is a ladder.
        rungs: the solver's curve of error against time.
        notes: why a column is empty or what has to be known of it, by its name; why a rung was left out.
        published: a relative L2 to compare with and its source.
        data_error: measured error of the test data, as their certificate tells.
        data: provenance of the further test sets.
    """

    errors: Mapping[str, xr.Dataset]
    columns: Mapping[str, Columns]
    metrics: Columns
    versions: dict[str, int]
    cost: Columns = field(default_factory=dict)
    rungs: Sequence[Rung] = ()
    notes: dict[str, str] = field(default_factory=dict)
    published: tuple[float, str] | None = None
    data_error: float | None = None
    data: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """For terminal and report."""
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
        """The errors of each test set as NetCDF, with checksums that every reader compares, and the tables as markdown;
        the SHA-256 of these files. Those of test are written to ``errors``, others beside it."""
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


def score(cfg: RunConfig, surrogate: Surrogate, train: Trajectories, test: Trajectories, device: torch.device) -> Score:
    """Errors of free-running predictions on test, and what they cost; of train only the variance of its targets is
    used."""
    metrics = _metrics(cfg.evaluator.metrics, _context(cfg, train, test))
    errors = evaluate(surrogate, test.whole(), metrics, batch_size=cfg.evaluator.batch_size, device=device)
    columns = _summary(errors, metrics)
    value, source = cfg.published.value, cfg.published.source
    return Score(
        errors={TEST: errors},
        columns={TEST: columns},
        metrics=dict(columns),
        versions={metric.name: metric.version for metric in metrics},
        cost=_cost(surrogate, test, device),
        published=None if value is None or source is None else (value, source),
        data_error=test.error,
    )


def score_thoroughly(
    cfg: RunConfig,
    surrogate: Surrogate,
    train: Trajectories,
    test: Trajectories,
    device: torch.device,
    *,
    spent_seconds: float | None,
) -> Score:
    """``score``, and what ``evaluator.test_splits`` and ``evaluator.ladder`` ask for beside it.

    Args:
        cfg: of the run.
        surrogate: trained.
        train: for the variance of its targets.
        test: for the errors that others are compared with.
        device: where to predict, and to solve.
        spent_seconds: on data, tuning and training; None if that isn't known.
    """
    found = score(cfg, surrogate, train, test, device)
    if cfg.evaluator.test_splits:
        found = _elsewhere(cfg, surrogate, train, test, device, found)
    if cfg.evaluator.ladder:
        found = _beside_solver(cfg, test, device, spent_seconds, found)
    return found


# Further test sets ---------------------------------------------------------------------------------------------------


class _Interpolating:
    """The control of a transfer: predicts on its own grid and interpolates the prediction."""

    def __init__(self, surrogate: Surrogate, source: Grid, target: Grid) -> None:
        self._surrogate, self._source, self._target = surrogate, source, target

    def predict(self, batch: Batch, n_steps: int) -> Trajectory:
        predicted = self._surrogate.predict(batch, n_steps).cpu().numpy()
        return torch.from_numpy(interpolate(predicted, self._source, self._target))


def _elsewhere(
    cfg: RunConfig,
    surrogate: Surrogate,
    train: Trajectories,
    test: Trajectories,
    device: torch.device,
    found: Score,
) -> Score:
    """Errors on further test sets, and what boards make of them."""
    errors, columns, notes = dict(found.errors), dict(found.columns), dict(found.notes)
    versions, board, data = dict(found.versions), dict(found.metrics), dict(found.data)
    context = _context(cfg, train, test)
    names = cfg.dataset.test_splits if "all" in cfg.evaluator.test_splits else cfg.evaluator.test_splits
    for name in names:
        split = datasets.split_of(cfg, name)
        there = datasets.opened(cfg, split)
        data[name] = datasets.provenance(split, there)
        here = replace(context, spec=there.spec)
        metrics = _metrics(cfg.evaluator.metrics, here)
        rollout_metrics = _metrics(cfg.evaluator.rollout_metrics, here) if name == LONG else []
        for setting, options in _settings(cfg, surrogate, split, there, notes).items():
            try:
                measured = evaluate(
                    windows=there.whole(),
                    metrics=[*metrics, *rollout_metrics],
                    batch_size=cfg.evaluator.batch_size,
                    device=device,
                    **options,
                )
            except ValueError as reason:  # e.g. a grid too coarse for the model's modes
                notes[setting] = str(reason)
                continue
            errors[setting], columns[setting] = measured, _summary(measured, [*metrics, *rollout_metrics])
            board |= {column: columns[setting][column] for column in _summary(measured, rollout_metrics)}
            versions |= {metric.name: metric.version for metric in rollout_metrics}
    taken, reasons = _board_columns(cfg, columns, notes)
    return replace(
        found,
        errors=errors,
        columns=columns,
        metrics={**taken, **board},
        versions=versions,
        notes={**notes, **reasons},
        data=data,
    )


def _settings(
    cfg: RunConfig, surrogate: Surrogate, split: Split, there: Trajectories, notes: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Who predicts a test set, by the name of the setting, with the arguments of ``evaluate``: the surrogate, and on
    another grid than that of test its interpolated predictions beside it."""
    origin = datasets.split_of(cfg, TEST)
    grid, nodes = origin.source.spec.grid, there.spec.grid
    if nodes == grid:
        return {split.name: {"predictor": surrogate}}
    inputs = datasets.opened(cfg, replace(origin, n_samples=split.n_samples)).whole()
    control = {"predictor": _Interpolating(surrogate, grid, nodes), "inputs": inputs}
    if getattr(surrogate.operator, "resolution_free", False):
        return {split.name: {"predictor": surrogate}, split.name + INTERPOLATED: control}
    notes[split.name] = f"{cfg.model['label']} isn't resolution_free: it works on the grid of its training alone"
    return {split.name + INTERPOLATED: control}


def _board_columns(
    cfg: RunConfig, columns: Mapping[str, Columns], notes: Mapping[str, str]
) -> tuple[Columns, dict[str, str]]:
    """What boards take from further test sets, and why a column is empty."""
    board: Columns = {}
    reasons: dict[str, str] = {}

    def missing(name: str) -> str:
        if name in notes:
            return notes[name]
        if name in cfg.dataset.test_splits:
            return f"{name} isn't among evaluator.test_splits"
        return f"the dataset has no {name}"

    for column, name in TRANSFER.items():
        board[column] = columns.get(name, {}).get("rel_l2")
        board[column + INTERPOLATED] = columns.get(name + INTERPOLATED, {}).get("rel_l2")
        if name not in columns:
            reasons[column] = missing(name)
    shifted = {
        name: _ratio(entry.get("rel_l2"), columns[TEST].get("rel_l2"))
        for name, entry in columns.items()
        if name.startswith(OUT_OF_DISTRIBUTION)
    }
    factors = [factor for factor in shifted.values() if factor is not None]
    for name, factor in shifted.items():
        columns[name]["ood_factor"] = factor
    board["ood_factor"] = math.exp(math.fsum(map(math.log, factors)) / len(factors)) if factors else None
    if not factors:
        reasons["ood_factor"] = "no test set out of distribution was measured"
    if LONG not in columns:
        reasons |= dict.fromkeys(cfg.evaluator.rollout_metrics, missing(LONG))
    return board, reasons


def _ratio(value: float | None, reference: float | None) -> float | None:
    return value / reference if value and reference and math.isfinite(value) and math.isfinite(reference) else None


# The solver ----------------------------------------------------------------------------------------------------------


def _beside_solver(
    cfg: RunConfig, test: Trajectories, device: torch.device, spent_seconds: float | None, found: Score
) -> Score:
    """The solver's own curve of error against time, and where the surrogate lies."""
    notes, cost = dict(found.notes), dict(found.cost)
    columns = ("speedup_at_equal_error", "speedup_at_equal_error_batch_1", "speedup_is_bound", "breakeven_solves")
    cost.update(dict.fromkeys(columns))
    rungs, reason = _rungs(cfg, test, device, notes)
    error, throughput, latency = (found.metrics["rel_l2"], cost["throughput"], cost["latency_ms"])
    if not reason and (error is None or not math.isfinite(error)):
        reason = "the predictions diverged, so there is no error to compare at"
    if reason or error is None or throughput is None or latency is None:
        notes["speedup_at_equal_error"] = notes["breakeven_solves"] = reason
        return replace(found, cost=cost, rungs=rungs, notes=notes)
    seconds, bound = ladder.seconds_at_error(rungs, error)
    single, _ = ladder.seconds_at_error(rungs, error, of="latency_seconds")
    cost["speedup_at_equal_error"] = seconds * throughput
    cost["speedup_at_equal_error_batch_1"] = 1e3 * single / latency
    cost["speedup_is_bound"] = {"<": -1.0, "": 0.0, ">": 1.0}[bound]
    if bound:
        side = "less" if bound == "<" else "more"
        end = "larger than that of the coarsest" if bound == "<" else "smaller than that of the finest"
        notes["speedup_at_equal_error"] = f"the true value is {side}: the error is {end} solver tried"
    if spent_seconds is None:
        notes["breakeven_solves"] = "what generating the data took isn't known"
    else:
        cost["breakeven_solves"] = ladder.breakeven_solves(spent_seconds, seconds, 1 / throughput)
    return replace(found, cost=cost, rungs=rungs, notes=notes)


def _rungs(
    cfg: RunConfig, test: Trajectories, device: torch.device, notes: dict[str, str]
) -> tuple[Sequence[Rung], str]:
    """Rungs, or why there are none; notes tell which were left out."""
    source = datasets.split_of(cfg, TEST).source
    if source.problem is None:
        return (), "imported data have no solver to compare with"
    if not cfg.dataset.ladder:
        return (), "dataset.ladder names no grids to solve on"
    rungs, left_out = ladder.climb_once(source.folder, source.problem, cfg.dataset.ladder, test.whole(), device=device)
    notes.update({f"solver on {resolution}": reason for resolution, reason in left_out.items()})
    return rungs, "" if rungs else "no grid of dataset.ladder gave a finite solution"


# Parts ---------------------------------------------------------------------------------------------------------------


def _cost(surrogate: Surrogate, test: Trajectories, device: torch.device) -> Columns:
    windows = test.whole()
    first = Batch(*(x.to(device) for x in windows[[0]]))
    return {
        "n_parameters": surrogate.n_parameters,
        "n_parameters_complex_as_one": count_parameters(surrogate.operator, complex_as=1),
        "gflops_forward": forward_flops(surrogate.operator, surrogate.encode(first.history, first.static)) / 1e9,
        **prediction_cost(surrogate, windows, device=device),
    }


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
