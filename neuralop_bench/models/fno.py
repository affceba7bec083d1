"""Fourier neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import choose, one_for_each, require_at_least, require_known
from neuralop_bench.layers.padding import crop, domain_padding, pad
from neuralop_bench.layers.precision import unrounded
from neuralop_bench.layers.spectral_conv import Factorization, Init, SpectralConv, fourier_layer, require_modes
from neuralop_bench.layers.tables import ACTIVATIONS, NORMS, Activation

_WHY_UNPADDED = "it adds no point: axes are periodic, or it is shorter than their spacing"


class FNO(nn.Module):
    """Fourier neural operator: a pointwise lifting, blocks that mix low Fourier modes, a pointwise projection.

        v_0 = P(a, x),    v_{l+1} = act(W_l v_l + b_l + K_l v_l),    u = Q(v_L)

    K_l is a spectral convolution, W_l acts pointwise, the last block has no activation, Q has one hidden layer. With
    ``projection_width=null``, Q is an affine map and the last block has an activation, too. The model appends
    coordinates to its input. It runs in 1, 2 and 3 dimensions, on any grid that holds its modes.

    The Fourier transform treats every axis as periodic. With ``padding``, v_0 is continued beyond the far end of the
    other axes until it meets its beginning, and v_L is cut back. The length is a fraction of the domain, so the network
    doesn't depend on the resolution. The published code of 2022 appends a fixed number of cells, filled with zeros.

    With ``factorization`` the spectral weights of every block are learned in Tucker or CP form, with a fraction
    ``rank`` of the parameters. Each block has its own factors, as in the neuralop package. The TFNO paper factorises
    the weights of all blocks as one tensor, changes the block further and decomposes the domain; none of this is done
    here.

    There are four variants in configs/model: ``fno`` (GELU, centred initialisation that keeps the variance,
    coordinates of the grid's own nodes); ``fno_2020``, the network of the paper (ReLU, positive uniform initialisation,
    coordinates that always include both end points); ``tfno`` (``fno`` with spectral weights in Tucker form); and
    ``fno_apebench``, a small network without coordinates and with an affine projection (Koehler et al. 2024, APEBench,
    arXiv 2411.00180).

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its number of axes and nodes are used, and its size bounds ``n_modes``.
        n_modes: positive wavenumbers kept per axis: one number, or one for each axis (the paper's convention; the
            neuralop package counts twice as many). At most half the points of an axis, including its padding.
        width: hidden channels.
        n_layers: blocks.
        projection_width: hidden channels of the projection; None for an affine projection.
        activation: ``gelu``, ``gelu_tanh`` (its approximation by a hyperbolic tangent), ``relu`` or ``tanh``.
        normalization: ``none``, or ``batch`` for batch normalisation of each block's sum (the code of January 2021).
        spectral_init: initialisation of the spectral weights (``SpectralConv``).
        coordinates: ``nodes`` for the positions of the grid's nodes, ``closed`` for linspace(0, 1) on every axis,
            ``none`` for no coordinates.
        padding: length added to each axis that isn't periodic, as a fraction of the domain (``domain_padding``).
        factorization: ``none`` for dense spectral weights, ``tucker`` or ``cp`` for factors.
        rank: parameters of the factors as a fraction of those of the dense weights, above 0 and at most 1
            (``SpectralConv``). Used with a factorization only.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: more modes than the padded grid holds.
        ValueError: a size below 1, an unknown option, a padding outside [0, 1], a rank outside (0, 1], or factors with
            the uniform initialisation.

    Reference: Li et al. (2021), Fourier Neural Operator for Parametric Partial Differential Equations, arXiv
    2010.08895. Kossaifi et al. (2023), Multi-Grid Tensorized Fourier Neural Operator for High-Resolution PDEs, arXiv
    2310.00120.

    >>> model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(64), n_modes=12, width=32, n_layers=4)
    >>> sum(p.numel() for p in model.parameters())
    2368001
    """

    resolution_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        n_modes: int | Sequence[int] = 12,
        width: int = 32,
        n_layers: int = 4,
        projection_width: int | None = 128,
        activation: Activation = "gelu",
        normalization: Literal["none", "batch"] = "none",
        spectral_init: Init = "normal",
        coordinates: Literal["nodes", "closed", "none"] = "nodes",
        padding: float = 0.0,
        factorization: Factorization = "none",
        rank: float = 0.1,
    ) -> None:
        super().__init__()
        modes = one_for_each(n_modes, grid.n_dims)
        require_at_least(1, "FNO", width=width, n_layers=n_layers)
        require_known("FNO", "normalization", normalization, ("none", "batch"))
        require_known("FNO", "coordinates", coordinates, ("nodes", "closed", "none"))
        added = domain_padding(grid.shape, grid.nodes, padding)
        padded = tuple(n + m for n, m in zip(grid.shape, added, strict=True))
        require_modes(padded, modes, "FNO on its padded grid" if any(added) else "FNO")
        closed = set(grid.nodes) == {"closed"}
        self.idle = {
            **({} if any(added) else {"padding": _WHY_UNPADDED}),
            **({"rank": "it is used with a factorization"} if factorization == "none" else {}),
            **({"coordinates": "the grid has nodes at both ends"} if closed and coordinates != "none" else {}),
        }
        self._nodes = grid.nodes
        ends: tuple[Nodes, ...] = ("closed",) * grid.n_dims
        self._coordinates = {"nodes": grid.nodes, "closed": ends}.get(coordinates)
        self._padding = padding
        self._activation = choose("FNO", "activation", activation, ACTIVATIONS).function
        n_coordinates = 0 if self._coordinates is None else grid.n_dims
        self.lifting = Pointwise(in_channels + n_coordinates, width)
        self.spectral = nn.ModuleList(
            SpectralConv(width, width, modes, spectral_init, factorization, rank) for _ in range(n_layers)
        )
        self.pointwise = nn.ModuleList(Pointwise(width, width) for _ in range(n_layers))
        self.norms = nn.ModuleList(NORMS[normalization](width, grid.n_dims) for _ in range(n_layers))
        if projection_width is None:
            self.projection = Pointwise(width, out_channels)
        else:
            require_at_least(1, "FNO", projection_width=projection_width)
            self.projection = Perceptron(width, projection_width, out_channels, self._activation)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        # With channels last, every map of channels is one product of large matrices.
        with unrounded(x):
            given = x if self._coordinates is None else append_coordinates(x, self._coordinates)
            v = self.lifting.channels_last(given.movedim(1, -1).contiguous())
        added = domain_padding(space, self._nodes, self._padding)
        if any(added):
            v = pad(v.movedim(-1, 1), added).movedim(1, -1).contiguous()
        n_activated = len(self.spectral) - isinstance(self.projection, Perceptron)
        for layer, (spectral, pointwise, norm) in enumerate(
            zip(self.spectral, self.pointwise, self.norms, strict=True)
        ):
            v = fourier_layer(v, cast(SpectralConv, spectral), cast(Pointwise, pointwise))
            if not isinstance(norm, nn.Identity):
                v = norm(v.movedim(-1, 1)).movedim(1, -1).contiguous()
            if layer < n_activated:
                v = self._activation(v)
        if any(added):
            v = crop(v.movedim(-1, 1), space).movedim(1, -1)
        return self.projection.channels_last(v).movedim(-1, 1)
