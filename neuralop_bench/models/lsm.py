"""Latent spectral model."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import require_at_least
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.unet import Normalization, UNetBackbone


class NeuralSpectralBlock(nn.Module):
    """Within each patch of ``patch`` points per axis: project onto a few latent tokens, map the tokens' values by a sum
    of sines and cosines, and project back. All patches share the weights, and no patch depends on another.

        encode:  z_t = z0_t + sum_x softmax_x(<z0_t, K x>) V x           for each token t and head
        map:     z <- z + w_0 + sum_k c_k cos(pi k z / n_basis) + s_k sin(pi k z / n_basis),    k = 1 ... n_basis - 1
        decode:  x <- x + sum_t softmax_t(<Q x, z_t>) z_t                for each point and head

    K, V and Q are affine maps of the channels of a point. The sines and cosines are functions of a feature's value, not
    of space; w, c and s differ between channels and are shared by the tokens. The published code also has a weight for
    sin(0), one number per channel, so it has n_basis pairs. That weight has no effect and no gradient, and is left out
    here. Under autocast, softmax and the map stay in float32: rounding would change a phase of a few turns by a tenth.

    Args:
        channels: of input and output.
        patch: points per axis of a patch.
        n_tokens: latent tokens per patch.
        n_basis: pairs of sine and cosine, including the constant.
        n_heads: heads of the attention; a divisor of ``channels``.

    Shapes: [batch, channels, *space] to the same; every space axis has a multiple of ``patch`` points.

    Reference: Wu et al. (2023), Solving High-Dimensional PDEs with Latent Spectral Models, section 3, arXiv 2301.12664.

    >>> NeuralSpectralBlock(8, patch=4)(torch.ones(2, 8, 12, 16)).shape
    torch.Size([2, 8, 12, 16])
    """

    def __init__(
        self, channels: int, *, patch: int = 4, n_tokens: int = 4, n_basis: int = 12, n_heads: int = 8
    ) -> None:
        super().__init__()
        self.patch = patch
        self.n_basis = n_basis
        self.n_heads = n_heads
        self.tokens = nn.Parameter(torch.rand(channels, n_tokens) / channels)
        self.weight = nn.Parameter(torch.rand(channels, 2 * n_basis - 1) / channels)  # w_0, c_1 ..., s_1 ...
        self.key_value = Pointwise(channels, 2 * channels)
        self.query = Pointwise(channels, channels)

    def forward(self, x: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        patches = _to_patches(x, self.patch)
        return _from_patches(patches + self._decode(patches, self._map(self._encode(patches))), x.shape[2:], self.patch)

    # Indices in the products: b batch, h head, c channel of a head, t token, p patch, x point of a patch.

    def _encode(
        self, patches: Float[Tensor, "batch channel patch point"]
    ) -> Float[Tensor, "channel batch patch token"]:
        # The products of the tokens with K x are affine in x, so one map leads from x to them.
        tokens = self.tokens.unflatten(0, (self.n_heads, -1))
        (key, value), (key_bias, value_bias) = self.key_value.weight.chunk(2), self.key_value.bias.chunk(2)
        by_head = tokens.transpose(1, 2)
        with unrounded(patches):
            to_scores = (by_head @ key.unflatten(0, (self.n_heads, -1))).flatten(0, 1)
            scores_bias = (by_head @ key_bias.view(self.n_heads, -1, 1)).flatten()
        weight, bias = torch.cat([to_scores, value]), torch.cat([scores_bias, value_bias])
        both = torch.baddbmm(bias[:, None], weight.expand(len(patches), -1, -1), patches.flatten(2))
        scores, value = both.unflatten(2, patches.shape[2:]).split([len(to_scores), len(value)], dim=1)
        attention = widened(scores).unflatten(1, (self.n_heads, -1)).softmax(dim=-1)
        z = torch.einsum("bhtpx,bhcpx->hcbpt", attention, value.unflatten(1, (self.n_heads, -1)))
        return (z + tokens[:, :, None, None]).flatten(0, 1)

    def _map(self, z: Float[Tensor, "channel batch patch token"]) -> Float[Tensor, "channel batch patch token"]:
        with unrounded(z):
            z = widened(z)
            return z + cast(Tensor, _Series.apply(z.flatten(1), self.weight)).view_as(z)

    def _decode(
        self, patches: Float[Tensor, "batch channel patch point"], z: Float[Tensor, "channel batch patch token"]
    ) -> Float[Tensor, "batch channel patch point"]:
        query = self.query(patches).unflatten(1, (self.n_heads, -1))
        z = z.unflatten(0, (self.n_heads, -1))
        attention = widened(torch.einsum("bhcpx,hcbpt->bhptx", query, z)).softmax(dim=-2)
        return torch.einsum("bhptx,hcbpt->bhcpx", attention, z).flatten(1, 2)


class _Series(torch.autograd.Function):
    """w_0 + sum_k c_k cos(pi k z / n) + s_k sin(pi k z / n) for every value z, with weights per channel.

    The derivative with respect to z is a series of the same functions. So the gradient, too, consists of products of
    their values with one vector per channel, and needs no other tensor of that size.
    """

    @staticmethod
    def forward(ctx: Any, z: Float[Tensor, "channel n"], weight: Float[Tensor, "channel w_c_s"]) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        cosines, sines = _functions(z, weight)
        ctx.save_for_backward(z, weight, cosines, sines)
        return _series(weight, cosines, sines)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, weight, cosines, sines = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated again
            cosines, sines = _functions(z, weight)
        _, c, s = _series_weights(weight)
        k = _wavenumbers(z, weight)[:, None]
        slope = torch.baddbmm(torch.bmm(cosines, k * s), sines, k * c, beta=1, alpha=-1).squeeze(-1)
        row = grad[:, None]
        by_weight = torch.cat([row.sum(2), torch.bmm(row, cosines).squeeze(1), torch.bmm(row, sines).squeeze(1)], dim=1)
        return grad * slope, by_weight


def _series(weight: Tensor, cosines: Tensor, sines: Tensor) -> Float[Tensor, "channel n"]:
    constant, c, s = _series_weights(weight)
    return torch.baddbmm(torch.baddbmm(constant, cosines, c), sines, s).squeeze(-1)


def _functions(z: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    angle = z[..., None] * _wavenumbers(z, weight)
    return angle.cos(), angle.sin()


def _wavenumbers(z: Tensor, weight: Tensor) -> Float[Tensor, " k"]:
    n_basis = (weight.shape[1] + 1) // 2
    return torch.arange(1, n_basis, dtype=z.dtype, device=z.device) * (math.pi / n_basis)


def _series_weights(weight: Tensor) -> tuple[Tensor, ...]:
    n = weight.shape[1] // 2
    return weight[..., None].split([1, n, n], dim=1)


class LSM(nn.Module):
    """Latent spectral model: a U-Net whose features pass a neural spectral block on every scale.

        u(x) = Q(U(P(a, x)))

    U is ``neuralop_bench.layers.unet.UNetBackbone`` with a ``NeuralSpectralBlock`` on each scale. Patches have the same
    number of points on every scale. Q has one hidden layer with GELU. The model appends coordinates to its input.
    Convolutions, pooling and patches act on points, so the network is bound to the grid it is trained on.

    Departures from the published code: convolutions and interpolation wrap around periodic axes, where it has zeros;
    coordinates are those of the grid's own nodes, where it includes both end points on every grid; normalisation is the
    same in training and evaluation, unless it is ``batch``, as published (the published script for Navier-Stokes tests
    with the statistics of the test batch); there is no weight for sin(0).

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        width: channels of the finest scale, a multiple of ``n_heads``. They double with every scale except the last.
            64 as published.
        max_width: most channels of a scale, a multiple of ``n_heads``; None for no bound, as published.
        n_scales: grids, including the finest.
        patch: points per axis of a patch. Axes are padded to a multiple of patch 2^(n_scales-1) points.
        n_tokens: latent tokens per patch.
        n_basis: pairs of sine and cosine, including the constant.
        n_heads: heads of the attention.
        normalization: ``layer``, ``instance``, ``batch`` or ``none`` (``UNetBackbone``).
        projection_width: hidden channels of the projection.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, a width that isn't a multiple of ``n_heads`` or above ``max_width``, fewer than two
            scales, an unknown normalisation, or one with nothing to average over on the coarsest grid.

    Reference: Wu et al. (2023), Solving High-Dimensional PDEs with Latent Spectral Models, arXiv 2301.12664.

    >>> grid = Grid((33, 33), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))
    >>> LSM(in_channels=1, out_channels=1, grid=grid, width=8, n_scales=3)(torch.ones(2, 1, 33, 33)).shape
    torch.Size([2, 1, 33, 33])
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 16,
        max_width: int | None = None,
        n_scales: int = 5,
        patch: int = 4,
        n_tokens: int = 4,
        n_basis: int = 12,
        n_heads: int = 8,
        normalization: Normalization = "layer",
        projection_width: int = 128,
    ) -> None:
        super().__init__()
        require_at_least(
            1,
            "LSM",
            width=width,
            patch=patch,
            n_tokens=n_tokens,
            n_basis=n_basis,
            n_heads=n_heads,
            projection_width=projection_width,
        )
        for name, value in (("width", width), ("max_width", max_width)):
            if value is not None and value % n_heads:
                raise ValueError(
                    f"LSM divides its channels among n_heads={n_heads} heads, but {name}={value} isn't a multiple of "
                    f"that. Change model.{name} or model.n_heads."
                )
        self._nodes = grid.nodes
        block = partial(NeuralSpectralBlock, patch=patch, n_tokens=n_tokens, n_basis=n_basis, n_heads=n_heads)
        self.backbone = UNetBackbone(
            width,
            grid=grid,
            n_scales=n_scales,
            normalization=normalization,
            block=block,
            patch=patch,
            max_width=max_width,
        )
        self.idle = self.backbone.idle
        self.lifting = Pointwise(in_channels + grid.n_dims, width)
        self.projection = Perceptron(width, projection_width, out_channels, gelu)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        with unrounded(x):
            v = self.lifting(append_coordinates(x, self._nodes))
        return self.projection(self.backbone(v))


def _to_patches(x: Float[Tensor, "batch channel *space"], patch: int) -> Float[Tensor, "batch channel patches points"]:
    n_dims = x.ndim - 2
    for axis in range(n_dims):
        x = x.unflatten(2 + 2 * axis, (-1, patch))  # after the loop [batch, channel, count, patch, count, patch, ...]
    x = x.permute(0, 1, *range(2, 2 + 2 * n_dims, 2), *range(3, 3 + 2 * n_dims, 2))
    return x.flatten(2, 1 + n_dims).flatten(3)


def _from_patches(
    patches: Float[Tensor, "batch channel patches points"], space: torch.Size, patch: int
) -> Float[Tensor, "batch channel *space"]:
    n_dims = len(space)
    x = patches.unflatten(3, (patch,) * n_dims).unflatten(2, [n // patch for n in space])
    x = x.permute(0, 1, *(axis for i in range(2, 2 + n_dims) for axis in (i, i + n_dims)))
    return x.reshape(*x.shape[:2], *space)
