"""Conserved: each quantity by hand, scales, and that the reference conserves what its spec names."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec, ParameterSpec
from neuralop_bench.batch import Batch
from neuralop_bench.metrics.conservation import Conserved
from neuralop_bench.metrics.metric import MetricContext

TORUS = Grid.periodic(16, length=2.0)
LINE = Grid.periodic(8, n_dims=1)
SQUARE = Grid((33, 33), (1.0, 1.0), ("dirichlet",) * 2, ("closed",) * 2)


def naming(context: MetricContext, *names: str) -> MetricContext:
    return replace(context, spec=replace(context.spec, conserved=names))


def columns(
    context: MetricContext, prediction: np.ndarray, target: np.ndarray, static: np.ndarray | None = None
) -> dict[str, float]:
    """Of fields [sample, time, *space]."""
    metric = Conserved(context)
    p, u = (torch.from_numpy(np.array(x))[:, :, None] for x in (prediction, target))
    fields = u[:, 0, :0] if static is None else torch.from_numpy(static)[:, None]
    measured = metric.measure(p, Batch(u[:, :0], fields, u))
    assert measured.keys() == metric.variables.keys()
    return metric.summarise(xr.Dataset({name: (metric.variables[name], x) for name, x in measured.items()}))


def test_drift_of_the_mean_is_relative_to_the_size_of_the_field(context: Callable) -> None:
    # Means 0 and 0 of the reference, of root mean square 1 and 2; the prediction's are .1 and .3.
    sign = np.array([1.0, -1.0] * 4)
    target = np.stack([sign, 2 * sign])[None]
    prediction = target + np.array([0.1, 0.3])[None, :, None]
    for name in ("mean", "mean_vorticity"):
        found = columns(naming(context(LINE), name), prediction, target)
        assert found == {f"conserved_{name}": pytest.approx((0.1 / 2 + 0.3 / 2) / 2, rel=1e-12)}


def test_a_mean_over_closed_axes_counts_the_ends_half(context: Callable) -> None:
    # The wave has the mean 0, but 1 / 33^2 over the points alone.
    x, _ = SQUARE.coordinates()
    target = np.ones((1, 1, 33, 33))
    waves = (np.cos(2 * np.pi * x)[:, None] * np.cos(4 * np.pi * x))[None, None]
    found = columns(naming(context(SQUARE), "mean"), target + waves + 0.1, target)
    assert found == {"conserved_mean": pytest.approx(0.1, rel=1e-12)}


def test_drift_of_the_energy_is_relative_to_the_largest_of_the_reference(context: Callable) -> None:
    # Energies 1/2 and 1/8 of the reference, 1/2 and 1/2 of the prediction.
    target = np.stack([np.ones(8), 0.5 * np.ones(8)])[None]
    for name in ("energy", "enstrophy"):
        found = columns(naming(context(LINE), name), np.ones((1, 2, 8)), target)
        assert found == {f"conserved_{name}": pytest.approx((0 + (0.5 - 0.125) / 0.5) / 2, rel=1e-12)}


def test_quantities_of_several_fields(context: Callable) -> None:
    # The mean of the second field is off by 1/4 of its root mean square 2; the energy is (1 + 4) / 2, and the
    # prediction's (1 + 9/4) / 2.
    fields = [FieldSpec("a", ""), FieldSpec("b", "")]
    found = context(LINE)
    found = replace(found, spec=replace(found.spec, state=tuple(fields), conserved=("mean_a", "mean_b", "energy")))
    u = torch.ones(1, 2, 2, 8, dtype=torch.float64)
    u[:, :, 1] = 2.0
    p = u.clone()
    p[:, :, 1] = 1.5
    metric = Conserved(found)
    measured = metric.measure(p, Batch(u[:, :0], u[:, 0, :0], u))
    columns = metric.summarise(xr.Dataset({name: (metric.variables[name], x) for name, x in measured.items()}))
    assert columns == pytest.approx(
        {"conserved_mean_a": 0.0, "conserved_mean_b": 0.25, "conserved_energy": (5 - 3.25) / 5}, rel=1e-12
    )


def test_kinetic_energy_of_a_vorticity_wave(context: Callable) -> None:
    # psi = cos(2 pi (x + 2 y) / L) has vorticity |k|^2 psi, velocity of mean square |k|^2 / 2; |k|^2 = 5 (2 pi / L)^2.
    x, y = np.meshgrid(*TORUS.coordinates(), indexing="ij")
    squared = 5 * (2 * math.pi / 2.0) ** 2
    target = squared * np.cos(2 * math.pi * (x + 2 * y) / 2.0)[None, None] + 3.0  # a mean drives no flow
    metric = Conserved(naming(context(TORUS), "kinetic_energy"))
    u = torch.from_numpy(target)[:, :, None]
    measured = metric.measure(u, Batch(u[:, :0], u[:, 0, :0], u))
    assert measured["conserved_target"].item() == pytest.approx(squared / 4, rel=1e-12)


def test_outflow_is_the_integral_of_the_source(context: Callable) -> None:
    # u = x (1 - x) y (1 - y) with a = 1 + x: the outflow is twice the integral over y of y (1 - y) times (1 + 2), and
    # over x of (1 + x) x (1 - x) twice: 3/6 + 2 (1/6 + 1/12) = 1. Parabolas have exact differences.
    x, y = np.meshgrid(*SQUARE.coordinates(), indexing="ij")
    target = (x * (1 - x) * y * (1 - y))[None, None]
    metric = Conserved(naming(context(SQUARE), "flux_balance"))
    u = torch.from_numpy(target)[:, :, None]
    batch = Batch(u[:, :0], torch.from_numpy(1 + x)[None, None], u)
    outflow = metric.measure(u, batch)["conserved_target"].item()
    assert outflow == pytest.approx(1, abs=2e-3)  # the trapezoid rule along the edges
    found = columns(naming(context(SQUARE), "flux_balance"), 1.25 * target, target, (1 + x)[None])
    assert found == {"conserved_flux_balance": pytest.approx(0.25, rel=1e-12)}


def test_undershoot_is_relative_to_the_largest_value(context: Callable) -> None:
    target = np.full((1, 1, 33, 33), 2.0)
    prediction = target.copy()
    prediction[0, 0, 4, 5] = -0.5
    found = columns(naming(context(SQUARE), "positivity"), prediction, target)
    assert found == {"conserved_positivity": pytest.approx(0.25, rel=1e-12)}


def test_interior_minima_are_counted(context: Callable) -> None:
    x, y = np.meshgrid(*SQUARE.coordinates(), indexing="ij")
    target = (x * (1 - x) * y * (1 - y))[None, None]
    prediction = target.copy()
    for i, j in ((5, 6), (20, 11), (16, 16)):
        prediction[0, 0, i, j] -= 0.05
    prediction[0, 0, 0, 7] -= 1.0  # the boundary isn't interior, its neighbour no minimum
    found = columns(naming(context(SQUARE), "maximum_principle"), prediction, target)
    assert found == {"conserved_maximum_principle": pytest.approx(3 / 31**2, rel=1e-12)}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_prediction_that_is_not_finite_has_infinite_drift(value: float, context: Callable) -> None:
    prediction, target = np.ones((2, 2, 8)), np.ones((2, 2, 8))
    prediction[1, 1, 3] = value
    assert columns(naming(context(LINE), "mean", "energy"), prediction, target) == {
        "conserved_mean": math.inf,
        "conserved_energy": math.inf,
    }


def test_nothing_is_measured_where_nothing_is_named(context: Callable) -> None:
    assert columns(context(LINE), np.ones((2, 1, 8)), np.ones((2, 1, 8))) == {}


def test_a_quantity_that_is_not_known_is_refused(context: Callable) -> None:
    with pytest.raises(ValueError, match=r"can't measure \['helicity'\] of made up.*evaluator\.metrics"):
        Conserved(naming(context(LINE), "mean", "helicity"))


def _velocity_of(angles: tuple[np.ndarray, ...], kind: str) -> np.ndarray:
    x, y = angles
    return {
        "solenoidal": np.stack([np.cos(x) * np.sin(2 * y), -0.5 * np.sin(x) * np.cos(2 * y)]),
        "gradient": np.stack([np.cos(x + y), np.cos(x + y)]),
        # The divergence has the mean square 1/2, the gradient 1/2 + 4/2.
        "both": np.stack([np.sin(x), np.sin(2 * x)]),
        "constant": np.stack([0 * x + 3, 0 * x - 1]),
        "shortest wave": np.stack([np.cos(8 * x) + np.cos(y), np.sin(x)]),  # of 16 points: no slope at the points
    }[kind]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("solenoidal", 0.0), ("gradient", 1.0), ("both", 5**-0.5), ("constant", 0.0), ("shortest wave", 0.0)],
)
def test_divergence_is_relative_to_the_gradient(kind: str, expected: float, context: Callable) -> None:
    angles = np.meshgrid(*[math.pi * x for x in TORUS.coordinates()], indexing="ij")
    fields = (FieldSpec("u", ""), FieldSpec("v", ""), FieldSpec("temperature", ""))
    found = naming(context(TORUS), "incompressibility")
    metric = Conserved(replace(found, spec=replace(found.spec, state=fields)))
    predicted, target = (
        torch.from_numpy(np.concatenate([_velocity_of(angles, name), angles[:1]]))[None, None]
        for name in (kind, "solenoidal")
    )
    measured = metric.measure(predicted, Batch(target[:, :0], target[:, 0, :0], target))
    columns = metric.summarise(xr.Dataset({name: (metric.variables[name], x) for name, x in measured.items()}))
    assert columns == {"conserved_incompressibility": pytest.approx(expected, abs=1e-14)}


@pytest.mark.parametrize(("grid", "n_fields"), [(SQUARE, 2), (TORUS, 1)])
def test_divergence_needs_a_periodic_grid_and_a_component_for_each_axis(
    grid: Grid, n_fields: int, context: Callable
) -> None:
    found = naming(context(grid), "incompressibility")
    fields = (FieldSpec("u", ""), FieldSpec("v", ""))[:n_fields]
    with pytest.raises(ValueError, match=r"can't measure \['incompressibility'\]"):
        Conserved(replace(found, spec=replace(found.spec, state=fields)))


def test_drag_is_what_the_pressure_lacks_to_balance_friction() -> None:
    n, reynolds, jump = 32, 40.0, 0.3
    grid = Grid((2 * n, n), (2.0, 1.0), ("open", "dirichlet"), ("centres", "centres"))
    x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
    viscosity = 0.2 / reynolds
    field = np.stack([4 * y * (1 - y), 0 * y, 8 * viscosity * (2 - x)])  # without obstacles: no drag
    pushed = field + np.array([0, 0, jump])[:, None, None] * (x < 1)
    names = ("velocity_x", "velocity_y", "pressure")
    data = DatasetSpec(
        "channel",
        1,
        "",
        grid,
        (),
        tuple(FieldSpec(name, "") for name in names),
        parameters={"diameter": 0.2, "reynolds": "by sample"},
        varying=(ParameterSpec("reynolds"),),
        conserved=("drag",),
    )
    metric = Conserved(MetricContext(data, np.ones(3), grid))
    u = torch.from_numpy(np.stack([pushed, field]))[:, None]
    parameters = torch.full((2, 1), reynolds, dtype=torch.float64)
    measured = metric.measure(u, Batch(u[:, :0], u[:, 0, :0], u, parameters))
    drag = measured["conserved_target"].ravel()
    assert drag[0] == pytest.approx(jump, rel=1e-3)
    assert abs(drag[1]) < 1e-3 * jump
