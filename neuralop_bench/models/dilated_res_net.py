"""Residual network of dilated convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, Edge, edges_of
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import DoesNotFit, choose, require_at_least, require_known
from neuralop_bench.layers.tables import ACTIVATIONS, NORMS, Activation


class DilatedResNet(nn.Module):
    """Residual network of dilated convolutions, whose dilation first grows and then shrinks.

        v_0 = P a,    v_{l+1} = v_l + D_m ... D_1 v_l,    D_i = act(C_i norm(.)),    u = Q v_n

    C_i is a convolution over points ``dilations[i]`` apart, P and Q are affine maps at each point. So a few layers
    reach far: 20 points per call with the defaults. Convolutions wrap around periodic axes and pad the others with
    zeros. They act on points, so the network is bound to the spacing of the grid that it is trained on.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its nodes are used, and its size bounds the dilations.
        width: hidden channels.
        n_blocks: chains of dilated convolutions.
        dilations: spacing of each convolution's points.
        kernel: points along each axis of a kernel, an odd number.
        normalization: ``layer`` normalises the input of every convolution over all channels and points; ``none``.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: a convolution would wrap around a periodic axis more than once.
        ValueError: a size below 1, no dilation, an even kernel, an unknown activation or normalisation.

    Reference: Stachenfeld et al. (2022), Learned coarse models for efficient turbulence simulation, arXiv 2112.15275.
    The default sizes are those of "Dil;2;32;2" in Koehler et al. (2024), APEBench, arXiv 2411.00180.

    >>> model = DilatedResNet(in_channels=1, out_channels=1, grid=Grid.periodic(160, n_dims=1))
    >>> sum(p.numel() for p in model.parameters())
    31777
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 32,
        n_blocks: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 2, 1),
        kernel: int = 3,
        normalization: Literal["none", "layer"] = "layer",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        who = "A dilated residual network"
        require_at_least(1, who, width=width, n_blocks=n_blocks, kernel=kernel, dilations=min(dilations, default=0))
        require_known(who, "normalization", normalization, ("none", "layer"))
        choose(who, "activation", activation, ACTIVATIONS)
        periodic = [n for n, nodes in zip(grid.shape, grid.nodes, strict=True) if nodes == "periodic"]
        widest = min(periodic, default=2**16) // max(1, kernel // 2)
        if max(dilations) > widest:
            raise DoesNotFit(
                f"{who} wraps around a periodic axis of {min(periodic)} points more than once with "
                f"dilations={list(dilations)}: they must be at most {widest}. Lower model.dilations or raise the "
                "resolution.",
                dilations=[min(dilation, widest) for dilation in dilations],
            )
        edges = edges_of(grid)
        self.lifting = Pointwise(in_channels, width)
        self.blocks = nn.ModuleList(
            _Block(width, edges, dilations, kernel, normalization, activation) for _ in range(n_blocks)
        )
        self.projection = Pointwise(width, out_channels)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self.lifting(x)
        for block in self.blocks:
            v = v + block(v)
        return self.projection(v)


class _Block(nn.Sequential):
    def __init__(
        self,
        width: int,
        edges: Sequence[Edge],
        dilations: Sequence[int],
        kernel: int,
        normalization: str,
        activation: str,
    ) -> None:
        norm = NORMS["group" if normalization == "layer" else normalization]
        layers: list[nn.Module] = []
        for dilation in dilations:
            layers.append(norm(width, len(edges)))
            layers.append(Conv(width, width, edges=edges, kernel=kernel, dilation=dilation, narrow=True))
            layers.append(ACTIVATIONS[activation].module())
        super().__init__(*layers)
