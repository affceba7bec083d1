"""U-Net of ConvNeXt blocks."""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, edges_of
from neuralop_bench.layers.convnext import ConvNeXtBlock
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import DoesNotFit, require_at_least
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.tables import CONV, CONV_TRANSPOSE

_WHO = "A ConvNeXt U-Net"


class Direction(nn.Module):
    """The channels of each point, divided by their Euclidean length and multiplied by a learned scale per channel.

    Shapes: [batch, channels, *space] to the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, v: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *space"]:
        with unrounded(v):
            return normalize(widened(v), dim=1, eps=1e-6) * self.weight.view(-1, *(1,) * (v.ndim - 2))


class ConvNeXtUNet(nn.Module):
    """U-Net whose levels are ConvNeXt blocks: depthwise convolutions with wide kernels replace full ones, and
    pointwise networks mix the channels. Most parameters and operations are in these networks.

        down:  x_0 = P a,           x_{k+1} = S_k B_k x_k,                      k = 0 ... n_levels - 1
        up:    y_n = B_n x_n,       y_{k-1} = T_k B'_k M_k [y_k, x_k],          k = n_levels ... 1
        out:   u = Q y_0

    B_k and B'_k are chains of ``ConvNeXtBlock``. S_k divides the channels of each point by their length
    (``Direction``), then maps each 2 x 2 points to one, with twice the channels. T_k does the opposite. M_k is an
    affine map at each point; there is none on the coarsest level, where B' follows B directly. P and Q are convolutions
    over three points per axis.

    There is no shortcut around the first step to a coarser grid. Every path from the input to the output passes through
    a ``Direction``, so the network knows the size of the input only through the biases and the blocks before it.

    Axes are padded to a multiple of 2^n_levels points, and the output is cut back. Convolutions wrap around periodic
    axes and pad the others with zeros. They act on points, so the network is bound to the spacing of the grid that it
    is trained on.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its nodes are used, and its size bounds ``n_levels``.
        width: channels of the finest grid. They double with every level. Published: 42.
        n_levels: coarser grids. Published: 4.
        n_blocks: blocks of a level, on the way down and again on the way up. Published: 2.
        n_neck_blocks: further blocks on the coarsest grid.
        kernel: points along each axis of the kernels in the blocks, an odd number.
        layer_scale: initial scale of a block's change, a positive number.
        max_width: most channels of a level; None for no bound, as published. In 1D, a level has half the points of the
            one before and four times the products per point, so that without a bound the coarsest levels cost most.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: a kernel would wrap around a periodic axis of the coarsest grid more than once.
        ValueError: a size below 1, a ``max_width`` below the width, an even kernel, a ``layer_scale`` that isn't
            positive.

    Cost: a block has 8 channels^2 + (kernel^n_dims + 9) channels parameters, and about two operations per parameter and
    point.

    Reference: Ohana et al. (2024), The Well, arXiv 2412.00568, where the network is called CNextU-Net; structure and
    sizes are those of its published code (PolymathicAI/the_well, unet_convnext). Its weights for the dataset
    viscoelastic_instability fill 74.4 MB, i.e. 18.6 million numbers; with the same sizes this network has 18.58
    million. Departures: convolutions wrap around periodic axes, where theirs pad all axes with zeros; axes can have any
    number of points; one axis is possible; ``Direction`` has no bias (the published one has, but doesn't use it).

    >>> grid = Grid.periodic(64)
    >>> model = ConvNeXtUNet(in_channels=32, out_channels=8, grid=grid, width=42, n_levels=4, n_blocks=2)
    >>> sum(p.numel() for p in model.parameters())
    18581018
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 16,
        n_levels: int = 3,
        n_blocks: int = 1,
        n_neck_blocks: int = 1,
        kernel: int = 7,
        layer_scale: float = 1e-6,
        max_width: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, _WHO, width=width, n_levels=n_levels, n_blocks=n_blocks, n_neck_blocks=n_neck_blocks)
        require_at_least(1, _WHO, kernel=kernel)
        widest = width * 2**n_levels
        most = widest if max_width is None else max_width
        require_at_least(width, _WHO, max_width=most)
        self.idle = {"max_width": f"the coarsest level has {widest} channels"} if most >= widest else {}
        if layer_scale <= 0:
            raise ValueError(f"{_WHO} needs model.layer_scale to be positive, got {layer_scale}.")
        _require_room(grid, n_levels, kernel)
        edges, n_dims = edges_of(grid), grid.n_dims
        self._nodes, self._multiple = grid.nodes, 2**n_levels
        channels = [min(width * 2**level, most) for level in range(n_levels + 1)]
        steps = list(itertools.pairwise(channels))

        def blocks(n_channels: int, n: int) -> nn.Sequential:
            return nn.Sequential(
                *(ConvNeXtBlock(n_channels, edges=edges, kernel=kernel, layer_scale=layer_scale) for _ in range(n))
            )

        self.lifting = Conv(in_channels, width, edges=edges)
        self.encoder = nn.ModuleList(blocks(n, n_blocks) for n in channels[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(Direction(fine), CONV[n_dims](fine, coarse, 2, stride=2)) for fine, coarse in steps
        )
        self.neck = blocks(channels[-1], n_neck_blocks)
        self.merge = nn.ModuleList(Pointwise(2 * n, n) for n in channels[1:-1])
        self.decoder = nn.ModuleList(blocks(n, n_blocks) for n in channels[1:])
        self.up = nn.ModuleList(
            nn.Sequential(Direction(coarse), CONV_TRANSPOSE[n_dims](coarse, fine, 2, stride=2))
            for fine, coarse in steps
        )
        self.projection = Conv(width, out_channels, edges=edges)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        v = self.lifting(pad_to_multiple(x, self._multiple, self._nodes))
        # Channels become neighbours in memory, as convolutions of single channels and networks at each point want them.
        v = v.movedim(1, -1).contiguous().movedim(-1, 1)
        entering = []
        for encoder, down in zip(self.encoder, self.down, strict=True):
            entering.append(v)
            v = down(encoder(v))
        y = self.neck(v)
        for level in reversed(range(len(self.up))):
            if level < len(self.merge):
                y = self.merge[level](torch.cat([y, entering[level + 1]], dim=1))
            y = self.up[level](self.decoder[level](y))
        return crop(self.projection(y), space)


def _require_room(grid: Grid, n_levels: int, kernel: int) -> None:
    """Raise unless a kernel wraps around no periodic axis of the coarsest grid more than once."""
    periodic = [n for n, nodes in zip(grid.shape, grid.nodes, strict=True) if nodes == "periodic"]
    reach = kernel // 2

    def fits(level: int) -> bool:
        return all(-(-n // 2**level) >= reach for n in periodic)

    if fits(n_levels):
        return
    message = (
        f"{_WHO} with n_levels={n_levels} halves a periodic axis of {min(periodic)} points to "
        f"{-(-min(periodic) // 2**n_levels)}, which a kernel of {kernel} points wraps around more than once"
    )
    at_most = max((level for level in range(1, n_levels) if fits(level)), default=0)
    if not at_most:
        raise ValueError(f"{message}. Lower model.kernel or raise the resolution.")
    raise DoesNotFit(
        f"{message}: n_levels must be at most {at_most}. Lower it or model.kernel, or raise the resolution.",
        n_levels=at_most,
    )
