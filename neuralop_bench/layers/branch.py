"""From fields to coefficients: samples at fixed sensors, and a dense or convolutional network."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from data_gen.grids import Grid
from neuralop_bench.layers.options import choose, one_for_each, require_at_least, require_known
from neuralop_bench.layers.resample import resample
from neuralop_bench.layers.tables import ACTIVATIONS, CONV, Activation

_WHO = "A DeepONet"
_KERNEL, _STRIDE = 5, 2


class Branch(nn.Module):
    """The branch network of a DeepONet: it maps the input fields to coefficients.

        b = net(a(x_1), ..., a(x_m))

    The sensors x_1 ... x_m form a grid on the same domain, with nodes of the same kind. Inputs on any grid are
    interpolated linearly to the sensors; where a sensor is a node of that grid, it gets the value there. Waves that are
    too short for the sensors alias.

    ``mlp`` flattens the samples of all channels. ``cnn`` first applies a convolution over 5 points with stride 2 for
    every entry of ``cnn_channels``. Convolutions wrap around periodic axes and don't pad the others, so that n points
    become (n - 5) // 2 + 1. All layers but the last have an activation. Initial weights are Glorot normal, initial
    biases are zero.

    Args:
        in_channels: channels of the input.
        out_features: coefficients per sample.
        grid: the training grid: its number of axes and nodes are used.
        kind: ``mlp`` or ``cnn``.
        sensors: sensors per axis: one number, or one for each axis.
        width: hidden width of the dense layers.
        n_layers: dense layers, including the last.
        cnn_channels: output channels of the convolutions.
        activation: ``gelu``, ``relu`` or ``tanh``.

    Shapes: [batch, in_channels, *space] to [batch, out_features].

    Raises:
        ValueError: an unknown option, a size below 1, fewer than two sensors, sensors for another number of axes, or
            too few sensors for the convolutions.

    >>> import torch
    >>> branch = Branch(2, 7, grid=Grid.periodic(64), sensors=16)
    >>> branch(torch.ones(3, 2, 64, 64)).shape, branch(torch.ones(3, 2, 48, 48)).shape
    (torch.Size([3, 7]), torch.Size([3, 7]))
    """

    def __init__(
        self,
        in_channels: int,
        out_features: int,
        *,
        grid: Grid,
        kind: Literal["mlp", "cnn"] = "mlp",
        sensors: int | Sequence[int] = 32,
        width: int = 128,
        n_layers: int = 4,
        cnn_channels: Sequence[int] = (64, 128),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        require_known(_WHO, "branch", kind, ("mlp", "cnn"))
        shape = one_for_each(sensors, grid.n_dims)
        if len(shape) != grid.n_dims or min(shape) < 2:
            raise ValueError(
                f"A DeepONet needs at least 2 sensors on each of the grid's {grid.n_dims} axes, got {sensors}. Set "
                "model.sensors to one number, or to one for each axis."
            )
        self.sensors, self._nodes = shape, grid.nodes
        channels = (in_channels, *cnn_channels) if kind == "cnn" else (in_channels,)
        require_at_least(1, _WHO, n_branch_layers=n_layers, cnn_channels=min(channels))
        act = choose(_WHO, "activation", activation, ACTIVATIONS).module
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(channels):
            convolution = _StridedConv(n_in, n_out, grid)
            try:
                shape = convolution.shape_of(shape)
            except ValueError as error:
                raise ValueError(
                    f"{self.sensors} sensors are too few for {len(cnn_channels)} convolutions: {error} Raise "
                    "model.sensors, shorten model.cnn_channels, or use model.branch=mlp."
                ) from error
            layers += [convolution, act()]
        layers.append(nn.Flatten())
        n_flat = channels[-1] * math.prod(shape)
        self.net = nn.Sequential(*layers, dense((n_flat, *(width,) * (n_layers - 1), out_features), activation))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_features"]:
        return self.net(resample(x, self._nodes, self.sensors))


class _StridedConv(nn.Module):
    """A convolution with stride 2 that wraps around periodic axes and doesn't pad the others."""

    def __init__(self, in_channels: int, out_channels: int, grid: Grid) -> None:
        super().__init__()
        self._beyond = tuple(_KERNEL // 2 if nodes == "periodic" else 0 for nodes in grid.nodes)
        self.conv = CONV[grid.n_dims](in_channels, out_channels, _KERNEL, stride=_STRIDE)
        _start(self.conv)

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Points per axis of the output, given those of the input."""
        for n, beyond in zip(shape, self._beyond, strict=True):
            needed = beyond or _KERNEL
            if n < needed:
                raise ValueError(f"one of them has {n} points along an axis and needs at least {needed}.")
        return tuple((n + 2 * m - _KERNEL) // _STRIDE + 1 for n, m in zip(shape, self._beyond, strict=True))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *strided"]:
        if any(self._beyond):
            x = pad(x, [m for m in reversed(self._beyond) for _ in range(2)], mode="circular")
        return self.conv(x)


def dense(widths: Sequence[int], activation: Activation, *, activate_last: bool = False) -> nn.Sequential:
    """Dense layers with an activation after all but the last, or after all. Glorot normal weights, zero biases."""
    require_at_least(1, _WHO, width=min(widths))
    act = choose(_WHO, "activation", activation, ACTIVATIONS).module
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        _start(linear)
        layers += [linear, act()]
    return nn.Sequential(*(layers if activate_last else layers[:-1]))


def _start(layer: nn.Module) -> None:
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    nn.init.xavier_normal_(weight)
    nn.init.zeros_(bias)
