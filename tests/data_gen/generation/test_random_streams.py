"""Random numbers: every sample has its own, and other test sets share those of test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_gen.generation import cache
from data_gen.generation.random_streams import generator, stream
from data_gen.problems.ns2d import NavierStokes2D
from data_gen.store import DatasetFile

PROBLEM = NavierStokes2D(viscosity=1e-3, resolution=12, n_snapshots=3)


def _states(root: Path, problem: NavierStokes2D = PROBLEM, **splits: int) -> dict[str, np.ndarray]:
    states = {}
    for split, path in cache.ensure(problem, splits, 0, root, workers=1).items():
        with DatasetFile(path) as file:
            states[split] = file.read_states(slice(None))
    return states


def test_sample_i_depends_on_seed_split_and_index_alone(tmp_path: Path) -> None:
    states = _states(tmp_path, train=3)["train"]
    alone = PROBLEM.simulate([generator(0, "train", 2)]).trajectory[0]
    assert np.allclose(states[2], alone, rtol=0, atol=1e-7 * np.abs(alone).max())


def test_no_initial_condition_is_shared_between_train_valid_and_test(tmp_path: Path) -> None:
    states = _states(tmp_path, train=33, valid=20, test=20).values()
    frames = np.concatenate([found[:, 0].reshape(len(found), -1) for found in states])
    assert len({frame.tobytes() for frame in frames}) == 73
    # Not even nearly: independent fields of this size are hardly correlated.
    normalised = frames / np.linalg.norm(frames, axis=1, keepdims=True)
    correlation = np.abs(normalised @ normalised.T) - np.eye(len(frames))
    assert correlation.max() < 0.95


def test_other_test_sets_are_paired_with_test(tmp_path: Path) -> None:
    half = replace(PROBLEM, resolution=6, oversampling=3.0)
    fine = _states(tmp_path, test=2)["test"][:, :, 0]
    coarse = _states(tmp_path, half, test_half=2)["test_half"][:, :, 0]
    low = np.fft.rfft2(fine, norm="forward")[..., :3, :3]
    assert np.allclose(np.fft.rfft2(coarse, norm="forward")[..., :3, :3], low, atol=1e-7)
    with pytest.raises(ValueError, match="Unknown split 'testing'"):
        stream("testing")
