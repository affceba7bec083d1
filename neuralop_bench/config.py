"""The configuration of a run: its schema, its identity, and error messages that say which knob to turn.

Imports neither torch nor the project's own numerics, so ``--help`` and ``--cfg job`` answer at once.
"""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast, get_type_hints

from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.utils import get_object
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

CONFIG_DIR = Path(__file__).resolve().parents[1] / "configs"

_HASH_LENGTH = 8
_MAX_LABEL = 40


class ConfigError(ValueError):
    """A configuration that can't be run; the message names the key."""


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
        force: run again although there is a record; the old run directory is moved aside.
        debug: show tracebacks.
        choices: the option chosen in each configuration group; filled in by the composition.
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
    force: bool = False
    debug: bool = False
    choices: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(name="run_schema", node=RunConfig)


# Composition ---------------------------------------------------------------------------------------------------------


def from_hydra(cfg: DictConfig) -> RunConfig:
    """The typed configuration of the job that ``hydra.main`` has composed."""
    hydra = HydraConfig.get()
    return _resolve(cfg, hydra.runtime.choices, hydra.overrides.task)


def compose(*overrides: str) -> RunConfig:
    """The configuration that ``python run.py`` would run with these overrides.

    >>> compose("model=fno", "track=smoke").trainer.epochs
    2
    """
    if GlobalHydra.instance().is_initialized():
        cfg = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    else:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            cfg = hydra_compose("config", overrides=list(overrides), return_hydra_config=True)
    hydra = cfg.hydra
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return _resolve(cfg, hydra.runtime.choices, hydra.overrides.task)


def _resolve(cfg: DictConfig, choices: Mapping[str, str | None], overrides: Sequence[str]) -> RunConfig:
    known = [entry.name for entry in fields(RunConfig)]
    for key in cfg:
        if key not in known:  # "+key=value" adds keys that the schema doesn't have
            raise ConfigError(f"Unknown key {key}.{_suggestion(str(key), known, '')}")
    OmegaConf.resolve(cfg)
    _require_effect(cfg, choices, overrides)
    run = cast(RunConfig, OmegaConf.to_object(cfg))
    run.choices = {
        group: str(option) for group, option in choices.items() if option is not None and not group.startswith("hydra")
    }
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
    for name, node in components(run).items():
        check_arguments(name, node)
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
    missing = {"train", "valid", "test"} - set(run.splits)
    if missing:
        raise ConfigError(f"splits lacks {sorted(missing)}: a run needs train, valid and test.")
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
    """A model node without its label: what ``hydra.utils.instantiate`` takes."""
    return {key: value for key, value in model.items() if key != "label"}


def check_arguments(name: str, node: Any) -> None:
    """Check a constructor node against the signature of its ``_target_``: unknown names and wrong types.

    Raises:
        ConfigError: naming the key, with the closest known name.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise ConfigError(f"{name} must name a constructor in {name}._target_, got {node!r}.")
    try:
        target = get_object(node["_target_"])
    except Exception as error:
        raise ConfigError(f"{name}._target_={node['_target_']!r} can't be imported: {error}") from error
    parameters = inspect.signature(target).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    hints = _hints(target)
    for key, value in node.items():
        if key.startswith("_"):
            continue
        if key not in parameters and not takes_any:
            raise ConfigError(f"Unknown key {name}.{key}.{_suggestion(key, list(parameters), name + '.')}")
        if isinstance(value, Mapping) and "_target_" in value:
            check_arguments(f"{name}.{key}", value)
        elif isinstance(value, str | int | float | bool) and key in hints and not _fits(value, hints[key]):
            raise ConfigError(f"{name}.{key} must be of type {_readable(hints[key])}, got {value!r}.")


def _fits(value: Any, hint: Any) -> bool:
    # A bool is an int to Python, but width=true is a slip.
    if (isinstance(value, bool) and not is_bearable(value, hint)) or (isinstance(value, bool) and hint in (int, float)):
        return False
    return is_bearable(value, hint, conf=BeartypeConf(is_pep484_tower=True))


def _hints(target: Any) -> dict[str, Any]:
    try:
        return get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):
        return {}  # a foreign callable whose annotations can't be evaluated here


def _readable(hint: Any) -> str:
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "").replace("collections.abc.", "")


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
    text = re.sub(r"[^A-Za-z0-9=,._+-]+", "_", ",".join(parts))
    return text[:_MAX_LABEL].rstrip("._,-") or "default"


# Errors --------------------------------------------------------------------------------------------------------------


@contextmanager
def report_errors() -> Iterator[None]:
    """Print an error as a message with a suggestion and exit with status 1; a traceback only with ``debug=true``."""
    try:
        yield
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on from the last checkpoint.", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if any(argument.replace(" ", "").lower() in ("debug=true", "+debug=true") for argument in sys.argv):
            traceback.print_exc()
        print(f"Error: {describe(error)}", file=sys.stderr)
        raise SystemExit(1) from None


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
    return f"{type(root).__name__}: {root} (debug=true shows where)"


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
    return f"Unknown {group or 'option'} {option!r}.{_suggestion(option, options, '')} Known: {', '.join(options)}."


def _describe_omegaconf(error: OmegaConfBaseException) -> str:
    key = str(error.full_key or error.key or "")
    first = (error.msg or str(error)).strip().splitlines()[0]
    if isinstance(error, ConfigAttributeError | ConfigKeyError):
        base = _base()
        if key in _accepted(base):
            return f"{key} is not set by the configuration, but its constructor takes it: write +{key}=<value>."
        return f"Unknown key {key}.{_suggestion(key, _known_keys(base), '')}"
    return f"{key}: {first}" if key else first


def _base() -> RunConfig:
    """The configuration that the groups chosen on the command line give by themselves."""
    choices = [argument for argument in sys.argv[1:] if re.fullmatch(r"(model|dataset|track)=[\w/]+", argument)]
    try:
        return compose(*choices)
    except (HydraException, OmegaConfBaseException, ConfigError):
        return compose()


def _known_keys(base: RunConfig) -> list[str]:
    return [key for key in _flatten(asdict(base)) if not key.startswith("choices") and key.split(".")[-1][0] != "_"]


def _accepted(base: RunConfig) -> set[str]:
    """Arguments that the configured constructors take, set or not."""
    accepted: set[str] = set()
    for name, node in components(base).items():
        nodes = {name: node, **{f"{name}.{key}": v for key, v in node.items() if isinstance(v, Mapping)}}
        for prefix, entry in nodes.items():
            if "_target_" in entry:
                accepted |= {f"{prefix}.{key}" for key in inspect.signature(get_object(entry["_target_"])).parameters}
    return accepted


def _suggestion(name: str, known: Sequence[str], prefix: str) -> str:
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not close:
        # The last part may be right and its place wrong: lr is optimizer.lr.
        close = [entry for entry in known if entry.split(".")[-1] == name.split(".")[-1]][:3]
    return f" Did you mean {' or '.join(prefix + entry for entry in close)}?" if close else ""
