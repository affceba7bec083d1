"""Plain form of Transolver."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from benchmarks.references.shared import CONV, holding, is_periodic, node_positions
from neuralop_bench.models.transolver import Block, Transolver


class PlainSliceAttention(nn.Module):
    """w_xg = softmax_g((S a(x) + b)_g / T),  z_g = sum_x w_xg f(x) / max(sum_x w_xg, 1e-5),  attention among the z_g,
    and u(x) = sum_g w_xg z_g in every head; then heads are merged. a and f are convolutions.

    Wu et al. (2024), arXiv 2402.02366, section 3.1.
    """

    def __init__(self, width: int, *, n_dims: int, n_heads: int, n_slices: int, kernel: int, periodic: bool) -> None:
        super().__init__()
        n_features = width // n_heads
        self.n_heads = n_heads
        self.features = CONV[n_dims](
            width, 2 * width, kernel, padding=kernel // 2, padding_mode="circular" if periodic else "zeros"
        )
        self.slices = nn.Linear(n_features, n_slices)
        self.temperature = nn.Parameter(torch.full((n_heads, 1, 1), 0.5))
        self.query, self.key, self.value = (nn.Linear(n_features, n_features, bias=False) for _ in range(3))
        self.merge = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch *space width"]) -> Float[Tensor, "batch *space width"]:
        a, f = (
            part.flatten(2).transpose(1, 2).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for part in self.features(x.movedim(-1, 1)).chunk(2, dim=1)
        )
        weights = (self.slices(a) / self.temperature.clamp(0.1, 5)).softmax(dim=-1)
        tokens = torch.einsum("bhxg,bhxc->bhgc", weights, f) / weights.sum(dim=2)[..., None].clamp(min=1e-5)
        scores = torch.einsum("bhgc,bhkc->bhgk", self.query(tokens), self.key(tokens)) / math.sqrt(f.shape[-1])
        tokens = torch.einsum("bhgk,bhkc->bhgc", scores.softmax(dim=-1), self.value(tokens))
        out = torch.einsum("bhxg,bhgc->bxhc", weights, tokens).flatten(2)
        return self.merge(out).view_as(x)


class _PlainTransolverBlock(nn.Module):
    def __init__(self, attention: PlainSliceAttention, width: int, ffn_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = attention
        self.ffn = nn.ModuleList([nn.Linear(width, ffn_width), nn.Linear(ffn_width, width)])

    def forward(self, v: Float[Tensor, "batch *space width"]) -> Float[Tensor, "batch *space width"]:
        v = v + self.attention(self.norms[0](v))
        return v + self.ffn[1](gelu(self.ffn[0](self.norms[1](v))))


class PlainTransolver(nn.Module):
    """v_0 = E_2 gelu(E_1 (a, p)) + c,  v <- v + A(LN v),  v <- v + F(LN v),  u = D LN v; one or two axes.

    p are the distances to a lattice of ``reference_points`` per axis. Wu et al. (2024), arXiv 2402.02366.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 32,
        n_layers: int = 4,
        n_heads: int = 4,
        n_slices: int = 16,
        ffn_width: int = 64,
        kernel: int = 3,
        reference_points: int = 8,
    ) -> None:
        super().__init__()
        self.periodic, self.reference_points = periodic, reference_points
        widths = (in_channels + reference_points**n_dims, 2 * width, width)
        self.lifting = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))
        self.placeholder = nn.Parameter(torch.rand(width) / width)
        attention = {"n_dims": n_dims, "n_heads": n_heads, "n_slices": n_slices, "kernel": kernel}
        self.blocks = nn.ModuleList(
            _PlainTransolverBlock(PlainSliceAttention(width, periodic=periodic, **attention), width, ffn_width)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, out_channels)

    @classmethod
    def with_weights_of(cls, ours: Transolver) -> PlainTransolver:
        block, reference_points = ours.blocks[0], ours._reference_points
        assert isinstance(block, Block)
        if reference_points is None:
            raise ValueError("The plain form only supports reference points.")
        n_dims = len(ours._nodes)
        plain = cls(
            in_channels=ours.get_parameter("lifting.0.weight").shape[1] - reference_points**n_dims,
            out_channels=ours.projection.out_features,
            n_dims=n_dims,
            periodic=is_periodic(ours._nodes),
            width=ours.projection.in_features,
            n_layers=len(ours.blocks),
            n_heads=block.attention.n_heads,
            n_slices=block.attention.slices.out_features,
            ffn_width=block.get_parameter("ffn.0.bias").numel(),
            kernel=1 if ours.resolution_free else block.get_parameter("attention.features.conv.weight").shape[-1],
            reference_points=reference_points,
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        here = node_positions(x.shape[2:], self.periodic, x).flatten(1).T
        lattice = node_positions((self.reference_points,) * (x.ndim - 2), False, x).flatten(1).T
        distances = (here[:, None] - lattice).square().sum(dim=-1).sqrt().T.unflatten(1, x.shape[2:])
        v = torch.cat([x, distances.expand(len(x), *distances.shape)], dim=1).movedim(1, -1)
        v = self.lifting[1](gelu(self.lifting[0](v))) + self.placeholder
        for block in self.blocks:
            v = block(v)
        return self.projection(self.norm(v)).movedim(-1, 1)
