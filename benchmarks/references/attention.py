"""Plain form of linear attention, and softmax attention."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from benchmarks.references.shared import holding, require
from neuralop_bench.layers.attention import LinearAttention


class _HeadNorm(nn.Module):
    """Layer normalisation over the features of a head, with a scale and a shift for each head."""

    def __init__(self, n_heads: int, n_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_heads, n_features))
        self.bias = nn.Parameter(torch.zeros(n_heads, n_features))

    def forward(self, x: Float[Tensor, "batch n head feature"]) -> Float[Tensor, "batch n head feature"]:
        return layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class PlainGalerkinAttention(nn.Module):
    """z = Q (K'^T V' / n) in every head, with the points' coordinates appended to Q, K' and V'; then heads are merged.

    Cao (2021), arXiv 2105.14995.
    """

    def __init__(self, *, width: int, n_heads: int, n_dims: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norms = nn.ModuleList(_HeadNorm(n_heads, width // n_heads) for _ in range(2))
        self.merge = nn.Linear(width + n_heads * n_dims, width)

    @classmethod
    def with_weights_of(cls, ours: LinearAttention) -> PlainGalerkinAttention:
        require(ours.kind == "galerkin", "attention of Galerkin type")
        return holding(cls(**_sizes(ours)), ours)

    def forward(self, x: Float[Tensor, "batch n width"], positions: Float[Tensor, "n axis"]) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.n_heads, -1)) for linear in (self.query, self.key, self.value)
        )
        key, value = self.norms[0](key), self.norms[1](value)
        joined = positions[:, None].expand(*query.shape[:3], -1)
        query, key, value = (torch.cat([joined, factor], dim=-1) for factor in (query, key, value))
        mean = torch.einsum("bnhd,bnhe->bhde", key, value) / x.shape[1]
        return self.merge(torch.einsum("bnhd,bhde->bnhe", query, mean).flatten(2))


class SoftmaxAttention(nn.Module):
    """z = softmax(Q K^T / sqrt(d)) V, with coordinates appended and heads merged as in the attention above.

    The cost is quadratic in the number of points.

    Vaswani et al. (2017), arXiv 1706.03762.
    """

    def __init__(self, *, width: int, n_heads: int, n_dims: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.merge = nn.Linear(width + n_heads * n_dims, width)

    @classmethod
    def with_weights_of(cls, ours: LinearAttention) -> SoftmaxAttention:
        """Make one with the affine maps of ``ours``. The normalisation of ``ours`` has no counterpart here."""
        affine = nn.ModuleDict({name: ours.get_submodule(name) for name in ("query", "key", "value", "merge")})
        return holding(cls(**_sizes(ours)), affine)

    def forward(self, x: Float[Tensor, "batch n width"], positions: Float[Tensor, "n axis"]) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        joined = positions.expand(*query.shape[:2], *positions.shape)
        query, key, value = (torch.cat([joined, factor], dim=-1) for factor in (query, key, value))
        return self.merge(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def _sizes(ours: LinearAttention) -> dict[str, int]:
    width, merged = ours.merge.out_features, ours.merge.in_features
    return {"width": width, "n_heads": ours.n_heads, "n_dims": (merged - width) // ours.n_heads}
