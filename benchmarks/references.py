"""Plain forms of the models: each formula written directly with torch's own layers.

Tests compare outputs and gradients of our implementations with them; benchmarks compare step times and peak memory. So
they are straightforward code, neither tuned nor deliberately slow: fields stay channels first, pointwise maps are
convolutions of one point, contractions are einsums. They support the default options of configs/model, on grids whose
axes are all periodic or all closed. ``with_weights_of`` makes one from an instance of our model, with copies of its
parameters; it raises a ValueError or RuntimeError if the instance has other options.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import (
    avg_pool1d,
    avg_pool2d,
    gelu,
    interpolate,
    layer_norm,
    linear,
    max_pool2d,
    pad,
    relu,
    scaled_dot_product_attention,
)
from torch.nn.utils.parametrizations import weight_norm

from data_gen.grids import Nodes
from neuralop_bench.layers.attention import LinearAttention
from neuralop_bench.layers.conv import Edge
from neuralop_bench.layers.multiwavelets import legendre_filters
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.cno import CNO
from neuralop_bench.models.convnext_unet import ConvNeXtUNet
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.dpot import DPOT
from neuralop_bench.models.factformer import FactFormer, FactorisedAttention
from neuralop_bench.models.ffno import FFNO
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.gnot import GNOT
from neuralop_bench.models.gnot import Block as GNOTBlock
from neuralop_bench.models.lsm import LSM, NeuralSpectralBlock
from neuralop_bench.models.mgno import MgNO, VCycle
from neuralop_bench.models.mwt import MWT, LowModes, MultiwaveletLayer
from neuralop_bench.models.poseidon import Poseidon, WindowAttention
from neuralop_bench.models.sfno import SFNO
from neuralop_bench.models.sinenet import SineNet
from neuralop_bench.models.transolver import Block, Transolver
from neuralop_bench.models.uno import UNO

_CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
# Parameters with different names in our models and here.
_RENAMED = (
    (r"\.conv\.", "."),
    (r"^backbone\.", ""),
    (r"^branch\.net\.1\.", "branch."),
    (r"\.smoothers\.(\d+)\.([SA])\.", r".\2.\1."),
)

_Plain = TypeVar("_Plain", bound=nn.Module)


def translated(numbers: Mapping[str, Tensor], plain: nn.Module) -> dict[str, Tensor]:
    """Parameters of one of our models, or their gradients, with the names and shapes of ``plain``."""
    shapes = {name: parameter.shape for name, parameter in plain.named_parameters()}
    result = {}
    for name, tensor in numbers.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        if f"{name}s.0" in shapes:
            result |= {f"{name}s.{corner}": weight for corner, weight in enumerate(_corners(tensor))}
        else:
            result[name] = tensor.reshape(shapes.get(name, tensor.shape))
    return result


def _corners(weight: Float[Tensor, "part *modes i o"]) -> Sequence[Complex[Tensor, "i o *corner"]]:
    corners = [torch.complex(*weight).movedim((-2, -1), (0, 1))]
    for axis in range(2, corners[0].ndim - 1):
        corners = [half for corner in corners for half in corner.chunk(2, dim=axis)]
    return corners


def _holding(plain: _Plain, ours: nn.Module) -> _Plain:
    """``plain`` with copies of the parameters of ``ours``, in their precision and on their device."""
    numbers = translated({name: parameter.detach() for name, parameter in ours.named_parameters()}, plain)
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in numbers.items()}
    plain.load_state_dict(copies, assign=True)
    return plain


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"The plain form only supports {what}.")


def _is_periodic(nodes: Sequence[Nodes]) -> bool:
    _require(set(nodes) in ({"periodic"}, {"closed"}), "grids whose axes are all periodic or all closed")
    _require(len(nodes) <= 2, "one or two axes")
    return nodes[0] == "periodic"


def _positions(space: Sequence[int], periodic: bool, like: Tensor) -> Float[Tensor, "axis ..."]:
    """Coordinates of the points in [0, 1]; a periodic axis has no point at 1."""
    axes = [torch.linspace(0, 1, n + periodic, dtype=like.dtype, device=like.device)[:n] for n in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def _with_positions(x: Float[Tensor, "batch channel *space"], periodic: bool) -> Tensor:
    positions = _positions(x.shape[2:], periodic, x)
    return torch.cat([x, positions.expand(x.shape[0], *positions.shape)], dim=1)


def _interpolated(x: Float[Tensor, "batch channel *space"], shape: Sequence[int], periodic: bool) -> Tensor:
    """Linear interpolation to ``shape`` points of the same domain.

    On a periodic axis the first point is repeated at the end, and dropped again afterwards.
    """
    if periodic:
        x = pad(x, (0, 1) * len(shape), mode="circular")
    mode = "bilinear" if len(shape) == 2 else "linear"
    x = interpolate(x, [n + periodic for n in shape], mode=mode, align_corners=True)
    return x[(..., *(slice(n) for n in shape))]


# Fourier neural operator ---------------------------------------------------------------------------------------------


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
        _require(ours.factors is None, "dense weights")
        *_, in_channels, out_channels = ours.weight.shape
        return _holding(cls(in_channels, out_channels, ours.n_modes), ours)

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
        conv, self.periodic = _CONV[len(n_modes)], periodic
        self.lifting = conv(in_channels + len(n_modes), width, 1)
        self.spectral = nn.ModuleList(PlainSpectralConv(width, width, n_modes) for _ in range(n_layers))
        self.pointwise = nn.ModuleList(conv(width, width, 1) for _ in range(n_layers))
        self.projection = nn.ModuleList([conv(width, projection_width, 1), conv(projection_width, out_channels, 1)])

    @classmethod
    def with_weights_of(cls, ours: FNO) -> PlainFNO:
        _require(ours._activation is gelu and not ours._padding, "GELU and no padding")
        first = ours.spectral[0]
        assert isinstance(first, SpectralConv)
        plain = cls(
            in_channels=ours.lifting.in_features - len(first.n_modes),
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=_is_periodic(ours._coordinates),
            n_modes=first.n_modes,
            width=ours.lifting.out_features,
            n_layers=len(ours.spectral),
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self.lifting(_with_positions(x, self.periodic))
        for layer, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True), start=1):
            v = spectral(v) + pointwise(v)
            if layer < len(self.spectral):
                v = gelu(v)
        return self.projection[1](gelu(self.projection[0](v)))


# Factorised Fourier neural operator ----------------------------------------------------------------------------------


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
        conv, self.periodic = _CONV[len(n_modes)], periodic

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
        _require(ours._activation is relu and not ours._padding, "ReLU and no padding")
        n_modes = [conv.n_modes[0] for conv in ours.spectral[0].children() if isinstance(conv, SpectralConv)]
        width = ours.lifting.out_features
        plain = cls(
            in_channels=ours.lifting.in_features - len(n_modes),
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=_is_periodic(ours._nodes),
            n_modes=tuple(n_modes),
            width=width,
            n_layers=len(ours.feedforward),
            n_spectral=len(ours.spectral),
            expansion=ours.get_parameter("feedforward.0.0.bias").numel() // width,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self.lifting(_with_positions(x, self.periodic))
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


# Spatiotemporal Fourier neural operator ------------------------------------------------------------------------------


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
        conv = _CONV[n_dims + 1]
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
        _require(ours._activation is gelu and ours.encoding is not None, "GELU and the learned encoding")
        _require(_is_periodic(ours._nodes), "periodic axes")
        _require(ours._n_fields == 1, "one field")
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
        return _holding(plain, ours)

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
        positions = _positions(x.shape[2:], True, x)[..., None].expand(-1, *x.shape[2:], self.times)
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


# U-shaped neural operator --------------------------------------------------------------------------------------------


class PlainUNO(nn.Module):
    """Fourier layers v -> gelu(K v + R (W v + b)) to coarser grids and back, with skip connections; periodic axes.

    K keeps low modes and evaluates them on the next grid, R interpolates linearly. ``channels`` and ``scales`` are
    those of all levels, the given grid first. Rahman et al. (2022), arXiv 2204.11127, section 3.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        channels: Sequence[int] = (16, 32, 64),
        scales: Sequence[float] = (1.0, 0.5, 0.25),
        n_modes: Sequence[int] = (8, 4),
        projection_width: int = 64,
    ) -> None:
        super().__init__()
        conv, self.scales, width, deepest = _CONV[n_dims], scales, channels[0], channels[-1]

        def layer(n_in: int, n_out: int, k: int) -> nn.ModuleDict:
            spectral = PlainSpectralConv(n_in, n_out, (k,) * n_dims)
            return nn.ModuleDict({"spectral": spectral, "pointwise": conv(n_in, n_out, 1)})

        self.lifting = nn.ModuleList([conv(in_channels + n_dims, width // 2, 1), conv(width // 2, width, 1)])
        pairs = list(zip(itertools.pairwise(channels), n_modes, strict=True))
        self.down = nn.ModuleList(layer(n_fine, n_coarse, k) for (n_fine, n_coarse), k in pairs)
        self.bottom = layer(deepest, deepest, n_modes[-1])
        self.up = nn.ModuleList(
            layer(n_coarse if level == len(pairs) else 2 * n_coarse, n_fine, k)
            for level, ((n_fine, n_coarse), k) in enumerate(pairs, start=1)
        )
        self.projection = nn.ModuleList([conv(2 * width, projection_width, 1), conv(projection_width, out_channels, 1)])

    @classmethod
    def with_weights_of(cls, ours: UNO) -> PlainUNO:
        _require(ours._activation is gelu, "GELU")
        _require(_is_periodic(ours._nodes), "periodic axes")
        n_dims = len(ours._nodes)
        biases = [ours.get_parameter("lifting.1.bias"), *(layer.get_parameter("pointwise.bias") for layer in ours.down)]
        convs = [layer.get_submodule("spectral") for layer in ours.down]
        plain = cls(
            in_channels=ours.get_parameter("lifting.0.weight").shape[1] - n_dims,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            n_dims=n_dims,
            channels=[bias.numel() for bias in biases],
            scales=[1.0, *ours._scales],
            n_modes=[conv.n_modes[0] for conv in convs if isinstance(conv, SpectralConv)],
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        grids = [[round(scale * n) for n in space] for scale in self.scales]
        v = gelu(self.lifting[1](gelu(self.lifting[0](_with_positions(x, periodic=True)))))
        skips = [v]
        for layer, grid in zip(self.down, grids[1:], strict=True):
            v = self._layer(layer, v, grid)
            skips.append(v)
        v = self._layer(self.bottom, skips.pop(), grids[-1])
        for layer, grid, skip in zip(reversed(self.up), grids[-2::-1], reversed(skips), strict=True):
            v = torch.cat([self._layer(layer, v, grid), skip], dim=1)
        return self.projection[1](gelu(self.projection[0](v)))

    def _layer(self, layer: nn.Module, v: Tensor, grid: Sequence[int]) -> Tensor:
        mapped = layer.get_submodule("pointwise")(v)
        if list(v.shape[2:]) != grid:
            mapped = _interpolated_on_circles(mapped, grid)
        return gelu(layer.get_submodule("spectral")(v, tuple(grid)) + mapped)


def _interpolated_on_circles(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Linear interpolation to ``grid`` points of the same period on every axis, which may be fewer."""
    for axis, n in enumerate(grid, start=2):
        given = x.shape[axis]
        position = torch.arange(n, dtype=x.dtype, device=x.device) * given / n
        below = position.floor().long()
        shape = [1] * x.ndim
        shape[axis] = n
        weight = (position - below).view(shape)
        x = (1 - weight) * x.index_select(axis, below) + weight * x.index_select(axis, (below + 1) % given)
    return x


# Multigrid neural operator -------------------------------------------------------------------------------------------


class _PlainVCycle(nn.Module):
    """Down: u <- u + S (f - A u), then f <- R f, u <- Pi u; up: u_j <- u_j + P_j u_{j+1}."""

    def __init__(self, in_channels: int, width: int, n_smoothing: Sequence[int], edges: Edge) -> None:
        super().__init__()

        def conv(n_in: int, n_out: int, stride: int = 1) -> nn.Module:
            return nn.Conv2d(n_in, n_out, 3, stride, padding=1, padding_mode=edges, bias=False)

        n_coarser = len(n_smoothing) - 1
        n_residuals = [n_smoothing[0] - 1, *n_smoothing[1:]]  # the first step starts from u = 0 and has no A
        self.edges = edges
        self.S = nn.ModuleList(nn.ModuleList(conv(in_channels, width) for _ in range(n)) for n in n_smoothing)
        self.A = nn.ModuleList(nn.ModuleList(conv(width, in_channels) for _ in range(n)) for n in n_residuals)
        self.restrictions = nn.ModuleList(conv(in_channels, in_channels, stride=2) for _ in range(n_coarser))
        self.projections = nn.ModuleList(conv(width, width, stride=2) for _ in range(n_coarser))
        # A transposed convolution only pads with zeros. For other edges ``forward`` adds a point at both ends, and two
        # more points of the output are dropped there.
        padding = 1 if edges == "zeros" else 3
        self.prolongations = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 4, stride=2, padding=padding, bias=False) for _ in range(n_coarser)
        )

    def forward(self, f: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch width n m"]:
        u, finer = f, []
        for level, (all_S, all_A) in enumerate(zip(self.S, self.A, strict=True)):
            steps = iter(all_S.children())
            if level == 0:
                u = next(steps)(f)
            else:
                finer.append(u)
                f, u = self.restrictions[level - 1](f), self.projections[level - 1](u)
            for S, A in zip(steps, all_A.children(), strict=True):
                u = u + S(f - A(u))
        for prolongation in reversed(self.prolongations):
            above = finer.pop()
            if self.edges != "zeros":
                u = pad(u, (1, 1, 1, 1), mode=self.edges)
            u = above + prolongation(u)[..., : above.shape[-2], : above.shape[-1]]
        return u


class PlainMgNO(nn.Module):
    """v_{l+1} = gelu(V_l v_l + B_l v_l + b_l),  u = Q v_L, with a V-cycle V_l; two axes.

    He, Liu, Xu (2024), arXiv 2310.19809, as published for Darcy flow: kernels of 4 points in the prolongation, the
    right-hand side restricted, not the residual.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        width: int = 24,
        n_layers: int = 4,
        n_smoothing: Sequence[int] = (1, 1, 1, 1, 2),
        edges: Edge = "zeros",
    ) -> None:
        super().__init__()
        channels = [in_channels] + [width] * (n_layers - 1)
        self.cycles = nn.ModuleList(_PlainVCycle(n, width, n_smoothing, edges) for n in channels)
        self.pointwise = nn.ModuleList(nn.Conv2d(n, width, 1) for n in channels)
        self.projection = nn.Conv2d(width, out_channels, 1, bias=False)

    @classmethod
    def with_weights_of(cls, ours: MgNO) -> PlainMgNO:
        cycle, projection = ours.cycles[0], ours.projection
        assert isinstance(cycle, VCycle)
        _require(ours._activation is gelu and not ours._coordinates, "GELU and no coordinates")
        _require(len(set(projection.edges)) == 1, "the same edges on every axis")
        kernels = {module.kernel_size for module in ours.modules() if isinstance(module, nn.ConvTranspose2d)}
        _require(kernels <= {(4, 4)}, "prolongation kernels of 4 points")
        smoothing = [len(list(smoother.get_submodule("S").children())) for smoother in cycle.smoothers]
        plain = cls(
            in_channels=ours.get_parameter("pointwise.0.weight").shape[1],
            out_channels=projection.conv.out_channels,
            width=projection.conv.in_channels,
            n_layers=len(ours.cycles),
            n_smoothing=smoothing,
            edges=projection.edges[0],
        )
        return _holding(plain, ours)

    def forward(self, v: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        for cycle, pointwise in zip(self.cycles, self.pointwise, strict=True):
            v = gelu(cycle(v) + pointwise(v))
        return self.projection(v)


# Latent spectral model -----------------------------------------------------------------------------------------------


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
        _require(any(isinstance(module, nn.GroupNorm) for module in ours.modules()), "layer normalisation")
        plain = cls(
            in_channels=ours.lifting.in_features - 2,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=_is_periodic(ours._nodes),
            channels=[block.get_parameter("tokens").shape[0] for block in ours.backbone.blocks],
            patch=block.patch,
            n_tokens=block.tokens.shape[1],
            n_basis=block.n_basis,
            n_heads=block.n_heads,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return _holding(plain, ours)

    def _convs(self, n_in: int, n_mid: int, n_out: int) -> nn.Sequential:
        mode, layers = "circular" if self.periodic else "zeros", []
        for before, after in ((n_in, n_mid), (n_mid, n_out)):
            conv = nn.Conv2d(before, after, 3, padding=1, padding_mode=mode, bias=False)
            layers += [conv, nn.GroupNorm(1, after), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        n, m = x.shape[2:]
        v = self.lifting(_with_positions(x, self.periodic))
        beyond = (0, -m % self.multiple, 0, -n % self.multiple)
        v = pad(v, beyond, mode="circular" if self.periodic else "constant")
        skips = []
        for scale, (down, block) in enumerate(zip(self.down, self.blocks, strict=True)):
            v = down(max_pool2d(v, 2) if scale else v)
            skips.append(block(v))
        y = skips.pop()
        for up in reversed(self.up):
            skip = skips.pop()
            y = up(torch.cat([skip, _interpolated(y, skip.shape[2:], self.periodic)], dim=1))
        return self.projection[1](gelu(self.projection[0](self.out(y[..., :n, :m]))))


# SineNet --------------------------------------------------------------------------------------------------------------


class _PlainBlock(nn.Module):
    """D(f, g) = F [f, g] + W f + b,  F = gelu norm C gelu norm C."""

    def __init__(self, n_first: int, n_second: int, n_out: int, n_dims: int, mode: str) -> None:
        super().__init__()
        conv = _CONV[n_dims]
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

        self.lifting = _CONV[n_dims](in_channels, width, 3, padding=1, padding_mode=mode)
        self.waves = nn.ModuleList(wave() for _ in range(n_waves))
        self.projection = _CONV[n_dims](width, out_channels, 3, padding=1, padding_mode=mode)

    @classmethod
    def with_weights_of(cls, ours: SineNet) -> PlainSineNet:
        down = list(ours.waves[0].get_submodule("down").children())
        _require(all(module._act is gelu for module in down), "GELU")
        width = ours.lifting.conv.out_channels
        plain = cls(
            in_channels=ours.lifting.conv.in_channels,
            out_channels=ours.projection.conv.out_channels,
            n_dims=len(ours._nodes),
            periodic=_is_periodic(ours._nodes),
            channels=[width, *(block.get_parameter("shortcut.bias").numel() for block in down)],
            n_waves=len(ours.waves),
        )
        return _holding(plain, ours)

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


# Multiwavelet neural operator ----------------------------------------------------------------------------------------


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
        _require(ours._activation is gelu and ours._n_references is None, "GELU and coordinates of the nodes")
        _require(layer.wavelets.details == "all" and len(low.n_modes) == 2, "all bands of wavelets on two axes")
        _require(isinstance(ours.lifting, nn.Linear), "an affine lifting")
        width = layer.T.in_features
        plain = cls(
            in_channels=ours.get_parameter("lifting.weight").shape[1] - 2,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=_is_periodic(ours._nodes),
            k=layer.wavelets.k,
            channels=width // layer.wavelets.k**2,
            n_modes=low.n_modes[0],
            n_layers=len(ours.layers),
            n_levels=layer._n_levels,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        n, m = x.shape[2:]
        v = self.lifting(_with_positions(x, self.periodic))
        beyond = (0, -m % self.multiple, 0, -n % self.multiple)
        v = pad(v, beyond, mode="circular" if self.periodic else "constant")
        for layer, mapped in enumerate(self.layers):
            v = mapped(gelu(v) if layer else v)
        return self.projection[1](gelu(self.projection[0](v[..., :n, :m])))


# Convolutional neural operator ---------------------------------------------------------------------------------------


class _PlainUnit(nn.Module):
    """A convolution and layer normalisation, or a convolution with a bias."""

    def __init__(self, n_in: int, n_out: int, n_dims: int, periodic: bool, norm: bool = True) -> None:
        super().__init__()
        mode = "circular" if periodic else "zeros"
        self.conv = _CONV[n_dims](n_in, n_out, 3, padding=1, padding_mode=mode, bias=not norm)
        self.norm = nn.GroupNorm(1, n_out) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class PlainCNO(nn.Module):
    """A U-shaped network whose activations act between two resamplings of series, as in our docstring; one or two axes.

    A periodic axis is resampled by cutting or extending its Fourier coefficients, a closed one by a sum of cosines.

    Raonic et al. (2023), arXiv 2302.01178.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 8,
        n_levels: int = 3,
        n_blocks: int = 1,
        n_neck_blocks: int = 2,
        lift_width: int = 8,
    ) -> None:
        super().__init__()
        self.periodic, self.n_levels = periodic, n_levels
        channels = [width * 2**level for level in range(n_levels + 1)]
        joined = [*(2 * n for n in channels[:-1]), channels[-1]]

        def unit(n_in: int, n_out: int, norm: bool = True) -> _PlainUnit:
            return _PlainUnit(n_in, n_out, n_dims, periodic, norm)

        self.lifting = nn.ModuleList([unit(in_channels, lift_width, False), unit(lift_width, width, False)])
        self.down = nn.ModuleList(unit(a, b) for a, b in itertools.pairwise(channels))
        self.residual = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleList([unit(n, n), unit(n, n)]) for _ in range(n_neck_blocks if level == n_levels else n_blocks)
            )
            for level, n in enumerate(channels)
        )
        self.skip = nn.ModuleList(unit(n, n) for n in channels)
        self.mixing = nn.ModuleList(unit(n, n) for n in joined[1:])
        self.up = nn.ModuleList(unit(n, a) for n, a in zip(joined[1:], channels, strict=False))
        self.projection = nn.ModuleList([unit(2 * width, lift_width, False), unit(lift_width, out_channels, False)])

    @classmethod
    def with_weights_of(cls, ours: CNO) -> PlainCNO:
        _require(ours._act is gelu and ours._exact_shifts, "GELU and exact shifts")
        lifting, projection = ours.get_parameter("lifting.1.conv.conv.weight"), ours.projection[1]
        plain = cls(
            in_channels=ours.get_parameter("lifting.0.conv.conv.weight").shape[1],
            out_channels=projection.get_parameter("conv.conv.weight").shape[0],
            n_dims=len(ours._nodes),
            periodic=_is_periodic(ours._nodes),
            width=lifting.shape[0],
            n_levels=len(ours.down),
            n_blocks=len(list(ours.residual[0].children())),
            n_neck_blocks=len(list(ours.residual[-1].children())),
            lift_width=lifting.shape[1],
        )
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        end = 0 if self.periodic else 1
        shapes = [[(n - end) // 2**level + end for n in x.shape[2:]] for level in range(self.n_levels + 1)]

        def act(v: Tensor, level: int, to: int) -> Tensor:
            fine = [2 * (n - end) + end for n in shapes[min(level, to)]]
            if self.periodic:
                fine = [max(n, finest) for n, finest in zip(fine, shapes[0], strict=True)]
            return self._resampled(gelu(self._resampled(v, fine)), shapes[to])

        v = self.lifting[1](act(self.lifting[0](x), 0, 0))
        skipped = []
        for level in range(self.n_levels + 1):
            s = v
            for first, second in self.residual[level]:
                s = s + second(act(first(s), level, level))
            skipped.append(act(self.skip[level](s), level, level))
            if level < self.n_levels:
                v = act(self.down[level](v), level, level + 1)
        y = skipped.pop()
        for level in reversed(range(self.n_levels)):
            y = act(self.mixing[level](y), level + 1, level + 1)
            y = torch.cat([act(self.up[level](y), level + 1, level), skipped.pop()], dim=1)
        return self.projection[1](act(self.projection[0](y), 0, 0))

    def _resampled(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        if self.periodic:
            for axis, n in enumerate(shape, start=2):
                n_waves = (min(x.shape[axis], n) + 1) // 2
                coefficients = torch.fft.rfft(x, dim=axis, norm="forward").narrow(axis, 0, n_waves)
                x = torch.fft.irfft(coefficients, n=n, dim=axis, norm="forward")
            return x
        first, *others = (self._cosine_matrix(n, m, x) for n, m in zip(x.shape[2:], shape, strict=True))
        x = torch.einsum("bcn...,mn->bcm...", x, first)
        return torch.einsum("bcmn,kn->bcmk", x, others[0]) if others else x

    @staticmethod
    def _cosine_matrix(n: int, m: int, like: Tensor) -> Float[Tensor, "m n"]:
        """Coefficients by the trapezoidal rule, then their series at the other points."""
        k, ends = torch.arange(min(n, m) - 1, device=like.device), torch.ones(n, device=like.device, dtype=like.dtype)
        ends[0] = ends[-1] = 0.5
        to, back = (
            torch.cos(math.pi * torch.outer(torch.arange(points, device=like.device), k).to(like.dtype) / (points - 1))
            for points in (n, m)
        )
        scale = torch.where(k == 0, 1, 2).to(like.dtype) / (n - 1)
        return (back * scale) @ (to.T * ends)


# ConvNeXt U-Net ------------------------------------------------------------------------------------------------------


class _PlainConvNeXt(nn.Module):
    """v + g F(norm(D v)): a depthwise convolution, layer normalisation of the channels, a network at each point."""

    def __init__(self, channels: int, n_dims: int, kernel: int, edges: str, eps: float = 1e-6) -> None:
        super().__init__()
        conv = _CONV[n_dims]
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
        conv, up = (_CONV[n_dims], (nn.ConvTranspose1d, nn.ConvTranspose2d)[n_dims - 1])
        self.periodic, self.multiple = periodic, 2**n_levels
        channels = [width * 2**level for level in range(n_levels + 1)]
        steps = list(itertools.pairwise(channels))

        def blocks(n_channels: int, n: int) -> nn.Sequential:
            return nn.Sequential(*(_PlainConvNeXt(n_channels, n_dims, kernel, edges) for _ in range(n)))

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
            periodic=_is_periodic(ours._nodes),
            width=lifting.shape[0],
            n_levels=len(ours.down),
            n_blocks=len(list(ours.encoder[0].children())),
            n_neck_blocks=len(ours.neck),
            kernel=block.shape[-1],
        )
        return _holding(plain, ours)

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


# DPOT ----------------------------------------------------------------------------------------------------------------


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
        self.network = nn.ModuleList([_CONV[n_dims](width, mlp_width, 1), _CONV[n_dims](mlp_width, width, 1)])

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
        conv, up = _CONV[n_dims], (nn.ConvTranspose1d, nn.ConvTranspose2d)[n_dims - 1]
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
            periodic=_is_periodic(ours._nodes),
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
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space, n_frames = x.shape[2:], len(self.by_frame)
        beyond = [side for n in reversed(space) for side in (0, -n % self.patch)]
        x = pad(_with_positions(x, self.periodic), beyond, mode="circular" if self.periodic else "constant")
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


# Factorised transformer ----------------------------------------------------------------------------------------------


class _PlainAxis(nn.Module):
    """Features of one axis from a field: a linear map, the mean over the other axis, a gated network."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, 2 * width)
        self.last = nn.Linear(width, width)

    def forward(self, u: Tensor, other: int) -> Float[Tensor, "batch n width"]:
        gate, value = self.hidden(self.norm(self.first(u).mean(other))).chunk(2, dim=-1)
        return self.last(gelu(gate) * value)


class _PlainFactorisedAttention(nn.Module):
    """norm (K_x K_y V u) with K(x, y) = <R(x) Q w(x), R(y) L w(y)> / n, and a network with one hidden layer."""

    def __init__(self, width: int, n_heads: int, head_width: int, kernel_width: int) -> None:
        super().__init__()
        n_values = n_heads * head_width
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(width)
        self.value, self.inner = nn.Linear(width, n_values, bias=False), nn.Linear(width, width, bias=False)
        self.to_axis = nn.ModuleList(_PlainAxis(width) for _ in range(2))
        self.query_key = nn.ModuleList(nn.Linear(width, 2 * n_heads * kernel_width, bias=False) for _ in range(2))
        self.out = nn.ModuleList([nn.Linear(n_values, width), nn.Linear(width, width)])

    def forward(self, u: Float[Tensor, "batch n m width"], angles: Sequence[Tensor]) -> Tensor:
        u = self.norm(u)
        value, u = self.value(u).unflatten(-1, (self.n_heads, -1)), self.inner(u)
        kernels = []
        for axis, (to_axis, query_key) in enumerate(zip(self.to_axis, self.query_key, strict=True)):
            query, key = query_key(to_axis(u, 2 - axis)).unflatten(-1, (2, self.n_heads, -1)).unbind(2)
            cos, sin = angles[axis][:, None].cos(), angles[axis][:, None].sin()
            turned = []
            for a, b in (query.chunk(2, dim=-1), key.chunk(2, dim=-1)):
                turned.append(torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1))
            kernels.append(torch.einsum("bihd,bjhd->bhij", *turned) / u.shape[1 + axis])
        z = torch.einsum("bhij,bjmhc->bimhc", kernels[0], value)
        z = torch.einsum("bhlm,bimhc->bilhc", kernels[1], z).flatten(3)
        z = layer_norm(z.movedim(-1, 1), z.shape[1:3], eps=1e-6).movedim(1, -1)
        return self.out[1](gelu(self.out[0](z)))


class PlainFactFormer(nn.Module):
    """u <- u + E_l(x),  u <- u + A_l(u),  with cosines and sines of random waves in E; two axes, chained.

    Li, Shu, Barati Farimani (2023), arXiv 2305.17560.
    """

    wave_vectors: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        width: int = 48,
        n_layers: int = 3,
        n_heads: int = 4,
        head_width: int = 12,
        kernel_width: int = 32,
        projection_width: int = 64,
    ) -> None:
        super().__init__()
        self.periodic, self.half = periodic, kernel_width // 2
        self.lifting = nn.Linear(in_channels, width)
        self.positions = nn.ModuleList(nn.Linear(width, width) for _ in range(n_layers))
        self.layers = nn.ModuleList(
            _PlainFactorisedAttention(width, n_heads, head_width, kernel_width) for _ in range(n_layers)
        )
        self.projection = nn.ModuleList([nn.Linear(width, projection_width), nn.Linear(projection_width, out_channels)])

    @classmethod
    def with_weights_of(cls, ours: FactFormer) -> PlainFactFormer:
        layer = ours.layers[0]
        assert isinstance(layer, FactorisedAttention)
        _require(len(ours.layers) == ours._n_layers, "layers with weights of their own")
        _require(not layer._parallel and len(ours._nodes) == 2, "chained kernels of two axes")
        plain = cls(
            in_channels=ours.lifting.in_features,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            periodic=_is_periodic(ours._nodes),
            width=ours.lifting.out_features,
            n_layers=ours._n_layers,
            n_heads=layer._n_heads,
            head_width=layer.value.out_features // layer._n_heads,
            kernel_width=ours._kernel_width,
            projection_width=ours.get_parameter("projection.0.bias").numel(),
        )
        plain = _holding(plain, ours)
        plain.wave_vectors = ours.wave_vectors
        return plain

    def forward(self, x: Float[Tensor, "batch in_channels n m"]) -> Float[Tensor, "batch out_channels n m"]:
        u = self.lifting(x.movedim(1, -1))
        positions = _positions(x.shape[2:], self.periodic, x).movedim(0, -1)
        j = torch.arange(self.half, dtype=x.dtype, device=x.device)
        frequencies = 64 * 10000.0 ** (-j / self.half)
        if self.periodic:
            frequencies = 2 * math.pi * torch.round(frequencies / (2 * math.pi))
        angles = [torch.outer(axis, frequencies) for axis in (positions[:, 0, 0], positions[0, :, 1])]
        for waves, position, layer in zip(self.wave_vectors, self.positions, self.layers, strict=True):
            phase = 2 * math.pi * positions @ waves
            u = u + position(torch.cat([phase.sin(), phase.cos()], dim=-1))
            u = u + layer(u, angles)
        return self.projection[1](gelu(self.projection[0](u))).movedim(-1, 1)


# Poseidon ------------------------------------------------------------------------------------------------------------


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
            _require(n % size == 0, "windows that fill every axis")
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
            nn.Sequential(*(_PlainConvNeXt(n, 2, kernel, edges, eps=1e-5) for _ in range(n_blocks)))
            for n in channels[:-1]
        )
        self.decoder = nn.ModuleList(layers(stage, range(depth)[::-1]) for stage in range(n_stages))
        self.up = nn.ModuleList(_PlainUp(n) for n in channels[1:])
        self.recovery = nn.ConvTranspose2d(width, out_channels, patch, stride=patch)
        self.projection = nn.Conv2d(out_channels, out_channels, 5, padding=2, padding_mode=edges, bias=False)

    @classmethod
    def with_weights_of(cls, ours: Poseidon) -> PlainPoseidon:
        _require(len(ours._nodes) == 2, "two axes")
        attentions = [part for part in ours.encoder.modules() if isinstance(part, WindowAttention)]
        n_heads, width = attentions[0].n_heads, ours.embedding.out_channels
        counts = attentions[0].windows._counts
        _require(len(set(counts)) == 1, "square grids")
        plain = cls(
            in_channels=ours.embedding.in_channels,
            out_channels=ours.recovery.out_channels,
            tokens=counts[0] * attentions[0].windows.sizes[0],
            periodic=_is_periodic(ours._nodes),
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
        return _holding(plain, ours)

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


# DeepONet ------------------------------------------------------------------------------------------------------------


class PlainDeepONet(nn.Module):
    """u_c(y) = sum_k b_ck(a) t_ck(y) + d_c, with a dense branch on samples at sensors; one or two axes.

    The trunk ends with an activation. Its input for a periodic axis is cos 2 pi j x and sin 2 pi j x.

    Lu et al. (2021), arXiv 1910.03193, equation 2; Lu et al. (2022), arXiv 2111.05512, for the waves.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        periodic: bool,
        sensors: tuple[int, ...] = (32, 32),
        n_basis: int = 128,
        width: int = 128,
        n_branch_layers: int = 4,
        n_trunk_layers: int = 4,
        harmonics: int = 2,
    ) -> None:
        super().__init__()
        self.periodic, self.sensors, self.harmonics = periodic, sensors, harmonics
        n_functions = out_channels * n_basis
        n_sampled, n_features = in_channels * math.prod(sensors), len(sensors) * (2 * harmonics if periodic else 1)
        self.branch = self._dense([n_sampled, *[width] * (n_branch_layers - 1), n_functions])[:-1]
        self.trunk = self._dense([n_features, *[width] * (n_trunk_layers - 1), n_functions])
        self.bias = nn.Parameter(torch.zeros(out_channels))

    @classmethod
    def with_weights_of(cls, ours: DeepONet) -> PlainDeepONet:
        branch = [module for module in ours.branch.modules() if isinstance(module, nn.Linear)]
        trunk = [module for module in ours.trunk if isinstance(module, nn.Linear)]
        _require(isinstance(ours.branch.net[0], nn.Flatten), "a dense branch")
        _require(isinstance(ours.trunk[1], nn.GELU) and not ours.needs_pairs, "GELU and no hard boundary")
        _require(ours._harmonics > 0, "harmonics")
        plain = cls(
            in_channels=branch[0].in_features // math.prod(ours.branch.sensors),
            out_channels=len(ours.bias),
            periodic=_is_periodic(ours._nodes),
            sensors=ours.branch.sensors,
            n_basis=trunk[-1].out_features // len(ours.bias),
            width=trunk[0].out_features,
            n_branch_layers=len(branch),
            n_trunk_layers=len(trunk),
            harmonics=ours._harmonics,
        )
        return _holding(plain, ours)

    def _dense(self, widths: Sequence[int]) -> nn.Sequential:
        layers = [layer for n_in, n_out in itertools.pairwise(widths) for layer in (nn.Linear(n_in, n_out), nn.GELU())]
        return nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space, n_channels = x.shape[2:], len(self.bias)
        samples = x if space == self.sensors else _interpolated(x, self.sensors, self.periodic)
        coefficients = self.branch(samples.flatten(1)).unflatten(1, (n_channels, -1))
        features = _positions(space, self.periodic, x).flatten(1).T
        if self.periodic:
            j = torch.arange(1, self.harmonics + 1, dtype=x.dtype, device=x.device)
            phase = 2 * math.pi * features[..., None] * j
            features = torch.cat([torch.cos(phase), torch.sin(phase)], dim=-1).flatten(1)
        functions = self.trunk(features).unflatten(1, (n_channels, -1))
        u = torch.einsum("bck,nck->bcn", coefficients, functions) + self.bias[:, None]
        return u.unflatten(2, space)


# Transolver ----------------------------------------------------------------------------------------------------------


class PlainSliceAttention(nn.Module):
    """w_xg = softmax_g((S a(x) + b)_g / T),  z_g = sum_x w_xg f(x) / max(sum_x w_xg, 1e-5),  attention among the z_g,
    and u(x) = sum_g w_xg z_g in every head; then heads are merged. a and f are convolutions.

    Wu et al. (2024), arXiv 2402.02366, section 3.1.
    """

    def __init__(self, width: int, *, n_dims: int, n_heads: int, n_slices: int, kernel: int, periodic: bool) -> None:
        super().__init__()
        n_features = width // n_heads
        self.n_heads = n_heads
        self.features = _CONV[n_dims](
            width, 2 * width, kernel, padding=kernel // 2, padding_mode="circular" if periodic else "zeros"
        )
        self.slices = nn.Linear(n_features, n_slices)
        self.temperature = nn.Parameter(torch.full((n_heads, 1, 1), 0.5))
        self.query, self.key, self.value = (nn.Linear(n_features, n_features, bias=False) for _ in range(3))
        self.merge = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch *space width"]) -> Float[Tensor, "batch *space width"]:
        a, f = (
            part.flatten(2).transpose(1, 2).unflatten(2, (self.n_heads, -1)).transpose(1, 2)
            for part in self.features(x.movedim(-1, 1)).chunk(2, dim=1)
        )
        weights = (self.slices(a) / self.temperature.clamp(0.1, 5)).softmax(dim=-1)
        tokens = torch.einsum("bhxg,bhxc->bhgc", weights, f) / weights.sum(dim=2)[..., None].clamp(min=1e-5)
        scores = torch.einsum("bhgc,bhkc->bhgk", self.query(tokens), self.key(tokens)) / math.sqrt(f.shape[-1])
        tokens = torch.einsum("bhgk,bhkc->bhgc", scores.softmax(dim=-1), self.value(tokens))
        out = torch.einsum("bhxg,bhgc->bxhc", weights, tokens).flatten(2)
        return self.merge(out).view_as(x)


class _PlainTransolverBlock(nn.Module):
    def __init__(self, attention: PlainSliceAttention, width: int, ffn_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = attention
        self.ffn = nn.ModuleList([nn.Linear(width, ffn_width), nn.Linear(ffn_width, width)])

    def forward(self, v: Float[Tensor, "batch *space width"]) -> Float[Tensor, "batch *space width"]:
        v = v + self.attention(self.norms[0](v))
        return v + self.ffn[1](gelu(self.ffn[0](self.norms[1](v))))


class PlainTransolver(nn.Module):
    """v_0 = E_2 gelu(E_1 (a, p)) + c,  v <- v + A(LN v),  v <- v + F(LN v),  u = D LN v; one or two axes.

    p are the distances to a lattice of ``reference_points`` per axis. Wu et al. (2024), arXiv 2402.02366.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 32,
        n_layers: int = 4,
        n_heads: int = 4,
        n_slices: int = 16,
        ffn_width: int = 64,
        kernel: int = 3,
        reference_points: int = 8,
    ) -> None:
        super().__init__()
        self.periodic, self.reference_points = periodic, reference_points
        widths = (in_channels + reference_points**n_dims, 2 * width, width)
        self.lifting = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))
        self.placeholder = nn.Parameter(torch.rand(width) / width)
        attention = {"n_dims": n_dims, "n_heads": n_heads, "n_slices": n_slices, "kernel": kernel}
        self.blocks = nn.ModuleList(
            _PlainTransolverBlock(PlainSliceAttention(width, periodic=periodic, **attention), width, ffn_width)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, out_channels)

    @classmethod
    def with_weights_of(cls, ours: Transolver) -> PlainTransolver:
        block, reference_points = ours.blocks[0], ours._reference_points
        assert isinstance(block, Block)
        if reference_points is None:
            raise ValueError("The plain form only supports reference points.")
        n_dims = len(ours._nodes)
        plain = cls(
            in_channels=ours.get_parameter("lifting.0.weight").shape[1] - reference_points**n_dims,
            out_channels=ours.projection.out_features,
            n_dims=n_dims,
            periodic=_is_periodic(ours._nodes),
            width=ours.projection.in_features,
            n_layers=len(ours.blocks),
            n_heads=block.attention.n_heads,
            n_slices=block.attention.slices.out_features,
            ffn_width=block.get_parameter("ffn.0.bias").numel(),
            kernel=1 if ours.resolution_free else block.get_parameter("attention.features.conv.weight").shape[-1],
            reference_points=reference_points,
        )
        return _holding(plain, ours)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        here = _positions(x.shape[2:], self.periodic, x).flatten(1).T
        lattice = _positions((self.reference_points,) * (x.ndim - 2), False, x).flatten(1).T
        distances = (here[:, None] - lattice).square().sum(dim=-1).sqrt().T.unflatten(1, x.shape[2:])
        v = torch.cat([x, distances.expand(len(x), *distances.shape)], dim=1).movedim(1, -1)
        v = self.lifting[1](gelu(self.lifting[0](v))) + self.placeholder
        for block in self.blocks:
            v = block(v)
        return self.projection(self.norm(v)).movedim(-1, 1)


# General neural operator transformer ---------------------------------------------------------------------------------


class _PlainPerceptron(nn.ModuleList):
    def __init__(self, *widths: int) -> None:
        super().__init__(nn.Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))

    def forward(self, v: Tensor) -> Tensor:
        return self[1](gelu(self[0](v)))


class PlainNormalizedAttention(nn.Module):
    """z_t = q_t + sum_i <q_t, k_i> v_i / sum_i <q_t, k_i> in every head, with softmax over the features of q and k.

    Hao et al. (2023), arXiv 2302.14376, section 3.2.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.merge = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Float[Tensor, "batch n width"], y: Float[Tensor, "batch m width"]) -> Tensor:
        query, key, value = (
            linear(v).unflatten(-1, (self.n_heads, -1))
            for linear, v in ((self.query, x), (self.key, y), (self.value, y))
        )
        query, key = query.softmax(dim=-1), key.softmax(dim=-1)
        total = torch.einsum("bthc,bhc->bth", query, key.sum(dim=1))
        out = torch.einsum("bthc,bhcd->bthd", query, torch.einsum("bihc,bihd->bhcd", key, value))
        return self.merge((out / total[..., None] + query).flatten(2))


class PlainMixture(nn.Module):
    """F(v) = sum_e g_e (W_e gelu(U_e v + a_e) + b_e), one expert after the other."""

    def __init__(self, width: int, ffn_width: int, n_experts: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, n_experts * ffn_width)
        self.weight = nn.Parameter(torch.zeros(width, n_experts * ffn_width))
        self.bias = nn.Parameter(torch.zeros(n_experts, width))

    def forward(self, v: Float[Tensor, "batch n width"], gates: Float[Tensor, "n expert"]) -> Tensor:
        n_experts = len(self.bias)
        parts = zip(
            self.first.weight.chunk(n_experts),
            self.first.bias.chunk(n_experts),
            self.weight.chunk(n_experts, dim=1),
            self.bias,
            strict=True,
        )
        outputs = [linear(gelu(linear(v, u, a)), w, b) for u, a, w, b in parts]
        return (torch.stack(outputs, dim=-1) * gates[:, None]).sum(dim=-1)


class _PlainGNOTBlock(nn.Module):
    def __init__(self, width: int, *, n_dims: int, n_heads: int, ffn_width: int, n_experts: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.cross, self.own = (PlainNormalizedAttention(width, n_heads) for _ in range(2))
        self.mixtures = nn.ModuleList(PlainMixture(width, ffn_width, n_experts) for _ in range(2))
        widths = (n_dims, ffn_width, ffn_width, n_experts)
        layers = [layer for n_in, n_out in itertools.pairwise(widths) for layer in (nn.Linear(n_in, n_out), nn.GELU())]
        self.gate = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, z: Tensor, positions: Tensor) -> Tensor:
        gates = self.gate(positions).softmax(dim=-1)
        x = x + self.cross(self.norms[0](x), self.norms[1](z))
        x = x + self.norms[2](self.mixtures[0](x, gates))
        x = x + self.own(self.norms[3](x), self.norms[3](x))
        return x + self.norms[4](self.mixtures[1](x, gates))


class PlainGNOT(nn.Module):
    """x_0 = X(p),  z = Z(a, p) + c,  x_{l+1} = B_l(x_l, z, p),  u = D(x_L); one or two axes.

    Hao et al. (2023), arXiv 2302.14376.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        n_dims: int,
        periodic: bool,
        width: int = 32,
        n_layers: int = 2,
        n_heads: int = 4,
        ffn_width: int = 64,
        n_experts: int = 3,
    ) -> None:
        super().__init__()
        self.periodic = periodic
        self.positions = _PlainPerceptron(n_dims, 2 * width, width)
        self.fields = _PlainPerceptron(in_channels + n_dims, 2 * width, width)
        self.placeholder = nn.Parameter(torch.rand(width) / width)
        sizes = {"n_dims": n_dims, "n_heads": n_heads, "ffn_width": ffn_width, "n_experts": n_experts}
        self.blocks = nn.ModuleList(_PlainGNOTBlock(width, **sizes) for _ in range(n_layers))
        self.projection = _PlainPerceptron(width, 2 * width, out_channels)

    @classmethod
    def with_weights_of(cls, ours: GNOT) -> PlainGNOT:
        block = ours.blocks[0]
        assert isinstance(block, GNOTBlock)
        n_experts, width = block.get_parameter("mixtures.0.bias").shape
        n_dims = len(ours._nodes)
        plain = cls(
            in_channels=ours.get_parameter("fields.0.weight").shape[1] - n_dims,
            out_channels=ours.get_parameter("projection.1.bias").numel(),
            n_dims=n_dims,
            periodic=_is_periodic(ours._nodes),
            width=width,
            n_layers=len(ours.blocks),
            n_heads=block.cross.n_heads,
            ffn_width=block.get_parameter("gate.0.bias").numel(),
            n_experts=n_experts,
        )
        return _holding(plain, ours)

    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        joined = _with_positions(a, self.periodic).flatten(2).transpose(1, 2)
        positions = joined[..., a.shape[1] :]
        x, z = self.positions(positions), self.fields(joined) + self.placeholder
        for block in self.blocks:
            x = block(x, z, positions[0])
        return self.projection(x).transpose(1, 2).unflatten(2, a.shape[2:])


# Attention -----------------------------------------------------------------------------------------------------------


class _HeadNorm(nn.Module):
    """Layer normalisation over the features of a head, with a scale and a shift for each head."""

    def __init__(self, n_heads: int, n_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_heads, n_features))
        self.bias = nn.Parameter(torch.zeros(n_heads, n_features))

    def forward(self, x: Float[Tensor, "batch n head feature"]) -> Float[Tensor, "batch n head feature"]:
        return layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class PlainGalerkinAttention(nn.Module):
    """z = Q (K'^T V' / n) in every head, with the points' coordinates appended to Q, K' and V'; then heads are merged.

    Cao (2021), arXiv 2105.14995.
    """

    def __init__(self, *, width: int, n_heads: int, n_dims: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.norms = nn.ModuleList(_HeadNorm(n_heads, width // n_heads) for _ in range(2))
        self.merge = nn.Linear(width + n_heads * n_dims, width)

    @classmethod
    def with_weights_of(cls, ours: LinearAttention) -> PlainGalerkinAttention:
        _require(ours.kind == "galerkin", "attention of Galerkin type")
        return _holding(cls(**_sizes(ours)), ours)

    def forward(self, x: Float[Tensor, "batch n width"], positions: Float[Tensor, "n axis"]) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.n_heads, -1)) for linear in (self.query, self.key, self.value)
        )
        key, value = self.norms[0](key), self.norms[1](value)
        joined = positions[:, None].expand(*query.shape[:3], -1)
        query, key, value = (torch.cat([joined, factor], dim=-1) for factor in (query, key, value))
        mean = torch.einsum("bnhd,bnhe->bhde", key, value) / x.shape[1]
        return self.merge(torch.einsum("bnhd,bhde->bnhe", query, mean).flatten(2))


class SoftmaxAttention(nn.Module):
    """z = softmax(Q K^T / sqrt(d)) V, with coordinates appended and heads merged as in the attention above.

    The cost is quadratic in the number of points.

    Vaswani et al. (2017), arXiv 1706.03762.
    """

    def __init__(self, *, width: int, n_heads: int, n_dims: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.merge = nn.Linear(width + n_heads * n_dims, width)

    @classmethod
    def with_weights_of(cls, ours: LinearAttention) -> SoftmaxAttention:
        """Make one with the affine maps of ``ours``. The normalisation of ``ours`` has no counterpart here."""
        affine = nn.ModuleDict({name: ours.get_submodule(name) for name in ("query", "key", "value", "merge")})
        return _holding(cls(**_sizes(ours)), affine)

    def forward(self, x: Float[Tensor, "batch n width"], positions: Float[Tensor, "n axis"]) -> Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for linear in (self.query, self.key, self.value)
        )
        joined = positions.expand(*query.shape[:2], *positions.shape)
        query, key, value = (torch.cat([joined, factor], dim=-1) for factor in (query, key, value))
        return self.merge(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


def _sizes(ours: LinearAttention) -> dict[str, int]:
    width, merged = ours.merge.out_features, ours.merge.in_features
    return {"width": width, "n_heads": ours.n_heads, "n_dims": (merged - width) // ours.n_heads}
