"""The Helmholtz solver: order on a manufactured solution, exact waves, balance of power, precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.special
from numpy.typing import NDArray

from data_gen.solvers import helmholtz


def nodes(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.linspace(0, 1, n)
    return x[:, None] + 0 * x, x + 0 * x[:, None]


def manufactured(n: int, k: float) -> tuple[Any, Any, Any]:
    """u = g(x) g(y), g(x) = exp(i k (x^2 - x)), which goes out of all sides, and a wavenumber that is k there."""
    x, y = nodes(n)
    wavenumber = k * (1 + 4 * x * (1 - x) * y * (1 - y))
    u = np.exp(1j * k * (x * x - x + y * y - y))
    laplacian = (4j * k - k * k * ((2 * x - 1) ** 2 + (2 * y - 1) ** 2)) * u
    return wavenumber, -laplacian - wavenumber**2 * u, u


@pytest.mark.parametrize("k", [3.0, 12.0])
def test_the_error_at_the_nodes_is_of_fourth_order(k: float) -> None:
    errors = []
    for n in (17, 33, 65):
        wavenumber, source, u = manufactured(n, k)
        found = helmholtz.solve(wavenumber, source).values
        errors.append(np.linalg.norm(found - u) / np.linalg.norm(u))
    assert np.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.3)
    assert errors[2] < 1e-3


def test_waves_of_a_small_source_go_out_and_decay_with_the_distance() -> None:
    # In free space u = i/4 H0(k r) times the integral of the source. What the sides reflect is a fraction of it.
    n, k, width = 129, 25.0, 0.03
    x, y = nodes(n)
    r = np.hypot(x - 0.5, y - 0.5)
    source = np.exp(-0.5 * (r / width) ** 2)
    found = helmholtz.solve(np.full((n, n), k), source).values
    strength = 2 * np.pi * width**2 * np.exp(-0.5 * (k * width) ** 2)
    ring = (r > 0.2) & (r < 0.4)
    exact = 0.25j * scipy.special.hankel1(0, k * r[ring]) * strength
    assert np.linalg.norm(found[ring] - exact) < 0.2 * np.linalg.norm(exact)
    backwards = np.linalg.norm(found[ring] - exact.conj())
    assert backwards > np.linalg.norm(exact), "waves run outwards, not inwards"


def test_power_and_symmetry() -> None:
    rng = np.random.default_rng(0)
    wavenumber, source = 8 + rng.uniform(size=(33, 33)), rng.standard_normal((33, 33))
    solution = helmholtz.solve(wavenumber, source)
    assert solution.residual < 1e-12
    assert solution.power_imbalance < 1e-12
    turned = helmholtz.solve(wavenumber.T[::-1], source.T[::-1])
    np.testing.assert_allclose(turned.values, solution.values.T[::-1], atol=1e-12 * np.abs(solution.values).max())


def test_single_precision_is_that_of_the_factorisation() -> None:
    rng = np.random.default_rng(0)
    wavenumber, source = 5 + rng.uniform(size=(33, 33)), rng.standard_normal((33, 33))
    double = helmholtz.solve(wavenumber, source).values
    single = helmholtz.solve(wavenumber.astype(np.float32), source.astype(np.float32)).values
    assert single.dtype == np.complex64
    assert 1e-7 < np.abs(single - double).max() / np.abs(double).max() < 1e-5
