"""Compact spectra and Gaussian random fields."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from data_gen import spectral
from data_gen.random_fields import PeriodicGaussianField, PeriodicGaussianField1D, SumOfSines
from data_gen.spectral import Space

LAW = PeriodicGaussianField()
LAW_1D = PeriodicGaussianField1D()


def _rngs(n: int, start: int = 0) -> list[np.random.Generator]:
    return [
        np.random.Generator(np.random.Philox(np.random.SeedSequence(1, spawn_key=(i,))))
        for i in range(start, start + n)
    ]


def _series(u_hat: torch.Tensor, n: int) -> np.ndarray:
    """The real Fourier series summed term by term on an n x n grid."""
    k_max = u_hat.shape[-1] - 1
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    total = np.zeros((n, n))
    for k1 in range(-k_max, k_max + 1):
        for k2 in range(k_max + 1):
            term = (complex(u_hat[k1, k2]) * np.exp(2j * math.pi * (k1 * x + k2 * y))).real
            total += term if k2 == 0 else 2 * term
    return total


@pytest.mark.parametrize(
    ("n", "dealiased", "expected"), [(96, True, 31), (97, True, 32), (64, False, 31), (65, False, 32), (12, True, 3)]
)
def test_kept_wavenumbers(n: int, dealiased: bool, expected: int) -> None:
    k_max = spectral.max_wavenumber(n, dealiased=dealiased)
    assert k_max == expected
    if dealiased:
        # Strictly below n/3: the alias 2K - n of a product lies beyond the kept -K.
        assert 2 * k_max - n < -k_max


@pytest.mark.parametrize("n", [9, 10, 15, 16])
def test_grid_values_are_the_fourier_series(n: int) -> None:
    u_hat = LAW.draw(_rngs(1), 4)
    assert np.allclose(spectral.to_grid(u_hat, n)[0], _series(u_hat[0], n), atol=1e-14)
    assert torch.allclose(spectral.from_grid(spectral.to_grid(u_hat, n), 4), u_hat, atol=1e-15)


@pytest.mark.parametrize("n", [6, 7])
def test_a_coarser_grid_takes_a_truncation_without_aliasing(n: int) -> None:
    u_hat = LAW.draw(_rngs(1), 8)
    held = spectral.max_wavenumber(n, dealiased=False)
    rows = [*range(held + 1), *range(-held, 0)]
    truncated = u_hat[:, rows][..., : held + 1]
    assert np.allclose(spectral.to_grid(u_hat, n)[0], _series(truncated[0], n), atol=1e-14)
    only_fine = u_hat.clone()
    only_fine[:, rows, : held + 1] = 0
    assert float(spectral.to_grid(only_fine, n).abs().max()) == 0.0


def test_asking_for_more_wavenumbers_than_a_grid_holds_pads_with_zeros() -> None:
    u_hat = LAW.draw(_rngs(1), 3)
    padded = spectral.from_grid(spectral.to_grid(u_hat, 8), 6)
    assert padded.shape == (1, 13, 7)
    assert torch.allclose(padded[:, [*range(4), *range(-3, 0)], :4], u_hat, atol=1e-15)
    assert float(padded.abs().sum()) == pytest.approx(float(u_hat.abs().sum()), rel=1e-12)


def test_wavenumbers_are_in_storage_order() -> None:
    k1, k2 = spectral.wavenumbers(2)
    assert k1.flatten().tolist() == [0, 1, 2, -2, -1]
    assert k2.flatten().tolist() == [0, 1, 2]


def test_a_field_is_the_documented_sum_in_the_documented_order() -> None:
    # Half plane k2 > 0 or (k2 = 0, k1 > 0), sorted by max(|k1|, |k2|), then k1, then k2; two normals per mode.
    modes = [(k1, k2) for k1 in range(-2, 3) for k2 in range(3) if k2 > 0 or k1 > 0]
    modes.sort(key=lambda k: (max(abs(k[0]), abs(k[1])), k[0], k[1]))
    normals = _rngs(1)[0].standard_normal((len(modes), 2))
    n = 8
    x, y = np.meshgrid(np.arange(n) / n, np.arange(n) / n, indexing="ij")
    expected = np.zeros((n, n))
    for (k1, k2), (xi, eta) in zip(modes, normals, strict=True):
        eigenvalue = 7**3 * (4 * math.pi**2 * (k1**2 + k2**2) + 49) ** -2.5
        phase = 2 * math.pi * (k1 * x + k2 * y)
        expected += math.sqrt(2 * eigenvalue) * (xi * np.cos(phase) + eta * np.sin(phase))
    assert np.allclose(spectral.to_grid(LAW.draw(_rngs(1), 2), n)[0], expected, atol=1e-15)


def test_the_same_draws_give_the_same_field_at_any_resolution() -> None:
    coarse, fine = LAW.draw(_rngs(2), 5), LAW.draw(_rngs(2), 21)
    rows = [*range(6), *range(-5, 0)]
    assert torch.equal(coarse, fine[:, rows][..., :6])


def test_fields_are_real_with_zero_mean() -> None:
    u_hat = LAW.draw(_rngs(3), 6)
    assert torch.equal(u_hat[:, 0, 0], torch.zeros(3, dtype=torch.complex128))
    negative = [0, *range(-1, -7, -1), *range(6, 0, -1)]
    assert torch.equal(u_hat[:, negative, 0], u_hat[:, :, 0].conj())
    assert float(spectral.to_grid(u_hat, 32).mean(dim=(-2, -1)).abs().max()) < 1e-16


def test_sample_spectrum_follows_the_eigenvalues() -> None:
    # |u_k|^2 / (lambda_k / 2 ... ) of N samples and m modes of a shell is chi-squared with 2 N m degrees of freedom.
    n_samples, k_max = 400, 12
    u_hat = LAW.draw(_rngs(n_samples), k_max)
    k1, k2 = (k.numpy() for k in spectral.wavenumbers(k_max))
    half = (k2 > 0) | ((k2 == 0) & (k1 > 0))
    eigenvalues = LAW.eigenvalues(k1.astype(int), k2.astype(int))
    # E |u_k|^2 = lambda_k: each of real and imaginary part has variance lambda_k / 2.
    ratio = (u_hat.abs() ** 2).sum(0).numpy() / (eigenvalues / 2)
    shell = np.round(np.sqrt(k1**2 + k2**2))
    for b in range(1, k_max + 1):
        modes = half & (shell == b)
        freedom = 2 * n_samples * int(modes.sum())
        z = (ratio[modes].sum() - freedom) / math.sqrt(2 * freedom)
        assert abs(z) < 4, f"shell {b}: {z:.1f} standard deviations off"


def test_sample_variance_is_that_of_the_law() -> None:
    fields = spectral.to_grid(LAW.draw(_rngs(600), 16), 34)
    variances = fields.square().mean(dim=(-2, -1))
    error = float(variances.std()) / math.sqrt(len(variances))
    assert float(variances.mean()) == pytest.approx(LAW.variance(16), abs=4 * error)
    assert LAW.variance(200) == pytest.approx(0.034311, abs=1e-6)


@pytest.mark.parametrize("law", [PeriodicGaussianField, PeriodicGaussianField1D])
@pytest.mark.parametrize("change", [{"scale": 0.0}, {"tau": -1.0}, {"exponent": 0.0}])
def test_impossible_laws_are_refused(change: dict[str, float], law: type) -> None:
    with pytest.raises(ValueError, match=r"dataset\.problem\.initial"):
        law(**change)


# One dimension -------------------------------------------------------------------------------------------------------


def _series_1d(u_hat: torch.Tensor, n: int) -> np.ndarray:
    """The real Fourier series summed term by term on n points."""
    x = np.arange(n) / n
    terms = [complex(c) * np.exp(2j * math.pi * k * x) for k, c in enumerate(u_hat)]
    return terms[0].real + 2 * sum((term.real for term in terms[1:]), start=np.zeros(n))


@pytest.mark.parametrize("n", [9, 10, 15, 16])
def test_grid_values_in_one_dimension_are_the_fourier_series(n: int) -> None:
    u_hat = LAW_1D.draw(_rngs(2), 4)
    u_hat[:, 0] = 0.3
    assert np.allclose(spectral.to_grid_1d(u_hat, n)[1], _series_1d(u_hat[1], n), atol=1e-14)
    assert torch.allclose(spectral.from_grid_1d(spectral.to_grid_1d(u_hat, n), 4), u_hat, atol=1e-15)
    assert spectral.wavenumbers_1d(4).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [6, 7])
def test_a_coarser_grid_in_one_dimension_takes_a_truncation_without_aliasing(n: int) -> None:
    u_hat = LAW_1D.draw(_rngs(1), 8)
    held = spectral.max_wavenumber(n, dealiased=False)
    assert np.allclose(spectral.to_grid_1d(u_hat, n)[0], _series_1d(u_hat[0, : held + 1], n), atol=1e-14)
    only_fine = u_hat.clone()
    only_fine[:, : held + 1] = 0
    assert float(spectral.to_grid_1d(only_fine, n).abs().max()) == 0.0


def test_asking_for_more_wavenumbers_in_one_dimension_pads_with_zeros() -> None:
    u_hat = LAW_1D.draw(_rngs(2), 3)
    padded = spectral.from_grid_1d(spectral.to_grid_1d(u_hat, 8), 6)
    assert padded.shape == (2, 7)
    assert torch.allclose(padded[:, :4], u_hat, atol=1e-15)
    assert float(padded[:, 4:].abs().max()) == 0.0


def test_an_even_grid_in_one_dimension_loses_its_nyquist_mode() -> None:
    # Its phase can't be held, so it is dropped on the way in as on the way out.
    alternating = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    assert float(spectral.from_grid_1d(alternating, 6).abs().max()) == 0.0


def test_a_field_in_one_dimension_is_the_documented_sum_in_the_documented_order() -> None:
    normals = _rngs(1)[0].standard_normal((3, 2))
    x = np.arange(16) / 16
    expected = np.zeros(16)
    for k, (xi, eta) in enumerate(normals, start=1):
        amplitude = math.sqrt(2 * 625 * (4 * math.pi**2 * k**2 + 25) ** -2)
        expected += amplitude * (xi * np.cos(2 * math.pi * k * x) + eta * np.sin(2 * math.pi * k * x))
    assert np.allclose(spectral.to_grid_1d(LAW_1D.draw(_rngs(1), 3), 16)[0], expected, atol=1e-14)


def test_the_same_draws_in_one_dimension_give_the_same_field_at_any_resolution() -> None:
    coarse, fine = LAW_1D.draw(_rngs(3), 21), LAW_1D.draw(_rngs(3), 341)
    assert torch.equal(coarse, fine[:, :22])
    assert torch.equal(fine[:, 0], torch.zeros(3, dtype=torch.complex128))
    # A sample is its generator's, whatever the others are.
    assert torch.equal(LAW_1D.draw(_rngs(1, start=2), 21)[0], coarse[2])


def test_sample_spectrum_in_one_dimension_follows_the_eigenvalues() -> None:
    # sum of |u_k|^2 / (lambda_k / 2) over N samples is chi-squared with 2 N degrees of freedom.
    n_samples, k_max = 2000, 40
    power = (LAW_1D.draw(_rngs(n_samples), k_max).abs() ** 2).sum(0).numpy()[1:]
    z = (power / (LAW_1D.eigenvalues(np.arange(1, k_max + 1)) / 2) - 2 * n_samples) / math.sqrt(4 * n_samples)
    assert np.abs(z).max() < 4.5
    assert abs(float(z.sum())) / math.sqrt(k_max) < 4
    # Real and imaginary parts are uncorrelated, and so are neighbouring modes.
    u_hat = LAW_1D.draw(_rngs(n_samples), 3).numpy()[:, 1:]
    parts = np.concatenate([u_hat.real, u_hat.imag], axis=1)
    correlation = np.corrcoef(parts.T) - np.eye(6)
    assert np.abs(correlation).max() < 4.5 / math.sqrt(n_samples)


def test_variance_in_one_dimension_is_that_of_the_law() -> None:
    fields = spectral.to_grid_1d(LAW_1D.draw(_rngs(2000), 64), 130)
    variances = fields.square().mean(dim=-1)
    error = float(variances.std()) / math.sqrt(len(variances))
    assert float(variances.mean()) == pytest.approx(LAW_1D.variance(64), abs=4 * error)
    assert math.sqrt(LAW_1D.variance(10_000)) == pytest.approx(0.5936, abs=5e-5)
    assert float(fields.mean(dim=-1).abs().max()) < 1e-15


# Sums of sines -------------------------------------------------------------------------------------------------------


def _values(law: SumOfSines, n: int, n_samples: int = 200) -> np.ndarray:
    space = Space(n, 1, 1.0, degree=1)
    return space.values(law.draw(_rngs(n_samples), 1, space), n)[:, 0].numpy()


def test_a_sum_of_sines_has_as_many_waves_as_were_drawn() -> None:
    law = SumOfSines(n_waves=2, largest_wavenumber=4, absolute=0.0, windowed=0.0)
    spectra = np.abs(np.fft.rfft(_values(law, 64))) / 64
    waves = spectra[:, 1:] > 1e-9
    # One wave if the same wavenumber was drawn twice, of one to four cycles doubled.
    assert set(waves.sum(axis=1)) == {1, 2}
    assert (waves.sum(axis=1) == 1).mean() == pytest.approx(1 / 4, abs=0.1)
    assert set(np.flatnonzero(waves.any(axis=0)) + 1) == {1, 2, 3, 4, 6, 8}
    assert 2 * spectra[:, 1:].max() <= 1
    # Amplitudes and phases are uniform; two or three constants are left.
    assert (2 * spectra[:, 1:][waves]).mean() == pytest.approx(0.5, abs=0.05)
    assert _values(law, 64).mean(axis=1).std() == pytest.approx(math.sqrt(2.25 / 6), rel=0.15)


def test_absolute_values_and_windows_come_as_often_as_asked() -> None:
    plain, absolute, windowed = (
        _values(SumOfSines(absolute=a, windowed=w), 1024) for a, w in ((0.0, 0.0), (0.3, 0.0), (0.0, 0.3))
    )
    changed = [np.abs(other - plain).max(axis=1) > 1e-3 for other in (absolute, windowed)]
    assert [part.mean() for part in changed] == pytest.approx([0.3, 0.3], abs=0.12)
    # A field of one sign, up to the kinks that 1024 points can't hold.
    one_sign = np.minimum(absolute.max(axis=1), -absolute.min(axis=1))[changed[0]]
    assert one_sign.max() < 0.02
    outside = np.abs(windowed[changed[1]]) < 1e-6
    assert (outside.mean(axis=1) > 0.1).all()
    inside = np.abs(windowed[changed[1]] - plain[changed[1]]) < 1e-2
    assert (inside.mean(axis=1) > 0.02).all()


def test_a_sum_of_sines_is_the_same_at_any_resolution() -> None:
    law = SumOfSines(absolute=0.0, windowed=0.5)
    np.testing.assert_allclose(_values(law, 512), _values(law, 1024)[:, ::2], atol=1e-8)


def test_impossible_sums_of_sines_are_refused() -> None:
    with pytest.raises(ValueError, match=r"absolute and windowed in \[0, 1\].*dataset\.problem\.initial"):
        SumOfSines(windowed=1.5)
    with pytest.raises(ValueError, match="in one dimension, not 2"):
        SumOfSines().draw(_rngs(1), 1, Space(16, 2, 1.0, degree=1))
