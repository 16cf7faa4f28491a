"""95 % intervals of means and of differences, over seeds alone or over seeds and test images.

Model: seeds and test images are two crossed random factors. A run's metric is

    truth + seed + images + what this seed makes of these images (interaction),

and all seeds are tested on the same images. The interval over seeds is about these test images. The one over seeds and
images is about others like them, too: its variance is the seeds' (s^2 / n) plus the images' (variance of the replicates
of the mean under resampling of the images), with Satterthwaite's degrees of freedom. The interaction stands in both
parts and is counted twice, so that the interval is too wide where it is large, and never too narrow for it. Resampling
both factors at once would count it three times (Owen 2007).

Satterthwaite alone takes a spread that is small by chance for certainty: where seeds make up most of the variance, such
an interval of 3 seeds covers 92.5 %, of 2 seeds 87 %, and may be narrower than the interval over seeds alone. So the
wider of both is taken, which covers 94 to 96 % from 3 seeds on (95 to 98 % of 2) whatever the shares are.

Not a percentile bootstrap over seeds: 3 seeds have only 10 different resamples, and a coverage far below 95 %. The t
distribution supposes instead that seeds spread normally, and then holds from two seeds on.

Sources: Welch 1947, Biometrika 34; Satterthwaite 1946, Biometrics Bulletin 2; Owen 2007, The pigeonhole bootstrap,
Annals of Applied Statistics 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

LEVEL = 0.95
QUANTILE = (1 + LEVEL) / 2
MAX_SEEDS = 1000
SAME = 1e-9  # relative: what differs less has been rounded differently


@dataclass(frozen=True)
class Images:
    """What resampling the test images says of a mean over seeds or of a difference of two.

    variance: of the estimate, with the seeds that there are. shared: the part that more seeds would not lower.
    per_seed: the interaction, the part that n seeds lower to per_seed / n. df: of the variance's own estimate.
    """

    variance: float
    shared: float
    per_seed: float
    df: float


@dataclass(frozen=True)
class Estimate:
    """A mean or a difference with its 95 % interval: in the unit of what it was made from.

    spreads: the variance (ddof=1) of one seed, one for a mean or paired differences, two (method, baseline) by Welch;
    NaN where it is not known. seeds: how many of each. images: None for an interval over seeds alone.
    """

    value: float
    spreads: tuple[float, ...]
    seeds: tuple[int, ...]
    images: Images | None = None

    @property
    def interval(self) -> tuple[float, float]:
        """(low, high), NaN both where the spread is not known."""
        images = None if self.images is None else self.images.variance
        half = float(self.half_width(self.seeds, images))
        return self.value - half, self.value + half

    @property
    def excludes_zero(self) -> bool:
        """Never true without an interval."""
        low, high = self.interval
        return low > 0 or high < 0

    @property
    def images_suffice(self) -> bool:
        """Whether ever more seeds would exclude 0 on a test set of this size."""
        return self.images is None or abs(self.value) > ndtri(QUANTILE) * math.sqrt(self.images.shared)

    def half_width(self, seeds: Sequence, image_variance) -> np.ndarray:
        """What the interval would be either way with so many ``seeds`` (of each spread a number or an array) and this
        variance of the images'.
        """
        parts = [(spread / n, n - 1) for spread, n in zip(self.spreads, seeds, strict=True)]
        half = _half_width(parts)
        if self.images is None:
            return half
        return np.maximum(half, _half_width([*parts, (image_variance, self.images.df)]))


def paired_effect(method, baseline) -> Estimate:
    """The mean difference method - baseline of runs that share their seeds, by a t interval with n - 1 df.

    method, baseline: (n,) by the same seeds in the same order. One seed, or differences that are all equal, give
    no interval (NaN): two differences that agree are a coincidence of rounded numbers, no proof that all would.
    Raises ValueError for NaN or infinite values, and for no value.
    """
    method, baseline = _values(method), _values(baseline)
    if len(method) != len(baseline):
        raise ValueError(f"pairs needed, not {len(method)} and {len(baseline)} values")
    scale = max(np.abs(method).max(), np.abs(baseline).max())
    differences = method - baseline
    return Estimate(float(differences.mean()), (_spread(differences, scale),), (len(differences),))


def welch_effect(method, baseline) -> Estimate:
    """The difference of means of runs with other seeds: (n,) and (m,) values, Welch's t interval.

    A side of one seed, or whose values are all equal, gives no interval (NaN), as for paired_effect.
    Raises ValueError for NaN or infinite values, and for no value.
    """
    sides = _values(method), _values(baseline)
    return Estimate(
        float(sides[0].mean() - sides[1].mean()),
        tuple(_spread(side, np.abs(side).max()) for side in sides),
        tuple(len(side) for side in sides),
    )


def mean_interval(values, image_replicates=None) -> Estimate:
    """The mean of one cell: values (n,) over seeds, and over images with ``image_replicates`` (n, R) of each seed.

    No interval (NaN) for one seed or equal values, as for paired_effect. Raises ValueError as with_test_images.
    """
    values = _values(values)
    estimate = Estimate(float(values.mean()), (_spread(values, np.abs(values).max()),), (len(values),))
    if image_replicates is None:
        return estimate
    return _with_images(estimate, [_replicates(image_replicates, len(values))])


def with_test_images(effect: Estimate, method_replicates, baseline_replicates) -> Estimate:
    """The effect of paired_effect or welch_effect, with an interval over seeds and test images.

    method_replicates, baseline_replicates: (n, R) and (m, R) values of the same runs in the same order, column r of
    all of them on the same resample of the test images: so images are paired, also where seeds are not.
    Only the variance of the replicates is used; their mean may be biased (that of ECE is).
    Raises ValueError for other shapes, fewer than two replicates, NaN or infinite ones.
    """
    method = _replicates(method_replicates, effect.seeds[0])
    baseline = _replicates(baseline_replicates, effect.seeds[-1])
    if method.shape[1] != baseline.shape[1]:
        raise ValueError(f"the same resamples needed, not {method.shape[1]} and {baseline.shape[1]}")
    return _with_images(effect, [method - baseline] if len(effect.seeds) == 1 else [method, -baseline])


def seeds_needed(effect: Estimate, most: int = MAX_SEEDS) -> int | None:
    """The fewest seeds (of each side) with which an effect of this size and spread would exclude 0.

    Nothing else changes: the value, the spreads and the images' parts stay as they are. None where up to ``most``
    seeds are not enough: because the test set is too small (``images_suffice`` is false then), because the effect is,
    or because the spread is not known.
    """
    n = np.arange(2, most + 1)
    images = None if effect.images is None else effect.images.shared + effect.images.per_seed / n
    excluded = abs(effect.value) > effect.half_width([n] * len(effect.spreads), images)
    return int(n[excluded][0]) if excluded.any() else None


def _values(values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"finite values (n,) needed, at least one, not {values}")
    return values


def _spread(values: np.ndarray, scale: float) -> float:
    """The variance of one seed (ddof=1), NaN for one seed and for values equal within rounding of ``scale``."""
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
    """sides: (n, R) replicates, one for each of the estimate's parts, whose means add up to the estimate's.

    The interaction of a side is the variance of its seeds' replicates about their common course: what is left of one
    seed's when the mean of all is taken away, n / (n - 1) of it.
    """
    total = sum(side.mean(axis=0) for side in sides)
    variance = float(total.var(ddof=1))
    interactions = [_interaction(side) for side in sides]
    lowered = sum(interaction / len(side) for interaction, side in zip(interactions, sides, strict=True))
    shared = max(variance - lowered, 0.0)  # an estimate, below 0 by chance
    images = Images(variance, shared, float(sum(interactions)), total.size - 1)
    return Estimate(estimate.value, estimate.spreads, estimate.seeds, images)


def _interaction(side: np.ndarray) -> float:
    """side: (n, R). Of one seed, 0 where there is only one: nothing can be told apart then."""
    if len(side) < 2:
        return 0.0
    rest = side - side.mean(axis=0)
    return float(rest.var(axis=1, ddof=1).sum() / (len(side) - 1))


def _satterthwaite(parts: list[tuple]) -> np.ndarray:
    """(sum v_i)^2 / sum (v_i^2 / df_i): of one part its own df."""
    variance = sum(part for part, _ in parts)
    with np.errstate(divide="ignore", invalid="ignore"):  # one seed has no degree of freedom: NaN
        return np.asarray(variance**2) / sum(part**2 / np.asarray(df, dtype=float) for part, df in parts)


def _half_width(parts: list[tuple]) -> np.ndarray:
    """Of the 95 % interval. parts: (variance, degrees of freedom), scalars or arrays of one shape."""
    return stdtrit(_satterthwaite(parts), QUANTILE) * np.sqrt(sum(part for part, _ in parts))
