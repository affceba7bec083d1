"""Apply the model of a finished run to your own file.

    python -m neuralop_bench.predict RUN input.hdf5 -o out.hdf5

The input is an HDF5 file with one dataset at its root for each field that the model was trained on: state fields as
[sample, time, *space] with at least as many frames as the model takes (its history), static fields as
[sample, *space]. Our own dataset files have this form. Coordinates in the file (``x``, ``y``, ``z``, ``time``) are
compared with the training grid and times. The output has the predicted frames under the same names and opens with
xarray.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray

from data_gen import hdf5, progress
from data_gen.files import replacing
from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, even_step
from neuralop_bench.batch import Batch
from neuralop_bench.config.messages import report_errors
from neuralop_bench.config.recorded import of_record
from neuralop_bench.records.record import RECORD_NAME, RunRecord
from neuralop_bench.runtime import environment
from neuralop_bench.surrogate.surrogate import Surrogate

# Coordinates written as single precision, or computed by linspace, differ from ours in the last digits.
_COORDINATE_TOLERANCE = 1e-5
_STEP_TOLERANCE = 1e-3


class InputError(ValueError):
    """A file that the model can't use; the message names the dataset, what is wrong with it and what is expected."""


@dataclass(frozen=True)
class Inputs:
    """The input of a model, from a file.

    states: [sample, frame >= K, C, *S]; static: [sample, C_s, *S]. A steady file may hold its solution as one frame.
    grid: of the file; times: of its frames, or as in the training data if the file has no ``time``.
    """

    states: NDArray[np.float32]
    static: NDArray[np.float32]
    grid: Grid
    times: NDArray[np.float64]


def read_inputs(path: Path, spec: DatasetSpec, n_history: int, *, resolution_free: bool) -> Inputs:
    """Read and check a file for a model.

    Args:
        path: an HDF5 file.
        spec: of the data that the model was trained on.
        n_history: frames that the model takes, K.
        resolution_free: whether the model accepts other grids than that of its training.

    Raises:
        InputError: a dataset is missing, or its shape, grid, time step or values don't fit.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}.")
    try:
        with hdf5.open_file(path) as file:
            state_names = [field.name for field in spec.state]
            if spec.is_steady and not all(name in file for name in state_names):
                state_names = []
            fields = {name: _read(file, path, name, spec, int(not spec.is_steady)) for name in state_names}
            fields |= {field.name: _read(file, path, field.name, spec, 0) for field in spec.static}
            parameters = {entry.name: _number(file, path, entry.name) for entry in spec.channels}
            coordinates = {
                name: np.asarray(_numbers(file, path, name), dtype=np.float64)
                for name in ("time", *spec.grid.axis_names)
                if name in file
            }
    except (OSError, RuntimeError, hdf5.RefusedFileError) as error:
        cause = hdf5.why(error) or f"it is damaged or isn't an HDF5 file ({error})."
        raise InputError(f"{path} can't be read: {cause}") from error
    shapes = {name: values.shape for name, values in fields.items()}
    spaces = {shape[-spec.grid.n_dims :] for shape in shapes.values()}
    if len({shape[0] for shape in shapes.values()}) != 1 or len(spaces) != 1:
        raise InputError(f"The fields of {path} differ in their number of samples or points: {shapes}.")
    grid = _grid(path, spec.grid, spaces.pop(), coordinates, resolution_free)
    n_samples = next(iter(shapes.values()))[0]
    if not n_samples:
        raise InputError(f"{path} holds no sample.")
    frames = [fields[name][:, None] if spec.is_steady else fields[name] for name in state_names]
    states = _stack(frames, 2, (n_samples, 0, len(spec.state), *grid.shape))
    static = _stack([fields[field.name] for field in spec.static], 1, (n_samples, 0, *grid.shape))
    for entry in spec.channels:
        given = parameters[entry.name]
        if given.shape not in ((), (n_samples,)):
            raise InputError(
                f"{entry.name!r} in {path} must be one number, or {n_samples}, one per sample, got {given.shape}."
            )
        values = np.broadcast_to(entry.encoded(given), (n_samples,)).reshape(-1, 1, *(1,) * len(grid.shape))
        static = np.concatenate([static, np.broadcast_to(values, (n_samples, 1, *grid.shape))], axis=1)
    if states.shape[1] < n_history:
        raise InputError(
            f"{path} holds {states.shape[1]} frames per sample, but the model is given {n_history} (dataset.history of "
            "its run)."
        )
    return Inputs(states, static, grid, _times(path, spec, coordinates.get("time"), states.shape[1]))


def predict(
    run: Path,
    source: Path,
    output: Path,
    *,
    n_steps: int | None = None,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> xr.Dataset:
    """Predict the frames that follow the first K of every sample of a file, and write them.

    Args:
        run: directory of a finished run.
        source: the input file.
        output: the file to write; an existing one is replaced.
        n_steps: frames to predict; by default as many as the run was evaluated on.
        device: where to compute.
        trust: packages, besides the project's own, whose constructors may be called.

    Returns:
        What was written: one variable per state field, [sample, time, *space], in physical units. If the input has
        frames beyond its history, or the solution of a steady problem, ``relative_l2`` [sample] compares what both
        have.

    Raises:
        InputError: the file doesn't fit the model, or the output would replace the input or a file of the run.
        RecordError, CheckpointError, ConfigError: the run can't be read.
    """
    _require_other_file(output, source, run)
    record = RunRecord.load(run / RECORD_NAME)
    cfg = of_record(record, run, trust)
    where = environment.resolve_device(device)
    surrogate = Surrogate.load(run, device=where, trust=trust)
    spec, n_history = surrogate.spec, surrogate.n_history
    assert spec is not None
    assert n_history is not None
    steps = cfg.dataset.horizon if n_steps is None else n_steps
    if steps < 1:
        raise InputError(f"At least 1 step has to be predicted, got --steps {steps}.")
    resolution_free = bool(getattr(surrogate.operator, "resolution_free", False))
    inputs = read_inputs(source, spec, n_history, resolution_free=resolution_free)
    batch_size = cfg.evaluator.batch_size
    parts = []
    with progress.track("Predicting", len(inputs.static), "samples") as bar:
        for first in range(0, len(inputs.static), batch_size):
            chosen = slice(first, first + batch_size)
            history = torch.from_numpy(inputs.states[chosen, :n_history]).to(where)
            batch = Batch.given(history, torch.from_numpy(inputs.static[chosen]).to(where))
            parts.append(surrogate.predict(batch, steps).cpu().numpy())
            bar.advance(len(history))
    result = _result(np.concatenate(parts), inputs, spec, n_history)
    result.attrs = {"run_id": record.run_id, "model": record.model, "dataset": spec.name, "input": source.name}
    with replacing(output) as temporary:
        result.to_netcdf(temporary, engine="h5netcdf")
    return result


def _require_other_file(output: Path, source: Path, run: Path) -> None:
    """Refuse an output that would destroy the input or a file of the run, perhaps under another name."""
    for path in (source, *(run.rglob("*") if run.is_dir() else ())):
        if output.exists() and path.exists() and output.samefile(path):
            raise InputError(f"The output {output} would replace {path}. Choose another file with -o.")


def _read(file: Any, path: Path, name: str, spec: DatasetSpec, n_time_axes: int) -> NDArray[np.float32]:
    """A field as [sample, (time,) *space]; finite numbers."""
    if name not in file:
        raise InputError(f"{path} has no dataset {name!r} at its root; it holds {sorted(file)}.")
    entry, axes = _numbers(file, path, name), ["sample", *["time"] * n_time_axes, *spec.grid.axis_names]
    shape = entry.shape
    if len(shape) != len(axes):
        raise InputError(f"{name!r} in {path} has the shape {shape}, expected [{', '.join(axes)}].")
    values = np.asarray(entry, dtype=np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{name!r} in {path} has values that aren't finite.")
    return values


def _numbers(file: Any, path: Path, name: str) -> Any:
    """The dataset of that name in a file, which holds real numbers."""
    found = file[name]
    if not isinstance(found, h5py.Dataset) or found.shape is None or found.dtype.kind not in "fiub":
        kind = found.dtype if isinstance(found, h5py.Dataset) else f"a {type(found).__name__}"
        raise InputError(f"{name!r} in {path} is {kind}, expected a dataset of real numbers.")
    return found


def _number(file: Any, path: Path, name: str) -> NDArray[np.float64]:
    """A parameter that the model is given: a dataset, or an attribute if it is the same for all samples."""
    if name not in file and name not in file.attrs:
        raise InputError(
            f"{path} has no {name!r} at its root, neither a dataset with a number per sample nor an attribute. The "
            "model is given this parameter."
        )
    try:
        values = np.asarray(file[name] if name in file else file.attrs[name], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name!r} in {path} must be numbers.") from error
    if not np.isfinite(values).all():
        raise InputError(f"{name!r} in {path} has values that aren't finite.")
    return values


def _grid(
    path: Path, grid: Grid, shape: tuple[int, ...], coordinates: dict[str, NDArray[np.float64]], resolution_free: bool
) -> Grid:
    if shape != grid.shape and not resolution_free:
        raise InputError(
            f"{path} is on a grid of {shape} points, but this model can only run on the grid of its training, "
            f"{grid.shape}."
        )
    found = replace(grid, shape=shape)
    for name, expected, length in zip(found.axis_names, found.coordinates(), found.lengths, strict=True):
        given = coordinates.get(name)
        if given is not None and not _close(given, expected, length):
            raise InputError(
                f"The coordinates {name!r} in {path} aren't those of the training grid: expected {len(expected)} "
                f"points from {expected[0]:g} to {expected[-1]:g}."
            )
    return found


def _times(path: Path, spec: DatasetSpec, given: NDArray[np.float64] | None, n_frames: int) -> NDArray[np.float64]:
    """Times of the frames of a file: its own, which must fit the steps of the training data, or those of the latter."""
    expected = _training_times(spec, n_frames)
    if given is None or len(spec.times) < 2:
        return expected
    # A step may be off by rounding errors of single precision, which grow with the time.
    step = float(np.diff(spec.times).min())
    tolerance = _STEP_TOLERANCE * step + float(np.finfo(np.float32).eps) * float(np.abs(given).max(initial=0.0))
    shifted = expected + (given[0] - expected[0] if len(given) else 0.0)
    if given.shape != (n_frames,) or not bool((np.abs(given - shifted) <= tolerance).all()):
        even = even_step(spec.times)
        apart = (
            f"{even:g} apart" if even else f"with the steps {', '.join(f'{s:g}' for s in np.diff(spec.times)[:4])} ..."
        )
        raise InputError(
            f"'time' in {path} must hold the times of its {n_frames} frames, {apart} as in the training data."
        )
    return given


def _training_times(spec: DatasetSpec, n_frames: int) -> NDArray[np.float64]:
    """Times of so many frames from the first one on; beyond the training data only if the steps there are even."""
    known = np.array(spec.times or [0.0])
    more = n_frames - len(known)
    if more <= 0:
        return known[:n_frames]
    step = even_step(spec.times)
    if step is None:
        raise InputError(
            f"The training data have {len(known)} times, whose steps differ, so the times of {n_frames} frames aren't "
            "known. Use fewer, or lower --steps."
        )
    return np.concatenate([known, known[-1] + step * np.arange(1, more + 1)])


def _close(given: NDArray[np.float64], expected: NDArray[np.float64], scale: float) -> bool:
    return given.shape == expected.shape and bool(np.abs(given - expected).max() <= _COORDINATE_TOLERANCE * scale)


def _stack(fields: list[NDArray[np.float32]], axis: int, empty: tuple[int, ...]) -> NDArray[np.float32]:
    return np.stack(fields, axis=axis) if fields else np.zeros(empty, dtype=np.float32)


def _result(prediction: NDArray[np.float32], inputs: Inputs, spec: DatasetSpec, n_history: int) -> xr.Dataset:
    n_steps = prediction.shape[1]
    dims = ("sample", "time", *inputs.grid.axis_names)
    fields = {
        field.name: (
            dims,
            prediction[:, :, channel],
            {"units": field.unit, "long_name": f"predicted {field.description}"},
        )
        for channel, field in enumerate(spec.state)
    }
    coordinates = dict(zip(inputs.grid.axis_names, inputs.grid.coordinates(), strict=True))
    if len(spec.times) > 1:
        training = _training_times(spec, n_history + n_steps)
        coordinates["time"] = training[n_history:] + (inputs.times[n_history - 1] - training[n_history - 1])
    result = xr.Dataset(fields, coords=coordinates)
    known = inputs.states[:, n_history : n_history + n_steps].astype(np.float64)
    if known.shape[1]:
        axes = tuple(range(1, known.ndim))
        error = np.square(prediction[:, : known.shape[1]] - known).sum(axis=axes)
        result["relative_l2"] = ("sample", np.sqrt(error / np.square(known).sum(axis=axes)))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m neuralop_bench.predict", description="Apply the model of a run to your own file."
    )
    parser.add_argument("run", type=Path, help="directory of a finished run")
    parser.add_argument("input", type=Path, help="HDF5 file with the fields that the model takes")
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument("--steps", type=int, help="frames to predict (default: the horizon of the run)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<index>")
    parser.add_argument("--trust", nargs="*", default=[], metavar="PACKAGE", help="packages whose code may be run")
    options = parser.parse_args(arguments)
    with report_errors():
        result = predict(
            options.run,
            options.input,
            options.output,
            n_steps=options.steps,
            device=options.device,
            trust=options.trust,
        )
        sizes = ", ".join(f"{size} {name}" for name, size in result.sizes.items())
        print(f"Predicted {', '.join(str(name) for name in result.data_vars if name != 'relative_l2')}: {sizes}")
        if "relative_l2" in result:
            errors = result["relative_l2"].values
            known = "frames that follow in the input" if "time" in result.coords else "solution in the input"
            print(f"Relative L2 against the {known}: {errors.mean():.4g} (mean over samples)")
        print(f"Written to {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
