"""FFNO: invariants of sums over axes, of the residual and of weight normalisation; options and errors.

Its plain form is compared in test_references.py, its sizes in test_parameter_counts.py.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.layers.options import DoesNotFit
from neuralop_bench.layers.spectral_conv import SpectralConv, convolved_along
from neuralop_bench.models.ffno import FFNO

SQUARE = Grid.periodic(16)
CLOSED = Grid((16, 16), (1.0, 1.0), ("dirichlet", "dirichlet"), ("closed", "closed"))


def small(**options: Any) -> FFNO:
    torch.manual_seed(0)
    return FFNO(**{"in_channels": 2, "out_channels": 1, "grid": SQUARE, "n_modes": 4, "width": 6} | options).double()


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("n_modes", [3, 6])
@pytest.mark.parametrize(("shape", "axis"), [((12,), 0), ((13, 9), 0), ((9, 13), 1), ((5, 12, 4), 1), ((13, 4, 5), 0)])
@pytest.mark.parametrize("fast", [False, True], ids=["products", "fast transforms"])
def test_a_convolution_along_an_axis_is_that_of_every_line(
    shape: tuple[int, ...], axis: int, n_modes: int, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralop_bench.layers.spectral_conv.is_faster_as_product", lambda *_: not fast)
    conv = SpectralConv(4, 4, (n_modes,)).double()
    v = fields(2, *shape, 4)
    lines = v.movedim(axis + 1, -1).flatten(0, -3)
    expected = conv(lines).view(v.movedim(axis + 1, -1).shape).movedim(-1, axis + 1)
    torch.testing.assert_close(convolved_along(v, axis, conv), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(convolved_along(v, axis, conv, to=v.clone()), v + expected, rtol=1e-10, atol=1e-12)


def test_a_wave_along_one_axis_passes_the_other_axes_by_the_matrix_of_their_mean() -> None:
    """Each axis cuts its own wavenumbers only: one beyond n_modes still passes the sum, through the other axes."""
    first, second = small().spectral[0]
    k = 6  # n_modes is 4
    wave = torch.cos(2 * math.pi * k * torch.arange(16, dtype=torch.float64) / 16)
    v = wave[:, None, None] * fields(1, 1, 1, 6).expand(1, 16, 16, 6)
    total = convolved_along(v, 1, second, to=convolved_along(v, 0, first))
    torch.testing.assert_close(total, v @ second.weight[0, 0].detach(), rtol=1e-10, atol=1e-12)


def test_exchanging_the_axes_of_weights_and_fields_exchanges_those_of_the_output() -> None:
    model, turned, x = small(weight_norm=False), small(weight_norm=False), fields(2, 2, 16, 16)
    with torch.no_grad():
        for first, second in turned.spectral:
            first.weight, second.weight = second.weight, first.weight
        turned.lifting.weight[:, [2, 3]] = turned.lifting.weight[:, [3, 2]]
        torch.testing.assert_close(turned(x.mT).mT, model(x), rtol=1e-10, atol=1e-12)
        assert not torch.allclose(turned(x), model(x))


def test_commutes_with_circular_shifts_without_coordinates() -> None:
    model, x = small(weight_norm=False), fields(2, 2, 16, 16)

    def defect() -> float:
        return float((model(x.roll((3, -5), (-2, -1))) - model(x).roll((3, -5), (-2, -1))).abs().max().detach())

    assert defect() > 1e-3
    with torch.no_grad():
        model.lifting.weight[:, 2:] = 0
    assert defect() < 1e-13


def test_a_layer_whose_network_is_zero_is_the_identity() -> None:
    """The residual comes after the pointwise network, and nothing acts on it."""
    deep, shallow = small(n_layers=3, share_weights=True, weight_norm=False), small(n_layers=1, weight_norm=False)
    with torch.no_grad():
        for layer in deep.feedforward[1:]:
            layer[1].weight.zero_()
            layer[1].bias.zero_()
    for part in ("lifting", "projection"):
        shallow.get_submodule(part).load_state_dict(deep.get_submodule(part).state_dict())
    shallow.feedforward[0].load_state_dict(deep.feedforward[0].state_dict())
    shallow.spectral.load_state_dict(deep.spectral.state_dict())
    x = fields(2, 2, 16, 16)
    torch.testing.assert_close(deep(x), shallow(x), rtol=1e-12, atol=1e-13)


def test_weight_normalisation_changes_neither_the_start_nor_the_map_of_longer_directions() -> None:
    model, x = small(), fields(2, 2, 16, 16)
    output = model(x)
    torch.testing.assert_close(output, small(weight_norm=False)(x), rtol=1e-6, atol=1e-7)  # drawn in float32
    directions = [p for name, p in model.named_parameters() if name.endswith("original1")]
    assert len(directions) == 1 + 2 * 4 + 2
    with torch.no_grad():
        for direction in directions:
            direction *= 3
    torch.testing.assert_close(model(x), output, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(12,), (11,), (9, 10), (6, 8, 4), (5, 6, 7)])
def test_maps_fields_on_grids_of_one_to_three_axes_even_and_odd(shape: tuple[int, ...], boundary: str) -> None:
    nodes = "periodic" if boundary == "periodic" else "closed"
    n = len(shape)
    grid = Grid(shape, (1.0,) * n, (boundary,) * n, (nodes,) * n)
    model = small(grid=grid, n_modes=2, n_layers=2, padding=0.5)
    output = model(fields(2, 2, *shape))
    assert output.shape == (2, 1, *shape)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_options_that_cant_act_are_named() -> None:
    assert small().idle.keys() == {"padding"}
    assert small(grid=CLOSED, padding=0.2).idle == {}
    assert small(grid=CLOSED, padding=0.2, n_layers=1).idle.keys() == {"share_weights"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_modes": 9}, DoesNotFit, "n_modes must be at most 8"),
        ({"n_modes": 0}, ValueError, "n_modes to be at least 1"),
        ({"n_modes": [4, 4, 4]}, ValueError, "3 axes got fields over 2"),
        ({"width": 0}, ValueError, "model.width to be at least 1"),
        ({"n_layers": 0}, ValueError, "model.n_layers"),
        ({"expansion": 0}, ValueError, "model.expansion"),
        ({"projection_width": 0}, ValueError, "model.projection_width"),
        ({"activation": "sine"}, ValueError, "model.activation to be one of"),
        ({"padding": 1.5}, ValueError, "model.padding"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)
