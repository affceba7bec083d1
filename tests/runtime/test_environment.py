"""What a record says of code and machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from neuralop_bench.runtime import environment


def _repository(folder: Path) -> str:
    """A git repository with one commit; its hash."""
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for arguments in (("init", "-q"), (*identity, "commit", "-q", "--allow-empty", "-m", "theirs")):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_our_own_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = _repository(tmp_path)
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.commit() == (head, False)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "new.yaml").touch()
    assert environment.commit() == (head, True)


def test_an_environment_inside_another_repository_has_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _repository(tmp_path)
    installed = tmp_path / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "ROOT", installed)
    assert environment.commit() == ("", False)


def test_the_environment_names_what_the_last_bits_depend_on() -> None:
    found = environment.environment(torch.device("cpu"))
    deciding = found["bit_equal_with_the_same"]
    assert {"libraries", "processor", "threads"} <= set(deciding)
    assert all(found[name] is not None for name in deciding)
    assert (found["processes"], found["compiled"]) == (1, False)
    assert found["threads"] == torch.get_num_threads()
