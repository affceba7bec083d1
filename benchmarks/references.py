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

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate, layer_norm, max_pool2d, pad, scaled_dot_product_attention

from data_gen.grids import Nodes
from neuralop_bench.layers.attention import LinearAttention
from neuralop_bench.layers.conv import Edge
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.cno import CNO
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.factformer import FactFormer, FactorisedAttention
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.lsm import LSM, NeuralSpectralBlock
from neuralop_bench.models.mgno import MgNO, VCycle

_CONV = {1: nn.Conv1d, 2: nn.Conv2d}
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
    weight = torch.complex(*weight)
    return weight.movedim((-2, -1), (0, 1)).chunk(2, dim=2) if weight.ndim == 4 else [weight.movedim(0, -1)]


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
    """v_hat_o(k) = sum_i W_io(k) u_hat_i(k) for the low modes, zero for the others; one or two axes.

    With two axes, the kept modes are two corners of the half spectrum: k_1 = 0 ... K_1 - 1 and k_1 = -K_1 ... -1.
    Li et al. (2021), arXiv 2010.08895, equation 5.
    """

    def __init__(self, in_channels: int, out_channels: int, n_modes: tuple[int, ...]) -> None:
        super().__init__()
        self.n_modes = n_modes
        scale = 1 / (in_channels * out_channels)
        self.weights = nn.ParameterList(
            scale * torch.rand(in_channels, out_channels, *n_modes, dtype=torch.cfloat) for _ in n_modes
        )

    @classmethod
    def with_weights_of(cls, ours: SpectralConv) -> PlainSpectralConv:
        _require(ours.factors is None, "dense weights")
        *_, in_channels, out_channels = ours.weight.shape
        return _holding(cls(in_channels, out_channels, ours.n_modes), ours)

    def forward(self, u: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        return self._line(u) if len(self.n_modes) == 1 else self._plane(u)

    def _line(self, u: Tensor) -> Tensor:
        (k,) = self.n_modes
        (weight,) = self.weights
        u_hat = torch.fft.rfft(u)
        v_hat = u_hat.new_zeros(u.shape[0], weight.shape[1], u_hat.shape[2])
        v_hat[:, :, :k] = torch.einsum("bix,iox->box", u_hat[:, :, :k], weight)
        return torch.fft.irfft(v_hat, n=u.shape[-1])

    def _plane(self, u: Tensor) -> Tensor:
        k1, k2 = self.n_modes
        low, high = self.weights
        u_hat = torch.fft.rfft2(u)
        v_hat = u_hat.new_zeros(u.shape[0], low.shape[1], *u_hat.shape[2:])
        v_hat[:, :, :k1, :k2] = torch.einsum("bixy,ioxy->boxy", u_hat[:, :, :k1, :k2], low)
        v_hat[:, :, -k1:, :k2] = torch.einsum("bixy,ioxy->boxy", u_hat[:, :, -k1:, :k2], high)
        return torch.fft.irfft2(v_hat, s=u.shape[-2:])


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
