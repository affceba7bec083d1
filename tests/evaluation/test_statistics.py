"""Intervals, comparisons and ranks: by hand, against scipy, and by simulating trainings and test sets anew."""

import math
import tracemalloc
from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from neuralop_bench.evaluation.statistics import Interval, compare, crossed_interval, holm, rank

Errors = NDArray[np.float64]

# Standard deviations of the parts of a log error, as models of this benchmark have them.
OF_SAMPLE, OF_REST = 0.4, 0.15


def log_errors(
    rng: np.random.Generator, *shape: int, of_seed: float, of_sample: float = OF_SAMPLE, of_rest: float = OF_REST
) -> Errors:
    """Draws of m + a(s) + b(n) + c(s, n) with m = 0, normal, [..., seed, sample]."""
    *more, n_seeds, n_samples = shape
    a = of_seed * rng.normal(size=(*more, n_seeds, 1))
    b = of_sample * rng.normal(size=(*more, 1, n_samples))
    return a + b + of_rest * rng.normal(size=(*more, n_seeds, n_samples))


def mean_error(of_seed: float) -> float:
    """Of all seeds and all samples: the mean of a log-normal variable."""
    return math.exp((of_seed**2 + OF_SAMPLE**2 + OF_REST**2) / 2)


def interval(errors: Errors, confidence: float = 0.95) -> Interval:
    found = crossed_interval(errors, confidence)
    assert found is not None
    return found


# Intervals -----------------------------------------------------------------------------------------------------------


def test_an_interval_by_hand() -> None:
    # Relative to the mean 3, both seeds and both samples have means 2/3 and 4/3: variance 2/9, of their mean 1/9.
    found = interval(np.array([[1.0, 3.0], [3.0, 5.0]]))
    assert found.mean == pytest.approx(3, rel=1e-14)
    assert found.standard_error == pytest.approx(math.sqrt(2 / 9), rel=1e-14)
    assert found.degrees_of_freedom == pytest.approx(2, rel=1e-14)  # (1/9 + 1/9)^2 / (1/81 + 1/81)
    reach = 4.302652729911275 * math.sqrt(2 / 9)  # tables: t of 97.5 % with two degrees of freedom
    assert (found.low, found.high) == pytest.approx((3 * math.exp(-reach), 3 * math.exp(reach)), rel=1e-10)
    assert (found.n_seeds, found.n_samples, found.counts_seeds) == (2, 2, True)


def test_one_seed_or_identical_seeds_leave_the_interval_of_the_samples() -> None:
    seed = np.array([[0.1, 0.3, 0.2, 0.7, 0.4]])
    one, three = interval(seed), interval(np.repeat(seed, 3, axis=0))
    assert not one.counts_seeds
    assert three.counts_seeds
    relative = seed[0] / seed.mean()
    assert one.standard_error == pytest.approx(relative.std(ddof=1) / math.sqrt(5), rel=1e-13)
    assert (one.degrees_of_freedom, three.degrees_of_freedom) == pytest.approx((4, 4), rel=1e-13)
    assert (three.mean, three.low, three.high) == pytest.approx((one.mean, one.low, one.high), rel=1e-13)


@pytest.mark.parametrize(
    "n_seeds", [3, 5, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (4, 6, 7, 8, 9, 10))]
)
def test_intervals_hold_the_mean_over_all_seeds_and_samples_as_often_as_they_say(n_seeds: int) -> None:
    # 2000 draws at a coverage of 0.95 have a standard deviation of 0.005: 0.97 is four of them away. Intervals that
    # forget the seeds cover less than 0.9 where of_seed is 0.1.
    rng = np.random.default_rng(n_seeds)
    for of_seed in (0.03, 0.1):
        covered = 0
        for logs in log_errors(rng, 2000, n_seeds, 50, of_seed=of_seed):
            found = interval(np.exp(logs))
            covered += found.low <= mean_error(of_seed) <= found.high
        assert 0.90 < covered / 2000 < 0.97


def test_intervals_hold_the_mean_also_where_seeds_differ_more_than_samples() -> None:
    # Simulated with 4000 draws: 0.92 (three seeds) and 0.94 (seven). Standard deviation with 1000 draws: 0.009. By the
    # samples' degrees of freedom, three seeds cover 0.85.
    rng = np.random.default_rng(0)
    for n_seeds in (3, 7):
        found = [interval(np.exp(logs)) for logs in log_errors(rng, 1000, n_seeds, 50, of_seed=0.3)]
        covered = np.mean([x.low <= mean_error(0.3) <= x.high for x in found])
        assert 0.89 < covered < 0.97


def test_a_crossed_bootstrap_is_as_wide() -> None:
    # It resamples seeds with the variance of ddof 0: with ten seeds its width is that of the interval to five per cent,
    # and the noise of 4000 resamplings is one.
    rng = np.random.default_rng(3)
    for of_seed in (0.03, 0.1, 0.2):
        errors = np.exp(log_errors(rng, 10, 50, of_seed=of_seed))
        seeds, samples = rng.integers(10, size=(4000, 10, 1)), rng.integers(50, size=(4000, 1, 50))
        width = np.log(errors[seeds, samples].mean(axis=(1, 2))).std()
        assert 0.92 < width / interval(errors).standard_error < 1.05


def test_a_nested_bootstrap_covers_less() -> None:
    # Each seed draws samples of its own there, as if it had been tested on others. Simulated: 0.78; the standard
    # deviation with 300 draws is 0.025.
    rng = np.random.default_rng(4)
    nested = crossed = 0
    for logs in log_errors(rng, 300, 3, 50, of_seed=0.05):
        errors = np.exp(logs)
        seeds, samples = rng.integers(3, size=(300, 3, 1)), rng.integers(50, size=(300, 3, 50))
        low, high = np.quantile(errors[seeds, samples].mean(axis=(1, 2)), [0.025, 0.975])
        nested += low <= mean_error(0.05) <= high
        found = interval(errors)
        crossed += found.low <= mean_error(0.05) <= found.high
    assert nested / 300 < 0.87
    assert crossed / 300 > 0.90


def test_an_interval_scales_with_the_errors_and_widens_with_its_confidence() -> None:
    errors = np.exp(log_errors(np.random.default_rng(5), 3, 20, of_seed=0.1))
    found = interval(errors)
    assert found.low < found.mean < found.high
    assert found.mean == pytest.approx(errors.mean(), rel=1e-14)
    for factor in (1e-300, 1e-3, 1e303):
        scaled = interval(errors * factor)
        assert scaled.standard_error == pytest.approx(found.standard_error, rel=1e-12)
        assert scaled.high == pytest.approx(found.high * factor, rel=1e-12)
    wider = interval(errors, 0.99)
    assert wider.low < found.low
    assert wider.high > found.high
    assert wider.mean == found.mean


def test_errors_without_an_interval() -> None:
    assert crossed_interval(np.array([[1.0, 2.0], [1.0, np.inf]])) is None
    assert crossed_interval(np.array([[1.0], [2.0]])) is None
    exact = interval(np.zeros((3, 4)))
    assert (exact.mean, exact.low, exact.high, exact.degrees_of_freedom) == (0, 0, 0, 3)
    constant = interval(np.full((3, 4), 0.1))
    assert constant.standard_error == 0
    assert (constant.low, constant.high) == (constant.mean, constant.mean)
    partly_exact = interval(np.array([[0.0, 0.2, 0.1], [0.0, 0.2, 0.3]]))
    assert 0 < partly_exact.low < partly_exact.mean < partly_exact.high < math.inf


@pytest.mark.parametrize(
    ("errors", "message"),
    [
        (np.ones(3), r"got shape \(3,\)"),
        (np.ones((0, 3)), r"got shape \(0, 3\)"),
        (np.ones((3, 0)), r"got shape \(3, 0\)"),
        (np.array([[1.0, -1.0]]), "negative"),
        (np.array([[1.0, np.nan]]), "NaN"),
    ],
)
@pytest.mark.parametrize("use", [crossed_interval, lambda x: compare(x, x), lambda x: rank([x, x])])
def test_what_are_no_errors_is_refused(use: Callable[[Errors], object], errors: Errors, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        use(errors)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, math.nan])
def test_a_confidence_is_a_fraction(confidence: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        crossed_interval(np.ones((2, 3)), confidence)


# Comparisons ---------------------------------------------------------------------------------------------------------


def test_a_comparison_by_hand() -> None:
    # Seeds: means 0.5, 2.5 (variance of the mean 2 / 2) and 0, -1 (0.5 / 2). Samples: d = 1, 3 (2 / 2).
    found = compare(np.exp([[0.0, 1.0], [2.0, 3.0]]), np.exp([[0.0, 0.0], [0.0, -2.0]]))
    assert found.ratio == pytest.approx(math.exp(2), rel=1e-14)
    degrees = 2.25**2 / (1 + 0.25**2 + 1)
    assert found.degrees_of_freedom == pytest.approx(degrees, rel=1e-13)
    assert found.p_value == pytest.approx(2 * scipy.stats.t.sf(2 / 1.5, degrees), rel=1e-10)
    reach = 1.5 * scipy.stats.t.ppf(0.975, degrees)
    assert (found.low, found.high) == pytest.approx((math.exp(2 - reach), math.exp(2 + reach)), rel=1e-10)
    # Of two samples, a quarter of the resamplings holds the first alone, a quarter the second.
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((math.exp(1), math.exp(3)), rel=1e-13)
    assert found.counts_seeds


def test_wilcoxon_by_hand() -> None:
    # Five log ratios of one sign: two of 32 signs are as extreme.
    assert compare(np.exp([[0.1, 0.2, 0.3, 0.4, 0.5]]), np.ones((2, 5))).p_wilcoxon == pytest.approx(2 / 32, rel=1e-13)


def test_with_one_seed_it_is_the_paired_t_test_over_samples() -> None:
    one, other = np.exp(log_errors(np.random.default_rng(6), 2, 1, 30, of_seed=0.1))
    found, expected = compare(one, other), scipy.stats.ttest_rel(np.log(one[0]), np.log(other[0]))
    ends = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-10)
    assert found.degrees_of_freedom == pytest.approx(29, rel=1e-13)
    assert (found.low, found.high) == pytest.approx((math.exp(ends.low), math.exp(ends.high)), rel=1e-10)
    assert not found.counts_seeds
    assert not compare(np.repeat(one, 2, axis=0), other).counts_seeds  # of one of them, nothing is known


def test_the_bootstrap_is_scipys() -> None:
    one, other = np.exp(log_errors(np.random.default_rng(7), 2, 3, 40, of_seed=0.1))
    found = compare(one, other)
    d = np.log(one).mean(axis=0) - np.log(other).mean(axis=0)
    expected = scipy.stats.bootstrap((d,), np.mean, method="percentile", rng=1).confidence_interval
    # A quantile of 9999 resamplings has a standard deviation of 0.03 standard errors; this allows four, of two of them.
    tolerance = 4 * math.sqrt(2) * 0.03 * d.std(ddof=1) / math.sqrt(40)
    assert math.log(found.bootstrap_low) == pytest.approx(expected.low, abs=tolerance)
    assert math.log(found.bootstrap_high) == pytest.approx(expected.high, abs=tolerance)
    assert found == compare(one, other)


def test_the_bootstrap_of_many_samples_draws_in_parts() -> None:
    rng = np.random.default_rng(8)
    d = rng.normal(size=(1, 1000))
    found = compare(np.exp(d), np.ones((1, 1000)))
    width = (math.log(found.bootstrap_high) - math.log(found.bootstrap_low)) / (2 * 1.96)
    assert width == pytest.approx(d.std() / math.sqrt(1000), rel=0.05)


def test_swapping_the_models_inverts_the_ratio() -> None:
    rng = np.random.default_rng(9)
    one, other = np.exp(log_errors(rng, 3, 30, of_seed=0.1)), 1.2 * np.exp(log_errors(rng, 4, 30, of_seed=0.05))
    there, back = compare(one, other), compare(other, one)
    assert back.ratio == pytest.approx(1 / there.ratio, rel=1e-13)
    assert (back.low, back.high) == pytest.approx((1 / there.high, 1 / there.low), rel=1e-13)
    assert (back.p_value, back.p_wilcoxon) == (there.p_value, there.p_wilcoxon)
    assert back.bootstrap_low == pytest.approx(1 / there.bootstrap_high, rel=0.01)
    assert (there.p_value < 0.05) == (not there.low < 1 < there.high)


def test_two_trainings_of_one_model_are_rarely_told_apart_but_by_tests_over_samples_alone_often() -> None:
    # Simulated with 4000 draws: 0.04 with seeds, 0.4 to 0.45 without. Standard deviations here: 0.0044 and 0.029.
    rng = np.random.default_rng(10)
    models = np.exp(log_errors(rng, 2000, 2, 3, 50, of_seed=0.05, of_sample=0.0))
    p_values = np.array([rank(list(pair)).p_values[0] for pair in models])
    assert 0.02 < np.mean(p_values < 0.05) < 0.07
    over_samples = [compare(*pair) for pair in models[:300]]
    assert np.mean([x.p_wilcoxon < 0.05 for x in over_samples]) > 0.3
    assert np.mean([not x.bootstrap_low < 1 < x.bootstrap_high for x in over_samples]) > 0.3


def test_a_model_that_is_a_third_better_is_found_with_three_seeds() -> None:
    rng = np.random.default_rng(11)
    shared = OF_SAMPLE * rng.normal(size=50)
    one, other = log_errors(rng, 2, 400, 3, 50, of_seed=0.05, of_sample=0.0) + shared
    found = [rank([np.exp(a), np.exp(b + math.log(1.5))]) for a, b in zip(one, other, strict=True)]
    assert np.mean([x.p_values[0] < 0.05 for x in found]) > 0.95
    assert np.mean([x.pair(0, 1).ratio for x in found]) == pytest.approx(1 / 1.5, rel=0.02)


def test_a_model_that_diverged_loses() -> None:
    finite, diverged = np.ones((3, 4)), np.ones((3, 4))
    diverged[1, 2] = np.inf
    won, lost, neither = compare(finite, diverged), compare(diverged, finite), compare(diverged, diverged)
    assert (won.ratio, won.p_value, won.p_wilcoxon, won.high) == (0, 0, 0, 0)
    assert (lost.ratio, lost.p_value, lost.p_wilcoxon, lost.low) == (math.inf, 0, 0, math.inf)
    assert math.isnan(neither.ratio)
    assert (neither.p_value, neither.p_wilcoxon) == (1, 1)


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_identical_models_are_equal(n_seeds: int) -> None:
    errors = np.exp(log_errors(np.random.default_rng(12), n_seeds, 20, of_seed=0.1))
    found = compare(errors, errors)
    assert (found.ratio, found.p_value, found.p_wilcoxon) == (1, 1, 1)
    assert (found.bootstrap_low, found.bootstrap_high) == (1, 1)
    assert found.low <= 1 <= found.high


def test_exact_predictions() -> None:
    exact, other = np.zeros((2, 12)), np.exp(log_errors(np.random.default_rng(13), 2, 12, of_seed=0.1))
    assert compare(exact, exact).p_value == 1
    found = compare(exact, other)
    assert found.ratio < 1e-300
    assert found.p_value < 1e-3  # two seeds: hardly more than one degree of freedom
    once = other.copy()
    once[:, 0] = 0
    assert compare(once, other).p_value > 0.05  # one sample doesn't decide, however small its error


def test_one_sample_says_nothing() -> None:
    found = compare(np.array([[1.0], [1.1]]), np.array([[9.0], [9.1]]))
    assert (found.p_value, found.p_wilcoxon, found.low, found.high) == (1, 1, 0, math.inf)
    assert found.ratio == pytest.approx(math.sqrt(1.1 / 9 / 9.1), rel=1e-13)


def test_other_numbers_of_samples_are_refused() -> None:
    with pytest.raises(ValueError, match=r"model 0 has 4 samples and model 1 has 5.*splits\.test"):
        compare(np.ones((2, 4)), np.ones((2, 5)))


def test_the_order_of_the_samples_says_nothing() -> None:
    rng = np.random.default_rng(14)
    models = np.exp(log_errors(rng, 4, 3, 30, of_seed=0.1))
    shuffled = models[..., rng.permutation(30)]
    here, there = interval(models[0]), interval(shuffled[0])
    assert (there.mean, there.low, there.high) == pytest.approx((here.mean, here.low, here.high), rel=1e-12)
    first, second = compare(models[0], models[1]), compare(shuffled[0], shuffled[1])
    for name in ("ratio", "low", "high", "p_value", "p_wilcoxon", "bootstrap_low", "bootstrap_high"):
        assert getattr(second, name) == pytest.approx(getattr(first, name), rel=1e-12)
    assert rank(list(shuffled)).p_values == pytest.approx(rank(list(models)).p_values, rel=1e-12)


# Holm ----------------------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    # 4 * 0.005; 3 * 0.01; 2 * 0.03; 1 * 0.04, raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02], rel=1e-14)
    assert holm([0.5, 0.6, 0.0]).tolist() == [1.0, 1.0, 0.0]
    assert holm([0.02, 0.02]).tolist() == [0.04, 0.04]
    assert holm([]).shape == (0,)
    assert holm(np.full((2, 3), 0.1)) == pytest.approx(np.full((2, 3), 0.6), rel=1e-14)


def test_holm_keeps_the_order_and_what_it_was_given() -> None:
    p = np.random.default_rng(15).uniform(size=40) ** 4
    given = p.copy()
    adjusted = holm(p)
    assert np.array_equal(p, given)
    assert np.all(adjusted >= p)
    assert adjusted.max() == 1
    assert np.all(np.diff(adjusted[np.argsort(p)]) >= 0)
    shuffled = np.random.default_rng(16).permutation(40)
    assert np.array_equal(holm(p[shuffled]), adjusted[shuffled])


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_what_is_no_p_value_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, p])


# Ranks ---------------------------------------------------------------------------------------------------------------


def seven_models(rng: np.random.Generator) -> list[Errors]:
    """Best first: one, two equal ones of other numbers of seeds, two, and two that diverged."""
    sizes, n_seeds = (1.0, 2.0, 2.0, 4.0, 8.0, 0.1, 0.1), (3, 3, 5, 1, 3, 3, 4)
    models = [size * np.exp(log_errors(rng, n, 50, of_seed=0.02)) for size, n in zip(sizes, n_seeds, strict=True)]
    for diverged in models[5:]:
        diverged[0, 0] = np.inf
    return models


def test_ranks_count_the_models_that_are_better() -> None:
    standings = rank(seven_models(np.random.default_rng(17)))
    assert standings.ranks.tolist() == [1, 2, 2, 4, 5, 6, 6]
    assert standings.pair(1, 2).p_value > 0.05
    assert standings.pair(5, 6).p_value == 1
    assert standings.pair(0, 5) == (0, 0)
    assert standings.pair(5, 0) == (math.inf, 0)
    assert np.isinf(standings.log_means).tolist() == [False] * 5 + [True] * 2


def test_a_pair_is_compared_as_it_would_be_alone_with_the_degrees_of_freedom_of_its_seeds() -> None:
    models = seven_models(np.random.default_rng(18))
    standings = rank(models)
    pairs = list(combinations(range(7), 2))
    p_values = []
    for i, j in pairs:
        comparison = compare(models[i], models[j])
        assert standings.pair(i, j).ratio == pytest.approx(comparison.ratio, rel=1e-12, nan_ok=True)
        # Of one seed nothing is known, so it adds none.
        most = len(models[i]) + len(models[j]) - 2
        degrees = comparison.degrees_of_freedom
        t = scipy.stats.t.isf(comparison.p_value / 2, degrees)
        p_values.append(comparison.p_value if math.isnan(degrees) else 2 * scipy.stats.t.sf(t, min(degrees, most)))
    for (i, j), p_value in zip(pairs, holm(p_values), strict=True):
        assert standings.pair(i, j).p_value == standings.pair(j, i).p_value == pytest.approx(p_value, rel=1e-6)
    assert standings.pair(2, 2) == (1, 1)


def test_models_whose_seeds_are_all_the_same_are_ranked_by_their_samples() -> None:
    rng = np.random.default_rng(23)
    one = np.tile(np.exp(rng.normal(size=(1, 50))), (3, 1))
    other = 1.1 * one * np.tile(np.exp(0.1 * rng.normal(size=(1, 50))), (3, 1))
    standings = rank([one, other])
    assert standings.pair(0, 1).p_value == compare(one, other).p_value == compare(one[:1], other[:1]).p_value
    assert standings.ranks.tolist() == [1, 2]


def test_seeds_that_differ_by_rounding_lend_no_degrees_of_freedom() -> None:
    rng = np.random.default_rng(24)
    network = np.exp(log_errors(rng, 3, 50, of_seed=0.05))
    regression = np.tile(3 * np.exp(0.4 * rng.normal(size=(1, 50))), (3, 1))
    rounded = regression * (1 + 1e-6 * rng.normal(size=(3, 1)))
    p_value = rank([network, regression]).pair(0, 1).p_value
    assert rank([network, rounded]).pair(0, 1).p_value == pytest.approx(p_value, rel=1e-3)
    another = regression * (1 + 1e-3 * rng.normal(size=(3, 1)))
    assert rank([network, another]).pair(0, 1).p_value < p_value / 2, "seeds that do differ count"


def test_ranks_do_not_depend_on_the_order_of_the_models() -> None:
    rng = np.random.default_rng(19)
    models = seven_models(rng)
    expected = rank(models)
    for _ in range(5):
        order = rng.permutation(7)
        found = rank([models[i] for i in order])
        assert np.array_equal(found.ranks, expected.ranks[order])
        assert found.pair(0, 1).p_value == expected.pair(order[0], order[1]).p_value


def test_more_models_make_a_difference_harder_to_see() -> None:
    rng = np.random.default_rng(20)
    models = [np.exp(log_errors(rng, 3, 50, of_seed=0.05)) for _ in range(20)]
    models[1] = 1.6 * models[0] * np.exp(0.01 * rng.normal(size=(3, 50)))
    alone = rank(models[:2])
    assert alone.ranks.tolist() == [1, 2]
    assert rank(models).pair(0, 1).p_value > alone.pair(0, 1).p_value
    assert rank(models[:2], alpha=alone.pair(0, 1).p_value / 2).ranks.tolist() == [1, 1]


@pytest.mark.parametrize("n_seeds", [2, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (3, 5))])
def test_any_two_of_several_equal_models_are_rarely_told_apart(n_seeds: int) -> None:
    # Simulated with 800 draws: .000, .000 and .004. The standard deviation of a share of .05 of 100 is .022; without
    # the bound on the degrees of freedom it is .28, .10 and .03, without Holm's method above .5.
    rng = np.random.default_rng(22)
    draws = np.exp(log_errors(rng, 100, 14, n_seeds, 50, of_seed=0.05, of_sample=0.0))
    assert np.mean([rank(list(models)).ranks.max() > 1 for models in draws]) < 0.05


def test_hardly_any_models() -> None:
    none, one = rank([]), rank([np.ones((1, 3))])
    assert (none.ranks.shape, none.p_values.shape) == ((0,), (0,))
    assert (one.ranks.tolist(), one.p_values.shape) == ([1], (0,))
    assert rank([np.full((2, 1), 0.1), np.full((2, 1), 0.9), np.full((2, 1), np.inf)]).ranks.tolist() == [1, 1, 3]


@pytest.mark.parametrize("model", [-1, 2])
def test_a_model_that_is_not_there(model: int) -> None:
    with pytest.raises(IndexError, match=f"no model {model} among 2"):
        rank([np.ones((1, 3)), np.ones((1, 3))]).pair(0, model)


def test_many_models_take_the_memory_of_their_pairs() -> None:
    models = np.exp(log_errors(np.random.default_rng(21), 600, 3, 50, of_seed=0.05))
    tracemalloc.start()
    try:
        standings = rank(list(models))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(standings.p_values) == 600 * 599 // 2
    assert peak < 8 * 8 * len(standings.p_values)  # [model, model, sample] would be 100 numbers a pair
