"""The command line before Hydra reads it: answer --help, escape arguments, refuse unsafe ones."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import yaml

from neuralop_bench.runtime import plain_yaml
from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.runtime.process_group import n_processes

# Packages whose classes Hydra may build from its node: launchers, sweepers (Optuna's has a sampler) and callbacks.
_HYDRAS_OWN = ("hydra._internal.core_plugins", "hydra.experimental.callbacks", "hydra_plugins", "optuna.samplers")
# What logging may build. Of a handler for files, only Hydra's own: any other could empty a file.
_LOGGING = ("logging.Formatter", "logging.NullHandler", "logging.StreamHandler", "colorlog.ColoredFormatter")
_FILE_HANDLER, _HYDRAS_LOG = "logging.FileHandler", "${hydra.runtime.output_dir}/${hydra.job.name}.log"
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_DEEPEST = 32
# What an experiment file may use. With more references, or references within texts, a short file could grow to
# gigabytes.
_EXPERIMENTS_KEYS = ("mode", "sweeper")
_REFERENCE = re.compile(r"\$\{(hydra:sweeper\.)?[A-Za-z0-9_.]+\}")
_MOST_REFERENCES = 16
# Hydra's options that take a value.
_WITH_VALUE = "--cfg -c --package -p --config-path -cp --config-name -cn --config-dir -cd --info -i".split()


class InvocationError(ValueError):
    """A command line is refused. The message says why."""


def help_text() -> str:
    """The text that ``--help`` prints. Hydra's own help takes a second, since it composes again for every group."""
    shown = yaml.safe_load((CONFIG_DIR / "config.yaml").read_text(encoding="utf-8"))["hydra"]["help"]
    folders = sorted({path.parent for path in CONFIG_DIR.rglob("*.yaml")} - {CONFIG_DIR})
    groups = [
        f"{folder.relative_to(CONFIG_DIR).as_posix()}: {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}"
        for folder in folders
    ]
    return "\n".join(
        [shown["header"], "Configuration groups (choose with group=option):\n", *groups, "", shown["footer"]]
    )


def escaped(arguments: Sequence[str]) -> list[str]:
    """Arguments with any = inside folder names escaped and a leading ~ quoted, as Hydra's grammar requires.

    >>> escaped(["run=outputs/smoke/seed=0", "model.width=8"])
    ['run=outputs/smoke/seed\\\\=0', 'model.width=8']
    """
    done = []
    for argument in arguments:
        if re.fullmatch(r"dataset\.path=~[^'\"\\]*", argument):
            done.append("dataset.path='{}'".format(argument.partition("=")[2]))
            continue
        found = re.fullmatch(r"(\+{0,2}(?:run|init_from|paths\.\w+|dataset\.path))=([^'\"\\]*=[^'\"\\]*)", argument)
        done.append(f"{found[1]}={found[2].replace('=', chr(92) + '=')}" if found else argument)
    return done


def overrides_first(arguments: Sequence[str]) -> list[str]:
    """Arguments with the overrides before Hydra's options, as Hydra accepts no option between overrides.

    >>> overrides_first(["model=fno", "--cfg", "job", "-m", "track=smoke"])
    ['model=fno', 'track=smoke', '--cfg', 'job', '-m']
    """
    overrides: list[str] = []
    options: list[str] = []
    for previous, argument in pairwise(["", *arguments]):
        is_option = argument.startswith("-") or previous in _WITH_VALUE
        (options if is_option else overrides).append(argument)
    return [*overrides, *options]


def refuse_pickles(arguments: Sequence[str]) -> None:
    """Refuse Hydra's --experimental-rerun, which reads a configuration from a pickle: reading one runs its code.

    Raises:
        InvocationError: the option is given, perhaps abbreviated.
    """
    for argument in arguments:
        if len(argument) > 2 and "--experimental-rerun".startswith(argument.partition("=")[0]):
            raise InvocationError(
                f"{argument} would unpickle a file, which runs any code that is in it. Give the overrides instead; "
                "those of a finished run are in its record.json."
            )


@contextmanager
def guarded_composition() -> Iterator[None]:
    """Refuse configurations whose node ``hydra`` names code that isn't Hydra's, and explain errors inside Hydra.

    Hydra builds callbacks, launchers, sweepers and log handlers itself, before a job sees its configuration. An
    experiment file that comes from someone else could name any function there.
    """
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    from neuralop_bench.runtime import hydra_internals

    def guarded(load: Callable[..., Any]) -> Callable[..., Any]:
        def load_guarded(self: Any, *arguments: Any, **options: Any) -> Any:
            try:
                with checked_files() as check_experiments:
                    cfg = load(self, *arguments, **options)
            except (AssertionError, AttributeError, LookupError, TypeError) as error:
                if isinstance(error, OmegaConfBaseException):
                    raise
                # Hydra assumes that an option is a name and that a key isn't empty.
                typed = [text for text in map(str, options.get("overrides", ())) if not text.startswith("hydra.mode=")]
                given = " ".join(map(repr, typed))
                raise InvocationError(f"Hydra can't compose {given}: look for a malformed argument or file.") from error
            _require_hydras_own(cfg.hydra, "hydra")
            check_experiments()
            if options.get("run_mode") == RunMode.MULTIRUN:
                _require_possible_sweep(cfg)
            return cfg

        return load_guarded

    with hydra_internals.wrapped_composition(guarded):
        yield


def _require_possible_sweep(cfg: Any) -> None:
    """Refuse a sweep that would launch every job several times, or that would launch jobs in a dry run."""
    if (n := n_processes()) > 1:
        raise InvocationError(
            f"A sweep can't be started by {n} processes at once: each would start every job. Start it with one process "
            "and let the launcher give each job several tasks: hydra.launcher.tasks_per_node=2."
        )
    if cfg.get("dry_run") is True and not str(cfg.hydra.sweeper._target_).startswith("hydra_plugins.neuralop_bench"):
        raise InvocationError(
            "dry_run=true can't show the trials of a search, which are chosen one after another. Try it with one set "
            "of values: without the sweeper and -m."
        )


def _require_hydras_own(node: Any, name: str, depth: int = 0) -> None:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if depth > _DEEPEST:
        raise InvocationError(f"{name} is nested too deeply. Does it contain itself?")
    for key in node if isinstance(node, DictConfig) else range(len(node)):
        names_code = key in ("_target_", "()", "class", "factory", "custom_search_space")
        if names_code and OmegaConf.is_interpolation(node, key):  # its value in a job may be another one
            raise InvocationError(f"{name}.{key} names code, so it must be written out, without ${{...}}.")
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]  # follows interpolations
        except OmegaConfBaseException:
            continue  # a value that only exists in a job
        if OmegaConf.is_config(value):
            _require_hydras_own(value, f"{name}.{key}", depth + 1)
        if isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in _STREAMS:
            raise InvocationError(f"{name}.{key}={value} would import code. Only {' and '.join(_STREAMS)} can be used.")
        if not names_code or value is None:
            continue
        if key == "_target_":
            is_known, allowed = _is_class_of_hydra(str(value)), _HYDRAS_OWN
        else:
            allowed = () if key == "custom_search_space" else _LOGGING
            is_known = str(value) in allowed or (str(value) == _FILE_HANDLER and _is_hydras_log(node))
        if not is_known:
            trusted = f"Only {', '.join(allowed)} are trusted there. " if allowed else ""
            raise InvocationError(
                f"{name}.{key}={value} isn't part of Hydra, but Hydra would call it. {trusted}Remove it from the "
                "command line or the experiment file."
            )


def _is_class_of_hydra(dotted: str) -> bool:
    from hydra.utils import get_object

    if not any(dotted.startswith(f"{package}.") for package in _HYDRAS_OWN):
        return False
    try:
        found = get_object(dotted)
    except Exception:  # a plugin that isn't installed or can't be imported: Hydra says so when it builds it
        return True
    return inspect.isclass(found) and found.__module__.split(".")[0] in ("hydra", "hydra_plugins", "optuna")


def _is_hydras_log(handler: Any) -> bool:
    from omegaconf import OmegaConf

    raw: Any = OmegaConf.to_container(handler, resolve=False)
    return raw.get("filename") == _HYDRAS_LOG and raw.get("mode", "a") == "a"


@contextmanager
def checked_files() -> Iterator[Callable[[], None]]:
    """Refuse configuration files with aliases in the block; afterwards, call what is yielded to check experiments.

    An experiment file may come from someone else. It sets values of a run, and the sweep over them, but neither reads
    the environment nor changes how jobs are started.
    """
    from neuralop_bench.runtime import hydra_internals

    experiments: list[tuple[str, Mapping[str, str | None], Any]] = []

    def before(name: str, text: str) -> None:
        if "*" in text:
            plain_yaml.require_plain(text, "=".join(name.rsplit("/", 1)))

    def after(name: str, header: Mapping[str, str | None], content: Any) -> None:
        if name.startswith("experiment/"):
            experiments.append((name.replace("/", "=", 1), header, content))

    def check() -> None:
        for experiment in experiments:
            _require_modest(*experiment)

    with hydra_internals.watched_files(before, after):
        yield check


def _require_modest(name: str, header: Mapping[str, str | None], content: Any) -> None:
    """Refuse what an experiment file has no need for."""
    content = content if isinstance(content, dict) else {}
    hydra = content.get("hydra") or {}
    defaults = content.get("defaults") or []
    others = [key for key in hydra if key not in _EXPERIMENTS_KEYS] if isinstance(hydra, dict) else ["hydra"]
    if others or "hydra" in (header.get("package") or "") or re.search(r"@[^,'\"]*hydra", str(defaults)):
        raise InvocationError(
            f"{name} sets {', '.join(f'hydra.{key}' for key in others) or 'the package hydra'}, but an experiment file "
            f"may only set hydra.{' and hydra.'.join(_EXPERIMENTS_KEYS)}. Give the rest on the command line."
        )
    sweeper = hydra.get("sweeper")
    axes = (sweeper.get("params") if isinstance(sweeper, dict) else None) or {}
    for key, value in axes.items() if isinstance(axes, dict) else ():
        if re.search(r"\b(trust|target|hydra)\b", f"{key}={value}"):
            raise InvocationError(
                f"{name} varies {key}={value}, but trust, model.target and hydra can only be given on the command line."
            )
    found = list(_interpolations(content))
    for text in found:
        if not _REFERENCE.fullmatch(text):
            raise InvocationError(
                f"{name} contains {text[:80]!r}, but an experiment file may only refer to another key, as in "
                "${dataset.horizon}. Write the value out, or give it on the command line."
            )
    if len(found) > _MOST_REFERENCES:
        raise InvocationError(f"{name} contains {len(found)} references ${{...}}, but at most {_MOST_REFERENCES} fit.")


def _interpolations(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _interpolations(key)
            yield from _interpolations(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _interpolations(entry)
    elif isinstance(value, str) and "${" in value:
        yield value
