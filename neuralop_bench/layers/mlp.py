"""Layers that act on each point by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralop_bench.layers.precision import is_autocast

# Points per step of ``Perceptron``: few enough for their hidden channels to stay in a core's cache, and enough for
# efficient products.
_POINTS = {"cpu": 8192}
_POINTS_OF_A_DEVICE = 2**18


class Pointwise(nn.Linear):
    """The same affine map of the channels at every point: a convolution with a kernel of one point, in any dimension.

    Computed as one batched matrix product, which on CPU trains about five times faster than ``nn.Conv2d``.

    Shapes: [batch, in_features, *space] to [batch, out_features, *space].

    >>> Pointwise(3, 5)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 5, 8, 8])
    """

    def forward(self, input: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        weight = self.weight.expand(input.shape[0], -1, -1)
        return torch.baddbmm(self.bias[:, None], weight, input.flatten(2)).unflatten(2, input.shape[2:])

    def channels_last(self, v: Float[Tensor, "batch *space in_channels"]) -> Float[Tensor, "batch *space out_channels"]:
        """The same map of fields with their channels last."""
        # One product per sample, so the gradient of the weight is one product per sample, too. A single product would
        # sum over all points for a handful of numbers, which libraries do on one core.
        weight = self.weight.T.expand(v.shape[0], -1, -1)
        return torch.baddbmm(self.bias, v.flatten(1, -2), weight).unflatten(1, v.shape[1:-1])


class WeightNorm(nn.Module):
    """A matrix whose rows have learned lengths and learned directions: W_i = g_i d_i / |d_i|.

    For ``torch.nn.utils.parametrize``. It begins with the matrix that is there. torch's own form divides by zero where
    a direction is zero; here the row is zero then.

    Reference: Salimans and Kingma (2016), Weight normalization, arXiv 1602.07868, equation 2.

    >>> layer = nn.utils.parametrize.register_parametrization(Pointwise(3, 5), "weight", WeightNorm())
    >>> sorted((name, tuple(p.shape)) for name, p in layer.parametrizations.weight.named_parameters())
    [('original0', (5, 1)), ('original1', (5, 3))]
    """

    def forward(self, length: Float[Tensor, "row 1"], direction: Float[Tensor, "row column"]) -> Tensor:
        return length * nn.functional.normalize(direction, dim=1)

    def right_inverse(self, weight: Float[Tensor, "row column"]) -> tuple[Tensor, Tensor]:
        return weight.norm(dim=1, keepdim=True), weight


class Perceptron(nn.ModuleList):
    """Two affine maps of the channels at every point, with an activation in between.

    The hidden channels of all points are never in memory together: they are computed part by part, and again for the
    gradient. That takes a third more arithmetic, but less time, because memory is slower than arithmetic.

    Args:
        in_channels, hidden_channels, out_channels: before, between and after the two maps.
        activation: acts on each value by itself.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    >>> Perceptron(3, 7, 5, nn.functional.gelu)(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 5, 8, 8])
    """

    def __init__(
        self, in_channels: int, hidden_channels: int, out_channels: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__([Pointwise(in_channels, hidden_channels), Pointwise(hidden_channels, out_channels)])
        self._activation = activation

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        return self.channels_last(x.movedim(1, -1)).movedim(-1, 1)

    def channels_last(self, v: Float[Tensor, "batch *space in_channels"]) -> Float[Tensor, "batch *space out_channels"]:
        """The same map of fields with their channels last."""
        first, second = cast(Pointwise, self[0]), cast(Pointwise, self[1])
        arguments = (self._activation, v, first.weight, first.bias, second.weight, second.bias)
        # Autocast chooses a precision for each product, here and in the gradient. The compiler can't trace a
        # backward pass that computes another gradient, and would break its graph there.
        if is_autocast(v) or torch.compiler.is_compiling():
            return _perceptron(*arguments)
        return cast(Tensor, _Perceptron.apply(*arguments))


def _perceptron(
    activation: Callable[[Tensor], Tensor],
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    second_weight: Tensor,
    second_bias: Tensor,
) -> Tensor:
    hidden = activation(nn.functional.linear(v, weight, bias))
    return nn.functional.linear(hidden, second_weight, second_bias)


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        activation: Callable[[Tensor], Tensor],
        v: Tensor,
        weight: Tensor,
        bias: Tensor,
        second_weight: Tensor,
        second_bias: Tensor,
    ) -> Tensor:
        ctx.activation = activation
        ctx.save_for_backward(v, weight, bias, second_weight, second_bias)
        x = v.reshape(-1, v.shape[-1])
        out = x.new_empty(len(x), len(second_bias))
        for part, result in zip(_parts(x), _parts(out), strict=True):
            hidden = activation(torch.addmm(bias, part, weight.T))
            torch.addmm(second_bias, hidden, second_weight.T, out=result)
        return out.view(*v.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient will be differentiated again
            needed = [tensor for tensor in inputs if tensor.requires_grad]  # the model's own input may not
            plain = _perceptron(ctx.activation, *inputs)
            grads = iter(torch.autograd.grad(plain, needed, grad, create_graph=True))
            return None, *(next(grads) if tensor.requires_grad else None for tensor in inputs)
        v, weight, bias, second_weight, _ = inputs
        x, grad = v.reshape(-1, v.shape[-1]), grad.reshape(-1, grad.shape[-1])
        by_x = torch.empty_like(x)
        by_weight, by_bias, by_second = (
            torch.zeros_like(weight),
            torch.zeros_like(bias),
            torch.zeros_like(second_weight),
        )
        for part, g, result in zip(_parts(x), _parts(grad), _parts(by_x), strict=True):
            before = torch.addmm(bias, part, weight.T)
            with torch.enable_grad():
                before.requires_grad_()
                hidden = ctx.activation(before)
            by_second.addmm_(g.T, hidden.detach())
            (g,) = torch.autograd.grad(hidden, before, g @ second_weight)
            by_bias += g.sum(0)
            by_weight.addmm_(g.T, part)
            torch.mm(g, weight, out=result)
        return None, by_x.view_as(v), by_weight, by_bias, by_second, grad.sum(0)


def _parts(x: Float[Tensor, "point channel"]) -> tuple[Tensor, ...]:
    # The meta device has no memory to save.
    return (x,) if x.is_meta else x.split(_POINTS.get(x.device.type, _POINTS_OF_A_DEVICE))
