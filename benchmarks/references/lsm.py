"""Plain form of LSM."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, max_pool2d, pad

from benchmarks.references.shared import holding, interpolated, is_periodic, require, with_positions
from neuralop_bench.models.lsm import LSM, NeuralSpectralBlock


class PlainNeuralSpectralBlock(nn.Module):
    """In each patch: z_t = z0_t + sum_x softmax_x(<z0_t, K x>) V x, then z <- z + w_0 + sum_k c_k cos(pi k z / N) +
    s_k sin(pi k z / N), then x <- x + sum_t softmax_t(<Q x, z_t>) z_t.

    Wu et al. (2023), arXiv 2301.12664, section 3, without the weight of sin(0).
    """

    def __init__(self, channels: int, *, patch: int, n_tokens: int, n_basis: int, n_heads: int) -> None:
        super().__init__()
        self.patch, self.n_basis, self.n_heads = patch, n_basis, n_heads
        self.tokens = nn.Parameter(torch.rand(channels, n_tokens) / channels)
        self.weight = nn.Parameter(torch.rand(channels, 2 * n_basis - 1) / channels)
        self.key_value = nn.Conv2d(channels, 2 * channels, 1)
        self.query = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "batch channel n m"]) -> Float[Tensor, "batch channel n m"]:
        # b sample and patch, h head, c channel (of a head, where there are heads), t token, x point, m function
        key, value = (self._patches(part) for part in self.key_value(x).chunk(2, dim=1))
        query, tokens = self._patches(self.query(x)), self.tokens.unflatten(0, (self.n_heads, -1))
        attention = torch.einsum("hct,bhcx->bhtx", tokens, key).softmax(dim=-1)
        z = (tokens + torch.einsum("bhtx,bhcx->bhct", attention, value)).flatten(1, 2)
        k = torch.arange(1, self.n_basis, dtype=x.dtype, device=x.device)
        angle = math.pi / self.n_basis * k * z[..., None]
        basis = torch.cat([torch.ones_like(z[..., None]), torch.cos(angle), torch.sin(angle)], dim=-1)
        z = (z + torch.einsum("bctm,cm->bct", basis, self.weight)).unflatten(1, (self.n_heads, -1))
        attention = torch.einsum("bhcx,bhct->bhtx", query, z).softmax(dim=2)
        return x + self._field(torch.einsum("bhtx,bhct->bhcx", attention, z), x.shape)

    def _patches(self, x: Tensor) -> Float[Tensor, "sample_and_patch head channel point"]:
        batch, channels, n, m = x.shape
        p = self.patch
        x = x.view(batch, channels, n // p, p, m // p, p).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(-1, self.n_heads, channels // self.n_heads, p * p)

    def _field(self, patches: Tensor, shape: torch.Size) -> Float[Tensor, "batch channel n m"]:
        batch, channels, n, m = shape
        p = self.patch
        return patches.view(batch, n // p, m // p, channels, p, p).permute(0, 3, 1, 4, 2, 5).reshape(shape)


class PlainLSM(nn.Module):
    """u = Q(U(P(a, x))): a U-Net with layer normalisation whose features pass through a block on each scale; two axes.

    ``channels`` are those of the scales, finest first; the last two are equal. Wu et al. (2023), arXiv 2301.12664;
    Ronneberger et al. (2015), arXiv 1505.04597, for the U-Net.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        channels: Sequence[int] = (16, 32, 64, 128, 128),
        patch: int = 4,
        n_tokens: int = 4,
        n_basis: int = 12,
        n_heads: int = 8,
        projection_width: int = 128,
    ) -> None:
        super().__init__()
        self.periodic, self.multiple = periodic, patch * 2 ** (len(channels) - 1)
        width = channels[0]
        finer = [width, *channels]
        self.lifting = nn.Conv2d(in_channels + 2, width, 1)
        self.down = nn.ModuleList(self._convs(n_in, n, n) for n_in, n in itertools.pairwise(finer))
        self.blocks = nn.ModuleList(
            PlainNeuralSpectralBlock(n, patch=patch, n_tokens=n_tokens, n_basis=n_basis, n_heads=n_heads)
            for n in channels
        )
        self.up = nn.ModuleList(self._convs(2 * n, n, n_out) for n_out, n in itertools.pairwise(finer[:-1]))
        self.out = nn.Conv2d(width, width, 1)
        widths = (width, projection_width, out_channels)
        self.projection = nn.ModuleList(nn.Conv2d(n_in, n_out, 1) for n_in, n_out in itertools.pairwise(widths))

    @classmethod
    def with_weights_of(cls, ours: LSM) -> PlainLSM:
        block = ours.backbone.blocks[0]
        assert isinstance(block, NeuralSpectralBlock)
        require(any(isinstance(module, nn.GroupNorm) for module in ours.modules()), "layer normalisation")
        plain = cls(
            in_channels=ours.lifting.in_features - 2,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=is_periodic(ours._nodes),
            channels=[block.get_parameter("tokens").shape[0] for block in ours.backbone.blocks],
            patch=block.patch,
            n_tokens=block.tokens.shape[1],
            n_basis=block.n_basis,
            n_heads=block.n_heads,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return holding(plain, ours)

    def _convs(self, n_in: int, n_mid: int, n_out: int) -> nn.Sequential:
        mode, layers = "circular" if self.periodic else "zeros", []
        for before, after in ((n_in, n_mid), (n_mid, n_out)):
            conv = nn.Conv2d(before, after, 3, padding=1, padding_mode=mode, bias=False)
            layers += [conv, nn.GroupNorm(1, after), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        n, m = x.shape[2:]
        v = self.lifting(with_positions(x, self.periodic))
        beyond = (0, -m % self.multiple, 0, -n % self.multiple)
        v = pad(v, beyond, mode="circular" if self.periodic else "constant")
        skips = []
        for scale, (down, block) in enumerate(zip(self.down, self.blocks, strict=True)):
            v = down(max_pool2d(v, 2) if scale else v)
            skips.append(block(v))
        y = skips.pop()
        for up in reversed(self.up):
            skip = skips.pop()
            y = up(torch.cat([skip, interpolated(y, skip.shape[2:], self.periodic)], dim=1))
        return self.projection[1](gelu(self.projection[0](self.out(y[..., :n, :m]))))
