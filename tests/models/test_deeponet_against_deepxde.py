"""DeepONet and POD-DeepONet against the deepxde package with the same weights.

deepxde picks its backend, and torch's default device, when it is imported. Several outputs are its ``split_both``: each
has its own part of the last layers of branch and trunk, in the order of ours.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.branch import Branch
from neuralop_bench.models.deeponet import DeepONet
from neuralop_bench.models.pod_deeponet import PODDeepONet

LINE = Grid.periodic(32, n_dims=1)
SQUARE = Grid(shape=(9, 7), lengths=(1.0,) * 2, boundary=("dirichlet",) * 2, nodes=("closed",) * 2)
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def deepxde() -> ModuleType:
    """deepxde.nn.pytorch."""
    os.environ["DDE_BACKEND"] = "pytorch"
    package = importlib.import_module("deepxde.nn.pytorch")
    torch.set_default_device(None)  # a device of its own, even the same one, stops the compiler
    return package


def copy_weights(theirs: nn.Module, ours: nn.Module) -> None:
    """Linear layers in order; both have as many."""
    pairs = [[m for m in network.modules() if isinstance(m, nn.Linear)] for network in (theirs, ours)]
    for one, other in zip(*pairs, strict=True):
        one.load_state_dict(other.state_dict())


def relative_difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def features(grid: Grid) -> Tensor:
    """What the trunk is given: two pairs of waves on the line, the position on the square. [n, feature]"""
    x, *y = (torch.from_numpy(axis).float() for axis in grid.coordinates())
    if not y:
        angle = 2 * torch.pi * x
        return torch.stack([angle.cos(), (2 * angle).cos(), angle.sin(), (2 * angle).sin()], dim=1)
    return torch.cartesian_prod(x, y[0])


def small(model: type[nn.Module], grid: Grid, out_channels: int, activation: str, **options: Any) -> Any:
    torch.manual_seed(0)
    return model(
        in_channels=2,
        out_channels=out_channels,
        grid=grid,
        sensors=grid.shape,
        width=16,
        n_branch_layers=3,
        activation=activation,
        **options,
    )


@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("out_channels", [1, 3])
@pytest.mark.parametrize("grid", [LINE, SQUARE], ids=["line", "square"])
def test_deeponet_agrees(deepxde: ModuleType, grid: Grid, out_channels: int, activation: str) -> None:
    ours = small(DeepONet, grid, out_channels, activation, n_basis=10, n_trunk_layers=3)
    place, n_functions = features(grid), 10 * out_channels
    theirs = deepxde.DeepONetCartesianProd(
        [2 * grid.n_points, 16, 16, n_functions],
        [place.shape[1], 16, 16, n_functions],
        activation,
        "Glorot normal",
        num_outputs=out_channels,
        multi_output_strategy="split_both" if out_channels > 1 else None,
    )
    copy_weights(theirs.branch, ours.branch)
    copy_weights(theirs.trunk, ours.trunk)
    nn.init.normal_(ours.bias)
    x = torch.randn(4, 2, *grid.shape)
    with torch.no_grad():
        for c in range(out_channels):
            theirs.b[c].copy_(ours.bias[c])
        # [batch, n], or [batch, n, channel] of several outputs.
        prediction = theirs((x.flatten(1), place)).reshape(4, grid.n_points, out_channels)
        assert relative_difference(ours(x).flatten(2), prediction.transpose(1, 2)) < TOLERANCE


@pytest.mark.parametrize("grid", [LINE, SQUARE], ids=["line", "square"])
def test_pod_deeponet_agrees(deepxde: ModuleType, grid: Grid) -> None:
    ours = small(PODDeepONet, grid, 1, "tanh", n_modes=5)
    ours.prepare(torch.zeros(8, 2, *grid.shape), torch.randn(8, 1, *grid.shape))
    theirs = deepxde.PODDeepONet(
        ours.modes.flatten(1).T, [2 * grid.n_points, 16, 16, 5], "tanh", "Glorot normal", layer_sizes_trunk=None
    )
    copy_weights(theirs.branch, ours.branch)
    x = torch.randn(4, 2, *grid.shape)
    with torch.no_grad():
        # Their mean is added by an output transform of the user's.
        prediction = theirs((x.flatten(1), features(grid))) + ours.mean.flatten(1)
        assert relative_difference(ours(x).flatten(1), prediction) < TOLERANCE


def test_a_convolutional_branch_goes_through_the_same_product(deepxde: ModuleType) -> None:
    grid = Grid(shape=(29, 29), lengths=(1.0,) * 2, boundary=("dirichlet",) * 2, nodes=("closed",) * 2)
    torch.manual_seed(0)
    ours = DeepONet(in_channels=1, out_channels=1, grid=grid, branch="cnn", sensors=29, activation="relu")
    assert isinstance(ours.branch, Branch)
    theirs = deepxde.DeepONetCartesianProd([29 * 29, ours.branch], [2, 128, 128, 128, 128], "relu", "Glorot normal")
    copy_weights(theirs.trunk, ours.trunk)
    x = torch.randn(2, 1, 29, 29)
    with torch.no_grad():
        assert relative_difference(ours(x).flatten(1), theirs((x, features(grid)))) < TOLERANCE
