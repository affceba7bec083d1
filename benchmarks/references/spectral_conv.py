"""Plain form of a spectral convolution."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.references.shared import holding, require
from neuralop_bench.layers.spectral_conv import SpectralConv


class PlainSpectralConv(nn.Module):
    """v_hat_o(k) = sum_i W_io(k) u_hat_i(k) for the low modes, zero for the others; one to three axes.

    With two axes, the kept modes are two corners of the half spectrum: k_1 = 0 ... K_1 - 1 and k_1 = -K_1 ... -1. With
    three they are four.
    Li et al. (2021), arXiv 2010.08895, equation 5.
    """

    def __init__(self, in_channels: int, out_channels: int, n_modes: tuple[int, ...]) -> None:
        super().__init__()
        self.n_modes = n_modes
        scale = 1 / (in_channels * out_channels)
        self.weights = nn.ParameterList(
            scale * torch.rand(in_channels, out_channels, *n_modes, dtype=torch.cfloat)
            for _ in range(2 ** (len(n_modes) - 1))
        )

    @classmethod
    def with_weights_of(cls, ours: SpectralConv) -> PlainSpectralConv:
        require(ours.factors is None, "dense weights")
        *_, in_channels, out_channels = ours.weight.shape
        return holding(cls(in_channels, out_channels, ours.n_modes), ours)

    def forward(
        self, u: Float[Tensor, "batch in_channels *space"], grid: tuple[int, ...] | None = None
    ) -> Float[Tensor, "batch out_channels *grid"]:
        grid = tuple(u.shape[2:]) if grid is None else grid
        return (self._line, self._plane, self._box)[len(grid) - 1](u, *grid)

    def _line(self, u: Tensor, n: int) -> Tensor:
        (k,) = self.n_modes
        (weight,) = self.weights
        u_hat = torch.fft.rfft(u, norm="forward")
        v_hat = u_hat.new_zeros(u.shape[0], weight.shape[1], n // 2 + 1)
        v_hat[:, :, :k] = torch.einsum("bix,iox->box", u_hat[:, :, :k], weight)
        return torch.fft.irfft(v_hat, n=n, norm="forward")

    def _plane(self, u: Tensor, n: int, m: int) -> Tensor:
        k1, k2 = self.n_modes
        low, high = self.weights
        u_hat = torch.fft.rfft2(u, norm="forward")
        v_hat = u_hat.new_zeros(u.shape[0], low.shape[1], n, m // 2 + 1)
        v_hat[:, :, :k1, :k2] = torch.einsum("bixy,ioxy->boxy", u_hat[:, :, :k1, :k2], low)
        v_hat[:, :, -k1:, :k2] = torch.einsum("bixy,ioxy->boxy", u_hat[:, :, -k1:, :k2], high)
        return torch.fft.irfft2(v_hat, s=(n, m), norm="forward")

    def _box(self, u: Tensor, *grid: int) -> Tensor:
        u_hat = torch.fft.rfftn(u, dim=(2, 3, 4), norm="forward")
        modes = [
            torch.einsum("bixyt,ioxyt->boxyt", u_hat[at], w) for at, w in zip(self._at(), self.weights, strict=True)
        ]
        v_hat = modes[0].new_zeros(*modes[0].shape[:2], *grid[:-1], grid[-1] // 2 + 1)
        for at, corner in zip(self._at(), modes, strict=True):
            v_hat[at] = corner
        return torch.fft.irfftn(v_hat, s=grid, dim=(2, 3, 4), norm="forward")

    def _at(self) -> list[tuple[slice, ...]]:
        k1, k2, k3 = self.n_modes
        ends = itertools.product((slice(k1), slice(-k1, None)), (slice(k2), slice(-k2, None)))
        return [(slice(None), slice(None), first, second, slice(k3)) for first, second in ends]
