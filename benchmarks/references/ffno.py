"""Plain form of the F-FNO."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import relu
from torch.nn.utils.parametrizations import weight_norm

from benchmarks.references.shared import CONV, holding, is_periodic, require, with_positions
from benchmarks.references.spectral_conv import PlainSpectralConv
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.ffno import FFNO


class PlainFFNO(nn.Module):
    """v_0 = P(a, x),  v_{l+1} = v_l + W' relu(W sum_d K_d v_l + b) + b',  u = Q(v_L).

    K_d is a spectral convolution over axis d alone. All pointwise maps have weight normalisation. Tran et al. (2023),
    arXiv 2111.13802, equations 5 to 8.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        n_modes: tuple[int, ...] = (16, 16),
        width: int = 32,
        n_layers: int = 4,
        n_spectral: int = 4,
        expansion: int = 4,
        projection_width: int = 128,
    ) -> None:
        super().__init__()
        conv, self.periodic = CONV[len(n_modes)], periodic

        def affine(n_in: int, n_out: int) -> nn.Module:
            return weight_norm(conv(n_in, n_out, 1))

        self.lifting = affine(in_channels + len(n_modes), width)
        self.spectral = nn.ModuleList(
            nn.ModuleList(PlainSpectralConv(width, width, (k,)) for k in n_modes) for _ in range(n_spectral)
        )
        hidden = expansion * width
        self.feedforward = nn.ModuleList(
            nn.ModuleList([affine(width, hidden), affine(hidden, width)]) for _ in range(n_layers)
        )
        self.projection = nn.ModuleList([affine(width, projection_width), affine(projection_width, out_channels)])

    @classmethod
    def with_weights_of(cls, ours: FFNO) -> PlainFFNO:
        require(ours._activation is relu and not ours._padding, "ReLU and no padding")
        n_modes = [conv.n_modes[0] for conv in ours.spectral[0].children() if isinstance(conv, SpectralConv)]
        width = ours.lifting.out_features
        plain = cls(
            in_channels=ours.lifting.in_features - len(n_modes),
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=is_periodic(ours._nodes),
            n_modes=tuple(n_modes),
            width=width,
            n_layers=len(ours.feedforward),
            n_spectral=len(ours.spectral),
            expansion=ours.get_parameter("feedforward.0.0.bias").numel() // width,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self.lifting(with_positions(x, self.periodic))
        for layer, (first, second) in enumerate(self.feedforward):
            spectral = self.spectral[layer % len(self.spectral)]
            total = sum(self._along(v, axis, weights) for axis, (weights,) in enumerate(c.weights for c in spectral))
            v = v + second(relu(first(total)))
        return self.projection[1](relu(self.projection[0](v)))

    def _along(self, v: Tensor, axis: int, weight: Complex[Tensor, "i o k"]) -> Tensor:
        u = v.movedim(2 + axis, -1)
        u_hat = torch.fft.rfft(u)
        v_hat = torch.zeros_like(u_hat)
        k = weight.shape[2]
        v_hat[..., :k] = torch.einsum("bi...k,iok->bo...k", u_hat[..., :k], weight)
        return torch.fft.irfft(v_hat, n=u.shape[-1]).movedim(-1, 2 + axis)
