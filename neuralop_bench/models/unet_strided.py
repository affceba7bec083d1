"""U-Net whose grids are joined by convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, Edge, edges_of
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import choose, require_at_least, require_known
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.tables import ACTIVATIONS, NORMS, Activation


class StridedUNet(nn.Module):
    """U-Net with strided convolutions to coarser grids and transposed convolutions back to finer ones.

        down:  x_0 = D_0 a,        x_k = D_k S_k x_{k-1},         k = 1 ... n_levels
        up:    y_n = x_n,          y_k = U_k [x_k, T_k y_{k+1}],  k = n_levels - 1 ... 0
        out:   u = Q y_0

    D_k and U_k are pairs of convolutions over three points per axis, each followed by normalisation and an activation.
    S_k keeps every second point of a convolution. T_k is a convolution over the values with zeros between them, i.e. a
    transposed convolution. Q is an affine map at each point. Every level has half the points per axis and twice the
    channels of the one before.

    Axes are padded to a multiple of 2^n_levels points, and the output is cut back. Convolutions wrap around periodic
    axes and pad the others with zeros. They act on points, so the network is bound to the spacing of the grid that it
    is trained on. ``neuralop_bench.models.unet.UNet`` joins its grids by pooling and interpolation instead, which need
    no parameters, appends coordinates, and has a hidden layer in its projection.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, of which only the nodes are used.
        width: channels of the finest grid.
        n_levels: coarser grids.
        normalization: ``layer`` normalises over all channels and points; ``none``.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, an unknown activation or normalisation.

    Reference: Ronneberger et al. (2015), U-Net, arXiv 1505.04597, with strided convolutions for its pooling. The
    default sizes are those of "UNet;12;2" in Koehler et al. (2024), APEBench, arXiv 2411.00180.

    >>> model = StridedUNet(in_channels=1, out_channels=1, grid=Grid.periodic(160, n_dims=1))
    >>> sum(p.numel() for p in model.parameters())
    27193
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 12,
        n_levels: int = 2,
        normalization: Literal["none", "layer"] = "layer",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        who = "A U-Net with strided convolutions"
        require_at_least(1, who, width=width, n_levels=n_levels)
        require_known(who, "normalization", normalization, ("none", "layer"))
        choose(who, "activation", activation, ACTIVATIONS)
        edges = edges_of(grid)
        self._nodes, self._multiple = grid.nodes, 2**n_levels
        channels = [width * 2**level for level in range(n_levels + 1)]
        steps = list(itertools.pairwise(channels))

        def pair(n_in: int, n_out: int) -> _Pair:
            return _Pair(n_in, n_out, edges, normalization, activation)

        self.lifting = pair(in_channels, width)
        self.down = nn.ModuleList(Conv(fine, fine, edges=edges, stride=2) for fine, _ in steps)
        self.encoder = nn.ModuleList(pair(fine, coarse) for fine, coarse in steps)
        self.up = nn.ModuleList(_Up(coarse, fine, edges) for fine, coarse in steps)
        self.decoder = nn.ModuleList(pair(2 * fine, fine) for fine, _ in steps)
        self.projection = Pointwise(width, out_channels)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        v = self.lifting(pad_to_multiple(x, self._multiple, self._nodes))
        skipped = []
        for down, block in zip(self.down, self.encoder, strict=True):
            skipped.append(v)
            v = block(down(v))
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            v = block(torch.cat([skipped.pop(), up(v)], dim=1))
        return crop(self.projection(v), space)


class _Pair(nn.Sequential):
    def __init__(
        self, in_channels: int, out_channels: int, edges: Sequence[Edge], normalization: str, activation: str
    ) -> None:
        norm = NORMS["group" if normalization == "layer" else normalization]
        layers: list[nn.Module] = []
        for n_in in (in_channels, out_channels):
            layers.append(Conv(n_in, out_channels, edges=edges, narrow=True))
            layers.append(norm(out_channels, len(edges)))
            layers.append(ACTIVATIONS[activation].module())
        super().__init__(*layers)


class _Up(Conv):
    """A convolution on the grid of half the spacing, with zeros at the new points."""

    def __init__(self, in_channels: int, out_channels: int, edges: Sequence[Edge]) -> None:
        super().__init__(in_channels, out_channels, edges=edges, narrow=True)

    def forward(self, x: Tensor) -> Tensor:
        fine = x.new_zeros(*x.shape[:2], *(2 * n for n in x.shape[2:]))
        fine[(..., *(slice(None, None, 2) for _ in x.shape[2:]))] = x
        return super().forward(fine)
