"""Padding of the axes that aren't periodic: how much, with what, and what it does to the FNO."""

import math

import pytest
import torch

from data_gen.grids import Grid, Nodes
from neuralop_bench.layers.padding import crop, domain_padding, pad
from neuralop_bench.models.fno import FNO


def closed(resolution: int, n_dims: int) -> Grid:
    return Grid((resolution,) * n_dims, (1.0,) * n_dims, ("dirichlet",) * n_dims, ("closed",) * n_dims)


def smooth_field(grid: Grid) -> torch.Tensor:
    """[1, 1, *space]: a function that isn't periodic, the same on every grid of the unit box."""
    mesh = torch.meshgrid(*map(torch.from_numpy, grid.coordinates()), indexing="ij")
    field = torch.zeros(grid.shape, dtype=torch.float64)
    for k in range(1, 4):
        waves = [torch.cos(math.pi * k * x + 0.3 * k * axis) for axis, x in enumerate(mesh, start=1)]
        field += torch.stack(waves).prod(dim=0) / k
    return field[None, None]


# How much ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize(("n", "nodes"), [(85, "closed"), (12, "closed"), (33, "centres"), (40, "centres")])
@pytest.mark.parametrize("fraction", [1 / 12, 0.125, 0.5, 1.0])
def test_the_circle_is_as_long_at_every_resolution(n: int, nodes: Nodes, fraction: float, factor: int) -> None:
    grid = Grid((n,), (3.0,), ("open",), (nodes,)).refine(factor)
    (n_pad,) = domain_padding(grid.shape, grid.nodes, fraction)
    length = (grid.shape[0] + n_pad) * grid.spacing[0]
    added = fraction * 3.0 / grid.spacing[0]
    # To half a spacing; exactly if the fraction is a whole number of intervals.
    tolerance = 1e-9 if abs(added - round(added)) < 1e-9 else 0.5 * grid.spacing[0] + 1e-9
    assert length == pytest.approx(3.0 * (1 + fraction), abs=tolerance)


def test_periodic_axes_get_nothing_and_each_other_axis_its_own() -> None:
    assert domain_padding((64, 64), ("periodic", "periodic"), 1.0) == (0, 0)
    assert domain_padding((64, 10, 85), ("periodic", "centres", "closed"), 0.5) == (0, 5, 41)
    assert domain_padding((10, 85), ("centres", "closed"), 0.0) == (0, 0)


@pytest.mark.parametrize("fraction", [-0.1, 6, math.nan, math.inf])
def test_a_number_of_cells_is_no_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"model\.padding is a fraction of the domain between 0 and 1, got"):
        FNO(in_channels=1, out_channels=1, grid=closed(9, 1), n_modes=2, padding=fraction)


# With what -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("space", "n_points"), [((7,), (3,)), ((6, 5), (0, 4)), ((5, 4, 3), (1, 0, 2))])
def test_crop_undoes_pad(space: tuple[int, ...], n_points: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *space)
    padded = pad(x, n_points)
    assert padded.shape == (2, 3, *(n + m for n, m in zip(space, n_points, strict=True)))
    assert torch.equal(crop(padded, space), x)


def test_padding_leads_from_the_last_value_to_the_first_along_half_a_cosine() -> None:
    x = torch.tensor([5.0, 7.0, 1.0], dtype=torch.float64)[None, None]
    added = pad(x, (3,))[0, 0, 3:]
    expected = [3 - 2 * math.cos(math.pi * j / 4) for j in (1, 2, 3)]  # from 1 to 5
    torch.testing.assert_close(added, torch.tensor(expected, dtype=torch.float64))
    # Axis by axis: the corner doesn't depend on which comes first.
    y = torch.randn(1, 1, 4, 5, dtype=torch.float64)
    other = pad(y.transpose(2, 3), (3, 2)).transpose(2, 3)
    torch.testing.assert_close(pad(y, (2, 3)), other)


def test_gradients_pass_through_the_padding() -> None:
    x = torch.randn(1, 1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: pad(u, (2, 1)), x)


# In the network ------------------------------------------------------------------------------------------------------


def mismatch(n_dims: int, resolution: int, n_modes: int, padding: float) -> float:
    """How much predictions at the same points differ on a grid twice as fine, relative to their variation."""
    torch.manual_seed(0)
    grid = closed(resolution, n_dims)
    model = FNO(in_channels=1, out_channels=1, grid=grid, n_modes=n_modes, width=8, padding=padding).double()
    with torch.no_grad():
        coarse, fine = (model(smooth_field(g)) for g in (grid, grid.refine(2)))
    assert coarse.shape == (1, 1, *grid.shape)
    shared = fine[(..., *(slice(None, None, 2),) * n_dims)]
    return float((shared - coarse).square().mean().sqrt() / coarse.std())


@pytest.mark.parametrize(
    ("n_dims", "resolution", "n_modes", "padding", "gain"),
    [(1, 85, 12, 0.25, 20), (1, 48, 8, 6 / 47, 10), (2, 43, 8, 1 / 6, 20), (3, 13, 4, 0.25, 8)],
)
def test_padding_reduces_what_a_change_of_resolution_does_on_closed_grids(
    n_dims: int, resolution: int, n_modes: int, padding: float, gain: float
) -> None:
    without, padded = (mismatch(n_dims, resolution, n_modes, p) for p in (0.0, padding))
    assert padded < without / gain


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@pytest.mark.parametrize("n", [8, 9])
def test_periodic_grids_are_not_padded(n_dims: int, n: int) -> None:
    outputs, x = [], torch.randn(2, 1, *(n,) * n_dims)
    for padding in (0.0, 0.5):
        torch.manual_seed(0)
        grid = Grid.periodic(n, n_dims)
        model = FNO(in_channels=1, out_channels=1, grid=grid, n_modes=3, width=4, padding=padding)
        outputs.append(model(x))
    assert torch.equal(*outputs)


@pytest.mark.parametrize("shape", [(9,), (8, 11), (6, 9, 8)])
def test_padding_changes_no_shape_and_no_parameter(shape: tuple[int, ...]) -> None:
    n_dims = len(shape)
    grid = Grid(shape, (1.0,) * n_dims, ("neumann",) * n_dims, ("centres",) * n_dims)
    models = [
        FNO(in_channels=2, out_channels=3, grid=grid, n_modes=3, width=4, padding=padding) for padding in (0.0, 0.3)
    ]
    models[1].load_state_dict(models[0].state_dict())
    x = torch.randn(2, 2, *shape)
    plain, padded = (model(x) for model in models)
    assert padded.shape == plain.shape == (2, 3, *shape)
    assert not torch.allclose(padded, plain)


def test_modes_are_bounded_by_the_padded_grid() -> None:
    grid = Grid((8, 10), (1.0, 1.0), ("periodic", "open"), ("periodic", "centres"))
    FNO(in_channels=1, out_channels=1, grid=grid, n_modes=(4, 8), width=4, padding=0.6)(torch.zeros(1, 1, 8, 10))
    with pytest.raises(ValueError, match="FNO on its padded grid keeps n_modes=9 per axis, but the grid has 16 points"):
        FNO(in_channels=1, out_channels=1, grid=grid, n_modes=(4, 9), width=4, padding=0.6)
    with pytest.raises(ValueError, match="n_modes=8 per axis, but the grid has 10 points"):
        FNO(in_channels=1, out_channels=1, grid=grid, n_modes=(4, 8), width=4)
