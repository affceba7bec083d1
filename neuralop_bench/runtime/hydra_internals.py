"""All uses of the internals of Hydra and of its launchers, where there is no public interface.

A new version of either may break them. tests/runtime/test_hydra_internals.py tries each with the versions pinned in
constraints.txt.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict


@contextmanager
def wrapped_composition(wrap: Callable[[Callable[..., DictConfig]], Callable[..., DictConfig]]) -> Iterator[None]:
    """Wrap every composition in the block, including those of a sweep's jobs.

    Args:
        wrap: gets the method ``load_configuration`` of Hydra's loader and returns its replacement.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl

    load = ConfigLoaderImpl.load_configuration
    ConfigLoaderImpl.load_configuration = wrap(load)
    try:
        yield
    finally:
        ConfigLoaderImpl.load_configuration = load


@contextmanager
def watched_files(
    before: Callable[[str, str], None], after: Callable[[str, Mapping[str, str | None], Any], None]
) -> Iterator[None]:
    """See every configuration file that is read in the block.

    Args:
        before: gets a file's name below its configuration folder, such as ``model/fno``, and its text.
        after: gets the name, the file's header (``package``) and its content with unresolved interpolations.
    """
    from hydra._internal.core_plugins.file_config_source import FileConfigSource

    load = FileConfigSource.load_config

    def load_watched(self: Any, config_path: str) -> Any:
        path = Path(self.path) / self._normalize_file_name(config_path)
        name = config_path.removesuffix(".yaml")
        if path.is_file():
            before(name, path.read_text(encoding="utf-8"))
        result = load(self, config_path)
        after(name, result.header, OmegaConf.to_container(result.config, resolve=False))
        return result

    FileConfigSource.load_config = load_watched
    try:
        yield
    finally:
        FileConfigSource.load_config = load


def group_options(group: str) -> list[str]:
    """Names of a group's options in the current composition."""
    from hydra.core.global_hydra import GlobalHydra

    return GlobalHydra.instance().config_loader().get_group_options(group)


def composed_job(
    overrides: Sequence[str], master: DictConfig, loader: Any, bases: dict[tuple[str, ...], DictConfig]
) -> DictConfig:
    """The configuration of a sweep's job, with unresolved interpolations.

    Hydra takes a tenth of a second to compose one, nearly all of it to read the files of the chosen options. Jobs with
    the same options share that work. Then values are set, as Hydra does.

    Args:
        overrides: overrides of the job.
        master: the configuration that Hydra has composed for the sweep.
        loader: Hydra's loader of configurations.
        bases: configurations by the options chosen; entries are added.
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

    They are in a local variable of the launcher, which doesn't expose them.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        jobs = frame.f_locals.get("jobs")
        if frame.f_globals.get("__name__", "").startswith("hydra_plugins.hydra_submitit_launcher") and jobs:
            return jobs
    return None
