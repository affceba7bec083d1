"""The mean of the training targets: the best that a model can do without looking at its input."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.resample import resample


class MeanField(nn.Module):
    """The pointwise mean of the training targets, for every input. Zero until ``prepare`` has been called.

        G(a)(x) = 1/N sum_n u_n(x)

    Args:
        in_channels: unused.
        out_channels: channels of the output.
        grid: the training grid. On another number of points the mean is interpolated.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].
    """

    resolution_free: ClassVar[bool] = True
    mean: Tensor

    def __init__(self, *, in_channels: int, out_channels: int, grid: Grid) -> None:
        super().__init__()
        del in_channels
        self._nodes = grid.nodes
        self.register_buffer("mean", torch.zeros(out_channels, *grid.shape))

    def prepare(
        self,
        inputs: Float[Tensor, "pair in_channels *space"],
        targets: Float[Tensor, "pair out_channels *space"],
    ) -> None:
        """Take the mean of the encoded training targets, summed in double precision."""
        del inputs
        self.mean.copy_(targets.mean(dim=0, dtype=torch.float64))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        mean = resample(self.mean[None].to(x), self._nodes, x.shape[2:])
        return mean.expand(len(x), *mean.shape[1:]).clone()
