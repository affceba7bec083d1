"""Deep operator network with a basis computed from the training data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.branch import Branch
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.options import DoesNotFit, require_at_least
from neuralop_bench.layers.precision import unrounded, widened
from neuralop_bench.layers.resample import resample
from neuralop_bench.layers.tables import Activation


class PODDeepONet(nn.Module):
    """DeepONet whose trunk is the leading modes of a proper orthogonal decomposition of the training targets.

        u_c(y) = m_c(y) + sum_k b_k(a) phi_kc(y),    k = 1 ... n_modes

    m is the mean of the training targets. phi_k are their principal components over all channels and nodes together,
    each multiplied by the standard deviation of its coefficient:

        C = 1/N sum_i (u_i - m)(u_i - m)^T,    C e_k = lambda_k e_k,    phi_k = sqrt(lambda_k) e_k

    So the coefficients to be learned have mean square 1, and sum_k phi_kc(y)^2 is the variance of the target at y,
    about 1 in the normalised units of the network. The published code takes sqrt(n_nodes) e_k and divides the sum by
    n_modes: the same space of functions, but with coefficients of very different sizes. If all targets satisfy a linear
    condition, such as a fixed value at the boundary, so does the prediction.

    The modes are those of the training samples as they are, even if training steps are augmented: an augmentation maps
    samples to others that are equally likely, so it has the same modes.

    ``prepare`` computes mean and modes; until then the mean is zero and the modes are products of cosines. On another
    grid both are interpolated linearly, so the prediction there is the interpolated prediction on the training grid.

    Args:
        in_channels, out_channels: channels of the input and output fields.
        grid: the training grid, on which the modes are computed.
        n_modes: modes kept: at most as many as training pairs, and as values in an output.
        branch: ``mlp`` for dense layers, ``cnn`` for convolutions before them (``neuralop_bench.layers.branch``).
        sensors: sensors per axis: one number, or one for each axis. Inputs on other nodes are interpolated linearly.
        width: hidden width of the branch.
        n_branch_layers: dense layers of the branch.
        cnn_channels: output channels of the branch's convolutions; used with ``cnn`` only.
        activation: ``gelu``, ``relu`` or ``tanh``.

    Attributes:
        idle: options that can't act, and why.

    Shapes: [batch, in_channels, *space] to [batch, out_channels, *space].

    Raises:
        DoesNotFit: more modes than values in an output.
        ValueError: an unknown option, a size out of range, or too few sensors for the convolutions.

    Reference: Lu et al. (2022), A comprehensive and fair comparison of two neural operators, section 3.1.3 (POD-
    DeepONet), arXiv 2111.05512; Sirovich (1987), Turbulence and the dynamics of coherent structures, part I, for the
    method of snapshots.

    >>> grid = Grid.periodic(128, n_dims=1)
    >>> model = PODDeepONet(in_channels=1, out_channels=1, grid=grid, n_modes=32, sensors=128, n_branch_layers=3)
    >>> sum(p.numel() for p in model.parameters())
    37152
    """

    resolution_free: ClassVar[bool] = True
    mean: Tensor
    modes: Tensor

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        grid: Grid,
        n_modes: int = 32,
        branch: Literal["mlp", "cnn"] = "mlp",
        sensors: int | Sequence[int] = 32,
        width: int = 128,
        n_branch_layers: int = 4,
        cnn_channels: Sequence[int] = (64, 128),
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        require_at_least(1, "A DeepONet", n_modes=n_modes, width=width)
        n_values = out_channels * grid.n_points
        if n_modes > n_values:
            raise DoesNotFit(
                f"PODDeepONet keeps n_modes={n_modes}, but an output has {n_values} values. Lower model.n_modes.",
                n_modes=n_values,
            )
        self.idle = {"cnn_channels": "the branch is an mlp"} if branch == "mlp" else {}
        self._nodes = grid.nodes
        self.branch = Branch(
            in_channels,
            n_modes,
            grid=grid,
            kind=branch,
            sensors=sensors,
            width=width,
            n_layers=n_branch_layers,
            cnn_channels=cnn_channels,
            activation=activation,
        )
        self.register_buffer("mean", torch.zeros(1, out_channels, *grid.shape))
        self.register_buffer("modes", _cosines(n_modes, out_channels, grid))

    def require_pairs(self, n_pairs: int) -> None:
        """Check that a number of training pairs has as many modes as the network keeps.

        Raises:
            DoesNotFit: there are fewer pairs than modes.
        """
        if n_pairs < (n_modes := len(self.modes)):
            raise DoesNotFit(
                f"PODDeepONet keeps n_modes={n_modes}, but there are only {n_pairs} training pairs, and no more modes "
                "than that. Lower model.n_modes or raise splits.train.",
                n_modes=n_pairs,
            )

    @torch.no_grad()
    def prepare(
        self, inputs: Float[Tensor, "n in_channels *space"], targets: Float[Tensor, "n channel *space"]
    ) -> None:
        """Fit mean and modes to the training targets, in float64. The largest value of every mode is positive.

        Args:
            inputs: unused.
            targets: encoded training targets on the training grid. Never pass others: a basis computed from test data
                leaks them into the model.

        Raises:
            DoesNotFit: fewer pairs than modes.
            ValueError: targets of another shape than the network's outputs.
        """
        del inputs
        n_modes, *shape = self.modes.shape
        if list(targets.shape[1:]) != shape:
            raise ValueError(
                f"The modes have {tuple(shape)} channels and nodes, the training targets {tuple(targets.shape[1:])}. "
                "Prepare PODDeepONet on the grid that it was built for."
            )
        self.require_pairs(len(targets))
        values = targets.flatten(1).double()
        mean = values.mean(dim=0)
        modes = _principal_components(values - mean, n_modes)
        self.mean.copy_(mean.view_as(self.mean))
        self.modes.copy_(modes.view_as(self.modes))

    def forward(self, x: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        space = x.shape[2:]
        mean, modes = (resample(field, self._nodes, space) for field in (self.mean, self.modes))
        coefficients = widened(self.branch(x))
        with unrounded(x):
            return mean + (coefficients @ modes.flatten(1)).unflatten(1, modes.shape[1:])


def _principal_components(values: Float[Tensor, "n value"], n_modes: int) -> Float[Tensor, "n_modes value"]:
    """sqrt(lambda_k) e_k of the covariance of centred rows, largest first."""
    n_samples, n_values = values.shape
    # Eigenvectors of the smaller of the two Gram matrices. With Y Y^T v_k = N lambda_k v_k over the samples,
    # Y^T v_k / sqrt(N) is sqrt(lambda_k) e_k, without a division by an eigenvalue that may be zero.
    if n_samples <= n_values:
        _, vectors = torch.linalg.eigh(values @ values.T)
        modes = vectors[:, -n_modes:].T @ values / math.sqrt(n_samples)
    else:
        eigenvalues, vectors = torch.linalg.eigh(values.T @ values / n_samples)
        modes = (vectors * eigenvalues.clamp(min=0).sqrt())[:, -n_modes:].T
    modes = modes.flip(0)
    largest = modes.gather(1, modes.abs().argmax(dim=1, keepdim=True))
    return modes * torch.where(largest < 0, -1.0, 1.0)


def _cosines(n_modes: int, n_channels: int, grid: Grid) -> Float[Tensor, "n_modes channel *space"]:
    """Products of one wave per axis, longest first: linearly independent, and the same on every machine.

    Axis functions are cos(pi j x), and 1, cos 2 pi x, sin 2 pi x, cos 4 pi x ... if it is periodic. The channels count
    as an axis of cell centres.
    """
    shape: tuple[int, ...] = (n_channels, *grid.shape)
    nodes: tuple[Nodes, ...] = ("centres", *grid.nodes)
    number = np.indices([min(n, n_modes) for n in shape]).reshape(len(shape), -1)
    is_wave = np.array([kind == "periodic" for kind in nodes])[:, None]
    half_waves = np.where(is_wave, (number + 1) // 2 * 2, number)
    longest = np.argsort((half_waves**2).sum(axis=0), kind="stable")[:n_modes]
    is_sine = is_wave & (number % 2 == 0) & (number > 0)
    positions = append_coordinates(torch.empty(1, 0, *shape), nodes)[0]
    modes = torch.ones(n_modes, *shape)
    column = (n_modes, *(1,) * len(shape))
    for position, waves, sine in zip(positions, half_waves[:, longest], is_sine[:, longest], strict=True):
        # sin x = cos(x - pi/2). Tensors are made from lists, because those made from arrays ignore the default device.
        shift = torch.tensor(sine.tolist(), dtype=modes.dtype).view(column) / 2
        modes = modes * torch.cos(math.pi * (torch.tensor(waves.tolist()).view(column) * position - shift))
    return modes
