"""Convolution with a kernel given by its low Fourier modes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from neuralop_bench.layers import truncated_dft
from neuralop_bench.layers.factorised import CP, Tucker, cp_rank, tucker_ranks
from neuralop_bench.layers.mlp import Pointwise
from neuralop_bench.layers.options import DoesNotFit, one_if_equal, require_at_least, require_known
from neuralop_bench.layers.precision import is_autocast, unrounded, widened

Init = Literal["normal", "uniform", "small"]
Factorization = Literal["none", "tucker", "cp"]


class SpectralConv(nn.Module):
    """Multiply the low Fourier modes of a field by a learned complex matrix per mode, and drop the other modes.

        v_hat_o(k) = sum_i W_io(k) u_hat_i(k),    -K <= k_j < K for all axes but the last, 0 <= k_last < K

    The modes with k_last < 0 follow because the output is real. The map is independent of the grid, with even or odd
    numbers of points, as long as the grid holds the modes. Weights are pairs of real numbers instead of complex
    numbers, because every optimiser, gradient clipping and collective communication can handle these.

    Transforms, products and the output are in float32 under autocast, too.

    Each axis is transformed and cut to its kept modes before the next, so that later transforms are smaller.

    With ``factorization`` the weights of all kept modes, a tensor with axes [*modes, in, out], are learned in Tucker or
    CP form and multiplied out once per call.

    Args:
        in_channels, out_channels: channels of input and output.
        n_modes: K for each space axis.
        init: ``normal`` draws real and imaginary parts from N(0, 1/(2 in_channels)), so that a white field keeps its
            variance on the kept modes. ``uniform`` draws them from U[0, 1) / (in_channels out_channels), as the code
            published with the FNO paper does. ``small`` draws them from N(0, 1 / (in_channels out_channels)^2), as the
            package pdequinox does. Factorised weights need ``normal`` and have the same variance once
            multiplied out.
        factorization: ``none`` for dense weights, ``tucker`` or ``cp`` for factors.
        rank: parameters of all factors as a fraction of the dense weights', above 0 and at most 1. It determines the
            ranks (``tucker_ranks``, ``cp_rank``). Used with a factorization only.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space], or to another grid if asked.

    Raises:
        ValueError: an unknown ``init`` or ``factorization``, a factorization without ``normal``, a ``rank`` outside
            (0, 1]; in ``forward``, a grid that can't hold the modes.

    Reference: Li et al. (2021), Fourier Neural Operator, definition 3 and equation 5. Kossaifi et al. (2023),
    Multi-Grid Tensorized Fourier Neural Operator, arXiv 2310.00120, for the factors.

    >>> SpectralConv(1, 1, n_modes=(3, 3))(torch.ones(2, 1, 8, 9)).shape
    torch.Size([2, 1, 8, 9])
    """

    complex_pairs: ClassVar[frozenset[str]] = frozenset({"weight"})

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_modes: tuple[int, ...],
        init: Init = "normal",
        factorization: Factorization = "none",
        rank: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_modes = tuple(n_modes)
        require_known("A spectral convolution", "spectral_init", init, get_args(Init))
        require_known("A spectral convolution", "factorization", factorization, get_args(Factorization))
        if factorization != "none" and init != "normal":
            raise ValueError(
                f"model.factorization={factorization} needs model.spectral_init=normal, got {init!r}. Set that, or "
                "model.factorization=none."
            )
        kept = (*(2 * k for k in self.n_modes[:-1]), self.n_modes[-1])
        # [*modes, in, out]: with this order, one batched product per part needs no copy.
        shape = (*kept, in_channels, out_channels)
        variance = 1 / in_channels
        self.factors: Tucker | CP | None = None
        if factorization == "none":
            weight = torch.empty(2, *shape)
            if init == "normal":
                nn.init.normal_(weight, std=math.sqrt(variance / 2))
            elif init == "uniform":
                nn.init.uniform_(weight, 0, 1 / (in_channels * out_channels))
            else:
                nn.init.normal_(weight, std=1 / (in_channels * out_channels))
            self.weight = nn.Parameter(weight)
            return
        self.register_parameter("weight", None)
        if factorization == "tucker":
            self.factors = Tucker(shape, tucker_ranks(shape, rank), variance)
        else:
            self.factors = CP(shape, cp_rank(shape, rank), variance)

    def dense_weight(self) -> Float[Tensor, "part *modes in_channels out_channels"]:
        """Real and imaginary parts of W(k) for every kept mode; factors are multiplied out."""
        return self.weight if self.factors is None else self.factors()

    def forward(
        self, u: Float[Tensor, "batch in_channels *space"], shape: tuple[int, ...] | None = None
    ) -> Float[Tensor, "batch out_channels *shape"]:
        """The convolution, on a grid of ``shape`` with the same first point and period; None for that of the input."""
        shape = tuple(u.shape[2:]) if shape is None else shape
        for space in (tuple(u.shape[2:]), shape):
            require_modes(space, self.n_modes, "A spectral convolution")
        with unrounded(u):
            return self._convolved(widened(u), shape)

    def _convolved(self, u: Tensor, space: tuple[int, ...]) -> Tensor:
        if is_faster_as_product(u.shape[2:], self.n_modes):
            u_hat = truncated_dft.to_modes(u.movedim(1, -1), self.n_modes)
            return truncated_dft.from_modes(mix(u_hat, self.dense_weight()), space).movedim(-1, 1)
        u_hat = self._to_modes(u)
        parts = torch.stack([u_hat.real, u_hat.imag], dim=1).movedim(2, -1)
        v_hat = torch.complex(*mix(parts, self.dense_weight()).movedim(-1, 2).unbind(1))
        return self._to_grid(v_hat, space)

    def _to_modes(self, u: Tensor) -> Complex[Tensor, "batch channel *modes"]:
        u_hat = torch.fft.rfft(u, dim=-1, norm="forward")[..., : self.n_modes[-1]]
        for axis, k in _earlier_axes(self.n_modes):
            u_hat = torch.fft.fft(u_hat, dim=axis, norm="forward")
            n = u_hat.shape[axis]
            u_hat = torch.cat([u_hat.narrow(axis, 0, k), u_hat.narrow(axis, n - k, k)], dim=axis)
        return u_hat

    def _to_grid(self, v_hat: Tensor, space: tuple[int, ...]) -> Tensor:
        for axis, k in _earlier_axes(self.n_modes):
            n = space[axis]
            gap = list(v_hat.shape)
            gap[axis] = n - 2 * k
            parts = [v_hat.narrow(axis, 0, k), v_hat.new_zeros(gap), v_hat.narrow(axis, k, k)]
            v_hat = torch.fft.ifft(torch.cat(parts, dim=axis), dim=axis, norm="forward")
        return torch.fft.irfft(v_hat, n=space[-1], dim=-1, norm="forward")


def _earlier_axes(n_modes: tuple[int, ...]) -> list[tuple[int, int]]:
    """(axis, K) of every axis but the last, from the last but one to the first. Axes are counted from the end."""
    return [(axis, n_modes[axis]) for axis in range(-2, -len(n_modes) - 1, -1)]


def fourier_layer(
    v: Float[Tensor, "batch *space in_channels"], spectral: SpectralConv, pointwise: Pointwise
) -> Float[Tensor, "batch *space out_channels"]:
    """The linear part of a layer of a Fourier neural operator, W v + b + K v, channels last.

    Where matrix products are faster than fast transforms, this is a single operation: all of it is products of large
    matrices, and the parts are added as they are computed.

    Under autocast W v + b has low precision and K v is in float32. Their sum, which is kept for the gradient, has low
    precision.
    """
    space = v.shape[1:-1]
    require_modes(space, spectral.n_modes, "A spectral convolution")
    if is_autocast(v):
        mapped = pointwise.channels_last(v)
        return mapped + spectral(v.movedim(-1, 1)).movedim(1, -1).to(mapped)
    # The compiler fuses operations itself.
    if is_faster_as_product(space, spectral.n_modes) and not torch.compiler.is_compiling():
        weights = (spectral.dense_weight(), pointwise.weight, pointwise.bias)
        return cast(Tensor, _FourierLayer.apply(v, *weights, spectral.n_modes))
    return pointwise.channels_last(v) + spectral(v.movedim(-1, 1)).movedim(1, -1)


def convolved_along(
    v: Float[Tensor, "batch *space in_channels"], axis: int, spectral: SpectralConv, to: Tensor | None = None
) -> Float[Tensor, "batch *space out_channels"]:
    """A spectral convolution over one axis of fields with several; channels last. If ``to`` is given, it is added.

    Args:
        v: fields, in float32 or wider.
        axis: the space axis, counted from 0.
        spectral: a convolution over one axis. It needs as many output as input channels.
        to: fields that the result is added to, in place.
    """
    shape, n = v.shape, v.shape[axis + 1]
    require_modes((n,), spectral.n_modes, "A spectral convolution")
    with unrounded(v):
        if not is_faster_as_product((n,), spectral.n_modes):
            u = v.movedim(axis + 1, -1)
            moved = spectral(u.flatten(0, -3)).view(u.shape).movedim(-1, axis + 1)
            return moved.contiguous() if to is None else to.add_(moved)
        n_behind = math.prod(shape[axis + 2 : -1])
        lines = v.reshape(-1, n, n_behind * shape[-1])
        u_hat = truncated_dft.to_modes(lines, spectral.n_modes).unflatten(-1, (n_behind, -1))
        # (a + ib)(C + iD) as one real product: [a, b] [[C, D], [-D, C]].
        by_mode = u_hat.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)
        real, imaginary = spectral.dense_weight()
        both = torch.cat([torch.cat([real, imaginary], dim=2), torch.cat([-imaginary, real], dim=2)], dim=1)
        v_hat = torch.bmm(by_mode, both).view(len(both), len(lines), n_behind, 2, -1)
        v_hat = v_hat.permute(1, 3, 0, 2, 4).flatten(-2)
        out = truncated_dft.from_modes(v_hat, (n,), None if to is None else to.view(lines.shape))
        return out.view(shape)


class _FourierLayer(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, v: Tensor, weight: Tensor, pointwise: Tensor, bias: Tensor, n_modes: tuple[int, ...]
    ) -> Tensor:
        space = v.shape[1:-1]
        u_hat = _by_mode(truncated_dft.to_modes(v, n_modes))
        v_hat = _by_sample(_product(u_hat, weight), weight.shape[1:-2])
        v_hat[_constant(n_modes)] += bias  # adding the bias here needs no pass over the points
        out = torch.mm(v.reshape(-1, v.shape[-1]), pointwise.T).view(*v.shape[:-1], -1)
        ctx.save_for_backward(v, weight, pointwise, bias, u_hat)
        ctx.n_modes = n_modes
        return truncated_dft.from_modes(v_hat, space, to=out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *inputs, u_hat = ctx.saved_tensors
        v, weight, pointwise, bias = inputs
        if torch.is_grad_enabled():  # the gradient will be differentiated again
            plain = _fourier_layer(v, weight, pointwise, bias, ctx.n_modes)
            return *torch.autograd.grad(plain, inputs, grad, create_graph=True), None
        space, kept = v.shape[1:-1], weight.shape[1:-2]
        grad = grad.contiguous()
        by_v_hat = truncated_dft.from_modes_transposed(grad, ctx.n_modes)
        by_bias = by_v_hat[_constant(kept)].sum(0)  # the sum over the points
        by_v_hat = _by_mode(by_v_hat)
        real, imaginary = weight.flatten(1, -3)
        turned = _turned(by_v_hat)
        by_weight = torch.stack([torch.bmm(u_hat.mT, by_v_hat), torch.bmm(u_hat.mT, turned)]).view_as(weight)
        by_u_hat = torch.bmm(by_v_hat, real.mT).baddbmm_(turned, imaginary.mT)
        by_u_hat = _by_sample(by_u_hat, kept)
        points, grads = v.flatten(1, -2), grad.flatten(1, -2)
        by_pointwise = torch.bmm(grads.mT, points).sum(0)
        by_v = torch.mm(grads.flatten(0, 1), pointwise).view_as(v)
        return truncated_dft.to_modes_transposed(by_u_hat, space, to=by_v), by_weight, by_pointwise, by_bias, None


def _fourier_layer(v: Tensor, weight: Tensor, pointwise: Tensor, bias: Tensor, n_modes: tuple[int, ...]) -> Tensor:
    v_hat = mix(truncated_dft.to_modes(v, n_modes), weight)
    return torch.nn.functional.linear(v, pointwise, bias) + truncated_dft.from_modes(v_hat, v.shape[1:-1])


def _constant(modes: Sequence[int]) -> tuple[slice | int, ...]:
    """The index of the real part of the mode k = 0."""
    return (slice(None), 0, *(0 for _ in modes))


def mix(
    u_hat: Float[Tensor, "batch part *mode n_in"], weight: Float[Tensor, "part *mode n_in n_out"]
) -> Float[Tensor, "batch part *mode n_out"]:
    """The product of every kept mode with its complex matrix, v_hat(k) = u_hat(k) W(k)."""
    return _by_sample(_product(_by_mode(u_hat), weight), weight.shape[1:-2])


# Complex numbers as pairs: (a + ib)(C + iD) is four real products. torch multiplies complex matrices one by one.


def _product(
    u_hat: Float[Tensor, "modes part_and_batch n_in"], weight: Float[Tensor, "part *mode n_in n_out"]
) -> Float[Tensor, "modes part_and_batch n_out"]:
    real, imaginary = weight.flatten(1, -3)
    return torch.bmm(u_hat, real) - _turned(torch.bmm(u_hat, imaginary))


def _turned(u_hat: Float[Tensor, "modes part_and_batch channel"]) -> Float[Tensor, "modes part_and_batch channel"]:
    """-i times the modes: (a + ib) to (b - ia)."""
    real, imaginary = u_hat.chunk(2, dim=1)
    return torch.cat([imaginary, -real], dim=1)


def _by_mode(u_hat: Float[Tensor, "batch part *mode channel"]) -> Float[Tensor, "modes part_and_batch channel"]:
    return u_hat.flatten(2, -2).permute(2, 1, 0, 3).flatten(1, 2)


def _by_sample(u_hat: Tensor, modes: Sequence[int]) -> Float[Tensor, "batch part *mode channel"]:
    return u_hat.unflatten(1, (2, -1)).permute(2, 1, 0, 3).unflatten(2, tuple(modes)).contiguous()


def is_faster_as_product(space: Sequence[int], n_modes: tuple[int, ...]) -> bool:
    """Whether matrix products compute the kept modes faster than fast transforms.

    A fast transform takes log2(points) steps per point, a product two operations per point for every kept part of a
    mode. With 32 channels on CPU, the two take equally long in 1D at 26 to 100 operations per step. In 2D they do near
    96, with about half of all modes kept; fast transforms are slower there because their points are strided
    (``benchmarks/transforms.py``, on two machines). The bound in 1D is near the lower end, where a wrong choice costs
    most.
    """
    operations, left = 0.0, 1.0  # per point of the grid; complex columns left per real column of the grid
    for axis, (n, k) in enumerate(reversed(list(zip(space, n_modes, strict=True)))):
        operations += 4 * k if axis == 0 else 16 * k * left
        left *= k / n if axis == 0 else 2 * k / n
    return operations <= (30 if len(n_modes) == 1 else 100) * math.log2(math.prod(space))


def require_modes(space: tuple[int, ...], n_modes: tuple[int, ...], who: str) -> None:
    """Check that a grid of the given shape holds ``n_modes`` positive wavenumbers per axis.

    Raises:
        DoesNotFit: ``n_modes`` exceeds half the points of an axis.
        ValueError: ``n_modes`` is below 1, or is for another number of axes.
    """
    require_at_least(1, who, n_modes=min(n_modes))
    if len(space) != len(n_modes):
        raise ValueError(f"A spectral convolution over {len(n_modes)} axes got fields over {len(space)} axes.")
    for n, k in zip(space, n_modes, strict=True):
        if k > n // 2:
            raise DoesNotFit(
                f"{who} keeps n_modes={k} per axis, but the grid has {n} points: n_modes must be at most {n // 2}. "
                "Lower model.n_modes or raise the resolution.",
                n_modes=one_if_equal([min(k, n // 2) for n, k in zip(space, n_modes, strict=True)]),
            )
