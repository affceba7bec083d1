"""The block of the convolutional network ConvNeXt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from neuralop_bench.layers.conv import Conv, Edge
from neuralop_bench.layers.mlp import Perceptron


class ConvNeXtBlock(nn.Module):
    """A wide convolution of each channel by itself, then a network with one hidden layer (GELU) at each point.

        v <- v + g F(norm(D v))

    D has one kernel per channel, ``norm`` normalises the channels of each point, F has four times as many hidden
    channels as v, and g is a learned scale per channel, which begins near zero.

    Args:
        channels: of input and output.
        edges: how each axis is continued (``neuralop_bench.layers.conv.Conv``).
        kernel: points along each axis of a kernel, an odd number.
        layer_scale: initial value of g.
        eps: added to the variance that ``norm`` divides by.

    Shapes: [batch, channels, *space] to the same.

    Reference: Liu et al. (2022), A ConvNet for the 2020s, figure 4, arXiv 2201.03545.

    >>> ConvNeXtBlock(6, edges=("circular", "zeros"))(torch.ones(2, 6, 8, 9)).shape
    torch.Size([2, 6, 8, 9])
    """

    def __init__(
        self,
        channels: int,
        *,
        edges: Sequence[Edge],
        kernel: int = 7,
        layer_scale: float = 1e-6,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.depthwise = Conv(channels, channels, edges=edges, kernel=kernel, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.network = Perceptron(channels, 4 * channels, channels, gelu)
        self.scale = nn.Parameter(torch.full((channels,), layer_scale))

    def forward(self, v: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        change = self.network.channels_last(self.norm(self.depthwise(v).movedim(1, -1)))
        return torch.addcmul(v.movedim(1, -1), self.scale, change).movedim(-1, 1)
