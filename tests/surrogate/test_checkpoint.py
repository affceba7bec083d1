"""Checkpoints are atomic and never run foreign code."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import pytest
import torch

from data_gen import files
from neuralop_bench.surrogate import checkpoint
from neuralop_bench.surrogate.checkpoint import CheckpointError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


def test_round_trip(tmp_path: Path) -> None:
    content = {"model": {"weight": torch.arange(3.0)}, "epoch": 2, "config": "a: 1"}
    checkpoint.save(tmp_path / "last.pt", content)
    loaded = checkpoint.load(tmp_path / "last.pt")
    assert torch.equal(loaded["model"]["weight"], torch.arange(3.0))
    assert (loaded["epoch"], loaded["config"]) == (2, "a: 1")


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "last.pt", {"epoch": 1})

    def torn(content: object, stream: BinaryIO) -> None:
        del content
        stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", torn)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(tmp_path / "last.pt", {"epoch": 2})
    assert checkpoint.load(tmp_path / "last.pt") == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_ctrl_c_during_a_save_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = files._Patient.write, count()

    def interrupted(self: files._Patient, data: Buffer) -> int:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return write(self, data)

    monkeypatch.setattr(files._Patient, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(tmp_path / "last.pt", {"weight": torch.arange(3000.0)})
    assert next(calls) > 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [0, 10, 500])
def test_a_truncated_checkpoint_is_reported_with_a_remedy(tmp_path: Path, size: int) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save(path, {"weight": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match="force=true"):
        checkpoint.load(path)


class _Malicious:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def test_a_checkpoint_out_of_reach_isnt_to_be_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "best.pt"
    checkpoint.save(path, {"model": torch.ones(2)})

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(torch, "load", refuse)  # root may read any file
    with pytest.raises(CheckpointError, match="you lack the permission to read it") as caught:
        checkpoint.load(path)
    assert "force=true" not in str(caught.value)


def test_a_pickle_with_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": _Malicious()}, tmp_path / "last.pt")
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "last.pt")
    assert not Path("owned").exists()
