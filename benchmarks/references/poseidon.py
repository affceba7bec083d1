"""Plain form of Poseidon."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from benchmarks.references.convnext_unet import PlainConvNeXt
from benchmarks.references.shared import holding, is_periodic, require
from neuralop_bench.models.poseidon import Poseidon, WindowAttention


class _PlainWindowAttention(nn.Module):
    """Attention in windows of a field that is rolled; where an axis doesn't wrap around, what isn't joined is masked.

    Liu et al. (2022), arXiv 2111.09883. The number of tokens is a multiple of the window.
    """

    def __init__(self, channels: int, n_heads: int, size: int, shift: int, periodic: bool, bias_width: int) -> None:
        super().__init__()
        self.n_heads, self.size, self.shift, self.periodic = n_heads, size, shift, periodic
        self.query, self.value, self.merge = (nn.Linear(channels, channels) for _ in range(3))
        self.key = nn.Linear(channels, channels, bias=False)
        self.temperature = nn.Parameter(torch.ones(n_heads, 1, 1))
        self.beta = nn.Sequential(nn.Linear(2, bias_width), nn.ReLU(), nn.Linear(bias_width, n_heads, bias=False))

    def _windows(self, x: Tensor) -> Tensor:
        w = self.size
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        return x.unflatten(2, (-1, w)).unflatten(1, (-1, w)).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def forward(self, x: Float[Tensor, "batch n m channels"]) -> Tensor:
        w, (n, m) = self.size, x.shape[1:3]
        tokens = self._windows(x)
        query, key, value = (
            linear(tokens).unflatten(-1, (self.n_heads, -1)).transpose(2, 3)
            for linear in (self.query, self.key, self.value)
        )
        cosine = (query / query.norm(dim=-1, keepdim=True)) @ (key / key.norm(dim=-1, keepdim=True)).mT
        scores = cosine * self.temperature.clamp(max=math.log(100.0)).exp()
        places = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij"), -1).flatten(0, 1)
        steps = (places[:, None] - places[None]).to(x) * 8 / max(1, w - 1)
        scores = scores + 16 * self.beta(steps.sign() * torch.log2(1 + steps.abs()) / 3).sigmoid().movedim(-1, 0)
        if self.shift and not self.periodic:
            parts = []  # the parts of an axis that are neighbours before it is rolled
            for length in (n, m):
                part = torch.zeros(length, device=x.device)
                part[: self.shift] = 1
                parts.append(part)
            label = (2 * parts[0][:, None] + parts[1])[None, ..., None]
            of_window = self._windows(label)[0, ..., 0]
            apart = of_window[:, :, None] != of_window[:, None, :]
            scores = scores.masked_fill(apart[:, None], -math.inf)
        z = self.merge((scores.softmax(-1) @ value).transpose(2, 3).flatten(3))
        z = z.unflatten(2, (w, w)).unflatten(1, (n // w, m // w)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return torch.roll(z, (self.shift, self.shift), (1, 2)) if self.shift else z


class _PlainSwinLayer(nn.Module):
    def __init__(self, channels: int, attention: nn.Module, mlp_ratio: int) -> None:
        super().__init__()
        self.attention = attention
        hidden = mlp_ratio * channels
        self.network = nn.ModuleList([nn.Linear(channels, hidden), nn.Linear(hidden, channels)])
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norms[0](self.attention(x))
        return x + self.norms[1](self.network[1](gelu(self.network[0](x))))


class _PlainDown(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[:, i::2, j::2] for i in range(2) for j in range(2)]
        return self.norm(self.linear(torch.cat(corners, dim=-1)))


class _PlainUp(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 2 * channels, bias=False)
        self.norm = nn.LayerNorm(channels // 2)
        self.mix = nn.Linear(channels // 2, channels // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        n, m = x.shape[1:3]
        out = x.new_empty(len(x), 2 * n, 2 * m, x.shape[-1] // 2)
        for corner, part in enumerate(self.linear(x).chunk(4, dim=-1)):
            out[:, corner // 2 :: 2, corner % 2 :: 2] = part
        return self.mix(self.norm(out))


class PlainPoseidon(nn.Module):
    """Shifted windows on a pyramid of tokens, ConvNeXt blocks on the shortcuts; two axes, square grids.

    Herde et al. (2024), arXiv 2405.19101. The tokens of a stage are a multiple of the window, or at most one window.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        tokens: int,
        periodic: bool,
        patch: int = 4,
        width: int = 24,
        n_stages: int = 3,
        depth: int = 2,
        n_heads: int = 3,
        window: int = 8,
        n_blocks: int = 1,
        kernel: int = 7,
        mlp_ratio: int = 4,
        bias_width: int = 64,
    ) -> None:
        super().__init__()
        edges = "circular" if periodic else "zeros"
        self.periodic, self.multiple = periodic, patch * 2 ** (n_stages - 1)
        channels = [width * 2**stage for stage in range(n_stages)]

        def layers(stage: int, order: Sequence[int]) -> nn.Sequential:
            n = tokens // 2**stage
            size, shift = min(n, window), window // 2 if n > window else 0
            require(n % size == 0, "windows that fill every axis")
            attentions = (
                _PlainWindowAttention(
                    channels[stage], n_heads * 2**stage, size, shift if i % 2 else 0, periodic, bias_width
                )
                for i in order
            )
            return nn.Sequential(*(_PlainSwinLayer(channels[stage], a, mlp_ratio) for a in attentions))

        self.embedding = nn.Conv2d(in_channels, width, patch, stride=patch)
        self.norm = nn.LayerNorm(width)
        self.encoder = nn.ModuleList(layers(stage, range(depth)) for stage in range(n_stages))
        self.down = nn.ModuleList(_PlainDown(n) for n in channels[:-1])
        self.skips = nn.ModuleList(
            nn.Sequential(*(PlainConvNeXt(n, 2, kernel, edges, eps=1e-5) for _ in range(n_blocks)))
            for n in channels[:-1]
        )
        self.decoder = nn.ModuleList(layers(stage, range(depth)[::-1]) for stage in range(n_stages))
        self.up = nn.ModuleList(_PlainUp(n) for n in channels[1:])
        self.recovery = nn.ConvTranspose2d(width, out_channels, patch, stride=patch)
        self.projection = nn.Conv2d(out_channels, out_channels, 5, padding=2, padding_mode=edges, bias=False)

    @classmethod
    def with_weights_of(cls, ours: Poseidon) -> PlainPoseidon:
        require(len(ours._nodes) == 2, "two axes")
        attentions = [part for part in ours.encoder.modules() if isinstance(part, WindowAttention)]
        n_heads, width = attentions[0].n_heads, ours.embedding.out_channels
        counts = attentions[0].windows._counts
        require(len(set(counts)) == 1, "square grids")
        plain = cls(
            in_channels=ours.embedding.in_channels,
            out_channels=ours.recovery.out_channels,
            tokens=counts[0] * attentions[0].windows.sizes[0],
            periodic=is_periodic(ours._nodes),
            patch=ours.embedding.kernel_size[0],
            width=width,
            n_stages=len(ours.encoder),
            depth=len(list(ours.encoder[0].children())),
            n_heads=n_heads,
            window=attentions[0].windows.sizes[0],
            n_blocks=len(list(ours.skips[0].children())),
            kernel=ours.get_parameter("skips.0.0.depthwise.conv.weight").shape[-1],
            mlp_ratio=ours.get_parameter("encoder.0.0.network.0.bias").numel() // width,
            bias_width=ours.get_parameter("encoder.0.0.attention.beta.0.bias").numel(),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        n, m = x.shape[2:]
        x = pad(x, (0, -m % self.multiple, 0, -n % self.multiple), mode="circular" if self.periodic else "constant")
        h = self.norm(self.embedding(x).movedim(1, -1))
        shortcuts = []
        for encoder, down, skip in zip(self.encoder, self.down, self.skips, strict=False):
            e = encoder(h)
            shortcuts.append(skip(e.movedim(-1, 1)).movedim(1, -1))
            h = down(e + h)
        y = self.decoder[-1](self.encoder[-1](h))
        for stage in reversed(range(len(self.up))):
            y = self.decoder[stage](self.up[stage](y) + shortcuts[stage])
        return self.projection(self.recovery(y.movedim(-1, 1))[..., :n, :m])
