"""Examples in docstrings are run as a reader would type them, in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where datasets of this session lie."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def _example_folder(tmp_path_factory: pytest.TempPathFactory, data_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "data").symlink_to(data_folder)
    return folder


@pytest.fixture(autouse=True)
def _examples_leave_nothing_here(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("_example_folder"))
