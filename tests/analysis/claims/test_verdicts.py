"""Every outcome and reason of a verdict, from made-up runs."""

import math

import numpy as np
import pytest
from builders import make_evaluations, make_pool
from scipy import stats

from analysis.claims import verdicts
from analysis.claims.claims import load_claims
from analysis.claims.comparison import PAIRED, POOLED, WELCH
from analysis.claims.verdicts import CONTRADICTED, EQUIVALENT, HOLDS, NOT_RUN, UNDECIDED, judge
from analysis.stats.intervals import pooled_effect

CLAIMS = {claim.id: claim for claim in load_claims()}
ERROR = CLAIMS["error-cross-entropy"].model_copy(update={"datasets": ("cifar100",), "architectures": ("resnet18",)})
CS_KD, CROSS_ENTROPY = "cifar100/resnet18/cs-kd", "cifar100/resnet18/cross-entropy"
LOWER, LOW, HIGH = {0: 22.1, 1: 21.8, 2: 22.2}, {0: 22.3, 1: 22.9, 2: 21.8}, {0: 24.2, 1: 24.9, 2: 24.4}


def listed(*sides):
    return [list(side.values()) for side in sides]


def of_metric(metric, *sides):
    """Return the sides with their values as another metric's."""
    return [{seed: {metric: value} for seed, value in side.items()} for side in sides]


def verdict(method, against, *, claim=ERROR, settings=None, images=None, interaction=0.0):
    """Return the verdict on ``claim``. images, interaction: spreads of the replicates; None without evaluations."""
    pool = make_pool({CROSS_ENTROPY: against, CS_KD: method}, settings=settings)
    evaluations = {} if images is None else make_evaluations(pool, images, interaction=interaction)
    [found] = judge(pool, (claim,), evaluations)
    return found


def test_claim_holds_if_the_interval_over_seeds_is_on_its_side():
    found = verdict(LOWER, HIGH)
    assert (found.outcome, found.reason) == (HOLDS, verdicts.EXCLUDES_ZERO)
    assert (found.seeds, found.comparison.kind, found.comparison.seeds) == ((3, 3), POOLED, ((0, 1, 2), (0, 1, 2)))
    assert found.comparison.with_images is None
    expected = stats.ttest_ind(*listed(LOWER, HIGH))
    assert found.comparison.effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_value == found.corrected_p == pytest.approx(expected.pvalue)
    assert verdict(HIGH, LOWER).outcome == CONTRADICTED
    recall = ERROR.model_copy(update={"metric": "recall_at_1", "better": "higher"})
    assert verdict(*of_metric("recall_at_1", HIGH, LOWER), claim=recall).outcome == HOLDS


NEAR_LOW = {0: 22.4, 1: 23.1, 2: 22.9}
EQUAL = {0: 22.0, 1: 22.1, 2: 21.9}, {0: 22.1, 1: 21.9, 2: 22.2}
WIDE = {0: 2, 1: 23, 2: 54}, {0: 53, 1: 2, 2: 24}
OTHER_SETTINGS = {CS_KD: {"schedule.epochs": "100", "precision": "fp32"}}
METHOD_SETTINGS = {CS_KD: {"parameters.lambda_cls": "1", "teacher": "0123456789abcdef"}}


@pytest.mark.parametrize(
    ("method", "against", "given", "outcome", "reason"),
    [
        (LOWER, HIGH, {"images": 0.1}, HOLDS, verdicts.EXCLUDES_ZERO),
        (LOWER, HIGH, {"settings": METHOD_SETTINGS}, HOLDS, verdicts.EXCLUDES_ZERO),
        (LOWER, HIGH, {"settings": OTHER_SETTINGS}, UNDECIDED, verdicts.SETTINGS_DIFFER),
        (LOWER, HIGH, {"images": 2}, UNDECIDED, verdicts.SMALL_TEST_SET),
        (LOWER, HIGH, {"images": 0.0, "interaction": 3.0}, UNDECIDED, verdicts.MORE_SEEDS),
        (LOW, NEAR_LOW, {}, UNDECIDED, verdicts.MORE_SEEDS),
        (*WIDE, {}, UNDECIDED, verdicts.TOO_MANY_SEEDS),
        (*EQUAL, {}, EQUIVALENT, verdicts.WITHIN_MARGIN),
        (*EQUAL, {"images": 1.0}, UNDECIDED, verdicts.SMALL_TEST_SET),
        ({0: 22}, HIGH, {}, UNDECIDED, verdicts.ONE_SEED),
        ({0: 22}, {1: 24}, {"images": 0.1}, UNDECIDED, verdicts.ONE_SEED),
        ({0: 22, 1: 22}, {0: 24, 1: 25}, {}, UNDECIDED, verdicts.NO_SPREAD),
        ({0: 22, 1: 22}, {0: 24, 1: 25}, {"images": 0.1}, UNDECIDED, verdicts.NO_SPREAD),
        ({}, HIGH, {}, NOT_RUN, verdicts.NO_RUN),
        ({0: "failed"}, {0: "running"}, {}, NOT_RUN, verdicts.NO_RUN),
        ({0: math.nan}, HIGH, {}, verdicts.NO_VALUE, verdicts.NO_VALUE),
    ],
)
def test_outcome_and_reason(method, against, given, outcome, reason):
    found = verdict(method, against, **given)
    assert (found.outcome, found.reason) == (outcome, reason)
    nothing = (verdicts.SETTINGS_DIFFER, verdicts.NO_RUN, verdicts.NO_VALUE)
    assert (found.comparison is None) == (reason in nothing)


def test_reasons_have_their_details():
    assert verdict(LOWER, HIGH, settings=OTHER_SETTINGS).settings == ("precision", "schedule.epochs")
    missing = [verdict(*sides).missing for sides in (({}, HIGH), (LOWER, {}), ({0: "failed"}, {}))]
    assert missing == ["method", "against", "both"]
    needed = verdict(LOW, NEAR_LOW).seeds_for_power
    assert needed == pooled_effect(*listed(LOW, NEAR_LOW)).seeds_for_power(1.0) > 3
    without_margin = ERROR.model_copy(update={"metric": "brier"})
    found = verdict(*of_metric("brier", LOW, HIGH | {0: 21.0}), claim=without_margin)
    assert (found.reason, found.seeds_for_power) == (verdicts.MORE_SEEDS, None)


def test_interval_over_test_images_decides_if_it_is_known():
    small = verdict(LOWER, HIGH, images=2).comparison
    assert small.effect.excludes_zero
    low, high = small.with_images.interval
    assert low < small.effect.interval[0] < small.effect.interval[1] < 0 < high


def test_spread_is_pooled_over_the_methods_with_the_same_settings():
    mixup, kd = {0: 30.1, 1: 30.4, 2: 29.6}, {0: 31.0, 1: 31.5, 2: 30.9}
    cells = {CROSS_ENTROPY: HIGH, CS_KD: LOWER, "cifar100/resnet18/mixup": mixup, "cifar100/resnet18/kd": kd}
    [found] = judge(make_pool(cells), (ERROR,), {})
    assert found.comparison.effect == pooled_effect(*listed(LOWER, HIGH), listed(mixup, kd))
    assert found.comparison.effect.pooled.df == 8
    [found] = judge(make_pool(cells, settings={"cifar100/resnet18/kd": {"width": "32"}}), (ERROR,), {})
    assert found.comparison.effect.pooled.df == 6


def test_runs_are_paired_only_if_the_seed_draws_images_and_pairs_are_correlated():
    method = {seed: 22.0 + seed for seed in range(5)}
    against = {seed: value + 0.5 + 0.01 * seed**2 for seed, value in method.items()}
    draws = {cell: {"subset.draw": "seed"} for cell in (CS_KD, CROSS_ENTROPY)}
    found = verdict(method, against, settings=draws)
    assert (found.comparison.kind, found.outcome) == (PAIRED, HOLDS)
    expected = stats.ttest_rel(*listed(method, against)).confidence_interval(0.95)
    assert found.comparison.effect.interval == pytest.approx(tuple(expected))
    assert verdict(method, against).comparison.kind == POOLED
    assert verdict(method, dict(enumerate(reversed(against.values()))), settings=draws).comparison.kind == POOLED


def test_different_spreads_are_compared_by_welchs_interval():
    wide = {2: 24.4, 3: 21.2, 4: 29.9}
    found = verdict(LOWER, wide, images=0.1)
    assert (found.comparison.kind, found.comparison.seeds) == (WELCH, ((0, 1, 2), (2, 3, 4)))
    expected = stats.ttest_ind(*listed(LOWER, wide), equal_var=False).confidence_interval(0.95)
    assert found.comparison.effect.interval == pytest.approx(tuple(expected))
    assert found.comparison.with_images is not None


BETTER, WORSE = ([22.0, 22.2, 22.1], [25.0, 25.2, 25.1]), ([25.0, 25.2, 25.1], [22.0, 22.2, 22.1])
NEAR = ([22.0, 23.9, 22.8], [22.1, 24.1, 23.0])


@pytest.mark.parametrize(
    ("error", "nll", "ece", "outcomes"),
    [
        (BETTER, BETTER, BETTER, [HOLDS, HOLDS, HOLDS]),
        (BETTER, NEAR, BETTER, [HOLDS, UNDECIDED, UNDECIDED]),
        (NEAR, BETTER, WORSE, [UNDECIDED, UNDECIDED, CONTRADICTED]),
    ],
)
def test_primary_claims_hold_in_their_order_only(error, nll, ece, outcomes):
    values = {"top1_error": error, "nll": nll, "ece": ece}
    cells = {
        name: {seed: {metric: both[side][seed] for metric, both in values.items()} for seed in range(3)}
        for side, name in enumerate((CS_KD, CROSS_ENTROPY))
    }
    order = {"ece": 3, "top1_error": 1, "nll": 2}
    primary = [ERROR.model_copy(update={"id": name, "metric": name, "primary": n}) for name, n in order.items()]
    found = {one.claim.metric: one for one in judge(make_pool(cells), tuple(primary), {})}
    assert [found[metric].outcome for metric in values] == outcomes
    assert (found["ece"].reason == verdicts.EARLIER_CLAIM) == (outcomes[2] == UNDECIDED)


def test_p_values_of_all_judged_claims_are_corrected():
    marginal = {0: 23.0, 1: 23.7, 2: 23.9}
    methods = [f"cifar100/resnet18/{name}" for name in ("mixup", "label-smoothing", "max-entropy")]
    claims = [
        ERROR.model_copy(update={"id": name, "against": name.split("/")[2], "primary": None})
        for name in (CROSS_ENTROPY, *methods)
    ]
    cells = {CS_KD: LOW, CROSS_ENTROPY: marginal}
    [alone] = judge(make_pool(cells), claims[:1], {})
    assert 0.025 < alone.p_value < 0.05
    assert alone.outcome == HOLDS
    far = {name: {seed: value + 20 for seed, value in marginal.items()} for name in methods}
    first, *rest = judge(make_pool(cells | far), claims, {})
    assert {one.outcome for one in rest} == {HOLDS}
    assert first.p_value == first.corrected_p  # Holm: the largest p-value is not increased
    first, *_ = judge(make_pool(cells | dict.fromkeys(methods, marginal)), claims, {})
    assert first.corrected_p == pytest.approx(4 * first.p_value)
    assert (first.outcome, first.reason) == (UNDECIDED, verdicts.CORRECTION)


def test_invalid_values_are_left_out_with_a_note():
    found = verdict({**LOWER, 3: math.nan}, {**HIGH, 3: math.inf, 4: {"ece": 3.0}})
    assert found.comparison.effect == verdict(LOWER, HIGH).comparison.effect
    assert found.left_out == (
        f"{CS_KD}/seed3: top1_error is missing or NaN: left out.",
        f"{CROSS_ENTROPY}/seed3: top1_error is infinite: left out.",
        f"{CROSS_ENTROPY}/seed4: top1_error is missing or NaN: left out.",
    )


def test_one_run_without_evaluation_leaves_the_interval_over_seeds():
    pool = make_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER})
    evaluations = make_evaluations(pool, 2)
    assert judge(pool, (ERROR,), evaluations)[0].outcome == UNDECIDED
    del evaluations[f"{CROSS_ENTROPY}:1"]
    [found] = judge(pool, (ERROR,), evaluations)
    assert (found.outcome, found.comparison.with_images) == (HOLDS, None)


def test_feature_spread_is_read_from_the_evaluations():
    pool, claim = make_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER}), CLAIMS["feature-spread"]
    [found] = judge(pool, (claim,), make_evaluations(pool, 2))
    assert found.outcome == HOLDS
    method, against = map(np.mean, listed(LOWER, HIGH))
    assert found.comparison.effect.value == pytest.approx((method - against) / 100)
    [found] = judge(pool, (claim,), {})
    assert (found.outcome, found.reason, found.missing) == (verdicts.NO_VALUE, verdicts.NO_VALUE, "both")
    message = f"{CS_KD}/seed0 has no feature_spread, since its predictions are not evaluated: left out."
    assert message in found.left_out
