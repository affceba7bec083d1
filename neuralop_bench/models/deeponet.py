"""Deep operator network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.branch import Branch, dense
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.options import require_at_least
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.tables import Activation
from neuralop_bench.layers.walls import wall_axes, wall_values


class DeepONet(nn.Module):
    """Deep operator network: the branch reads the input at fixed sensors, the trunk gives basis functions of position.

        u_c(y) = sum_k b_ck(a) t_ck(y) + d_c,    k = 1 ... n_basis

    a stands for all input channels, including the frames of the history. Every output channel c has its own basis
    functions, and a single trunk computes them all. The last layer of the branch is linear; the last layer of the trunk
    has an activation.

    The trunk is given positions as x in [0, 1]. On a periodic axis it is given cos 2 pi j x and sin 2 pi j x for
    j = 1 ... ``harmonics`` instead, so that the output is periodic too.

    With ``hard_dirichlet`` the sum s_c(y) = sum_k b_ck t_ck + d_c becomes

        u_c(y) = g_c + s_c(y) product_j 4 y_j (1 - y_j)

    over the closed axes with a Dirichlet condition. g_c is the boundary value in the normalised units of the network,
    where a physical zero isn't 0. ``prepare`` reads it from the training targets; until then it is 0.

    Departures from the published code: the output isn't standardised at each point, which would tie the network to one
    grid; the boundary factor is 4 per axis instead of 20 in all.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid: its number of axes, nodes and boundaries are used.
        branch: ``mlp`` for dense layers, ``cnn`` for convolutions before them (``neuralop_bench.layers.branch``).
        sensors: sensors per axis: one number, or one for each axis. Inputs on other nodes are interpolated linearly.
        n_basis: basis functions per output channel.
        width: hidden width of branch and trunk.
        n_branch_layers: dense layers of the branch.
        n_trunk_layers: dense layers of the trunk.
        cnn_channels: output channels of the branch's convolutions; used with ``cnn`` only.
        harmonics: waves per periodic axis that the trunk is given; with 0 it is given x.
        activation: ``gelu``, ``relu`` or ``tanh``.
        hard_dirichlet: impose a constant value at the Dirichlet boundary.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        ValueError: an unknown option, a size out of range, too few sensors for the convolutions, or ``hard_dirichlet``
            on a grid without a closed Dirichlet axis; in ``prepare``, targets that vary along that boundary.

    Reference: Lu et al. (2021), Learning nonlinear operators via DeepONet, Nature Machine Intelligence 3, equation 2,
    arXiv 1910.03193; Lu et al. (2022), A comprehensive and fair comparison of two neural operators, section 3.1, arXiv
    2111.05512.

    >>> grid = Grid.periodic(128, n_dims=1)
    >>> model = DeepONet(in_channels=1, out_channels=1, grid=grid, sensors=128, n_trunk_layers=3, activation="tanh")
    >>> sum(p.numel() for p in model.parameters())
    99713
    """

    resolution_free: ClassVar[bool] = True
    boundary_value: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        branch: Literal["mlp", "cnn"] = "mlp",
        sensors: int | Sequence[int] = 32,
        n_basis: int = 128,
        width: int = 128,
        n_branch_layers: int = 4,
        n_trunk_layers: int = 4,
        cnn_channels: Sequence[int] = (64, 128),
        harmonics: int = 2,
        activation: Activation = "gelu",
        hard_dirichlet: bool = False,
    ) -> None:
        super().__init__()
        require_at_least(1, "A DeepONet", n_basis=n_basis, width=width, n_trunk_layers=n_trunk_layers)
        require_at_least(0, "A DeepONet", harmonics=harmonics)
        self._nodes, self._harmonics = grid.nodes, harmonics
        self._walls = wall_axes(grid) if hard_dirichlet else ()
        if hard_dirichlet and not self._walls:
            raise ValueError(
                "hard_dirichlet needs an axis with a Dirichlet condition and nodes at both its ends, but the grid has "
                f"boundaries {grid.boundary} and nodes {grid.nodes}. Set model.hard_dirichlet=false."
            )
        self.idle = {
            **({} if "periodic" in grid.nodes else {"harmonics": "the grid has no periodic axis"}),
            **({"cnn_channels": "the branch is an mlp"} if branch == "mlp" else {}),
        }
        n_functions = out_channels * n_basis
        self.branch = Branch(
            in_channels,
            n_functions,
            grid=grid,
            kind=branch,
            sensors=sensors,
            width=width,
            n_layers=n_branch_layers,
            cnn_channels=cnn_channels,
            activation=activation,
        )
        n_features = sum(2 * harmonics if self._is_wave(axis) else 1 for axis in range(grid.n_dims))
        hidden = (width,) * (n_trunk_layers - 1)
        self.trunk = dense((n_features, *hidden, n_functions), activation, activate_last=True)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("boundary_value", torch.zeros(out_channels))

    def _is_wave(self, axis: int) -> bool:
        return self._harmonics > 0 and self._nodes[axis] == "periodic"

    @property
    def needs_pairs(self) -> bool:
        """Whether ``prepare`` needs the training pairs."""
        return bool(self._walls)

    @torch.no_grad()
    def prepare(
        self, inputs: Float[Tensor, "n in_channels *space"], targets: Float[Tensor, "n channel *space"]
    ) -> None:
        """Read the value at the Dirichlet boundary from the training targets. Without ``hard_dirichlet``, do nothing.

        Args:
            inputs: unused.
            targets: encoded training targets on the training grid.

        Raises:
            ValueError: the targets vary along the boundary by more than 1e-4 of their standard deviation.
        """
        del inputs
        if not self._walls:
            return
        values = wall_values(targets, self._walls)
        spread = values.amax(dim=1) - values.amin(dim=1)
        if (spread > 1e-4 * targets.transpose(0, 1).flatten(1).double().std(dim=1)).any():
            raise ValueError(
                "hard_dirichlet imposes one value per channel at the Dirichlet boundary, but the training targets vary "
                f"there by up to {float(spread.max()):.2g} (normalised). Set model.hard_dirichlet=false."
            )
        self.boundary_value.copy_(values.mean(dim=1))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space, n_channels = x.shape[2:], len(self.bias)
        positions = append_coordinates(x.new_empty(1, 0, *space), self._nodes)[0].flatten(1).T
        coefficients = self.branch(x).unflatten(1, (n_channels, -1))
        with unrounded(x):  # positions and sums; the layers in between tolerate rounding
            first = self.trunk[0](self._features(positions))
        functions = self.trunk[1:](first).unflatten(1, (n_channels, -1))
        with unrounded(x):
            u = torch.einsum("bck,nck->bcn", widened(coefficients), widened(functions)) + self.bias[:, None]
        if self._walls:
            wall = (4 * positions * (1 - positions))[:, self._walls].prod(dim=1)
            u = self.boundary_value[:, None] + wall * u
        return u.unflatten(2, space)

    def _features(self, positions: Float[Tensor, "n axis"]) -> Float[Tensor, "n feature"]:
        """The input of the trunk at positions in [0, 1]."""
        columns = []
        for axis, column in enumerate(positions.split(1, dim=1)):
            if self._is_wave(axis):
                wavenumber = torch.arange(1, self._harmonics + 1, dtype=column.dtype, device=column.device)
                phase = 2 * math.pi * wavenumber * column
                columns += [phase.cos(), phase.sin()]
            else:
                columns.append(column)
        return torch.cat(columns, dim=1)
