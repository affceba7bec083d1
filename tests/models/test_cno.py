"""CNO: which shifts it commutes with, its resampling, its levels and its errors."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from data_gen.grids import Grid
from neuralop_bench.layers.band_limited import filtered_activation, resample_series
from neuralop_bench.layers.options import DoesNotFit
from neuralop_bench.models.cno import CNO

MIXED = Grid((12, 13), (1.0, 2.0), ("periodic", "dirichlet"), ("periodic", "closed"))


def cno(grid: Grid, **options: Any) -> nn.Module:
    """A small model in float64, its parameters changed a little."""
    torch.manual_seed(0)
    options = {"width": 3, "n_levels": 3, "n_neck_blocks": 1, "lift_width": 4, **options}
    model = CNO(in_channels=1, out_channels=2, grid=grid, **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval().requires_grad_(False)


def defect(model: nn.Module, x: Tensor, shift: float) -> float:
    """Relative difference of shift-then-apply from apply-then-shift along the last axis; the shift is in points."""
    by, y = shifted(x, shift), model(x)
    return float((model(by) - shifted(y, shift)).norm() / y.norm())


def shifted(x: Tensor, shift: float) -> Tensor:
    if shift == int(shift):
        return x.roll(int(shift), -1)
    k = torch.arange(x.shape[-1] // 2 + 1)
    turn = torch.polar(torch.ones(len(k), dtype=x.dtype), -2 * math.pi * shift / x.shape[-1] * k.to(x.dtype))
    return torch.fft.irfft(torch.fft.rfft(x) * turn, n=x.shape[-1])


# Shifts ---------------------------------------------------------------------------------------------------------------


HALF = Grid((9, 37), (1.0, 1.0), ("neumann", "periodic"), ("centres", "periodic"))


@pytest.mark.parametrize("activation", ["gelu", "leaky_relu"])
@pytest.mark.parametrize(
    ("grid", "n_levels"), [(Grid.periodic(32, 1), 3), (Grid.periodic(35, 1), 3), (HALF, 1), (Grid.periodic(9, 3), 1)]
)
def test_commutes_with_shifts_by_whole_points_to_rounding(grid: Grid, n_levels: int, activation: str) -> None:
    model = cno(grid, activation=activation, n_levels=n_levels)
    x = torch.randn(2, 1, *grid.shape, dtype=torch.float64)  # every wave, also the shortest
    assert max(defect(model, x, shift) for shift in (1, 2, 5)) < 1e-13


def test_as_published_only_shifts_by_half_the_coarsest_spacing_are_exact() -> None:
    model = cno(Grid.periodic(32, 1), exact_shifts=False)
    x = torch.randn(2, 1, 32, dtype=torch.float64)
    assert defect(model, x, 4) < 1e-13  # the coarsest level has 4 points, its activations act on 8
    assert defect(model, x, 1) > 1e-5
    assert defect(model, x, 2) > 1e-5


def test_shifts_by_fractions_are_as_exact_as_the_activation_is_smooth() -> None:
    n = 64
    waves = torch.arange(n, dtype=torch.float64) * 2 * math.pi / n
    x = torch.stack([torch.cos(k * waves + k) for k in (1, 2, 3)]).sum(0)[None, None]
    defects: dict[str, float] = {}
    for activation in ("gelu", "leaky_relu", "plain"):
        model = cno(Grid.periodic(n, 1), activation="gelu" if activation == "plain" else activation, n_levels=1)
        if activation == "plain":  # the same network with pointwise activations
            model._fine = lambda shapes, level: shapes[level]  # pyright: ignore[reportAttributeAccessIssue]
        defects[activation] = defect(model, x, 0.5 / 3)
    assert defects["gelu"] < 1e-4
    assert defects["gelu"] < defects["leaky_relu"] / 10
    assert defects["gelu"] < defects["plain"] / 10


def test_a_linear_activation_leaves_every_shift_exact() -> None:
    model = cno(Grid.periodic(33, 1))
    model._act = lambda v: 0.7 * v  # pyright: ignore[reportAttributeAccessIssue]
    assert defect(model, torch.randn(2, 1, 33, dtype=torch.float64), 0.37) < 1e-13


# Resampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [7, 16, 515])  # products, and a transform
@pytest.mark.parametrize("m", [5, 16, 33])
@pytest.mark.parametrize("nodes", ["periodic", "closed", "centres"])
def test_resampling_is_exact_for_the_waves_that_both_grids_hold(nodes: Any, n: int, m: int) -> None:
    boundary = "periodic" if nodes == "periodic" else "neumann"
    x, y = (
        torch.from_numpy(Grid((points,), (1.0,), (boundary,), (nodes,)).coordinates()[0])  # type: ignore[arg-type]
        for points in (n, m)
    )
    unit, ends = (2 * math.pi, 0) if nodes == "periodic" else (math.pi, nodes == "closed")

    def is_held(k: int, points: int) -> bool:
        return k < (points / 2 if nodes == "periodic" else points - ends)

    for k in range(n):
        if is_held(k, n):  # a wave that the other grid doesn't hold is gone, not aliased
            expected = torch.cos(unit * k * y) if is_held(k, m) else torch.zeros_like(y)
            torch.testing.assert_close(resample_series(torch.cos(unit * k * x), [nodes], [m]), expected)


@pytest.mark.parametrize(
    ("nodes", "n", "fine", "shape"),
    [
        (("periodic", "closed"), (6, 7), (12, 13), (4, 5)),
        (("centres",), (5,), (10,), (3,)),
        (("centres", "periodic"), (4, 3), (9, 6), (9, 5)),
    ],
)
def test_gradients_of_a_filtered_activation_agree_with_finite_differences(
    nodes: Any, n: tuple[int, ...], fine: tuple[int, ...], shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 1, *n, dtype=torch.float64, requires_grad=True)

    def function(v: Tensor) -> Tensor:
        return filtered_activation(v, gelu, nodes, fine, shape)

    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


def test_parts_of_the_fine_fields_make_the_whole() -> None:
    x = torch.randn(3, 5, 32, 32)
    options = (gelu, ("periodic", "closed"), (256, 127), (16, 17))  # 8 fields of 15 fit into a part
    whole = filtered_activation(x, *options)
    torch.testing.assert_close(torch.cat([filtered_activation(row, *options) for row in x.split(1)]), whole)


# The model ------------------------------------------------------------------------------------------------------------


def test_parameter_count_follows_the_closed_form() -> None:
    model = CNO(in_channels=2, out_channels=3, grid=MIXED, width=4, n_levels=1, n_neck_blocks=3, lift_width=5)

    def unit(n_in: int, n_out: int) -> int:
        return 9 * n_in * n_out + 2 * n_out

    ends = 9 * (2 * 5 + 5 * 4 + 8 * 5 + 5 * 3) + 5 + 4 + 5 + 3
    coarse = unit(4, 8) + 6 * unit(8, 8) + 2 * unit(8, 8) + unit(8, 4)
    assert sum(p.numel() for p in model.parameters()) == ends + 2 * unit(4, 4) + unit(4, 4) + coarse


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "needs model.width to be at least 1, got 0"),
        ({"n_levels": 0}, "needs model.n_levels to be at least 1, got 0"),
        ({"n_neck_blocks": 0}, "needs model.n_neck_blocks to be at least 1"),
        ({"lift_width": -1}, "needs model.lift_width to be at least 1"),
        ({"normalization": "group"}, "model.normalization to be one of layer, batch, none, got 'group'"),
        ({"activation": "sine"}, "model.activation to be one of leaky_relu, gelu.*got 'sine'"),
        ({"n_levels": 4}, r"down to \(0, 1\) points.*n_levels must be at most 2. Lower model.n_levels"),
    ],
)
def test_impossible_options_are_refused_with_the_knob_to_turn(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNO(in_channels=1, out_channels=1, grid=MIXED, **{"n_levels": 1, **options})


def test_too_many_levels_name_the_largest_number_that_fits() -> None:
    with pytest.raises(DoesNotFit) as error:
        CNO(in_channels=1, out_channels=1, grid=Grid.periodic(20, 1), n_levels=6)
    assert error.value.fitting == {"n_levels": 3}
