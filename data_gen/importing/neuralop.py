"""``.pt`` files of the neuraloperator package: a dictionary of tensors x and y."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from data_gen import hdf5
from data_gen.importing.arrays import LazyArray, pair
from data_gen.importing.contents import Contents, Given, ImportedFileError

_REFERENCE = "Kossaifi et al. 2024, A Library for Learning Neural Operators (neuraloperator)"


def open_file(path: Path, given: Given, files: ExitStack) -> Contents:
    """x and y, with or without channels: a steady problem, or trajectories that start at x if y has times.

    Raises:
        ImportedFileError: the file holds anything but tensors, or no x and y, or it isn't clear what their axes are.
    """
    del files
    content = _load(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(key), torch.Tensor) for key in ("x", "y")):
        held = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ImportedFileError(f"{path} must hold a dictionary with tensors x and y; it holds {held}.")
    x, y = (LazyArray(path, key, _plain(path, key, content[key])) for key in ("x", "y"))
    return pair(path, given, x, y, _REFERENCE)


def _plain(path: Path, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that NumPy accepts: dense, without gradient, and of a type that NumPy has."""
    if tensor.is_nested or tensor.is_meta:
        raise ImportedFileError(
            f"{name} in {path} is a {'nested tensor' if tensor.is_nested else 'tensor without values (device meta)'}. "
            "Save an ordinary tensor instead."
        )
    stored = tensor.untyped_storage().nbytes() if tensor.layout == torch.strided else 0
    if hdf5.claims_too_much(tensor.numel() * tensor.element_size(), stored):
        raise ImportedFileError(
            f"{name} in {path} has the shape {tuple(tensor.shape)}, but far fewer numbers are stored. Save an ordinary "
            "tensor of smaller size instead."
        )
    tensor = tensor.detach().resolve_neg()
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()  # exact: bfloat16 and the types of 8 bits have fewer digits
    return tensor


def _load(path: Path) -> Any:
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # written before 2020, or not such a file at all
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        cause = hdf5.why(error)
        if cause is not None:
            raise ImportedFileError(f"{path} can't be read: {cause}") from error
        raise ImportedFileError(
            f"{path} can't be loaded as tensors alone ({hdf5.words(error)}). A file with other "
            "Python objects in it isn't opened, because loading it would run its code."
        ) from error
