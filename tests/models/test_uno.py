"""UNO: grids, resolutions, shifts, skip connections, options and errors.

Its plain form is compared in test_references.py, its size in test_parameter_counts.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.layers.options import DoesNotFit
from neuralop_bench.layers.spectral_conv import SpectralConv
from neuralop_bench.models.uno import UNO

SQUARE = Grid.periodic(16)
CLOSED = Grid((16, 16), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


def small(**options: Any) -> UNO:
    torch.manual_seed(0)
    defaults = {"in_channels": 2, "out_channels": 1, "grid": SQUARE, "width": 4, "widths": (6, 8), "n_modes": (3, 2)}
    return UNO(**defaults | options).double()


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("fast", [False, True], ids=["products", "fast transforms"])
@pytest.mark.parametrize("shape", [(12,), (9, 11), (7, 8, 6)])
def test_a_convolution_onto_another_grid_is_the_same_function(
    shape: tuple[int, ...], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralop_bench.layers.spectral_conv.is_faster_as_product", lambda *_: not fast)
    conv, u = SpectralConv(2, 3, (3,) * len(shape)).double(), fields(2, 2, *shape)
    finer = conv(u, tuple(3 * n for n in shape))
    torch.testing.assert_close(finer[(..., *(slice(None, None, 3),) * len(shape))], conv(u), rtol=1e-10, atol=1e-12)


def test_layers_work_on_the_grids_of_their_levels() -> None:
    model, seen = small(grid=Grid.periodic(21), scales=(0.75, 0.5)), []
    for layer in (*model.down, model.bottom, *reversed(model.up)):
        layer.register_forward_hook(lambda _layer, _given, output: seen.append((*output.shape[1:],)))
    model(fields(1, 2, 21, 21))
    assert seen == [(16, 16, 6), (10, 10, 8), (10, 10, 8), (16, 16, 6), (21, 21, 4)]


def test_commutes_with_shifts_by_points_of_the_coarsest_level_without_coordinates() -> None:
    model, x = small(), fields(2, 2, 16, 16)
    with torch.no_grad():
        model.lifting[0].weight[:, 2:] = 0

    def defect(*by: int) -> float:
        return float((model(x.roll(by, (-2, -1))) - model(x).roll(by, (-2, -1))).abs().max().detach())

    assert defect(4, -8) < 1e-13
    assert defect(1, 0) > 1e-6  # coarse grids have no such points


def test_skip_connections_carry_what_coarse_grids_drop() -> None:
    """With all layers zero, what remains is the pointwise map from the lifted input to the output."""
    model, x = small(), fields(2, 2, 16, 16)
    with torch.no_grad():
        for layer in (*model.down, model.bottom, *model.up):
            for parameter in layer.parameters():
                parameter.zero_()
        lifted = torch.nn.functional.gelu(model.lifting(torch.cat([x, positions()], dim=1)))
        expected = model.projection(torch.cat([torch.zeros_like(lifted), lifted], dim=1))
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-13)


def positions() -> Tensor:
    axis = torch.arange(16, dtype=torch.float64) / 16
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij")).expand(2, -1, -1, -1)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(17,), (16,), (17, 20), (16, 17, 18)])
def test_maps_fields_on_grids_of_one_to_three_axes_even_and_odd(shape: tuple[int, ...], boundary: str) -> None:
    nodes = "periodic" if boundary == "periodic" else "closed"
    n = len(shape)
    model = small(grid=Grid(shape, (1.0,) * n, (boundary,) * n, (nodes,) * n), n_modes=(2, 2))
    output = model(fields(2, 2, *shape))
    assert output.shape == (2, 1, *shape)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_padding_is_idle_on_periodic_axes() -> None:
    assert small().idle.keys() == {"padding"}
    assert small(grid=CLOSED).idle == {}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_modes": (3, 3)}, DoesNotFit, r"level of shape \(4, 4\): n_modes must be at most 2"),
        ({"n_modes": (0, 2)}, ValueError, "n_modes to be at least 1"),
        ({"n_modes": (3,)}, ValueError, "as many model.widths as model.scales and model.n_modes.* got 2, 2 and 1"),
        ({"scales": (0.5, 0.75)}, ValueError, "model.scales that decrease"),
        ({"scales": (1.5, 0.5)}, ValueError, "model.scales that decrease"),
        ({"scales": (0.5, 0.0)}, ValueError, "model.scales that decrease"),
        ({"widths": (), "scales": (), "n_modes": ()}, ValueError, "model.widths to be at least 1, got 0"),
        ({"width": 1}, ValueError, "model.width to be at least 2"),
        ({"projection_width": 0}, ValueError, "model.projection_width"),
        ({"activation": "sine"}, ValueError, "model.activation to be one of"),
        ({"padding": 1.5}, ValueError, "model.padding"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)


def test_modes_that_fit_are_given_with_the_error() -> None:
    with pytest.raises(DoesNotFit) as caught:
        small(n_modes=(9, 1))
    assert caught.value.fitting == {"n_modes": [4, 1]}
