"""Checkpoints: plain dicts of tensors, numbers and strings, written atomically and read without running code."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from data_gen import hdf5
from data_gen.files import replacing_stream

CHECKPOINT_FORMAT = 1


class CheckpointError(RuntimeError):
    """A checkpoint can't be read. The message names the file and what to do."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint atomically: ``path`` is always either the previous one or the complete new one."""
    with replacing_stream(path) as stream:
        try:
            torch.save({"format": CHECKPOINT_FORMAT, **content}, stream)
        except RuntimeError as error:
            # Stopped half way (Ctrl-C), torch complains about the incomplete file and so hides the stop.
            stop = error.__context__
            if stop is not None and not isinstance(stop, Exception):
                raise stop from None
            raise


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint.

    No code in the file is run: it may only contain tensors, numbers, strings and containers of these.

    Raises:
        CheckpointError: the file is missing, damaged or out of reach, has another format, or contains anything else.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise ValueError("it isn't a regular file")
        # torch doesn't verify the checksums that it writes, so a flipped bit would silently change the model.
        with zipfile.ZipFile(path) as archive:
            if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
                raise ValueError("it is compressed, so it could unpack to any size; torch doesn't write such files")
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of its part {damaged} is wrong")
        content = torch.load(path, map_location=device, weights_only=True)
        version = content.pop("format", CHECKPOINT_FORMAT)
        if version != CHECKPOINT_FORMAT:
            raise ValueError(f"it has format {version}, but this code reads format {CHECKPOINT_FORMAT}")
        return content
    except Exception as error:  # a damaged file can raise any exception
        if not isinstance(error, FileNotFoundError) and (cause := hdf5.why(error)) is not None:
            raise CheckpointError(f"The checkpoint {path} can't be read: {cause}") from error
        raise CheckpointError(
            f"The checkpoint {path} can't be read ({type(error).__name__}: {hdf5.words(error)}). "
            "Run the same command with force=true to start the run from scratch."
        ) from error


def load_published(path: Path) -> dict[str, Tensor]:
    """Read the weights that other code has saved, by name: a safetensors file, or one of ``torch.save`` with a state
    dict, perhaps under the key ``model`` or ``state_dict``. No code in the file is run.

    Raises:
        CheckpointError: it isn't such a file.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # Many training scripts save their arguments, too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
        held = (content.get(key) for key in ("model", "state_dict", "model_state_dict"))
        states = next((entry for entry in held if isinstance(entry, Mapping)), content)
        found = {name.removeprefix("module."): value for name, value in states.items() if isinstance(value, Tensor)}
        if not found:
            raise ValueError("no tensors")
        return found
    except Exception as error:  # a damaged file can raise any exception
        raise CheckpointError(
            f"{path} can't be read as weights ({type(error).__name__}). It must be a .safetensors file, or a state "
            "dict that torch.save has written."
        ) from error


def load_weights(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load the weights of a checkpoint into a module.

    Args:
        module: a module of the architecture that was saved.
        weights: its state.
        path: the checkpoint's path, for the message.

    Raises:
        CheckpointError: the weights belong to another architecture.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        lines = str(error).splitlines()
        first, *others = lines[1:] or lines  # torch's first line is a heading
        first = shorten(first, 200, placeholder=" ...")
        more = f" ({len(others)} more such lines)" if others else ""
        raise CheckpointError(
            f"The checkpoint {path} doesn't fit the configured architecture: {first}{more}. Restore the file that "
            "belongs to the run, or run the same command with force=true to start from scratch."
        ) from error
