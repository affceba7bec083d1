"""Plain form of FactFormer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from benchmarks.references.shared import holding, is_periodic, node_positions, require
from neuralop_bench.models.factformer import FactFormer, FactorisedAttention


class _PlainAxis(nn.Module):
    """Features of one axis from a field: a linear map, the mean over the other axis, a gated network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, width)

    def forward(self, u: Tensor, other: int) -> Float[Tensor, "batch n width"]:
        gate, value = self.hidden(self.norm(self.first(u).mean(other))).chunk(2, dim=-1)
        return self.last(gelu(gate) * value)


class _PlainFactorisedAttention(nn.Module):
    """norm (K_x K_y V u) with K(x, y) = <R(x) Q w(x), R(y) L w(y)> / n, and a network with one hidden layer."""

    def __init__(self, width: int, n_heads: int, head_width: int, kernel_width: int) -> None:
        super().__init__()
        n_values = n_heads * head_width
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.value, self.inner = nn.Linear(width, n_values, bias=False), nn.Linear(width, width, bias=False)
        self.to_axis = nn.ModuleList(_PlainAxis(width) for _ in range(2))
        self.query_key = nn.ModuleList(nn.Linear(width, 2 * n_heads * kernel_width, bias=False) for _ in range(2))
        self.out = nn.ModuleList([nn.Linear(n_values, width), nn.Linear(width, width)])

    def forward(self, u: Float[Tensor, "batch n m width"], angles: Sequence[Tensor]) -> Tensor:
        u = self.norm(u)
        value, u = self.value(u).unflatten(-1, (self.n_heads, -1)), self.inner(u)
        kernels = []
        for axis, (to_axis, query_key) in enumerate(zip(self.to_axis, self.query_key, strict=True)):
            query, key = query_key(to_axis(u, 2 - axis)).unflatten(-1, (2, self.n_heads, -1)).unbind(2)
            cos, sin = angles[axis][:, None].cos(), angles[axis][:, None].sin()
            turned = []
            for a, b in (query.chunk(2, dim=-1), key.chunk(2, dim=-1)):
                turned.append(torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1))
            kernels.append(torch.einsum("bihd,bjhd->bhij", *turned) / u.shape[1 + axis])
        z = torch.einsum("bhij,bjmhc->bimhc", kernels[0], value)
        z = torch.einsum("bhlm,bimhc->bilhc", kernels[1], z).flatten(3)
        z = layer_norm(z.movedim(-1, 1), z.shape[1:3], eps=1e-6).movedim(1, -1)
        return self.out[1](gelu(self.out[0](z)))


class PlainFactFormer(nn.Module):
    """u <- u + E_l(x),  u <- u + A_l(u),  with cosines and sines of random waves in E; two axes, chained.

    Li, Shu, Barati Farimani (2023), arXiv 2305.17560.
    """

    wave_vectors: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        width: int = 48,
        n_layers: int = 3,
        n_heads: int = 4,
        head_width: int = 12,
        kernel_width: int = 32,
        projection_width: int = 64,
    ) -> None:
        super().__init__()
        self.periodic, self.half = periodic, kernel_width // 2
        self.lifting = nn.Linear(in_channels, width)
        self.positions = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.layers = nn.ModuleList(
            _PlainFactorisedAttention(width, n_heads, head_width, kernel_width) for _ in range(n_layers)
        )
        self.projection = nn.ModuleList([nn.Linear(width, projection_width), nn.Linear(projection_width, out_channels)])

    @classmethod
    def with_weights_of(cls, ours: FactFormer) -> PlainFactFormer:
        layer = ours.layers[0]
        assert isinstance(layer, FactorisedAttention)
        require(len(ours.layers) == ours._n_layers, "layers with weights of their own")
        require(not layer._parallel and len(ours._nodes) == 2, "chained kernels of two axes")
        plain = cls(
            in_channels=ours.lifting.in_features,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=is_periodic(ours._nodes),
            width=ours.lifting.out_features,
            n_layers=ours._n_layers,
            n_heads=layer._n_heads,
            head_width=layer.value.out_features // layer._n_heads,
            kernel_width=ours._kernel_width,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        plain = holding(plain, ours)
        plain.wave_vectors = ours.wave_vectors
        return plain

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        u = self.lifting(x.movedim(1, -1))
        positions = node_positions(x.shape[2:], self.periodic, x).movedim(0, -1)
        j = torch.arange(self.half, dtype=x.dtype, device=x.device)
        frequencies = 64 * 10000.0 ** (-j / self.half)
        if self.periodic:
            frequencies = 2 * math.pi * torch.round(frequencies / (2 * math.pi))
        angles = [torch.outer(axis, frequencies) for axis in (positions[:, 0, 0], positions[0, :, 1])]
        for waves, position, layer in zip(self.wave_vectors, self.positions, self.layers, strict=True):
            phase = 2 * math.pi * positions @ waves
            u = u + position(torch.cat([phase.sin(), phase.cos()], dim=-1))
            u = u + layer(u, angles)
        return self.projection[1](gelu(self.projection[0](u))).movedim(-1, 1)
