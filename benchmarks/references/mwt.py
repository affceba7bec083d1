"""Plain form of the multiwavelet operator."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from benchmarks.references.shared import holding, is_periodic, require, with_positions
from neuralop_bench.layers.conv import Edge
from neuralop_bench.layers.multiwavelets import legendre_filters
from neuralop_bench.models.mwt import MWT, LowModes, MultiwaveletLayer


class _PlainLowModes(nn.Module):
    """v_hat(k) = W(k) u_hat(k) for the wavenumbers below n_modes and below half the points of an axis; two axes.

    A single point has k_1 = 0 and k_1 = -1, which are the same function: both matrices act on it.
    """

    def __init__(self, in_channels: int, out_channels: int, n_modes: int) -> None:
        super().__init__()
        self.n_modes = n_modes
        shape = (in_channels, out_channels, n_modes, n_modes)
        self.weights = nn.ParameterList(torch.rand(shape, dtype=torch.cfloat) / in_channels for _ in range(2))

    def forward(self, u: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        low, high = self.weights
        k1, k2 = (min(self.n_modes, max(1, n // 2)) for n in u.shape[2:])
        u_hat = torch.fft.rfft2(u)
        v_hat = u_hat.new_zeros(u.shape[0], low.shape[1], *u_hat.shape[2:])
        v_hat[:, :, :k1, :k2] += torch.einsum("bixy,ioxy->boxy", u_hat[:, :, :k1, :k2], low[:, :, :k1, :k2])
        v_hat[:, :, -k1:, :k2] += torch.einsum("bixy,ioxy->boxy", u_hat[:, :, -k1:, :k2], high[:, :, -k1:, :k2])
        return torch.fft.irfft2(v_hat, s=u.shape[-2:])


class _PlainMap(nn.Module):
    """A linear map, ReLU, an affine map of the features."""

    def __init__(self, linear: nn.Module, width: int, out_channels: int) -> None:
        super().__init__()
        self.linear, self.out = linear, nn.Conv2d(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.linear(x).relu())


class _PlainMultiwaveletLayer(nn.Module):
    """Down: s, d <- decompose(s), U = A d + B s, V = C d; up: s <- reconstruct(s + V, U); T s on the coarsest cells.

    Even and odd cells are taken apart and put together along both axes; each pair has its own tensor products of
    filters, one for the polynomials and three for the wavelets.
    """

    filters: Tensor

    def __init__(self, channels: int, k: int, *, n_modes: int, n_levels: int, edges: Edge) -> None:
        super().__init__()
        width = channels * k**2

        def conv(n_in: int) -> nn.Module:
            return nn.Conv2d(n_in, width, 3, padding=1, padding_mode=edges)

        self.k, self.n_levels = k, n_levels
        self.A = _PlainMap(_PlainLowModes(3 * width, width, n_modes), width, 3 * width)
        self.B = _PlainMap(conv(width), width, 3 * width)
        self.C = _PlainMap(conv(3 * width), width, width)
        self.T = nn.Conv2d(width, width, 1)
        H0, H1, G0, G1 = legendre_filters(k)
        filters = torch.from_numpy(
            np.array([[H0, H1], [G0, G1]])
        )  # [H or G, parity, coefficient, coefficient of the half]
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, s: Float[Tensor, "batch width n m"]) -> Float[Tensor, "batch width n m"]:
        parts = []
        for _ in range(self.n_levels):
            s, d = self._decompose(s)
            parts.append((self.A(d) + self.B(s), self.C(d)))
        s = self.T(s)
        for U, V in reversed(parts):
            s = self._reconstruct(s + V, U)
        return s

    def _filter(self, like: Tensor, *which: int) -> Tensor:
        first, parity_1, second, parity_2 = which
        one, other = (self.filters[index].to(like) for index in ((first, parity_1), (second, parity_2)))
        return torch.kron(one, other)

    def _decompose(self, s: Tensor) -> tuple[Tensor, Tensor]:
        x = s.unflatten(1, (-1, self.k**2))
        bands = []
        for a, b in itertools.product(range(2), repeat=2):
            terms = [
                torch.einsum("ij,bcjxy->bcixy", self._filter(s, a, p, b, q), x[..., p::2, q::2])
                for p, q in itertools.product(range(2), repeat=2)
            ]
            bands.append(sum(terms[1:], terms[0]).flatten(1, 2))
        return bands[0], torch.cat(bands[1:], dim=1)

    def _reconstruct(self, s: Tensor, d: Tensor) -> Tensor:
        bands = [part.unflatten(1, (-1, self.k**2)) for part in (s, *d.chunk(3, dim=1))]
        x = s.new_empty(*bands[0].shape[:3], 2 * s.shape[2], 2 * s.shape[3])
        for p, q in itertools.product(range(2), repeat=2):
            terms = [
                torch.einsum("ij,bcixy->bcjxy", self._filter(s, a, p, b, q), band)
                for (a, b), band in zip(itertools.product(range(2), repeat=2), bands, strict=True)
            ]
            x[..., p::2, q::2] = sum(terms[1:], terms[0])
        return x.flatten(1, 2)


class PlainMWT(nn.Module):
    """v_0 = P(a, x),  v_{l+1} = gelu(M_l v_l),  u = Q(v_L), with maps M_l of multiwavelets; two axes.

    No activation after the last map. Gupta, Xiao, Bogdan (2021), arXiv 2109.13459, with all three bands of wavelets.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        k: int = 3,
        channels: int = 4,
        n_modes: int = 4,
        n_layers: int = 2,
        n_levels: int = 4,
        projection_width: int = 128,
    ) -> None:
        super().__init__()
        self.periodic, self.multiple = periodic, 2**n_levels
        width = channels * k**2
        edges = "circular" if periodic else "zeros"
        self.lifting = nn.Conv2d(in_channels + 2, width, 1)
        self.layers = nn.ModuleList(
            _PlainMultiwaveletLayer(channels, k, n_modes=n_modes, n_levels=n_levels, edges=edges)
            for _ in range(n_layers)
        )
        widths = (width, projection_width, out_channels)
        self.projection = nn.ModuleList(nn.Conv2d(n_in, n_out, 1) for n_in, n_out in itertools.pairwise(widths))

    @classmethod
    def with_weights_of(cls, ours: MWT) -> PlainMWT:
        layer = ours.layers[0]
        assert isinstance(layer, MultiwaveletLayer)
        low = layer.A.linear
        assert isinstance(low, LowModes)
        require(ours._activation is gelu and ours._n_references is None, "GELU and coordinates of the nodes")
        require(layer.wavelets.details == "all" and len(low.n_modes) == 2, "all bands of wavelets on two axes")
        require(isinstance(ours.lifting, nn.Linear), "an affine lifting")
        width = layer.T.in_features
        plain = cls(
            in_channels=ours.get_parameter("lifting.weight").shape[1] - 2,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=is_periodic(ours._nodes),
            k=layer.wavelets.k,
            channels=width // layer.wavelets.k**2,
            n_modes=low.n_modes[0],
            n_layers=len(ours.layers),
            n_levels=layer._n_levels,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        n, m = x.shape[2:]
        v = self.lifting(with_positions(x, self.periodic))
        beyond = (0, -m % self.multiple, 0, -n % self.multiple)
        v = pad(v, beyond, mode="circular" if self.periodic else "constant")
        for layer, mapped in enumerate(self.layers):
            v = mapped(gelu(v) if layer else v)
        return self.projection[1](gelu(self.projection[0](v[..., :n, :m])))
