"""Plain form of the CNO."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from benchmarks.references.shared import CONV, holding, is_periodic, require
from neuralop_bench.models.cno import CNO


class _PlainUnit(nn.Module):
    """A convolution and layer normalisation, or a convolution with a bias."""

    def __init__(self, n_in: int, n_out: int, n_dims: int, periodic: bool, norm: bool = True) -> None:
        super().__init__()
        mode = "circular" if periodic else "zeros"
        self.conv = CONV[n_dims](n_in, n_out, 3, padding=1, padding_mode=mode, bias=not norm)
        self.norm = nn.GroupNorm(1, n_out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class PlainCNO(nn.Module):
    """A U-shaped network whose activations act between two resamplings of series, as in our docstring; one or two axes.

    A periodic axis is resampled by cutting or extending its Fourier coefficients, a closed one by a sum of cosines.

    Raonic et al. (2023), arXiv 2302.01178.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 8,
        n_levels: int = 3,
        n_blocks: int = 1,
        n_neck_blocks: int = 2,
        lift_width: int = 8,
    ) -> None:
        super().__init__()
        self.periodic, self.n_levels = periodic, n_levels
        channels = [width * 2**level for level in range(n_levels + 1)]
        joined = [*(2 * n for n in channels[:-1]), channels[-1]]

        def unit(n_in: int, n_out: int, norm: bool = True) -> _PlainUnit:
            return _PlainUnit(n_in, n_out, n_dims, periodic, norm)

        self.lifting = nn.ModuleList([unit(in_channels, lift_width, False), unit(lift_width, width, False)])
        self.down = nn.ModuleList(unit(a, b) for a, b in itertools.pairwise(channels))
        self.residual = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList([unit(n, n), unit(n, n)]) for _ in range(n_neck_blocks if level == n_levels else n_blocks)
            )
            for level, n in enumerate(channels)
        )
        self.skip = nn.ModuleList(unit(n, n) for n in channels)
        self.mixing = nn.ModuleList(unit(n, n) for n in joined[1:])
        self.up = nn.ModuleList(unit(n, a) for n, a in zip(joined[1:], channels, strict=False))
        self.projection = nn.ModuleList([unit(2 * width, lift_width, False), unit(lift_width, out_channels, False)])

    @classmethod
    def with_weights_of(cls, ours: CNO) -> PlainCNO:
        require(ours._act is gelu and ours._exact_shifts, "GELU and exact shifts")
        lifting, projection = ours.get_parameter("lifting.1.conv.conv.weight"), ours.projection[1]
        plain = cls(
            in_channels=ours.get_parameter("lifting.0.conv.conv.weight").shape[1],
            out_channels=projection.get_parameter("conv.conv.weight").shape[0],
            n_dims=len(ours._nodes),
            periodic=is_periodic(ours._nodes),
            width=lifting.shape[0],
            n_levels=len(ours.down),
            n_blocks=len(list(ours.residual[0].children())),
            n_neck_blocks=len(list(ours.residual[-1].children())),
            lift_width=lifting.shape[1],
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        end = 0 if self.periodic else 1
        shapes = [[(n - end) // 2**level + end for n in x.shape[2:]] for level in range(self.n_levels + 1)]

        def act(v: Tensor, level: int, to: int) -> Tensor:
            fine = [2 * (n - end) + end for n in shapes[min(level, to)]]
            if self.periodic:
                fine = [max(n, finest) for n, finest in zip(fine, shapes[0], strict=True)]
            return self._resampled(gelu(self._resampled(v, fine)), shapes[to])

        v = self.lifting[1](act(self.lifting[0](x), 0, 0))
        skipped = []
        for level in range(self.n_levels + 1):
            s = v
            for first, second in self.residual[level]:
                s = s + second(act(first(s), level, level))
            skipped.append(act(self.skip[level](s), level, level))
            if level < self.n_levels:
                v = act(self.down[level](v), level, level + 1)
        y = skipped.pop()
        for level in reversed(range(self.n_levels)):
            y = act(self.mixing[level](y), level + 1, level + 1)
            y = torch.cat([act(self.up[level](y), level + 1, level), skipped.pop()], dim=1)
        return self.projection[1](act(self.projection[0](y), 0, 0))

    def _resampled(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        if self.periodic:
            for axis, n in enumerate(shape, start=2):
                n_waves = (min(x.shape[axis], n) + 1) // 2
                coefficients = torch.fft.rfft(x, dim=axis, norm="forward").narrow(axis, 0, n_waves)
                x = torch.fft.irfft(coefficients, n=n, dim=axis, norm="forward")
            return x
        first, *others = (self._cosine_matrix(n, m, x) for n, m in zip(x.shape[2:], shape, strict=True))
        x = torch.einsum("bcn...,mn->bcm...", x, first)
        return torch.einsum("bcmn,kn->bcmk", x, others[0]) if others else x

    @staticmethod
    def _cosine_matrix(n: int, m: int, like: Tensor) -> Float[Tensor, "m n"]:
        """Coefficients by the trapezoidal rule, then their series at the other points."""
        k, ends = torch.arange(min(n, m) - 1, device=like.device), torch.ones(n, device=like.device, dtype=like.dtype)
        ends[0] = ends[-1] = 0.5
        to, back = (
            torch.cos(math.pi * torch.outer(torch.arange(points, device=like.device), k).to(like.dtype) / (points - 1))
            for points in (n, m)
        )
        scale = torch.where(k == 0, 1, 2).to(like.dtype) / (n - 1)
        return (back * scale) @ (to.T * ends)
