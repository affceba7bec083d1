"""Data that differ in their last digits agree, other data don't, and what is malformed agrees with nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_gen.agreement import agree, measure, summary
from data_gen.generation.random_streams import generator
from data_gen.problems.ns2d import NavierStokes2D

Fields = list[NDArray[np.float32]]
ERROR = 1e-4


def entry(fields: Fields, n_dims: int, sha256: str, **changes: Any) -> dict[str, Any]:
    """A record's entry for data of some fields [sample, ...]."""
    numbers = np.stack([measure(values, n_dims) for values in fields], axis=1)
    address = {"file": "ns2d-12ec4f6b/test/ns2d.hdf5", "n": len(fields[0]), "version": 2, "resolution": "16x16"}
    return {**address, "sha256": sha256, "error": ERROR, "agreement": summary(numbers), **changes}


SHAPES = {
    "1D": (1, [(40, 2, 64)]),
    "2D": (2, [(5, 6, 12, 10)]),
    "2D, steady, with a static field": (2, [(30, 9, 9), (30, 9, 9)]),
    "3D": (3, [(3, 2, 6, 5, 4)]),
}


@pytest.mark.parametrize(("n_dims", "shapes"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_any_change_of_a_tenth_of_the_error_agrees(n_dims: int, shapes: list[tuple[int, ...]], scale: float) -> None:
    rng = np.random.default_rng(0)
    fields = [(scale * rng.normal(size=shape)).astype(np.float32) for shape in shapes]
    # The worst direction is that of a field itself, which changes its norm; that of a wave changes its coefficient.
    wave = np.cos(2 * np.pi * (np.arange(shapes[0][-1]) + 0.5) / shapes[0][-1])
    for direction in (lambda u: u, lambda u: rng.normal(size=u.shape), lambda u: np.broadcast_to(wave, u.shape)):
        moved = []
        for values in fields:
            axes = tuple(range(1, values.ndim))
            change = direction(values)
            size = np.sqrt(np.square(values, dtype=np.float64).mean(axes, keepdims=True))
            size /= np.sqrt(np.square(change, dtype=np.float64).mean(axes, keepdims=True))
            moved.append((values + 0.099 * ERROR * size * change).astype(np.float32))
        assert agree(entry(fields, n_dims, "a"), entry(moved, n_dims, "b"))


def test_values_rounded_to_their_neighbours_agree_even_if_the_error_is_tiny() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3, 64)).astype(np.float32)
    toward = rng.choice(np.array([-np.inf, np.inf], np.float32), size=values.shape)
    rounded = np.nextafter(values, toward)
    assert agree(entry([values], 1, "a", error=1e-12), entry([rounded], 1, "b", error=1e-12))


@pytest.fixture(scope="module")
def flow() -> NDArray[np.float32]:
    return solve(1e-3, seed=0)


def solve(viscosity: float, seed: int) -> NDArray[np.float32]:
    """Vorticity [sample, time, x, y]: 20 samples, so that two are averaged in 320 numbers."""
    problem = NavierStokes2D(viscosity=viscosity, resolution=16, n_snapshots=5)
    samples = problem.simulate([generator(seed, "test", i) for i in range(80)])
    return samples.trajectory[:, :, 0].astype(np.float32)


def _scaled(sample: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def change(values: NDArray[np.float32]) -> NDArray[np.float32]:
        values = values.copy()
        values[sample] *= 1.001
        return values

    return change


OTHERS: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "another seed": lambda _: solve(1e-3, seed=1),
    "another viscosity": lambda _: solve(1.01e-3, seed=0),
    "the first sample scaled by a thousandth": _scaled(0),
    "the last sample scaled by a thousandth": _scaled(-1),
    "samples in another order": lambda values: values[::-1],
    "snapshots in another order": lambda values: values[:, [0, 2, 1, 3, 4]],
    "shifted by a point": lambda values: np.roll(values, 1, axis=2),
    "mirrored": lambda values: values.swapaxes(2, 3),
    "negative": lambda values: -values,
    "one value that is NaN": lambda values: np.where(np.arange(values.size).reshape(values.shape) == 7, np.nan, values),
}


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
def test_other_data_do_not_agree(flow: NDArray[np.float32], change: Callable[..., NDArray[np.float32]]) -> None:
    assert agree(entry([flow], 2, "a"), entry([flow], 2, "b"))
    assert not agree(entry([flow], 2, "a"), entry([change(flow)], 2, "b"))


DIFFERENT: dict[str, dict[str, Any]] = {
    "another address": {"file": "ns2d-00000000/test/ns2d.hdf5"},
    "another split": {"file": "ns2d-12ec4f6b/valid/ns2d.hdf5"},
    "another version": {"version": 3},
    "fewer samples": {"n": 79},
    "another grid": {"resolution": "32x32"},
    "no error, as of imported data": {"error": None},
    "an error that is NaN": {"error": float("nan")},
    "an error of another type": {"error": 10**400},
    "no numbers": {"agreement": None},
    "a list": {"agreement": [1]},
    "no base64": {"agreement": {"shape": [1, 1, 5], "float32_base64": "?"}},
    "a wrong shape": {"agreement": {"shape": [1, 1, 5], "float32_base64": "AAAA"}},
    "a huge shape": {"agreement": {"shape": [10**30, 1, 5], "float32_base64": ""}},
}


@pytest.mark.parametrize("changes", DIFFERENT.values(), ids=DIFFERENT)
def test_what_says_otherwise_or_is_malformed_does_not_agree(flow: NDArray[np.float32], changes: dict[str, Any]) -> None:
    mine, theirs = entry([flow], 2, "a"), entry([flow], 2, "b", **changes)
    assert not agree(mine, theirs)
    assert not agree(theirs, mine)
    assert agree(mine, {**theirs, "sha256": "a"})  # the same bytes are the same data
    assert not agree({"n": 3}, {"n": 3})


@pytest.mark.parametrize("n", [1, 50, 1000, 4999])
def test_a_record_grows_by_less_than_5_kb_for_its_three_splits(n: int) -> None:
    for n_numbers in (3, 5, 10, 7):
        kept = summary(np.random.default_rng(0).normal(size=(n, 1, n_numbers)))
        assert 3 * len(json.dumps(kept)) < 5500
