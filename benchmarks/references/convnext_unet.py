"""Plain form of The Well's ConvNeXt U-Net."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from benchmarks.references.shared import CONV, holding, is_periodic
from neuralop_bench.models.convnext_unet import ConvNeXtUNet


class PlainConvNeXt(nn.Module):
    """v + g F(norm(D v)): a depthwise convolution, layer normalisation of the channels, a network at each point."""

    def __init__(self, channels: int, n_dims: int, kernel: int, edges: str, eps: float = 1e-6) -> None:
        super().__init__()
        conv = CONV[n_dims]
        self.depthwise = conv(channels, channels, kernel, padding=kernel // 2, padding_mode=edges, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.network = nn.ModuleList([conv(channels, 4 * channels, 1), conv(4 * channels, channels, 1)])
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, v: Tensor) -> Tensor:
        change = self.norm(self.depthwise(v).movedim(1, -1)).movedim(-1, 1)
        change = self.network[1](gelu(self.network[0](change)))
        return v + self.scale.view(-1, *(1,) * (v.ndim - 2)) * change


class _PlainDirection(nn.Module):
    """The channels of a point divided by their length, times a scale per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, v: Tensor) -> Tensor:
        length = v.square().sum(1, keepdim=True).sqrt().clamp(min=1e-6)
        return v / length * self.weight.view(-1, *(1,) * (v.ndim - 2))


class PlainConvNeXtUNet(nn.Module):
    """Blocks of ConvNeXt on every level, 2 x 2 points joined to one and back; shortcuts on all levels but the finest.

    Ohana et al. (2024), arXiv 2412.00568; Liu et al. (2022), arXiv 2201.03545. One or two axes.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 16,
        n_levels: int = 3,
        n_blocks: int = 1,
        n_neck_blocks: int = 1,
        kernel: int = 7,
    ) -> None:
        super().__init__()
        edges = "circular" if periodic else "zeros"
        conv, up = (CONV[n_dims], (nn.ConvTranspose1d, nn.ConvTranspose2d)[n_dims - 1])
        self.periodic, self.multiple = periodic, 2**n_levels
        channels = [width * 2**level for level in range(n_levels + 1)]
        steps = list(itertools.pairwise(channels))

        def blocks(n_channels: int, n: int) -> nn.Sequential:
            return nn.Sequential(*(PlainConvNeXt(n_channels, n_dims, kernel, edges) for _ in range(n)))

        self.lifting = conv(in_channels, width, 3, padding=1, padding_mode=edges)
        self.encoder = nn.ModuleList(blocks(n, n_blocks) for n in channels[:-1])
        self.down = nn.ModuleList(nn.Sequential(_PlainDirection(a), conv(a, b, 2, stride=2)) for a, b in steps)
        self.neck = blocks(channels[-1], n_neck_blocks)
        self.merge = nn.ModuleList(conv(2 * n, n, 1) for n in channels[1:-1])
        self.decoder = nn.ModuleList(blocks(n, n_blocks) for n in channels[1:])
        self.up = nn.ModuleList(nn.Sequential(_PlainDirection(b), up(b, a, 2, stride=2)) for a, b in steps)
        self.projection = conv(width, out_channels, 3, padding=1, padding_mode=edges)

    @classmethod
    def with_weights_of(cls, ours: ConvNeXtUNet) -> PlainConvNeXtUNet:
        lifting = ours.get_parameter("lifting.conv.weight")
        block = ours.get_parameter("encoder.0.0.depthwise.conv.weight")
        plain = cls(
            in_channels=lifting.shape[1],
            out_channels=ours.get_parameter("projection.conv.bias").numel(),
            n_dims=lifting.ndim - 2,
            periodic=is_periodic(ours._nodes),
            width=lifting.shape[0],
            n_levels=len(ours.down),
            n_blocks=len(list(ours.encoder[0].children())),
            n_neck_blocks=len(ours.neck),
            kernel=block.shape[-1],
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        beyond = [side for n in reversed(space) for side in (0, -n % self.multiple)]
        v = self.lifting(pad(x, beyond, mode="circular" if self.periodic else "constant"))
        entering = []
        for encoder, down in zip(self.encoder, self.down, strict=True):
            entering.append(v)
            v = down(encoder(v))
        y = self.up[-1](self.decoder[-1](self.neck(v)))
        for level in reversed(range(1, len(self.up))):
            y = self.merge[level - 1](torch.cat([y, entering[level]], dim=1))
            y = self.up[level - 1](self.decoder[level - 1](y))
        return self.projection(y)[(..., *(slice(n) for n in space))]
