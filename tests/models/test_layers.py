"""The small layers that models share."""

import pytest
import torch

from data_gen.grids import Grid
from neuralop_bench.layers.coordinates import append_coordinates
from neuralop_bench.layers.mlp import Pointwise

MIXED = Grid(
    shape=(5, 6, 7),
    lengths=(2.0, 3.0, 0.5),
    boundary=("periodic", "dirichlet", "neumann"),
    nodes=("periodic", "closed", "centres"),
)


def test_appended_coordinates_are_the_nodes_of_the_grid_in_units_of_its_lengths() -> None:
    x = torch.randn(2, 3, *MIXED.shape, dtype=torch.float64)
    out = append_coordinates(x, MIXED.nodes)
    assert out.shape == (2, 6, *MIXED.shape)
    assert torch.equal(out[:, :3], x)
    for axis, (positions, length) in enumerate(zip(MIXED.coordinates(), MIXED.lengths, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = -1
        expected = torch.from_numpy(positions / length).view(shape).expand(2, *MIXED.shape)
        torch.testing.assert_close(out[:, 3 + axis], expected)


def test_appended_coordinates_follow_the_shape_at_hand() -> None:
    x = torch.zeros(1, 1, 9, 4)
    out = append_coordinates(x, ("closed", "periodic"))
    assert out[0, 1, :, 0].tolist() == [i / 8 for i in range(9)]
    assert out[0, 2, 0].tolist() == [0.0, 0.25, 0.5, 0.75]
    assert out.dtype == torch.float32


@pytest.mark.parametrize(("n_dims", "convolution"), [(1, torch.nn.Conv1d), (2, torch.nn.Conv2d), (3, torch.nn.Conv3d)])
def test_pointwise_is_a_convolution_with_a_kernel_of_one_point(n_dims: int, convolution: type) -> None:
    torch.manual_seed(0)
    layer, oracle = Pointwise(3, 5).double(), convolution(3, 5, 1).double()
    with torch.no_grad():
        oracle.weight.copy_(layer.weight.view_as(oracle.weight))
        oracle.bias.copy_(layer.bias)
    x = torch.randn(2, 3, *(4, 5, 6)[:n_dims], dtype=torch.float64)
    torch.testing.assert_close(layer(x), oracle(x))
    for module in (layer, oracle):
        module(x).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, oracle.weight.grad.view_as(layer.weight))
    torch.testing.assert_close(layer.bias.grad, oracle.bias.grad)
