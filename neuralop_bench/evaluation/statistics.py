"""How certain a mean error is, which of two models is better, and the ranks that follow: seeds and test samples
crossed.

All seeds of a model, and all models of a task, are measured on the same test samples. An error then has a part that
depends on its seed, one that depends on its sample, and a rest:

    log e(s, n) = m + a(s) + b(n) + c(s, n)

Another training draws a new a, another test set a new b. A statement about a model, rather than about these trainings
and these samples, counts both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import ArrayLike, NDArray

Errors = NDArray[np.float64]

# The level of every test and interval of a comparison.
SIGNIFICANCE = 0.05

# Seeds whose log errors differ by less differ only by rounding: predictions are float32.
_ROUNDING = 1e-5

_RESAMPLINGS = 9999
# Numbers drawn at once by the bootstrap: 16 MB.
_DRAWN_AT_ONCE = 2**21


@dataclass(frozen=True)
class Interval:
    """A mean error, and the range of the mean over all seeds and all samples of the same distribution.

    mean: over the given seeds and samples, arithmetic, in the unit of the errors.
    low, high: ends of the interval, in the same unit.
    standard_error: of the logarithm of the mean: 0.1 is about ten per cent.
    degrees_of_freedom: of Student's t, by Satterthwaite's formula; at least the smaller of n_seeds - 1 and
        n_samples - 1, n_samples - 1 if seeds make no difference.
    n_seeds, n_samples: that were measured.
    """

    mean: float
    low: float
    high: float
    standard_error: float
    degrees_of_freedom: float
    n_seeds: int
    n_samples: int

    @property
    def counts_seeds(self) -> bool:
        """Whether the interval covers another training. That of a single seed covers other samples only."""
        return self.n_seeds > 1


@dataclass(frozen=True)
class ModelComparison:
    """How the errors of two models compare on the same samples.

    ratio: geometric mean over samples of the ratio of their errors, itself the geometric mean over seeds; below 1 where
        the first model is better. 0 or infinite if one of the two diverged, NaN if both did.
    low, high: 95 % interval of the ratio, with seeds and samples crossed.
    p_value: that the ratio is 1, two-sided, with seeds and samples crossed. Decisions use this one.
    degrees_of_freedom: of both, by Satterthwaite's formula; NaN if a model diverged.
    p_wilcoxon: that the log ratios of the samples lie around 0, by Wilcoxon's signed ranks: for these trainings only.
    bootstrap_low, bootstrap_high: 95 % percentile interval of the ratio from 9999 resamplings of the samples: for these
        trainings only. Swapping the models inverts it up to the noise of resampling, and everything else exactly.
    counts_seeds: whether both models have several seeds. Otherwise p_value doesn't count other trainings of the model
        with one seed, and is too small unless that model is deterministic.
    """

    ratio: float
    low: float
    high: float
    p_value: float
    degrees_of_freedom: float
    p_wilcoxon: float
    bootstrap_low: float
    bootstrap_high: float
    counts_seeds: bool


class Pair(NamedTuple):
    """How two models of a standing compare.

    ratio: of their errors, as in ``ModelComparison``.
    p_value: that it is 1, with the bounded degrees of freedom of ``rank``, adjusted for the number of pairs.
    """

    ratio: float
    p_value: float


@dataclass(frozen=True, eq=False)
class Standings:
    """Models of one task, all compared with each other.

    ranks: 1 + the number of models that are significantly better, [model].
    log_means: mean over seeds and samples of the log error, infinite for a model that diverged, [model].
    p_values: of all pairs (0, 1), (0, 2), ... (1, 2), ..., adjusted by Holm's method, [model * (model - 1) / 2].
    """

    ranks: NDArray[np.int64]
    log_means: NDArray[np.float64]
    p_values: NDArray[np.float64]

    def pair(self, one: int, other: int) -> Pair:
        """Two models by their places, from 0.

        Raises:
            IndexError: there is no such model.
        """
        n = len(self.ranks)
        for model in (one, other):
            if not 0 <= model < n:
                raise IndexError(f"There is no model {model} among {n}. Count from 0.")
        ratio = _exp(float(self.log_means[one]) - float(self.log_means[other]))
        if one == other:
            return Pair(ratio, 1.0)
        i, j = min(one, other), max(one, other)
        return Pair(ratio, float(self.p_values[_n_before(i, n) + j - i - 1]))


def crossed_interval(errors: Errors, confidence: float = 0.95) -> Interval | None:
    """Mean of errors of several seeds on the same samples, and its interval, with seeds and samples crossed.

        se^2 = var_s(mean_n x) / S + var_n(mean_s x) / N,    x(s, n) = e(s, n) / mean,
        low, high = mean exp(-+ t se)

    with variances of ddof 1 and the quantile t of Student's distribution with Satterthwaite's degrees of freedom. se is
    the standard error of log(mean) to first order, and the mean is the arithmetic one that boards print. Identical
    seeds, as a deterministic model has them, leave the interval of the samples. The part of c(s, n) is counted twice,
    which makes the interval too wide, rather than too narrow, by c^2 / (S N).

    Args:
        errors: at least 0, [seed, sample]; infinite where a prediction diverged.
        confidence: the interval's, between 0 and 1.

    Returns:
        None if there is no interval: an error is infinite, or there are fewer than two samples. If all errors are 0,
        so are the ends.

    Raises:
        ValueError: not [seed, sample], no errors, a negative or a missing one, or a confidence outside (0, 1).

    References: Satterthwaite (1946), Biometrics Bulletin 2, 110; Owen (2007), Annals of Applied Statistics 1, 386.

    >>> interval = crossed_interval(np.array([[0.1, 0.2, 0.3, 0.2], [0.2, 0.3, 0.4, 0.3]]))
    >>> f"{interval.mean:.3f} from {interval.low:.3f} to {interval.high:.3f}"
    '0.250 from 0.097 to 0.643'
    """
    errors = _checked(errors)
    if not 0 < confidence < 1:
        raise ValueError(f"A confidence lies between 0 and 1, got {confidence}. Set it to 0.95 for 95 %.")
    n_seeds, n_samples = errors.shape
    largest = float(errors.max())
    if not math.isfinite(largest) or n_samples < 2:
        return None
    if largest == 0:
        return Interval(0.0, 0.0, 0.0, 0.0, float(n_samples - 1), n_seeds, n_samples)
    scaled = errors / largest  # a sum of huge errors would overflow
    mean = float(scaled.mean())
    relative = scaled / mean
    parts = [_variance_of_mean(relative.mean(axis=1)), _variance_of_mean(relative.mean(axis=0))]
    variance, degrees = _satterthwaite(np.array(parts), np.array([n_seeds - 1, n_samples - 1]))
    se = math.sqrt(variance)
    reach = float(scipy.special.stdtrit(degrees, (1 + confidence) / 2)) * se
    mean *= largest
    return Interval(mean, mean * _exp(-reach), mean * _exp(reach), se, float(degrees), n_seeds, n_samples)


def compare(one: Errors, other: Errors) -> ModelComparison:
    """Two models by the ratio of their errors on the same samples.

        d(n) = mean_s log e_1(s, n) - mean_s log e_2(s, n),    ratio = exp(mean_n d)
        se^2 = var_s(mean_n log e_1) / S_1 + var_s(mean_n log e_2) / S_2 + var_n(d) / N

    with variances of ddof 1; mean_n d / se is compared with Student's distribution with Satterthwaite's degrees of
    freedom. With one seed on both sides this is the paired t test. Errors of 0 count as the smallest normal float64.

    An infinite error loses against a model that has none, with p 0. Two models that have some are equal, with p 1.
    One sample decides nothing: p is 1, and the intervals are unbounded.

    Args:
        one, other: errors at least 0, [seed, sample], on the same samples in the same order; numbers of seeds may
            differ.

    Raises:
        ValueError: different numbers of samples, not [seed, sample], no errors, a negative or a missing one.

    Reference: Wilcoxon (1945), Biometrics Bulletin 1, 80.

    >>> comparison = compare(np.array([[0.1, 0.2, 0.3]]), np.array([[0.2, 0.5, 0.5]]))
    >>> f"{comparison.ratio:.2f}, p = {comparison.p_value:.3f}, counts_seeds = {comparison.counts_seeds}"
    '0.49, p = 0.026, counts_seeds = False'
    """
    from scipy.stats import wilcoxon  # takes half a second to import, and a board of one model compares nothing

    models = _Models.of([one, other])
    difference, variance, degrees, p_value = (float(x[0]) for x in _against_later(models, 0))
    counts_seeds = bool(np.all(models.n_seeds > 1))
    n_samples = models.logs.shape[1]
    if models.diverged.any():
        ratio = _exp(difference)
        return ModelComparison(ratio, ratio, ratio, p_value, math.nan, p_value, ratio, ratio, counts_seeds)
    if n_samples < 2:
        return ModelComparison(_exp(difference), 0.0, math.inf, 1.0, math.nan, 1.0, 0.0, math.inf, counts_seeds)
    reach = float(scipy.special.stdtrit(degrees, 1 - SIGNIFICANCE / 2)) * math.sqrt(variance)
    per_sample = models.logs[0] - models.logs[1]
    resampled = np.quantile(_resampled_means(per_sample), [SIGNIFICANCE / 2, 1 - SIGNIFICANCE / 2])
    # Signed ranks of differences that are all 0 are undefined.
    signed_ranks: Any = wilcoxon(per_sample) if per_sample.any() else None
    return ModelComparison(
        ratio=_exp(difference),
        low=_exp(difference - reach),
        high=_exp(difference + reach),
        p_value=p_value,
        degrees_of_freedom=degrees,
        p_wilcoxon=1.0 if signed_ranks is None else float(signed_ranks.pvalue),
        bootstrap_low=_exp(float(resampled[0])),
        bootstrap_high=_exp(float(resampled[1])),
        counts_seeds=counts_seeds,
    )


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for their number: rejecting all below alpha makes a single error with probability alpha at
    most, if the given ones are exact.

    The i-th smallest of m is multiplied by m - i + 1, raised to the largest before it, and bounded by 1.

    Returns:
        In the shape and order of the given ones.

    Raises:
        ValueError: one isn't between 0 and 1.

    Reference: Holm (1979), Scandinavian Journal of Statistics 6, 65.

    >>> holm([0.01, 0.04, 0.03])
    array([0.03, 0.06, 0.06])
    """
    given = np.asarray(p_values, dtype=np.float64)
    p = given.ravel()
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # false for NaN, too
        raise ValueError("p-values lie between 0 and 1, got others or NaN. Leave out pairs that weren't compared.")
    order = np.argsort(p)
    rising = p[order]
    rising *= np.arange(p.size, 0, -1)
    np.maximum.accumulate(rising, out=rising)
    np.minimum(rising, 1.0, out=rising)
    adjusted = np.empty_like(p)
    adjusted[order] = rising
    return adjusted.reshape(given.shape)


def rank(errors: Sequence[Errors], alpha: float = SIGNIFICANCE) -> Standings:
    """Models of one task by the number of models that are significantly better.

    Every pair is compared as by ``compare``, but with no more degrees of freedom than its seeds have, S_1 + S_2 - 2:
    far in the tail, which many pairs need, Satterthwaite's formula gives too many. The p-values are adjusted by
    ``holm`` for the number of pairs. A model whose seeds differ only by rounding has no seeds to count here. Models
    that can't be told apart share a rank: two such models that are both better than a third have the ranks 1, 1, 3.

    Among 14 equal models any two are told apart in at most 3 % of cases (simulated with 2 to 5 seeds). Without that
    bound it would be up to 41 %.

    Args:
        errors: of every model, at least 0, [seed, sample], all on the same samples in the same order.
        alpha: an adjusted p-value below it is significant.

    Raises:
        ValueError: different numbers of samples, not [seed, sample], no errors, a negative or a missing one.

    >>> rng = np.random.default_rng(0)
    >>> rank([size * rng.lognormal(sigma=0.1, size=(3, 20)) for size in (2.0, 1.0, 2.0, 4.0)]).ranks
    array([2, 1, 2, 4])
    """
    n = len(errors)
    if n == 0:
        return Standings(np.empty(0, np.int64), np.empty(0), np.empty(0))
    models = _Models.of(errors)
    p_values = np.empty(_n_before(n, n))
    for i in range(n - 1):
        p_values[_n_before(i, n) : _n_before(i + 1, n)] = _against_later(models, i, bounded=True).p_value
    p_values = holm(p_values)
    log_means = np.where(models.diverged, np.inf, models.logs.mean(axis=1))
    ranks = np.ones(n, np.int64)
    for i in range(n - 1):
        told_apart = p_values[_n_before(i, n) : _n_before(i + 1, n)] < alpha
        ranks[i] += np.count_nonzero(told_apart & (log_means[i + 1 :] < log_means[i]))
        ranks[i + 1 :] += told_apart & (log_means[i] < log_means[i + 1 :])
    return Standings(ranks, log_means, p_values)


class _Models(NamedTuple):
    """What a comparison needs from every model.

    logs: mean over seeds of the log errors, 0 for a model that diverged, [model, sample].
    seed_variance: of the mean over seeds and samples, the part of the seeds; 0 for one seed and for seeds that differ
        only by rounding, [model].
    n_seeds: [model].
    diverged: whether a prediction wasn't finite, [model].
    """

    logs: NDArray[np.float64]
    seed_variance: NDArray[np.float64]
    n_seeds: NDArray[np.int64]
    diverged: NDArray[np.bool_]

    @classmethod
    def of(cls, errors: Sequence[Errors]) -> _Models:
        checked = [_checked(model) for model in errors]
        n_samples = checked[0].shape[1]
        logs = np.zeros((len(checked), n_samples))
        seed_variance, diverged = np.zeros(len(checked)), np.zeros(len(checked), np.bool_)
        for i, model in enumerate(checked):
            if model.shape[1] != n_samples:
                raise ValueError(
                    f"Models are compared sample by sample, but model 0 has {n_samples} samples and model {i} has "
                    f"{model.shape[1]}. Evaluate both on the same test set (splits.test)."
                )
            if np.isinf(model).any():
                diverged[i] = True
                continue
            per_seed = np.log(np.maximum(model, np.finfo(np.float64).tiny))
            logs[i] = per_seed.mean(axis=0)
            of_seeds = per_seed.mean(axis=1)
            is_same = float(np.ptp(of_seeds)) < _ROUNDING
            seed_variance[i] = 0.0 if is_same else _variance_of_mean(of_seeds)
        return cls(logs, seed_variance, np.array([len(model) for model in checked]), diverged)


class _Tests(NamedTuple):
    """One model against several, [model].

    difference: of the mean log errors, infinite where one of the two diverged, NaN where both did.
    variance, degrees_of_freedom: of the difference.
    p_value: two-sided.
    """

    difference: NDArray[np.float64]
    variance: NDArray[np.float64]
    degrees_of_freedom: NDArray[np.float64]
    p_value: NDArray[np.float64]


def _against_later(models: _Models, i: int, *, bounded: bool = False) -> _Tests:
    """Model i against all later ones. All pairs at once would take [model, model, sample] numbers.

    ``bounded``: no more degrees of freedom than the seeds have, counting models whose seeds differ.
    """
    later = slice(i + 1, None)
    # From the differences themselves: for nearly equal models, their variance is much smaller than that of each model.
    per_sample = models.logs[i] - models.logs[later]
    difference = per_sample.mean(axis=1)
    sample_variance = _variance_of_mean(per_sample)
    n_seeds = models.n_seeds[later]
    variance, degrees = _satterthwaite(
        np.stack([np.full_like(difference, models.seed_variance[i]), models.seed_variance[later], sample_variance]),
        np.stack(np.broadcast_arrays(models.n_seeds[i] - 1, n_seeds - 1, models.logs.shape[1] - 1)),
    )
    if bounded:
        of_seeds = np.where(models.seed_variance > 0, models.n_seeds - 1, 0)
        most = of_seeds[i] + of_seeds[later]
        degrees = np.where(most > 0, np.minimum(degrees, np.maximum(most, 1)), degrees)
    unlike = np.where(difference == 0, 0.0, np.inf)  # without variance, any difference is certain
    t = np.divide(np.abs(difference), np.sqrt(variance), out=unlike, where=variance > 0)
    p_value = 2 * scipy.special.stdtr(degrees, -t)
    if models.logs.shape[1] < 2:
        p_value = np.ones_like(p_value)
    own, others = models.diverged[i], models.diverged[later]
    # A model without an infinite error beats one that has some; of two that have some, neither wins.
    difference = np.where(own == others, np.where(own, np.nan, difference), np.where(own, np.inf, -np.inf))
    p_value = np.where(own == others, np.where(own, 1.0, p_value), 0.0)
    return _Tests(difference, variance, degrees, p_value)


def _resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of as many values drawn with replacement, [resampling]. Equal values give equal draws."""
    # Sorted, so that the draws don't depend on the order of the samples.
    values = np.sort(values)
    rng = np.random.default_rng(0)
    at_once = max(1, _DRAWN_AT_ONCE // len(values))
    sizes = [min(at_once, _RESAMPLINGS - start) for start in range(0, _RESAMPLINGS, at_once)]
    return np.concatenate([values[rng.integers(len(values), size=(n, len(values)))].mean(axis=1) for n in sizes])


def _variance_of_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of the mean along the last axis, from the spread of the values; 0 for a single value."""
    n = values.shape[-1]
    if n < 2:
        return np.zeros(values.shape[:-1])
    return np.var(values, axis=-1, ddof=1) / n


def _satterthwaite(
    parts: NDArray[np.float64], degrees_of_freedom: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of independent estimates of variance, and its degrees of freedom: 1 / sum (share^2 / degrees of freedom).

    Args:
        parts: [part, ...].
        degrees_of_freedom: of each part, [part, ...]; ignored where a part is 0. If all parts are 0, the sum has those
            of the last.
    """
    total = parts.sum(axis=0)
    shares = np.divide(parts, total, out=np.zeros_like(parts), where=total > 0)
    shares[-1] = np.where(total > 0, shares[-1], 1.0)
    return total, 1 / np.sum(shares**2 / np.maximum(degrees_of_freedom, 1), axis=0)


def _checked(errors: Errors) -> Errors:
    errors = np.asarray(errors, dtype=np.float64)
    if errors.ndim != 2 or errors.size == 0:
        raise ValueError(
            f"Errors of a model are an array [seed, sample] with at least one of each, got shape {errors.shape}. "
            "A single seed is errors[np.newaxis]."
        )
    if not errors.min() >= 0:  # false for NaN, too
        raise ValueError(
            "Errors are 0 or larger, got a negative one or NaN. A prediction that diverged has an infinite error, and "
            "a sample that wasn't measured is left out for all models."
        )
    return errors


def _n_before(i: int, n: int) -> int:
    """Number of pairs of n models whose first is before the i-th; of all for i = n.

    >>> [_n_before(i, 4) for i in range(5)]
    [0, 3, 5, 6, 6]
    """
    return i * (2 * n - i - 1) // 2


def _exp(x: float) -> float:
    """Infinite where it overflows."""
    with np.errstate(over="ignore", under="ignore"):
        return float(np.exp(x))
