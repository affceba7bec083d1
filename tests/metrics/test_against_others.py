"""Metrics beside independent implementations: equal where the definition is, and documented where it isn't."""

import math
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

from data_gen.grids import Grid
from neuralop_bench.metrics.spectral import Spectra


@pytest.fixture(scope="module")
def apart() -> Iterator[ProcessPoolExecutor]:
    """A process for jax: its threads, once imported, would make every later fork of this one unsafe."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        yield process


def spectrum_of_exponax(field: np.ndarray) -> np.ndarray:
    import exponax

    return np.asarray(exponax.get_spectrum(field))


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("n", "n_dims"), [(24, 2), *(pytest.param(*case, marks=pytest.mark.exhaustive) for case in ((32, 1), (8, 3)))]
)
def test_shells_are_those_of_exponax(
    n: int, n_dims: int, measure: Callable, context: Callable, apart: ProcessPoolExecutor
) -> None:
    field = np.random.default_rng(n).standard_normal((n,) * n_dims)
    energy = measure(
        Spectra(context(Grid.periodic(n, n_dims=n_dims))), field[None, None, None], field[None, None, None]
    )
    theirs = apart.submit(spectrum_of_exponax, field[None].astype(np.float32)).result()[0]
    # Theirs is half the square, in single precision, with the mean in front and without the corner.
    ours = energy["energy_target"].values[0, 0, 0]
    np.testing.assert_allclose(0.5 * ours[: n // 2], theirs[1:], rtol=2e-5)


def quadrant_energy(error: np.ndarray) -> float:
    """What the fRMSE of PDEBench looks at (pdebench/models/metrics.py): the modes of a square field whose wavenumbers
    are non-negative along both axes, below the Nyquist wavenumber in modulus."""
    n = len(error) // 2
    u_hat = np.abs(np.fft.fft2(error, norm="forward")[:n, :n]) ** 2
    k = np.arange(n)
    return float(u_hat[np.hypot(k[:, None], k[None, :]) < n].sum())


@pytest.mark.parametrize("k", [(3, -5), (-1, 1), (10, -2)])
def test_an_error_in_the_second_quadrant_is_seen_here_and_not_by_pdebench(
    k: tuple[int, int], score: Callable, context: Callable
) -> None:
    grid = Grid.periodic(32)
    x, y = np.meshgrid(*grid.coordinates(), indexing="ij")
    target = sum(np.cos(2 * math.pi * k_1 * x) for k_1 in (2, 6, 14))
    error = 0.1 * np.cos(2 * math.pi * (k[0] * x + k[1] * y))
    assert quadrant_energy(error) < 1e-30
    columns = score(Spectra(context(grid)), (target + error)[None, None, None], target[None, None, None])
    assert max(columns[f"spec_{band}"] for band in ("low", "mid", "high")) == pytest.approx(0.1, rel=1e-10)


@pytest.mark.parametrize(("n", "share"), [(16, 0.57), (32, 0.54), (64, 0.52), (128, 0.51)])
def test_pdebench_sees_half_the_plane(n: int, share: float) -> None:
    # Of a real field k and -k are one mode: which of the modes in the disc has a representative in the quadrant?
    k = np.fft.fftfreq(n, 1 / n)
    modes = np.stack(np.meshgrid(k, k, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = (np.hypot(*modes.T) < n // 2) & modes.any(axis=1)
    seen = inside & ((modes >= 0).all(axis=1) | (modes <= 0).all(axis=1))
    assert seen.sum() / inside.sum() == pytest.approx(share, abs=0.01)
