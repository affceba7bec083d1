"""Denoising pre-trained operator transformer (DPOT)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import DoesNotFit, require_at_least
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.renaming import renamed
from neuralop_bench.layers.tables import CONV, CONV_FUNCTION, CONV_TRANSPOSE

_WHO = "DPOT"
_GROUPS = 8  # of the normalisation
_PUBLISHED_NAMES = {
    r"^patch_embed\.proj\.0": "embedding",
    r"^patch_embed\.proj\.2": "to_width",
    "^pos_embed": "places",
    r"^time_agg_layer\.w": "by_frame",
    r"^time_agg_layer\.gamma": "frequencies",
    r"\.norm1": ".norms.0",
    r"\.norm2": ".norms.1",
    r"\.filter\.w1": ".mixer.weight",
    r"\.filter\.b1": ".mixer.bias",
    r"\.filter\.w2": ".mixer.out_weight",
    r"\.filter\.b2": ".mixer.out_bias",
    r"\.mlp\.0": ".network.0",
    r"\.mlp\.2": ".network.1",
    r"^out_layer\.0": "to_points",
    r"^out_layer\.2": "projection.0",
    r"^out_layer\.4": "projection.1",
}


class FourierPerceptron(nn.Module):
    """One network with one hidden layer (GELU) for the Fourier coefficients of all wavenumbers.

        v <- F^-1 f(F v),    f(z) = W' act(W z + b) + b'

    F is the unitary Fourier transform over all space axes. W and W' are complex matrices with ``n_heads`` blocks on the
    diagonal, b and b' are complex vectors, and ``act`` acts on real and imaginary parts by themselves. So the
    parameters don't depend on the number of points. With real matrices, a linear ``act`` and no bias, the map would
    act on each point by itself: it mixes points by its activation. Under autocast, all of this stays in float32.

    Args:
        channels: of input and output, a multiple of ``n_heads``.
        n_heads: blocks of the matrices.

    Shapes: [batch, *space, channels] to the same.

    Reference: Guibas et al. (2022), Adaptive Fourier Neural Operators, arXiv 2111.13587, without the soft thresholding;
    Hao et al. (2024), arXiv 2403.03542, section 3.3.

    >>> FourierPerceptron(8, n_heads=2)(torch.ones(3, 6, 5, 8)).shape
    torch.Size([3, 6, 5, 8])
    """

    complex_pairs: ClassVar[frozenset[str]] = frozenset({"weight", "bias", "out_weight", "out_bias"})

    def __init__(self, channels: int, *, n_heads: int) -> None:
        super().__init__()
        size = channels // n_heads
        scale = 1 / size**2
        # Real and imaginary parts.
        self.weight, self.out_weight = (nn.Parameter(scale * torch.rand(2, n_heads, size, size)) for _ in range(2))
        self.bias, self.out_bias = (nn.Parameter(scale * torch.rand(2, n_heads, size)) for _ in range(2))

    def forward(self, v: Float[Tensor, "batch *space channels"]) -> Float[Tensor, "batch *space channels"]:
        with unrounded(v):
            n_last, axes = v.shape[-2], list(range(1, v.ndim - 1))
            modes = torch.fft.rfftn(widened(v), dim=axes, norm="ortho")
            n_heads = self.weight.shape[1]
            z = torch.view_as_real(modes).unflatten(-2, (n_heads, -1)).movedim(-1, -2)  # [..., head, part, channel]
            by_head = z.flatten(-2).flatten(0, -3).transpose(0, 1)  # [head, mode, part and channel]
            hidden = gelu(torch.baddbmm(_joined(self.bias), _real(self.weight), by_head.mT).mT)
            out = torch.baddbmm(_joined(self.out_bias), _real(self.out_weight), hidden.mT).mT
            out = out.transpose(0, 1).unflatten(-1, (2, -1)).movedim(-2, -1).reshape(*modes.shape, 2)
            mapped = torch.view_as_complex(out)
            # The coefficients have lost the symmetry of those of real fields, so what a transform over all axes makes
            # of them depends on the library. This order is defined: complex axes first, then the real one.
            if len(axes) > 1:
                mapped = torch.fft.ifftn(mapped, dim=axes[:-1], norm="ortho")
            return torch.fft.irfft(mapped, n=n_last, dim=axes[-1], norm="ortho")


def _real(weight: Float[Tensor, "part head i o"]) -> Float[Tensor, "head part_and_o part_and_i"]:
    """The complex matrices as real ones that act on real parts followed by imaginary parts."""
    a, b = weight.mT
    return torch.cat([torch.cat([a, -b], dim=2), torch.cat([b, a], dim=2)], dim=1)


def _joined(bias: Float[Tensor, "part head o"]) -> Float[Tensor, "head part_and_o 1"]:
    return bias.transpose(0, 1).flatten(1)[..., None]


class Block(nn.Module):
    """Mix points by a ``FourierPerceptron``, then channels by a network with one hidden layer (GELU).

        v <- v + M(norm(w + K(w))),    w = norm(v)

    K is the ``FourierPerceptron``. Both norms are over all points and an eighth of the channels.

    Shapes: [batch, *space, width] to the same.
    """

    def __init__(self, width: int, *, n_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, width) for _ in range(2))
        self.mixer = FourierPerceptron(width, n_heads=n_heads)
        self.network = Perceptron(width, mlp_width, width, gelu)

    def forward(self, v: Float[Tensor, "batch *space width"]) -> Float[Tensor, "batch *space width"]:
        first, second = (cast(nn.GroupNorm, norm) for norm in self.norms)
        w = _normalised(v, first)
        return v + self.network.channels_last(_normalised(w + self.mixer(w), second))


def _normalised(v: Float[Tensor, "batch *space width"], norm: nn.GroupNorm) -> Float[Tensor, "batch *space width"]:
    return norm(v.movedim(-1, 1)).movedim(1, -1)


class DPOT(nn.Module):
    """Frames are cut into patches and summed, with one learned matrix per frame. Blocks mix the patches by a network
    that acts on their Fourier coefficients, and every patch is mapped back to its points.

        z_t = A act(E [a_t, s, x, t] + c) + b + p,           t = 1 ... n_frames
        v_0 = sum_t W_t (cos(gamma tau_t) z_t),              tau_t = (t - 1) / (n_frames - 1)
        v_{l+1} = B_l(v_l),                                  u = Q act(D v_L + d)

    a_t are the fields of a frame and s the static fields; E maps a patch of them and of the coordinates in space and
    time to ``embed_width`` numbers, and A to ``width``. p is a learned vector of each patch, gamma a learned frequency
    of each channel, B_l a ``Block``. D maps a channel vector to ``out_width`` fields on the points of the patch. Q is a
    network with one hidden layer at each point, ``act`` is GELU. For a single frame there is neither gamma nor t.

    Axes are padded to a multiple of ``patch`` points, periodic axes with their own beginning, others with zeros, and
    the output is cut back. The Fourier transform treats every axis as periodic. p has an entry for each patch, so the
    network is bound to the grid it is trained on.

    A and W_t are linear, and so are joined before they act on the points: z_t is never computed.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        n_frames: frames of the input, in a configuration ``${dataset.history}``; without any (0), all input fields
            together are one frame.
        n_steps: frames of the output, in a configuration ``${surrogate.bundle}``.
        patch: points per axis of a patch. Published: 8, on 128 x 128 points.
        width: channels of a patch, a multiple of ``n_heads`` and of 8. Published: 512 to 2048.
        n_layers: blocks. Published: 4 to 27.
        n_heads: blocks of the matrices for the Fourier coefficients. Published: 4 to 16.
        mlp_ratio: hidden channels of a block's network, in multiples of the width. Published: 1 or 4.
        embed_width: hidden channels of the patch embedding. Published: 35.
        out_width: hidden channels of the output layer. Published: 32.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1; a width that isn't a suitable multiple; fewer input channels than ``n_frames``
            frames have, or output channels that ``n_steps`` doesn't divide.
        DoesNotFit: a patch has more points than an axis.

    Cost: a block has 4 width^2 / n_heads + 2 mlp_ratio width^2 parameters plus terms linear in the width, and about two
    operations per parameter and patch. The frames have n_frames width^2, the output layer has width out_width
    patch^n_dims.

    Reference: Hao et al. (2024), DPOT: Auto-Regressive Denoising Operator Transformer for Large-Scale PDE Pre-Training,
    arXiv 2403.03542; sizes and initialisation are those of its code (HaoZhongkai/DPOT). Its smallest network has 7.0
    million parameters (4 fields, 10 frames), and 0.5 million more in a head that classifies datasets. Departures: no
    such head, which doesn't influence the output; coordinates are those of the grid's own nodes, where theirs include
    both ends; static fields; any number of points and one to three axes; all wavenumbers are kept, as the published
    sizes do. Noise on the input during training isn't part of the model. A file of published weights can be given as
    ``init_from``.

    >>> sizes = dict(n_frames=10, patch=8, width=512, n_layers=4, n_heads=4, embed_width=35)
    >>> model = DPOT(in_channels=40, out_channels=4, grid=Grid.periodic(128), **sizes)
    >>> sum(p.numel() for p in model.parameters())
    7003175
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        n_frames: int = 1,
        n_steps: int = 1,
        patch: int = 4,
        width: int = 96,
        n_layers: int = 4,
        n_heads: int = 4,
        mlp_ratio: int = 1,
        embed_width: int = 32,
        out_width: int = 32,
    ) -> None:
        super().__init__()
        require_at_least(1, _WHO, n_steps=n_steps, patch=patch, n_layers=n_layers, n_heads=n_heads)
        require_at_least(1, _WHO, mlp_ratio=mlp_ratio, embed_width=embed_width, out_width=out_width)
        require_at_least(2 * _GROUPS, _WHO, width=width)
        require_at_least(0, _WHO, n_frames=n_frames)
        if width % n_heads or width % _GROUPS:
            raise ValueError(
                f"{_WHO} divides its channels among n_heads={n_heads} heads and {_GROUPS} groups, but width={width} "
                "isn't a multiple of both. Change model.width or model.n_heads."
            )
        if patch > min(grid.shape):
            raise DoesNotFit(
                f"{_WHO} with patches of {patch} points per axis doesn't fit a grid of shape {grid.shape}. Lower "
                f"model.patch to at most {min(grid.shape)}, or raise the resolution.",
                patch=min(grid.shape),
            )
        n_fields, n_static = _fields(in_channels, out_channels, n_frames, n_steps)
        self._nodes, self._patch = grid.nodes, patch
        n_dims, self._n_frames = grid.n_dims, max(1, n_frames)
        self._several = self._n_frames > 1
        # Of the channels that a patch embedding is given: those of one frame, those of all frames, and the time.
        self._parts = [n_fields, n_static + n_dims, *[1] * self._several]
        self.embedding = CONV[n_dims](sum(self._parts), embed_width, patch, stride=patch)
        self.to_width = Pointwise(embed_width, width)
        self.places = nn.Parameter(torch.empty(width, *(math.ceil(n / patch) for n in grid.shape)))
        nn.init.trunc_normal_(self.places, std=0.02)
        self.by_frame = nn.Parameter(torch.randn(self._n_frames, width, width) / (self._n_frames * math.sqrt(width)))
        self.frequencies = nn.Parameter(2 ** torch.linspace(-10, 10, width)) if self._several else None
        self.blocks = nn.ModuleList(Block(width, n_heads=n_heads, mlp_width=mlp_ratio * width) for _ in range(n_layers))
        self.to_points = CONV_TRANSPOSE[n_dims](width, out_width, patch, stride=patch)
        self.projection = Perceptron(out_width, out_width, out_channels, gelu)

    @staticmethod
    def from_published(states: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of the published code by our names."""
        return renamed(states, _PUBLISHED_NAMES)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        with unrounded(x):
            v = self._embedded(pad_to_multiple(append_coordinates(x, self._nodes), self._patch, self._nodes))
        for block in self.blocks:
            v = block(v)
        return self.projection(gelu(crop(self.to_points(v.movedim(-1, 1)), space)))

    def _embedded(self, x: Float[Tensor, "batch channel_and_axis *space"]) -> Float[Tensor, "batch *patch width"]:
        n_fields, n_frames = self._parts[0], self._n_frames
        frames = x[:, : n_frames * n_fields].unflatten(1, (n_frames, n_fields))
        tau = torch.linspace(0, 1, n_frames, dtype=x.dtype, device=x.device)
        conv, stride = CONV_FUNCTION[x.ndim - 2], self._patch
        by_frame, by_all, *by_time = self.embedding.weight.split(self._parts, dim=1)
        once = conv(x[:, n_frames * n_fields :], by_all, self.embedding.bias, stride)
        hidden = conv(frames.flatten(0, 1), by_frame, stride=stride).unflatten(0, (len(x), n_frames)) + once[:, None]
        if by_time:
            slope = by_time[0].flatten(1).sum(1)
            hidden = hidden + (tau[:, None] * slope).view(n_frames, -1, *(1,) * len(self._nodes))
        hidden = gelu(hidden).flatten(1, 2)
        matrices = self.by_frame
        if self.frequencies is not None:
            matrices = (tau[:, None] * self.frequencies).cos()[..., None] * matrices
        # [frame and hidden channel, width], and what doesn't depend on the input.
        from_hidden = (self.to_width.weight.T @ matrices).flatten(0, 1)
        constant = (self.places.flatten(1).T + self.to_width.bias) @ matrices.sum(0)
        v = torch.baddbmm(constant, hidden.flatten(2).mT, from_hidden.expand(len(x), -1, -1))
        return v.unflatten(1, hidden.shape[2:])


def _fields(in_channels: int, out_channels: int, n_frames: int, n_steps: int) -> tuple[int, int]:
    """Channels of a frame, and of the static fields."""
    if out_channels % n_steps:
        raise ValueError(
            f"{_WHO} predicts n_steps={n_steps} frames, but out_channels={out_channels} isn't a multiple of that. Set "
            "model.n_steps to the value of surrogate.bundle."
        )
    if not n_frames:
        return in_channels, 0
    n_fields = out_channels // n_steps
    n_static = in_channels - n_frames * n_fields
    if n_static < 0:
        raise ValueError(
            f"{_WHO} is given n_frames={n_frames} frames of {n_fields} channels each, but in_channels is only "
            f"{in_channels}. Set model.n_frames to the value of dataset.history."
        )
    return n_fields, n_static
