"""Every metric, loss and normaliser: the same in any units, and of the size of the data where a reference vanishes."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from torch import Tensor

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch
from neuralop_bench.config import constructors
from neuralop_bench.metrics.metric import Metric, MetricContext, floor_of
from neuralop_bench.runtime.place import CONFIG_DIR
from neuralop_bench.surrogate.normalization import Normalizer
from neuralop_bench.training import losses

Score = Callable[..., dict[str, float]]


def configured(path: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG_DIR / path).read_text())


METRICS = {
    **configured("evaluator/standard.yaml")["metrics"],
    **configured("evaluator/thorough.yaml")["rollout_metrics"],
}
LOSSES = sorted(path.stem for path in (CONFIG_DIR / "loss").glob("*.yaml"))
UNITS = [10.0**exponent for exponent in (-30, -19, -12, -6, 6, 12, 19, 30)]
GRID = Grid.periodic(16)


def made(name: str, variance: list[float]) -> Metric:
    """A metric of the standard or thorough evaluation, on data that conserve all that is known on a torus."""
    spec = DatasetSpec(
        name="made up",
        version=1,
        equation="",
        grid=GRID,
        times=(0.0, 1.0, 2.0, 3.0),
        state=tuple(FieldSpec(name, "a field") for name in ("vorticity", "other")),
        conserved=("mean", "energy", "positivity", "maximum_principle"),
    )
    return constructors.build(METRICS[name])(MetricContext(spec, np.array(variance), GRID))


def fields() -> tuple[np.ndarray, np.ndarray]:
    """Prediction and target [sample, time, channel, *space]: smooth noise, one sample far smaller than the others."""
    rng = np.random.default_rng(0)
    target = rng.standard_normal((4, 3, 2, *GRID.shape)).cumsum(axis=-1) * np.array([1.0, 30.0])[:, None, None] + 1
    target[2] *= 1e-4
    return target + 0.1 * rng.standard_normal(target.shape), target


def whole(prediction: np.ndarray, target: np.ndarray, metric: Metric) -> dict[str, float]:
    u = torch.from_numpy(target)
    measured = metric.measure(torch.from_numpy(prediction), Batch(u[:, :0], u[:, 0, :0], u))
    arrays = {key: (metric.variables[key], values) for key, values in measured.items()}
    return metric.summarise(xr.Dataset(arrays, coords={"time": np.array([1.0, 2.0, 3.0])}))


@pytest.mark.parametrize("name", METRICS)
def test_metrics_are_the_same_in_any_units(name: str) -> None:
    prediction, target = fields()
    variance = target.var(axis=(0, 1, 3, 4))
    expected = whole(prediction, target, made(name, list(variance)))
    for unit in UNITS:
        found = whole(unit * prediction, unit * target, made(name, list(unit**2 * variance)))
        assert found == pytest.approx(expected, rel=1e-9, nan_ok=True), unit


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("unit", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("what", ["channel", "samples"])
def test_metrics_of_a_reference_that_vanishes_have_the_size_of_the_errors(name: str, unit: float, what: str) -> None:
    prediction, target = (unit * x for x in fields())
    error = prediction - target
    target[slice(None) if what == "channel" else slice(2), :, 1 if what == "channel" else slice(None)] = 0
    columns = whole(target + error, target, made(name, list(target.var(axis=(0, 1, 3, 4)))))
    for column, value in columns.items():
        if not column.startswith("n_") and not math.isnan(value):
            assert value < 1e4, column
    if f"n_floored_{name}" in columns:
        assert columns[f"n_floored_{name}"] > 0


def test_the_bound_is_a_percent_of_the_channels_own_size_and_of_the_smallest_if_it_vanishes() -> None:
    squares = np.array([[[4.0, 0.0, 1e8]], [[0.0, 0.0, 1e8]]])
    assert floor_of(squares).tolist() == pytest.approx([2e-4, 2e-4, 1e4], rel=1e-12)
    assert floor_of(0 * squares).tolist() == [1e-4] * 3


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_and_what_they_train_are_the_same_in_any_units(name: str, dtype: torch.dtype) -> None:
    loss: losses.Loss = constructors.build(configured(f"loss/{name}.yaml"))
    p, u = (torch.from_numpy(x) for x in fields())
    u[1, :, 1] = 0

    def outcome(unit: float) -> tuple[float, Tensor]:
        """The loss, and its gradient with respect to the encoded prediction."""
        target = (unit * u).to(dtype)
        normalizer = Normalizer.fit([Batch(target[:, :1], target[:, 0, :0], target[:, 1:])], bundle=1)
        encoded = normalizer.encode_state((unit * p).to(dtype)).requires_grad_()
        value = loss(normalizer.decode_state(encoded), target, normalizer.scale)
        (gradient,) = torch.autograd.grad(value, encoded)
        return float(value.detach()), gradient

    value, gradient = outcome(1.0)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    for unit in UNITS:
        found, its_gradient = outcome(unit)
        assert found == pytest.approx(value, rel=tolerance), unit
        assert float((its_gradient - gradient).norm() / gradient.norm()) < tolerance, unit


@pytest.mark.parametrize("loss", [losses.relative_l2, losses.relative_l2_per_step, losses.relative_h1])
def test_the_scale_of_a_relative_loss_changes_no_bit(loss: losses.Loss) -> None:
    p, u = (torch.from_numpy(x).float() for x in fields())
    p, u = p[:2], u[:2]  # without the small sample
    without = partial(loss, eps=0.0)  # pyright: ignore[reportCallIssue]
    for scale in (torch.tensor([1.0, 1.0]), torch.tensor([7.3, 2e5]), torch.tensor([3e-9, 0.9])):
        assert torch.equal(without(p, u, scale), without(p, u, None))


@pytest.mark.parametrize("size", [1e-40, 1e38, math.inf, math.nan])
def test_data_beyond_single_precision_are_refused_in_words(size: float) -> None:
    frames = torch.full((2, 3, 1, 4), size) * torch.tensor([1.0, -1.0, 1.0, -1.0])
    with pytest.raises(ValueError, match="other units"):
        Normalizer.fit([Batch(frames[:, :1], frames[:, 0, :0], frames[:, 1:])], bundle=1)


def test_what_single_precision_loses_is_said_in_words() -> None:
    waves = np.sin(np.linspace(0, 6, 64))
    channels = np.stack([101325 + 0.1 * waves, 101325 + 1e-3 * waves, 0 * waves, waves]).astype(np.float32)
    frames = torch.from_numpy(channels).expand(2, 3, 4, 64)
    fitted = Normalizer.fit([Batch(frames[:, :1], frames[:, 0, :0], frames[:, 1:])], bundle=1)
    state = tuple(FieldSpec(name, "") for name in ("rough", "lost", "zero", "fine"))
    spec = DatasetSpec(name="made up", version=1, equation="", grid=GRID, times=(0.0,), state=state)
    remarks = fitted.remarks(spec)
    assert set(remarks) == {"rough", "lost", "zero"}
    assert "single precision holds steps of 0.01" in remarks["rough"]
    assert "subtract the mean" in remarks["lost"]
    assert "is 0 everywhere" in remarks["zero"]
