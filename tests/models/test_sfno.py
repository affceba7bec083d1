"""SFNO: output lengths, resolutions, frames and fields, limits, symmetry, options and errors.

Its plain form is compared in test_references.py, its size in test_parameter_counts.py.
"""

from typing import Any

import pytest
import torch
from torch import Tensor

from data_gen.grids import Grid
from neuralop_bench.layers.options import DoesNotFit, Inapplicable
from neuralop_bench.models.sfno import SFNO

CIRCLE = Grid.periodic(12, 1)
SMALL = {"n_modes": 3, "n_time_modes": 2, "width": 6, "n_layers": 2, "hidden_width": 5, "latent_steps": 5}


def small(n_steps: int = 4, history: int = 3, grid: Grid = CIRCLE, n_state: int = 1, n_static: int = 0, **options: Any):
    torch.manual_seed(0)
    sizes = {"in_channels": history * n_state + n_static, "out_channels": n_steps * n_state, "grid": grid}
    model = SFNO(**sizes, n_steps=n_steps, history=history, **SMALL | options).double()
    with torch.no_grad():
        model.source.normal_()
    return model


def fields(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("encoding", ["fixed", "learned"])
def test_other_output_lengths_are_the_same_function_of_time(encoding: str) -> None:
    model, x = small(n_steps=3, encoding=encoding), fields(2, 3, 12)
    output = model(x)
    for factor in (2, 5):
        longer = small(n_steps=3 * factor, encoding=encoding)
        longer.load_state_dict(model.state_dict())
        torch.testing.assert_close(longer(x)[:, factor - 1 :: factor], output, rtol=1e-11, atol=1e-12)


def test_fewer_steps_than_time_modes() -> None:
    model, x = small(n_steps=2, n_time_modes=3, latent_steps=6), fields(2, 3, 12)
    longer = small(n_steps=6, n_time_modes=3, latent_steps=6)
    longer.load_state_dict(model.state_dict())
    torch.testing.assert_close(longer(x)[:, 2::3], model(x), rtol=1e-11, atol=1e-12)


def test_the_last_frame_persists_without_the_last_convolution() -> None:
    model, x = small(n_state=2, n_static=1), fields(2, 7, 12)
    with torch.no_grad():
        model.source.zero_()
        model.out.weight.zero_()
    torch.testing.assert_close(model(x).unflatten(1, (4, 2)), x[:, None, 4:6].expand(-1, 4, -1, -1), rtol=0, atol=0)


def test_missing_frames_are_the_last_one_again() -> None:
    model, other = small(history=2), small(history=5)
    other.load_state_dict(model.state_dict())
    x = fields(2, 2, 12)
    repeated = torch.cat([x, x[:, 1:].expand(-1, 3, -1)], dim=1)
    torch.testing.assert_close(other(repeated), model(x), rtol=1e-12, atol=1e-13)


def test_commutes_with_shifts_without_positions() -> None:
    model, x = small(grid=Grid.periodic(8)), fields(2, 3, 8, 8)
    assert model.encoding is not None
    with torch.no_grad():
        model.encoding.weight.zero_()
        model.source[:] = 0
    torch.testing.assert_close(model(x.roll((1, -3), (2, 3))), model(x).roll((1, -3), (2, 3)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("boundary", ["periodic", "dirichlet"])
@pytest.mark.parametrize("shape", [(12,), (13,), (8, 11)])
def test_maps_several_fields_on_even_and_odd_grids(shape: tuple[int, ...], boundary: str) -> None:
    nodes = "periodic" if boundary == "periodic" else "closed"
    n = len(shape)
    grid = Grid(shape, (1.0,) * n, (boundary,) * n, (nodes,) * n)  # pyright: ignore[reportArgumentType]
    model = small(grid=grid, n_state=2, n_static=1, padding=0.3)
    assert model.idle.keys() == ({"padding"} if boundary == "periodic" else set())
    output = model(fields(2, 7, *shape))
    assert output.shape == (2, 8, *shape)
    output.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_steps": 1}, Inapplicable, r"at least 2, got n_steps=1\. Raise surrogate\.bundle"),
        ({"grid": Grid.periodic(6, 3)}, Inapplicable, "at most 2 space axes"),
        ({"n_modes": 7}, DoesNotFit, "n_modes must be at most 6"),
        ({"n_time_modes": 3}, DoesNotFit, "n_time_modes must be at most 2"),
        ({"n_time_modes": 0}, ValueError, "n_time_modes to be at least 1"),
        ({"n_modes": 0}, ValueError, "n_modes to be at least 1"),
        ({"history": 0}, ValueError, "history to be at least 1"),
        ({"width": 1}, ValueError, "width to be at least 2"),
        ({"n_static": 7, "width": 7}, ValueError, "width to be at least 8"),
        ({"n_static": -1}, ValueError, "needs at least 3 input channels, got 2.*dataset.history"),
        ({"n_layers": 0}, ValueError, "n_layers to be at least 1"),
        ({"hidden_width": 0}, ValueError, "hidden_width to be at least 1"),
        ({"latent_steps": 1}, ValueError, "latent_steps to be at least 2"),
        ({"encoding": "none"}, ValueError, "encoding to be one of fixed, learned"),
        ({"activation": "sine"}, ValueError, "activation to be one of"),
        ({"padding": 1.5}, ValueError, "model.padding"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)


def test_a_bundle_that_doesnt_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"multiple of 4 channels, but out_channels is 6"):
        SFNO(in_channels=3, out_channels=6, grid=CIRCLE, n_steps=4, history=3, **SMALL)
