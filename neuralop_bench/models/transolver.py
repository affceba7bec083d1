"""Transolver: attention among learned slices of the domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.conv import Conv, Edge, edges_of
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import require_at_least
from neuralop_bench.layers.precision import unrounded, widened

_WHO = "Transolver"
_LEAST_TEMPERATURE, _LARGEST_TEMPERATURE = 0.1, 5.0
# Smallest total weight of a slice. Without it, a slice that all points leave would divide zero by zero.
_LEAST_WEIGHT = 1e-5


class SliceAttention(nn.Module):
    """Points are divided softly among slices. Each slice has one token, the mean of its points, and attention acts
    among these tokens. In every head:

        weights:   w_xg = softmax_g((S a(x) + b)_g / T)               slices g at every point x; T is learned
        tokens:    z_g = sum_x w_xg f(x) / sum_x w_xg
        attention: z'_g = sum_h softmax_h(<Q z_g, K z_h> / sqrt(d)) V z_h
        points:    u(x) = sum_g w_xg z'_g

    a and f are convolutions of the input, or affine maps at each point if ``kernel`` is 1. A last affine map merges the
    heads. All heads share S, b, Q, K and V; each has its own T. T is cut to [0.1, 5]. The cost is linear in the number
    of points. With ``kernel`` 1 the order of the points doesn't matter, and more points only sample the means better.
    Under autocast, the weights and the sums over the points stay in float32.

    Args:
        width: channels of input and output.
        n_heads: heads, a divisor of ``width``.
        n_slices: slices of every head.
        edges: how each axis is continued (``neuralop_bench.layers.conv.Conv``).
        kernel: points along each axis of the convolutions, an odd number.

    Shapes: [batch, width, *space] to [batch, points, width].

    Reference: Wu et al. (2024), Transolver, section 3.1, arXiv 2402.02366.

    >>> attention = SliceAttention(8, n_heads=2, n_slices=3, edges=("circular", "zeros"))
    >>> attention(torch.ones(2, 8, 5, 4)).shape
    torch.Size([2, 20, 8])
    """

    def __init__(self, width: int, *, n_heads: int, n_slices: int, edges: Sequence[Edge], kernel: int = 3) -> None:
        super().__init__()
        n_features = width // n_heads
        self.n_heads = n_heads
        # a and f of all heads, in this order.
        self.features = (
            Pointwise(width, 2 * width)
            if kernel == 1
            else Conv(width, 2 * width, edges=edges, kernel=kernel, narrow=True)
        )
        self.slices = nn.Linear(n_features, n_slices)
        self.temperature = nn.Parameter(torch.full((n_heads, 1, 1), 0.5))
        self.query, self.key, self.value = (nn.Linear(n_features, n_features, bias=False) for _ in range(3))
        self.merge = Pointwise(width, width)

    def forward(self, x: Float[Tensor, "batch width *space"]) -> Float[Tensor, "batch point width"]:
        features = widened(self.features(x)).flatten(2)
        # Channels come before points, so that the heads are views and no product copies its factors.
        for_weights, values = features.unflatten(1, (2, self.n_heads, -1)).unbind(1)
        with unrounded(x):
            weights = self.weights(for_weights)
            out = self._attend(self.tokens(values, weights)).mT @ weights
        return self.merge.channels_last(out.flatten(1, 2).mT)

    def weights(self, a: Float[Tensor, "batch head feature point"]) -> Float[Tensor, "batch head slice point"]:
        """w, which sums to one over the slices."""
        # The temperature divides the few weights of the map instead of its many values.
        scale = 1 / self.temperature.clamp(_LEAST_TEMPERATURE, _LARGEST_TEMPERATURE)
        weight, bias = (
            part.expand(len(a), *part.shape).flatten(0, 1)
            for part in (self.slices.weight * scale, self.slices.bias[:, None] * scale)
        )
        return torch.baddbmm(bias, weight, a.flatten(0, 1)).unflatten(0, a.shape[:2]).softmax(dim=-2)

    def tokens(
        self, f: Float[Tensor, "batch head feature point"], weights: Float[Tensor, "batch head slice point"]
    ) -> Float[Tensor, "batch head slice feature"]:
        """z, the mean of f over each slice."""
        return weights @ f.mT / weights.sum(dim=-1, keepdim=True).clamp(min=_LEAST_WEIGHT)

    def _attend(self, z: Float[Tensor, "batch head slice feature"]) -> Float[Tensor, "batch head slice feature"]:
        scores = self.query(z) @ self.key(z).mT / math.sqrt(z.shape[-1])
        return scores.softmax(dim=-1) @ self.value(z)


class Block(nn.Module):
    """Attention, then a network with one hidden layer at each point. Each acts on its normalised input and is added.

        v <- v + A(LN v),    v <- v + F(LN v)

    Shapes: [batch, *space, width] to the same.
    """

    def __init__(self, attention: SliceAttention, width: int, ffn_width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = attention
        self.ffn = Perceptron(width, ffn_width, width, gelu)

    def forward(self, v: Float[Tensor, "batch *space width"]) -> Float[Tensor, "batch *space width"]:
        v = v + self.attention(self.norms[0](v).movedim(-1, 1)).view_as(v)
        return v + self.ffn.channels_last(self.norms[1](v))


class Transolver(nn.Module):
    """A transformer whose tokens are learned slices of the domain instead of points (``SliceAttention``). Points in
    similar physical states, wherever they are, share a slice, so the attention costs no more than linear in the points.

        v_0 = E_2 gelu(E_1 (a, p)) + c,    w_l = v_l + A_l(LN v_l),    v_{l+1} = w_l + F_l(LN w_l),    u = D LN v_L

    A_l is the attention, F_l a network with one hidden layer (GELU) at each point, D an affine map. p(x) are the
    distances from x to the nodes of a coarse lattice in the unit box, or the coordinates of x. c is a second bias, as
    in the published network.

    The 3 x 3 convolutions in A_l depend on the spacing, so the network is bound to the grid it is trained on. With
    ``kernel`` 1 they are affine maps at each point, and the network runs at any resolution.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        width: channels of a point, a multiple of ``n_heads``. Published: 128 for Darcy, 256 for Navier-Stokes.
        n_layers: pairs of A_l and F_l. Published: 8.
        n_heads: heads of the attention. Published: 8.
        n_slices: slices of each head. Published: 64 for Darcy, 32 for Navier-Stokes.
        ffn_width: hidden channels of F_l. Published: twice ``width``.
        kernel: points per axis of the convolutions in A_l, an odd number. Published: 3 on structured grids, 1 for point
            clouds.
        reference_points: nodes per axis of the lattice. Published: 8. null to append the coordinates instead.
        init_std: standard deviation of the initial weights of affine maps, whose biases are then 0. null for torch's
            own. Published: 0.02, with which narrow networks hardly learn (decision 41).

    Attributes:
        resolution_free: whether ``kernel`` is 1.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1, fewer than 2 reference points, a width that isn't a multiple of ``n_heads``, an even
            kernel, an ``init_std`` that isn't positive.

    Cost: a block has (2 kernel^n_dims + 1) width^2 + 2 width ffn_width parameters plus terms linear in the width, and
    two operations per parameter and point plus 6 n_slices width per point. It keeps n_heads n_slices weights per point.

    Reference: Wu, Luo, Wang, Wang and Long (2024), Transolver: A Fast Transformer Solver for PDEs on General
    Geometries, arXiv 2402.02366, and the code published with it (thuml/Transolver) for sizes and initialisation. The
    published counts of parameters, 3,090,113 (Darcy) and 12,282,945 (Navier-Stokes), follow with ``ffn_width`` twice
    the width; the scripts in that repository leave it equal to the width.
    Departures: convolutions wrap around periodic axes, where the published code has zeros; coordinates are those of the
    grid's own nodes; torch's initial weights, unless ``init_std`` is set; the weight of a slice is bounded below by
    1e-5, where the published code adds 1e-5; no dropout.

    >>> grid = Grid((85, 85), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))
    >>> sizes = dict(width=128, n_layers=8, n_heads=8, n_slices=64, ffn_width=256)
    >>> model = Transolver(in_channels=1, out_channels=1, grid=grid, **sizes)
    >>> sum(p.numel() for p in model.parameters())
    3090113
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 32,
        n_layers: int = 4,
        n_heads: int = 4,
        n_slices: int = 16,
        ffn_width: int = 64,
        kernel: int = 3,
        reference_points: int | None = 8,
        init_std: float | None = None,
    ) -> None:
        super().__init__()
        require_at_least(1, _WHO, width=width, n_layers=n_layers, n_heads=n_heads, n_slices=n_slices)
        require_at_least(1, _WHO, ffn_width=ffn_width)
        if reference_points is not None:
            require_at_least(2, _WHO, reference_points=reference_points)
        if width % n_heads:
            raise ValueError(
                f"{_WHO} divides its channels among n_heads={n_heads} heads, but width={width} isn't a multiple of "
                "that. Change model.width or model.n_heads."
            )
        if init_std is not None and not init_std > 0:
            raise ValueError(f"{_WHO} needs model.init_std to be positive or null, got {init_std}.")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"{_WHO} needs model.kernel to be an odd number, got {kernel}.")
        self.resolution_free = kernel == 1
        self._nodes: tuple[Nodes, ...] = grid.nodes
        self._reference_points = reference_points
        n_positions = grid.n_dims if reference_points is None else reference_points**grid.n_dims
        self.lifting = nn.ModuleList([Pointwise(in_channels + n_positions, 2 * width), Pointwise(2 * width, width)])
        edges = edges_of(grid)
        self.blocks = nn.ModuleList(
            Block(
                SliceAttention(width, n_heads=n_heads, n_slices=n_slices, edges=edges, kernel=kernel), width, ffn_width
            )
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(width)
        self.projection = Pointwise(width, out_channels)
        for module in self.modules():
            if init_std is not None and isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.placeholder = nn.Parameter(torch.rand(width) / width)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        v = self._lifted(x)
        for block in self.blocks:
            v = block(v)
        return self.projection.channels_last(self.norm(v)).movedim(-1, 1)

    def _lifted(self, x: Tensor) -> Float[Tensor, "batch *space width"]:
        first, second = (cast(Pointwise, layer) for layer in self.lifting)
        with unrounded(x):
            x = widened(x)
            # The part of the positions is the same for all samples.
            of_fields, of_positions = first.weight.split([x.shape[1], first.in_features - x.shape[1]], dim=1)
            constant = torch.addmm(first.bias, self._positions(x), of_positions.T)
            weight = of_fields.T.expand(len(x), -1, -1)
            hidden = torch.baddbmm(constant, x.flatten(2).mT, weight)
            # Both biases at once: one pass over the points.
            weight = second.weight.T.expand(len(x), -1, -1)
            return torch.baddbmm(second.bias + self.placeholder, gelu(hidden), weight).unflatten(1, x.shape[2:])

    def _positions(self, x: Tensor) -> Float[Tensor, "point position"]:
        coordinates = append_coordinates(x[:1, :0], self._nodes)[0].flatten(1).T
        if self._reference_points is None:
            return coordinates
        along = torch.linspace(0, 1, self._reference_points, dtype=x.dtype, device=x.device)
        lattice = torch.cartesian_prod(*[along] * len(self._nodes)).view(-1, len(self._nodes))
        return torch.cdist(coordinates, lattice, compute_mode="donot_use_mm_for_euclid_dist")
