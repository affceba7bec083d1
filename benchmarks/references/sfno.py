"""Plain form of the spatiotemporal FNO."""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from benchmarks.references.shared import CONV, holding, is_periodic, node_positions, require
from benchmarks.references.spectral_conv import PlainSpectralConv
from neuralop_bench.models.sfno import SFNO


class PlainSFNO(nn.Module):
    """z = P norm(a + E),  v = gelu(z(T) + M K z),  v <- gelu(W v + b + M K v),  u = a(T) + K [0, a(T), R v] + s.

    Time is the last axis. Periodic axes; one field, whose frames are the channels of the input; as many latent steps as
    given frames or more. Cao et al. (2024), arXiv 2405.17211.
    """

    def __init__(
        self,
        *,
        n_dims: int,
        history: int,
        n_steps: int,
        n_modes: tuple[int, ...] = (6, 6, 5),
        width: int = 12,
        n_layers: int = 4,
        hidden_width: int = 32,
        latent_steps: int = 10,
    ) -> None:
        super().__init__()
        conv = CONV[n_dims + 1]
        self.n_modes, self.n_steps, self.latent_steps = n_modes, n_steps, latent_steps
        self.times = max(history, latent_steps)
        self.encoding = conv(n_dims + 1 + math.prod(k // 2 or 1 for k in n_modes), width, 1)
        self.norm = nn.GroupNorm(1, width)
        self.lifting = conv(width, width, 1)
        self.spectral = nn.ModuleList(PlainSpectralConv(width, width, n_modes) for _ in range(n_layers))
        self.mixing = nn.ModuleList(
            nn.ModuleList([conv(width, hidden_width, 1), conv(hidden_width, width, 1)]) for _ in range(n_layers)
        )
        self.pointwise = nn.ModuleList(conv(width, width, 1) for _ in range(n_layers - 1))
        self.projection = conv(width, 1, 1)
        self.out = PlainSpectralConv(1, 1, n_modes)
        self.source = nn.Parameter(torch.zeros(2, *(2 * k for k in n_modes[:-1]), n_modes[-1], 1))

    @classmethod
    def with_weights_of(cls, ours: SFNO) -> PlainSFNO:
        require(ours._activation is gelu and ours.encoding is not None, "GELU and the learned encoding")
        require(is_periodic(ours._nodes), "periodic axes")
        require(ours._n_fields == 1, "one field")
        plain = cls(
            n_dims=len(ours._nodes),
            history=ours._history,
            n_steps=ours.n_steps,
            n_modes=ours.out.n_modes,
            width=ours.lifting.out_features,
            n_layers=len(ours.spectral),
            hidden_width=ours.get_parameter("mixing.0.0.bias").numel(),
            latent_steps=ours._latent_steps,
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch frame *space"]) -> Float[Tensor, "batch step *space"]:
        frames = x.movedim(1, -1)[:, None]
        last = frames[..., -1:]
        frames = torch.cat([frames, last.expand(*last.shape[:-1], self.times - frames.shape[-1])], dim=-1)
        z = self.lifting(self.norm(frames + self.encoding(self._features(x))))
        latent = (*x.shape[2:], self.latent_steps)
        v = gelu(z[..., -1:] + self._mixed(0, z, latent))
        for layer, pointwise in enumerate(self.pointwise, start=1):
            v = gelu(pointwise(v) + self._mixed(layer, v, latent))
        v = self.projection(v)
        line = torch.cat([v[..., -1:], torch.zeros_like(v[..., 1:]), last, v[..., :-1]], dim=-1)
        finer = math.ceil(self.n_modes[-1] / self.n_steps)
        grid = (*x.shape[2:], 2 * self.n_steps * finer)
        function = self.out(line, grid) + self._source(grid)
        steps = function[..., ::finer].roll(-1, -1)[..., self.n_steps :]
        return (last + steps)[:, 0].movedim(-1, 1)

    def _mixed(self, layer: int, v: Tensor, grid: tuple[int, ...]) -> Tensor:
        first, second = self.mixing[layer].children()
        return second(gelu(first(self.spectral[layer](v, grid))))

    def _features(self, x: Tensor) -> Float[Tensor, "one feature *space time"]:
        """Coordinates and products of cos(pi x), sin(2 pi x), cos(3 pi x), ... over their numbers."""
        time = torch.arange(1, self.times + 1, dtype=x.dtype, device=x.device) / 100
        positions = node_positions(x.shape[2:], True, x)[..., None].expand(-1, *x.shape[2:], self.times)
        coordinates = [*positions, time.expand(positions.shape[1:])]
        waves = [
            [(torch.sin if i % 2 == 0 else torch.cos)(math.pi * i * x) / i for i in range(1, (k // 2 or 1) + 1)]
            for x, k in zip(coordinates, self.n_modes, strict=True)
        ]
        products = [math.prod(factors) for factors in itertools.product(*waves)]
        return torch.stack([*coordinates, *products])[None]  # pyright: ignore[reportArgumentType]

    def _source(self, grid: tuple[int, ...]) -> Tensor:
        """The field whose low modes are the learned coefficients."""
        given = torch.complex(*self.source[..., 0]) / math.sqrt(self.source.numel())
        modes = given.new_zeros(*grid[:-1], grid[-1] // 2 + 1)
        kept = [torch.arange(-k, k) for k in self.n_modes[:-1]] + [torch.arange(self.n_modes[-1])]
        at = torch.meshgrid(*kept, indexing="ij")
        modes[at] = given[at]
        return torch.fft.irfftn(modes, s=grid, norm="forward")
