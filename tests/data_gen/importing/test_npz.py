"""Files of NumPy arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.imported_files import convert, random_array


def test_a_steady_problem(tmp_path: Path) -> None:
    x, y = random_array(5, 1, 6, 4).astype(np.float32), random_array(5, 1, 6, 4, seed=1).astype(np.float32)
    np.savez_compressed(tmp_path / "a.npz", x=x, y=y)
    file = convert("npz", tmp_path / "a.npz", tmp_path / "out")["train"]
    assert file.spec.is_steady
    assert np.array_equal(file.read_static(slice(None)), x)
    assert np.array_equal(file.read_states(slice(None))[:, 0], y)


def test_trajectories_after_an_initial_state(tmp_path: Path) -> None:
    x, y = random_array(5, 8).astype(np.float32), random_array(5, 12, 8, seed=1).astype(np.float32)
    np.savez(tmp_path / "a.npz", x=x, y=y, t=np.arange(1, 13) * 0.5)
    file = convert("npz", tmp_path / "a.npz", tmp_path / "out")["train"]
    assert file.spec.times == tuple(0.5 * i for i in range(1, 13))
    assert np.array_equal(file.read_initial(slice(None))[:, 0], x)
    assert np.array_equal(file.read_states(slice(None))[:, :, 0], y)


def test_trajectories_alone(tmp_path: Path) -> None:
    u = random_array(5, 3, 8, 6).astype(np.float32)
    np.savez(tmp_path / "a.npz", u=u, t=np.array([0.0, 0.25, 0.5]))
    file = convert("npz", tmp_path / "a.npz", tmp_path / "out")["train"]
    assert file.spec.times == (0.0, 0.25, 0.5)
    assert np.array_equal(file.read_states(slice(None))[:, :, 0], u)
