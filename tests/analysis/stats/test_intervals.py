"""Intervals over seeds and test images: against SciPy, at their limits, and their coverage in simulations."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from analysis.stats.intervals import (
    are_correlated,
    mean_interval,
    paired_effect,
    pooled_effect,
    spreads_differ,
    welch_effect,
    with_test_images,
)
from analysis.stats.p_values import bartlett_p, correlation_p

METHOD, BASELINE = np.array([22.1, 21.8, 22.6, 21.9]), np.array([24.0, 24.9, 24.3, 24.4])


def replicates(seed: int, n: int, number: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 2, (n, number))


def test_intervals_and_p_values_over_seeds_are_those_of_scipy():
    baseline = BASELINE - 2  # p-values above the rounding error
    for effect, expected in (
        (paired_effect(METHOD, baseline), stats.ttest_rel(METHOD, baseline)),
        (welch_effect(METHOD, baseline[:3]), stats.ttest_ind(METHOD, baseline[:3], equal_var=False)),
        (pooled_effect(METHOD, baseline), stats.ttest_ind(METHOD, baseline)),
    ):
        assert effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
        assert effect.p_value == pytest.approx(expected.pvalue)
    assert welch_effect(METHOD, baseline[:3]).seeds == (4, 3)
    assert paired_effect(METHOD, BASELINE).value == pytest.approx((METHOD - BASELINE).mean())
    expected = stats.t.interval(0.95, 3, METHOD.mean(), stats.sem(METHOD))
    assert mean_interval(METHOD).interval == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    "effect",
    [
        paired_effect([22.0], [24.0]),
        welch_effect([22.0], [24.0, 24.5]),
        mean_interval([22.0]),
        paired_effect([44.1, 45.3, 0.3], [48.1, 49.3, 4.3]),  # differences of 4, except for rounding
        welch_effect([22.0, 22.5], [24.0, 24.0]),
        mean_interval([0.1 + 0.2, 0.3]),
        with_test_images(paired_effect([1.0, 1.0], [2.0, 2.0]), replicates(1, 2), replicates(2, 2)),
    ],
)
def test_one_seed_or_equal_values_give_no_interval(effect):
    assert math.isfinite(effect.value)
    assert all(map(math.isnan, effect.interval))
    assert not effect.excludes_zero
    assert math.isnan(effect.p_value)
    assert math.isnan(effect.equivalence_p(1.0))
    assert effect.seeds_for_power(1.0) is None


SEEDS_OF_PAIRS = paired_effect(METHOD, BASELINE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: welch_effect([1.0], [math.nan, 1.0]), "finite values"),
        (lambda: paired_effect([1.0, 2.0], [1.0]), "pairs needed, not 2 and 1"),
        (
            lambda: with_test_images(SEEDS_OF_PAIRS, replicates(1, 3), replicates(2, 4)),
            r"replicates \(4, R\) of 4 seeds needed, not \(3, 400\)",
        ),
        (
            lambda: with_test_images(SEEDS_OF_PAIRS, replicates(1, 4), np.full((4, 400), np.nan)),
            "NaN or infinite replicates",
        ),
    ],
)
def test_invalid_values_pairs_and_replicates_are_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("baselines", [3, 4])
def test_variances_of_seeds_and_images_add_up(baselines):
    method, baseline = replicates(1, 3), replicates(2, baselines)
    if baselines == 3:
        seeds = paired_effect(METHOD[:3], BASELINE[:3])
        parts = [((METHOD - BASELINE)[:3].var(ddof=1) / 3, 2)]
    else:
        seeds = welch_effect(METHOD[:3], BASELINE)
        parts = [(METHOD[:3].var(ddof=1) / 3, 2), (BASELINE.var(ddof=1) / 4, 3)]
    effect = with_test_images(seeds, method, baseline)
    shared = 20 * replicates(3, 1)  # images are paired even if seeds are not
    assert with_test_images(seeds, method + shared, baseline + shared).interval == pytest.approx(effect.interval)
    parts.append((np.var(method.mean(axis=0) - baseline.mean(axis=0), ddof=1), 399))
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / free for part, free in parts)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert effect.interval == pytest.approx((seeds.value - half, seeds.value + half))


def test_interaction_is_separated_from_the_shared_variance_of_images():
    random = np.random.default_rng(0)
    shared, interaction = random.normal(0, 2, (1, 20_000)), random.normal(0, 3, (4, 20_000))
    images = mean_interval(METHOD, shared + interaction).images
    assert images.variance == pytest.approx(4 + 9 / 4, rel=0.05)
    assert (images.shared, images.per_seed) == pytest.approx((4, 9), rel=0.05)


def test_spread_is_pooled_over_all_methods_with_equal_variances():
    others = [METHOD + 3, BASELINE[:3] - 1, [7.0], [8.0, 8.0]]  # one seed, and equal values, have no spread
    effect = pooled_effect(METHOD, BASELINE, others)
    groups = [METHOD, BASELINE, *map(np.array, others[:2])]
    variance = sum(group.var(ddof=1) * (len(group) - 1) for group in groups) / 11
    assert (effect.pooled.df, effect.pooled.groups) == (11, 4)
    half = stats.t.ppf(0.975, 11) * math.sqrt(variance * (1 / 4 + 1 / 4))
    assert effect.interval == pytest.approx((effect.value - half, effect.value + half))


def test_different_variances_are_not_pooled():
    method, baseline = METHOD, METHOD + np.array([-9.0, 8.0, 10.0, -9.0])
    assert spreads_differ([method, baseline, [3.0]]) and stats.bartlett(method, baseline).pvalue < 0.2
    assert not spreads_differ([method, method + 1])
    assert pooled_effect(method, baseline) == welch_effect(method, baseline)
    assert pooled_effect([22.0], BASELINE) == welch_effect([22.0], BASELINE)


def test_equivalence_is_two_one_sided_tests():
    effect = welch_effect(METHOD, METHOD[:3] + 0.2)
    tests = [
        stats.ttest_ind(METHOD, METHOD[:3] + 0.2 + shift, equal_var=False, alternative=side).pvalue
        for shift, side in ((-1.0, "greater"), (1.0, "less"))
    ]
    assert effect.equivalence_p(1.0) == pytest.approx(max(tests))
    ninety = stats.ttest_ind(METHOD, METHOD[:3] + 0.2, equal_var=False).confidence_interval(0.9)
    assert effect.equivalence_p(max(map(abs, ninety))) == pytest.approx(0.05)
    assert effect.equivalence_p(1e9) == pytest.approx(0, abs=1e-9)
    assert effect.equivalence_p(0.0) >= 0.5


def test_seeds_for_power_find_the_difference_in_80_percent():
    effect = welch_effect(METHOD, BASELINE)
    n = effect.seeds_for_power(0.6)
    random = np.random.default_rng(0)
    stds = [np.sqrt(spread) for spread in effect.spreads]

    def power(n):
        method, baseline = (random.normal(mean, std, (4000, n)) for mean, std in zip((0.6, 0.0), stds, strict=True))
        return np.mean(stats.ttest_ind(method, baseline, axis=1, equal_var=False).pvalue < 0.05)

    assert power(n - 1) - 0.02 < 0.8 < power(n) + 0.02
    assert effect.seeds_for_power(0.01) is None  # more than a thousand
    pooled = pooled_effect(METHOD, BASELINE, [BASELINE + 1] * 4)
    assert pooled.seeds_for_power(0.6) <= n


def test_p_values_are_those_of_scipy():
    draws = np.random.default_rng(0)
    for sizes in ((2, 2), (3, 5, 5), (10, 4, 7, 3)):
        groups = [draws.normal(20, 0.1 * size, size) for size in sizes]
        assert bartlett_p(groups) == pytest.approx(stats.bartlett(*groups).pvalue, rel=1e-9)
    for size in (5, 6, 20):
        first, second = draws.normal(size=(2, size))
        for other in (second, first + second, first):
            expected = stats.pearsonr(first, other, alternative="greater").pvalue
            assert correlation_p(first, other) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_pairs_are_correlated_from_five_pairs_on():
    method = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert are_correlated(method, 2 * method + [0.1, -0.1, 0.1, 0, 0])
    assert not are_correlated(method[:4], 2 * method[:4])
    assert not are_correlated(method, -method)
    assert not are_correlated(method, [3.0, 1.0, 2.0, 3.0, 2.0])
    assert not are_correlated(method, [3.0] * 5)


def test_test_images_never_narrow_an_interval():
    seeds = paired_effect([2.6, 3.7, 4.8], [0.0, 0.0, 0.0])
    images = np.random.default_rng(0).normal(0, 0.6, (1, 4000)).repeat(3, axis=0)
    both = with_test_images(seeds, images, np.zeros((3, 4000)))
    parts = [(1.21 / 3, 2), (images[0].var(ddof=1), 3999)]
    df = sum(part for part, _ in parts) ** 2 / sum(part**2 / free for part, free in parts)
    # Satterthwaite's interval alone would be narrower
    assert 3.7 - stats.t.ppf(0.975, df) * math.sqrt(sum(part for part, _ in parts)) > seeds.interval[0]
    assert both.interval == pytest.approx(seeds.interval)


def test_more_seeds_do_not_help_on_a_small_test_set():
    seeds = paired_effect([1.0, 2.0, 1.5], [0.0, 0.0, 0.0])
    zero = np.zeros((3, 400))
    shared = with_test_images(seeds, replicates(1, 1).repeat(3, axis=0), zero)
    interaction = with_test_images(seeds, replicates(2, 3), zero)
    assert not shared.images_suffice(1.0)
    assert shared.seeds_for_power(1.0) is None
    assert shared.images_suffice(100.0)
    assert interaction.images_suffice(1.0)
    assert 3 < interaction.seeds_for_power(1.0) < 1000


# Coverage: the tolerance is half of 5 %; 2,000 simulations have a Monte Carlo error (std) of 0.5 %, 500 of 1 %.
SIMULATIONS = 2000
SEEDS = [3, 10]


def coverage(estimates, truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in (estimate.interval for estimate in estimates)]))


@pytest.mark.parametrize("n", SEEDS)
def test_intervals_over_seeds_cover_95_percent(n):
    random = np.random.default_rng(n)
    shared = random.normal(50, 1, (SIMULATIONS, 1, n))
    method, baseline = np.moveaxis(shared + random.normal([[[0.7], [0]]], 0.5, (SIMULATIONS, 2, n)), 1, 0)
    assert 0.93 <= coverage(map(paired_effect, method, baseline), 0.7) <= 0.97
    method, baseline = random.normal(50.7, 0.6, (SIMULATIONS, n)), random.normal(50, 1, (SIMULATIONS, n + 2))
    assert 0.93 <= coverage(map(welch_effect, method, baseline), 0.7) <= 0.97


@pytest.mark.parametrize(("others", "lowest", "highest"), [(1.0, 0.93, 0.97), (0.5, 0.87, 0.97), (2.0, 0.93, 1.0)])
def test_pooled_intervals_cover_95_percent_and_lose_little_if_spreads_differ(others, lowest, highest):
    random = np.random.default_rng(0)
    std = np.array([1, 1, others, others, others, others])[:, None]
    values = random.normal(0, std, (SIMULATIONS // 4, 6, 3))
    assert lowest <= coverage((pooled_effect(row[0], row[1], row[2:]) for row in values), 0.0) <= highest


class Simulated:
    """Errors in percent of n seeds of two methods on the same test images, from a probit model.

    An image is misclassified if a normal score is positive: the sum of a level and of effects of the image, of the
    method on the image, of the seed, and of the run on the image (interaction). The true error, over all seeds and
    images, is known in closed form.
    """

    IMAGES, RESAMPLES, BATCH = 300, 150, 50
    LEVEL = np.array([-0.6, -0.2])  # of method and baseline
    IMAGE, METHOD_ON_IMAGE = 1.0, 0.5

    def __init__(self, n: int, seed: float, interaction: float = 0.0, simulations: int = 1000):
        self.n, self.seed, self.interaction = n, seed, interaction
        self.random = np.random.default_rng(n)
        even = np.full(self.IMAGES, 1 / self.IMAGES)
        self.weights = self.random.multinomial(self.IMAGES, even, size=self.RESAMPLES).T / self.IMAGES
        spread = math.sqrt(self.IMAGE**2 + self.METHOD_ON_IMAGE**2 + seed**2 + interaction**2)
        self.error = 100 * ndtr(self.LEVEL / spread)
        self.effect = self.error[0] - self.error[1]
        self.draws = [draw for _ in range(simulations // self.BATCH) for draw in self._draws()]

    def _draws(self):
        """((2, n) errors, (2, n, R) replicates) of each of several simulations."""
        draw = self.random.standard_normal
        score = self.LEVEL[:, None, None] + self.IMAGE * draw((self.BATCH, 1, 1, self.IMAGES))
        score = score + self.METHOD_ON_IMAGE * draw((self.BATCH, 2, 1, self.IMAGES))
        score = score + self.seed * draw((self.BATCH, 2, self.n, 1))
        if self.interaction:
            score += self.interaction * draw(score.shape)
        wrong = 100.0 * (score > 0)
        return zip(wrong.mean(axis=3), wrong @ self.weights, strict=True)

    def coverage(self, estimate, truth: float) -> float:
        return coverage((estimate(values, resampled) for values, resampled in self.draws), truth)


def paired_with_images(values, resampled):
    return with_test_images(paired_effect(*values), *resampled)


@pytest.mark.parametrize("spread", [0.1, 0.25], ids=["similar seeds", "different seeds"])
@pytest.mark.parametrize("n", SEEDS)
def test_intervals_over_seeds_and_images_cover_95_percent(n, spread):
    simulated = Simulated(n, spread)
    assert 0.925 <= simulated.coverage(paired_with_images, simulated.effect) <= 0.975
    welch = simulated.coverage(lambda values, drawn: with_test_images(welch_effect(*values), *drawn), simulated.effect)
    assert 0.925 <= welch <= 0.975
    mean = simulated.coverage(lambda values, drawn: mean_interval(values[0], drawn[0]), simulated.error[0])
    assert 0.925 <= mean <= 0.975


def test_interaction_makes_intervals_wider_not_narrower():
    simulated = Simulated(3, seed=0.1, interaction=1.0, simulations=500)
    assert simulated.coverage(paired_with_images, simulated.effect) >= 0.93
    mean = simulated.coverage(lambda values, drawn: mean_interval(values[0], drawn[0]), simulated.error[0])
    assert mean >= 0.93
