"""Checkpoints: plain dicts of tensors, numbers and strings, written atomically, read without unpickling code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from data_gen.store import replacing


class CheckpointError(RuntimeError):
    """A checkpoint can't be read; the message names the file and the remedy."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; ``path`` is always either the previous one or the whole new one."""
    with replacing(path) as temporary:
        torch.save(content, temporary)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"The checkpoint {path} can't be read ({type(error).__name__}: {error}). "
            "Run the same command with force=true to start the run anew."
        ) from error
