"""SineNet: a chain of small U-Nets."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.conv import Conv, Edge, edges_of, extend
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import choose, require_at_least
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.recomputed import recomputed
from neuralop_bench.layers.resample import resample
from neuralop_bench.layers.tables import ACTIVATIONS, AVERAGE_POOL, NORMS, Activation


class SineNet(nn.Module):
    """A chain of small U-Nets, called waves, each of which changes the features a little. A skip connection then joins
    features of nearly the same time, whereas in a single U-Net those before and after the whole step are joined.

        x_0 = P a,    x_w = x_{w-1} + V_w(x_{w-1}),    w = 1 ... n_waves,    u = Q x_{n_waves}

    P and Q are convolutions. A wave V is a U-Net of residual blocks:

        down:  h_0 = x,    h_l = D_l(pool h_{l-1}, pool^l x),    l = 1 ... n_levels
        up:    y_n = h_n,    y_{l-1} = U_l(I y_l, h_{l-1}),    l = n_levels ... 1,    V(x) = y_0
        block: D(f, g) = F [f, g] + W f + b,    F = act norm C act norm C

    C are convolutions over three points per axis, norm is over all channels and points, pool averages pairs of points
    per axis, I interpolates linearly between the centres of the pairs, W and b act at each point. [,] appends channels.
    Every level sees the features of all levels before it, through h, and the wave's input at its own resolution,
    through pool^l x, which has passed no convolution. On the first level both are the same and appended once.

    Axes are padded to a multiple of 2^n_levels points, and the output is cut back. Convolutions wrap around periodic
    axes and pad the others with zeros. There are no coordinates: on periodic axes that need no padding the network
    commutes with shifts by 2^n_levels points. It is bound to the spacing of the grid that it is trained on.

    At the published size, a wave more takes fewer channels on coarse levels: ``growth`` is 2 for one wave and 1.425 for
    eight, with 34 and 35 million parameters.

    Difference from the published code: its interpolation is bicubic, in 2D only.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, of which only the nodes are used.
        width: channels of the finest level. 64 as published.
        n_waves: U-Nets. 8 as published.
        n_levels: coarser levels of a wave. 4 as published.
        growth: level l has width * growth^l channels, rounded down. 1.425 as published.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1 (``width``: below 2), a growth below 1, or an unknown activation.

    Reference: Zhang et al. (2024), SineNet: Learning Temporal Dynamics in Time-Dependent Partial Differential
    Equations, arXiv 2403.19507, and the code published with it (divelab/AIRS).

    >>> model = SineNet(in_channels=10, out_channels=1, grid=Grid.periodic(64))
    >>> sum(p.numel() for p in model.parameters())
    260737
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 8,
        n_waves: int = 4,
        n_levels: int = 3,
        growth: float = 1.7,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        require_at_least(1, "SineNet", n_waves=n_waves, n_levels=n_levels)
        require_at_least(2, "SineNet", width=width)
        if not growth >= 1:
            raise ValueError(f"SineNet needs model.growth to be at least 1, got {growth}.")
        act = choose("SineNet", "activation", activation, ACTIVATIONS).function
        edges = edges_of(grid)
        self._nodes, self._multiple = grid.nodes, 2**n_levels
        channels = [int(width * growth**level) for level in range(n_levels + 1)]
        self.lifting = Conv(in_channels, width, edges=edges, narrow=True)
        self.waves = nn.ModuleList(_Wave(channels, edges, act) for _ in range(n_waves))
        self.projection = Conv(width, out_channels, edges=edges, narrow=True)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        v = self.lifting(pad_to_multiple(x, self._multiple, self._nodes))
        for wave in self.waves:
            v = v + wave(v)
        return crop(self.projection(v), space)


class _Wave(nn.Module):
    """A U-Net of residual blocks, from ``channels[0]`` to as many channels."""

    def __init__(self, channels: Sequence[int], edges: Sequence[Edge], act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._edges = edges
        appended = [0, *[channels[0]] * (len(channels) - 2)]
        steps = list(itertools.pairwise(channels))
        self.down = nn.ModuleList(
            _Block(fine, n, coarse, edges, act) for (fine, coarse), n in zip(steps, appended, strict=True)
        )
        self.up = nn.ModuleList(_Block(coarse, fine, fine, edges, act) for fine, coarse in steps)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        pool = AVERAGE_POOL[len(self._edges)]
        h, skips, pooled = x, [], x
        for level, block in enumerate(self.down):
            skips.append(h)
            pooled = pool(pooled, 2)
            h = block(pool(h, 2), pooled) if level else block(pooled)
        for block in reversed(self.up):
            h = block(_doubled(h, self._edges), skips.pop())
        return h


class _Block(nn.Module):
    """Two convolutions of two fields, each followed by a norm and an activation, and an affine map of the first."""

    def __init__(
        self, n_first: int, n_second: int, n_out: int, edges: Sequence[Edge], act: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self._act = act
        self.convs = nn.ModuleList(Conv(n, n_out, edges=edges, narrow=True) for n in (n_first + n_second, n_out))
        self.norms = nn.ModuleList(NORMS["group"](n_out, len(edges)) for _ in range(2))
        self.shortcut = Pointwise(n_first, n_out)

    def forward(self, first: Tensor, second: Tensor | None = None) -> Tensor:
        h = first if second is None else torch.cat([first, second.to(first)], dim=1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            # The gradient normalises again instead of keeping the normalised field.
            h = recomputed(lambda v, norm=norm: self._act(norm(v)), conv(h))
        return h + self.shortcut(first)


def _doubled(x: Tensor, edges: Sequence[Edge]) -> Tensor:
    """Linear interpolation from the centres of pairs of points to the points."""
    space = x.shape[2:]
    # Beyond an end that isn't periodic, interpolation between cell centres takes the last value.
    added = [1 if edge == "circular" else 0 for edge in edges]
    centres = cast("list[Nodes]", ["centres"] * len(space))
    shape = [2 * (n + 2 * more) for n, more in zip(space, added, strict=True)]
    fine = resample(extend(x, edges, added), centres, shape)
    return fine[(..., *(slice(2 * more, 2 * (more + n)) for n, more in zip(space, added, strict=True)))]
