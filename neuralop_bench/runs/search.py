"""Search for hyper-parameters by successive halving: many short trainings, then the best of them again, for longer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import yaml
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep, Transformer
from omegaconf import DictConfig

from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.messages import describe
from neuralop_bench.config.schema import RunConfig, flattened
from neuralop_bench.records.record import RECORD_NAME, RunRecord
from neuralop_bench.records.trials import Trial, read_trials, write_trials
from neuralop_bench.runs import plan
from neuralop_bench.runs.job import Job, Known, composed
from neuralop_bench.runs.sweep import Launch, Sweep, SweepError
from neuralop_bench.runtime.table import Table, number, show

# Draws for each trial: what no run can have, such as five heads for 32 channels, and what is there already, is drawn
# again.
_MOST_DRAWS = 10
# The parts of a configuration that a recipe may set.
_OF_RECIPES = ("model", "surrogate", "augmentation", "optimizer", "scheduler", "loss", "trainer")


@dataclass(frozen=True)
class Rung:
    """``trials`` trainings, each for a fraction ``epochs`` of the track's number of epochs."""

    trials: int
    epochs: float


@dataclass(frozen=True)
class Axis:
    """A key that is varied: its options, or the bounds of an interval, which ``is_log`` divides into equal factors."""

    key: str
    options: tuple[Any, ...]
    is_interval: bool = False
    is_log: bool = False

    def without(self, refused: Callable[[str], bool]) -> Axis:
        """This axis without the options that are refused, such as padding where all axes are periodic."""
        if self.is_interval:
            return self
        return replace(self, options=tuple(value for value in self.options if not refused(f"{self.key}={value}")))

    def drawn(self, random: np.random.Generator) -> str:
        """An override with a random value."""
        if not self.is_interval:
            return f"{self.key}={self.options[random.integers(len(self.options))]}"
        low, high = map(math.log, self.options) if self.is_log else self.options
        value = random.uniform(low, high)
        return f"{self.key}={math.exp(value) if self.is_log else value:.2g}"


class Search:
    """A search on one dataset with one model. It judges trials by their error on valid, and continues where it stopped.

    Args:
        master: the configuration that Hydra has composed for the command.
        loader: Hydra's loader of configurations.
        fixed: overrides of the command line, the same for all trials.
        space: the keys to vary, with ``choice``, ``range`` or ``interval``; ``tag(log, interval(...))`` is drawn
            uniformly in the logarithm.
        rungs: how many trials are trained for which fraction of the epochs, beginning with the shortest. The first
            trial of the first rung has the values of the files, the others are drawn independently.
        seed: of the draws.
        folder: folder of the lists of trials, ``<track>/<dataset>_<model>.csv``. A trial that is listed isn't repeated.
        limit: longest time of a whole training in seconds; None for no limit. It is estimated from the fastest trial
            with the same settings, because other programs on a machine only make a training slower. Settings that
            exceed it don't reach the next rung.
        memory_gib: most memory of a training in GiB. What would need more is drawn again.

    Raises:
        ConfigError: the space can't be drawn from, or no run of it is possible.
    """

    def __init__(
        self,
        master: DictConfig,
        loader: Any,
        fixed: Sequence[str],
        *,
        space: Sequence[Override],
        rungs: Sequence[Rung],
        seed: int,
        folder: Path,
        limit: float | None = None,
        memory_gib: float = math.inf,
    ) -> None:
        self._master, self._loader, self._fixed = master, loader, tuple(fixed)
        self._rungs, self._limit, self._memory_gib = list(rungs), limit, memory_gib
        self._known = Known()
        start = self._job(())
        if start.run is None or start.problem:
            raise ConfigError(start.problem)
        self._start = start.run
        choices = start.run.choices
        self.trials_path = folder / choices["track"] / f"{choices['dataset']}_{choices['model']}.csv"
        self._settings = self._drawn([_axis(override) for override in space], np.random.default_rng(seed))

    def first_rung(self) -> Sweep:
        """The trainings of the first rung."""
        return self._sweep([(*settings, self._epochs(self._rungs[0])) for settings in self._settings])

    def run(self, launch: Launch, most_at_once: int | None = None) -> RunConfig:
        """Do all rungs, list the trials, and print the recipe of the best.

        Args:
            launch: hands jobs to a launcher and returns when they have ended.
            most_at_once: largest number of jobs handed over together; None for those of a rung.

        Returns:
            The configuration of the best trial of the last rung.

        Raises:
            SweepError: a training neither finished nor diverged.
            ConfigError: no trial of a rung finished within the limit.
        """
        settings = self._settings
        ranked: list[tuple[tuple[str, ...], Trial]] = []
        possible: list[tuple[tuple[str, ...], Trial]] = []
        fastest: dict[tuple[str, ...], float] = {}  # seconds per epoch
        for rung in self._rungs:
            ranked = self._ranked(settings[: rung.trials], rung, launch, most_at_once)
            for each, trial in ranked:
                fastest[each] = min(fastest.get(each, math.inf), trial.seconds / trial.epochs)
            possible = [(each, trial) for each, trial in ranked if self._is_possible(trial, fastest[each])]
            if not possible:
                raise ConfigError(
                    f"None of the {len(ranked)} trials of {ranked[0][1].epochs} epochs finished"
                    + (f" at a rate of {self._limit:g} s for a whole training" if self._limit else "")
                    + ". Raise hydra.sweeper.limit, or lower the sizes and rates in hydra.sweeper.params."
                )
            settings = [each for each, _ in possible]
        chosen, trial = possible[0]  # not always the best of the rung: that may be above the limit of time
        best = self._job(chosen).run
        assert best is not None
        n_trials = sum(rung.trials for rung in self._rungs)
        print(self._table(ranked), recipe(best, trial, n_trials), sep="\n", flush=True)
        return best

    def _ranked(
        self, settings: Sequence[tuple[str, ...]], rung: Rung, launch: Launch, most_at_once: int | None
    ) -> list[tuple[tuple[str, ...], Trial]]:
        """The trials of a rung with their settings, the best first."""
        overrides = [(*each, self._epochs(rung)) for each in settings]
        listed = {trial.config_hash: trial for trial in read_trials(self.trials_path)}
        jobs = self._sweep(overrides).jobs
        left = [over for over, job in zip(overrides, jobs, strict=True) if _hash(job) not in listed]
        step = most_at_once or max(1, len(left))
        for first in range(0, len(left), step):
            sweep = self._sweep(left[first : first + step])
            try:
                sweep.run(launch)
            except SweepError:
                if not all(job.is_done for job in sweep.jobs):
                    raise
            for job in sweep.jobs:
                listed[_hash(job)] = _trial(job, self._fixed)
            write_trials(self.trials_path, listed.values())
        found = [(each, listed[_hash(job)]) for each, job in zip(settings, jobs, strict=True)]
        return sorted(found, key=lambda pair: pair[1].valid_rel_l2)

    def _sweep(self, settings: Sequence[Sequence[str]]) -> Sweep:
        return Sweep.composed(self._master, self._loader, [(*self._fixed, *each) for each in settings])

    def _epochs(self, rung: Rung) -> str:
        return f"trainer.epochs={max(1, round(rung.epochs * self._start.trainer.epochs))}"

    def _is_possible(self, trial: Trial, seconds_per_epoch: float) -> bool:
        if trial.status != "finished":
            return False
        return self._limit is None or seconds_per_epoch * self._start.trainer.epochs <= self._limit

    def _drawn(self, axes: Sequence[Axis], random: np.random.Generator) -> list[tuple[str, ...]]:
        acting = [axis for axis in (axis.without(self._has_no_effect) for axis in axes) if axis.options]
        found: dict[str, tuple[str, ...]] = {_hash(self._job(())): ()}
        problem = ""
        for _ in range(_MOST_DRAWS * self._rungs[0].trials):
            if len(found) == self._rungs[0].trials:
                break
            settings = tuple(axis.drawn(random) for axis in acting)
            job = self._job(settings)
            if reason := self._reason_against(job):
                problem = reason
            else:
                found.setdefault(_hash(job), settings)
        else:
            raise ConfigError(
                f"Only {len(found)} different trials were drawn instead of {self._rungs[0].trials}. {problem} Change "
                "hydra.sweeper.params or hydra.sweeper.rungs."
            )
        return list(found.values())

    def _has_no_effect(self, setting: str) -> bool:
        return self._job((setting,)).left_out

    def _job(self, settings: Sequence[str]) -> Job:
        return composed((*self._fixed, *settings), self._master, self._loader, self._known)

    def _reason_against(self, job: Job) -> str:
        """Why a job can't be a trial; empty if it can."""
        if job.run is None or job.problem:
            return job.problem
        try:
            needed = plan.make(job.run).memory_bytes
        except (ValueError, RuntimeError) as error:
            return describe(error)
        if needed <= self._memory_gib * 2**30:
            return ""
        return (
            f"Training would need {plan.size(needed)}, more than hydra.sweeper.memory_gib={self._memory_gib:g} allows."
        )

    def _table(self, ranked: Sequence[tuple[tuple[str, ...], Trial]]) -> str:
        rows = [
            (trial.settings or "as in the files", str(trial.epochs), number(trial.valid_rel_l2), f"{trial.seconds:.0f}")
            for _, trial in ranked
        ]
        show(
            [Table("Trials of the last rung", ("settings", "epochs", "rel. L2 on valid", "seconds"), rows, wraps=True)]
        )
        return f"All trials: {self.trials_path}"


def recipe(best: RunConfig, trial: Trial, n_trials: int) -> str:
    """The text of a recipe: what the best trial changes in the defaults of its model and track."""
    groups = [f"{group}={best.choices[group]}" for group in ("model", "dataset", "track", "task")]
    standard = compose(*groups, "~recipe")
    default = flattened({key: value for key, value in asdict(standard).items() if key in _OF_RECIPES})
    content: dict[str, Any] = {"tuning_trials": n_trials}
    for key, value in flattened({key: asdict(best)[key] for key in _OF_RECIPES}).items():
        if key != "trainer.epochs" and default.get(key, ...) != value:
            section, _, rest = key.partition(".")
            content.setdefault(section, {})[rest] = value
    path = f"configs/recipe/{best.choices['track']}/{best.choices['dataset']}_{best.choices['model']}.yaml"
    return (
        f"# Save this as {path}\n"
        "# @package _global_\n"
        f"# experiment={best.choices.get('experiment')}: relative L2 on valid {trial.valid_rel_l2:.3g} after "
        f"{trial.epochs} epochs.\n" + yaml.safe_dump(content, default_flow_style=None, sort_keys=False, width=1000)
    )


def _axis(override: Override) -> Axis:
    key, value = override.get_key_element(), override.value()
    if isinstance(value, IntervalSweep):
        low, high = cast(float, value.start), cast(float, value.end)
        is_log = "log" in value.tags
        if not low < high or (is_log and low <= 0):
            raise ConfigError(
                f"hydra.sweeper.params.{key} is an interval from {low:g} to {high:g}. Its lower bound comes first, and "
                "must be positive with tag(log, ...)."
            )
        return Axis(key, (low, high), is_interval=True, is_log=is_log)
    if isinstance(value, ChoiceSweep | RangeSweep):
        return Axis(key, tuple(cast(Any, override.sweep_iterator(transformer=Transformer.encode))))
    raise ConfigError(
        f"hydra.sweeper.params.{key} must be a choice, a range or an interval, such as choice(2,4), got {value}."
    )


def _hash(job: Job) -> str:
    assert job.folder is not None
    return job.folder.parent.name.rpartition("-")[2]


def _trial(job: Job, fixed: Sequence[str]) -> Trial:
    assert job.folder is not None
    assert job.run is not None
    record = RunRecord.load(job.folder / RECORD_NAME)
    error, seconds = record.metrics.get("valid_rel_l2"), record.cost.get("train_seconds")
    own = [word for word in job.overrides if word not in fixed and not word.startswith("trainer.epochs=")]
    return Trial(
        settings=" ".join(own),
        epochs=job.run.trainer.epochs,
        valid_rel_l2=math.inf if error is None else error,
        seconds=round(seconds or 0.0, 3),
        status=record.status,
        config_hash=_hash(job),
        commit=record.commit,
        date_utc=record.date_utc,
    )
