"""Times of files that ``predict`` reads and writes, and solutions in steady files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from data_gen.grids import Grid
from data_gen.spec import DatasetSpec, FieldSpec
from neuralop_bench import predict
from neuralop_bench.predict import InputError, read_inputs

EVEN = tuple(np.linspace(0, 2, 201).round(6).tolist())
UNEVEN = (0.0, 0.1, 0.3, 0.6, 1.0)


def _spec(times: tuple[float, ...]) -> DatasetSpec:
    static = () if times else (FieldSpec("a", "a"),)
    return DatasetSpec("d", 1, "", Grid.periodic(8, n_dims=1), times, (FieldSpec("u", "u"),), static)


def _file(path: Path, times: NDArray[np.floating] | None, n_frames: int) -> Path:
    with h5py.File(path, "w") as file:
        file["u"] = np.ones((2, n_frames, 8), np.float32)
        if times is not None:
            file["time"] = times
    return path


@pytest.mark.parametrize(
    ("known", "own", "written"),
    [
        (EVEN, np.linspace(0, 2, 201), [0.01, 0.02]),
        (EVEN, np.linspace(0, 2, 201, dtype=np.float32), [0.01, 0.02]),
        (EVEN, (1000 + np.linspace(0, 0.2, 21)).astype(np.float32), [1000.01, 1000.02]),
        (EVEN, None, [0.01, 0.02]),
        (UNEVEN, np.array(UNEVEN), [0.1, 0.3]),
        (UNEVEN, 5 + np.array(UNEVEN[:3], dtype=np.float32), [5.1, 5.3]),
        (UNEVEN, None, [0.1, 0.3]),
    ],
)
def test_times_are_those_of_the_training_data(
    known: tuple[float, ...], own: NDArray[np.floating] | None, written: list[float], tmp_path: Path
) -> None:
    spec = _spec(known)
    n_frames = 3 if own is None else len(own)
    inputs = read_inputs(_file(tmp_path / "f.hdf5", own, n_frames), spec, 1, resolution_free=False)
    result = predict._result(np.ones((2, 2, 1, 8), np.float32), inputs, spec, 1)
    assert result["time"].values == pytest.approx(written, rel=1e-7)


@pytest.mark.parametrize(
    ("known", "own", "message"),
    [
        (EVEN, np.arange(20) * 0.0101, "0.01 apart"),
        (EVEN, np.arange(19) * 0.01, "0.01 apart"),
        (UNEVEN, np.arange(5) * 0.1, r"with the steps 0.1, 0.2, 0.3, 0.4 \.\.\. as in the training data"),
    ],
)
def test_other_steps_are_refused(
    known: tuple[float, ...], own: NDArray[np.floating], message: str, tmp_path: Path
) -> None:
    path = _file(tmp_path / "f.hdf5", own, 20 if known is EVEN else 5)
    with pytest.raises(InputError, match=message):
        read_inputs(path, _spec(known), 1, resolution_free=False)


def test_uneven_times_end_where_the_training_data_do(tmp_path: Path) -> None:
    spec = _spec(UNEVEN)
    inputs = read_inputs(_file(tmp_path / "f.hdf5", None, 1), spec, 1, resolution_free=False)
    with pytest.raises(InputError, match="have 5 times, whose steps differ, so the times of 6 frames aren't known"):
        predict._result(np.ones((2, 5, 1, 8), np.float32), inputs, spec, 1)


@pytest.mark.parametrize("has_solution", [True, False])
def test_a_steady_file_may_hold_its_solution(has_solution: bool, tmp_path: Path) -> None:
    spec = _spec(())
    with h5py.File(tmp_path / "f.hdf5", "w") as file:
        file["a"] = np.ones((2, 8), np.float32)
        if has_solution:
            file["u"] = np.full((2, 8), 2.0, np.float32)
    inputs = read_inputs(tmp_path / "f.hdf5", spec, 0, resolution_free=False)
    result = predict._result(np.ones((2, 1, 1, 8), np.float32), inputs, spec, 0)
    assert ("relative_l2" in result) == has_solution
    if has_solution:
        assert result["relative_l2"].values.tolist() == [0.5, 0.5]
