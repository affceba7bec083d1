"""U-Net."""

from __future__ import annotations

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import require_at_least
from neuralop_bench.layers.precision import unrounded
from neuralop_bench.layers.unet import Normalization, UNetBackbone


class UNet(nn.Module):
    """U-Net: convolutions on grids of doubling spacing, between a pointwise lifting and a pointwise projection.

        u(x) = Q(U(P(a, x)))

    U is ``neuralop_bench.layers.unet.UNetBackbone`` without blocks, Q has one hidden layer with GELU. The model appends
    coordinates to its input. It is the baseline for ``neuralop_bench.models.lsm.LSM``, which adds neural spectral
    blocks and has nine tenths of its parameters in this backbone.

    Convolutions and pooling act on points, so the map depends on the spacing: the network is bound to the grid it is
    trained on.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        width: channels of the finest scale. They double with every scale except the last.
        max_width: most channels of a scale; None for no bound.
        n_scales: grids, including the finest. Axes are padded to a multiple of 2^(n_scales-1) points.
        normalization: ``layer``, ``instance``, ``batch`` or ``none`` (``UNetBackbone``).
        projection_width: hidden channels of the projection.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, a width above ``max_width``, fewer than two scales, an unknown normalisation, or one
            with nothing to average over on the coarsest grid.

    Reference: Ronneberger et al. (2015), U-Net, arXiv 1505.04597; as in Wu et al. (2023), arXiv 2301.12664, figure 2
    without the blocks.

    >>> import torch
    >>> grid = Grid((33, 33), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))
    >>> UNet(in_channels=1, out_channels=1, grid=grid, width=4)(torch.ones(2, 1, 33, 33)).shape
    torch.Size([2, 1, 33, 33])
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 16,
        max_width: int | None = None,
        n_scales: int = 5,
        normalization: Normalization = "layer",
        projection_width: int = 128,
    ) -> None:
        super().__init__()
        require_at_least(1, "A U-Net", projection_width=projection_width)
        self._nodes = grid.nodes
        self.backbone = UNetBackbone(
            width, grid=grid, n_scales=n_scales, normalization=normalization, max_width=max_width
        )
        self.idle = self.backbone.idle
        self.lifting = Pointwise(in_channels + grid.n_dims, width)
        self.projection = Perceptron(width, projection_width, out_channels, gelu)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        with unrounded(x):
            v = self.lifting(append_coordinates(x, self._nodes))
        return self.projection(self.backbone(v))
