"""General neural operator transformer (GNOT)."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import require_at_least
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.recomputed import recomputed

_WHO = "GNOT"


class NormalizedAttention(nn.Module):
    """Linear attention whose queries and keys are normalised by a softmax over their features. In every head:

        z_t = q_t + sum_i <q_t, k_i> v_i / sum_i <q_t, k_i>,    q = softmax(Q x),  k = softmax(K y),  v = V y

    The products are positive, so z_t - q_t is a weighted mean of the values. The sums over i come first, so the cost is
    linear in the number of points. Q, K and V are affine; a last affine map merges the heads. Under autocast, softmax
    and sums stay in float32.

    Args:
        width: channels of input and output.
        n_heads: heads, a divisor of ``width``.

    Shapes: x [batch or 1, n, width] and y [batch, m, width] to [batch, n, width].

    Reference: Hao et al. (2023), GNOT, section 3.2, arXiv 2302.14376.

    >>> NormalizedAttention(8, n_heads=2)(torch.ones(1, 5, 8), torch.ones(3, 7, 8)).shape
    torch.Size([3, 5, 8])
    """

    def __init__(self, width: int, *, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value, self.merge = (Pointwise(width, width) for _ in range(4))

    def forward(
        self, x: Float[Tensor, "batch_or_1 n width"], y: Float[Tensor, "batch m width"]
    ) -> Float[Tensor, "batch n width"]:
        query, key, value = (
            widened(linear.channels_last(points)).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for linear, points in ((self.query, x), (self.key, y), (self.value, y))
        )
        with unrounded(x):
            query, key = query.softmax(dim=-1), key.softmax(dim=-1)
            # With means instead of sums, the numbers don't grow with the number of points.
            total = key.mean(dim=2)[..., None]
            means = key.mT @ value / key.shape[2]
            out = query @ means / (query @ total) + query
            # Queries are nearly equal at first, so rounding them would lose their differences.
            return self.merge.channels_last(out.transpose(1, 2).flatten(2))


class Mixture(nn.Module):
    """A soft mixture of networks with one hidden layer (GELU) at each point, weighted by gates g that sum to one.

        F(v) = sum_e g_e (W_e gelu(U_e v + a_e) + b_e)

    The gates multiply the hidden channels, so all networks are two matrix products.

    Args:
        width: channels of input and output.
        ffn_width: hidden channels of each network.
        n_experts: networks.

    Shapes: [batch, n, width] and gates [n, n_experts] to [batch, n, width].

    >>> Mixture(8, 16, n_experts=3)(torch.ones(2, 5, 8), torch.ones(5, 3) / 3).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, width: int, ffn_width: int, *, n_experts: int) -> None:
        super().__init__()
        self.first = Pointwise(width, n_experts * ffn_width)
        reach = ffn_width**-0.5  # torch's for a linear map of ffn_width channels
        self.weight = nn.Parameter(nn.init.uniform_(torch.empty(width, n_experts * ffn_width), -reach, reach))
        self.bias = nn.Parameter(torch.zeros(n_experts, width))

    def forward(
        self, v: Float[Tensor, "batch n width"], gates: Float[Tensor, "n n_experts"]
    ) -> Float[Tensor, "batch n width"]:
        # The gradient computes the activation again instead of keeping it: it is the widest field of the network.
        hidden = recomputed(_gated, self.first.channels_last(v), gates.to(v))
        out = hidden @ self.weight.T
        with unrounded(v):
            # The bias's gradient is a sum over all points that nearly cancels, so none of its terms is rounded.
            return out + gates @ self.bias


def _gated(hidden: Float[Tensor, "batch n hidden"], gates: Float[Tensor, "n n_experts"]) -> Tensor:
    return (gelu(hidden).unflatten(-1, (gates.shape[1], -1)) * gates[..., None]).flatten(2)


class Block(nn.Module):
    """Attention to the input's tokens, then among the points themselves, each followed by a mixture of networks.

        x <- x + C(LN x, LN z),    x <- x + LN F_1(x),    x <- x + S(LN x),    x <- x + LN F_2(x)

    Shapes: x [batch or 1, n, width], z [batch, n, width] and coordinates [n, n_dims] to [batch, n, width].
    """

    def __init__(self, width: int, *, n_dims: int, n_heads: int, ffn_width: int, n_experts: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(5))
        self.cross, self.own = (NormalizedAttention(width, n_heads=n_heads) for _ in range(2))
        self.mixtures = nn.ModuleList(Mixture(width, ffn_width, n_experts=n_experts) for _ in range(2))
        self.gate = nn.Sequential(
            nn.Linear(n_dims, ffn_width),
            nn.GELU(),
            nn.Linear(ffn_width, ffn_width),
            nn.GELU(),
            nn.Linear(ffn_width, n_experts),
        )

    def forward(self, x: Tensor, z: Tensor, positions: Float[Tensor, "n n_dims"]) -> Float[Tensor, "batch n width"]:
        with unrounded(x):
            gates = self.gate(positions).softmax(dim=-1)
        x = x + self.cross(self.norms[0](x), self.norms[1](z))
        x = x + self.norms[2](self.mixtures[0](x, gates))
        normed = self.norms[3](x)
        x = x + self.own(normed, normed)
        return x + self.norms[4](self.mixtures[1](x, gates))


class GNOT(nn.Module):
    """Queries at the points' coordinates attend to the input fields by linear attention. Feed-forward networks are soft
    mixtures, whose gates depend on the position alone, so that parts of the domain can have networks of their own.

        x_0 = X(p),    z = Z(a, p) + c,    x_{l+1} = B_l(x_l, z, p),    u = D(x_L)

    p are the coordinates of a point, a the input fields there. X, Z and D are networks with one hidden layer (GELU) of
    twice the width, B_l is a ``Block``, and c is a second bias, as in the authors' library. All input fields together
    are one input function of the paper.

    All operations are means over the points or act on one point, so the network runs at any resolution.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid.
        width: channels of a point, a multiple of ``n_heads``. Published: 128.
        n_layers: blocks. Published: 3.
        n_heads: heads of the attention.
        ffn_width: hidden channels of each expert and of the gates.
        n_experts: networks of a mixture. 1 gives an ordinary feed-forward network.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: a size below 1; a width that isn't a multiple of ``n_heads``; a single feature per head, which a
            softmax would always make 1.

    Cost: a block has 8 width^2 + 4 n_experts width ffn_width + ffn_width^2 parameters plus terms linear in the width,
    and about two operations per parameter and point.

    Reference: Hao et al. (2023), GNOT: A General Neural Operator Transformer for Operator Learning, arXiv 2302.14376,
    and the network of thuml/Neural-Solver-Library for sizes. The published number of parameters,
    1,889,674, follows for one input and one output field in 2D with 3 experts and ``ffn_width`` twice the width.
    Departures: x is passed on from block to block and z stays, as in the paper; that library restarts every block from
    x_0 and passes on z. Linear maps start as torch starts them: with normal weights of deviation 0.02, as there, the
    first network is nearly constant, and its loss needs longer to fall. No dropout.

    >>> sizes = dict(width=128, n_layers=3, n_heads=8, ffn_width=256, n_experts=3)
    >>> model = GNOT(in_channels=1, out_channels=1, grid=Grid.periodic(64), **sizes)
    >>> sum(p.numel() for p in model.parameters())
    1889674
    """

    resolution_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        width: int = 32,
        n_layers: int = 2,
        n_heads: int = 4,
        ffn_width: int = 64,
        n_experts: int = 3,
    ) -> None:
        super().__init__()
        require_at_least(1, _WHO, width=width, n_layers=n_layers, n_heads=n_heads, ffn_width=ffn_width)
        require_at_least(1, _WHO, n_experts=n_experts)
        if width % n_heads or width == n_heads:
            raise ValueError(
                f"{_WHO} divides its channels among n_heads={n_heads} heads of at least 2 channels each, but "
                f"width={width} isn't a suitable multiple. Change model.width or model.n_heads."
            )
        self._nodes = grid.nodes
        self.positions = Perceptron(grid.n_dims, 2 * width, width, gelu)
        self.fields = Perceptron(in_channels + grid.n_dims, 2 * width, width, gelu)
        sizes = {"n_dims": grid.n_dims, "n_heads": n_heads, "ffn_width": ffn_width, "n_experts": n_experts}
        self.blocks = nn.ModuleList(Block(width, **sizes) for _ in range(n_layers))
        self.projection = Perceptron(width, 2 * width, out_channels, gelu)
        self.placeholder = nn.Parameter(torch.rand(width) / width)

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        with unrounded(x):
            joined = append_coordinates(x, self._nodes).flatten(2).mT
            positions = joined[0, :, x.shape[1] :]
            # The same for all samples: the batch enters with the first attention.
            v = self.positions.channels_last(positions[None])
            z = self.fields.channels_last(joined) + self.placeholder
        for block in self.blocks:
            v = cast(Block, block)(v, z, positions)
        with unrounded(x):
            return self.projection.channels_last(widened(v)).movedim(-1, 1).unflatten(2, x.shape[2:])
