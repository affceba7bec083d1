"""Matrices that are computed once and kept for later calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import ParamSpec

import torch
from torch import Tensor

_P = ParamSpec("_P")


def kept(function: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Make a function keep its last 64 results, for use both inside and outside of inference mode.

    Under ``torch.compile``, which looks through caches and warns about them, nothing is kept: the matrices are computed
    in every step.
    """
    cached = lru_cache(maxsize=64)(torch.inference_mode(False)(function))

    @wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        return function(*args, **kwargs) if torch.compiler.is_compiling() else cached(*args, **kwargs)

    return call
