"""Convolution in any number of dimensions, with edges that follow the grid's boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from data_gen.grids import Grid

Edge = Literal["zeros", "reflect", "circular"]

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_PAD_MODE = {"zeros": "constant", "reflect": "reflect"}


def edges_of(grid: Grid, closed: Literal["zeros", "reflect"] = "zeros") -> tuple[Edge, ...]:
    """What lies beyond the ends of every axis: periodic axes go round, others are continued as ``closed`` says.

    Raises:
        ValueError: ``closed`` is neither zeros nor reflect.

    >>> edges_of(Grid.periodic(8))
    ('circular', 'circular')
    """
    if closed not in ("zeros", "reflect"):
        raise ValueError(
            f"model.edges, beyond the ends of axes that aren't periodic, is zeros or reflect, got {closed!r}."
        )
    return tuple("circular" if nodes == "periodic" else closed for nodes in grid.nodes)


class Conv(nn.Module):
    """Convolution over 1 to 3 space axes. Every axis is continued at both ends by half a kernel, in its own way:

    - ``circular``: the other end of the axis,
    - ``zeros``: zeros,
    - ``reflect``: its own values, mirrored at the last point, which isn't repeated.

    Args:
        in_channels, out_channels: channels of input and output.
        edges: how each axis is continued; see ``edges_of``.
        kernel: points along each axis, an odd number.
        stride: every how many points the output has one, beginning with the first: ceil(n / stride) of n points.
        bias: add a constant per output channel.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *ceil(space / stride)].

    Raises:
        ValueError: a kernel that is even or below 1, or an unknown edge.

    >>> import torch
    >>> Conv(1, 4, edges=("circular", "zeros"), stride=2)(torch.ones(2, 1, 8, 9)).shape
    torch.Size([2, 4, 4, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        edges: Sequence[Edge],
        kernel: int = 3,
        stride: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"A convolution that is centred on its point needs an odd kernel, got {kernel}.")
        for edge in edges:
            if edge not in get_args(Edge):
                raise ValueError(f"A convolution knows the edges {get_args(Edge)}, got {edge!r}.")
        self.edges = tuple(edges)
        half = kernel // 2
        zeros = tuple(half if edge == "zeros" else 0 for edge in self.edges)  # which the convolution adds by itself
        self.conv = _CONV[len(self.edges)](in_channels, out_channels, kernel, stride=stride, padding=zeros, bias=bias)
        self._extended = tuple(0 if edge == "zeros" else half for edge in self.edges)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *strided"]:
        return self.conv(extend(x, self.edges, self._extended))


def extend(x: Float[Tensor, "batch channel *space"], edges: Sequence[Edge], n_points: Sequence[int]) -> Tensor:
    """Continue every axis by its ``n_points`` at both ends, each in its own way (see ``Conv``)."""
    for axis, (edge, n) in enumerate(zip(edges, n_points, strict=True), start=2):
        if n and edge == "circular":
            # Faster than torch's circular padding, above all backward.
            x = torch.cat([x.narrow(axis, x.shape[axis] - n, n), x, x.narrow(axis, 0, n)], dim=axis)
    for edge in ("zeros", "reflect"):
        widths = [n if other == edge else 0 for other, n in zip(edges, n_points, strict=True)]
        if any(widths):
            x = pad(x, [n for n in reversed(widths) for _ in range(2)], mode=_PAD_MODE[edge])
    return x
