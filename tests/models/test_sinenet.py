"""SineNet: waves as changes, levels, shifts, grids and errors.

Its plain form is compared in test_references.py, its size in test_parameter_counts.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.models.sinenet import SineNet

SQUARE = Grid.periodic(16)


def small(**options: Any) -> SineNet:
    torch.manual_seed(0)
    sizes = {"in_channels": 2, "out_channels": 1, "grid": SQUARE, "width": 4, "n_waves": 2, "n_levels": 2}
    return SineNet(**sizes | options).double()


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_wave_whose_last_block_is_zero_changes_nothing() -> None:
    model, x = small(n_waves=3), fields(2, 2, 16, 16)
    with torch.no_grad():
        for wave in model.waves[1:]:
            last = wave.get_submodule("up.0")
            for name in ("norms.1.weight", "norms.1.bias", "shortcut.weight", "shortcut.bias"):
                last.get_parameter(name).zero_()
        v = model.lifting(x)
        expected = model.projection(v + model.waves[0](v))
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)


def test_commutes_with_shifts_by_points_of_the_coarsest_level() -> None:
    model, x = small(), fields(2, 2, 16, 16)

    def defect(*by: int) -> float:
        return float((model(x.roll(by, (-2, -1))) - model(x).roll(by, (-2, -1))).abs().max().detach())

    assert defect(4, -8) < 1e-12
    assert defect(1, 0) > 1e-6


def test_a_constant_passes_the_levels_of_a_wave_unchanged() -> None:
    """With blocks that are their shortcuts, and these identities, a wave averages and interpolates."""
    model = small(growth=1.0, grid=Grid((16, 8), (1.0, 1.0), ("periodic", "dirichlet"), ("periodic", "closed")))
    (wave, *_) = model.waves
    with torch.no_grad():
        for block in (*wave.get_submodule("down").children(), *wave.get_submodule("up").children()):
            block.get_parameter("norms.1.weight").zero_()
            block.get_parameter("shortcut.bias").zero_()
            block.get_parameter("shortcut.weight").copy_(torch.eye(4))
    constant = fields(1, 4, 1, 1).expand(1, 4, 16, 8)
    torch.testing.assert_close(wave(constant), constant, rtol=1e-13, atol=1e-14)
    x = fields(1, 4, 16, 8)
    torch.testing.assert_close(wave(x).mean((2, 3)), x.mean((2, 3)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(17,), (16,), (9, 12), (4, 5, 6)])
def test_maps_fields_on_grids_of_one_to_three_axes_even_and_odd(shape: tuple[int, ...], boundary: str) -> None:
    nodes = "periodic" if boundary == "periodic" else "closed"
    n = len(shape)
    grid = Grid(shape, (1.0,) * n, (boundary,) * n, (nodes,) * n)  # pyright: ignore[reportArgumentType]
    output = small(grid=grid)(fields(2, 2, *shape))
    assert output.shape == (2, 1, *shape)
    assert torch.isfinite(output).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 1}, "model.width to be at least 2"),
        ({"n_waves": 0}, "model.n_waves to be at least 1"),
        ({"n_levels": 0}, "model.n_levels to be at least 1"),
        ({"growth": 0.9}, "model.growth to be at least 1, got 0.9"),
        ({"activation": "sine"}, "model.activation to be one of"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**options)
