"""DeepONet and its branch: published parameter counts, invariants, options and errors."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.layers.branch import Branch
from neuralop_bench.models.deeponet import DeepONet

DOUBLE = torch.float64


def closed(*shape: int, boundary: Any = "dirichlet") -> Grid:
    n = len(shape)
    return Grid(shape=shape, lengths=(1.0,) * n, boundary=(boundary,) * n, nodes=("closed",) * n)


def mixed(*shape: int) -> Grid:
    """Closed along x, periodic along y, of length 3."""
    return Grid(shape=shape, lengths=(1.0, 3.0), boundary=("dirichlet", "periodic"), nodes=("closed", "periodic"))


def build(grid: Grid, in_channels: int = 2, out_channels: int = 3, **options: Any) -> DeepONet:
    """A small network in double precision with biases that aren't zero."""
    torch.manual_seed(0)
    small: dict[str, Any] = {"sensors": 8, "n_basis": 5, "width": 7, "n_branch_layers": 2, "n_trunk_layers": 2}
    model = DeepONet(in_channels=in_channels, out_channels=out_channels, grid=grid, **(small | options)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def n_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def last_linear(network: nn.Module) -> nn.Linear:
    *_, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    return last


# Sizes ---------------------------------------------------------------------------------------------------------------


def test_published_parameter_count_of_burgers() -> None:
    model = DeepONet(
        in_channels=1,
        out_channels=1,
        grid=Grid.periodic(128, n_dims=1),
        sensors=128,
        n_branch_layers=4,
        n_trunk_layers=3,
        harmonics=2,
        activation="tanh",
    )
    assert (n_parameters(model.branch), n_parameters(model.trunk)) == (66_048, 33_664)
    assert n_parameters(model) == 99_713


def test_published_parameter_count_of_darcy() -> None:
    model = DeepONet(
        in_channels=1,
        out_channels=1,
        grid=closed(29, 29),
        branch="cnn",
        sensors=29,
        n_branch_layers=2,
        n_trunk_layers=4,
        activation="relu",
    )
    assert (n_parameters(model.branch), n_parameters(model.trunk)) == (632_832, 49_920)
    assert n_parameters(model) == 682_753


def test_parameter_count_follows_the_closed_form_away_from_the_defaults() -> None:
    # x enters the trunk as itself, periodic y as two pairs of waves.
    model = build(mixed(9, 16), sensors=(4, 6), harmonics=2, n_branch_layers=3)
    n_flat, width, n_functions = 2 * 4 * 6, 7, 3 * 5
    branch = (n_flat * width + width) + (width * width + width) + (width * n_functions + n_functions)
    trunk = (5 * width + width) + (width * n_functions + n_functions)
    assert n_parameters(model) == branch + trunk + 3


def test_weights_start_glorot_normal_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    model = DeepONet(in_channels=1, out_channels=1, grid=closed(29, 29), branch="cnn", sensors=29, n_branch_layers=2)
    checked = 0
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            points = math.prod(module.weight.shape[2:])
            fan = points * (module.weight.shape[0] + module.weight.shape[1])
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan), rel=0.15)
            # A uniform distribution of this size would end at sqrt(6 / fan).
            assert float(module.weight.detach().abs().max()) > math.sqrt(6 / fan)
            assert torch.count_nonzero(module.get_parameter("bias")) == 0
            checked += 1
    assert checked == 2 + 2 + 4


# The formula ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_equals_its_formula(activation: Any) -> None:
    # Written with loops over channels, functions and points, from the model's own weights.
    grid = mixed(5, 4)
    model = build(grid, sensors=(5, 4), harmonics=1, activation=activation)
    act = getattr(torch, activation, None) or getattr(nn.functional, activation)
    x = torch.randn(2, 2, 5, 4, dtype=DOUBLE)
    b1, b2 = (m for m in model.branch.modules() if isinstance(m, nn.Linear))
    t1, t2 = (m for m in model.trunk.modules() if isinstance(m, nn.Linear))
    branch = act(x.reshape(2, -1) @ b1.weight.T + b1.bias) @ b2.weight.T + b2.bias
    expected = torch.zeros(2, 3, 5, 4, dtype=DOUBLE)
    for i in range(5):
        for j in range(4):
            angle = 2 * math.pi * j / 4
            place = torch.tensor([i / 4, math.cos(angle), math.sin(angle)], dtype=DOUBLE)
            trunk = act(t2.weight @ act(t1.weight @ place + t1.bias) + t2.bias)
            for c in range(3):
                own = slice(5 * c, 5 * (c + 1))
                expected[:, c, i, j] = branch[:, own] @ trunk[own] + model.bias[c]
    torch.testing.assert_close(model(x), expected)


def test_the_convolutional_branch_equals_its_formula() -> None:
    # Without padding along closed x, with values from the other end along periodic y.
    torch.manual_seed(0)
    branch = Branch(2, 3, grid=mixed(13, 8), kind="cnn", sensors=(13, 8), n_layers=1, cnn_channels=(4, 6)).double()
    first, second = (m for m in branch.modules() if isinstance(m, nn.Conv2d))
    x = torch.randn(2, 2, 13, 8, dtype=DOUBLE)
    v = x
    for conv in (first, second):
        v = torch.cat([v[..., -2:], v, v[..., :2]], dim=-1)
        v = nn.functional.gelu(nn.functional.conv2d(v, conv.weight, conv.bias, stride=2))
    assert v.shape == (2, 6, 1, 2)
    last = last_linear(branch)
    torch.testing.assert_close(branch(x), v.flatten(1) @ last.weight.T + last.bias)


def test_is_linear_in_the_output_of_the_branch() -> None:
    model = build(Grid.periodic(8))
    x = torch.randn(2, 2, 8, 8, dtype=DOUBLE)
    last, constant = last_linear(model.branch), model.bias.detach()[:, None, None]
    before = model(x) - constant
    with torch.no_grad():
        last.weight.mul_(-3)
        last.bias.mul_(-3)
    torch.testing.assert_close(model(x) - constant, -3 * before)


# Grids ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [Grid.periodic(16), closed(17, 17), mixed(17, 16), Grid.periodic(16, n_dims=1)])
@pytest.mark.parametrize("branch", ["mlp", "cnn"])
def test_a_subset_of_the_nodes_is_a_subset_of_the_prediction(grid: Grid, branch: str) -> None:
    # The sensors are nodes of both grids, so the branch is given the same numbers.
    sensors = tuple(9 if nodes == "closed" else 8 for nodes in grid.nodes)
    model = build(grid, branch=branch, sensors=sensors, cnn_channels=(4,))
    fine = torch.randn(2, 2, *grid.refine(2).shape, dtype=DOUBLE)
    every_other = (..., *(slice(None, None, 2),) * grid.n_dims)
    torch.testing.assert_close(model(fine[every_other]), model(fine)[every_other])


def test_what_lies_between_the_sensors_is_not_seen() -> None:
    model = build(Grid.periodic(16), sensors=8)
    x = torch.randn(2, 2, 16, 16, dtype=DOUBLE)
    moved = x + torch.randn_like(x)
    moved[..., ::2, ::2] = x[..., ::2, ::2]
    torch.testing.assert_close(model(moved), model(x))


@pytest.mark.parametrize(("harmonics", "repeats"), [(0, False), (1, True), (3, True)])
def test_the_trunk_is_periodic_if_given_waves(harmonics: int, repeats: bool) -> None:
    model = build(mixed(9, 16), harmonics=harmonics)
    with torch.no_grad():
        both_ends = model.trunk(model._features(torch.tensor([[0.3, 0.0], [0.3, 1.0]], dtype=DOUBLE)))
    assert torch.allclose(both_ends[0], both_ends[1]) is repeats


def test_an_output_channel_has_functions_of_its_own() -> None:
    model = build(Grid.periodic(8))
    x = torch.randn(1, 2, 8, 8, dtype=DOUBLE)
    before = model(x)
    with torch.no_grad():
        last_linear(model.trunk).weight[5:10] += 1
    changed = (model(x) - before).abs().amax(dim=(0, 2, 3)) > 0
    assert changed.tolist() == [False, True, False]


# The boundary --------------------------------------------------------------------------------------------------------


def test_a_hard_boundary_holds_on_every_grid_and_for_any_weights() -> None:
    model = build(mixed(9, 16), hard_dirichlet=True)
    for shape in [(9, 16), (12, 10)]:
        output = model(torch.randn(2, 2, *shape, dtype=DOUBLE)).detach()
        assert not output[:, :, [0, -1]].any()
        # Periodic y has no boundary.
        assert output[:, :, 1:-1].all()


def test_a_hard_boundary_equals_its_formula() -> None:
    grid = closed(5, 9)
    soft, hard = build(grid), build(grid, hard_dirichlet=True)
    x = torch.randn(2, 2, 5, 9, dtype=DOUBLE)
    hard.boundary_value.copy_(torch.tensor([1.0, -2.0, 0.5]))
    expected = torch.empty(2, 3, 5, 9, dtype=DOUBLE)
    for i in range(5):
        for j in range(9):
            factor = 16 * (i / 4) * (1 - i / 4) * (j / 8) * (1 - j / 8)
            expected[..., i, j] = hard.boundary_value + factor * soft(x)[..., i, j]
    torch.testing.assert_close(hard(x), expected)


def constant_at_the_walls(values: list[float]) -> Tensor:
    """[4, channel, 9, 16] that are ``values`` at both ends of x and anything inside."""
    targets = torch.randn(4, len(values), 9, 16)
    targets[:, :, [0, -1]] = torch.tensor(values)[:, None, None]
    return targets


def test_the_value_at_the_boundary_comes_from_the_training_targets() -> None:
    # A pressure of zero is -mean/std in the normalised units of the network.
    model = build(mixed(9, 16), hard_dirichlet=True)
    values = [-1.75, 0.0, 3.0]
    model.prepare(torch.zeros(4, 2, 9, 16), constant_at_the_walls(values))
    assert model.boundary_value.tolist() == pytest.approx(values, abs=1e-6)
    output = model(torch.randn(2, 2, 9, 16, dtype=DOUBLE))
    for c, value in enumerate(values):
        assert output[:, c, [0, -1]].sub(value).abs().max() < 1e-6
    again = build(mixed(9, 16), hard_dirichlet=True)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.boundary_value, model.boundary_value)


def test_targets_that_vary_along_the_boundary_are_refused() -> None:
    targets = constant_at_the_walls([0.0, 0.0, 0.0])
    targets[2, 1, -1, 5] = 0.1
    with pytest.raises(ValueError, match=r"vary there by up to 0\.1 .*Set model\.hard_dirichlet=false"):
        build(mixed(9, 16), hard_dirichlet=True).prepare(torch.zeros(4, 2, 9, 16), targets)
    soft = build(mixed(9, 16))
    soft.prepare(torch.zeros(4, 2, 9, 16), targets)
    assert not soft.boundary_value.any()


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"branch": "resnet"}, r"model\.branch to be one of mlp, cnn, got 'resnet'"),
        ({"activation": "swish"}, r"model\.activation to be one of .*got 'swish'"),
        ({"sensors": 1}, r"at least 2 sensors .* got 1\. Set model\.sensors"),
        ({"sensors": (8, 8, 8)}, r"each of the grid's 2 axes, got \(8, 8, 8\)"),
        ({"n_basis": 0}, r"needs model\.n_basis to be at least 1, got 0"),
        ({"width": 0}, r"needs model\.width to be at least 1, got 0"),
        ({"n_trunk_layers": 0}, r"needs model\.n_trunk_layers to be at least 1, got 0"),
        ({"n_branch_layers": 0}, r"needs model\.n_branch_layers to be at least 1, got 0"),
        ({"branch": "cnn", "cnn_channels": (4, 0)}, r"needs model\.cnn_channels to be at least 1, got 0"),
        ({"harmonics": -1}, r"needs model.harmonics to be at least 0, got -1"),
        (
            {"branch": "cnn", "sensors": 12},
            r"\(12, 12\) sensors are too few for 2 convolutions: .* 4 points .* at least 5",
        ),
        ({"hard_dirichlet": True, "grid": Grid.periodic(8)}, r"needs an axis with a Dirichlet .*hard_dirichlet=false"),
        (
            {"hard_dirichlet": True, "grid": closed(9, 9, boundary="neumann")},
            "needs an axis with a Dirichlet condition",
        ),
    ],
)
def test_bad_arguments_are_refused_before_any_memory_is_used(options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        DeepONet(**({"in_channels": 1, "out_channels": 1, "grid": closed(33, 33)} | options))


def test_the_fewest_sensors_that_two_convolutions_take() -> None:
    for grid, sensors in ((closed(33, 33), 13), (Grid.periodic(32), 3)):
        model = build(grid, branch="cnn", sensors=sensors)
        assert model(torch.zeros(1, 2, *grid.shape, dtype=DOUBLE)).shape == (1, 3, *grid.shape)


def test_cell_centres_and_three_dimensions() -> None:
    grid = replace(closed(6, 5, 4), nodes=("centres",) * 3)
    model = build(grid, sensors=4)
    assert model(torch.zeros(2, 2, 6, 5, 4, dtype=DOUBLE)).shape == (2, 3, 6, 5, 4)
