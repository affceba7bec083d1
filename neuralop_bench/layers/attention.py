"""Attention without softmax, at a cost linear in the number of points."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from neuralop_bench.layers.options import require_known
from neuralop_bench.layers.precision import unrounded, widened

Kind = Literal["galerkin", "fourier"]


class LinearAttention(nn.Module):
    """Attention of Galerkin or Fourier type. It is made of matrix products, so the sum over the points can come first.

        galerkin:  z = Q (K'^T V' / n)
        fourier:   z = (Q' K'^T / (n sqrt(d))) V = Q' (K'^T V / (n sqrt(d)))

    Q, K and V are affine in the features and split into heads. A prime marks layer normalisation over the features of a
    head, with a scale and a shift for each head. The coordinates of the points are then appended to Q, K and V of every
    head, so d is width / n_heads + n_dims. A last affine map merges the heads.

    K^T V / n is a mean over the points, which approximates an integral: the map depends neither on their number nor on
    their order. Both types cost O(n d^2); the n x n matrix of the Fourier type is never formed. Under autocast, sums
    over the points and everything computed from them stay in float32.

    The published code drops half of the entries of K^T V / n at random, even in evaluation (it calls ``dropout``
    without its ``training`` flag). There is no dropout here.

    Args:
        width: features of a point.
        n_heads: heads, a divisor of ``width``.
        n_dims: coordinates of a point.
        kind: ``galerkin`` or ``fourier``.
        norm: normalise the two factors marked by a prime.
        norm_eps: added to the variances there.
        init_gain: gain of the Xavier-uniform weights of Q, K and V; their biases start at 0.
        init_diagonal: multiple of the identity added to those weights; 0 adds nothing.

    Shapes: [batch, n, width] and coordinates [n, n_dims] to [batch, n, width].

    Raises:
        ValueError: an unknown kind; a width that isn't a multiple of ``n_heads``; a norm over a single feature, which
            would always give zero.

    Reference: Cao (2021), Choose a Transformer: Fourier or Galerkin, arXiv 2105.14995. The coordinates in every
    head, the square root and the initialisation are those of the published code (scaomath/galerkin-transformer).

    >>> attention = LinearAttention(width=8, n_heads=2, n_dims=1)
    >>> attention(torch.ones(3, 5, 8), torch.linspace(0, 1, 5)[:, None]).shape
    torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        *,
        width: int,
        n_heads: int,
        n_dims: int,
        kind: Kind = "galerkin",
        norm: bool = True,
        norm_eps: float = 1e-5,
        init_gain: float = 1e-2,
        init_diagonal: float = 1e-2,
    ) -> None:
        super().__init__()
        require_known("Linear attention", "attention", kind, get_args(Kind))
        if n_heads < 1 or width % n_heads:
            raise ValueError(
                f"Attention splits width={width} into n_heads={n_heads} equal parts, but width isn't a multiple of "
                "n_heads. Change model.width or model.n_heads."
            )
        n_features = width // n_heads
        if norm and n_features < 2:
            raise ValueError(
                f"Attention normalises the features of each head, but width={width} with n_heads={n_heads} leaves "
                f"{n_features} per head, which would always be zero. Raise model.width or lower model.n_heads."
            )
        self.kind = kind
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        for linear in (self.query, self.key, self.value):
            nn.init.xavier_uniform_(linear.weight, gain=init_gain)
            nn.init.zeros_(linear.bias)
            with torch.no_grad():
                linear.weight.diagonal().add_(init_diagonal)
        self.norms = nn.ModuleList(HeadNorm(n_heads, n_features, norm_eps) if norm else nn.Identity() for _ in range(2))
        self.merge = nn.Linear(n_heads * (n_features + n_dims), width)

    def forward(
        self, x: Float[Tensor, "batch n width"], positions: Float[Tensor, "n n_dims"]
    ) -> Float[Tensor, "batch n width"]:
        return self._galerkin(x, positions) if self.kind == "galerkin" else self._fourier(x, positions)

    def _galerkin(self, x: Tensor, positions: Tensor) -> Tensor:
        """Q is affine in x, and so is the map that merges the heads. Once the means are known, one matrix leads from x
        to z, the same for all points of a sample. Q and the outputs of the heads are never computed."""
        means = self._means(x, positions)
        n_dims = positions.shape[1]
        with unrounded(x):
            merge = self.merge.weight.unflatten(1, (self.n_heads, -1)).permute(1, 2, 0)  # [head, feature, width]
            merged = means @ merge  # [batch, head, feature, width], of a feature of Q
            of_positions, of_query = merged.split([n_dims, merged.shape[2] - n_dims], dim=2)
            of_query = of_query.flatten(1, 2)
            matrix = self.query.weight.T @ of_query
            constant = self.query.bias @ of_query + self.merge.bias
            of_points = torch.baddbmm(
                constant[:, None], positions.to(means.dtype).expand(len(x), -1, -1), of_positions.sum(1)
            )
        return torch.baddbmm(of_points, x, matrix)

    def _means(self, x: Tensor, positions: Tensor) -> Float[Tensor, "batch head feature feature"]:
        """K'^T V' / n of every head, coordinates first.

        The scales and shifts of K' and V' are applied to the means, which are few, instead of to all points.
        """
        weight = torch.cat([self.key.weight, self.value.weight])
        key_value = nn.functional.linear(x, weight, torch.cat([self.key.bias, self.value.bias]))
        with unrounded(x):
            return self._means_of(widened(key_value), positions)

    def _means_of(self, key_value: Tensor, positions: Tensor) -> Float[Tensor, "batch head feature feature"]:
        n, n_batch = len(positions), len(key_value)
        key_value = key_value.unflatten(2, (2 * self.n_heads, -1))
        norms = [norm for norm in self.norms if isinstance(norm, HeadNorm)]
        if norms:
            key_value = nn.functional.layer_norm(key_value, key_value.shape[-1:], eps=norms[0].eps)
        ones = torch.cat([positions.new_ones(n, 1), positions], dim=1).to(key_value.dtype)
        # Means of the products of (1, coordinates) with themselves and with K and V, and of K with V.
        own = (ones.T @ ones / n).expand(n_batch, self.n_heads, -1, -1)
        mixed = (ones.T / n).expand(n_batch, -1, -1) @ key_value.flatten(2)
        of_key, of_value = mixed.unflatten(2, (2, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        # One product per head: a head is a strided view, and a single product over all heads would copy it.
        keys, values = key_value.unflatten(2, (2, -1)).unbind(2)
        pairs = zip(keys.unbind(2), values.unbind(2), strict=True)
        products = torch.stack([key.mT @ value / n for key, value in pairs], dim=1)
        if norms:
            key_norm, value_norm = norms
            of_key, of_value, products = (
                of_key * key_norm.weight + own[..., :1] * key_norm.bias,
                of_value * value_norm.weight + own[..., :1] * value_norm.bias,
                key_norm.weight.mT * products * value_norm.weight
                + key_norm.bias.mT * (of_value[..., :1, :] * value_norm.weight)
                + (of_key[..., :1, :] * key_norm.weight).mT * value_norm.bias
                + key_norm.bias.mT * value_norm.bias,
            )
        above = torch.cat([own[..., 1:, 1:], of_value[..., 1:, :]], dim=-1)
        below = torch.cat([of_key[..., 1:, :].mT, products], dim=-1)
        return torch.cat([above, below], dim=-2)

    def _fourier(self, x: Tensor, positions: Tensor) -> Tensor:
        query, key, value = (
            widened(linear(x)).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for linear in (self.query, self.key, self.value)
        )
        with unrounded(x):
            query, key = (norm(factor) for norm, factor in zip(self.norms, (query, key), strict=True))
            joined = positions.to(query.dtype).expand(*query.shape[:2], *positions.shape)
            query, key, value = (torch.cat([joined, factor], dim=-1) for factor in (query, key, value))
            n, n_features = query.shape[-2:]
            mean = key.transpose(-2, -1) @ value / (n * math.sqrt(n_features))
            product = query @ mean
        return self.merge(product.transpose(1, 2).flatten(2))


class HeadNorm(nn.Module):
    """Layer normalisation over the features of each head, with a scale and a shift for each head.

    Shapes: [batch, n_heads, n, n_features] to the same.
    """

    def __init__(self, n_heads: int, n_features: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(n_heads, 1, n_features))
        self.bias = nn.Parameter(torch.zeros(n_heads, 1, n_features))

    def forward(self, x: Float[Tensor, "batch n_heads n n_features"]) -> Float[Tensor, "batch n_heads n n_features"]:
        return torch.addcmul(self.bias, nn.functional.layer_norm(x, x.shape[-1:], eps=self.eps), self.weight)
