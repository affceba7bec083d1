"""Laws of permeability: spectra, the same function on every grid, what the parameters mean, mistakes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.fft
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from data_gen.permeability import (
    MAX_CONTRAST,
    N_MODES,
    CosineGaussianField,
    LogNormal,
    MultiscaleTrigonometric,
    PermeabilityLaw,
    SmoothHighContrast,
    TwoPhase,
    cosine_series,
)

LAWS: dict[str, PermeabilityLaw] = {
    "two_phase": TwoPhase(),
    "log_normal": LogNormal(),
    "smooth_high_contrast": SmoothHighContrast(1e4),
    "multiscale_trigonometric": MultiscaleTrigonometric(),
}


def _rng(i: int = 0) -> np.random.Generator:
    return np.random.default_rng((5, i))


# Cosine series -------------------------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None, derandomize=True)
@given(n_modes=st.integers(1, 24), n_nodes=st.integers(2, 40), seed=st.integers(0, 99))
def test_a_series_is_exact_at_the_nodes_of_any_grid(n_modes: int, n_nodes: int, seed: int) -> None:
    # Fewer nodes than modes as well as more: both ways of evaluation against the plain sum.
    coefficients = np.random.default_rng(seed).standard_normal((n_modes, n_modes))
    x = np.linspace(0, 1, n_nodes)
    basis = np.cos(np.pi * np.outer(x, np.arange(n_modes)))
    np.testing.assert_allclose(cosine_series(coefficients, n_nodes), basis @ coefficients @ basis.T, atol=1e-11)


def test_the_field_is_that_of_a_cosine_transform_on_its_own_grid() -> None:
    # On 421 nodes the highest mode alternates from node to node: the transform's last coefficient.
    coefficients = CosineGaussianField().coefficients(_rng())
    field = cosine_series(coefficients, N_MODES)
    back = scipy.fft.dctn(field, type=1) / (N_MODES - 1) ** 2
    back[[0, -1]] /= 2
    back[:, [0, -1]] /= 2
    np.testing.assert_allclose(back, coefficients, atol=1e-13)


# The Gaussian field --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [CosineGaussianField(), CosineGaussianField(scale=2.0, tau=5.0, exponent=2.5)])
def test_coefficients_have_the_variances_of_the_law(law: CosineGaussianField) -> None:
    # Chi-square per shell of |k|, computed from the formula afresh: c_k^2 lambda_k, c_k^2 = 2 per nonzero index.
    k = np.arange(N_MODES)
    squared = k[:, None] ** 2.0 + k[None, :] ** 2.0
    factor = np.where(k > 0, 2.0, 1.0)
    variance = factor[:, None] * factor[None, :] * law.scale * (np.pi**2 * squared + law.tau**2) ** -law.exponent
    drawn = np.stack([law.coefficients(_rng(i)) for i in range(4)])
    assert not drawn[:, 0, 0].any(), "the mean is left out"
    shell = np.floor(np.sqrt(squared)).astype(int)
    edges = [1, 2, 4, 8, 16, 32, 64, 128, 256, 420]
    for low, high in itertools.pairwise(edges):
        members = (shell >= low) & (shell < high)
        statistic = float((drawn[:, members] ** 2 / variance[members]).sum())
        p = scipy.stats.chi2.cdf(statistic, 4 * members.sum())
        assert 1e-3 < p < 1 - 1e-3, (low, high, p)
    # Modes along an axis and inside have other factors: each on its own, too.
    for members in (np.s_[:, 0, 1:], np.s_[:, 1:, 0], np.s_[:, 1:, 1:]):
        values = (drawn**2 / np.where(squared > 0, variance, 1.0))[members]
        assert 1e-3 < scipy.stats.chi2.cdf(float(values.sum()), values.size) < 1 - 1e-3


def test_the_mean_square_of_a_field_is_the_sum_of_its_variances() -> None:
    law = CosineGaussianField()
    k = np.arange(N_MODES)
    table = law.eigenvalues(k[:, None], k[None, :])
    expected = float(table.sum() - table[0, 0])
    # cos^2 has mean 1/2 per nonzero index, which c_k^2 = 2 makes up for. Trapezoid weights on a closed grid.
    weights = np.full(141, 1 / 140)
    weights[[0, -1]] /= 2
    squares = [float(weights @ law.draw(_rng(i), 141) ** 2 @ weights) for i in range(150)]
    standard_error = float(np.std(squares, ddof=1)) / math.sqrt(len(squares))
    assert abs(np.mean(squares) - expected) < 3.5 * standard_error


# All laws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAWS)
def test_the_same_draws_give_the_same_function_on_every_grid(name: str) -> None:
    fine = LAWS[name].draw(_rng(), 841)
    for n in (421, 211, 85, 43, 22):
        stride = 840 // (n - 1)
        coarse = LAWS[name].draw(_rng(), n)
        assert coarse.shape == (n, n)
        np.testing.assert_allclose(coarse, fine[::stride, ::stride], rtol=1e-9)


@pytest.mark.parametrize("name", LAWS)
def test_draws_are_positive_repeat_and_differ_between_generators(name: str) -> None:
    law = LAWS[name]
    first, again, other = law.draw(_rng(), 43), law.draw(_rng(), 43), law.draw(_rng(1), 43)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.min() > 0
    assert first.dtype == np.float64
    assert law.parameters()["law"] == name


@pytest.mark.parametrize("name", LAWS)
def test_a_draw_takes_as_many_numbers_on_any_grid(name: str) -> None:
    rest = []
    for n in (22, 841):
        rng = _rng()
        LAWS[name].draw(rng, n)
        rest.append(rng.random())
    assert rest[0] == rest[1]


def test_two_phases_are_the_sign_of_the_field() -> None:
    law = TwoPhase(contrast=10.0)
    a = law.draw(_rng(), 85)
    assert np.array_equal(a, np.where(law.field.draw(_rng(), 85) >= 0, 30.0, 3.0))
    # The contrast doesn't move an interface: the same draws, paired.
    assert np.array_equal(TwoPhase().draw(_rng(), 85) == 12.0, a == 30.0)
    assert set(np.unique(TwoPhase().draw(_rng(), 85))) == {3.0, 12.0}
    assert TwoPhase(contrast=1.0).draw(_rng(), 9).std() == 0


def test_a_larger_tau_makes_shorter_lengths() -> None:
    def interfaces(tau: float) -> float:
        a = np.stack([TwoPhase(field=CosineGaussianField(tau=tau)).draw(_rng(i), 85) for i in range(12)])
        return float(np.mean(a[:, 1:] != a[:, :-1]))

    assert interfaces(5.0) > 1.15 * interfaces(3.0)


@settings(max_examples=10, deadline=None, derandomize=True)
@given(log_contrast=st.floats(0, 8), length=st.floats(0.02, 1), seed=st.integers(0, 99))
def test_the_smooth_law_has_the_contrast_it_is_given(log_contrast: float, length: float, seed: int) -> None:
    law = SmoothHighContrast(10**log_contrast, length)
    a = law.draw(_rng(seed), N_MODES)
    assert a.max() / a.min() == pytest.approx(law.contrast, rel=1e-9)
    assert a.max() * a.min() == pytest.approx(1, rel=1e-9)


def test_the_smooth_law_has_the_correlation_of_its_length() -> None:
    # Mean squares of differences over a distance r go as 1 - exp(-r^2 / (2 length^2)) far from the boundary; shift and
    # stretching of a sample drop out of their ratios.
    length = 0.08
    law = SmoothHighContrast(math.e**2, length)
    inner = np.log(np.stack([law.draw(_rng(i), 85) for i in range(60)]))[:, 17:68, 17:68]
    squares = {lag: np.mean((inner[:, lag:] - inner[:, :-lag]) ** 2) for lag in (1, 4, 8, 16)}
    for lag, found in squares.items():
        expected = -math.expm1(-((lag / 84) ** 2) / (2 * length**2)) / -math.expm1(-((4 / 84) ** 2) / (2 * length**2))
        assert found / squares[4] == pytest.approx(expected, rel=0.08), lag


def test_the_multiscale_law_is_its_product() -> None:
    rng = _rng()
    wavenumbers = [rng.uniform(2**i, 1.5 * 2**i) for i in range(6)]
    a = MultiscaleTrigonometric().draw(_rng(), 11)
    x, y = 0.3, 0.7  # node (3, 7)
    expected = 1.0
    for w in wavenumbers:
        expected *= (1 + 0.5 * math.cos(w * math.pi * (x + y))) * (1 + 0.5 * math.sin(w * math.pi * (y - 3 * x)))
    assert a[3, 7] == pytest.approx(expected, rel=1e-12)


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "knob"),
    [
        *((lambda: TwoPhase(low=0.0), "low"), (lambda: TwoPhase(low=math.inf), "low")),
        *((lambda: TwoPhase(contrast=0.5), "contrast"), (lambda: TwoPhase(contrast=2 * MAX_CONTRAST), "contrast")),
        *((lambda: TwoPhase(contrast=math.nan), "contrast"), (lambda: SmoothHighContrast(0.9), "contrast")),
        *((lambda: SmoothHighContrast(1e9), "contrast"), (lambda: SmoothHighContrast(10.0, 0.001), "length")),
        *((lambda: CosineGaussianField(scale=0.0), r"field\.scale"), (lambda: CosineGaussianField(tau=-1.0), "tau")),
        *((lambda: CosineGaussianField(exponent=1.0), "exponent"), (lambda: MultiscaleTrigonometric(0), "n_scales")),
        *((lambda: MultiscaleTrigonometric(9), "n_scales"), (lambda: CosineGaussianField(tau=math.nan), "tau")),
    ],
)
def test_impossible_parameters_are_named(make: Callable[[], object], knob: str) -> None:
    with pytest.raises(ValueError, match=rf"dataset\.problem\.permeability\.\S*{knob} must be"):
        make()


def test_a_log_normal_permeability_beyond_all_contrasts_is_refused_when_drawn() -> None:
    law = LogNormal(CosineGaussianField(scale=9e4))
    with pytest.raises(ValueError, match=r"dataset\.problem\.permeability\.field\.scale=90000\.0 gave"):
        law.draw(_rng(), 43)
