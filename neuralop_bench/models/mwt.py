"""Multiwavelet neural operator."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers import truncated_dft
from neuralop_bench.layers.conv import Conv, Edge, edges_of
from neuralop_bench.layers.coordinates import append_coordinates, append_distances
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.multiwavelets import Details, Multiwavelets, n_bands
from neuralop_bench.layers.options import DoesNotFit, choose, require_at_least, require_known
from neuralop_bench.layers.padding import crop, pad_to_multiple
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.spectral_conv import SpectralConv, mix
from neuralop_bench.layers.tables import ACTIVATIONS, Activation


class MWT(nn.Module):
    """Multiwavelet neural operator: features are piecewise polynomials, given by their coefficients on every cell, and
    each layer maps polynomials and wavelets on all scales with the same three small networks.

        v_0 = P(a, x),    v_{l+1} = act(M_l v_l),    u = Q(v_L)

    M_l is a ``MultiwaveletLayer``. P is affine, or has one hidden layer (``lifting_width``); Q has one. The last layer
    has no activation. Every point of the grid is a cell, with k^n_dims coefficients in each channel. The model appends
    coordinates to its input. It runs in 1, 2 and 3 dimensions; k polynomials per axis become tensor products.

    Grids are padded to a multiple of 2^n_levels points per axis: a periodic axis is continued with its own beginning,
    other axes with zeros, and the output is cut back. The published code pads with zeros to a power of two.

    There are two variants in configs/model: ``mwt``, a small network, and ``mwt_nsl``, that of the
    Neural-Solver-Library (the repository of the Transolver paper's authors, github.com/thuml/Neural-Solver-Library) for
    Darcy flow: one channel, 8 layers, two modes, and distances to 64 points instead of coordinates. Its network for
    Navier-Stokes has twice the hidden features in lifting and projection. The authors' own network for Darcy flow has
    k 4, 4 channels, 12 modes, 4 layers, ``n_levels`` null, ``details`` diagonal and ``activation`` relu.

    Departures from the published code:

    - In 1D, its A, B and C are linear Fourier maps. Here they have the form of its 2D code in every dimension.
    - In 2D, it keeps the wavelets G G alone (``details=diagonal``). What depends on a wavelet of one axis only is then
      lost in every decomposition. The default keeps all bands, and the hidden features of A, B and C are as many as
      before.
    - Convolutions wrap around periodic axes, where it has zeros.
    - On coarse grids, where its kept modes overlap, it overwrites some of them. Here A keeps the modes below half the
      points.
    - The weights of A, B, C and T are drawn so that a white field keeps its variance. ``mwt_nsl`` then needs two
      thirds of the steps to the same error on a batch.

    Cost: A has 2 (2 n_modes)^(n_dims - 1) n_modes numbers per pair of features, and B and C 3^n_dims each. All scales
    together have 1 / (1 - 2^-n_dims) times the points of the first.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        k: polynomials per axis. Published: 3 and 4.
        channels: channels of k^n_dims coefficients each. None for 4 k in 1D and 4 in 2D, as published, and 1 in 3D.
        n_modes: positive wavenumbers per axis kept by A, alpha in the paper. Published: 10 in 1D, 12 for Darcy flow.
        n_layers: layers, nCZ in the paper. Published: 2 in 1D, 4 in 2D.
        n_levels: scales below the first. None for as many as it takes until the shortest axis has one cell, as
            published.
        details: ``all`` bands of wavelets, or ``diagonal`` for G G alone. In 1D they are the same.
        lifting_width: hidden features of the lifting; None for an affine map, as published.
        projection_width: hidden features of the projection.
        activation: of lifting and projection and between layers: ``gelu``, ``relu`` or ``tanh``. A, B and C have ReLU.
        coordinates: ``nodes`` for the positions of the grid's nodes, ``distances`` for the distances to a lattice of
            reference points.
        n_references: reference points per axis. Used with ``distances`` only.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: more levels than the grid can be halved, or more modes than the first level's wavelets hold.
        ValueError: a size below 1 or an unknown option.

    Reference: Gupta, Xiao, Bogdan (2021), Multiwavelet-based Operator Learning for Differential Equations, arXiv
    2109.13459, figure 2. Two dimensions as in the code published with it.

    >>> model = MWT(in_channels=1, out_channels=1, grid=Grid.periodic(64))
    >>> sum(p.numel() for p in model.parameters())
    617441
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        k: int = 3,
        channels: int | None = None,
        n_modes: int = 4,
        n_layers: int = 2,
        n_levels: int | None = 4,
        details: Details = "all",
        lifting_width: int | None = None,
        projection_width: int = 128,
        activation: Activation = "gelu",
        coordinates: Literal["nodes", "distances"] = "nodes",
        n_references: int = 8,
    ) -> None:
        super().__init__()
        n_dims = grid.n_dims
        require_at_least(
            1,
            "MWT",
            k=k,
            n_modes=n_modes,
            n_layers=n_layers,
            projection_width=projection_width,
            n_references=n_references,
        )
        require_known("MWT", "details", details, ("all", "diagonal"))
        require_known("MWT", "coordinates", coordinates, ("nodes", "distances"))
        if channels is None:
            channels = {1: 4 * k, 2: 4}.get(n_dims, 1)
        at_most = (min(grid.shape) - 1).bit_length()
        if n_levels is None:
            n_levels = at_most
        require_at_least(1, "MWT", channels=channels, n_levels=n_levels)
        if n_levels > at_most:
            raise DoesNotFit(
                f"MWT halves every axis n_levels={n_levels} times, but the grid has shape {grid.shape}: n_levels must "
                f"be at most {at_most}. Lower model.n_levels or raise the resolution.",
                n_levels=at_most,
            )
        self._multiple = 2**n_levels
        held = _n_held(-(-min(grid.shape) // self._multiple) * self._multiple // 2)
        if n_modes > held:
            raise DoesNotFit(
                f"MWT keeps n_modes={n_modes} of the finest wavelets per axis, but their grid only holds {held}. Lower "
                "model.n_modes or raise the resolution.",
                n_modes=held,
            )
        self.idle = {
            **({"details": "in 1D there is one band of wavelets"} if n_dims == 1 else {}),
            **({"n_references": "it is used with coordinates=distances"} if coordinates != "distances" else {}),
        }
        self._nodes = grid.nodes
        self._n_references = n_references if coordinates == "distances" else None
        self._activation = choose("MWT", "activation", activation, ACTIVATIONS).function
        width = channels * k**n_dims
        given = in_channels + (n_references**n_dims if coordinates == "distances" else n_dims)
        if lifting_width is None:
            self.lifting = Pointwise(given, width)
        else:
            require_at_least(1, "MWT", lifting_width=lifting_width)
            self.lifting = Perceptron(given, lifting_width, width, self._activation)
        self.layers = nn.ModuleList(
            MultiwaveletLayer(channels, k, edges=edges_of(grid), n_modes=n_modes, n_levels=n_levels, details=details)
            for _ in range(n_layers)
        )
        self.projection = Perceptron(width, projection_width, out_channels, self._activation)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        with unrounded(x):
            if self._n_references is None:
                v = append_coordinates(x, self._nodes)
            else:
                v = append_distances(x, self._nodes, self._n_references)
            v = self.lifting(v)
        v = pad_to_multiple(v, self._multiple, self._nodes)
        for layer, mapped in enumerate(self.layers):
            v = mapped(self._activation(v) if layer else v)
        return self.projection(crop(v, x.shape[2:]))


class MultiwaveletLayer(nn.Module):
    """An operator in the non-standard form: polynomials and wavelets of all scales are mapped one scale at a time.

    Going down, every scale is decomposed (``layers.multiwavelets``) and its parts are mapped. Going up, the results are
    put together again, finest scale last:

        s_j, d_j = decompose(s_{j-1}),    U_j = A d_j + B s_j,    V_j = C d_j,    j = 1 ... J,  s_0 = v
        y_J = T s_J,    y_{j-1} = reconstruct(y_j + V_j, U_j),    the result is y_0

    A multiplies the low Fourier modes by matrices, B and C are convolutions over 3 cells per axis; each of them is
    followed by ReLU and an affine map of the features. T is affine. All scales share A, B and C.

    Args:
        channels, k: channels of k^n_dims coefficients each.
        edges: how each axis is continued on every scale (``edges_of``).
        n_modes: positive wavenumbers per axis in A; on coarse scales, as many of them as the grid holds.
        n_levels: J.
        details: bands of wavelets (``Multiwavelets``).

    Shapes: [batch, channels k^n_dims, *space] to the same; every axis has a multiple of 2^n_levels cells.

    Reference: Gupta, Xiao, Bogdan (2021), figure 2; Beylkin, Coifman, Rokhlin (1991), Fast Wavelet Transforms
    and Numerical Algorithms I, for the non-standard form.

    >>> layer = MultiwaveletLayer(2, 3, edges=("circular", "zeros"), n_modes=2, n_levels=3)
    >>> layer(torch.ones(2, 18, 16, 8)).shape
    torch.Size([2, 18, 16, 8])
    """

    def __init__(
        self,
        channels: int,
        k: int,
        *,
        edges: tuple[Edge, ...],
        n_modes: int,
        n_levels: int,
        details: Details = "all",
    ) -> None:
        super().__init__()
        n_dims = len(edges)
        width = channels * k**n_dims
        n_details = n_bands(n_dims, details) * width
        self._n_levels = n_levels
        self.wavelets = Multiwavelets(k, n_dims, details)
        self.A = _Map(LowModes(n_details, width, (n_modes,) * n_dims), width, n_details)
        self.B = _Map(_conv(width, width, edges), width, n_details)
        self.C = _Map(_conv(n_details, width, edges), width, width)
        self.T = Pointwise(width, width)
        nn.init.kaiming_normal_(self.T.weight, nonlinearity="linear")

    def forward(self, v: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch width *space"]:
        mapped = []
        for _ in range(self._n_levels):
            v, d = self.wavelets.decompose(v)
            mapped.append((self.A(d) + self.B(v), self.C(d)))
        v = self.T(v)
        while mapped:
            U, V = mapped.pop()
            v = self.wavelets.reconstruct(v + V, U)
        return v


class LowModes(SpectralConv):
    """A spectral convolution that keeps fewer modes on grids with too few points for all of them.

    Along an axis of n points these are K' = min(K, n/2) wavenumbers. A single point has the constant mode alone, which
    then is k = 0 and k = -1.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    >>> LowModes(1, 2, (4, 4))(torch.ones(2, 1, 4, 1)).shape
    torch.Size([2, 2, 4, 1])
    """

    def forward(self, u: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = u.shape[2:]
        n_modes = tuple(min(k, _n_held(n)) for k, n in zip(self.n_modes, space, strict=True))
        weight = self.dense_weight()
        for axis, (k, all_k) in enumerate(zip(n_modes[:-1], self.n_modes[:-1], strict=True), start=1):
            if k < all_k:
                weight = torch.cat([weight.narrow(axis, 0, k), weight.narrow(axis, 2 * all_k - k, k)], dim=axis)
        weight = weight.narrow(-3, 0, n_modes[-1])
        with unrounded(u):
            u_hat = truncated_dft.to_modes(widened(u).movedim(1, -1), n_modes)
            return truncated_dft.from_modes(mix(u_hat, weight), space).movedim(-1, 1)


class _Map(nn.Module):
    """A linear map, ReLU, and an affine map of the features."""

    def __init__(self, linear: nn.Module, width: int, out_channels: int) -> None:
        super().__init__()
        self.linear = linear
        self.out = Pointwise(width, out_channels)
        nn.init.kaiming_normal_(self.out.weight)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        return self.out(self.linear(x).relu())


def _conv(in_channels: int, out_channels: int, edges: tuple[Edge, ...]) -> Conv:
    conv = Conv(in_channels, out_channels, edges=edges)
    nn.init.kaiming_normal_(conv.conv.weight, nonlinearity="linear")
    return conv


def _n_held(n: int) -> int:
    """Positive wavenumbers that n points hold."""
    return max(1, n // 2)
