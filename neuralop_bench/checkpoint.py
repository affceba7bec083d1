"""Checkpoints: plain dicts of tensors, numbers and strings, written atomically, read without unpickling code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from data_gen.files import replacing_stream

CHECKPOINT_FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint can't be read; the message names the file and the remedy."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; ``path`` is always either the previous one or the whole new one."""
    with replacing_stream(path) as stream:
        torch.save({"format": CHECKPOINT_FORMAT, **content}, stream)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Nothing in the file is run: it may hold tensors, numbers, strings and containers of those, and nothing else.

    Raises:
        CheckpointError: the file is missing, damaged, of another format, or holds something else.
    """
    try:
        # torch doesn't compare the checksums that it writes: a flipped bit would be a slightly different model.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of its part {damaged} is wrong")
        content = torch.load(path, map_location=device, weights_only=True)
        version = content.pop("format", CHECKPOINT_FORMAT)
        if version != CHECKPOINT_FORMAT:
            raise ValueError(f"it has format {version}, this code reads {CHECKPOINT_FORMAT}")
        return content
    except Exception as error:  # damage can raise anything
        raise CheckpointError(
            f"The checkpoint {path} can't be read ({type(error).__name__}: {error}). "
            "Run the same command with force=true to start the run anew."
        ) from error
