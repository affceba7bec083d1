"""Plain form of the U-NO."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from benchmarks.references.shared import CONV, holding, is_periodic, require, with_positions
from benchmarks.references.spectral_conv import PlainSpectralConv
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.uno import UNO


class PlainUNO(nn.Module):
    """Fourier layers v -> gelu(K v + R (W v + b)) to coarser grids and back, with skip connections; periodic axes.

    K keeps low modes and evaluates them on the next grid, R interpolates linearly. ``channels`` and ``scales`` are
    those of all levels, the given grid first. Rahman et al. (2022), arXiv 2204.11127, section 3.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        channels: Sequence[int] = (16, 32, 64),
        scales: Sequence[float] = (1.0, 0.5, 0.25),
        n_modes: Sequence[int] = (8, 4),
        projection_width: int = 64,
    ) -> None:
        super().__init__()
        conv, self.scales, width, deepest = CONV[n_dims], scales, channels[0], channels[-1]

        def layer(n_in: int, n_out: int, k: int) -> nn.ModuleDict:
            spectral = PlainSpectralConv(n_in, n_out, (k,) * n_dims)
            return nn.ModuleDict({"spectral": spectral, "pointwise": conv(n_in, n_out, 1)})

        self.lifting = nn.ModuleList([conv(in_channels + n_dims, width // 2, 1), conv(width // 2, width, 1)])
        pairs = list(zip(itertools.pairwise(channels), n_modes, strict=True))
        self.down = nn.ModuleList(layer(n_fine, n_coarse, k) for (n_fine, n_coarse), k in pairs)
        self.bottom = layer(deepest, deepest, n_modes[-1])
        self.up = nn.ModuleList(
            layer(n_coarse if level == len(pairs) else 2 * n_coarse, n_fine, k)
            for level, ((n_fine, n_coarse), k) in enumerate(pairs, start=1)
        )
        self.projection = nn.ModuleList([conv(2 * width, projection_width, 1), conv(projection_width, out_channels, 1)])

    @classmethod
    def with_weights_of(cls, ours: UNO) -> PlainUNO:
        require(ours._activation is gelu, "GELU")
        require(is_periodic(ours._nodes), "periodic axes")
        n_dims = len(ours._nodes)
        biases = [ours.get_parameter("lifting.1.bias"), *(layer.get_parameter("pointwise.bias") for layer in ours.down)]
        convs = [layer.get_submodule("spectral") for layer in ours.down]
        plain = cls(
            in_channels=ours.get_parameter("lifting.0.weight").shape[1] - n_dims,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            n_dims=n_dims,
            channels=[bias.numel() for bias in biases],
            scales=[1.0, *ours._scales],
            n_modes=[conv.n_modes[0] for conv in convs if isinstance(conv, SpectralConv)],
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        grids = [[round(scale * n) for n in space] for scale in self.scales]
        v = gelu(self.lifting[1](gelu(self.lifting[0](with_positions(x, periodic=True)))))
        skips = [v]
        for layer, grid in zip(self.down, grids[1:], strict=True):
            v = self._layer(layer, v, grid)
            skips.append(v)
        v = self._layer(self.bottom, skips.pop(), grids[-1])
        for layer, grid, skip in zip(reversed(self.up), grids[-2::-1], reversed(skips), strict=True):
            v = torch.cat([self._layer(layer, v, grid), skip], dim=1)
        return self.projection[1](gelu(self.projection[0](v)))

    def _layer(self, layer: nn.Module, v: Tensor, grid: Sequence[int]) -> Tensor:
        mapped = layer.get_submodule("pointwise")(v)
        if list(v.shape[2:]) != grid:
            mapped = _interpolated_on_circles(mapped, grid)
        return gelu(layer.get_submodule("spectral")(v, tuple(grid)) + mapped)


def _interpolated_on_circles(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Linear interpolation to ``grid`` points of the same period on every axis, which may be fewer."""
    for axis, n in enumerate(grid, start=2):
        given = x.shape[axis]
        position = torch.arange(n, dtype=x.dtype, device=x.device) * given / n
        below = position.floor().long()
        shape = [1] * x.ndim
        shape[axis] = n
        weight = (position - below).view(shape)
        x = (1 - weight) * x.index_select(axis, below) + weight * x.index_select(axis, (below + 1) % given)
    return x
