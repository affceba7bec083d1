"""Factorised Fourier neural operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise, WeightNorm
from neuralop_bench.layers.options import choose, one_for_each, require_at_least
from neuralop_bench.layers.padding import crop, domain_padding, pad
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.spectral_conv import SpectralConv, convolved_along, require_modes
from neuralop_bench.layers.tables import ACTIVATIONS, Activation


class FFNO(nn.Module):
    """Factorised Fourier neural operator: every layer convolves along each axis by itself, adds the results up, and
    maps them at every point by a small network. The layer's input is added after that network, so that deep stacks
    train well.

        v_0 = P(a, x),    v_{l+1} = v_l + F_l(sum_d K_{l,d} v_l),    u = Q(v_L)
        F_l(s) = W'_l act(W_l s + b_l) + b'_l

    K_{l,d} multiplies the modes 0 <= k < K of axis d by a matrix each and drops the others; it is a sum over one index
    instead of a sum over all. P is an affine map at each point, Q has one hidden layer. Coordinates are appended to the
    input. The network runs in 1, 2 and 3 dimensions, on any grid that holds its modes. Under autocast, convolutions and
    the sum of the layers stay in float32.

    The spectral weights of a layer are 2 d K width^2 real numbers on d axes, instead of 2^d K^d width^2 in an FNO. The
    pointwise network takes 2 expansion width^2 products per point, most of the arithmetic.

    Differences from the published code: Q has an activation. The published one has none, so that its two maps amount to
    one. Q acts on v_L; in the published code it acts on the last layer's change, v_L - v_{L-1}. Spectral weights begin
    with a variance that keeps that of a white field on the kept modes, and not with a hundredth of Xavier's. The paper
    trains on single steps with noise of standard deviation 0.01 added to normalised inputs; this concerns the training,
    and the trainer has no such option.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its number of axes and nodes are used, and its size bounds ``n_modes``.
        n_modes: wavenumbers kept per axis, including 0: one number, or one for each axis. At most half the points of an
            axis, including its padding.
        width: hidden channels.
        n_layers: layers.
        expansion: hidden channels of each layer's pointwise network, in units of ``width``.
        share_weights: whether all layers have the same spectral weights.
        weight_norm: whether the pointwise maps learn the length and the direction of each row of their matrix.
        projection_width: hidden channels of Q.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.
        padding: length added to each axis that isn't periodic, as a fraction of the domain (``domain_padding``).

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: more modes than the padded grid holds.
        ValueError: a size below 1, an unknown activation, or a padding outside [0, 1].

    Reference: Tran, Mathews, Xie and Ong (2023), Factorized Fourier Neural Operators, arXiv 2111.13802, equations 5 to
    8.

    Published for Navier-Stokes are 24 layers, width 64, 16 modes, shared weights and weight normalisation; as here:

    >>> model = FFNO(in_channels=1, out_channels=1, grid=Grid.periodic(64), width=64, n_layers=24, share_weights=True)
    >>> sum(p.numel() for p in model.parameters())
    1072834
    """

    resolution_free: ClassVar[bool] = True

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        n_modes: int | Sequence[int] = 16,
        width: int = 32,
        n_layers: int = 4,
        expansion: int = 4,
        share_weights: bool = False,
        weight_norm: bool = True,
        projection_width: int = 128,
        activation: Activation = "relu",
        padding: float = 0.0,
    ) -> None:
        super().__init__()
        modes = one_for_each(n_modes, grid.n_dims)
        sizes = {"width": width, "n_layers": n_layers, "expansion": expansion, "projection_width": projection_width}
        require_at_least(1, "FFNO", **sizes)
        added = domain_padding(grid.shape, grid.nodes, padding)
        padded = tuple(n + m for n, m in zip(grid.shape, added, strict=True))
        require_modes(padded, modes, "FFNO on its padded grid" if any(added) else "FFNO")
        self.idle = {
            **({} if any(added) else {"padding": "axes are periodic, or it is shorter than their spacing"}),
            **({} if n_layers > 1 else {"share_weights": "there is only one layer"}),
        }
        self._nodes = grid.nodes
        self._padding = padding
        self._activation = act = choose("FFNO", "activation", activation, ACTIVATIONS).function
        self.lifting = Pointwise(in_channels + grid.n_dims, width)
        self.spectral = nn.ModuleList(
            nn.ModuleList(SpectralConv(width, width, (k,)) for k in modes)
            for _ in range(1 if share_weights else n_layers)
        )
        self.feedforward = nn.ModuleList(Perceptron(width, expansion * width, width, act) for _ in range(n_layers))
        self.projection = Perceptron(width, projection_width, out_channels, act)
        if weight_norm:
            for module in [module for module in self.modules() if isinstance(module, Pointwise)]:
                register_parametrization(module, "weight", WeightNorm())

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        # With channels last, every map of channels is one product of large matrices.
        with unrounded(x):
            given = append_coordinates(x, self._nodes)
            v = self.lifting.channels_last(given.movedim(1, -1).contiguous())
        added = domain_padding(space, self._nodes, self._padding)
        if any(added):
            v = pad(v.movedim(-1, 1), added).movedim(1, -1).contiguous()
        for layer, feedforward in enumerate(self.feedforward):
            total = None
            for axis, spectral in enumerate(cast(nn.ModuleList, self.spectral[layer % len(self.spectral)])):
                total = convolved_along(v, axis, cast(SpectralConv, spectral), to=total)
            v = v + widened(cast(Perceptron, feedforward).channels_last(cast(Tensor, total)))
        if any(added):
            v = crop(v.movedim(-1, 1), space).movedim(1, -1)
        return self.projection.channels_last(v).movedim(-1, 1)
