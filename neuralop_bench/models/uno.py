"""U-shaped neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import DoesNotFit, choose, require_at_least
from neuralop_bench.layers.padding import crop, domain_padding, pad
from neuralop_bench.layers.precision import unrounded
from neuralop_bench.layers.resample import resample
from neuralop_bench.layers.spectral_conv import SpectralConv, fourier_layer, require_modes
from neuralop_bench.layers.tables import ACTIVATIONS, Activation


class UNO(nn.Module):
    """U-shaped neural operator: Fourier layers whose grids get coarser and then finer again, while their channels grow
    and shrink. So deep layers with many channels are cheap, and skip connections carry what coarse grids can't hold.

        v_0 = act(P(a, x)),    v_i = B_i v_{i-1}  on the grid of level i,    i = 1 ... n;    w_n = C v_n
        w_{i-1} = [A_i w_i, v_{i-1}]  on the grid of level i-1,    i = n ... 1;    u = Q(w_0)

    A_i, B_i and C are Fourier layers, v -> act(K v + R (W v + b)): K is a spectral convolution whose kept modes are
    evaluated on the output's grid, W and b act at each point, R interpolates linearly. [,] appends channels. P and Q
    have one hidden layer. Level i has ``scales[i-1]`` times the points of the given grid per axis, rounded. Both parts
    of a layer are functions of position, so the network runs at any resolution whose levels hold their modes, in 1, 2
    and 3 dimensions. Coordinates are appended to the input.

    Inside, all axes are periodic. Axes that aren't are continued beyond their far end by ``padding`` until they meet
    their beginning, and cut back at the end. Without padding, values near both ends of such an axis mix.

    The spectral weights of a layer are (2 K)^d in_channels out_channels real numbers on d axes; K is small where
    channels are many. Pointwise maps are computed on the coarser of a layer's two grids.

    Differences from the published code: it interpolates by cubic splines with a filter (in 2D), takes sines and cosines
    of positions as coordinates on periodic grids, pads with zeros, and normalises some layers on Darcy's problem.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its number of axes and nodes are used, and its size bounds ``n_modes``.
        width: hidden channels on the given grid; P has half as many in between.
        widths: hidden channels of each level, from fine to coarse.
        scales: points per axis of each level, as a fraction of those of the padded grid.
        n_modes: positive wavenumbers kept per axis by the layers that enter, leave or stay on each level. At most half
            of the level's points.
        projection_width: hidden channels of Q.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.
        padding: length added to each axis that isn't periodic, as a fraction of the domain (``domain_padding``).

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: a level keeps more modes than its grid holds.
        ValueError: no level, lists of different lengths, scales that don't decrease from at most 1 to above 0, a size
            below 1 (``width``: below 2), an unknown activation, or a padding outside [0, 1].

    Reference: Rahman, Ross and Azizzadenesheli (2022), U-NO: U-shaped Neural Operators, arXiv 2204.11127, section 3.

    >>> model = UNO(in_channels=1, out_channels=1, grid=Grid.periodic(64))
    >>> sum(p.numel() for p in model.parameters())
    929793
    """

    resolution_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 16,
        widths: Sequence[int] = (32, 64),
        scales: Sequence[float] = (0.5, 0.25),
        n_modes: Sequence[int] = (8, 4),
        projection_width: int = 64,
        activation: Activation = "gelu",
        padding: float = 0.125,
    ) -> None:
        super().__init__()
        require_at_least(1, "UNO", widths=min(widths, default=0), projection_width=projection_width)
        require_at_least(2, "UNO", width=width)
        if not len(widths) == len(scales) == len(n_modes):
            raise ValueError(
                "UNO needs as many model.widths as model.scales and model.n_modes, one for each level, got "
                f"{len(widths)}, {len(scales)} and {len(n_modes)}."
            )
        finer = [1.0, *scales]
        if any(not 0 < scale <= above for scale, above in zip(scales, finer, strict=False)):
            raise ValueError(f"UNO needs model.scales that decrease from at most 1 to above 0, got {list(scales)}.")
        added = domain_padding(grid.shape, grid.nodes, padding)
        padded = tuple(n + m for n, m in zip(grid.shape, added, strict=True))
        self._scales = tuple(scales)
        levels = self._levels(padded)[1:]
        largest = [min(level) // 2 for level in levels]
        for level, k, most in zip(levels, n_modes, largest, strict=True):
            if k > most:
                raise DoesNotFit(
                    f"UNO keeps n_modes={k} per axis on a level of shape {level}: n_modes must be at most {most} "
                    "there. Lower model.n_modes, or raise model.scales or the resolution.",
                    n_modes=[min(pair) for pair in zip(n_modes, largest, strict=True)],
                )
            require_modes(level, (k,) * grid.n_dims, "UNO")
        self.idle = {} if any(added) else {"padding": "axes are periodic, or it is shorter than their spacing"}
        self._nodes = grid.nodes
        self._padding = padding
        self._activation = act = choose("UNO", "activation", activation, ACTIVATIONS).function
        modes = [(k,) * grid.n_dims for k in n_modes]
        channels = [width, *widths]
        self.lifting = Perceptron(in_channels + grid.n_dims, width // 2, width, act)
        self.down = nn.ModuleList(_Layer(a, b, k) for a, b, k in zip(channels, widths, modes, strict=False))
        self.bottom = _Layer(widths[-1], widths[-1], modes[-1])
        # What leaves the last level has its channels; what leaves the others has those of their skip connection, too.
        leaving = [2 * n for n in widths[:-1]] + [widths[-1]]
        self.up = nn.ModuleList(_Layer(a, b, k) for a, b, k in zip(leaving, channels, modes, strict=False))
        self.projection = Perceptron(2 * width, projection_width, out_channels, act)

    def _levels(self, space: Sequence[int]) -> list[tuple[int, ...]]:
        """The grids' shapes, from fine to coarse, beginning with ``space``."""
        return [tuple(space), *(tuple(max(1, round(scale * n)) for n in space) for scale in self._scales)]

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space, act = x.shape[2:], self._activation
        # With channels last, every map of channels is one product of large matrices.
        with unrounded(x):
            v = act(self.lifting.channels_last(append_coordinates(x, self._nodes).movedim(1, -1).contiguous()))
        added = domain_padding(space, self._nodes, self._padding)
        if any(added):
            v = pad(v.movedim(-1, 1), added).movedim(1, -1).contiguous()
        levels = self._levels(v.shape[1:-1])
        skips = [v]
        for layer, shape in zip(self.down, levels[1:], strict=True):
            skips.append(act(layer(skips[-1], shape)))
        w = act(self.bottom(skips.pop(), levels[-1]))
        for layer, shape in zip(reversed(self.up), levels[-2::-1], strict=True):
            skip = skips.pop()
            w = torch.cat([act(layer(w, shape)).to(skip), skip], dim=-1)
        if any(added):
            w = crop(w.movedim(-1, 1), space).movedim(1, -1)
        return self.projection.channels_last(w).movedim(-1, 1)


class _Layer(nn.Module):
    """K v + R (W v + b) on a grid of another shape, channels last."""

    def __init__(self, in_channels: int, out_channels: int, n_modes: tuple[int, ...]) -> None:
        super().__init__()
        self.spectral = SpectralConv(in_channels, out_channels, n_modes)
        self.pointwise = Pointwise(in_channels, out_channels)

    def forward(
        self, v: Float[Tensor, "batch *space in_channels"], shape: tuple[int, ...]
    ) -> Float[Tensor, "batch *shape out_channels"]:
        if v.shape[1:-1] == shape:
            return fourier_layer(v, self.spectral, self.pointwise)
        convolved = self.spectral(v.movedim(-1, 1), shape).movedim(1, -1)
        # The interpolation and the map commute; this order has the fewest products.
        if v.shape[1:-1].numel() > torch.Size(shape).numel():
            mapped = self.pointwise.channels_last(_interpolated(v, shape))
        else:
            mapped = _interpolated(self.pointwise.channels_last(v), shape)
        return mapped + convolved.to(mapped)


def _interpolated(v: Float[Tensor, "batch *space channel"], shape: tuple[int, ...]) -> Tensor:
    # The channels are one more axis, which keeps its points.
    nodes: list[Nodes] = [*["periodic"] * len(shape), "closed"]  # pyright: ignore[reportAssignmentType]
    return resample(v[:, None], nodes, (*shape, v.shape[-1]))[:, 0]
