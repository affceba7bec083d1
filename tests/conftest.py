"""Shared fixtures: the smoke dataset is generated and a run on it made once per process, threads are few."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuralop_bench import pipeline
from neuralop_bench.board import pictures
from neuralop_bench.config.compose import compose as composed
from neuralop_bench.config.identity import run_directory
from neuralop_bench.config.schema import RunConfig
from neuralop_bench.runs import training

# Started in the background by a shell, pytest ignores Ctrl-C, and so would the programs that the tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def smoke(data_folder: Path, tmp_path: Path):
    """Compose a run of the smoke track with outputs of its own: smoke("seed=1") -> RunConfig."""

    def compose(*overrides: str) -> RunConfig:
        paths = (f"paths.data={data_folder}", f"paths.outputs={tmp_path / 'outputs'}")
        return composed("track=smoke", *paths, *overrides)

    return compose


def _draw_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(training, "_draw", lambda *_: [])
    patch.setattr(pictures, "plots_of", lambda *_: [])


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures of runs and of boards take as long as all else of a small run. Tests that look at none leave them out."""
    _draw_nothing(monkeypatch)


@pytest.fixture(scope="session")
def finished_run(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run of the smoke track, of one epoch and without figures. Tests that change something take a copy."""
    outputs = tmp_path_factory.mktemp("finished")
    cfg = composed("track=smoke", "trainer.epochs=1", f"paths.data={data_folder}", f"paths.outputs={outputs}")
    with pytest.MonkeyPatch.context() as patch:
        _draw_nothing(patch)
        pipeline.run(cfg)
    return cfg


@pytest.fixture
def finished(finished_run: RunConfig) -> Path:
    """The directory of the finished run."""
    return run_directory(finished_run)


@pytest.fixture
def repeated(finished_run: RunConfig, smoke: Callable[..., RunConfig]) -> RunConfig:
    """A copy of the finished run where ``smoke("trainer.epochs=1")`` finds it."""
    cfg = smoke("trainer.epochs=1")
    shutil.copytree(finished_run.paths.outputs, cfg.paths.outputs)
    return cfg
