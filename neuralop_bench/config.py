"""The configuration of a run: its schema, its identity, and error messages that say which knob to turn.

Imports neither torch nor the project's own numerics, so ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from neuralop_bench import constructors
from neuralop_bench.constructors import ConfigError, suggestion
from neuralop_bench.record import RECORD_NAME, RunRecord

_PACKAGE = Path(__file__).resolve().parent
# Inside an installed wheel the configurations lie in the package, in a checkout beside it.
CONFIG_DIR = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"

MODES = ("run", "evaluate")
# What may be given beside mode=evaluate: nothing that decides how the model was made.
_BESIDE_EVALUATE = ("mode", "run", "evaluator", "device", "paths", "workers", "preload_gib", "force", "trust", "debug")

_HASH_LENGTH = 8
_MAX_LABEL = 40
_SAFE_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,39}"


@dataclass
class DatasetConfig:
    """problem: constructor of a ``data_gen.spec.Problem``; history, horizon: frames given and predicted; seed: of the
    data."""

    problem: dict[str, Any] = field(default_factory=dict)
    history: int = MISSING
    horizon: int = MISSING
    seed: int = 0


@dataclass
class SurrogateConfig:
    """bundle: steps predicted per call; residual: predict increments over the last history frame."""

    bundle: int = 1
    residual: bool = False


@dataclass
class TrainerConfig:
    """See ``neuralop_bench.training.trainer.Trainer``."""

    epochs: int = MISSING
    batch_size: int = 10
    unroll: int = 1
    clip_norm: float = 1.0
    checkpoint_seconds: float = 60.0
    workers: int = 0


@dataclass
class EvaluatorConfig:
    """metrics: constructors by name; batch_size: samples predicted together."""

    metrics: dict[str, Any] = field(default_factory=dict)
    batch_size: int = 16


@dataclass
class PathsConfig:
    """data: folder of all datasets; outputs: folder of all runs and of the user's leaderboard."""

    data: str = "data"
    outputs: str = "outputs"


@dataclass
class RunConfig:
    """One run. Components (model, optimizer ...) are constructors: ``_target_`` and its arguments.

    Attributes:
        splits: number of samples of train, valid and test.
        seed: of initial weights and shuffling; the data has its own.
        device: auto, cpu, cuda, or cuda:<index>.
        workers: processes that generate data; null takes one per core.
        preload_gib: splits up to this size are held in memory.
        mode: run, or evaluate: evaluate the finished run in ``run`` again, perhaps with another evaluator.
        run: the run directory that mode=evaluate looks at.
        dry_run: tell what would be done, and what it would take, without doing it.
        force: run again although there is a record; the old run directory is moved aside.
        trust: packages, besides the project's own, whose constructors may be imported and called.
        debug: show tracebacks.
        choices: the option chosen in each configuration group; filled in by the composition.
        overrides: what the command line said; filled in by the composition.
    """

    model: dict[str, Any] = field(default_factory=dict)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    track: str = MISSING
    task: str = MISSING
    splits: dict[str, int] = field(default_factory=dict)
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)
    optimizer: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    tracker: dict[str, Any] = field(default_factory=dict)
    paths: PathsConfig = field(default_factory=PathsConfig)
    seed: int = 0
    device: str = "auto"
    workers: int | None = None
    preload_gib: float = 2.0
    mode: str = "run"
    run: str | None = None
    dry_run: bool = False
    force: bool = False
    trust: list[str] = field(default_factory=list)
    debug: bool = False
    choices: dict[str, str] = field(default_factory=dict)
    overrides: list[str] = field(default_factory=list)


ConfigStore.instance().store(name="run_schema", node=RunConfig)


# Composition ---------------------------------------------------------------------------------------------------------


def from_hydra(cfg: DictConfig) -> RunConfig:
    """The typed configuration of the job that ``hydra.main`` has composed."""
    hydra = HydraConfig.get()
    return _resolve(cfg, hydra.runtime.choices, hydra.overrides.task)


def escaped(arguments: Sequence[str]) -> list[str]:
    """Arguments of a command line, with the = inside folder names escaped, which Hydra's grammar asks for.

    >>> escaped(["run=outputs/smoke/seed=0", "model.width=8"])
    ['run=outputs/smoke/seed\\\\=0', 'model.width=8']
    """
    done = []
    for argument in arguments:
        found = re.fullmatch(r"(\+{0,2}(?:run|paths\.\w+))=([^'\"\\]*=[^'\"\\]*)", argument)
        done.append(f"{found[1]}={found[2].replace('=', chr(92) + '=')}" if found else argument)
    return done


def compose(*overrides: str) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides.

    >>> compose("model=fno", "track=smoke").trainer.epochs
    2
    """
    if GlobalHydra.instance().is_initialized():
        cfg = hydra_compose("config", overrides=escaped(overrides), return_hydra_config=True)
    else:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = hydra_compose("config", overrides=escaped(overrides), return_hydra_config=True)
    hydra = cfg.hydra
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _resolve(cfg, hydra.runtime.choices, hydra.overrides.task)


def _resolve(cfg: DictConfig, choices: Mapping[str, str | None], overrides: Sequence[str]) -> RunConfig:
    known = [entry.name for entry in fields(RunConfig)]
    for key in cfg:
        if key not in known:  # "+key=value" adds keys that the schema doesn't have
            raise ConfigError(f"Unknown key {key}.{suggestion(str(key), known)}")
    OmegaConf.resolve(cfg)
    _require_effect(cfg, choices, overrides)
    run = cast(RunConfig, OmegaConf.to_object(cfg))
    run.choices = {
        group: str(option) for group, option in choices.items() if option is not None and not group.startswith("hydra")
    }
    run.overrides = list(overrides)
    _validate(run)
    return run


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


def _validate(run: RunConfig) -> None:
    """Check everything that can be checked without torch: names and types of constructor arguments, ranges."""
    for name, value in {"model.label": run.model.get("label"), "task": run.task, "track": run.track}.items():
        if not re.fullmatch(_SAFE_NAME, str(value)):  # they name folders
            raise ConfigError(f"{name} must be 1 to 40 letters, digits and any of ._+- , got {value!r}.")
    for name, node in components(run).items():
        constructors.check(name, node, run.trust)
        if name == "model":
            run.model.update(node)  # numbers whose type has been set right
    if run.mode not in MODES:
        raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {run.mode!r}.")
    at_least = {
        "trainer.epochs": (run.trainer.epochs, 1),
        "trainer.batch_size": (run.trainer.batch_size, 1),
        "trainer.unroll": (run.trainer.unroll, 1),
        "trainer.workers": (run.trainer.workers, 0),
        "evaluator.batch_size": (run.evaluator.batch_size, 1),
        "dataset.history": (run.dataset.history, 0),
        "dataset.horizon": (run.dataset.horizon, 1),
        "dataset.seed": (run.dataset.seed, 0),
        "surrogate.bundle": (run.surrogate.bundle, 1),
        "seed": (run.seed, 0),
        "workers": (1 if run.workers is None else run.workers, 1),
        **{f"splits.{split}": (n, 1) for split, n in run.splits.items()},
    }
    for name, (value, bound) in at_least.items():
        if value < bound:
            raise ConfigError(f"{name} must be at least {bound}, got {value}.")
    for name in ("clip_norm", "checkpoint_seconds"):
        if not getattr(run.trainer, name) > 0:
            raise ConfigError(f"trainer.{name} must be positive, got {getattr(run.trainer, name)}.")
    if not run.preload_gib >= 0:
        raise ConfigError(f"preload_gib must be at least 0, got {run.preload_gib}.")
    missing = {"train", "valid", "test"} - set(run.splits)
    if missing:
        raise ConfigError(f"splits lacks {sorted(missing)}: a run needs train, valid and test.")
    for split in run.splits:
        if not re.fullmatch(r"train|valid|test|test_\w+", split):
            raise ConfigError(f"Unknown split splits.{split}: there are train, valid, test and test_<name>.")
    if "rel_l2" not in run.evaluator.metrics:
        raise ConfigError(
            "evaluator.metrics lacks rel_l2, by which the board ranks. Add it, or use evaluator=standard."
        )
    if run.trainer.unroll < run.surrogate.bundle:
        raise ConfigError(
            f"surrogate.bundle={run.surrogate.bundle} predicts that many steps per call, but "
            f"trainer.unroll={run.trainer.unroll} trains only the first of them. "
            f"Set trainer.unroll={run.surrogate.bundle}."
        )
    if run.surrogate.residual and run.dataset.history == 0:
        raise ConfigError(
            "surrogate.residual=true predicts increments over the last history frame, but dataset.history is 0. "
            "Use surrogate.residual=false."
        )


def components(run: RunConfig) -> dict[str, dict[str, Any]]:
    """Every constructor node of a configuration, by its key."""
    nodes = {
        "model": constructor(run.model),
        "dataset.problem": run.dataset.problem,
        "optimizer": run.optimizer,
        "scheduler": run.scheduler,
        "loss": run.loss,
        "augmentation": run.augmentation,
        "tracker": run.tracker,
    }
    nodes.update({f"evaluator.metrics.{name}": node for name, node in run.evaluator.metrics.items()})
    return nodes


def constructor(model: Mapping[str, Any]) -> dict[str, Any]:
    """A model node without its label: what ``constructors.build`` takes."""
    return {key: value for key, value in model.items() if key != "label"}


# A run that was made before ------------------------------------------------------------------------------------------


def of_record(record: RunRecord, folder: Path, trust: Sequence[str] = ()) -> RunConfig:
    """The configuration in a record, which may come from somebody else: its constructors have to be trusted.

    Raises:
        ConfigError: a constructor outside the trusted packages, or keys that this version doesn't know.
    """
    for name in ("model", "dataset", "optimizer", "scheduler", "loss", "augmentation", "tracker", "evaluator"):
        constructors.require_trusted(name, record.config.get(name), trust, foreign=True)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(RunConfig), record.config)
        run = cast(RunConfig, OmegaConf.to_object(merged))
    except OmegaConfBaseException as error:
        raise ConfigError(
            f"The configuration in {folder / RECORD_NAME} isn't one of this version: {describe(error)} "
            f"Version {record.bench_version or 'unknown'} wrote it."
        ) from error
    run.trust = [*run.trust, *trust]
    _validate(run)
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
    for key, root in roots.items():
        if root not in (*_BESIDE_EVALUATE, "hydra"):
            raise ConfigError(
                f"mode=evaluate takes {key} from the run's own record, so it can't be given beside it. Leave it out; "
                f"only {', '.join(_BESIDE_EVALUATE[2:])} may be given."
            )
    folder = Path(asked.run)
    record = RunRecord.load(folder / RECORD_NAME)
    run = of_record(record, folder, asked.trust)
    if "evaluator" in roots.values():
        run.evaluator, run.choices["evaluator"] = asked.evaluator, asked.choices.get("evaluator", "standard")
    if "paths" in roots.values():
        run.paths = asked.paths
    for name in ("device", "workers", "preload_gib", "force", "debug"):
        setattr(run, name, getattr(asked, name))
    run.mode, run.run = asked.mode, asked.run
    return run, record


def evaluator_name(run: RunConfig) -> str:
    """Name of an evaluation: the evaluator's, with a hash of its metrics if they were changed by hand."""
    name = run.choices.get("evaluator", "standard")
    path = CONFIG_DIR / "evaluator" / f"{name}.yaml"
    standard = OmegaConf.to_container(OmegaConf.load(path))["metrics"] if path.is_file() else None  # pyright: ignore
    return name if run.evaluator.metrics == standard else f"{name}-{_hash(run.evaluator.metrics)}"


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


def identity(run: RunConfig) -> Identity:
    """Where a run belongs; a default that is spelled out changes nothing."""
    deciding = _deciding(run)
    groups = ("model", "dataset", "track", "task")
    base = compose(*(f"{group}={run.choices[group]}" for group in groups if group in run.choices))
    standard = _flatten(_deciding(base))
    changed = {key: value for key, value in _flatten(deciding).items() if standard.get(key, MISSING) != value}
    fixed = any(key.startswith(("dataset.", "splits.")) or key == "trainer.epochs" for key in changed)
    return Identity(
        track="custom" if fixed else run.track,
        dataset=run.choices["dataset"],
        task=run.task,
        model=str(run.model["label"]),
        label=_label(changed),
        config_hash=_hash(deciding),
    )


def run_directory(run: RunConfig) -> Path:
    """``<paths.outputs>/<track>/<dataset>/<model>/<label>-<hash>/seed=<n>``."""
    who = identity(run)
    return Path(run.paths.outputs) / who.track / who.dataset / who.model / who.variant / f"seed={run.seed}"


def _deciding(run: RunConfig) -> dict[str, Any]:
    trainer = asdict(run.trainer)
    for key in ("workers", "checkpoint_seconds"):
        del trainer[key]
    return {
        "model": constructor(run.model),
        "dataset": asdict(run.dataset),
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


class Terminated(BaseException):
    """The process was asked to end (SIGTERM)."""


class _JobReported(Exception):
    """A job of a sweep failed, and its message has been printed."""


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error as a message with a suggestion and exit with status 1; a traceback only with ``debug=true``.

    SIGINT and SIGTERM end the process with a word about how to go on.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        name, status = ("SIGTERM", 143) if isinstance(stop, Terminated) else ("SIGINT", 130)
        command = shlex.join([Path(sys.executable).name, *sys.argv])
        print(
            f"\nStopped by {name}. What was done until the last checkpoint is kept; the same command goes on from "
            f"there:\n  {command}",
            file=sys.stderr,
        )
        raise SystemExit(status) from None
    except BrokenPipeError:  # "| head" has read enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (the interpreter flushes it at the end)
        raise SystemExit(1) from None
    except Exception as error:
        if not any(isinstance(cause, _JobReported) for cause in _chain(error)):
            _report(error)
        raise SystemExit(1) from None
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def report_job_errors(*, is_sweep: bool) -> Iterator[None]:
    """Print the error of a job at once: in a sweep the others go on, and exiting here would end them."""
    try:
        yield
    except BrokenPipeError:
        raise
    except Exception as error:
        _report(error)
        if is_sweep:
            raise _JobReported from error
        raise SystemExit(1) from None


def _terminate(signum: int, frame: object) -> None:
    del signum, frame
    raise Terminated


def _report(error: Exception) -> None:
    if any(argument.replace(" ", "").lower() in ("debug=true", "+debug=true") for argument in sys.argv):
        traceback.print_exception(error)
    print(f"Error: {describe(error)}", file=sys.stderr, flush=True)


def describe(error: BaseException) -> str:
    """An error in words: Hydra's and OmegaConf's with the names that come closest to what was typed."""
    chain = list(_chain(error))
    for cause in chain:
        if isinstance(cause, MissingConfigException) and cause.missing_cfg_file:
            return _describe_missing(cause)
    for cause in chain:
        if isinstance(cause, OmegaConfBaseException):
            return _describe_omegaconf(cause)
    root = next((cause for cause in chain if not isinstance(cause, InstantiationException)), chain[0])
    if isinstance(root, ValueError | RuntimeError | HydraException):
        return str(root).strip() or type(root).__name__
    if isinstance(root, MemoryError):
        return "Out of memory. Lower trainer.batch_size, model.width or preload_gib, or use a machine with more."
    if isinstance(root, OSError) and root.errno is not None:
        return _describe_os(root)
    return f"{type(root).__name__}: {root} (debug=true shows where)"


def _describe_os(error: OSError) -> str:
    remedies = {
        errno.EACCES: "Choose folders that you may write with paths.data and paths.outputs.",
        errno.EROFS: "Choose folders that can be written with paths.data and paths.outputs.",
        errno.ENOSPC: "Free some space, or choose another disk with paths.data and paths.outputs.",
        errno.ENOTDIR: "A file stands where a folder is needed: choose others with paths.data and paths.outputs.",
        errno.EEXIST: "A file stands where a folder is needed: choose others with paths.data and paths.outputs.",
    }
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{os.strerror(error.errno or 0)}. {remedies.get(error.errno or 0, '(debug=true shows where)')}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _describe_missing(error: MissingConfigException) -> str:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or [])
    if group.startswith("task/"):
        # The task belongs to (track, dataset): the file is missing because that pair is not offered.
        known = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
        offers = ", ".join(known) or "no dataset yet"
        return f"There is no task {group.removeprefix('task/')}/{option}: this track offers {offers}."
    return f"Unknown {group or 'option'} {option!r}.{suggestion(option, options)} Known: {', '.join(options)}."


def _describe_omegaconf(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key or "")
    first = (error.msg or str(error)).strip().splitlines()[0]
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        base = _base()
        if key in _accepted(base):
            return f"{key} is not set by the configuration, but its constructor takes it: write +{key}=<value>."
        return f"Unknown key {key}.{suggestion(key, _known_keys(base))}"
    return f"{key}: {first}" if key else first


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
