"""What a record keeps for pictures comes back as it went in."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench.batch import Batch
from neuralop_bench.evaluation.profiling import profile, samples
from neuralop_bench.metrics.metric import MetricContext
from neuralop_bench.metrics.relative import RelativeL2
from neuralop_bench.metrics.spectral import Spectra
from neuralop_bench.records.profile import MOST_POINTS, Profile, ProfileError


def _spec(grid: Grid, times: tuple[float, ...]) -> DatasetSpec:
    return DatasetSpec(
        name="waves",
        version=1,
        equation="u_t = 0",
        grid=grid,
        times=times,
        state=(FieldSpec("height", "", "m"),),
        static=(),
        parameters={},
    )


def _measured(
    grid: Grid, *, broken: bool = False, n: int = 3
) -> tuple[Profile, xr.Dataset, torch.Tensor, torch.Tensor]:
    spec, rng = _spec(grid, (0.0, 1.0, 2.0)), np.random.default_rng(0)
    target = torch.from_numpy(rng.normal(size=(n, 2, 1, *grid.shape)))
    prediction = target * 1.1
    if broken:
        prediction[0, -1, 0, 0] = math.nan
    batch = Batch(target[:, :1], target[:, 0, :0], target)
    context = MetricContext(spec, np.ones(1), grid)
    metrics = [RelativeL2(context), Spectra(context)]
    variables = {}
    for metric in metrics:
        for name, values in metric.measure(prediction, batch).items():
            variables[name] = (metric.variables[name], values)
    errors = xr.Dataset(variables, coords={"time": [1.0, 2.0]})
    return profile(errors, prediction[:1], target[:1], spec), errors, prediction, target


def test_curves_and_fields_survive_the_record() -> None:
    found, errors, prediction, target = _measured(Grid.periodic(16, n_dims=2))
    again = Profile.from_json(json.loads(json.dumps(found.to_json(), allow_nan=False)))
    np.testing.assert_allclose(again.step_errors, 0.1, rtol=1e-6)
    assert again.step_errors.shape == (3, 2)
    np.testing.assert_allclose(again.times, [1.0, 2.0])
    np.testing.assert_allclose(again.cycles, np.arange(1, 9))
    np.testing.assert_allclose(again.energy_error, again.energy_target / 100, rtol=1e-5)
    np.testing.assert_allclose(again.energy_prediction, again.energy_target * 1.21, rtol=1e-5)
    reference, error = (x[0, -1, 0].numpy() for x in (target, prediction - target))
    for kept, given in ((again.fields.reference, reference), (again.fields.error, error)):
        assert kept is not None
        np.testing.assert_allclose(kept, given, atol=np.ptp(given) / 255 / 2 * 1.001)
    assert (again.fields.name, again.fields.unit, again.fields.time) == ("height", "m", 2.0)
    assert samples(errors)["rel_l2"] == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize(("n_dims", "resolution", "stride"), [(1, 1200, 3), (2, 200, 3), (3, 10, 1)])
def test_large_fields_are_thinned_for_a_picture(n_dims: int, resolution: int, stride: int) -> None:
    found, _, _, target = _measured(Grid.periodic(resolution, n_dims=n_dims), n=1)
    kept = target[0, -1, 0].numpy()
    kept = kept[..., resolution // 2] if n_dims == 3 else kept
    np.testing.assert_array_equal(found.fields.reference, kept[(slice(None, None, stride),) * kept.ndim])
    assert max(found.fields.reference.shape) <= MOST_POINTS[kept.ndim]


def test_a_prediction_that_is_not_finite_has_no_field_and_infinite_errors() -> None:
    found, errors, _, _ = _measured(Grid.periodic(16), broken=True)
    again = Profile.from_json(found.to_json())
    assert again.fields.error is None
    assert again.fields.prediction is None
    assert np.isinf(again.step_errors[0, 1])
    assert np.isfinite(again.step_errors[1:]).all()
    assert math.isinf(samples(errors)["rel_l2"][0])


@pytest.mark.parametrize("damage", [{}, {"fields": {}}, {"fields": 3}, {"times": {"zlib_base64": "!"}}])
def test_what_is_damaged_is_named(damage: dict[str, object]) -> None:
    found, *_ = _measured(Grid.periodic(16))
    with pytest.raises(ProfileError, match="curves and fields can't be read"):
        Profile.from_json({**found.to_json(), **damage} if damage else {})
