"""What predicted states are projected onto: waves up to a cutoff, and means that don't change."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.layers.options import Inapplicable
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.surrogate.projection import Projection
from neuralop_bench.surrogate.surrogate import Surrogate


def spec(n: int = 16, conserved: tuple[str, ...] = (), times: tuple[float, ...] = (0, 1)) -> DatasetSpec:
    fields = (FieldSpec("a", ""), FieldSpec("b", ""))
    return DatasetSpec("d", 1, "", Grid.periodic(n, 1), times, state=fields, conserved=conserved)


def wave(k: int, n: int = 16) -> Tensor:
    return torch.cos(2 * math.pi * k * torch.arange(n) / n)


@pytest.mark.parametrize("n", [8, 16, 32])
def test_the_same_waves_are_kept_on_any_grid(n: int) -> None:
    projection = Projection.of(spec(), cutoff=0.5, conserve=False)
    assert projection is not None
    kept, cut = wave(3, n), wave(5, n) if n > 8 else 0.0
    bundle = (kept + cut + 2).view(1, 1, 1, n).expand(1, 3, 2, n)
    found = projection(bundle[:, :0], bundle[:, 0, :0], bundle)
    torch.testing.assert_close(found, (kept + 2).expand(1, 3, 2, n), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("conserved", "channels"), [(("mean",), [0]), (("mean_b",), [1]), (("mean", "mean_b"), [0, 1])]
)
def test_means_of_the_named_fields_stay_those_of_the_last_frame(
    conserved: tuple[str, ...], channels: list[int]
) -> None:
    torch.manual_seed(0)
    history, bundle = torch.randn(2, 3, 2, 16), torch.randn(2, 4, 2, 16)
    projection = Projection.of(spec(conserved=conserved), cutoff=1, conserve=True)
    assert projection is not None
    found = projection(history, history[:, 0, :0], bundle)
    for channel in (0, 1):
        mean = (history[:, -1:] if channel in channels else bundle)[:, :, channel].mean(-1)
        torch.testing.assert_close(found[:, :, channel].mean(-1), mean.expand(2, 4))
    torch.testing.assert_close(found - found.mean(-1, keepdim=True), bundle - bundle.mean(-1, keepdim=True))


def test_means_between_walls_count_the_ends_half() -> None:
    grid = Grid((9,), (1.0,), ("neumann",), ("closed",))
    projection = Projection.of(replace(spec(conserved=("mean",)), grid=grid), cutoff=1, conserve=True)
    assert projection is not None
    wave = torch.cos(2 * torch.pi * torch.linspace(0, 1, 9, dtype=torch.float64))  # of mean 0, 1/9 over the points
    history = torch.ones(1, 1, 2, 9, dtype=torch.float64)
    assert torch.allclose(
        projection(history, history[:, 0, :0], history + wave + 0.5)[:, :, 0], history[:, :, 0] + wave
    )


@pytest.mark.parametrize("data", [spec(), replace(spec(conserved=("mean",)), times=())])
def test_means_that_nothing_conserves_are_refused(data: DatasetSpec) -> None:
    with pytest.raises(Inapplicable, match=r"surrogate\.conserve=false"):
        Projection.of(data, cutoff=1, conserve=True)


def test_a_projection_that_changes_nothing_is_none() -> None:
    assert Projection.of(spec(conserved=("mean",)), cutoff=1, conserve=False) is None


def test_a_surrogate_feeds_projected_states_back() -> None:
    class Doubles(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    data = spec(conserved=("mean", "mean_b"))
    projection = Projection.of(data, cutoff=0.5, conserve=True)
    surrogate = Surrogate(Doubles(), Normalizer.none(data, bundle=1), projection=projection)
    start = (1 + wave(3) + wave(5)).view(1, 1, 1, 16).expand(1, 1, 2, 16)
    found = surrogate(surrogate(start, start[:, 0, :0]), start[:, 0, :0])
    torch.testing.assert_close(found, (1 + 4 * wave(3)).expand(1, 1, 2, 16), atol=1e-5, rtol=0)


def test_predictions_are_zero_where_the_equation_does_not_hold() -> None:
    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :2]

    data = replace(spec(), static=(FieldSpec("a", ""), FieldSpec("distance", "")), mask="distance")
    projection = Projection.of(data, cutoff=1, conserve=False)
    surrogate = Surrogate(First(), Normalizer.none(data, bundle=1), projection=projection)
    static = torch.ones(3, 2, 16)
    static[1, 1, :4] = 0
    static[2, 0] = -1
    state = torch.full((3, 1, 2, 16), 5.0)
    expected = state.clone()
    expected[1, ..., :4] = 0
    torch.testing.assert_close(surrogate(state, static), expected)
