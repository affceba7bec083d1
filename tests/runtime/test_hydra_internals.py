"""What we take from the inside of Hydra and of its launchers is where the pinned versions have it."""

from __future__ import annotations

import inspect
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf
from packaging.requirements import Requirement

from neuralop_bench.config.compose import compose
from neuralop_bench.runtime.hydra_internals import composed_job, group_options, submitted_jobs, wrapped_composition
from neuralop_bench.runtime.place import CONFIG_DIR

JOBS = [
    ["model=fno", "track=smoke", "seed=3"],
    ["model=unet", "track=smoke", "trainer.epochs=1", "+model.dropout=0.1"],
    ["model=fno", "track=smoke", "~recipe", "optimizer.lr=0.5"],
]


def test_every_composition_passes_through_the_wrapper() -> None:
    seen: list[Any] = []

    def noting(load: Any) -> Any:
        return lambda *arguments, **options: seen.append(options["overrides"]) or load(*arguments, **options)

    with wrapped_composition(noting):
        compose("track=smoke")
    assert seen == [["track=smoke"]]
    compose("track=smoke")
    assert len(seen) == 1


@pytest.mark.parametrize("overrides", JOBS, ids=" ".join)
def test_a_job_is_composed_as_hydra_would(overrides: list[str]) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        assert "fno" in group_options("model")
        master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
        bases: dict[tuple[str, ...], Any] = {}
        for _ in range(2):  # from its files, and from what is kept of them
            ours = composed_job(overrides, master, loader, bases)
            theirs = loader.load_sweep_config(master_config=master, sweep_overrides=overrides)
            one, other = (OmegaConf.to_container(cfg) for cfg in (ours, theirs))
            assert isinstance(one, dict)
            assert isinstance(other, dict)
            assert one.pop("hydra")["runtime"]["choices"] == other.pop("hydra")["runtime"]["choices"]
            assert one == other


def test_the_launcher_keeps_its_jobs_where_we_look_for_them() -> None:
    launcher = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.submitit_launcher")
    source = inspect.getsource(launcher.BaseSubmititLauncher.launch)
    assert "jobs = executor.map_array" in source
    namespace = {"__name__": launcher.__name__}
    exec("def launch():\n    jobs = ['one', 'two']\n    raise OSError('no node')", namespace)
    with pytest.raises(OSError, match="no node") as raised:
        namespace["launch"]()  # pyright: ignore[reportCallIssue]
    assert submitted_jobs(raised.value) == ["one", "two"]
    assert submitted_jobs(ValueError()) is None


def test_the_sweeper_has_what_ours_builds_on() -> None:
    assert {"split_arguments", "_parse_config", "setup"} <= set(dir(BasicSweeper))


def test_no_hydra_without_a_policy_for_targets_is_allowed() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    (needed,) = (Requirement(text) for text in project["dependencies"] if text.startswith("hydra-core"))
    assert needed.specifier.contains("1.3.8")
    assert not needed.specifier.contains("1.3.7")
