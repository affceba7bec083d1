"""Shared fixtures: the smoke dataset is generated once per session, threads are few."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from neuralop_bench.config.compose import compose as composed
from neuralop_bench.config.schema import RunConfig

# Started in the background by a shell, pytest ignores Ctrl-C, and so would the programs that the tests start and stop.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: the last one to be given out keeps a single core busy."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where datasets of this session lie."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def smoke(data_folder: Path, tmp_path: Path):
    """Compose a run of the smoke track with outputs of its own: smoke("seed=1") -> RunConfig."""

    def compose(*overrides: str) -> RunConfig:
        paths = (f"paths.data={data_folder}", f"paths.outputs={tmp_path / 'outputs'}")
        return composed("track=smoke", *paths, *overrides)

    return compose
