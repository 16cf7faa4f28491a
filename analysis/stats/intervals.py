"""95 % intervals of means and differences, over seeds alone or over seeds and test images.

Model: seeds and test images are two crossed random factors. A run's metric is

    truth + seed effect + image effect + interaction of seed and images,

and all seeds are tested on the same images. The interval over seeds holds for these test images only. The interval over
seeds and images also holds for other test images of the same kind. Its variance has two parts: that of the seeds
(s^2 / n), and that of the images (the variance of the mean over bootstrap resamples of the images). Its degrees of
freedom are Satterthwaite's. Both parts contain the interaction, so it is counted twice: a large interaction makes the
interval too wide, never too narrow. Resampling both factors at once would count it three times (Owen 2007).

Satterthwaite's formula alone gives too narrow intervals when a spread is small by chance. If most of the variance comes
from the seeds, its coverage is only 92.5 % with 3 seeds and 87 % with 2, and its interval may be narrower than the one
over seeds alone. Therefore the wider of the two intervals is used. Its coverage is 94 to 96 % with 3 or more seeds (95
to 98 % with 2), for every share of seeds and images in the variance.

A percentile bootstrap over seeds is not used: 3 seeds have only 10 different resamples, and the coverage is far below
95 %. The t distribution assumes normally distributed seeds; it is then valid for two seeds or more.

The p-values belong to these intervals: p is below 0.05 if and only if the 95 % interval excludes the value.

Sources: Welch 1947, Biometrika 34; Satterthwaite 1946, Biometrics Bulletin 2; Owen 2007, The pigeonhole bootstrap,
Annals of Applied Statistics 1; Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15 (two one-sided tests).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import nctdtr, stdtr, stdtrit

from analysis.stats.p_values import bartlett_p, correlation_p

LEVEL = 0.95
QUANTILE = (1 + LEVEL) / 2
POWER = 0.8
MAX_SEEDS = 1000
EQUAL_VARIANCES = 0.2  # level of Bartlett's test; docs/judgement.md has the coverage at this and other levels
CORRELATED = 0.05  # one-sided level of the test that pairs are correlated
MIN_CORRELATED_PAIRS = 5
SAME = 1e-9  # relative difference of values that are equal except for rounding


@dataclass(frozen=True)
class Images:
    """The variance of a mean or difference under resampling of the test images.

    variance: of the estimate with the present seeds. shared: the part that more seeds do not reduce. per_seed: the
    interaction, which n seeds reduce to per_seed / n. df: degrees of freedom of the variance.
    """

    variance: float
    shared: float
    per_seed: float
    df: float


@dataclass(frozen=True)
class PooledSpread:
    """The variance between seeds, pooled over ``groups`` methods, with its degrees of freedom."""

    variance: float
    df: int
    groups: int


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference with its 95 % interval and p-values, in the unit of its values.

    spreads: the variance (ddof=1) between seeds: one value for a mean or paired differences, two (method, baseline) for
        a difference of unpaired runs; NaN if unknown. seeds: the number of seeds of each. images: None for an interval
        over seeds. pooled: replaces the two spreads; None if each side has its own.
    """

    value: float
    spreads: tuple[float, ...]
    seeds: tuple[int, ...]
    images: Images | None = None
    pooled: PooledSpread | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high); both NaN if the spread is unknown."""
        half = max(stdtrit(df, QUANTILE) * error for error, df in self._errors())
        return self.value - half, self.value + half

    @property
    def excludes_zero(self) -> bool:
        """False without an interval."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def p_value(self) -> float:
        """The two-sided p-value of the hypothesis that the true value is 0; NaN if the spread is unknown."""
        return 2 * self._tail(abs(self.value))

    def equivalence_p(self, margin: float) -> float:
        """Return the p-value of the hypothesis of a true value outside (-margin, margin), by two one-sided tests.

        It is below 0.05 if and only if the 90 % interval lies within the margin. NaN if the spread is unknown.
        """
        return self._tail(margin - abs(self.value))

    def seeds_for_power(self, difference: float) -> int | None:
        """Return the smallest number of seeds per side that finds a true ``difference`` in 80 % of the cases.

        The spread, the images' variances and the number of pooled methods are assumed to stay the same. None if
        MAX_SEEDS are not enough, or if the spread is unknown.
        """
        n = np.arange(2, MAX_SEEDS + 1)
        power = np.min([_power(difference, error, df) for error, df in self._errors(n)], axis=0)
        return int(n[power >= POWER][0]) if (power >= POWER).any() else None

    def images_suffice(self, difference: float) -> bool:
        """Return whether any number of seeds finds a true ``difference`` in 80 % of the cases on these test images."""
        if self.images is None or self.images.shared == 0:
            return True
        return bool(_power(difference, math.sqrt(self.images.shared), self.images.df) >= POWER)

    def _errors(self, n: np.ndarray | None = None) -> list[tuple]:
        """Return (standard error, degrees of freedom): over seeds, and over seeds and images if these are known.

        n: other numbers of seeds of each side; None for the present ones.
        """
        seeds = self.seeds if n is None else [n] * len(self.seeds)
        if self.pooled:
            df = self.pooled.df if n is None else self.pooled.groups * (n - 1)
            parts = [(sum(self.pooled.variance / count for count in seeds), df)]
        else:
            parts = [(spread / count, count - 1) for spread, count in zip(self.spreads, seeds, strict=True)]
        errors = [_combined(parts)]
        if self.images is not None:
            images = self.images.variance if n is None else self.images.shared + self.images.per_seed / n
            errors.append(_combined([*parts, (images, self.images.df)]))
        return errors

    def _tail(self, distance: float) -> float:
        """Return the one-sided p-value of a deviation by ``distance``: the larger of the two if images are known."""
        with np.errstate(divide="ignore"):  # no spread and no distance: NaN
            return float(max(stdtr(df, -np.float64(distance) / error) for error, df in self._errors()))


def paired_effect(method, baseline) -> Estimate:
    """Return the mean difference method - baseline of paired runs, with a t interval with n - 1 degrees of freedom.

    method, baseline: (n,) with the same seeds in the same order. One seed, or equal differences, give no interval
    (NaN): equal differences of rounded numbers are a coincidence and prove nothing about other seeds.
    Raises ValueError for NaN or infinite values, and for no value.
    """
    method, baseline = _values(method), _values(baseline)
    if len(method) != len(baseline):
        raise ValueError(f"pairs needed, not {len(method)} and {len(baseline)} values")
    scale = max(np.abs(method).max(), np.abs(baseline).max())
    differences = method - baseline
    return Estimate(float(differences.mean()), (_spread(differences, scale),), (len(differences),))


def welch_effect(method, baseline) -> Estimate:
    """Return the difference of the means of unpaired runs, (n,) and (m,) values, with Welch's t interval.

    One seed or equal values on a side give no interval (NaN), as in paired_effect.
    Raises ValueError for NaN or infinite values, and for no value.
    """
    sides = _values(method), _values(baseline)
    return Estimate(
        float(sides[0].mean() - sides[1].mean()),
        tuple(_spread(side, np.abs(side).max()) for side in sides),
        tuple(len(side) for side in sides),
    )


def pooled_effect(method, baseline, others: Sequence = ()) -> Estimate:
    """Return the difference of the means of unpaired runs, with a spread that is pooled over further methods.

    Welch's interval is used instead if Bartlett's test finds different variances, or if a side has one seed or equal
    values. Raises ValueError as ``welch_effect``.

    others: the values of further methods with the same settings. Those with one seed or equal values are left out.
    """
    estimate = welch_effect(method, baseline)
    groups = [values for values in map(_values, (method, baseline, *others)) if has_spread(values)]
    if np.isnan(estimate.spreads).any() or spreads_differ(groups):
        return estimate
    degrees = [len(values) - 1 for values in groups]
    variance = sum(df * values.var(ddof=1) for df, values in zip(degrees, groups, strict=True)) / sum(degrees)
    pooled = PooledSpread(float(variance), sum(degrees), len(groups))
    return Estimate(estimate.value, estimate.spreads, estimate.seeds, pooled=pooled)


def spreads_differ(groups: Iterable) -> bool:
    """Return whether Bartlett's test finds different variances; groups without spread are left out."""
    groups = [values for values in map(_values, groups) if has_spread(values)]
    return len(groups) > 1 and bartlett_p(groups) < EQUAL_VARIANCES


def are_correlated(method, baseline) -> bool:
    """Return whether enough pairs of runs show a correlation above 0. method, baseline: (n,) in the same order."""
    method, baseline = _values(method), _values(baseline)
    if len(method) < MIN_CORRELATED_PAIRS or not (has_spread(method) and has_spread(baseline)):
        return False
    return correlation_p(method, baseline) < CORRELATED


def mean_interval(values, image_replicates=None) -> Estimate:
    """Return the mean of values (n,), with an interval over seeds, or over seeds and images with replicates (n, R).

    One seed or equal values give no interval (NaN), as in paired_effect. Raises ValueError like with_test_images.
    """
    values = _values(values)
    estimate = Estimate(float(values.mean()), (_spread(values, np.abs(values).max()),), (len(values),))
    if image_replicates is None:
        return estimate
    return _with_images(estimate, [_replicates(image_replicates, len(values))])


def with_test_images(effect: Estimate, method_replicates, baseline_replicates) -> Estimate:
    """Return the effect of paired_effect or welch_effect with an interval over seeds and test images.

    method_replicates, baseline_replicates: (n, R) and (m, R) values of the same runs in the same order. Column r of all
    runs is computed on the same resample of the test images, so images are paired even if seeds are not. Only the
    variance of the replicates is used; their mean may be biased, as that of ECE is.
    Raises ValueError for other shapes, fewer than two replicates, and NaN or infinite ones.
    """
    method = _replicates(method_replicates, effect.seeds[0])
    baseline = _replicates(baseline_replicates, effect.seeds[-1])
    if method.shape[1] != baseline.shape[1]:
        raise ValueError(f"the same resamples needed, not {method.shape[1]} and {baseline.shape[1]}")
    return _with_images(effect, [method - baseline] if len(effect.seeds) == 1 else [method, -baseline])


def _values(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"finite values (n,) needed, at least one, not {values}")
    return values


def has_spread(values: np.ndarray) -> bool:
    """Return False for one seed, and for values that are equal except for rounding."""
    return len(values) > 1 and np.ptp(values) > SAME * np.abs(values).max()


def _spread(values: np.ndarray, scale: float) -> float:
    """Return the variance between seeds (ddof=1); NaN for one seed, and for values equal except for rounding."""
    if len(values) < 2 or np.ptp(values) <= SAME * scale:
        return math.nan
    return float(values.var(ddof=1))


def _replicates(replicates, n: int) -> np.ndarray:
    replicates = np.asarray(replicates, dtype=float)
    if replicates.ndim != 2 or len(replicates) != n or replicates.shape[1] < 2:
        raise ValueError(f"replicates ({n}, R) of {n} seeds needed, not {replicates.shape}")
    if not np.isfinite(replicates).all():
        raise ValueError("NaN or infinite replicates have no variance")
    return replicates


def _with_images(estimate: Estimate, sides: list[np.ndarray]) -> Estimate:
    """Return the estimate with the variance of its images.

    sides: the replicates (n, R) of a mean or of paired differences; if unpaired, the method's and minus the baseline's.
    """
    total = sum(side.mean(axis=0) for side in sides)
    variance = float(total.var(ddof=1))
    interactions = [_interaction(side) for side in sides]
    reduced = sum(interaction / len(side) for interaction, side in zip(interactions, sides, strict=True))
    shared = max(variance - reduced, 0.0)  # the difference of two estimates may be negative
    images = Images(variance, shared, float(sum(interactions)), total.size - 1)
    return replace(estimate, images=images)


def _interaction(side: np.ndarray) -> float:
    """Return the interaction of one seed, from the deviations of replicates (n, R) from their mean over seeds.

    0 for one seed: the interaction cannot be separated then.
    """
    if len(side) < 2:
        return 0.0
    deviations = side - side.mean(axis=0)
    return float(deviations.var(axis=1, ddof=1).sum() / (len(side) - 1))


def _combined(parts: list[tuple]) -> tuple:
    """Return (standard error, Satterthwaite's degrees of freedom) of a sum. parts: (variance, degrees of freedom)."""
    variance = sum(part for part, _ in parts)
    with np.errstate(divide="ignore", invalid="ignore"):  # one seed has 0 degrees of freedom: NaN
        df = np.asarray(variance**2) / sum(part**2 / np.asarray(df, dtype=float) for part, df in parts)
    return np.sqrt(variance), df


def _power(difference: float, error: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Return the probability that a two-sided t test finds a true ``difference`` with the right sign."""
    return 1 - nctdtr(df, difference / error, stdtrit(df, QUANTILE))
