"""Matrices that are made once and kept for every later call."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

_P = ParamSpec("_P")


def kept(function: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """A function that keeps its last 64 results, inside and outside of inference mode.

    Not under ``torch.compile``, which looks through caches, and warns of them: the matrices are made anew there, as a
    part of every step.
    """
    cached = lru_cache(maxsize=64)(torch.inference_mode(False)(function))

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        return function(*args, **kwargs) if torch.compiler.is_compiling() else cached(*args, **kwargs)

    return call
