"""Complex weights kept as the factors of a tensor decomposition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from scipy.optimize import root_scalar
from torch import Tensor, nn


class _Factors(nn.Module):
    """A module whose parameters are all complex, kept as pairs of real numbers along the first axis."""

    @property
    def complex_pairs(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.named_parameters(recurse=False))

    def _add(self, name: str, shape: Sequence[int], variance: float) -> None:
        """Add a parameter with independent entries z of mean 0 and E|z|^2 = variance."""
        pairs = torch.empty(2, *shape)
        nn.init.normal_(pairs, std=math.sqrt(variance / 2))
        self.register_parameter(name, nn.Parameter(pairs))

    def _complex(self) -> list[Tensor]:
        return [torch.complex(*pairs) for pairs in self.parameters()]


class Tucker(_Factors):
    """A complex tensor in Tucker form: a core G, and a matrix A for every axis.

        W[i_1 ... i_N] = sum_j G[j_1 ... j_N] A_1[i_1, j_1] ... A_N[i_N, j_N],    j_a < r_a

    ``forward`` takes no arguments and returns W. Initially the entries of W have mean 0 and E|W|^2 = ``variance``:
    those of G have the variance of W, those of A_a have variance 1/r_a.

    Args:
        shape: of W.
        ranks: r_a, one for each axis (see ``tucker_ranks``).
        variance: E|W|^2 of the initial entries.

    Shapes: nothing to [real and imaginary part, *shape].

    Reference: Kolda & Bader (2009), Tensor Decompositions and Applications, section 4.

    >>> Tucker((6, 5, 4), ranks=(3, 2, 2), variance=1.0)().shape
    torch.Size([2, 6, 5, 4])
    """

    def __init__(self, shape: Sequence[int], ranks: Sequence[int], variance: float) -> None:
        super().__init__()
        self._add("core", ranks, variance)
        for axis, (n, r) in enumerate(zip(shape, ranks, strict=True)):
            self._add(f"factor_{axis}", (n, r), 1 / r)

    def forward(self) -> Tensor:
        weight, *factors = self._complex()
        for factor in factors:
            # The first axis is contracted and the new one comes last, so the order is the old one after all axes.
            weight = torch.einsum("j...,ij->...i", weight, factor)
        return torch.stack([weight.real, weight.imag])


class CP(_Factors):
    """A complex tensor as a sum of R products of vectors (canonical polyadic form).

        W[i_1 ... i_N] = sum_j A_1[i_1, j] ... A_N[i_N, j],    j < R

    ``forward`` takes no arguments and returns W. Initially the entries of W have mean 0 and E|W|^2 = ``variance``, and
    all factors have the same variance.

    Args:
        shape: of W, at least two axes.
        rank: R (see ``cp_rank``).
        variance: E|W|^2 of the initial entries.

    Shapes: nothing to [real and imaginary part, *shape].

    Reference: Kolda & Bader (2009), Tensor Decompositions and Applications, section 3.

    >>> CP((6, 5, 4), rank=3, variance=1.0)().shape
    torch.Size([2, 6, 5, 4])
    """

    def __init__(self, shape: Sequence[int], rank: int, variance: float) -> None:
        super().__init__()
        self.shape = tuple(shape)
        for axis, n in enumerate(shape):
            self._add(f"factor_{axis}", (n, rank), (variance / rank) ** (1 / len(self.shape)))

    def forward(self) -> Tensor:
        factors = self._complex()
        half = len(factors) // 2
        # Two matrices [entries, R], and one product that sums over R. No tensor holds the products of all vectors.
        rows, columns = reduce(_khatri_rao, factors[:half]), reduce(_khatri_rao, factors[half:])
        weight = (rows @ columns.T).view(self.shape)
        return torch.stack([weight.real, weight.imag])


def _khatri_rao(a: Tensor, b: Tensor) -> Tensor:
    return (a[:, None] * b).flatten(0, 1)


def tucker_ranks(shape: Sequence[int], fraction: float) -> tuple[int, ...]:
    """Ranks of a Tucker form with about ``fraction`` of the dense tensor's parameters, counting core and factors.

    The ranks are the same share c of every axis, rounded to the nearest whole number and at least 1:

        r_a = max(1, round(c n_a)),    c^N n_1 ... n_N + c (n_1^2 + ... + n_N^2) = fraction n_1 ... n_N

    c is below 1 even for a fraction of 1, since the factors count too. The rule is that of tensorly, and so of the
    neuralop package.

    Raises:
        ValueError: the fraction is 0 or less, or above 1.

    >>> tucker_ranks((24, 12, 32, 32), 0.1)
    (13, 7, 18, 18)
    """
    _require_fraction(fraction)
    size, squares = math.prod(shape), sum(n * n for n in shape)
    share = root_scalar(lambda c: c ** len(shape) * size + c * squares - fraction * size, bracket=(0, 1)).root
    return tuple(max(1, round(share * n)) for n in shape)


def cp_rank(shape: Sequence[int], fraction: float) -> int:
    """Rank of a CP form with about ``fraction`` of the dense tensor's parameters.

        R = max(1, round(fraction n_1 ... n_N / (n_1 + ... + n_N)))

    Raises:
        ValueError: the fraction is 0 or less, or above 1.

    >>> cp_rank((24, 12, 32, 32), 0.1)
    295
    """
    _require_fraction(fraction)
    return max(1, round(fraction * math.prod(shape) / sum(shape)))


def _require_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise ValueError(
            f"The rank of factorised weights is a fraction of the dense weights' size, above 0 and at most 1, got "
            f"{fraction}. Set model.rank, e.g. to 0.1, or model.factorization=none."
        )
