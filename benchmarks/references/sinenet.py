"""Plain form of SineNet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool1d, avg_pool2d, gelu, interpolate, pad

from benchmarks.references.shared import CONV, holding, is_periodic, require
from neuralop_bench.models.sinenet import SineNet


class _PlainBlock(nn.Module):
    """D(f, g) = F [f, g] + W f + b,  F = gelu norm C gelu norm C."""

    def __init__(self, n_first: int, n_second: int, n_out: int, n_dims: int, mode: str) -> None:
        super().__init__()
        conv = CONV[n_dims]
        self.convs = nn.ModuleList(conv(n, n_out, 3, padding=1, padding_mode=mode) for n in (n_first + n_second, n_out))
        self.norms = nn.ModuleList(nn.GroupNorm(1, n_out) for _ in range(2))
        self.shortcut = conv(n_first, n_out, 1)

    def forward(self, first: Tensor, *second: Tensor) -> Tensor:
        h = torch.cat([first, *second], dim=1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = gelu(norm(conv(h)))
        return h + self.shortcut(first)


class PlainSineNet(nn.Module):
    """x <- x + V_w(x) with U-Nets V_w whose levels also see the wave's pooled input; one or two axes.

    ``channels`` are those of the levels, finest first. Zhang et al. (2024), arXiv 2403.19507.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        channels: Sequence[int] = (8, 13, 23, 39),
        n_waves: int = 4,
    ) -> None:
        super().__init__()
        self.periodic, width = periodic, channels[0]
        mode = "circular" if periodic else "zeros"
        steps = list(itertools.pairwise(channels))

        def wave() -> nn.ModuleDict:
            down = [_PlainBlock(a, width if level else 0, b, n_dims, mode) for level, (a, b) in enumerate(steps)]
            up = [_PlainBlock(b, a, a, n_dims, mode) for a, b in steps]
            return nn.ModuleDict({"down": nn.ModuleList(down), "up": nn.ModuleList(up)})

        self.lifting = CONV[n_dims](in_channels, width, 3, padding=1, padding_mode=mode)
        self.waves = nn.ModuleList(wave() for _ in range(n_waves))
        self.projection = CONV[n_dims](width, out_channels, 3, padding=1, padding_mode=mode)

    @classmethod
    def with_weights_of(cls, ours: SineNet) -> PlainSineNet:
        down = list(ours.waves[0].get_submodule("down").children())
        require(all(module._act is gelu for module in down), "GELU")
        width = ours.lifting.conv.out_channels
        plain = cls(
            in_channels=ours.lifting.conv.in_channels,
            out_channels=ours.projection.conv.out_channels,
            n_dims=len(ours._nodes),
            periodic=is_periodic(ours._nodes),
            channels=[width, *(block.get_parameter("shortcut.bias").numel() for block in down)],
            n_waves=len(ours.waves),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        multiple = 2 ** len(self.waves[0].get_submodule("down"))  # pyright: ignore[reportArgumentType]
        beyond = [width for n in reversed(space) for width in (0, -n % multiple)]
        v = self.lifting(pad(x, beyond, mode="circular" if self.periodic else "constant"))
        for wave in self.waves:
            v = v + self._wave(wave, v)
        return self.projection(v)[(..., *(slice(n) for n in space))]

    def _wave(self, wave: nn.Module, x: Tensor) -> Tensor:
        pool = (avg_pool1d, avg_pool2d)[x.ndim - 3]
        h, pooled, skips = x, x, []
        for level, block in enumerate(wave.get_submodule("down").children()):
            skips.append(h)
            pooled = pool(pooled, 2)
            h = block(pool(h, 2), pooled) if level else block(pooled)
        for block in reversed(list(wave.get_submodule("up").children())):
            h = block(self._doubled(h), skips.pop())
        return h

    def _doubled(self, x: Tensor) -> Tensor:
        n_dims = x.ndim - 2
        mode = "bilinear" if n_dims == 2 else "linear"
        if not self.periodic:
            return interpolate(x, scale_factor=2, mode=mode, align_corners=False)
        wide = interpolate(pad(x, (1, 1) * n_dims, mode="circular"), scale_factor=2, mode=mode, align_corners=False)
        return wide[(..., *(slice(2, -2) for _ in range(n_dims)))]
