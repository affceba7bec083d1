"""Convolutional network without shortcuts."""

from __future__ import annotations

import itertools
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.conv import Conv, edges_of
from neuralop_bench.layers.options import choose, require_at_least
from neuralop_bench.layers.tables import ACTIVATIONS, Activation


class ConvNet(nn.Module):
    """A chain of convolutions with small kernels, all on the grid of the data.

        v_0 = a,    v_{l+1} = act(C_l v_l) for l < n_layers,    u = C_n v_n

    One call carries information over (n_layers + 1) half kernels: 11 points with the defaults. Convolutions wrap around
    periodic axes and pad the others with zeros. They act on points, so the network is bound to the spacing of the grid
    that it is trained on.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, of which only the nodes are used.
        width: hidden channels.
        n_layers: hidden layers.
        kernel: points along each axis of a kernel, an odd number.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, an even kernel, or an unknown activation.

    Reference: Koehler et al. (2024), APEBench, arXiv 2411.00180, whose network "Conv;34;10" has the default sizes.

    >>> model = ConvNet(in_channels=1, out_channels=1, grid=Grid.periodic(160, n_dims=1))
    >>> sum(p.numel() for p in model.parameters())
    31757
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 34,
        n_layers: int = 10,
        kernel: int = 3,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        require_at_least(1, "A convolutional network", width=width, n_layers=n_layers, kernel=kernel)
        self._activation = choose("A convolutional network", "activation", activation, ACTIVATIONS).function
        channels = [in_channels, *[width] * n_layers, out_channels]
        self.layers = nn.ModuleList(
            Conv(n_in, n_out, edges=edges_of(grid), kernel=kernel, narrow=True)
            for n_in, n_out in itertools.pairwise(channels)
        )

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        *hidden, last = self.layers
        for layer in hidden:
            x = self._activation(layer(x))
        return last(x)
