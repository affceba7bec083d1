"""Results that are computed again for the gradient instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recomputed(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``function(*tensors)``. For the gradient only the tensors are kept, and what lies between is computed again.

    Args:
        function: of tensors of any shape, without random numbers.

    >>> x = torch.ones(3, requires_grad=True)
    >>> recomputed(lambda v: v.square().exp(), x).sum().backward()
    >>> bool(torch.allclose(x.grad, 2 * torch.ones(3).exp()))
    True
    """
    if not torch.is_grad_enabled():
        return function(*tensors)
    return cast(Tensor, checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False))
