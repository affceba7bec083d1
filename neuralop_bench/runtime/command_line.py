"""The command line before Hydra reads it: answer --help, escape arguments, refuse unsafe ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import yaml

from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.runtime.process_group import n_processes

# What Hydra may build from the node ``hydra``: launchers, sweepers (Optuna's has a sampler) and log handlers.
_HYDRAS_OWN = ("hydra._internal.core_plugins", "hydra.experimental.callbacks", "hydra_plugins", "optuna.samplers")
_LOGGING = ("logging", "colorlog")
_DEEPEST = 32
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
        found = re.fullmatch(r"(\+{0,2}(?:run|paths\.\w+|dataset\.path))=([^'\"\\]*=[^'\"\\]*)", argument)
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
                cfg = load(self, *arguments, **options)
            except (AssertionError, AttributeError, LookupError, TypeError) as error:
                if isinstance(error, OmegaConfBaseException):
                    raise
                # Hydra assumes that an option is a name and that a key isn't empty.
                typed = [text for text in map(str, options.get("overrides", ())) if not text.startswith("hydra.mode=")]
                given = " ".join(map(repr, typed))
                raise InvocationError(f"Hydra can't compose {given}: look for a malformed argument or file.") from error
            _require_hydras_own(cfg.hydra, "hydra")
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
    if cfg.get("dry_run") is True and not str(cfg.hydra.sweeper._target_).endswith(".ResumingSweeper"):
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
        try:
            value = None if OmegaConf.is_missing(node, key) else node[key]  # follows interpolations
        except OmegaConfBaseException:
            continue  # a value that only exists in a job
        if OmegaConf.is_config(value):
            _require_hydras_own(value, f"{name}.{key}", depth + 1)
        allowed = _HYDRAS_OWN if key == "_target_" else _LOGGING if key in ("()", "class", "factory") else None
        if allowed is not None and value is not None:
            text = str(value)
            if not any(text == package or text.startswith(f"{package}.") for package in allowed):
                raise InvocationError(
                    f"{name}.{key}={text} isn't part of Hydra, but Hydra would call it. Only {', '.join(allowed)} are "
                    "trusted there. Remove it from the command line or the experiment file."
                )
