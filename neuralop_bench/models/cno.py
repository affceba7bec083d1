"""Convolutional neural operator."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.band_limited import filtered_activation
from neuralop_bench.layers.conv import Conv, edges_of
from neuralop_bench.layers.options import DoesNotFit, choose, require_at_least, require_known
from neuralop_bench.layers.tables import ACTIVATIONS, NORMS

_FEWEST_POINTS = 2
_NORMALIZATIONS = {"layer": "group", "batch": "batch", "none": "none"}
_ACTIVATIONS = {"leaky_relu": lambda x: leaky_relu(x, 0.2), **{k: v.function for k, v in ACTIVATIONS.items()}}


class CNO(nn.Module):
    """Convolutional neural operator: a U-shaped network of convolutions that treats its features as band-limited
    functions. Its activations act on a finer grid, between two resamplings that remove what the grids can't hold.

        block:  B(v) = S [ act( F [ norm(K v) ] ) ]
        down:   v_0 = P a,                 v_l = D_l v_{l-1},                        l = 1 ... n_levels
        skip:   s_l = E_l R_l v_l,         R = (1 + norm K B) ... (1 + norm K B)
        up:     y_n = s_n,                 y_l = [U_l I_{l+1} y_{l+1}, s_l],         l = n_levels - 1 ... 0
        out:    u = Q y_0

    K is a convolution over 3 points per axis. F resamples to the fine grid and S from there to the grid of the output.
    B's for D go to the next coarser grid, those for U to the next finer one; E and I stay on their grid. P and Q are
    a block followed by a convolution, without norm. Level l has 2^l times the channels of the finest.

    On a periodic axis F and S are exact in Fourier space: every series below the grid's Nyquist wavenumber is kept, and
    nothing else. Convolutions and norms then commute with any shift of such a series, also by a fraction of the
    spacing. Activations commute with shifts by whole spacings of the fine grid, and with others up to the part of
    act(F v) beyond the fine grid's Nyquist wavenumber. A level of n_l points has a fine grid of 2 n_l points, so a
    shift by one point of the finest level is exact on the first two levels only. With ``exact_shifts``, coarser levels
    use the n points of the finest level as their fine grid. The network then commutes with shifts by whole points to
    rounding. Without, on axes of a multiple of 2^n_levels points, it commutes with shifts by 2^(n_levels - 1) points.

    On other axes F and S use the cosine series, i.e. the field is continued by reflection at the ends, and the
    convolutions are padded with zeros.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        width: channels of the finest level. 16 or more as published.
        n_levels: coarser levels; level l has n // 2^l points, or intervals on a closed axis, and at least 2 points.
        n_blocks: residual blocks on every level but the coarsest.
        n_neck_blocks: residual blocks on the coarsest level.
        lift_width: hidden channels of P and Q. 64 as published.
        normalization: of every convolution's output but those of P and Q. ``layer``: over all channels and points of a
            sample; ``batch``, as published; ``none``.
        activation: ``gelu``, ``gelu_tanh``, ``relu``, ``tanh`` or, as published, ``leaky_relu`` (slope 0.2). The
            smoother it is, the smaller are the errors for shifts by fractions.
        exact_shifts: commute with shifts by whole points.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, an unknown normalisation or activation.
        DoesNotFit: fewer than 2 points per axis on the coarsest level.

    Cost: a step spends most of its time in resampling, which is a product with a matrix of fine x n_l numbers per axis
    (above 512 points, a fast transform), and in the activation's 2^n_dims values per point. With ``exact_shifts`` a
    block of a coarser level has as many such values per channel as the finest grid has points.

    Departures from the published code: its resampling is a windowed sinc of 12 taps with zeros beyond all ends, so that
    it neither wraps around periodic axes nor commutes with shifts exactly; layer norm and GELU by default; any number
    of points without padding; no gain of sqrt(2) in the activation.

    Reference: Raonic et al. (2023), Convolutional Neural Operators for robust and accurate learning of PDEs,
    arXiv 2302.01178, section 3, and the code published with it (camlab-ethz/ConvolutionalNeuralOperator).

    >>> model = CNO(in_channels=10, out_channels=1, grid=Grid.periodic(64))
    >>> sum(p.numel() for p in model.parameters())
    361873
    """

    resolution_free: ClassVar[bool] = False

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 8,
        n_levels: int = 3,
        n_blocks: int = 1,
        n_neck_blocks: int = 2,
        lift_width: int = 8,
        normalization: Literal["layer", "batch", "none"] = "layer",
        activation: Literal["gelu", "gelu_tanh", "relu", "tanh", "leaky_relu"] = "gelu",
        exact_shifts: bool = True,
    ) -> None:
        super().__init__()
        require_at_least(
            1,
            "CNO",
            width=width,
            n_levels=n_levels,
            n_blocks=n_blocks,
            n_neck_blocks=n_neck_blocks,
            lift_width=lift_width,
        )
        require_known("CNO", "normalization", normalization, _NORMALIZATIONS)
        choose("CNO", "activation", activation, _ACTIVATIONS)
        _require_points(grid, n_levels)
        self._nodes, self._exact_shifts = grid.nodes, exact_shifts
        self._act = _ACTIVATIONS[activation]
        self.idle = {} if n_levels > 1 and "periodic" in grid.nodes else {"exact_shifts": _no_shifts(grid)}
        channels = [width * 2**level for level in range(n_levels + 1)]
        steps = list(itertools.pairwise(channels))

        def unit(n_in: int, n_out: int, norm: str = normalization) -> _Convolution:
            return _Convolution(n_in, n_out, grid, norm)

        def residual(level: int) -> nn.ModuleList:
            n = channels[level]
            depth = n_neck_blocks if level == n_levels else n_blocks
            return nn.ModuleList(nn.ModuleList([unit(n, n), unit(n, n)]) for _ in range(depth))

        self.lifting = nn.ModuleList([unit(in_channels, lift_width, "none"), unit(lift_width, width, "none")])
        self.down = nn.ModuleList(unit(finer, coarser) for finer, coarser in steps)
        self.residual = nn.ModuleList(residual(level) for level in range(n_levels + 1))
        self.skip = nn.ModuleList(unit(n, n) for n in channels)
        # On every level but the coarsest, what comes up is joined with what was skipped.
        joined = [2 * n for n in channels[:-1]] + channels[-1:]
        self.mixing = nn.ModuleList(unit(n, n) for n in joined[1:])
        self.up = nn.ModuleList(unit(n, finer) for n, (finer, _) in zip(joined[1:], steps, strict=True))
        self.projection = nn.ModuleList([unit(2 * width, lift_width, "none"), unit(lift_width, out_channels, "none")])

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        n_levels = len(self.down)
        shapes = [level_shape(x.shape[2:], self._nodes, level) for level in range(n_levels + 1)]
        fine = [self._fine(shapes, level) for level in range(n_levels + 1)]

        def act(v: Tensor, level: int, to: int) -> Tensor:
            return filtered_activation(v, self._act, self._nodes, fine[min(level, to)], shapes[to])

        first, second = self.lifting
        v = second(act(first(x), 0, 0))
        skipped = []
        for level in range(n_levels + 1):
            s = v
            for first, second in self.residual[level]:  # pyright: ignore[reportGeneralTypeIssues]
                s = s + second(act(first(s), level, level))
            skipped.append(act(self.skip[level](s), level, level))
            if level < n_levels:
                v = act(self.down[level](v), level, level + 1)
        y = skipped.pop()
        for level in reversed(range(n_levels)):
            y = act(self.mixing[level](y), level + 1, level + 1)
            y = torch.cat([act(self.up[level](y), level + 1, level), skipped.pop()], dim=1)
        first, second = self.projection
        return second(act(first(y), 0, 0))

    def _fine(self, shapes: Sequence[Sequence[int]], level: int) -> tuple[int, ...]:
        """Points per axis of the grid on which the activations of a level act."""
        doubled = level_shape(shapes[level], self._nodes, -1)
        return tuple(
            max(n, finest) if self._exact_shifts and nodes == "periodic" else n
            for n, finest, nodes in zip(doubled, shapes[0], self._nodes, strict=True)
        )


class _Convolution(nn.Module):
    """A convolution and a norm."""

    def __init__(self, n_in: int, n_out: int, grid: Grid, normalization: str) -> None:
        super().__init__()
        self.conv = Conv(n_in, n_out, edges=edges_of(grid), bias=normalization == "none", narrow=True)
        self.norm = NORMS[_NORMALIZATIONS[normalization]](n_out, grid.n_dims)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def level_shape(shape: Sequence[int], nodes: Sequence[Nodes], level: int) -> tuple[int, ...]:
    """Points per axis of a grid with 2^level times the spacing, rounded down; level -1 is the grid of half the spacing.

    >>> level_shape((64, 65), ("periodic", "closed"), 2), level_shape((16, 17), ("periodic", "closed"), -1)
    ((16, 17), (32, 33))
    """
    ends = [1 if kind == "closed" else 0 for kind in nodes]
    return tuple(int((n - end) // 2.0**level) + end for n, end in zip(shape, ends, strict=True))


def _require_points(grid: Grid, n_levels: int) -> None:
    fitting = max(
        level
        for level in range(max(grid.shape))
        if level == 0 or min(level_shape(grid.shape, grid.nodes, level)) >= _FEWEST_POINTS
    )
    if n_levels > fitting:
        coarsest = level_shape(grid.shape, grid.nodes, n_levels)
        raise DoesNotFit(
            f"CNO with n_levels={n_levels} halves a grid of shape {grid.shape} down to {coarsest} points, but every "
            f"axis needs at least {_FEWEST_POINTS}: n_levels must be at most {fitting}. Lower model.n_levels or raise "
            "the resolution.",
            n_levels=fitting,
        )


def _no_shifts(grid: Grid) -> str:
    if "periodic" not in grid.nodes:
        return "no axis is periodic"
    return "with one coarser level, shifts by whole points are exact in any case"
