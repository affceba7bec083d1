"""Convolution in any number of dimensions, with edges that follow the grid's boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad

from data_gen.grids import Grid
from neuralop_bench.layers.options import require_known
from neuralop_bench.layers.precision import is_autocast
from neuralop_bench.layers.tables import CONV, CONV_FUNCTION

Edge = Literal["zeros", "reflect", "circular"]

_PAD_MODE = {"zeros": "constant", "reflect": "reflect"}


def edges_of(grid: Grid, closed: Literal["zeros", "reflect"] = "zeros") -> tuple[Edge, ...]:
    """How every axis is continued beyond its ends: periodic axes wrap around, the others are continued by ``closed``.

    Raises:
        ValueError: ``closed`` is neither zeros nor reflect.

    >>> edges_of(Grid.periodic(8))
    ('circular', 'circular')
    """
    require_known("A convolution on an axis that isn't periodic", "edges", closed, ("zeros", "reflect"))
    return tuple("circular" if nodes == "periodic" else closed for nodes in grid.nodes)


class Conv(nn.Module):
    """Convolution over 1 to 3 space axes. Each axis is continued at both ends by half a kernel, in one of three ways:

    - ``circular``: with the points at its other end;
    - ``zeros``: with zeros;
    - ``reflect``: with its own points, mirrored at the last one, which isn't repeated.

    Args:
        in_channels, out_channels: channels of input and output.
        edges: how each axis is continued; see ``edges_of``.
        kernel: points along each axis, an odd number.
        stride: the output has every ``stride``-th point, beginning with the first: ceil(n / stride) of n points.
        dilation: spacing of the kernel's points, in points of the grid.
        groups: parts into which the channels are divided. Each part of the output is a convolution of one part of the
            input. With as many groups as channels, each channel has a kernel of its own (a depthwise convolution).
        bias: add a constant per output channel.
        narrow: compute a convolution on one periodic axis, with stride 1, as one matrix product of shifted fields (on
            CPU). With 34 channels on 160 points a training step then takes half the time of torch's convolution. With
            many channels, the shifted fields no longer fit the cache.

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
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        narrow: bool = False,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"A convolution centred on its point needs an odd kernel, got {kernel}.")
        for edge in edges:
            require_known("A convolution", "edges", edge, get_args(Edge))
        self.edges = tuple(edges)
        half = dilation * (kernel // 2)
        zeros = tuple(half if edge == "zeros" else 0 for edge in self.edges)  # the convolution pads these itself
        self.conv = CONV[len(self.edges)](
            in_channels, out_channels, kernel, stride=stride, padding=zeros, dilation=dilation, groups=groups, bias=bias
        )
        self._narrow = narrow and bias and stride == groups == 1 and self.edges == ("circular",)
        self._extended = tuple(0 if edge == "zeros" else half for edge in self.edges)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *strided"]:
        if self._narrow and x.device.type == "cpu" and not is_autocast(x):
            return self._product(x)
        if any(self._extended) and set(self.edges) == {"circular"} and not is_autocast(x):
            options = self.conv.stride, self.conv.dilation, self.conv.groups
            return cast(Tensor, _CircularConv.apply(x, self.conv.weight, self.conv.bias, *options))
        return self.conv(extend(x, self.edges, self._extended))

    def _product(self, x: Float[Tensor, "batch in_channels n"]) -> Float[Tensor, "batch out_channels n"]:
        weight, (dilation,) = self.conv.weight, self.conv.dilation
        half = weight.shape[2] // 2
        shifted = torch.cat([x.roll(-dilation * k, 2) for k in range(-half, half + 1)], dim=1)
        matrix = weight.transpose(1, 2).flatten(1).expand(len(x), -1, -1)
        return torch.baddbmm(cast(Tensor, self.conv.bias)[:, None], matrix, shifted)


class _CircularConv(torch.autograd.Function):
    """Convolution on periodic axes. For the gradient it keeps the field itself instead of the larger continued field,
    which it makes again there. The layer beside it usually keeps the same field, so that this costs no memory."""

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: tuple[int, ...],
        dilation: tuple[int, ...],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.options = stride, dilation, groups
        return _circular_conv(x, weight, bias, stride, dilation, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, bias = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated again
            inputs = [tensor for tensor in (x, weight, bias) if tensor is not None and tensor.requires_grad]
            grads = iter(
                torch.autograd.grad(_circular_conv(x, weight, bias, *ctx.options), inputs, grad, create_graph=True)
            )
            return *(next(grads) if needed else None for needed in ctx.needs_input_grad[:3]), None, None, None
        stride, dilation, groups = ctx.options
        widths = _widths(weight, dilation)
        sizes = None if bias is None else bias.shape
        no = (0,) * len(widths)
        by_extended, by_weight, by_bias = torch.ops.aten.convolution_backward(
            grad,
            _GoRound.apply(x, widths, groups > 1),
            weight,
            sizes,
            stride,
            no,
            dilation,
            False,
            no,
            groups,
            ctx.needs_input_grad[:3],
        )
        by_x = None if by_extended is None else cast(Tensor, _Fold.apply(by_extended, widths))
        return by_x, by_weight, by_bias, None, None, None


def _circular_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], dilation: Sequence[int], groups: int
) -> Tensor:
    extended = _GoRound.apply(x, _widths(weight, dilation), groups > 1)
    return CONV_FUNCTION[weight.ndim - 2](extended, weight, bias, stride, 0, dilation, groups)


def _widths(weight: Tensor, dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple(d * (n // 2) for n, d in zip(weight.shape[2:], dilation, strict=True))


def extend(x: Float[Tensor, "batch channel *space"], edges: Sequence[Edge], n_points: Sequence[int]) -> Tensor:
    """Continue every axis by its ``n_points`` at both ends (see ``Conv`` for the ways)."""
    n_round = tuple(n if edge == "circular" else 0 for edge, n in zip(edges, n_points, strict=True))
    if any(n_round):
        x = cast(Tensor, _GoRound.apply(x, n_round, False))
    for edge in ("zeros", "reflect"):
        widths = [n if other == edge else 0 for other, n in zip(edges, n_points, strict=True)]
        if any(widths):
            x = pad(x, [n for n in reversed(widths) for _ in range(2)], mode=_PAD_MODE[edge])
    return x


# torch's circular padding copies the field once per axis, and several times in the gradient. The two functions below,
# each the transpose of the other, copy it once.


class _GoRound(torch.autograd.Function):
    """Continue every axis with points from its other end. With ``last``, channels become neighbours in memory: torch
    computes convolutions in groups 2 to 3 times as fast then (on CPU)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, widths: tuple[int, ...], last: bool) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.widths = widths
        for n, width in zip(x.shape[2:], widths, strict=True):
            if width > n:
                raise ValueError(
                    f"A kernel of {2 * width + 1} points wraps around a periodic axis of {n} points more than once. "
                    "Raise the resolution, or use a smaller kernel or fewer levels of grids."
                )
        space = [n + 2 * width for n, width in zip(x.shape[2:], widths, strict=True)]
        n_batch, n_channels = x.shape[:2]
        if last:
            out = x.new_empty(n_batch, *space, n_channels).movedim(-1, 1)
        else:
            out = x.new_empty(n_batch, n_channels, *space)
        _inside(out, widths).copy_(x)
        for axis, width in enumerate(widths):
            slab = _inside(
                out, (*(0 for _ in widths[: axis + 1]), *widths[axis + 1 :])
            )  # earlier axes already have their ends
            n = x.shape[2 + axis]
            slab.narrow(2 + axis, 0, width).copy_(slab.narrow(2 + axis, n, width))
            slab.narrow(2 + axis, n + width, width).copy_(slab.narrow(2 + axis, width, width))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cast(Tensor, _Fold.apply(grad, ctx.widths)), None, None


class _Fold(torch.autograd.Function):
    """Add the ends of every axis to the points that they repeat, and drop them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, widths: tuple[int, ...]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.widths = widths
        x = x.clone()
        for axis, width in reversed(list(enumerate(widths, start=2))):
            n = x.shape[axis] - 2 * width
            x.narrow(axis, n, width).add_(x.narrow(axis, 0, width))
            x.narrow(axis, width, width).add_(x.narrow(axis, n + width, width))
            x = x.narrow(axis, width, n)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return cast(Tensor, _GoRound.apply(grad, ctx.widths, False)), None


def _inside(x: Tensor, widths: Sequence[int]) -> Tensor:
    for axis, width in enumerate(widths, start=2):
        x = x.narrow(axis, width, x.shape[axis] - 2 * width)
    return x
