"""The columns of a board: one table, from which the CSV file, the printed tables and the page are made.

A new column is one line of ``COLUMNS``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from neuralop_bench.board.run import Run
from neuralop_bench.board.text import Cell, Cells, faster, interval_text, speedup_text, text, with_deviation
from neuralop_bench.evaluation.statistics import Interval, crossed_interval
from neuralop_bench.records import published, standing
from neuralop_bench.records.record import RunRecord

NO_SAMPLES = (
    "a record of an older format keeps no errors per sample: evaluate the run again (mode=evaluate evaluator=thorough "
    "run=<directory>)"
)


@dataclass(frozen=True)
class Seeds:
    """The runs of one row: all seeds of a model's variant on a task.

    Attributes:
        runs: by seed, whatever became of them.
    """

    runs: tuple[Run, ...]

    @cached_property
    def finished(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run.record.status == "finished")

    @property
    def first(self) -> RunRecord:
        """The record that stands for all in what they share: of the first finished seed, if there is one."""
        return (self.finished or self.runs)[0].record

    @cached_property
    def errors(self) -> NDArray[np.float64] | None:
        """Relative L2 [seed, sample] of the finished seeds; None if one of them keeps none."""
        found = [run.samples.get("rel_l2", []) for run in self.finished]
        if not found or not found[0] or len({len(values) for values in found}) > 1:
            return None
        return np.array(found, np.float64)

    @cached_property
    def interval(self) -> Interval | None:
        """Of the mean error; None if the records keep no errors per sample, or if one is infinite."""
        return None if self.errors is None else crossed_interval(self.errors)

    @cached_property
    def n_vanishing(self) -> int:
        """How many references (sample and channel) are so small that a lower bound entered their relative error."""
        return int(max((run.metrics.get("n_floored_rel_l2") or 0.0 for run in self.finished), default=0.0))

    @cached_property
    def published(self) -> Mapping[str, Cell]:
        return published.cells(self.first)

    def joined(self, of: Callable[[RunRecord], str]) -> str:
        """What the records of all seeds say, each word once."""
        return _joined(of(run.record) for run in self.runs)


@dataclass(frozen=True)
class Fact:
    """A cell that follows from the records of a row.

    Attributes:
        of: the cell.
        why: it is empty although a seed has finished.
    """

    of: Callable[[Seeds], Cell]
    why: str | Callable[[Seeds], str] = "not measured"

    def cell(self, seeds: Seeds, column: str) -> Cell:
        del column
        return self.of(seeds)

    def why_empty(self, seeds: Seeds, column: str) -> str:
        del column
        return self.why if isinstance(self.why, str) else self.why(seeds)


@dataclass(frozen=True)
class Measured:
    """A cell that combines what all finished seeds have measured; empty if one of them lacks the number.

    Attributes:
        table: of a run, where the number is.
        combine: the numbers of the seeds into one.
        metric: that measures it, under whose name a run keeps a version and perhaps a note; empty for costs.
        key: of the number in the table, if it isn't the column's name.
        thorough: whether only evaluator=thorough measures it.
        undefined: why it can be empty although its metric was measured.
    """

    table: Literal["metrics", "cost"]
    combine: Callable[[Sequence[float]], Cell]
    metric: str = ""
    key: str = ""
    thorough: bool = False
    undefined: str = ""

    def cell(self, seeds: Seeds, column: str) -> Cell:
        return of_all((self._number(run, column) for run in seeds.finished), self.combine)

    def why_empty(self, seeds: Seeds, column: str) -> str:
        missing = [run for run in seeds.finished if self._number(run, column) is None]
        for run in missing:
            if note := run.notes.get(self.metric) or run.notes.get(column):
                return note
        where = "" if len(missing) == len(seeds.finished) else f"seed {missing[0].record.seed}: " if missing else ""
        if self.thorough and any(not run.evaluations for run in missing):
            return f"{where}measured by evaluator=thorough, which hasn't been run"
        if self.undefined and all(self.metric in run.metric_versions for run in missing):
            return f"{where}{self.undefined}"
        return f"{where}not measured"

    def _number(self, run: Run, column: str) -> float | None:
        table: Mapping[str, float | None] = getattr(run, self.table)
        return table.get(self.key or column)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: in leaderboard.csv.
        source: of its cells; None for the rank, which depends on other rows.
        label: in the printed tables and on the page.
        best: DOWN, UP, or empty.
        about: what it is, for the page.
        family: the columns that it is shown with, one of FAMILIES; empty if it is in the CSV file only.
        brief: place in the printed table of its family, from 1; 0 leaves it out.
        late: place on the page among the columns of its family; those with the same number keep the order of the table.
        shown: how the tables and the page write a cell, if it takes more than its value.
        is_text: whether the page aligns it to the left.
        of: the column that this one puts in other words. Such a column is on the page only.
    """

    name: str
    source: Fact | Measured | None
    label: str = ""
    best: str = ""
    about: str = ""
    family: str = ""
    brief: int = 0
    late: int = 0
    shown: Callable[[Cells], str] | None = None
    is_text: bool = False
    of: str = ""

    def text(self, cells: Cells) -> str:
        """The cell of a row, as tables and the page write it."""
        return text(cells[self.name]) if self.shown is None else self.shown(cells)


# Where cells come from -----------------------------------------------------------------------------------------------


def _joined(values: Iterable[str]) -> str:
    return ";".join(sorted({value for value in values if value}))


def of_all(values: Iterable[float | None], combine: Callable[[Sequence[float]], Cell]) -> Cell:
    """None if a value is missing: a mean over some of the seeds would pass for one over all of them."""
    found = list(values)
    known = [value for value in found if value is not None]
    return combine(known) if known and len(known) == len(found) else None


def average(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _median(values: Sequence[float]) -> float:
    """For times: other work on the machine can only make them longer."""
    return float(statistics.median(values))


def _bound(signs: Sequence[float]) -> str:
    """Whether the true speed-up of the seeds is larger (>) or smaller (<) than the measured one."""
    found = {">" if sign > 0 else "<" for sign in signs if sign}
    return "no" if not found else found.pop() if len(found) == 1 else "mixed"


def _deviation(seeds: Seeds) -> float | None:
    values = [value for run in seeds.finished if (value := run.metrics.get("rel_l2")) is not None]
    return statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else None


def _status(seeds: Seeds) -> str:
    """How well the numbers are confirmed, and what became of seeds that didn't finish."""
    found = {run.record.status for run in seeds.runs if run.record.status != "finished"}
    if seeds.finished:
        found.add(standing.weakest(standing.standing(run.record, run.verifications) for run in seeds.finished))
    return _joined(found)


def _versions(seeds: Seeds) -> str:
    return _joined(f"{name}/v{version}" for run in seeds.finished for name, version in run.metric_versions.items())


def _of_first(name: str) -> Fact:
    return Fact(lambda seeds: getattr(seeds.first, name))


def _of_data(split: str, name: str) -> Fact:
    return Fact(lambda seeds: seeds.first.data.get(split, {}).get(name))


def _test_hash(record: RunRecord) -> str:
    return str(record.data.get("test", {}).get("sha256", ""))


def _of_environment(name: str) -> Fact:
    return Fact(lambda seeds: seeds.joined(lambda record: str(record.environment.get(name, ""))))


def _of_all(name: str, why: str = "not measured") -> Fact:
    return Fact(lambda seeds: seeds.joined(lambda record: getattr(record, name)), why)


def _of_published(name: str) -> Fact:
    return Fact(lambda seeds: seeds.published[name], "nothing is published for this model on this problem and grid")


def _end_of_interval(of: Callable[[Interval], float]) -> Fact:
    def why(seeds: Seeds) -> str:
        return NO_SAMPLES if seeds.errors is None else "an error is infinite, or there is only one test sample"

    return Fact(lambda seeds: None if seeds.interval is None else of(seeds.interval), why)


mean = partial(Measured, "metrics", average)
median = partial(Measured, "cost", _median)
thorough = partial(mean, thorough=True)
_band = mean("spectra", undefined="below_rounding: the reference has less than 1e-10 of its energy in this band")
_beside_solver = median(thorough=True)
_low, _high = _end_of_interval(lambda found: found.low), _end_of_interval(lambda found: found.high)
_spread = Fact(_deviation, lambda seeds: "one seed" if len(seeds.finished) == 1 else "an error is infinite")
_data_error = Fact(lambda seeds: of_all((run.data_error for run in seeds.finished), average))
_epochs = Fact(lambda seeds: seeds.first.config.get("trainer", {}).get("epochs"))
_trials = Fact(lambda seeds: seeds.first.config.get("tuning_trials"), "the recipe doesn't say")
_dirty = Fact(lambda seeds: any(run.record.dirty for run in seeds.runs))

# The table -----------------------------------------------------------------------------------------------------------

DOWN, UP = "lower is better", "higher is better"

# Columns that the page shows or hides together, in this order; "always" can't be hidden.
FAMILIES = {
    "always": "",
    "accuracy": "Accuracy",
    "spectrum": "By scale",
    "elsewhere": "Elsewhere",
    "cost": "Cost",
    "solver": "Beside the solver",
    "protocol": "Protocol",
}

# fmt: off
COLUMNS = (
    Column("rank", None),
    Column("track", _of_first("track")),
    Column("dataset", _of_first("dataset")),
    Column("task", _of_first("task")),
    Column("dataset_version", _of_data("test", "version")),
    Column("data_sha256", Fact(lambda seeds: seeds.joined(_test_hash))),
    Column("model", _of_first("model")),
    Column("variant", _of_first("variant")),
    Column("n_seeds", Fact(lambda seeds: len(seeds.finished)), "seeds", "", "finished runs", "accuracy", 1),
    Column("rel_l2_mean", mean("rel_l2", key="rel_l2"), "relative L2", DOWN,
           "mean over seeds and test samples ± standard deviation over seeds", "always", 2, shown=with_deviation),
    Column("rel_l2_sd", _spread),
    Column("rel_l2_ci_lo", _low, "95 % interval", "", "seeds and test samples crossed", "accuracy", 3,
           late=-1, shown=interval_text),
    Column("rel_l2_ci_hi", _high),
    Column("rel_l2_median", mean("rel_l2"), "median", DOWN, "over test samples", "accuracy"),
    Column("rel_l2_first_step", mean("rel_l2"), "first step", DOWN, "relative L2 of the first predicted step",
           "accuracy"),
    Column("rel_l2_last_step", mean("rel_l2"), "last step", DOWN, "relative L2 of the last predicted step",
           "accuracy", 4),
    Column("rel_h1", mean("rel_h1"), "H1", DOWN, "relative error of field and gradient", "accuracy", 5),
    Column("vrmse", mean("vrmse"), "VRMSE", DOWN, "root mean square error over the field's deviation", "accuracy", 6),
    Column("max_error", mean("max_error"), "max", DOWN, "largest error over the largest value", "accuracy"),
    Column("spec_low", _band, "1–3", DOWN, "relative error of structures of 1 to 3 cycles per domain", "spectrum", 1),
    Column("spec_mid", _band, "4–11", DOWN, "of 4 to 11 cycles", "spectrum", 2),
    Column("spec_high", _band, "12–", DOWN, "of 12 cycles and more", "spectrum", 3),
    Column("lsd_db", mean("lsd"), "LSD, dB", DOWN, "log-spectral distance: is the amount of structure right?",
           "spectrum", 4),
    Column("k_eff", mean("coherence"), "coherent to", UP,
           "cycles per domain up to which structures are in the right place", "spectrum", 5),
    Column("correlation_time_0.8", thorough("correlation"), "corr. > .8", UP,
           "time until the correlation falls below .8", "elsewhere", 4),
    Column("stable_fraction", thorough("stability"), "stable", UP,
           "share of rollouts over four times the horizon that stay bounded", "elsewhere", 5),
    Column("transfer_half", thorough("rel_l2"), "half grid", DOWN, "relative L2 on half the resolution",
           "elsewhere", 1),
    Column("transfer_double", thorough("rel_l2"), "double grid", DOWN, "relative L2 on double the resolution",
           "elsewhere", 2),
    Column("ood_factor", thorough("rel_l2"), "shifted", DOWN, "growth of the error out of distribution",
           "elsewhere", 3),
    Column("valid_rel_l2", mean("rel_l2"), "valid", DOWN, "relative L2 on the split that chose the epoch", "accuracy"),
    Column("n_parameters", median(), "parameters", "", "a complex number counts as 2", "cost", 1),
    Column("gflops_forward", median(), "GFLOP", DOWN, "of one forward pass", "cost", 2),
    Column("train_seconds", median(), "train, s", DOWN, "training time", "cost", 3),
    Column("latency_ms", median(), "ms alone", DOWN, "one trajectory by itself", "cost", 5),
    Column("throughput", median(), "per s", UP, "trajectories per second at the best batch size", "cost", 6),
    Column("peak_memory_mb", median(), "peak MB", DOWN, "memory of training", "cost", 4),
    Column("speedup_at_equal_error", _beside_solver, "speed-up", UP,
           "the solver's time for the same error over the model's, and its least and largest of five rounds", "solver",
           shown=speedup_text),
    Column("speedup_lowest", Measured("cost", min, "speedup_at_equal_error", thorough=True)),
    Column("speedup_highest", Measured("cost", max, "speedup_at_equal_error", thorough=True)),
    Column("faster", None, "faster", "", "which is faster for the same error", "solver",
           shown=faster, is_text=True, of="speedup_at_equal_error"),
    Column("speedup_is_bound", Measured("cost", _bound, "speedup_at_equal_error", thorough=True)),
    Column("breakeven_solves", _beside_solver, "pays after", DOWN,
           "predictions after which data and training pay for themselves", "solver"),
    Column("data_error", _data_error, "data error", "", "error of the test data themselves", "solver"),
    Column("device", _of_environment("device"), "device", "", "that ran it", "protocol", late=1, is_text=True),
    Column("precision", _of_environment("precision")),
    Column("resolution", _of_data("test", "resolution"), "grid", "", "of the test data", "protocol", is_text=True),
    Column("n_train", _of_data("train", "n"), "n train", "", "training samples", "protocol"),
    Column("epochs", _epochs, "epochs", "", "of training", "protocol"),
    Column("tuning_trials", _trials, "trials", "", "of tuning, on valid", "protocol"),
    Column("metric_version", Fact(_versions)),
    Column("bench_version", _of_all("bench_version")),
    Column("commit", _of_all("commit", "the code was installed, not checked out: bench_version tells which")),
    Column("dirty", _dirty, "dirty", "", "whether the code had uncommitted changes", "protocol",
           late=3, shown=lambda cells: "yes" if cells["dirty"] else "no", is_text=True),
    Column("config_hash", _of_first("config_hash")),
    Column("seeds", Fact(lambda seeds: ";".join(str(run.record.seed) for run in seeds.runs))),
    Column("status", Fact(_status), "status", "", "self, reproduced or verified; or how a seed ended", "protocol",
           late=2, is_text=True),
    Column("comparable", _of_published("comparable")),
    Column("published_value", _of_published("published_value")),
    Column("published_source", _of_published("published_source")),
    Column("run_ids", Fact(lambda seeds: ";".join(run.record.run_id for run in seeds.runs))),
    Column("date_utc", Fact(lambda seeds: max(run.record.date_utc for run in seeds.runs))),
)
# fmt: on


def names() -> list[str]:
    """The columns of leaderboard.csv."""
    return [column.name for column in COLUMNS if not column.of]


def on_page() -> list[Column]:
    """The columns of the page, family by family."""
    places = list(FAMILIES)
    shown = [column for column in COLUMNS if column.family]
    return sorted(shown, key=lambda column: (places.index(column.family), column.late))


def in_brief(*families: str) -> list[Column]:
    """The columns of a printed table."""
    shown = [column for column in COLUMNS if column.family in families and column.brief]
    return sorted(shown, key=lambda column: column.brief)


def numbers(*families: str) -> dict[str, str]:
    """The measured numbers of some families, by their names in a run, each with the name of its metric."""
    return {
        column.source.key or column.name: column.source.metric
        for column in COLUMNS
        if column.family in families and isinstance(column.source, Measured)
    }
