"""The configuration of a run that was made before, from its record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuralop_bench.config import constructors
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.messages import describe
from neuralop_bench.config.rules import validate
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.records import published
from neuralop_bench.records.record import RECORD_NAME, RunRecord

# What may be given beside mode=evaluate: nothing that decides how the model was made.
_BESIDE_EVALUATE = ("mode", "run", "evaluator", "device", "paths", "workers", "preload_gib", "force", "trust", "debug")


def of_record(record: RunRecord, folder: Path, trust: Sequence[str] = ()) -> RunConfig:
    """The configuration in a record, which may come from somebody else: its constructors have to be trusted.

    Raises:
        ConfigError: a constructor outside the trusted packages, or keys that this version doesn't know.
    """
    for name in ("model", "dataset", "optimizer", "scheduler", "loss", "augmentation", "tracker", "evaluator"):
        constructors.require_trusted(name, record.config.get(name), trust, foreign=True)
    try:
        known = {**record.config, "published": {"id": published.id_of(record.config)}}
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), known)
        run = cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"The configuration in {folder / RECORD_NAME} isn't one of this version: {describe(error)} "
            f"Version {record.bench_version or 'unknown'} wrote it."
        ) from error
    run.trust = list(trust)  # the record's own list is its writer's word
    validate(run)
    return run


def for_evaluation(asked: RunConfig) -> tuple[RunConfig, RunRecord]:
    """The configuration that ``mode=evaluate run=DIR`` means: that of DIR's record, with what was asked for beside it.

    Raises:
        ConfigError: no run is named, or something is given that the run itself decides.
        RecordError: the run has no readable record.
    """
    if asked.run is None:
        raise ConfigError("mode=evaluate needs the directory of a finished run: run=outputs/lite/ns2d/...")
    keys = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in asked.overrides}
    roots = {key: re.split(r"[./]", key)[0] for key in keys}
    has_moved = asked.dataset.path is not None  # dataset=file dataset.path=<folder>: where the files are now
    for key, root in roots.items():
        if root not in (*_BESIDE_EVALUATE, "hydra") and not (has_moved and key in ("dataset", "dataset.path")):
            raise ConfigError(
                f"mode=evaluate takes {key} from the run's own record, so it can't be given beside it. Leave it out; "
                f"only {', '.join(_BESIDE_EVALUATE[2:])} may be given."
            )
    folder = Path(asked.run)
    record = RunRecord.load(folder / RECORD_NAME)
    run = of_record(record, folder, asked.trust)
    if "evaluator" in roots.values():
        run.evaluator, run.choices["evaluator"] = asked.evaluator, asked.choices.get("evaluator", "standard")
    if "paths" in keys:  # all of them, by an option
        run.paths = asked.paths
    for name in ("data", "outputs"):
        if f"paths.{name}" in keys:
            setattr(run.paths, name, getattr(asked.paths, name))
    run.paths.board = asked.paths.board  # the record may be somebody else's, and its board no longer the one meant
    if asked.dataset.path is not None:
        move_data(run, Path(asked.dataset.path))
    for name in ("device", "workers", "preload_gib", "force", "debug"):
        setattr(run, name, getattr(asked, name))
    run.mode, run.run = asked.mode, asked.run
    if "ladder" not in record.config["dataset"] and run.dataset.path is None:  # written before there were ladders
        run.dataset.ladder = compose(f"dataset={run.choices['dataset']}").dataset.ladder
    return run, record


def move_data(run: RunConfig, folder: Path) -> None:
    """Say where the data of a finished run are now: the folder of the imported dataset, or that of all generated ones.

    What is found there is compared with the record's hashes when it is read.
    """
    if run.dataset.path is None:
        run.paths.data = str(folder)
    else:
        run.dataset.path = str(folder)
