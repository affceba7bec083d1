"""Layers that act on the channels of each point alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Pointwise(nn.Linear):
    """The same affine map of the channels at every point: a convolution with a kernel of one point, in any dimension.

    Computed as one batched matrix product, which on CPU trains about five times faster than ``nn.Conv2d``.

    Shapes: [batch, in_features, *space] to [batch, out_features, *space].

    >>> Pointwise(3, 5)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 5, 8, 8])
    """

    def forward(self, input: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        weight = self.weight.expand(input.shape[0], -1, -1)
        return torch.baddbmm(self.bias[:, None], weight, input.flatten(2)).unflatten(2, input.shape[2:])
