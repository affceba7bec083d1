"""Backbone of a U-Net: down to coarse grids and up again, with skip connections."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, Edge, edges_of
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import require_at_least, require_known
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.resample import resample
from neuralop_bench.layers.tables import MAX_POOL, NORMS

Normalization = Literal["layer", "instance", "batch", "none"]


class DoubleConv(nn.Sequential):
    """A convolution over three points per axis, normalisation and ReLU; all of this twice.

    Args:
        in_channels, mid_channels, out_channels: before, between and after the two convolutions.
        edges: how each axis is continued (``neuralop_bench.layers.conv.Conv``).
        normalization: see ``UNetBackbone``. The convolutions have a bias only with ``none``: normalisation adds a shift
            of its own.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    >>> DoubleConv(3, 4, 5, edges=("zeros", "circular"))(torch.ones(2, 3, 8, 6)).shape
    torch.Size([2, 5, 8, 6])
    """

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        edges: Sequence[Edge],
        normalization: Normalization = "layer",
    ) -> None:
        norm = NORMS["group" if normalization == "layer" else normalization]
        layers: list[nn.Module] = []
        for n_in, n_out in ((in_channels, mid_channels), (mid_channels, out_channels)):
            layers.append(Conv(n_in, n_out, edges=edges, bias=normalization == "none"))
            layers.append(norm(n_out, len(edges)))
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


class UNetBackbone(nn.Module):
    """The features of a field on ``n_scales`` grids, each with half the points per axis of the one before.

        down:  x_0 = D_0(v),    x_k = D_k(pool(x_{k-1})),                     k = 1 ... n-1
        up:    y_{n-1} = B_{n-1}(x_{n-1}),    y_k = U_k([B_k(x_k), I y_{k+1}]),    k = n-2 ... 0
        out:   W y_0 + b

    D_k and U_k are pairs of convolutions (``DoubleConv``), ``pool`` takes the larger of two values per axis, I
    interpolates linearly to the grid of x_k. B_k is a block that acts on the features of each scale before they go up;
    the identity gives a plain U-Net. Channels double with every scale up to ``max_width``, except the last, so that
    y_{k+1} has as many as x_k.

    Axes are padded to a multiple of patch 2^(n_scales-1) points, and the output is cut back. Convolutions wrap around
    periodic axes and pad the others with zeros. The network treats a periodic axis exactly as periodic only if the axis
    needs no padding.

    Args:
        width: channels of the input, the output and the finest scale.
        grid: the training grid: its nodes are used, and its size determines that of the coarsest scale.
        n_scales: grids, including the finest.
        normalization: the values after a convolution are normalised by a mean and a standard deviation, followed by a
            learned scale and shift per channel:

            - ``layer``: over all channels and points of a sample.
            - ``instance``: over the points, for each channel of a sample. On a periodic grid the network then ignores a
              constant added to its whole input.
            - ``batch``: over the batch, for each channel; in evaluation, the running means of training. The two differ
              for samples unlike those of training, e.g. late in a rollout.
            - ``none``: no normalisation.
        block: constructor of B_k, ``block(channels)``; ``nn.Identity`` for none.
        patch: the grid of every scale has a multiple of this many points per axis.
        max_width: most channels of a scale; None for no bound. In 1D, a scale has half the points of the one before and
            four times the products per point, so that without a bound the coarsest scales cost most.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, width, *space] to [batch, width, *space].

    Raises:
        ValueError: fewer than two scales, a width below 1 or above ``max_width``, an unknown normalisation, or one with
            nothing to average over on the coarsest grid.

    Reference: Ronneberger et al. (2015), U-Net, arXiv 1505.04597; with the sizes of Wu et al. (2023), arXiv 2301.12664.

    >>> backbone = UNetBackbone(4, grid=Grid.periodic(33), n_scales=3)
    >>> backbone(torch.ones(2, 4, 33, 33)).shape
    torch.Size([2, 4, 33, 33])
    """

    def __init__(
        self,
        width: int,
        *,
        grid: Grid,
        n_scales: int = 5,
        normalization: Normalization = "layer",
        block: Callable[[int], nn.Module] = lambda _: nn.Identity(),
        patch: int = 1,
        max_width: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, "A U-Net", width=width)
        require_at_least(2, "A U-Net", n_scales=n_scales)
        require_known("A U-Net", "normalization", normalization, get_args(Normalization))
        if max_width is not None and width > max_width:
            raise ValueError(
                f"A U-Net begins with width={width} channels, which is more than max_width={max_width}. "
                "Lower model.width or raise model.max_width."
            )
        self._nodes = grid.nodes
        self._multiple = patch * 2 ** (n_scales - 1)
        channels = [width * 2 ** min(scale, n_scales - 2) for scale in range(n_scales)]
        widest = max(channels)
        self.idle = (
            {"max_width": f"the widest scale has {widest} channels"} if max_width is None or max_width >= widest else {}
        )
        if max_width is not None:
            channels = [min(n, max_width) for n in channels]
        coarsest = math.prod(patch * math.ceil(n / self._multiple) for n in grid.shape)
        averaged = coarsest * (channels[-1] if normalization == "layer" else 1)
        if averaged == 1 and normalization != "none":
            raise ValueError(
                f"A U-Net with n_scales={n_scales} halves a grid of shape {grid.shape} down to one point, where "
                f"{normalization} normalisation has nothing to average over. Lower model.n_scales, or set "
                "model.normalization to layer, with model.width of at least 2, or to none."
            )
        edges = edges_of(grid)
        finer = [width, *channels]  # channels one scale up; for the finest scale, those of input and output
        self.down = nn.ModuleList(
            DoubleConv(n_in, n, n, edges=edges, normalization=normalization)
            for n_in, n in zip(finer, channels, strict=False)
        )
        self.blocks = nn.ModuleList(block(n) for n in channels)
        self.up = nn.ModuleList(
            DoubleConv(2 * n, n, n_out, edges=edges, normalization=normalization)
            for n_out, n in zip(finer, channels[:-1], strict=False)
        )
        self.out = Pointwise(width, width)

    def forward(self, v: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        space = v.shape[2:]
        x = pad_to_multiple(v, self._multiple, self._nodes)
        skips = []
        for scale, (down, block) in enumerate(zip(self.down, self.blocks, strict=True)):
            x = down(MAX_POOL[len(space)](x, 2) if scale else x)
            skips.append(block(x))
        y = skips.pop()
        for up in reversed(self.up):
            skip = skips.pop()
            y = up(torch.cat([skip, resample(y, self._nodes, skip.shape[2:])], dim=1))
        return self.out(crop(y, space))
