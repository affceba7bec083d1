"""Parts that torch has one class of for each number of space axes, or that an option chooses by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CONV_FUNCTION = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
CONV_TRANSPOSE = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
AVERAGE_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}

# Of fields with a number of channels on a number of space axes. All but none learn a scale and a shift per channel.
NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda _channels, _n_dims: nn.Identity(),
    "group": lambda channels, _n_dims: nn.GroupNorm(1, channels),  # over all channels and points of a sample
    "instance": lambda channels, n_dims: _INSTANCE_NORM[n_dims](channels, affine=True),
    "batch": lambda channels, n_dims: _BATCH_NORM[n_dims](channels),
}

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh"]


class _Activation(NamedTuple):
    function: Callable[[Tensor], Tensor]
    module: Callable[[], nn.Module]


ACTIVATIONS: dict[str, _Activation] = {
    "gelu": _Activation(functional.gelu, nn.GELU),
    # The approximation of GELU by a hyperbolic tangent, which is jax's default.
    "gelu_tanh": _Activation(partial(functional.gelu, approximate="tanh"), partial(nn.GELU, approximate="tanh")),
    "relu": _Activation(functional.relu, nn.ReLU),
    "tanh": _Activation(torch.tanh, nn.Tanh),
}
