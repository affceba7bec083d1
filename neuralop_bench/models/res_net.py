"""Residual network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, Edge, edges_of
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import choose, require_at_least, require_known
from neuralop_bench.layers.tables import ACTIVATIONS, NORMS, Activation


class ResNet(nn.Module):
    """Residual network: pairs of convolutions with a shortcut around each, all on the grid of the data.

        v_0 = P a,    v_{l+1} = act(v_l + C'_l act(C_l v_l)),    u = Q v_n

    P and Q are affine maps at each point. One call carries information over 2 n_blocks half kernels: 16 points with the
    defaults. Convolutions wrap around periodic axes and pad the others with zeros. They act on points, so the network
    is bound to the spacing of the grid that it is trained on.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, of which only the nodes are used.
        width: hidden channels.
        n_blocks: pairs of convolutions.
        kernel: points along each axis of a kernel, an odd number.
        normalization: ``none``, or ``layer`` to normalise the result of every convolution over all channels and points.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, an even kernel, an unknown activation or normalisation.

    Reference: He et al. (2016), Deep residual learning for image recognition, arXiv 1512.03385. The default sizes are
    those of "Res;26;8" in Koehler et al. (2024), APEBench, arXiv 2411.00180.

    >>> model = ResNet(in_channels=1, out_channels=1, grid=Grid.periodic(160, n_dims=1))
    >>> sum(p.numel() for p in model.parameters())
    32943
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 26,
        n_blocks: int = 8,
        kernel: int = 3,
        normalization: Literal["none", "layer"] = "none",
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        require_at_least(1, "A residual network", width=width, n_blocks=n_blocks, kernel=kernel)
        require_known("A residual network", "normalization", normalization, ("none", "layer"))
        choose("A residual network", "activation", activation, ACTIVATIONS)
        edges = edges_of(grid)
        self.lifting = Pointwise(in_channels, width)
        self.blocks = nn.ModuleList(_Block(width, edges, kernel, normalization, activation) for _ in range(n_blocks))
        self.projection = Pointwise(width, out_channels)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self.lifting(x)
        for block in self.blocks:
            v = block(v)
        return self.projection(v)


class _Block(nn.Module):
    def __init__(self, width: int, edges: Sequence[Edge], kernel: int, normalization: str, activation: str) -> None:
        super().__init__()
        norm = NORMS["group" if normalization == "layer" else normalization]
        self.convolutions = nn.ModuleList(Conv(width, width, edges=edges, kernel=kernel, narrow=True) for _ in range(2))
        self.norms = nn.ModuleList(norm(width, len(edges)) for _ in range(2))
        self._activation = ACTIVATIONS[activation].function

    def forward(self, v: Tensor) -> Tensor:
        first, second = zip(self.convolutions, self.norms, strict=True)
        change = self._activation(first[1](first[0](v)))
        return self._activation(v + second[1](second[0](change)))
