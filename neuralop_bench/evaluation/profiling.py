"""What a record keeps for pictures and comparisons, from the statistics of an evaluation."""

from __future__ import annotations

import numpy as np
import xarray as xr

from data_gen.spec import DatasetSpec
from neuralop_bench.batch import Trajectory
from neuralop_bench.metrics.metric import mean_over_samples
from neuralop_bench.metrics.relative import relative_l2_per_sample, relative_l2_step
from neuralop_bench.metrics.spectral import Shells
from neuralop_bench.records.profile import MOST_POINTS, Fields, Profile

# The test sample whose fields are kept: the same for every model, not chosen by hand.
SAMPLE = 0


def profile(errors: xr.Dataset, prediction: Trajectory, target: Trajectory, spec: DatasetSpec) -> Profile:
    """From the statistics on test and the fields of one sample.

    Args:
        errors: from ``evaluator.evaluate``, with the statistics of ``rel_l2`` and ``spectra``.
        prediction, target: of sample 0, [1, T, C, *S].
        spec: of the test data.
    """
    cycles = Shells(spec.grid).wavenumbers * max(spec.grid.lengths)
    last = errors.isel(time=-1, shell=slice(None, -1))
    spectra = {
        name: mean_over_samples(last[name].transpose("sample", "channel", "shell").values).mean(axis=0)
        for name in ("energy_target", "energy_prediction", "energy_error")
    }
    return Profile(
        times=np.asarray(errors["time"].values, np.float64),
        step_errors=relative_l2_step(errors).mean("channel").transpose("sample", "time").values,
        cycles=cycles,
        fields=_fields(prediction, target, spec, float(errors["time"].values[-1])),
        **spectra,
    )


def samples(errors: xr.Dataset) -> dict[str, list[float]]:
    """Columns before their mean over samples, for intervals and comparisons: ``rel_l2`` [sample]. Empty if the
    evaluator doesn't measure it."""
    if "error_mean_square" not in errors:
        return {}
    return {"rel_l2": [float(value) for value in relative_l2_per_sample(errors).mean("channel").values]}


def can_profile(errors: xr.Dataset) -> bool:
    """Whether the evaluator measured what a profile needs."""
    return {"error_mean_square", "energy_target"} <= set(errors.variables)


def _fields(prediction: Trajectory, target: Trajectory, spec: DatasetSpec, time: float) -> Fields:
    p, u = (np.asarray(x[0, -1, 0].cpu().numpy(), np.float64) for x in (prediction, target))
    if u.ndim == 3:
        middle = u.shape[-1] // 2
        p, u = p[..., middle], u[..., middle]
    stride = tuple(slice(None, None, -(-n // MOST_POINTS[u.ndim])) for n in u.shape)
    p, u = p[stride], u[stride]
    return Fields(
        name=spec.state[0].name,
        unit=spec.state[0].unit,
        time=None if spec.is_steady else time,
        lengths=tuple(spec.grid.lengths[: u.ndim]),
        reference=u,
        error=p - u if np.isfinite(p).all() else None,
    )
