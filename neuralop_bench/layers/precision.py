"""What stays in float32 when torch chooses a precision for each operation (``torch.autocast``).

bfloat16 has 8 significant bits. That is enough for products of features, which are most of the work, and for what is
kept of them for the gradient. It isn't enough for positions (points of a fine grid would coincide), transforms
(rounding is white noise, and the high modes of a smooth field are far below it), phases, and sums of a few large terms.
Layers compute these ``unrounded``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_SHORT = (torch.bfloat16, torch.float16)


def is_autocast(x: Tensor) -> bool:
    """Whether torch chooses a precision for each operation on tensors like this one."""
    device = x.device.type
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def unrounded(x: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on tensors like this one keep the precision of their arguments."""
    return torch.autocast(x.device.type, enabled=False) if is_autocast(x) else nullcontext()


def widened(x: Tensor) -> Tensor:
    """The same values, in float32 or wider.

    >>> widened(torch.ones(2, dtype=torch.bfloat16)).dtype, widened(torch.ones(2, dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return x.float() if x.dtype in _SHORT else x
