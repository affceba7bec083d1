"""The configuration of an earlier run, from its record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data_gen.generation import cache
from neuralop_bench.config import constructors
from neuralop_bench.config.compose import compose
from neuralop_bench.config.constructors import ConfigError
from neuralop_bench.config.messages import describe
from neuralop_bench.config.rules import validate
from neuralop_bench.config.schema import PathsConfig, RunConfig
from neuralop_bench.records import published
from neuralop_bench.records.record import RECORD_NAME, RunRecord

# What a record says about the machine that the run was made on, or about how it was started.
_OF_THE_MACHINE = ("device", "workers", "preload_gib", "mode", "run", "dry_run", "force", "debug", "trust")
# Keys that may be given together with mode=evaluate: none of them decides how the model was made.
_BESIDE_EVALUATE = ("mode", "run", "evaluator", "device", "paths", "workers", "preload_gib", "force", "trust", "debug")


def of_record(record: RunRecord, folder: Path, trust: Sequence[str] = (), *, data: str = PathsConfig.data) -> RunConfig:
    """The configuration in a record, for use on this machine. It may come from someone else.

    So its constructors have to be trusted, it may hold no interpolation, and what it says about the machine it was made
    on (folders, processes, device) isn't followed. There is one exception: if the record's folder of datasets holds
    those of the run, they are read there.

    Args:
        record: of a run.
        folder: the run directory.
        trust: packages trusted besides the project's own.
        data: folder of the datasets if the record's doesn't hold them.

    Raises:
        ConfigError: a constructor outside the trusted packages, an interpolation, or keys that this version doesn't
            know.
    """
    overrides = record.config.get("overrides")  # as they were typed, perhaps with interpolations; only kept
    for name, node in record.config.items():
        if name != "overrides":
            constructors.require_trusted(name, node, trust, foreign=True)
    here = {name: getattr(RunConfig(), name) for name in _OF_THE_MACHINE}
    known = {**record.config, **here, "overrides": [], "published": {"id": published.id_of(record.config)}}
    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), known)
        run = cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"The configuration in {folder / RECORD_NAME} isn't valid in this version: {describe(error)} "
            f"It was written by version {record.bench_version or 'unknown'}."
        ) from error
    run.overrides = [str(override) for override in overrides or []]
    run.trust = list(trust)  # a record can't vouch for itself
    run.paths = PathsConfig(data=run.paths.data)
    validate(run)
    if run.dataset.path is None and not _holds_data(run):
        run.paths.data = data
    return run


def _holds_data(run: RunConfig) -> bool:
    """Whether the folder of datasets has files for all splits of a run, which are compared with its hashes later."""
    problem = constructors.build(run.dataset.problem)
    folder = cache.folder(problem, run.dataset.seed, Path(run.paths.data))
    return all((folder / split / f"{problem.spec.name}.hdf5").is_file() for split in run.splits)


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
    run = of_record(record, folder, asked.trust, data=asked.paths.data)
    if "evaluator" in roots.values() or not record.is_tested:
        run.evaluator, run.choices["evaluator"] = asked.evaluator, asked.choices.get("evaluator", "standard")
    if keys & {"paths", "paths.data"}:  # an option sets all paths
        run.paths.data = asked.paths.data
    run.paths.outputs, run.paths.board = asked.paths.outputs, asked.paths.board
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
