"""FNO: published parameter counts, invariants, options and errors."""

import itertools

import pytest
import torch
from torch import nn

from data_gen.grids import Grid
from neuralop_bench.models.fno import FNO
from neuralop_bench.training.losses import relative_l2

GRID_1D = Grid.periodic(64, n_dims=1)
GRID_2D = Grid.periodic(64)


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("grid", "in_channels", "n_modes", "width", "normalization", "expected"),
    [
        pytest.param(GRID_1D, 1, 16, 64, "none", 549_569, id="burgers"),
        pytest.param(GRID_1D, 1, 16, 64, "batch", 550_081, id="burgers-batch-norm"),
        pytest.param(GRID_2D, 1, 12, 32, "none", 2_368_001, id="darcy"),
        pytest.param(GRID_2D, 1, 12, 32, "batch", 2_368_257, id="darcy-batch-norm"),
        pytest.param(GRID_2D, 10, 8, 20, "batch", 414_517, id="ns-8-modes"),
        pytest.param(GRID_2D, 10, 12, 20, "batch", 926_517, id="ns-12-modes"),
        pytest.param(GRID_2D, 10, 12, 20, "none", 926_357, id="ns-12-modes-no-batch-norm"),
        pytest.param(Grid.periodic(16, n_dims=3), 10, 8, 20, "batch", 6_558_537, id="ns-3d"),
        pytest.param(Grid.periodic(16, n_dims=3), 10, 8, 20, "none", 6_558_377, id="ns-3d-no-batch-norm"),
    ],
)
def test_published_parameter_counts(
    grid: Grid, in_channels: int, n_modes: int, width: int, normalization: str, expected: int
) -> None:
    with torch.device("meta"):
        model = FNO(
            in_channels=in_channels,
            out_channels=1,
            grid=grid,
            n_modes=n_modes,
            width=width,
            normalization=normalization,
        )
    assert n_parameters(model) == expected


def test_parameter_count_follows_the_closed_form_away_from_the_defaults() -> None:
    model = FNO(in_channels=3, out_channels=2, grid=GRID_2D, n_modes=(3, 5), width=7, n_layers=2, projection_width=11)
    lifting = (3 + 2) * 7 + 7
    block = 2 * (2 * 3 * 5) * 7 * 7 + 7 * 7 + 7
    projection = 7 * 11 + 11 + 11 * 2 + 2
    assert n_parameters(model) == lifting + 2 * block + projection


def test_equals_its_formula() -> None:
    # The docstring's equation with the model's own layers: order, skips, no activation after the last block.
    torch.manual_seed(0)
    model = FNO(in_channels=2, out_channels=3, grid=Grid.periodic(10), n_modes=2, width=4, n_layers=3).double()
    x = torch.randn(2, 2, 10, 10, dtype=torch.float64)
    position = (torch.arange(10, dtype=torch.float64) / 10).expand(2, 1, 10, 10)
    v = model.lifting(torch.cat([x, position.transpose(-2, -1), position], dim=1))
    gelu = nn.functional.gelu
    for layer in range(3):
        v = model.spectral[layer](v) + model.pointwise[layer](v)
        v = gelu(v) if layer < 2 else v
    torch.testing.assert_close(model(x), model.projection[1](gelu(model.projection[0](v))))


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(12,), (11,), (8, 10), (9, 7), (6, 8, 4), (5, 6, 7)])
def test_maps_fields_on_grids_of_one_to_three_axes_even_and_odd(shape: tuple[int, ...], boundary: str) -> None:
    nodes = "periodic" if boundary == "periodic" else "closed"
    n_dims = len(shape)
    grid = Grid(shape, (1.0,) * n_dims, (boundary,) * n_dims, (nodes,) * n_dims)
    model = FNO(in_channels=2, out_channels=3, grid=grid, n_modes=2, width=4, normalization="batch")
    output = model(torch.randn(2, 2, *shape))
    assert output.shape == (2, 3, *shape)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("coordinates", ["nodes", "closed"])
def test_commutes_with_circular_shifts_without_coordinates_and_not_with_them(coordinates: str) -> None:
    torch.manual_seed(0)
    model = FNO(
        in_channels=2, out_channels=1, grid=Grid.periodic(16), n_modes=4, width=6, coordinates=coordinates
    ).double()
    x = torch.randn(2, 2, 16, 16, dtype=torch.float64)

    def defect() -> float:
        shifted = model(x.roll((3, -5), (-2, -1)))
        return float((shifted - model(x).roll((3, -5), (-2, -1))).abs().max().detach())

    assert defect() > 1e-3
    with torch.no_grad():
        model.lifting.weight[:, 2:] = 0
    assert defect() < 1e-13


def test_coordinates_are_those_of_the_grid_or_include_both_ends() -> None:
    class Recorder(nn.Module):
        def channels_last(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return torch.zeros(*x.shape[:-1], 4)

    darcy = Grid((9,), (1.0,), ("dirichlet",), ("closed",))
    for grid, coordinates, last in [
        (Grid.periodic(8, 1), "nodes", 7 / 8),
        (Grid.periodic(8, 1), "closed", 1.0),
        (darcy, "nodes", 1.0),
    ]:
        model = FNO(in_channels=1, out_channels=1, grid=grid, n_modes=2, width=4, coordinates=coordinates)
        model.lifting = Recorder()
        model(torch.zeros(1, 1, *grid.shape))
        assert model.lifting.seen[0, [0, -1], 1].tolist() == [0.0, last]


def test_loss_doesnt_depend_on_how_a_batch_is_split() -> None:
    torch.manual_seed(0)
    model = FNO(in_channels=2, out_channels=1, grid=Grid.periodic(16), n_modes=4, width=6).double()
    x = torch.randn(7, 2, 16, 16, dtype=torch.float64)
    target = torch.randn(7, 1, 1, 16, 16, dtype=torch.float64)

    def gradient(sizes: list[int]) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        total = 0.0
        for inputs, targets in zip(x.split(sizes), target.split(sizes), strict=True):
            loss = relative_l2(model(inputs)[:, None], targets) * (len(inputs) / 7)
            loss.backward()
            total += float(loss.detach())
        return total, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole, whole_gradient = gradient([7])
    for sizes in ([1] * 7, [3, 3, 1]):
        split, split_gradient = gradient(sizes)
        assert split == pytest.approx(whole, rel=1e-12)
        torch.testing.assert_close(split_gradient, whole_gradient, rtol=1e-9, atol=1e-13)


def test_batch_normalization_acts_on_every_block_and_uses_running_statistics_in_evaluation() -> None:
    torch.manual_seed(0)
    model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(8), n_modes=2, width=4, normalization="batch")
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 4
    x = torch.randn(5, 1, 8, 8)
    model.train()
    model(x)
    for norm in model.norms:
        assert norm.running_mean.abs().max() > 0
    model.eval()
    # In evaluation a prediction doesn't depend on the other samples of the batch.
    torch.testing.assert_close(model(x)[:1], model(x[:1]))


def test_activations_differ() -> None:
    outputs = []
    for activation in ("relu", "gelu", "tanh"):
        torch.manual_seed(0)
        model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(8), n_modes=2, width=4, activation=activation)
        outputs.append(model(torch.ones(1, 1, 8, 8)))
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.allclose(first, second)


def test_spectral_init_reaches_every_block() -> None:
    for init, positive in (("uniform", True), ("normal", False)):
        model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(8), n_modes=2, width=4, spectral_init=init)
        assert [bool((conv.weight >= 0).all()) for conv in model.spectral] == [positive] * 4


def test_one_number_of_modes_per_axis() -> None:
    model = FNO(in_channels=1, out_channels=1, grid=Grid.periodic(16), n_modes=[2, 5], width=4)
    assert all(conv.weight.shape == (2, 4, 5, 4, 4) for conv in model.spectral)


def test_more_modes_than_the_grid_holds_are_refused_when_the_model_is_built() -> None:
    message = (
        "FNO keeps n_modes=40 per axis, but the grid has 64 points: n_modes must be at most 32. "
        "Lower model.n_modes or raise the resolution."
    )
    with pytest.raises(ValueError, match="n_modes must be at most 32") as error:
        FNO(in_channels=1, out_channels=1, grid=GRID_2D, n_modes=40)
    assert str(error.value) == message
    with pytest.raises(ValueError, match="over 3 axes got fields over 2 axes"):
        FNO(in_channels=1, out_channels=1, grid=GRID_2D, n_modes=(4, 4, 4))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("width", 0, "needs model.width to be at least 1, got 0"),
        ("n_layers", 0, "needs model.n_layers to be at least 1, got 0"),
        ("n_modes", 0, "needs model.n_modes to be at least 1, got 0"),
        ("n_modes", (4, -1), "needs model.n_modes to be at least 1, got -1"),
        ("projection_width", 0, "needs model.projection_width to be at least 1, got 0"),
        ("activation", "sine", "model.activation to be one of gelu, gelu_tanh, relu, tanh, got 'sine'"),
        ("normalization", "layer", "model.normalization to be one of none, batch, got 'layer'"),
        ("spectral_init", "zeros", "model.spectral_init to be one of normal, uniform, small, got 'zeros'"),
        ("coordinates", "polar", "model.coordinates to be one of nodes, closed, none, got 'polar'"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(name: str, value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FNO(in_channels=1, out_channels=1, grid=GRID_2D, **{name: value})
