"""Plain form of the FNO."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from benchmarks.references.shared import CONV, holding, is_periodic, require, with_positions
from benchmarks.references.spectral_conv import PlainSpectralConv
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.fno import FNO


class PlainFNO(nn.Module):
    """v_0 = P(a, x),  v_{l+1} = gelu(W_l v_l + b_l + K_l v_l),  u = Q(v_L); no activation after the last block.

    Li et al. (2021), arXiv 2010.08895.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        n_modes: tuple[int, ...] = (12, 12),
        width: int = 32,
        n_layers: int = 4,
        projection_width: int = 128,
    ) -> None:
        super().__init__()
        conv, self.periodic = CONV[len(n_modes)], periodic
        self.lifting = conv(in_channels + len(n_modes), width, 1)
        self.spectral = nn.ModuleList(PlainSpectralConv(width, width, n_modes) for _ in range(n_layers))
        self.pointwise = nn.ModuleList(conv(width, width, 1) for _ in range(n_layers))
        self.projection = nn.ModuleList([conv(width, projection_width, 1), conv(projection_width, out_channels, 1)])

    @classmethod
    def with_weights_of(cls, ours: FNO) -> PlainFNO:
        require(ours._activation is gelu and not ours._padding, "GELU and no padding")
        first = ours.spectral[0]
        assert isinstance(first, SpectralConv)
        plain = cls(
            in_channels=ours.lifting.in_features - len(first.n_modes),
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=is_periodic(ours._coordinates),
            n_modes=first.n_modes,
            width=ours.lifting.out_features,
            n_layers=len(ours.spectral),
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self.lifting(with_positions(x, self.periodic))
        for layer, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True), start=1):
            v = spectral(v) + pointwise(v)
            if layer < len(self.spectral):
                v = gelu(v)
        return self.projection[1](gelu(self.projection[0](v)))
