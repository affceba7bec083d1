"""Every reach into the internals of Hydra and of its launchers, which have no public door for these things.

A new version of either may close one of them: tests/runtime/test_hydra_internals.py tries each with the version that
constraints.txt pins.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, open_dict


@contextmanager
def wrapped_composition(wrap: Callable[[Callable[..., DictConfig]], Callable[..., DictConfig]]) -> Iterator[None]:
    """Let every composition in the block, those of a sweep's jobs included, pass through ``wrap``.

    Args:
        wrap: takes the method ``load_configuration`` of Hydra's loader and returns what is called in its place.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load = ConfigLoaderImpl.load_configuration
    ConfigLoaderImpl.load_configuration = wrap(load)
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load


def group_options(group: str) -> list[str]:
    """Names of a group's options in the composition at work."""
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader().get_group_options(group)


def composed_job(
    overrides: Sequence[str], master: DictConfig, loader: Any, bases: dict[tuple[str, ...], DictConfig]
) -> DictConfig:
    """The configuration of a sweep's job, with interpolations that aren't resolved.

    Hydra takes a tenth of a second for one, nearly all of it for the files of the options that are chosen. Jobs that
    choose the same share that; then, as Hydra does, values are put in.

    Args:
        overrides: of the job.
        master: the configuration that Hydra has composed for the sweep.
        loader: Hydra's loader of configurations.
        bases: configurations by the options chosen; filled in.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    is_choice = [loader.repository.group_exists(o.key_or_group) and not isinstance(o.value(), dict) for o in parsed]
    chosen = tuple(override for override, choice in zip(overrides, is_choice, strict=True) if choice)
    if chosen not in bases:
        bases[chosen] = loader.load_sweep_config(master_config=master, sweep_overrides=list(chosen))
    cfg = deepcopy(bases[chosen])
    loader._apply_overrides_to_config([o for o, choice in zip(parsed, is_choice, strict=True) if not choice], cfg)
    with open_dict(cfg):
        cfg.hydra.overrides.task = list(overrides)
    return cfg


def submitted_jobs(error: BaseException) -> Sequence[Any] | None:
    """The jobs that Hydra's launcher had handed to submitit when it raised; None if there are none.

    They are a local variable of the launcher, which hands them to nobody.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        jobs = frame.f_locals.get("jobs")
        if frame.f_globals.get("__name__", "").startswith("hydra_plugins.hydra_submitit_launcher") and jobs:
            return jobs
    return None
