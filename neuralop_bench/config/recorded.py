"""The configuration of an earlier run, from its record."""

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

# Keys that may be given together with mode=evaluate: none of them decides how the model was made.
_BESIDE_EVALUATE = ("mode", "run", "evaluator", "device", "paths", "workers", "preload_gib", "force", "trust", "debug")


def of_record(record: RunRecord, folder: Path, trust: Sequence[str] = ()) -> RunConfig:
    """The configuration in a record. It may come from someone else, so its constructors have to be trusted.

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
            f"The configuration in {folder / RECORD_NAME} isn't valid in this version: {describe(error)} "
            f"It was written by version {record.bench_version or 'unknown'}."
        ) from error
    run.trust = list(trust)  # a record can't vouch for itself
    validate(run)
    return run


def for_evaluation(asked: RunConfig) -> tuple[RunConfig, RunRecord]:
    """The configuration for ``mode=evaluate run=DIR``: that of DIR's record, with the keys given on the command line.

    Raises:
        ConfigError: no run is named, or a key is given that the run itself decides.
        RecordError: the run has no readable record.
    """
    if asked.run is None:
        raise ConfigError("mode=evaluate needs the directory of a finished run: run=outputs/lite/ns2d/...")
    keys = {override.lstrip("+~").partition("=")[0].partition("@")[0] for override in asked.overrides}
    roots = {key: re.split(r"[./]", key)[0] for key in keys}
    has_moved = asked.dataset.path is not None  # dataset=file dataset.path=<folder> says where the files are now
    for key, root in roots.items():
        if root not in (*_BESIDE_EVALUATE, "hydra") and not (has_moved and key in ("dataset", "dataset.path")):
            raise ConfigError(
                f"mode=evaluate takes {key} from the run's own record, so it can't be given as well. Leave it out; "
                f"only {', '.join(_BESIDE_EVALUATE[2:])} may be given."
            )
    folder = Path(asked.run)
    record = RunRecord.load(folder / RECORD_NAME)
    run = of_record(record, folder, asked.trust)
    if "evaluator" in roots.values():
        run.evaluator, run.choices["evaluator"] = asked.evaluator, asked.choices.get("evaluator", "standard")
    if "paths" in keys:  # an option sets all of them
        run.paths = asked.paths
    for name in ("data", "outputs"):
        if f"paths.{name}" in keys:
            setattr(run.paths, name, getattr(asked.paths, name))
    run.paths.board = asked.paths.board  # not the record's: it may come from someone else
    if asked.dataset.path is not None:
        move_data(run, Path(asked.dataset.path))
    for name in ("device", "workers", "preload_gib", "force", "debug"):
        setattr(run, name, getattr(asked, name))
    run.mode, run.run = asked.mode, asked.run
    if "ladder" not in record.config["dataset"] and run.dataset.path is None:  # written before ladders existed
        run.dataset.ladder = compose(f"dataset={run.choices['dataset']}").dataset.ladder
    return run, record


def move_data(run: RunConfig, folder: Path) -> None:
    """Set where the data of a finished run are now: the folder of the imported dataset, or of all generated ones.

    The files there are compared with the record's hashes when they are read.
    """
    if run.dataset.path is None:
        run.paths.data = str(folder)
    else:
        run.dataset.path = str(folder)
