"""Predict that nothing changes: a baseline that every other model should beat."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid


class Persistence(nn.Module):
    """An increment of zero. As a residual (surrogate.residual=true, see configs/model/persistence.yaml) it predicts the
    last frame of the history for every later time.

        u(t + j) = u(t)

    Steady problems have no last frame, so the surrogate refuses them.

    Args:
        in_channels, grid: unused.
        out_channels: channels of the output.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].
    """

    resolution_free: ClassVar[bool] = True

    def __init__(self, *, in_channels: int, out_channels: int, grid: Grid) -> None:
        super().__init__()
        del in_channels, grid
        self._out_channels = out_channels

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        return x.new_zeros(len(x), self._out_channels, *x.shape[2:])
