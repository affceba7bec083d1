"""From overrides to a checked configuration.

Imports neither torch nor the project's numerical code, so ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from data_gen.spec import DatasetSpec
from data_gen.store import StoreError
from neuralop_bench.config.constructors import ConfigError, build, require_trusted, suggestion, targets
from neuralop_bench.config.rules import validate
from neuralop_bench.config.schema import RunConfig, constructor, flattened, n_pairs, seen
from neuralop_bench.records.record import RECORD_NAME, RecordError, RunRecord
from neuralop_bench.records.run_directory import BEST_NAME
from neuralop_bench.runtime.command_line import checked_files, escaped
from neuralop_bench.runtime.hydra_internals import group_options
from neuralop_bench.runtime.place import CONFIG_DIR

ConfigStore.instance().store(name="run_schema", node=RunConfig)

# A size of a model that is chosen by the data: the largest that fits, at most the default.
AUTO = "auto"
# What can go wrong when a model is built; the plan of the run reports it. StoreError: another run's files may be gone.
_REPORTED_LATER = (StoreError, ValueError, RuntimeError, TypeError, ArithmeticError, AttributeError, LookupError)


def from_hydra(cfg: DictConfig) -> RunConfig:
    """The typed configuration of the job that ``hydra.main`` has composed."""
    return _resolve(cfg, cast(DictConfig, HydraConfig.get()))


def from_sweep(cfg: DictConfig) -> RunConfig:
    """The typed configuration of a sweep's job. ``cfg`` includes Hydra's own node, which is removed."""
    hydra = cfg.hydra
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _resolve(cfg, hydra)


def compose(*overrides: str) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides.

    >>> compose("model=fno", "track=smoke").trainer.epochs
    2
    """
    return composed_like(overrides)


def composed_like(overrides: Sequence[str], like: RunConfig | None = None) -> RunConfig:
    if GlobalHydra.instance().is_initialized():
        return _composed(overrides, like)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return _composed(overrides, like)


def _composed(overrides: Sequence[str], like: RunConfig | None) -> RunConfig:
    with checked_files() as check_experiments:
        cfg = hydra_compose("config", overrides=escaped(overrides), return_hydra_config=True)
    check_experiments()
    hydra = cfg.hydra
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _resolve(cfg, hydra, like)


def _resolve(cfg: DictConfig, hydra: DictConfig, like: RunConfig | None = None) -> RunConfig:
    choices: Mapping[str, str | None] = hydra.runtime.choices
    # As they were typed: an interpolation among them refers to the run's configuration, not to Hydra's.
    overrides = cast(list[str], OmegaConf.to_container(hydra.overrides.task, resolve=False))
    _requireknown_keys(cfg, RunConfig())
    for key in ("choices", "overrides", "initial"):
        if cfg[key]:
            raise ConfigError(f"{key} can't be set: the composition fills it in.")
    if cfg.trust and not any(override.lstrip("+").partition("=")[0] == "trust" for override in overrides):
        raise ConfigError(
            "trust can only be given on the command line: a file may come from someone else and can't vouch for itself."
        )
    _require_options(choices, overrides)
    _fill_in_imported(cfg, like)
    _resolve_interpolations(cfg)
    _require_effect(cfg, choices, overrides)
    run = cast(RunConfig, OmegaConf.to_object(cfg))
    run.choices = {
        group: str(option) for group, option in choices.items() if option is not None and not group.startswith("hydra")
    }
    run.overrides = overrides
    # model.target and its like: what the user typed may be imported, but not what a file says.
    for key, target in targets("model", run.model, ("target",)):
        if target is not None and not any(str(target) in override for override in overrides):
            require_trusted(key.rpartition(".")[0], {"target": target}, run.trust, foreign=True)
    run.initial = {} if run.init_from is None else _initial(Path(run.init_from))
    lowered = _automatic(run)
    validate(run)
    if run.dataset.path is not None:
        lowered = _defaults(run)
    if lowered:
        _fit(run, lowered)
    if run.run is not None and run.mode != "evaluate":
        raise ConfigError(f"run={run.run} only has an effect with mode=evaluate. Add mode=evaluate or leave it out.")
    return run


def _requireknown_keys(cfg: DictConfig, schema: Any, prefix: str = "") -> None:
    """Refuse keys that "+key=value" added but the schema doesn't have: nothing would read them."""
    known = [entry.name for entry in fields(schema)]
    for key in cfg:
        if key not in known:
            close = suggestion(str(key), known, prefix) or suggestion(str(key), known_keys(base_of_command_line()))
            raise ConfigError(f"Unknown key {prefix}{key}.{close}")
        if is_dataclass(getattr(schema, str(key), None)):
            _requireknown_keys(cfg[key], getattr(schema, str(key)), f"{prefix}{key}.")


def _require_options(choices: Mapping[str, str | None], overrides: Sequence[str]) -> None:
    """Refuse names that Hydra would silently accept.

    These are experiments and recipes that don't exist (both groups are optional), and other spellings of an option,
    such as model=fno.yaml, for which no recipe would be found.
    """
    for group in ("model", "dataset", "track"):
        if group in choices and not re.fullmatch(r"\w[\w-]*", str(choices[group])):
            raise ConfigError(f"{group} must be the name of an option, got {choices[group]!r}. --help lists them.")
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group not in ("experiment", "recipe") or value == "null":
            continue
        for option in re.findall(r"[^\s,\[\]'\"]+", value):
            folder, _, name = f"{group}/{option}".rpartition("/")
            known = group_options(folder)
            if name not in known:
                raise ConfigError(
                    f"There is no {group} {option!r}.{suggestion(name, known)} Known: {', '.join(known) or 'none'}."
                )


def _fill_in_imported(cfg: DictConfig, like: RunConfig | None) -> None:
    """Fill in what a configuration with imported data leaves open, from the files or from another run on them.

    That is: name, hashes, sizes of the splits (all samples), history (one frame, or none for a steady problem) and
    horizon (the remaining frames).
    """
    dataset = cfg.dataset
    if dataset.name is not None or dataset.content:
        raise ConfigError("dataset.name and dataset.content can't be set: they are read from the imported files.")
    if like is not None and like.dataset.path is not None:
        known, sizes = asdict(like.dataset), like.splits
    elif not dataset.path and not dataset.problem:
        raise ConfigError(
            "dataset=file needs the folder of imported data: dataset.path=<folder>. docs/importing_data.md shows how "
            "to import files."
        )
    elif dataset.path is None:
        return
    else:
        from neuralop_bench.data.imported import ImportedDataset  # imports xarray, so only where it is needed

        source = ImportedDataset(dataset.path)
        history = int(not source.spec.is_steady) if OmegaConf.is_missing(dataset, "history") else dataset.history
        horizon = max(1, source.spec.n_snapshots - history)
        known = {"name": source.spec.name, "content": source.content, "history": history, "horizon": horizon}
        sizes = source.sizes
    with open_dict(cfg):
        dataset.name, dataset.content = known["name"], known["content"]
        for key in ("history", "horizon"):
            if OmegaConf.is_missing(dataset, key):
                dataset[key] = known[key]
        dataset.path = dataset.path or known["path"]
        for split in [split for split in cfg.splits if OmegaConf.is_missing(cfg.splits, split)]:
            cfg.splits[split] = sizes[split]


def _initial(source: Path) -> dict[str, str]:
    """The run in a directory, or the name of a file of published weights, and the hash of the weights."""
    try:
        if source.is_file():
            return {"file": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()}
        content = (source / BEST_NAME).read_bytes()
        run_id = RunRecord.load(source / RECORD_NAME).run_id
    except (OSError, ValueError, RecordError) as error:
        raise ConfigError(
            f"init_from={source} is neither a file of weights nor the directory of a finished run with its weights "
            f"({error}). The directory must hold {BEST_NAME} and {RECORD_NAME}; committed records have no weights."
        ) from error
    return {"run_id": run_id, "sha256": hashlib.sha256(content).hexdigest()}


def _automatic(run: RunConfig) -> dict[str, Any]:
    """Replace each number of the model that is given as ``auto`` by that of the model's own file, and return these."""
    defaults = _of_file(run)
    found: dict[str, Any] = {}
    for key, value in flattened(run.model).items():
        default = defaults.get(key)
        if value == AUTO and (type(default) is int or isinstance(default, list)):
            found[key] = default
            _set(run.model, key, default)
    return found


def _fit(run: RunConfig, lowered: dict[str, Any]) -> None:
    """Lower sizes of the model that don't fit the data to the largest values that do.

    Only the values in ``lowered`` are changed: those given as ``auto`` and, on imported data, those of the model's own
    file. Others are refused later, and so is everything else that is wrong with the model.
    """
    import torch  # takes seconds to import, so only where it is needed

    from neuralop_bench.layers.options import DoesNotFit
    from neuralop_bench.surrogate.surrogate import build_operator

    with suppress(*_REPORTED_LATER):
        spec = seen(run, _spec(run))
        while True:
            try:
                build_operator(
                    constructor(run.model),
                    spec,
                    n_history=run.dataset.history,
                    bundle=run.surrogate.bundle,
                    device=torch.device("meta"),
                    n_pairs=n_pairs(run, spec.n_snapshots),
                )
            except DoesNotFit as error:
                now = flattened(run.model)
                for key, value in error.fitting.items():
                    if key not in lowered or lowered[key] != now[key] or now[key] == value:
                        return
                    _set(run.model, key, value)
                    lowered[key] = value
            else:
                return


def _spec(run: RunConfig) -> DatasetSpec:
    if run.dataset.path is None:
        return build(run.dataset.problem).spec
    from neuralop_bench.data.imported import ImportedDataset  # imports xarray, so only where it is needed

    return ImportedDataset(run.dataset.path).spec


def _set(node: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    reduce(getitem, path, node)[last] = value


def _of_file(run: RunConfig) -> dict[str, Any]:
    """The values of the model's own file, by dotted key."""
    content = OmegaConf.load(CONFIG_DIR / "model" / f"{run.choices['model']}.yaml")
    node = cast(dict[str, Any], OmegaConf.to_container(content))
    return flattened(node.get("model", node))


def _defaults(run: RunConfig) -> dict[str, Any]:
    """The values of the model's own file, without numbers that the command line repeats."""
    given = [
        name
        for name, _, value in (override.lstrip("+").partition("=") for override in run.overrides)
        if name != "model" and value != AUTO
    ]
    return {
        key: value
        for key, value in _of_file(run).items()
        if not any(f"model.{key}" == other or f"model.{key}".startswith(f"{other}.") for other in given)
    }


def _resolve_interpolations(cfg: DictConfig) -> None:
    try:
        OmegaConf.resolve(cfg)
    except RecursionError as error:
        raise ConfigError(f"{_unresolved(cfg)} contains itself: look for ${{...}} in it.") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_unresolved(cfg)} has no value: {first_line(error)}") from error


def _unresolved(cfg: DictConfig | ListConfig, prefix: str = "") -> str:
    """The first key whose interpolation can't be resolved, as key=${...}; an empty string if there is none."""
    container: Any = cfg
    for key in cfg if isinstance(cfg, DictConfig) else range(len(cfg)):
        if OmegaConf.is_missing(cfg, key):
            continue
        if OmegaConf.is_interpolation(cfg, cast(Any, key)):
            try:
                OmegaConf.to_container(OmegaConf.create([container[key]]), resolve=True)
            except (OmegaConfBaseException, RecursionError):
                return f"{prefix}{key}={cast(Any, OmegaConf.to_container(cfg, resolve=False))[key]}"
        elif OmegaConf.is_config(container[key]) and (found := _unresolved(container[key], f"{prefix}{key}.")):
            return found
    return ""


def _require_effect(cfg: DictConfig, choices: Mapping[str, str | None], overrides: Sequence[str]) -> None:
    """Refuse an option chosen on the command line that a recipe overrides.

    A recipe's values take precedence over those of any option, so the choice would be silently ignored.
    """
    for override in overrides:
        group, _, option = override.partition("=")
        path = CONFIG_DIR / group / f"{option}.yaml"
        if group not in ("optimizer", "scheduler", "loss", "surrogate", "augmentation") or not path.is_file():
            continue
        content = cast(DictConfig, OmegaConf.load(path))
        for key in ["_target_"] if "_target_" in content else list(content):
            given = any(other.lstrip("+").startswith(f"{group}.{key}=") for other in overrides)
            set_to = cfg[group][key]
            if set_to != content[key] and not given:
                raise ConfigError(
                    f"{override} has no effect: the recipe {choices.get('recipe')} sets {group}.{key}={set_to}. "
                    f"Write {group}.{key}={content[key]}, or ~recipe to leave the recipe out."
                )


def base_of_command_line() -> RunConfig:
    """The configuration given by only the groups chosen on the command line."""
    choices = [argument for argument in sys.argv[1:] if re.fullmatch(r"(model|dataset|track)=[\w/]+", argument)]
    try:
        return compose(*choices)
    except (HydraException, OmegaConfBaseException, ConfigError):
        return compose()


def known_keys(base: RunConfig) -> list[str]:
    return [
        key
        for key in flattened(asdict(base))
        if key.split(".")[0] not in ("choices", "overrides") and key.split(".")[-1][0] != "_"
    ]


def first_line(error: BaseException) -> str:
    """An error's message without the lines of detail that other libraries append."""
    text = next(iter(str(getattr(error, "msg", None) or error).strip().splitlines()), type(error).__name__)
    return text if text[-1:] in ".!?" else f"{text}."
