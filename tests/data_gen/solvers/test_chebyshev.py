"""The Chebyshev series of the exponential, against matrix exponentials."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from data_gen.solvers import chebyshev


def skew(n: int) -> Tensor:
    matrix = torch.from_numpy(np.random.default_rng(0).standard_normal((n, n)))
    return matrix - matrix.T


A = skew(12)
RADIUS = float(torch.linalg.eigvals(A).abs().max())
START = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 12)))


def advanced(duration: float, radii: list[float], tolerance: float, start: Tensor = START) -> tuple[Tensor, list[int]]:
    matrix = A.to(start)

    def rate(states: Tensor) -> Tensor:
        return torch.stack([matrix @ state for state in states])

    found, counts = chebyshev.advance(rate, start, duration, radii, tolerance)
    return found, counts.tolist()


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-12])
@pytest.mark.parametrize("duration", [1e-3, 0.1, 20.0])
def test_the_error_is_below_the_tolerance(duration: float, tolerance: float) -> None:
    exact = START.numpy() @ scipy.linalg.expm(duration * A.numpy()).T
    found, _ = advanced(duration, [RADIUS] * 3, tolerance)
    error = np.linalg.norm(found.numpy() - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert error.max() < max(tolerance, 1e-11)


def test_products_are_hardly_more_than_the_largest_phase() -> None:
    duration = 400 / RADIUS
    assert advanced(duration, [RADIUS] * 3, 1e-8)[1] == pytest.approx([440] * 3, abs=30)


def test_a_sample_does_not_depend_on_the_radii_of_others() -> None:
    together, counts = advanced(1.0, [RADIUS, 2 * RADIUS, 7 * RADIUS], 1e-6)
    alone, own = advanced(1.0, [RADIUS], 1e-6, START[:1])
    assert torch.equal(together[:1], alone)
    assert counts[0] == own[0] < counts[1] < counts[2]


def test_single_precision_stays_single() -> None:
    found, _ = advanced(1.0, [RADIUS] * 3, 1e-6, START.float())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, advanced(1.0, [RADIUS] * 3, 1e-6)[0], atol=1e-4)
