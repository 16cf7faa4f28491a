"""Intervals over seeds and test images: against SciPy, at their limits, and what they cover in simulations."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from analysis.stats.intervals import mean_interval, paired_effect, seeds_needed, welch_effect, with_test_images

METHOD, BASELINE = np.array([22.1, 21.8, 22.6, 21.9]), np.array([24.0, 24.9, 24.3, 24.4])


def test_paired_differences_have_the_t_interval_of_scipy():
    effect = paired_effect(METHOD, BASELINE)
    expected = stats.ttest_rel(METHOD, BASELINE)
    assert effect.value == pytest.approx((METHOD - BASELINE).mean())
    assert effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_unpaired_means_have_welchs_interval_of_scipy():
    effect = welch_effect(METHOD, BASELINE[:3])
    expected = stats.ttest_ind(METHOD, BASELINE[:3], equal_var=False)
    assert effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert effect.seeds == (4, 3)


def test_a_mean_has_the_t_interval_of_scipy():
    low, high = stats.t.interval(0.95, 3, METHOD.mean(), stats.sem(METHOD))
    assert mean_interval(METHOD).interval == pytest.approx((low, high))


@pytest.mark.parametrize(
    "effect",
    [
        paired_effect([22.0], [24.0]),
        welch_effect([22.0], [24.0, 24.5]),
        welch_effect([22.0, 22.5], [24.0]),
        mean_interval([22.0]),
    ],
)
def test_one_seed_has_a_value_and_no_interval(effect):
    assert math.isfinite(effect.value)
    assert all(map(math.isnan, effect.interval))
    assert not effect.excludes_zero
    assert seeds_needed(effect) is None


@pytest.mark.parametrize(
    "effect",
    [
        paired_effect([22.0, 22.0], [24.0, 24.0]),
        paired_effect([44.1, 45.3, 0.3], [48.1, 49.3, 4.3]),  # 4 but for rounding
        welch_effect([22.0, 22.0], [24.0, 24.5]),
        welch_effect([22.0, 22.5], [24.0, 24.0]),
        mean_interval([0.1 + 0.2, 0.3]),
    ],
)
def test_equal_values_are_not_taken_for_certainty(effect):
    assert all(map(math.isnan, effect.interval))
    assert not effect.excludes_zero


def test_a_small_spread_is_one():
    assert paired_effect([22.0, 22.01], [24.0, 24.0]).excludes_zero


@pytest.mark.parametrize("broken", [[], [math.nan, 1.0], [math.inf, 1.0], [[1.0, 2.0]]])
def test_what_has_no_mean_is_refused(broken):
    for function in (lambda: paired_effect(broken, broken), lambda: welch_effect([1.0], broken)):
        with pytest.raises(ValueError, match="finite values"):
            function()


def test_pairs_need_as_many_values_on_both_sides():
    with pytest.raises(ValueError, match="pairs needed, not 2 and 1"):
        paired_effect([1.0, 2.0], [1.0])


def replicates(seed: int, n: int, number: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).normal(50, 2, (n, number))


@pytest.mark.parametrize("baselines", [3, 4])
def test_with_test_images_the_variances_add_up(baselines):
    """By the formula, written out: seeds' variances and that of the replicates of the effect, and Satterthwaite."""
    method, baseline = replicates(1, 3), replicates(2, baselines)
    if baselines == 3:
        seeds = paired_effect(METHOD[:3], BASELINE[:3])
        parts = [((METHOD - BASELINE)[:3].var(ddof=1) / 3, 2)]
    else:
        seeds = welch_effect(METHOD[:3], BASELINE)
        parts = [(METHOD[:3].var(ddof=1) / 3, 2), (BASELINE.var(ddof=1) / 4, 3)]
    effect = with_test_images(seeds, method, baseline)
    of_effect = [np.mean(method[:, r]) - np.mean(baseline[:, r]) for r in range(400)]
    parts.append((np.var(of_effect, ddof=1), 399))
    variance = sum(part for part, _ in parts)
    df = variance**2 / sum(part**2 / free for part, free in parts)
    half = stats.t.ppf(0.975, df) * math.sqrt(variance)
    assert effect.value == seeds.value
    assert effect.interval == pytest.approx((seeds.value - half, seeds.value + half))


def test_images_are_paired_where_seeds_are_not():
    """What is the same for all runs on a resample says nothing of the effect."""
    seeds = welch_effect(METHOD[:3], BASELINE)
    method, baseline, hard = replicates(1, 3), replicates(2, 4), 20 * replicates(3, 1)
    without = with_test_images(seeds, method, baseline)
    with_hard = with_test_images(seeds, method + hard, baseline + hard)
    assert with_hard.interval == pytest.approx(without.interval)


def test_images_that_change_nothing_leave_the_interval_over_seeds():
    seeds = paired_effect(METHOD, BASELINE)
    assert with_test_images(seeds, np.ones((4, 9)), np.zeros((4, 9))).interval == pytest.approx(seeds.interval)


def test_equal_seeds_stay_unknown_with_test_images():
    effect = with_test_images(paired_effect([1.0, 1.0], [2.0, 2.0]), replicates(1, 2), replicates(2, 2))
    assert all(map(math.isnan, effect.interval))


def test_replicates_of_other_runs_or_resamples_are_refused():
    seeds = paired_effect(METHOD, BASELINE)
    with pytest.raises(ValueError, match=r"replicates \(4, R\) of 4 seeds needed, not \(3, 400\)"):
        with_test_images(seeds, replicates(1, 3), replicates(2, 4))
    with pytest.raises(ValueError, match="the same resamples needed, not 400 and 300"):
        with_test_images(seeds, replicates(1, 4), replicates(2, 4, 300))
    with pytest.raises(ValueError, match="NaN or infinite replicates"):
        with_test_images(seeds, replicates(1, 4), np.full((4, 400), np.nan))


def test_the_parts_of_the_images_variance_are_told_apart():
    """Replicates of a known common course (variance 4) and interaction (variance 9 of one seed)."""
    random = np.random.default_rng(0)
    common, own = random.normal(0, 2, (1, 20_000)), random.normal(0, 3, (4, 20_000))
    images = mean_interval(METHOD, common + own).images
    assert images.variance == pytest.approx(4 + 9 / 4, rel=0.05)
    assert images.shared == pytest.approx(4, rel=0.05)
    assert images.per_seed == pytest.approx(9, rel=0.05)
    assert images.variance == pytest.approx(images.shared + images.per_seed / 4)


def test_seeds_needed_are_the_fewest_that_exclude_zero():
    """Against more and more seeds of exactly this mean and spread, made by hand."""

    def of(n):
        spread = np.linspace(-1, 1, n)
        return paired_effect(1 + 2 * spread / spread.std(ddof=1), np.zeros(n))

    needed = seeds_needed(of(3))
    assert needed == next(n for n in range(2, 1001) if of(n).excludes_zero)
    assert 15 < needed < 21  # (1.96 * 2 / 1)^2 = 15.4, and t is wider
    assert seeds_needed(of(3), most=needed - 1) is None


def test_test_images_never_narrow_an_interval():
    """They bring degrees of freedom, and with them Satterthwaite's t alone would be narrower here."""
    seeds = paired_effect([2.6, 3.7, 4.8], [0.0, 0.0, 0.0])
    images = np.random.default_rng(0).normal(0, 0.6, (1, 4000)).repeat(3, axis=0)
    both = with_test_images(seeds, images, np.zeros((3, 4000)))
    parts = [(1.21 / 3, 2), (images[0].var(ddof=1), 3999)]
    df = sum(part for part, _ in parts) ** 2 / sum(part**2 / free for part, free in parts)
    assert 3.7 - stats.t.ppf(0.975, df) * math.sqrt(sum(part for part, _ in parts)) > seeds.interval[0]
    assert both.interval == pytest.approx(seeds.interval)


def test_more_seeds_do_not_help_where_the_test_set_is_too_small():
    seeds = paired_effect([1.0, 2.0, 1.5], [0.0, 0.0, 0.0])
    common, own = replicates(1, 1).repeat(3, axis=0), replicates(2, 3)
    zero = np.zeros((3, 400))
    too_small, lowered = with_test_images(seeds, common, zero), with_test_images(seeds, own, zero)
    assert not too_small.images_suffice
    assert seeds_needed(too_small) is None
    assert lowered.images_suffice  # images of which each seed makes something else: more seeds help
    assert lowered.excludes_zero is False
    assert 3 < seeds_needed(lowered) < 1000


# Coverage. Half of 5 % is the tolerance; 4,000 simulations have a Monte-Carlo error (std) of 0.34 %.
SIMULATIONS = 4000
SEEDS = [3, 5, 10]


def covered(estimates, truth: float) -> float:
    return float(np.mean([low <= truth <= high for low, high in (each.interval for each in estimates)]))


@pytest.mark.parametrize("n", SEEDS)
def test_paired_intervals_cover_95_percent(n):
    random = np.random.default_rng(n)
    seeds = random.normal(50, 1, (SIMULATIONS, 1, n))  # shared by both
    method, baseline = np.moveaxis(seeds + random.normal([[[0.7], [0]]], 0.5, (SIMULATIONS, 2, n)), 1, 0)
    assert 0.93 <= covered(map(paired_effect, method, baseline), 0.7) <= 0.97


@pytest.mark.parametrize("n", SEEDS)
def test_welchs_intervals_cover_95_percent(n):
    random = np.random.default_rng(n)
    method, baseline = random.normal(50.7, 0.6, (SIMULATIONS, n)), random.normal(50, 1, (SIMULATIONS, n + 2))
    assert 0.93 <= covered(map(welch_effect, method, baseline), 0.7) <= 0.97


class Simulated:
    """Errors in percent of n seeds of two methods on the same test images, from a probit model, image by image.

    An image is answered wrongly where a normal score is positive: the sum of a level, of the image's, of the method's
    on the image, of the seed's, and of the rest, which is of one run and one image alone: the interaction. The truth,
    over all seeds and images, is known in closed form.
    """

    IMAGES, RESAMPLES, AT_ONCE = 300, 150, 50
    LEVEL = np.array([-0.6, -0.2])  # of method and baseline
    IMAGE, METHOD_ON_IMAGE = 1.0, 0.5

    def __init__(self, n: int, seed: float, rest: float = 0.0, simulations: int = 2000):
        self.n, self.seed, self.rest = n, seed, rest
        self.random = np.random.default_rng(n)
        even = np.full(self.IMAGES, 1 / self.IMAGES)
        # the same for all runs and simulations, as those of one test set are
        self.weights = self.random.multinomial(self.IMAGES, even, size=self.RESAMPLES).T / self.IMAGES
        spread = math.sqrt(self.IMAGE**2 + self.METHOD_ON_IMAGE**2 + seed**2 + rest**2)
        self.error = 100 * ndtr(self.LEVEL / spread)
        self.effect = self.error[0] - self.error[1]
        self.draws = [draw for _ in range(simulations // self.AT_ONCE) for draw in self._draws()]

    def _draws(self):
        """((2, n) errors, (2, n, R) replicates) of each of several simulations."""
        draw, several = self.random.standard_normal, self.AT_ONCE
        score = self.LEVEL[:, None, None] + self.IMAGE * draw((several, 1, 1, self.IMAGES))
        score = score + self.METHOD_ON_IMAGE * draw((several, 2, 1, self.IMAGES))
        score = score + self.seed * draw((several, 2, self.n, 1))
        if self.rest:
            score += self.rest * draw(score.shape)
        wrong = 100.0 * (score > 0)
        return zip(wrong.mean(axis=3), wrong @ self.weights, strict=True)

    def covered(self, effect, truth: float) -> float:
        return covered((effect(values, replicates) for values, replicates in self.draws), truth)


def paired_with_images(values, resampled):
    return with_test_images(paired_effect(*values), *resampled)


def welch_with_images(values, resampled):
    return with_test_images(welch_effect(*values), *resampled)


def mean_with_images(values, resampled):
    return mean_interval(values[0], resampled[0])


@pytest.mark.parametrize("spread", [0.1, 0.25], ids=["seeds alike", "seeds apart"])
@pytest.mark.parametrize("n", SEEDS)
def test_intervals_over_seeds_and_images_cover_95_percent_without_interaction(n, spread):
    simulated = Simulated(n, spread)
    assert 0.93 <= simulated.covered(paired_with_images, simulated.effect) <= 0.97
    assert 0.93 <= simulated.covered(welch_with_images, simulated.effect) <= 0.97
    assert 0.93 <= simulated.covered(mean_with_images, simulated.error[0]) <= 0.97


@pytest.mark.parametrize("n", SEEDS)
def test_intervals_over_seeds_and_images_are_wide_where_interaction_counts_twice(n):
    """Runs that differ by what each makes of each image, as networks do: conservative, 96 to 98 %."""
    simulated = Simulated(n, seed=0.1, rest=1.0, simulations=1000)
    assert simulated.covered(paired_with_images, simulated.effect) >= 0.93
    assert simulated.covered(mean_with_images, simulated.error[0]) >= 0.93


def test_intervals_over_seeds_alone_do_not_cover_the_truth_of_other_test_images():
    simulated = Simulated(10, seed=0.1)
    assert simulated.covered(lambda values, _: paired_effect(*values), simulated.effect) < 0.8
