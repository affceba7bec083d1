"""Plain form of DPOT."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from benchmarks.references.shared import CONV, holding, is_periodic, with_positions
from neuralop_bench.models.dpot import DPOT


class _PlainFourierPerceptron(nn.Module):
    """F^-1 f(F v) with one network f for the coefficients of all wavenumbers, in complex numbers."""

    def __init__(self, channels: int, n_heads: int) -> None:
        super().__init__()
        size = channels // n_heads
        self.weight, self.out_weight = (nn.Parameter(torch.rand(2, n_heads, size, size)) for _ in range(2))
        self.bias, self.out_bias = (nn.Parameter(torch.rand(2, n_heads, size)) for _ in range(2))

    def forward(self, v: Float[Tensor, "batch channel *space"]) -> Tensor:
        space, axes = v.shape[2:], tuple(range(2, v.ndim))
        weight, bias, out_weight, out_bias = (
            torch.complex(*pair) for pair in (self.weight, self.bias, self.out_weight, self.out_bias)
        )
        ones = (1,) * len(space)
        z = torch.fft.rfftn(v, dim=axes, norm="ortho").unflatten(1, weight.shape[:2])
        z = torch.einsum("bhi...,hio->bho...", z, weight) + bias.view(*bias.shape, *ones)
        z = torch.complex(gelu(z.real), gelu(z.imag))
        z = torch.einsum("bhi...,hio->bho...", z, out_weight) + out_bias.view(*bias.shape, *ones)
        z = z.flatten(1, 2)
        for axis in axes[:-1]:
            z = torch.fft.ifft(z, dim=axis, norm="ortho")
        return torch.fft.irfft(z, n=space[-1], norm="ortho")


class _PlainDPOTBlock(nn.Module):
    def __init__(self, width: int, n_dims: int, n_heads: int, mlp_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))
        self.mixer = _PlainFourierPerceptron(width, n_heads)
        self.network = nn.ModuleList([CONV[n_dims](width, mlp_width, 1), CONV[n_dims](mlp_width, width, 1)])

    def forward(self, v: Tensor) -> Tensor:
        w = self.norms[0](v)
        w = self.norms[1](w + self.mixer(w))
        return v + self.network[1](gelu(self.network[0](w)))


class PlainDPOT(nn.Module):
    """Every frame is embedded by patches, frames are summed with a matrix for each; one or two axes.

    Hao et al. (2024), arXiv 2403.03542.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        space: Sequence[int],
        periodic: bool,
        n_frames: int = 1,
        n_fields: int = 1,
        patch: int = 4,
        width: int = 96,
        n_layers: int = 4,
        n_heads: int = 4,
        mlp_width: int = 96,
        embed_width: int = 32,
        out_width: int = 32,
    ) -> None:
        super().__init__()
        n_dims = len(space)
        conv, up = CONV[n_dims], (nn.ConvTranspose1d, nn.ConvTranspose2d)[n_dims - 1]
        self.periodic, self.patch, self.n_fields = periodic, patch, n_fields
        several = n_frames > 1
        n_given = in_channels - (n_frames - 1) * n_fields + n_dims + several
        self.embedding = conv(n_given, embed_width, patch, stride=patch)
        self.to_width = conv(embed_width, width, 1)
        self.places = nn.Parameter(torch.zeros(width, *(-(-n // patch) for n in space)))
        self.by_frame = nn.Parameter(torch.randn(n_frames, width, width))
        self.frequencies = nn.Parameter(torch.ones(width)) if several else None
        self.blocks = nn.ModuleList(_PlainDPOTBlock(width, n_dims, n_heads, mlp_width) for _ in range(n_layers))
        self.to_points = up(width, out_width, patch, stride=patch)
        self.projection = nn.ModuleList([conv(out_width, out_width, 1), conv(out_width, out_channels, 1)])

    @classmethod
    def with_weights_of(cls, ours: DPOT) -> PlainDPOT:
        n_dims, n_fields = len(ours._nodes), ours._parts[0]
        n_frames, width, _ = ours.by_frame.shape
        latent = ours.places.shape[1:]
        plain = cls(
            in_channels=n_frames * n_fields + ours._parts[1] - n_dims,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            space=[n * ours._patch for n in latent],
            periodic=is_periodic(ours._nodes),
            n_frames=n_frames,
            n_fields=n_fields,
            patch=ours._patch,
            width=width,
            n_layers=len(ours.blocks),
            n_heads=ours.get_parameter("blocks.0.mixer.weight").shape[1],
            mlp_width=ours.get_parameter("blocks.0.network.0.bias").numel(),
            embed_width=ours.to_width.in_features,
            out_width=ours.get_parameter("to_points.bias").numel(),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space, n_frames = x.shape[2:], len(self.by_frame)
        beyond = [side for n in reversed(space) for side in (0, -n % self.patch)]
        x = pad(with_positions(x, self.periodic), beyond, mode="circular" if self.periodic else "constant")
        frames, others = x[:, : n_frames * self.n_fields], x[:, n_frames * self.n_fields :]
        embedded = []
        for frame, tau in zip(frames.chunk(n_frames, dim=1), torch.linspace(0, 1, n_frames), strict=True):
            time = [torch.full_like(x[:, :1], float(tau))] if self.frequencies is not None else []
            z = self.to_width(gelu(self.embedding(torch.cat([frame, others, *time], dim=1)))) + self.places
            if self.frequencies is not None:
                z = z * (self.frequencies * float(tau)).cos().view(-1, *(1,) * len(space))
            embedded.append(z)
        v = torch.einsum("tij,tbi...->bj...", self.by_frame, torch.stack(embedded))
        for block in self.blocks:
            v = block(v)
        v = gelu(self.to_points(v)[(..., *(slice(n) for n in space))])
        return self.projection[1](gelu(self.projection[0](v)))
