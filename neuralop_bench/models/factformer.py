"""Factorised transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import require_at_least, require_known
from neuralop_bench.layers.precision import unrounded, widened

_TINY = 1e-6  # added to variances
_TURNS = 64.0  # largest rotary frequency, radians per length of the domain, as published
_SPREAD = 8.0  # standard deviation of the wavenumbers of the position features, as published


class FactorisedAttention(nn.Module):
    """Attention with one kernel per axis, whose product acts on the whole field.

        w_a = M_a(mean of norm(u) over the axes other than a)                      a function of x_a alone
        K_a(x, y) = <R(x) Q_a w_a(x), R(y) L_a w_a(y)>                             for each head
        chained:   z = K_1 ... K_d V norm(u)         parallel:   z = [K_1 V norm(u), ..., K_d V norm(u)]
        out = P(norm z)

    K acts as an integral: (K v)(x) = mean over y of K(x, y) v(y). V, Q_a and L_a are linear. M_a is two linear maps, a
    layer norm and a network with one gated hidden layer. R rotates pairs of features by angles proportional to the
    position, so K depends on positions through x - y. The norm of z is over the points of a sample, for each feature.

    Args:
        width: channels.
        n_dims: axes.
        n_heads: kernels per axis.
        head_width: features of a head's values.
        kernel_width: features of a head's queries and keys, an even number.
        axes: ``chained`` or ``parallel``.

    Shapes: [batch, *space, width] to the same; angles [n, kernel_width / 2] for each axis.
    """

    def __init__(self, width: int, *, n_dims: int, n_heads: int, head_width: int, kernel_width: int, axes: str) -> None:
        super().__init__()
        self._n_heads, self._parallel = n_heads, axes == "parallel"
        n_values = n_heads * head_width
        self.norm = nn.LayerNorm(width)
        self.value = nn.Linear(width, n_values, bias=False)
        self.inner = nn.Linear(width, width, bias=False)
        self.to_axis = nn.ModuleList(_ToAxis(width) for _ in range(n_dims))
        self.query_key = nn.ModuleList(nn.Linear(width, 2 * n_heads * kernel_width, bias=False) for _ in range(n_dims))
        self.out = Perceptron(n_values * (n_dims if self._parallel else 1), width, width, gelu)

    def forward(
        self, u: Float[Tensor, "batch *space width"], angles: Sequence[Tensor]
    ) -> Float[Tensor, "batch *space width"]:
        u = self.norm(u)
        v = self.value(u)
        with unrounded(u):
            kernels = self._kernels(widened(u), angles)
            v = (
                widened(v).unflatten(-1, (self._n_heads, -1)).movedim((-2, -1), (1, 2))
            )  # [batch, head, feature, *space]
            if self._parallel:
                z = torch.cat([_apply(kernel, v, 3 + axis) for axis, kernel in enumerate(kernels)], dim=2)
            else:
                z = v
                for axis, kernel in enumerate(kernels):
                    z = _apply(kernel, z, 3 + axis)
            z = z.flatten(1, 2)
            z = layer_norm(z, z.shape[2:], eps=_TINY).movedim(1, -1)
        return self.out.channels_last(z)

    def _kernels(self, u: Tensor, angles: Sequence[Tensor]) -> list[Float[Tensor, "batch head n n"]]:
        kernels = []
        n_dims = u.ndim - 2
        for axis, (to_axis, query_key) in enumerate(zip(self.to_axis, self.query_key, strict=True), start=1):
            others = [other for other in range(1, n_dims + 1) if other != axis]
            mean = u.mean(others) if others else u  # the linear maps before the mean can as well come after it
            both = query_key(to_axis(self.inner(mean))).unflatten(-1, (2, self._n_heads, -1))
            query, key = _rotated(both, angles[axis - 1][:, None, None]).movedim(1, 3).unbind(1)
            kernels.append(query @ key.mT / query.shape[2])
        return kernels


class _ToAxis(nn.Module):
    """From the mean over the other axes to features of one axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, width)

    def forward(self, mean: Float[Tensor, "batch n width"]) -> Float[Tensor, "batch n width"]:
        gate, value = self.hidden(self.norm(self.first(mean))).chunk(2, dim=-1)
        return self.last(gelu(gate) * value)


def _rotated(x: Tensor, angles: Tensor) -> Tensor:
    """Turn the pairs of the first and the second half of the features."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _apply(kernel: Float[Tensor, "batch head n n"], v: Float[Tensor, "batch head feature *space"], axis: int) -> Tensor:
    moved = v.movedim(axis, -1)
    z = torch.matmul(moved.flatten(2, -2), kernel.mT)
    return z.unflatten(2, moved.shape[2:-1]).movedim(-1, axis)


class FactFormer(nn.Module):
    """Factorised transformer: attention over a grid whose kernel is a product of kernels of one axis each. For n points
    per axis it costs n^(d+1) operations per feature, where attention among all points costs n^(2d).

        u_0 = P a,      u <- u + E_l(x),      u <- u + h A_l(u),      l = 1 ... n_layers,      output = Q u

    A_l is ``FactorisedAttention``, P an affine map of the channels, Q has one hidden layer with GELU. E_l is linear in
    the cosines and sines of 2 pi <k, x> for ``width`` // 2 random wave vectors k. h = 1. With ``shared`` (implicit
    form), all layers have the same weights, E is added once, and h = 1 / n_layers, so that the layers are steps of an
    explicit Euler method. Published as IFactFormer-m with ``axes=parallel``.

    On periodic axes all wavenumbers and rotary frequencies are rounded to whole periods, so the network treats them as
    periodic. With E = 0 it commutes there with shifts by whole points.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, of which only the nodes are used.
        width: channels. 128 as published.
        n_layers: layers, or steps of the implicit form. 4 as published for Kolmogorov flow.
        n_heads: kernels per axis. 8 as published for Kolmogorov flow.
        head_width: features of a head's values. 64 as published.
        kernel_width: features of a head's queries and keys, an even number. 128 as published (192 in 3D).
        axes: ``chained``: the kernels of the axes act one after the other; ``parallel``: each acts on the values, and
            the results are joined. The same in 1D.
        shared: the implicit form.
        projection_width: hidden channels of Q.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, an odd kernel_width or width, or an unknown ``axes``.

    Departures from the published code: means instead of sums in the kernels' integrals, so that the network can be used
    on other grids; the norm of z is over the points of each feature (the code of FactFormer applies it to channels-last
    fields, so it acts on the rows of the first axis); larger initial queries and keys (Xavier, gain 1 instead of 0.02);
    biases in the network after attention; whole periods on periodic axes; no marching in latent space and no
    convolutional block behind the encoder: the output is one step.

    Reference: Li, Shu, Barati Farimani (2023), Scalable Transformer for PDE Surrogate Modeling, arXiv 2305.17560,
    section 3; Yang, Wang, Wang (2024), Implicit factorized transformer approach to fast prediction of turbulent channel
    flows, arXiv 2412.18840, for the implicit parallel form.

    >>> model = FactFormer(in_channels=10, out_channels=1, grid=Grid.periodic(64))
    >>> sum(p.numel() for p in model.parameters())
    169473
    """

    resolution_free: ClassVar[bool] = True
    wave_vectors: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 48,
        n_layers: int = 3,
        n_heads: int = 4,
        head_width: int = 12,
        kernel_width: int = 32,
        axes: Literal["chained", "parallel"] = "chained",
        shared: bool = False,
        projection_width: int = 64,
    ) -> None:
        super().__init__()
        require_at_least(1, "FactFormer", n_layers=n_layers, n_heads=n_heads, head_width=head_width)
        require_at_least(2, "FactFormer", width=width, kernel_width=kernel_width)
        require_at_least(1, "FactFormer", projection_width=projection_width)
        require_known("FactFormer", "axes", axes, ("chained", "parallel"))
        for name, value in (("width", width), ("kernel_width", kernel_width)):
            if value % 2:
                raise ValueError(
                    f"FactFormer has pairs of features for cosines and sines, so model.{name} must be even, "
                    f"got {value}."
                )
        self._nodes, self._n_layers, self._kernel_width = grid.nodes, n_layers, kernel_width
        self.idle = {"axes": "the grid has one axis"} if grid.n_dims == 1 else {}
        n_different = 1 if shared else n_layers
        self.lifting = Pointwise(in_channels, width)
        self.positions = nn.ModuleList(nn.Linear(width, width) for _ in range(n_different))
        self.layers = nn.ModuleList(
            FactorisedAttention(
                width,
                n_dims=grid.n_dims,
                n_heads=n_heads,
                head_width=head_width,
                kernel_width=kernel_width,
                axes=axes,
            )
            for _ in range(n_different)
        )
        self.projection = Perceptron(width, projection_width, out_channels, gelu)
        wave_vectors = _SPREAD * torch.randn(n_different, grid.n_dims, width // 2)
        for axis, kind in enumerate(grid.nodes):
            if kind == "periodic":
                wave_vectors[:, axis].round_()
        self.register_buffer("wave_vectors", wave_vectors)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        with unrounded(x):
            u = self.lifting(widened(x)).movedim(1, -1)
            coordinates = append_coordinates(u.new_empty(1, 0, *space), self._nodes)[0].movedim(0, -1)
            angles = [
                self._angles(coordinates.select(-1, axis).movedim(axis, 0).reshape(x.shape[2 + axis], -1)[:, 0], kind)
                for axis, kind in enumerate(self._nodes)
            ]
        steps = self._n_layers // len(self.layers)
        for wave_vectors, to_features, layer in zip(self.wave_vectors, self.positions, self.layers, strict=True):
            with unrounded(x):
                phase = 2 * math.pi * (coordinates @ wave_vectors)
                waves = torch.cat([phase.sin(), phase.cos()], dim=-1)
                u = u + to_features(waves)
            for _ in range(steps):
                u = torch.add(u, layer(u, angles), alpha=1 / steps)
        return self.projection.channels_last(u).movedim(-1, 1)

    def _angles(self, positions: Float[Tensor, " n"], nodes: Nodes) -> Float[Tensor, "n half"]:
        """Angles of the rotary features: frequencies fall from 64 radians per length of the domain in equal ratios."""
        half = self._kernel_width // 2
        j = torch.arange(half, dtype=positions.dtype, device=positions.device)
        frequencies = _TURNS * 10000.0 ** (-j / half)
        if nodes == "periodic":
            frequencies = 2 * math.pi * torch.round(frequencies / (2 * math.pi))
        return torch.outer(positions, frequencies)
