"""Galerkin transformer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.attention import Kind, LinearAttention
from neuralop_bench.layers.conv import Conv, edges_of
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import one_for_each, require_at_least, require_known
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.resample import resample
from neuralop_bench.layers.spectral_conv import Init, SpectralConv, fourier_layer, require_modes
from neuralop_bench.layers.walls import wall_axes, wall_values

_WHO = "GalerkinTransformer"
# Boundary values closer than this are one value. Targets are normalised, so the unit is their standard deviation.
_TOLERANCE = 1e-5


class GalerkinTransformer(nn.Module):
    """Linear attention between the points of a grid, and a decoder of spectral convolutions.

        v_0 = E(a),    w_l = v_l + A_l(v_l, x),    v_{l+1} = w_l + F_l(w_l),    u = D(v_L)

    A_l is attention without softmax (``layers.attention.LinearAttention``), F_l a network with one hidden layer (ReLU)
    at each point. With ``block_norm``, layer normalisation acts on both sums instead of in the heads.

    D has spectral convolutions K_l beside pointwise maps W_l, and a pointwise network with one hidden layer:

        s_{l+1} = silu(K_l s_l + W_l s_l + b_l),    u = Q_2 silu(Q_1 s)

    Without ``coarse``, E is an affine map at each point, and s_0 = v_L. With it, attention acts on a coarse grid. E is
    then a network of convolutions, whose kernels have 3 points per axis, with two steps of linear interpolation down;
    the first leads to the geometric mean of the two sizes. Two steps with a convolution between them lead up again, and
    s_0 is an affine map of the result.

    These convolutions depend on the spacing, so they always act on the grids they were trained on: inputs on other
    grids are first interpolated to the training grid, and the last step up leads to the grid of the input. The network
    therefore runs at any resolution, but gains no detail from inputs finer than the training grid. Grids that contain
    the training grid's nodes get the same features; the outputs differ only because the decoder aliases the kinks of
    linear interpolation.

    With ``dirichlet_ring``, the output on the boundary of closed Dirichlet axes is set to the boundary value, one
    constant per channel that ``prepare`` reads from the training targets. Until then the network's own values stay.
    The published code sets 0 after decoding; this operator works in normalised units, in which the boundary value isn't
    0.

    There are two variants in configs/model: ``galerkin`` and ``fourier_transformer``.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        width: features in attention.
        n_heads: heads, a divisor of ``width``.
        n_layers: pairs of A_l and F_l.
        ffn_width: hidden features of F_l.
        attention: ``galerkin`` or ``fourier``.
        block_norm: normalise after each sum instead of in the heads (the published network for Navier-Stokes).
        init_gain, init_diagonal: of Q, K and V (``LinearAttention``). Published: 1e-3 as gain of the Fourier type.
        coarse: points per axis of the grid for attention: one number, one for each axis, or the fraction (0.5) of the
            training grid's intervals that is kept. null for attention on the grid itself.
        decoder_width: channels of the spectral convolutions.
        n_decoder_layers: spectral convolutions.
        n_modes: positive wavenumbers that the decoder keeps per axis: one number, or one for each axis.
        projection_width: hidden channels of Q.
        spectral_init: initialisation of the spectral weights (``SpectralConv``).
        coordinates: ``nodes`` to append the positions of the nodes to the input (with ``coarse``, to the decoder's
            input instead), ``none`` to give them to attention alone.
        dropout: fraction of values dropped in training, in the outputs of A_l, of F_l and of the convolutions that lead
            to the coarse grid.
        ffn_dropout: the same for the hidden features of F_l; null for ``dropout``.
        norm_eps: added to the variances in all layer normalisations. Published: 1e-7 on Darcy grids below 211 points.
        dirichlet_ring: set the output on the boundary of closed Dirichlet axes.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: more modes than the grid holds.
        ValueError: a size below 1; an unknown option; a width that isn't a multiple of
            ``n_heads``; a coarse grid larger than the grid or below 2 points; a dropout outside [0, 1).

    Reference: Cao (2021), Choose a Transformer: Fourier or Galerkin, arXiv 2105.14995, and the code published with it
    (scaomath/galerkin-transformer).
    Departures: no dropout inside attention (``LinearAttention``); the convolution on the way up has one activation,
    where the published code applies the same one twice; the initial spectral weights are those of the other models
    here.

    >>> model = GalerkinTransformer(in_channels=10, out_channels=1, grid=Grid.periodic(64))
    >>> sum(p.numel() for p in model.parameters())
    862049
    """

    resolution_free: ClassVar[bool] = True

    ring: Tensor
    ring_is_known: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 48,
        n_heads: int = 1,
        n_layers: int = 4,
        ffn_width: int = 96,
        attention: Kind = "galerkin",
        block_norm: bool = False,
        init_gain: float = 1e-2,
        init_diagonal: float = 1e-2,
        coarse: int | float | Sequence[int] | None = None,
        decoder_width: int = 20,
        n_decoder_layers: int = 2,
        n_modes: int | Sequence[int] = 12,
        projection_width: int = 20,
        spectral_init: Init = "normal",
        coordinates: Literal["nodes", "none"] = "nodes",
        dropout: float = 0.0,
        ffn_dropout: float | None = None,
        norm_eps: float = 1e-5,
        dirichlet_ring: bool = True,
    ) -> None:
        super().__init__()
        modes = one_for_each(n_modes, grid.n_dims)
        require_modes(grid.shape, modes, _WHO)
        ffn_dropout = dropout if ffn_dropout is None else ffn_dropout
        for name, fraction in {"dropout": dropout, "ffn_dropout": ffn_dropout}.items():
            if not 0 <= fraction < 1:
                raise ValueError(f"{_WHO} needs model.{name} to be at least 0 and below 1, got {fraction}.")
        require_at_least(1, _WHO, width=width, n_heads=n_heads, n_layers=n_layers, ffn_width=ffn_width)
        require_at_least(1, _WHO, decoder_width=decoder_width, n_decoder_layers=n_decoder_layers)
        require_at_least(1, _WHO, projection_width=projection_width)
        require_known(_WHO, "coordinates", coordinates, ("nodes", "none"))
        self._nodes = grid.nodes
        self._coordinates = grid.nodes if coordinates == "nodes" else None
        self._ring_axes = wall_axes(grid) if dirichlet_ring else ()
        n_coordinates = 0 if self._coordinates is None else grid.n_dims
        if coarse is None:
            self.features: nn.Module = Pointwise(in_channels + n_coordinates, width)
            self.upscaling, self.lifting = None, None
        else:
            shape = coarse_shape(grid, coarse)
            self.features = Downscaling(in_channels, width, grid, shape, dropout)
            self.upscaling = Upscaling(width, grid, shape)
            self.lifting = Pointwise(width + n_coordinates, decoder_width)
        attend = partial(LinearAttention, width=width, n_heads=n_heads, n_dims=grid.n_dims, kind=attention)
        attend = partial(
            attend, norm=not block_norm, norm_eps=norm_eps, init_gain=init_gain, init_diagonal=init_diagonal
        )
        self.encoder = nn.ModuleList(
            EncoderLayer(
                attend(),
                width,
                ffn_width,
                norm_eps=norm_eps if block_norm else None,
                dropout=dropout,
                ffn_dropout=ffn_dropout,
            )
            for _ in range(n_layers)
        )
        channels = (width if coarse is None else decoder_width, *(decoder_width,) * (n_decoder_layers - 1))
        self.spectral = nn.ModuleList(SpectralConv(n, decoder_width, modes, spectral_init) for n in channels)
        self.pointwise = nn.ModuleList(Pointwise(n, decoder_width) for n in channels)
        self.projection = Perceptron(decoder_width, projection_width, out_channels, nn.functional.silu)
        self.idle = (
            {} if wall_axes(grid) else {"dirichlet_ring": "the grid has no closed axis with a Dirichlet condition"}
        )
        self.register_buffer("ring", torch.zeros(out_channels))
        self.register_buffer("ring_is_known", torch.zeros((), dtype=torch.bool))

    @property
    def needs_pairs(self) -> bool:
        """Whether ``prepare`` needs the training pairs."""
        return bool(self._ring_axes)

    @torch.no_grad()
    def prepare(
        self,
        inputs: Float[Tensor, "sample in_channels *space"],  # noqa: ARG002  (given to every model that prepares)
        targets: Float[Tensor, "sample out_channels *space"],
    ) -> None:
        """Read the boundary values from the training targets; called once before training.

        Args:
            inputs: encoded training inputs; unused.
            targets: encoded training targets.

        Raises:
            ValueError: the targets vary along the boundary.
        """
        if not self._ring_axes:
            return
        values = wall_values(targets, self._ring_axes)
        for channel, spread in enumerate((values.amax(dim=1) - values.amin(dim=1)).tolist()):
            if not spread <= _TOLERANCE:
                raise ValueError(
                    f"GalerkinTransformer sets the output on Dirichlet boundaries to one constant per channel, but the "
                    f"training targets of channel {channel} differ there by {spread:.3g} (normalised). Use "
                    "model.dirichlet_ring=false."
                )
        self.ring.copy_(values[:, 0])
        self.ring_is_known.fill_(True)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        if self.upscaling:
            v = self.features(x)
        else:
            with unrounded(x):
                v = self.features(self._with_coordinates(x))
        latent = v.shape[2:]
        positions = append_coordinates(x.new_empty(1, 0, *latent), self._nodes)[0].flatten(1).T
        tokens = v.flatten(2).transpose(1, 2).contiguous()  # one copy here instead of one in every product
        for layer in self.encoder:
            tokens = layer(tokens, positions)
        v = tokens.unflatten(1, latent)
        if self.upscaling and self.lifting:
            upscaled = self._with_coordinates(self.upscaling(v.movedim(-1, 1), space))
            with unrounded(x):
                v = self.lifting(widened(upscaled)).movedim(1, -1)
        for spectral, pointwise in zip(self.spectral, self.pointwise, strict=True):
            v = nn.functional.silu(fourier_layer(v, cast(SpectralConv, spectral), cast(Pointwise, pointwise)))
        return self._with_ring(self.projection.channels_last(v).movedim(-1, 1))

    def _with_coordinates(self, x: Tensor) -> Tensor:
        return x if self._coordinates is None else append_coordinates(x, self._coordinates)

    def _with_ring(self, u: Tensor) -> Tensor:
        value = self.ring.view(-1, *(1,) * (u.ndim - 2))
        for axis in self._ring_axes:
            n = u.shape[axis + 2]
            index = torch.arange(n, device=u.device).view(-1, *(1,) * (u.ndim - axis - 3))
            ends = (index == 0) | (index == n - 1)
            u = torch.where(ends & self.ring_is_known, value, u)
        return u


class EncoderLayer(nn.Module):
    """Attention, then a network with one hidden layer at each point; the output of each is added to its input.

    Args:
        attention: maps features and positions to features.
        width: features of a point.
        ffn_width: hidden features.
        norm_eps: added to the variances in the layer normalisations of both sums; None for no normalisation.
        dropout, ffn_dropout: fraction of values dropped in training, in both outputs and in the hidden features.

    Shapes: [batch, n, width] and positions [n, n_dims] to [batch, n, width].
    """

    def __init__(
        self,
        attention: LinearAttention,
        width: int,
        ffn_width: int,
        *,
        norm_eps: float | None,
        dropout: float,
        ffn_dropout: float,
    ) -> None:
        super().__init__()
        self.attention = attention
        self.ffn = nn.Sequential(
            nn.Linear(width, ffn_width), nn.ReLU(), nn.Dropout(ffn_dropout), nn.Linear(ffn_width, width)
        )
        self.dropout = nn.Dropout(dropout)
        self.norms = nn.ModuleList(
            nn.Identity() if norm_eps is None else nn.LayerNorm(width, eps=norm_eps) for _ in range(2)
        )

    def forward(
        self, v: Float[Tensor, "batch n width"], positions: Float[Tensor, "n n_dims"]
    ) -> Float[Tensor, "batch n width"]:
        v = self.norms[0](v + self.dropout(self.attention(v, positions)))
        return self.norms[1](v + self.dropout(self.ffn(v)))


class Downscaling(nn.Module):
    """Features on a coarse grid: a convolution, then three more whose outputs are joined, each part then interpolated.

        v = relu(C_0 a) on the middle grid,    h_1 = relu(C_1 v),  h_2 = relu(C_2 h_1),  h_3 = relu(C_3 h_2),
        features = (h_1, h_2, h_3) on the coarse grid

    The convolutions have no bias. Inputs on other grids are interpolated to the training grid.

    Args:
        in_channels: channels of the input.
        width: features, divided among h_1, h_2 and h_3 (128 = 42 + 42 + 44).
        grid: the training grid.
        coarse: shape of the coarse grid.
        dropout: fraction of the values of each convolution dropped in training.

    Shapes: [batch, in_channels, *space] to [batch, width, *coarse].

    Raises:
        ValueError: a width below 3.
    """

    def __init__(self, in_channels: int, width: int, grid: Grid, coarse: Sequence[int], dropout: float) -> None:
        super().__init__()
        require_at_least(3, "With model.coarse, GalerkinTransformer", width=width)
        third, edges = width // 3, edges_of(grid)
        self._nodes = grid.nodes
        self._shapes = (grid.shape, _middle(grid.shape, coarse), tuple(coarse))
        self.first = Conv(in_channels, width, edges=edges, bias=False)
        self.rest = nn.ModuleList(
            Conv(n_in, n_out, edges=edges, bias=False)
            for n_in, n_out in ((width, third), (third, third), (third, width - 2 * third))
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch width *coarse"]:
        fine, middle, coarse = self._shapes
        v = self.dropout(self.first(resample(x, self._nodes, fine))).relu()
        h = resample(v, self._nodes, middle)
        joined = []
        for conv in self.rest:
            h = self.dropout(conv(h)).relu()
            joined.append(h)
        return resample(torch.cat(joined, dim=1), self._nodes, coarse)


class Upscaling(nn.Module):
    """From the coarse grid to any other: interpolation to a middle grid, a convolution without bias, interpolation.

    Args:
        width: features.
        grid: the training grid; the middle grid lies between it and the coarse one.
        coarse: shape of the coarse grid.

    Shapes: [batch, width, *coarse] to [batch, width, *space].
    """

    def __init__(self, width: int, grid: Grid, coarse: Sequence[int]) -> None:
        super().__init__()
        self._nodes: tuple[Nodes, ...] = grid.nodes
        self._middle = _middle(grid.shape, coarse)
        self.conv = Conv(width, width, edges=edges_of(grid), bias=False)

    def forward(self, v: Float[Tensor, "batch width *coarse"], space: Sequence[int]) -> Tensor:
        v = nn.functional.silu(self.conv(resample(v, self._nodes, self._middle)))
        return resample(v, self._nodes, space)


def coarse_shape(grid: Grid, coarse: int | float | Sequence[int]) -> tuple[int, ...]:
    """Points per axis of the grid for attention; a fraction counts intervals on closed axes, points on others.

    Raises:
        ValueError: another number of axes, more points than the grid has, or fewer than 2.

    >>> closed = Grid((85, 61), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))
    >>> coarse_shape(closed, 0.5), coarse_shape(closed, 43), coarse_shape(Grid.periodic(64), 0.5)
    ((43, 31), (43, 43), (32, 32))
    """
    if isinstance(coarse, float):
        ends = [1 if nodes == "closed" else 0 for nodes in grid.nodes]
        shape = tuple(round(coarse * (n - end)) + end for n, end in zip(grid.shape, ends, strict=True))
    else:
        shape = one_for_each(coarse, grid.n_dims)
    if len(shape) != grid.n_dims or any(not 2 <= m <= n for m, n in zip(shape, grid.shape, strict=True)):
        raise ValueError(
            f"model.coarse={coarse!r} gives attention a grid of shape {shape}, but every axis needs at least 2 points "
            f"and at most those of the training grid, {grid.shape}. Change model.coarse, or set it to null."
        )
    return shape


def _middle(fine: Sequence[int], coarse: Sequence[int]) -> tuple[int, ...]:
    return tuple(round(math.sqrt(n * m)) for n, m in zip(fine, coarse, strict=True))
