"""Checkpoints: plain dicts of tensors, numbers and strings, written atomically, read without unpickling code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

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


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Put the weights of a checkpoint into a module.

    Args:
        module: of the architecture that was saved.
        weights: its state.
        path: of the checkpoint, for the message.

    Raises:
        CheckpointError: they are of another architecture.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        first, *others = lines[1:] or lines  # torch heads its list with a line of its own
        first = shorten(first, 200, placeholder=" ...")
        more = f" ({len(others)} more such lines)" if others else ""
        raise CheckpointError(
            f"The checkpoint {path} is of another architecture than the configuration beside it: {first}{more}. Put "
            "back the file that belongs to the run, or run the same command with force=true to start it anew."
        ) from error
