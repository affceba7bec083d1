"""The configuration of a run: its composition, its identity, and error messages that say which knob to turn.

Imports neither torch nor the project's own numerics, so ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from neuralop_bench.config import constructors
from neuralop_bench.config.constructors import ConfigError, suggestion
from neuralop_bench.config.schema import EvaluatorConfig, RunConfig, components, constructor, n_fresh, validate
from neuralop_bench.records import published
from neuralop_bench.records.record import RECORD_NAME, RunRecord
from neuralop_bench.runtime.command_line import escaped
from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.runtime.process_group import OtherProcessFailed, n_processes
from neuralop_bench.runtime.signals import report_stops

# What may be given beside mode=evaluate: nothing that decides how the model was made.
_BESIDE_EVALUATE = ("mode", "run", "evaluator", "device", "paths", "workers", "preload_gib", "force", "trust", "debug")

# Its tasks are published ones, each set by an experiment.
PAPER_TRACK = "paper"

# What plugins of Hydra bring, and the extra that installs them. Our slurm and local are made of submitit's.
_LAUNCHERS = ("joblib", "slurm", "slurm_gpu", "local", "submitit_slurm", "submitit_local")
_EXTRAS = {**{f"hydra/launcher/{name}": "cluster" for name in _LAUNCHERS}, "hydra/sweeper/optuna": "sweep"}

# Folders of a run directory below paths.outputs.
RUN_DIRECTORY_DEPTH = 5

_HASH_LENGTH = 8
_MAX_LABEL = 40

ConfigStore.instance().store(name="run_schema", node=RunConfig)


# Composition ---------------------------------------------------------------------------------------------------------


def from_hydra(cfg: DictConfig) -> RunConfig:
    """The typed configuration of the job that ``hydra.main`` has composed."""
    return _resolve(cfg, cast(DictConfig, HydraConfig.get()))


def from_sweep(cfg: DictConfig) -> RunConfig:
    """The typed configuration of a sweep's job, composed with Hydra's own node in it; that is taken out."""
    hydra = cfg.hydra
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _resolve(cfg, hydra)


def compose(*overrides: str) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides.

    >>> compose("model=fno", "track=smoke").trainer.epochs
    2
    """
    return _compose(overrides)


def _compose(overrides: Sequence[str], like: RunConfig | None = None) -> RunConfig:
    if GlobalHydra.instance().is_initialized():
        return _composed(overrides, like)
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return _composed(overrides, like)


def _composed(overrides: Sequence[str], like: RunConfig | None) -> RunConfig:
    cfg = hydra_compose("config", overrides=escaped(overrides), return_hydra_config=True)
    hydra = cfg.hydra
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _resolve(cfg, hydra, like)


def _resolve(cfg: DictConfig, hydra: DictConfig, like: RunConfig | None = None) -> RunConfig:
    choices: Mapping[str, str | None] = hydra.runtime.choices
    # As they were typed: an interpolation among them is one of the run's configuration, not of Hydra's.
    overrides = cast(list[str], OmegaConf.to_container(hydra.overrides.task, resolve=False))
    _require_known_keys(cfg, RunConfig())
    for key in ("choices", "overrides"):
        if cfg[key]:
            raise ConfigError(f"{key} can't be set: the composition fills it in.")
    if cfg.trust and not any(override.lstrip("+").partition("=")[0] == "trust" for override in overrides):
        raise ConfigError(
            "trust can be given on the command line alone: a file may be somebody else's and can't vouch for itself."
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
    validate(run)
    if run.run is not None and run.mode != "evaluate":
        raise ConfigError(f"run={run.run} has an effect with mode=evaluate alone. Add mode=evaluate or leave it out.")
    return run


def _require_known_keys(cfg: DictConfig, schema: Any, prefix: str = "") -> None:
    """Refuse keys that "+key=value" added and the schema doesn't have: nothing would read them."""
    known = [entry.name for entry in fields(schema)]
    for key in cfg:
        if key not in known:
            close = suggestion(str(key), known, prefix) or suggestion(str(key), _known_keys(_base()))
            raise ConfigError(f"Unknown key {prefix}{key}.{close}")
        if is_dataclass(getattr(schema, str(key), None)):
            _require_known_keys(cfg[key], getattr(schema, str(key)), f"{prefix}{key}.")


def _require_options(choices: Mapping[str, str | None], overrides: Sequence[str]) -> None:
    """Refuse names that Hydra would pass over in silence: an experiment or a recipe that isn't there, because both are
    optional, and detours to an option (model=fno.yaml), which recipes don't know."""
    for group in ("model", "dataset", "track"):
        if group in choices and not re.fullmatch(r"\w[\w-]*", str(choices[group])):
            raise ConfigError(f"{group} must be the name of an option, got {choices[group]!r}. --help lists them.")
    for override in overrides:
        group, _, value = override.lstrip("+").partition("=")
        if group not in ("experiment", "recipe") or value == "null":
            continue
        for option in re.findall(r"[^\s,\[\]'\"]+", value):
            folder, _, name = f"{group}/{option}".rpartition("/")
            known = GlobalHydra.instance().config_loader().get_group_options(folder)
            if name not in known:
                raise ConfigError(
                    f"There is no {group} {option!r}.{suggestion(name, known)} Known: {', '.join(known) or 'none'}."
                )


def _fill_in_imported(cfg: DictConfig, like: RunConfig | None) -> None:
    """What a configuration with imported data leaves open follows from the files, or from another run on them: name,
    hashes, sizes of the splits (all samples), history (one frame, none of a steady problem) and horizon (the rest)."""
    dataset = cfg.dataset
    if dataset.name is not None or dataset.content:
        raise ConfigError("dataset.name and dataset.content can't be set: imported files tell them.")
    if like is not None and like.dataset.path is not None:
        known, sizes = asdict(like.dataset), like.splits
    elif not dataset.path and not dataset.problem:
        raise ConfigError(
            "dataset=file needs the folder of imported data: dataset.path=<folder>. How to import files is shown in "
            "docs/importing_data.md."
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


def _resolve_interpolations(cfg: DictConfig) -> None:
    try:
        OmegaConf.resolve(cfg)
    except RecursionError as error:
        raise ConfigError(f"{_unresolved(cfg)} contains itself: look for ${{...}} in it.") from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"{_unresolved(cfg)} has no value: {_first_line(error)}") from error


def _unresolved(cfg: DictConfig | ListConfig, prefix: str = "") -> str:
    """The first key whose interpolation has no value, as key=${...}; an empty string if there is none."""
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
    """Refuse an option chosen on the command line that a recipe undoes: a recipe's values win over any option's, so the
    choice would be ignored without a word."""
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
                    f"Write {group}.{key}={content[key]}, or ~recipe to do without the recipe."
                )


# A run that was made before ------------------------------------------------------------------------------------------


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


def evaluator_name(run: RunConfig) -> str:
    """Name of an evaluation: the evaluator's, with a hash of what it measures if that was changed by hand."""
    name = run.choices.get("evaluator", "standard")
    measured = [_measured(evaluator) for evaluator in (run.evaluator, compose(f"evaluator={name}").evaluator)]
    return name if measured[0] == measured[1] else f"{name}-{_hash(measured[0])}"


def _measured(evaluator: EvaluatorConfig) -> dict[str, Any]:
    return {key: value for key, value in asdict(evaluator).items() if key != "batch_size"}


# Identity ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """The place of a run: which numbers it must produce, whatever the machine, paths or seed.

    track: the track, or ``custom`` if the run changes what the track's task file fixes.
    label: the overrides that set it apart, readable, at most 40 safe characters; ``default`` if there are none.
    config_hash: of everything that decides the numbers.
    """

    track: str
    dataset: str
    task: str
    model: str
    label: str
    config_hash: str

    @property
    def variant(self) -> str:
        return f"{self.label}-{self.config_hash}"

    @property
    def configuration(self) -> str:
        """What the names of all its seeds begin with."""
        return f"{self.track}-{self.dataset}-{self.model}-{self.config_hash}"

    def run_id(self, seed: int) -> str:
        return f"{self.configuration}-s{seed}"


def standard_overrides(run: RunConfig) -> list[str]:
    """The groups whose options alone make the configuration that a run is compared with for its identity."""
    groups = ("model", "dataset", "track", "task")
    if run.track == PAPER_TRACK:  # the experiment is the task
        groups = (*groups, "experiment")
    return [f"{group}={run.choices[group]}" for group in groups if group in run.choices]


def identity(run: RunConfig, base: RunConfig | None = None) -> Identity:
    """Where a run belongs; a default that is spelled out changes nothing.

    Args:
        run: the run.
        base: the configuration that ``standard_overrides`` compose, for who has it already.
    """
    deciding = _deciding(run)
    # Imported data, the samples used and the frames given are the task itself, so they set no run of it apart.
    base = base or _compose(standard_overrides(run), like=run)
    standard = _flatten(_deciding(base))
    changed = {key: value for key, value in _flatten(deciding).items() if standard.get(key, MISSING) != value}
    fixed = any(key.startswith(("dataset.", "data.", "splits.")) or key == "trainer.epochs" for key in changed)
    return Identity(
        track="custom" if fixed else run.track,
        dataset=run.dataset.name or run.choices["dataset"],
        task=_task(run),
        model=str(run.model["label"]),
        label=_label(changed),
        config_hash=_hash(deciding),
    )


def run_directory(run: RunConfig, who: Identity | None = None) -> Path:
    """``<paths.outputs>/<track>/<dataset>/<model>/<label>-<hash>/seed=<n>``."""
    who = who or identity(run)
    return Path(run.paths.outputs) / who.track / who.dataset / who.model / who.variant / f"seed={run.seed}"


def _task(run: RunConfig) -> str:
    """Name of the task. No task file fixes what is asked of imported data, so their task's name holds a hash of it:
    runs with another history, or on other files with the same name, are never ranked together."""
    if run.dataset.path is None:
        return run.task
    return f"{run.task}-{_hash({'dataset': _deciding(run)['dataset'], 'splits': run.splits})}"


def _deciding(run: RunConfig) -> dict[str, Any]:
    trainer = asdict(run.trainer)
    for key in ("workers", "checkpoint_seconds", "compile"):
        del trainer[key]
    for key, default in (("pushforward", 0), ("precision", "float32")):
        if trainer[key] == default:  # runs made before there was such a key keep their names
            del trainer[key]
    dataset = asdict(run.dataset)
    for key in ("tolerance", "test_splits", "ladder"):  # what else is measured of a model decides nothing about it
        del dataset[key]
    for key in ("path", "problem", "seed") if run.dataset.path is not None else ("path", "name", "content"):
        del dataset[key]
    return {
        "model": constructor(run.model),
        "dataset": dataset,
        # A stream has more samples than the track gives to others. Without one a run keeps the name it always had.
        **({"data": {"n_fresh": n_fresh(run)}} if run.data.stream else {}),
        "splits": run.splits,
        "surrogate": asdict(run.surrogate),
        "optimizer": run.optimizer,
        "scheduler": run.scheduler,
        "loss": run.loss,
        "augmentation": run.augmentation,
        "trainer": trainer,
    }


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:_HASH_LENGTH]


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping):
        return {prefix: node}
    flat: dict[str, Any] = {}
    for key, value in node.items():
        flat.update(_flatten(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _label(changed: Mapping[str, Any]) -> str:
    parts = []
    for key, value in sorted(changed.items()):
        name = key.split(".")[-1] if not key.endswith("_target_") else key.split(".")[-2]
        text = str(value).split(".")[-1] if key.endswith("_target_") else str(value)
        parts.append(f"{name}={text}")
    # Joined by a plus sign: a comma in run=<directory> would be a sweep to Hydra.
    text = re.sub(r"[^A-Za-z0-9=._+-]+", "_", "+".join(parts))
    return text[:_MAX_LABEL].rstrip("._+-") or "default"


# Errors --------------------------------------------------------------------------------------------------------------


class JobReported(Exception):
    """A job of a sweep failed; the message, the job's own in words, has been printed."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error as a message with a suggestion and exit with status 1; a traceback only with ``debug=true``.

    SIGINT and SIGTERM end the process with a word about how to go on.
    """
    try:
        with report_stops():
            yield
    except BrokenPipeError:  # "| head" has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at the end)
        raise SystemExit(1) from None
    except Exception as error:
        if not any(isinstance(cause, JobReported) for cause in _chain(error)):
            _report(error)
        raise SystemExit(1) from None


@contextmanager
def report_job_errors(*, is_sweep: bool) -> Iterator[None]:
    """Print the error of a job at once: in a sweep the others go on, and exiting here would end them."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        if not isinstance(error, OtherProcessFailed):
            _report(error)
        if is_sweep:
            raise JobReported(describe(error)) from error
        raise SystemExit(1) from None


def report_and_end(error: Exception) -> NoReturn:
    """Print an error, unless another process has, and end this process with status 1, whatever it holds."""
    if not isinstance(error, OtherProcessFailed):
        _report(error)
    os._exit(1)


def _report(error: Exception) -> None:
    if any(argument.replace(" ", "").lower() in ("debug=true", "+debug=true") for argument in sys.argv):
        traceback.print_exception(error)
    print(f"Error: {describe(error)}", file=sys.stderr, flush=True)


def describe(error: BaseException) -> str:
    """An error in words: Hydra's and OmegaConf's with the names that come closest to what was typed."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, ConfigError):
            return str(cause)
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _describe_missing(cause)
        if isinstance(cause, OverrideParseException):
            return (
                f"The argument {cause.override!r} can't be read: {_first_line(cause)} Write key=value, and quotes "
                "around a value with anything but letters, digits and ._/:-+ in it: 'key=\"value\"'."
            )
        if isinstance(cause, YAMLError):
            return _describe_yaml(cause)
        if isinstance(cause, UnicodeDecodeError | RecursionError) or "Invalid loaded object type" in str(cause):
            return f"{_chosen()} can't be read as a configuration: {_first_line(cause)}"
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException):
            return _describe_omegaconf(cause)
    root = next((cause for cause in chain if not isinstance(cause, InstantiationException)), chain[0])
    if isinstance(root, MemoryError) or _is_torchs_memory_error(root):
        return (
            "Out of memory. Lower trainer.batch_size, model.width or preload_gib, or use a machine with more. A run "
            "whose configuration stays the same goes on from its last checkpoint."
        )
    if n_processes() > 1 and re.search("gloo|nccl|peer|DistBackend", f"{type(root).__name__} {root}", re.IGNORECASE):
        return "Another process of this run has ended; its own message, or that of what started it, says why."
    if isinstance(root, HydraException) or re.match("Config group override must be|Unsupported .* defaults", str(root)):
        return _describe_hydra(root)
    if isinstance(root, ValueError | RuntimeError):
        return str(root).strip() or type(root).__name__
    if isinstance(root, OSError) and root.errno is not None:
        return _describe_os(root)
    return f"{type(root).__name__}: {root} (debug=true shows where)"


def _is_torchs_memory_error(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or "allocate memory" in str(error).partition("\n")[0]


def _describe_os(error: OSError) -> str:
    remedies = {
        errno.EACCES: "Choose folders that you may write with paths.data and paths.outputs.",
        errno.EROFS: "Choose folders that can be written with paths.data and paths.outputs.",
        errno.ENOSPC: "Free some space, or choose another disk with paths.data and paths.outputs.",
        errno.ENOTDIR: "A file stands where a folder is needed: choose others with paths.data and paths.outputs.",
        errno.ENAMETOOLONG: "Choose shorter names with paths.data and paths.outputs.",
        errno.EEXIST: "A file stands where a folder is needed: choose others with paths.data and paths.outputs.",
    }
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno or 0)}. {remedies.get(error.errno or 0, '(debug=true shows where)')}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()  # "raise cause from None" in the handler of what it caused closes the chain to a circle
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _describe_missing(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if group.split("/")[0] == "task":
        # The task belongs to (track, dataset): the file is missing because that pair is not offered.
        known = sorted(path.stem for path in (CONFIG_DIR / group).glob("[!.]*.yaml"))
        offers = ", ".join(known) or "no dataset yet"
        return (
            f"There is no task {str(error.missing_cfg_file).removeprefix('task/')}: this track offers {offers}. "
            "Choose track and dataset instead of the task."
        )
    known = f" Known: {', '.join(options)}." if options else ""
    if extra := _EXTRAS.get(str(error.missing_cfg_file)):
        return f"{group}={option} needs the extra {extra!r}: pip install 'neuralop-bench[{extra}]'.{known}"
    return f"Unknown {group or 'option'} {option!r}.{suggestion(option, options)}{known}"


def _describe_hydra(error: BaseException) -> str:
    text = " ".join(line.strip() for line in str(error).splitlines() if "https://" not in line)
    if "Config group override must be" in text:
        groups = {path.name for path in CONFIG_DIR.iterdir() if path.is_dir()} | {""}
        given = [a for a in sys.argv[1:] if "=" in a and a.lstrip("+").partition("=")[0].partition("@")[0] in groups]
        return f"A group takes the name of one of its options, as in model=fno. Look at {' '.join(given)}."
    return f"{text} Look at {_chosen()}." if "in defaults" in text else text or type(error).__name__


def _describe_yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "A configuration file"
    return f"{where}: this is no YAML ({getattr(error, 'problem', None) or _first_line(error)})."


def _describe_omegaconf(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key or "")
    first = _first_line(error)
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        base = _base()
        if key in _accepted(base):
            return f"{key} is not set by the configuration, but its constructor takes it: write +{key}=<value>."
        return f"Unknown key {key}.{suggestion(key, _known_keys(base))}"
    if key == "_dummy_":  # where Hydra resolves the names of files
        return f"model, dataset and track each need the name of one option, as in model=fno. {first}"
    if isinstance(error, MissingMandatoryValue):
        return f"{key} isn't set: write {key}=<value>."
    if "is not Optional" in first:
        return f"{key} must have a value, got null."
    return f"{key or _chosen()}: {first}"


def _chosen() -> str:
    """The files that the command line chooses; where an error doesn't name one, it is in one of them."""
    groups = [argument for argument in sys.argv[1:] if re.match(r"\+?[a-z/]+(@[^=]*)?=[A-Za-z_/\[]", argument)]
    return " or ".join(groups) or "config.yaml"


def _first_line(error: BaseException) -> str:
    """What an error says, without the details that other libraries append in lines of their own."""
    text = next(iter(str(getattr(error, "msg", None) or error).strip().splitlines()), type(error).__name__)
    return text if text[-1:] in ".!?" else f"{text}."


def _base() -> RunConfig:
    """The configuration that the groups chosen on the command line give by themselves."""
    choices = [argument for argument in sys.argv[1:] if re.fullmatch(r"(model|dataset|track)=[\w/]+", argument)]
    try:
        return compose(*choices)
    except (HydraException, OmegaConfBaseException, ConfigError):
        return compose()


def _known_keys(base: RunConfig) -> list[str]:
    return [
        key
        for key in _flatten(asdict(base))
        if key.split(".")[0] not in ("choices", "overrides") and key.split(".")[-1][0] != "_"
    ]


def _accepted(base: RunConfig) -> set[str]:
    """Arguments that the configured constructors take, set or not."""
    return {key for name, node in components(base).items() for key in constructors.parameters_of(name, node)}
