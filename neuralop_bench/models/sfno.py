"""Spatiotemporal Fourier neural operator."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from data_gen.grids import Grid
from neuralop_bench.layers import truncated_dft
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Perceptron, Pointwise
from neuralop_bench.layers.options import (
    DoesNotFit,
    choose,
    one_for_each,
    require_at_least,
    require_bundle,
    require_known,
)
from neuralop_bench.layers.padding import domain_padding, pad
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.spectral_conv import SpectralConv, require_modes
from neuralop_bench.layers.tables import ACTIVATIONS, NORMS, Activation

Encoding = Literal["fixed", "learned"]

# A frame's number is divided by this to give its time, as published.
_FRAMES = 100


class SFNO(nn.Module):
    """Spatiotemporal Fourier neural operator: a trajectory goes in, and the trajectory that follows comes out. The time
    axis is transformed together with space, so that it can have another number of points in the input, inside and in
    the output.

        z = P norm(a + E),    v_1 = act(z(T) + M_1 K_1 z)  on ``latent_steps`` points of time
        v_{l+1} = act(W_l v_l + b_l + M_{l+1} K_{l+1} v_l),    l = 1 ... n_layers - 1
        u(t_j) = a(T) + (K [0, a(T), R v] + s)(t_j),    j = 1 ... n_steps

    a holds the given frames on the time axis, z(T) and a(T) are at the last of them, E is an encoding of space and
    time, norm is over all channels and points. K are spectral convolutions over space and time, M_l has one hidden
    layer, P, R, W and b act at each point. The last convolution acts on zeros, the last frame and the latent steps, and
    adds s, learned Fourier coefficients. Its result is a function of time and is evaluated at n_steps times that divide
    the horizon equally: the network has the same weights for any ``n_steps``, and predicts the same function.

    a has one channel for each field of the state and each static field, and each field is added to every n-th channel
    of E. If there are fewer frames than latent steps, the last frame is repeated. Inside, all space axes are periodic.
    Others are continued beyond their far end by ``padding`` and cut back at the end.

    A step costs most in M: ``latent_steps`` times as much as in a network on space alone. It predicts the whole bundle.

    Differences from the published code: positions are those of the grid's nodes; the encoding has no factor exp(beta
    t), which is within 0.1 % of 1 there; a stack of zeros that is two steps shorter, so that the steps of any output
    length lie in the same horizon; a centred initialisation that keeps the variance; several fields. The projection of
    velocities to fields without divergence and the refinement after training aren't included.

    Args:
        in_channels, out_channels: channels of the input and output: ``history`` frames of the state and then the static
            fields; ``n_steps`` frames of the state.
        grid: the training grid on one or two space axes: its nodes are used, and its size bounds ``n_modes``.
        n_steps: predicted frames; in a configuration ``${surrogate.bundle}``.
        history: given frames; in a configuration ``${dataset.history}``.
        n_modes: positive wavenumbers kept per space axis. 12 as published.
        n_time_modes: those kept in time, at most half of ``latent_steps``. 5 as published, so that the
            changes at one point are among 9 functions of time, for any number of steps.
        width: hidden channels. 20 as published.
        n_layers: layers, including the one of the lifting.
        hidden_width: hidden channels of M. 128 as published.
        latent_steps: points of the time axis inside. 10 as published.
        encoding: ``fixed``: coordinates, and sines and cosines of time, in ``width`` channels. ``learned``: a learned
            affine map of the coordinates and of products of sines and cosines in space and time.
        activation: ``gelu``, ``gelu_tanh``, ``relu`` or ``tanh``.
        padding: length added to each space axis that isn't periodic, as a fraction of the domain (``domain_padding``).

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space], all channels of the first step first.

    Raises:
        Inapplicable: fewer than two steps; a grid of three axes.
        DoesNotFit: more modes than the padded grid or the latent steps hold.
        ValueError: ``out_channels`` isn't a multiple of ``n_steps``, fewer input channels than the history has, a size
            below 1, a width too small for the fields or the encoding, an unknown option, or a padding outside [0, 1].

    Reference: Cao, Brarda, Li and Xi (2024), Spectral-Refiner: Accurate Fine-Tuning of Spatiotemporal Fourier Neural
    Operator for Turbulent Flows, arXiv 2405.17211, and the code published with it (scaomath/torch-cfd).

    >>> model = SFNO(in_channels=10, out_channels=10, grid=Grid.periodic(64), n_steps=10, history=10)
    >>> sum(p.numel() for p in model.parameters())
    836493
    """

    resolution_free: ClassVar[bool] = True
    complex_pairs: ClassVar[frozenset[str]] = frozenset({"source"})

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        n_steps: int,
        history: int,
        n_modes: int = 6,
        n_time_modes: int = 5,
        width: int = 12,
        n_layers: int = 4,
        hidden_width: int = 32,
        latent_steps: int = 10,
        encoding: Encoding = "learned",
        activation: Activation = "gelu",
        padding: float = 0.125,
    ) -> None:
        super().__init__()
        require_bundle(n_steps, out_channels, grid)
        require_at_least(1, "SFNO", history=history, n_layers=n_layers, hidden_width=hidden_width)
        require_at_least(1, "SFNO", n_time_modes=n_time_modes)
        require_at_least(2, "SFNO", latent_steps=latent_steps)
        require_known("SFNO", "encoding", encoding, get_args(Encoding))
        self.n_steps, self._history, self._latent_steps = n_steps, history, latent_steps
        self._n_state = out_channels // n_steps
        self._n_fields = in_channels - (history - 1) * self._n_state
        if self._n_fields < self._n_state:
            raise ValueError(
                f"SFNO with history={history} needs at least {history * self._n_state} input channels, got "
                f"{in_channels}. Set model.history to the value of dataset.history."
            )
        require_at_least(max(self._n_fields, grid.n_dims + 1), "SFNO", width=width)
        added = domain_padding(grid.shape, grid.nodes, padding)
        require_modes(
            tuple(n + m for n, m in zip(grid.shape, added, strict=True)), one_for_each(n_modes, grid.n_dims), "SFNO"
        )
        if 2 * n_time_modes > latent_steps:
            raise DoesNotFit(
                f"SFNO keeps n_time_modes={n_time_modes}, but has latent_steps={latent_steps}: n_time_modes must be at "
                f"most {latent_steps // 2}. Lower model.n_time_modes or raise model.latent_steps.",
                n_time_modes=latent_steps // 2,
            )
        self.idle = {} if any(added) else {"padding": "axes are periodic, or it is shorter than their spacing"}
        self._nodes, self._padding = grid.nodes, padding
        self._activation = act = choose("SFNO", "activation", activation, ACTIVATIONS).function
        self._waves = (*((n_modes // 2 or 1,) * grid.n_dims), n_time_modes // 2 or 1)
        modes = (*((n_modes,) * grid.n_dims), n_time_modes)
        n_features = grid.n_dims + 1 + math.prod(self._waves)
        self.encoding = Pointwise(n_features, width) if encoding == "learned" else None
        self.norm = NORMS["group"](width, grid.n_dims + 1)
        self.lifting = Pointwise(width, width)
        self.spectral = nn.ModuleList(SpectralConv(width, width, modes) for _ in range(n_layers))
        self.mixing = nn.ModuleList(Perceptron(width, hidden_width, width, act) for _ in range(n_layers))
        self.pointwise = nn.ModuleList(Pointwise(width, width) for _ in range(n_layers - 1))
        self.projection = Pointwise(width, self._n_state)
        self.out = SpectralConv(self._n_state, self._n_state, modes)
        kept = (*(2 * k for k in modes[:-1]), modes[-1])
        self.source = nn.Parameter(torch.zeros(2, *kept, self._n_state))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        x = widened(x)
        fields = self._fields(x)
        last = x[:, (self._history - 1) * self._n_state : self._history * self._n_state]
        with unrounded(x):
            v = self._lifted(fields + self._encoded(x, fields.shape[-2]))
        added = domain_padding(space, self._nodes, self._padding)
        if any(added):
            v = pad(v.movedim(-1, 1), (*added, 0)).movedim(1, -1).contiguous()
        padded = v.shape[1:-2]
        given = v[..., -1:, :]
        for layer, (spectral, mixing) in enumerate(zip(self.spectral, self.mixing, strict=True)):
            convolved = spectral(v.movedim(-1, 1), (*padded, self._latent_steps)).movedim(1, -1)
            mapped = given if layer == 0 else cast(Pointwise, self.pointwise[layer - 1]).channels_last(v)
            v = self._activation(mapped + cast(Perceptron, mixing).channels_last(convolved))
        latent = widened(self.projection.channels_last(v))
        with unrounded(x):
            change = self._steps(latent, pad(last, added).movedim(1, -1)).movedim(-2, 1).movedim(-1, 2)
        u = last[:, None] + change[(..., *(slice(n) for n in space))]
        return u.flatten(1, 2)

    def _fields(self, x: Tensor) -> Float[Tensor, "batch *space time width"]:
        """The frames, and static fields at all times, each in every n-th channel."""
        n = self._history * self._n_state
        index = torch.arange(max(self._history, self._latent_steps), device=x.device).clamp(max=self._history - 1)
        frames = x[:, :n].unflatten(1, (self._history, -1)).index_select(1, index).movedim((1, 2), (-2, -1))
        static = x[:, n:].movedim(1, -1).unsqueeze(-2).expand(*frames.shape[:-1], -1)
        channels = torch.arange(self.lifting.in_features, device=x.device) % self._n_fields
        return torch.cat([frames, static], dim=-1).index_select(-1, channels)

    def _encoded(self, x: Tensor, n_times: int) -> Float[Tensor, "*space time width"]:
        time = torch.arange(1, n_times + 1, dtype=x.dtype, device=x.device) / _FRAMES
        positions = append_coordinates(x[:1, :0], self._nodes)[0].movedim(0, -1)
        positions = positions.unsqueeze(-2).expand(*positions.shape[:-1], n_times, -1)
        coordinates = torch.cat([positions, time[:, None].expand(*positions.shape[:-1], 1)], dim=-1)
        if self.encoding is None:
            waves = _waves(time, self.lifting.in_features - coordinates.shape[-1])
            return torch.cat([coordinates, waves.expand(*positions.shape[:-1], -1)], dim=-1)
        products = torch.ones_like(coordinates[..., :1])
        for coordinate, n in zip(coordinates.unbind(-1), self._waves, strict=True):
            waves = _waves(coordinate, n) / torch.arange(1, n + 1, dtype=x.dtype, device=x.device)
            products = (products[..., :, None] * waves[..., None, :]).flatten(-2)
        features = torch.cat([coordinates, products], dim=-1)
        return linear(features, self.encoding.weight, self.encoding.bias)

    def _lifted(self, z: Tensor) -> Float[Tensor, "batch *space time width"]:
        scale, shift = self.norm.get_parameter("weight"), self.norm.get_parameter("bias")
        weight = self.lifting.weight
        # The norm's scale and shift are part of the affine map, so that there is one pass over the points.
        return linear(layer_norm(z, z.shape[1:]), weight * scale, self.lifting.bias + weight @ shift)

    def _steps(
        self, v: Float[Tensor, "batch *space latent state"], last: Float[Tensor, "batch *space state"]
    ) -> Float[Tensor, "batch *space step state"]:
        """The changes after the last frame.

        The horizon is the second half of a period, from the last frame to the last step. The latter is the period's
        first point.
        """
        shape = list(v.shape)
        shape[-2] = self._latent_steps - 1
        line = torch.cat([v[..., -1:, :], v.new_zeros(shape), last.unsqueeze(-2), v[..., :-1, :]], dim=-2)
        n = self.n_steps
        finer = math.ceil(self.out.n_modes[-1] / n)  # few steps don't hold all modes
        grid = (*v.shape[1:-2], 2 * n * finer)
        # Numbers of size 1 give a field of size 1, so that a step of the optimiser isn't larger than for other weights.
        source = self.source[None] / math.sqrt(self.source[..., 0].numel())
        u = self.out(line.movedim(-1, 1), grid).movedim(1, -1) + truncated_dft.from_modes(source, grid)
        index = torch.arange(n + 1, 2 * n + 1, device=v.device) % (2 * n)
        return u.index_select(-2, finer * index)


def _waves(x: Tensor, n: int) -> Float[Tensor, "*shape n"]:
    """cos(pi x), sin(2 pi x), cos(3 pi x), ..."""
    return torch.stack([(torch.sin if k % 2 == 0 else torch.cos)(math.pi * k * x) for k in range(1, n + 1)], dim=-1)
