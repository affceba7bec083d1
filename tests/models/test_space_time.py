"""SpaceTime: the time axis it adds, the order of its output, the published FNO-3D, and its errors."""

from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from data_gen.grids import Grid
from neuralop_bench.config import schema
from neuralop_bench.config.compose import compose
from neuralop_bench.metrics.cost import count_parameters
from neuralop_bench.models.fno import FNO
from neuralop_bench.models.mean_field import MeanField
from neuralop_bench.models.space_time import SpaceTime
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.surrogate import Surrogate

GRID = Grid((6, 8), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))


class Spy(nn.Module):
    """Keeps what it was built with and what it was given; returns 100 step + channel."""

    resolution_free = True

    def __init__(self, *, in_channels: int, out_channels: int, grid: Grid) -> None:
        super().__init__()
        self.built = (in_channels, out_channels, grid)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        steps, channels = torch.arange(x.shape[-1]), torch.arange(self.built[1])
        values = channels.view(-1, *(1,) * (x.ndim - 2)) + 100 * steps
        return values.expand(x.shape[0], self.built[1], *x.shape[2:]).to(x.dtype)


def spied(n_steps: int = 3, out_channels: int = 6, grid: Grid = GRID) -> SpaceTime:
    return SpaceTime(in_channels=5, out_channels=out_channels, grid=grid, operator=Spy, n_steps=n_steps)


def test_the_operator_is_built_on_space_and_time() -> None:
    in_channels, out_channels, grid = spied().operator.built
    assert (in_channels, out_channels) == (5, 2)
    assert grid.shape == (6, 8, 3)
    assert grid.lengths == (1.0, 2.0, 1.0)
    assert grid.boundary == ("periodic", "dirichlet", "open")
    assert grid.nodes == ("periodic", "closed", "centres")


def test_the_input_is_repeated_along_time() -> None:
    model, x = spied(), torch.randn(2, 5, 6, 8)
    model(x)
    assert model.operator.seen.shape == (2, 5, 6, 8, 3)
    for step in range(3):
        assert torch.equal(model.operator.seen[..., step], x)


@pytest.mark.parametrize("grid", [GRID, Grid.periodic(7, 1)])
def test_the_output_is_step_by_step_each_with_all_channels(grid: Grid) -> None:
    output = spied(grid=grid)(torch.randn(2, 5, *grid.shape))
    assert output.shape == (2, 6, *grid.shape)
    assert output[1].flatten(1)[:, 0].tolist() == [0, 1, 100, 101, 200, 201]


def test_a_surrogate_reads_the_bundle_in_the_same_order() -> None:
    zeros, ones = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    none = torch.empty(0, dtype=torch.float64)
    normalizer = Normalizer(zeros, ones, none, none, torch.empty(0, 2, dtype=torch.float64))
    prediction = Surrogate(spied(), normalizer, bundle=3)(torch.randn(2, 2, 2, 6, 8), torch.empty(2, 0, 6, 8))
    assert prediction.shape == (2, 3, 2, 6, 8)
    assert prediction[0, :, :, 0, 0].tolist() == [[0, 1], [100, 101], [200, 201]]


def test_says_of_other_grids_what_its_operator_says() -> None:
    model = spied()
    assert model.resolution_free is True
    model.operator.resolution_free = False
    assert model.resolution_free is False


def test_steps_differ_though_the_input_is_the_same_for_all() -> None:
    # Only the coordinate of time tells the steps apart.
    torch.manual_seed(0)
    operator = partial(FNO, n_modes=2, width=4, n_layers=2)
    model = SpaceTime(in_channels=1, out_channels=4, grid=Grid.periodic(8), operator=operator, n_steps=4)
    output = model(torch.randn(1, 1, 8, 8))
    assert all(not torch.allclose(output[:, step], output[:, step + 1]) for step in range(3))


def test_fno_3d_as_published() -> None:
    # FNO-3D of the paper's table: ten snapshots in, coordinates x, y, t. Its constant is ours without the batch norms.
    cfg = compose("model=fno_3d", "track=lite")
    grid = instantiate(cfg.dataset.problem).spec.grid
    with torch.device("meta"):
        model = instantiate(schema.constructor(cfg.model))(in_channels=10, out_channels=10, grid=grid)
        normalized = FNO(
            in_channels=10, out_channels=1, grid=Grid.periodic(16, 3), n_modes=8, width=20, normalization="batch"
        )
    assert count_parameters(model) == 6_558_377
    assert count_parameters(normalized) == 6_558_537


def test_the_time_axis_is_padded_and_the_periodic_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def layer(v: Tensor, *_: object) -> Tensor:
        shapes.append(tuple(v.shape[1:-1]))
        return v

    monkeypatch.setattr("neuralop_bench.models.fno.fourier_layer", layer)
    operator = partial(FNO, n_modes=2, width=4, n_layers=1, padding=0.6)
    model = SpaceTime(in_channels=1, out_channels=10, grid=Grid.periodic(8), operator=operator, n_steps=10)
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10, 8, 8)
    assert shapes == [(8, 8, 16)]


def test_training_pairs_reach_an_operator_that_asks_for_them_on_space_and_time() -> None:
    model = SpaceTime(in_channels=2, out_channels=6, grid=Grid.periodic(4), operator=MeanField, n_steps=3)
    torch.manual_seed(0)
    inputs, targets = torch.randn(5, 2, 4, 4), torch.randn(5, 6, 4, 4)
    model.prepare(inputs, targets)
    torch.testing.assert_close(model(inputs[:1])[0], targets.mean(dim=0))
    spied().prepare(inputs, targets)  # nothing to prepare


def test_the_number_of_steps_follows_the_bundle() -> None:
    assert compose("model=fno_3d", "track=smoke", "~recipe").model["n_steps"] == 10, "the whole horizon"
    for bundle in (2, 5):
        cfg = compose("model=fno_3d", "track=smoke", f"surrogate.bundle={bundle}", "model.operator.n_modes=1")
        assert cfg.model["n_steps"] == bundle


def test_one_step_is_refused_and_the_bundle_named() -> None:
    cfg = compose("model=fno_3d", "track=smoke", "surrogate.bundle=1")
    with pytest.raises(ValueError, match=r"at least 2, got n_steps=1\. Raise surrogate\.bundle"):
        instantiate(schema.constructor(cfg.model))(in_channels=10, out_channels=1, grid=GRID)


def test_a_bundle_that_doesnt_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"n_steps=4 has a multiple of 4 channels, but out_channels is 6.*model\.n_st"):
        spied(n_steps=4)


def test_three_space_axes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 2 space axes, but the grid has 3\. .*surrogate\.bundle=1"):
        spied(grid=Grid.periodic(4, 3))


def test_an_error_of_the_operator_tells_where_its_keys_lie() -> None:
    operator = partial(FNO, n_modes=(2, 2, 9), width=4)
    with pytest.raises(ValueError, match=r"n_modes=9 per axis.* \(6, 8, 3\) points, time last\. .*model\.operator\.<n"):
        SpaceTime(in_channels=1, out_channels=3, grid=GRID, operator=operator, n_steps=3)
