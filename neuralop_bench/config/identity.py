"""The place of a run: its names, its folder, and the hash of everything that decides its numbers."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from neuralop_bench.config.compose import compose, composed_like
from neuralop_bench.config.schema import EvaluatorConfig, RunConfig, constructor, flattened, n_fresh

# Tasks of this track are published ones, each set by an experiment.
PAPER_TRACK = "paper"

_HASH_LENGTH = 8
_SHORT_HASH = 12  # enough to tell weights apart
_MAX_LABEL = 40


@dataclass(frozen=True)
class Identity:
    """The place of a run: everything that decides its numbers, except machine, paths and seed.

    track: the track, or ``custom`` if the run changes what the track's task file fixes.
    label: the overrides that distinguish it, in readable form, at most 40 safe characters; ``default`` if there are
        none.
    config_hash: hash of everything that decides the numbers.
    base: the configuration that the run is compared with.
    changed: the deciding values in which it differs from that one, by dotted key.
    """

    track: str
    dataset: str
    task: str
    model: str
    label: str
    config_hash: str
    base: RunConfig = field(compare=False, repr=False)
    changed: Mapping[str, Any] = field(compare=False, repr=False)

    @property
    def variant(self) -> str:
        return f"{self.label}-{self.config_hash}"

    @property
    def configuration(self) -> str:
        """Common beginning of the names of all its seeds."""
        return f"{self.track}-{self.dataset}-{self.model}-{self.config_hash}"

    def run_id(self, seed: int) -> str:
        return f"{self.configuration}-s{seed}"


def standard_overrides(run: RunConfig) -> list[str]:
    """Overrides that choose only a run's groups. They give the configuration that the run is compared with."""
    groups = ("model", "dataset", "track", "task")
    if run.track == PAPER_TRACK:  # the experiment is the task
        groups = (*groups, "experiment")
    return [f"{group}={run.choices[group]}" for group in groups if group in run.choices]


def identity(run: RunConfig, base: RunConfig | None = None) -> Identity:
    """Where a run belongs; a default that is spelled out changes nothing.

    Args:
        run: the run.
        base: the configuration that ``standard_overrides`` compose, if the caller already has it.
    """
    deciding = _deciding(run)
    # Imported data, the samples used and the frames given define the task, so they don't distinguish its runs.
    base = base or composed_like(standard_overrides(run), like=run)
    standard = flattened(_deciding(base))
    changed = {key: value for key, value in flattened(deciding).items() if standard.get(key, MISSING) != value}
    fixed = any(key.startswith(("dataset.", "data.", "splits.")) or key == "trainer.epochs" for key in changed)
    return Identity(
        track="custom" if fixed else run.track,
        dataset=run.dataset.name or run.choices["dataset"],
        task=_task(run),
        model=str(run.model["label"]),
        label=_label(changed),
        config_hash=_hash(deciding),
        base=base,
        changed=changed,
    )


def run_directory(run: RunConfig, who: Identity | None = None) -> Path:
    """``<paths.outputs>/<track>/<dataset>/<model>/<label>-<hash>/seed=<n>``."""
    who = who or identity(run)
    return Path(run.paths.outputs) / who.track / who.dataset / who.model / who.variant / f"seed={run.seed}"


def _task(run: RunConfig) -> str:
    """Name of the task.

    No task file fixes the task of imported data, so its name contains a hash: runs with another history, or on other
    files with the same name, are never ranked together.
    """
    if run.dataset.path is None:
        return run.task
    return f"{run.task}-{_hash({'dataset': _deciding(run)['dataset'], 'splits': run.splits})}"


def _deciding(run: RunConfig) -> dict[str, Any]:
    trainer = asdict(run.trainer)
    for key in ("workers", "checkpoint_seconds", "compile"):
        del trainer[key]
    surrogate = asdict(run.surrogate)
    # Runs made before these keys existed keep their names.
    for node, key, default in (
        (trainer, "pushforward", 0),
        (trainer, "prepare_copies", 1),
        (trainer, "diverted", False),
        (trainer, "data_weight", 1.0),
        (trainer, "residual_weight", 0.0),
        (trainer, "precision", "float32"),
        (trainer, "keep", "best"),
        (surrogate, "normalize", True),
        (surrogate, "stages", 1),
        (surrogate, "solver", None),
        (surrogate, "solver_steps", 1.0),
        (surrogate, "cutoff", 1.0),
        (surrogate, "conserve", False),
    ):
        if node[key] == default:
            del node[key]
    dataset = asdict(run.dataset)
    for key in ("tolerance", "test_splits", "ladder"):  # further measurements don't change the model
        del dataset[key]
    del dataset["conditioning"]  # a choice of the model's input, not of the data
    for key in ("path", "problem", "seed") if run.dataset.path is not None else ("path", "name", "content"):
        del dataset[key]
    model = constructor(run.model)
    if model.get("resolution_free", MISSING) is None:  # external modules; runs made before this key keep their names
        del model["resolution_free"]
    return {
        "model": model,
        "dataset": dataset,
        # A stream has more samples than the track allows. A run without a stream keeps its old name.
        **({"data": {"n_fresh": n_fresh(run)}} if run.data.stream else {}),
        # Where no parameter differs between samples, or models are given it, runs keep their old names.
        **({"conditioning": run.dataset.conditioning} if run.dataset.conditioning != "channels" else {}),
        **({"init_from": run.initial["sha256"][:_SHORT_HASH]} if run.initial else {}),
        "splits": run.splits,
        "surrogate": surrogate,
        "optimizer": run.optimizer,
        "scheduler": run.scheduler,
        "loss": run.loss,
        "augmentation": run.augmentation,
        "trainer": trainer,
    }


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_HASH_LENGTH]


def _label(changed: Mapping[str, Any]) -> str:
    parts = []
    for key, value in sorted(changed.items()):
        name = key.split(".")[-1] if not key.endswith("_target_") else key.split(".")[-2]
        text = str(value).split(".")[-1] if key.endswith("_target_") else str(value)
        parts.append(f"{name}={text}")
    # Joined by a plus sign: Hydra would read a comma in run=<directory> as a sweep.
    text = re.sub(r"[^A-Za-z0-9=._+-]+", "_", "+".join(parts))
    return text[:_MAX_LABEL].rstrip("._+-") or "default"


def evaluator_name(run: RunConfig) -> str:
    """Name of an evaluation: the evaluator's name, with a hash of what it measures if that differs from its file."""
    name = run.choices.get("evaluator", "standard")
    measured = [_measured(evaluator) for evaluator in (run.evaluator, compose(f"evaluator={name}").evaluator)]
    return name if measured[0] == measured[1] else f"{name}-{_hash(measured[0])}"


def _measured(evaluator: EvaluatorConfig) -> dict[str, Any]:
    return {key: value for key, value in asdict(evaluator).items() if key != "batch_size"}
