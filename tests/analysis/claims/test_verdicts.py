"""Every outcome and reason of a verdict, from made-up runs."""

import math

import numpy as np
import pytest
from builders import make_evaluations, make_pool
from scipy import stats

from analysis.claims.claims import load_claims
from analysis.claims.comparison import PAIRED, POOLED, WELCH
from analysis.claims.verdicts import (
    CONTRADICTED,
    CORRECTION,
    EARLIER_CLAIM,
    EQUIVALENT,
    EXCLUDES_ZERO,
    HOLDS,
    MORE_SEEDS,
    NO_RUN,
    NO_SPREAD,
    NO_VALUE,
    NOT_RUN,
    ONE_SEED,
    SETTINGS_DIFFER,
    SMALL_TEST_SET,
    TOO_MANY_SEEDS,
    UNDECIDED,
    WITHIN_MARGIN,
    judge,
)
from analysis.stats.intervals import pooled_effect
from analysis.tables.verdicts import outcome_text, reason_text

CLAIMS = {claim.id: claim for claim in load_claims()}
ERROR = CLAIMS["error-cross-entropy"].model_copy(update={"datasets": ("cifar100",), "architectures": ("resnet18",)})
CS_KD, CROSS_ENTROPY = "cifar100/resnet18/cs-kd", "cifar100/resnet18/cross-entropy"
LOWER, LOW, HIGH = {0: 22.1, 1: 21.8, 2: 22.2}, {0: 22.3, 1: 22.9, 2: 21.8}, {0: 24.2, 1: 24.9, 2: 24.4}


def verdict(method, against, *, claim=ERROR, settings=None, images=None, interaction=0.0):
    """Return the verdict on ``claim``. images, interaction: spreads of the replicates; None without evaluations."""
    pool = make_pool({CROSS_ENTROPY: against, CS_KD: method}, settings=settings)
    evaluations = {} if images is None else make_evaluations(pool, images, interaction=interaction)
    [found] = judge(pool, (claim,), evaluations)
    return found


def test_claim_holds_if_the_interval_over_seeds_is_on_its_side():
    found = verdict(LOWER, HIGH)
    assert (found.outcome, found.reason) == (HOLDS, EXCLUDES_ZERO)
    assert (found.seeds, found.comparison, found.compared) == ((3, 3), POOLED, ((0, 1, 2), (0, 1, 2)))
    assert found.with_images is None
    expected = stats.ttest_ind(list(LOWER.values()), list(HIGH.values()))
    assert found.effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert found.p_value == found.corrected_p == pytest.approx(expected.pvalue)
    assert verdict(HIGH, LOWER).outcome == CONTRADICTED


def test_higher_is_better_if_the_claim_says_so():
    recall = ERROR.model_copy(update={"metric": "recall_at_1", "better": "higher"})
    method, against = ({seed: {"recall_at_1": value} for seed, value in side.items()} for side in (HIGH, LOWER))
    assert verdict(method, against, claim=recall).outcome == HOLDS
    assert verdict(against, method, claim=recall).outcome == CONTRADICTED


def test_small_test_set_leaves_a_claim_undecided():
    large, small = verdict(LOWER, HIGH, images=0.1), verdict(LOWER, HIGH, images=2)
    assert (large.outcome, large.reason) == (HOLDS, EXCLUDES_ZERO)
    assert (small.outcome, small.reason) == (UNDECIDED, SMALL_TEST_SET)
    assert small.effect.excludes_zero
    low, high = small.with_images.interval
    assert low < small.effect.interval[0] < small.effect.interval[1] < 0 < high
    assert verdict(LOWER, HIGH, images=0.0, interaction=3.0).reason == MORE_SEEDS


def test_open_claim_has_the_seeds_that_would_find_the_margin():
    found = verdict(LOW, {0: 22.4, 1: 23.1, 2: 22.9})
    effect = pooled_effect(list(LOW.values()), [22.4, 23.1, 22.9])
    assert (found.outcome, found.reason) == (UNDECIDED, MORE_SEEDS)
    assert found.seeds_for_power == effect.seeds_for_power(1.0) > 3
    assert verdict({0: 2, 1: 23, 2: 54}, {0: 53, 1: 2, 2: 24}).reason == TOO_MANY_SEEDS
    without_margin = ERROR.model_copy(update={"metric": "brier"})
    method, against = ({seed: {"brier": value} for seed, value in side.items()} for side in (LOW, HIGH | {0: 21.0}))
    found = verdict(method, against, claim=without_margin)
    assert (found.reason, found.seeds_for_power) == (MORE_SEEDS, None)


def test_difference_within_the_margin_is_equivalent():
    close = {0: 22.0, 1: 22.1, 2: 21.9}, {0: 22.1, 1: 21.9, 2: 22.2}
    found = verdict(*close)
    assert (found.outcome, found.reason) == (EQUIVALENT, WITHIN_MARGIN)
    assert found.effect.equivalence_p(1.0) < 0.05
    assert verdict(*close, images=1.0).reason == SMALL_TEST_SET


def test_spread_is_pooled_over_the_methods_with_the_same_settings():
    mixup, kd = {0: 30.1, 1: 30.4, 2: 29.6}, {0: 31.0, 1: 31.5, 2: 30.9}
    cells = {CROSS_ENTROPY: HIGH, CS_KD: LOWER, "cifar100/resnet18/mixup": mixup, "cifar100/resnet18/kd": kd}
    others = [list(mixup.values()), list(kd.values())]
    [found] = judge(make_pool(cells), (ERROR,), {})
    assert found.effect == pooled_effect(list(LOWER.values()), list(HIGH.values()), others)
    assert found.effect.pooled.df == 8
    [found] = judge(make_pool(cells, settings={"cifar100/resnet18/kd": {"width": "32"}}), (ERROR,), {})
    assert found.effect.pooled.df == 6


def test_runs_are_paired_only_if_the_seed_draws_images_and_pairs_are_correlated():
    method = {seed: 22.0 + value for seed, value in enumerate((0.0, 1.0, 2.0, 3.0, 4.0))}
    against = {seed: value + 0.5 + 0.01 * seed**2 for seed, value in method.items()}
    draws = {cell: {"subset.draw": "seed"} for cell in (CS_KD, CROSS_ENTROPY)}
    found = verdict(method, against, settings=draws)
    assert (found.comparison, found.outcome) == (PAIRED, HOLDS)
    expected = stats.ttest_rel(list(method.values()), list(against.values()))
    assert found.effect.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert verdict(method, against).comparison == POOLED
    assert verdict(method, dict(enumerate(reversed(against.values()))), settings=draws).comparison == POOLED


def sequence(**values) -> dict[str, object]:
    """Return the verdicts on the three primary claims by metric; values: of cs-kd and cross-entropy by metric."""
    cells = {
        name: {seed: {metric: values[metric][side][seed] for metric in values} for seed in range(3)}
        for side, name in enumerate((CS_KD, CROSS_ENTROPY))
    }
    primary = [
        ERROR.model_copy(update={"id": metric, "metric": metric, "primary": place})
        for place, metric in ((3, "ece"), (1, "top1_error"), (2, "nll"))
    ]
    return {found.claim.metric: found for found in judge(make_pool(cells), tuple(primary), {})}


BETTER, WORSE = ([22.0, 22.2, 22.1], [25.0, 25.2, 25.1]), ([25.0, 25.2, 25.1], [22.0, 22.2, 22.1])
NEAR = ([22.0, 23.9, 22.8], [22.1, 24.1, 23.0])


def test_primary_claims_hold_in_their_order_only():
    found = sequence(top1_error=BETTER, nll=BETTER, ece=BETTER)
    assert {one.outcome for one in found.values()} == {HOLDS}
    found = sequence(top1_error=BETTER, nll=NEAR, ece=BETTER)
    assert [found[metric].outcome for metric in ("top1_error", "nll", "ece")] == [HOLDS, UNDECIDED, UNDECIDED]
    assert found["ece"].reason == EARLIER_CLAIM
    found = sequence(top1_error=NEAR, nll=BETTER, ece=WORSE)
    assert (found["nll"].outcome, found["ece"].outcome) == (UNDECIDED, CONTRADICTED)


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
    others = {name: {seed: value + 20 for seed, value in marginal.items()} for name in methods}
    first, *rest = judge(make_pool(cells | others), claims, {})
    assert {one.outcome for one in rest} == {HOLDS}
    assert first.p_value == first.corrected_p  # Holm: the largest p-value is not increased
    near = {name: marginal for name in methods}
    found = judge(make_pool(cells | near), claims, {})
    assert found[0].corrected_p == pytest.approx(4 * found[0].p_value)
    assert {(one.outcome, one.reason) for one in found} <= {(UNDECIDED, CORRECTION), (HOLDS, EXCLUDES_ZERO)}


@pytest.mark.parametrize(
    ("method", "against", "reason"),
    [
        ({0: 22}, {0: 24}, ONE_SEED),
        ({0: 22}, HIGH, ONE_SEED),
        ({0: 22}, {1: 24}, ONE_SEED),
        ({0: 22, 1: 22}, {0: 24, 1: 25}, NO_SPREAD),
    ],
)
def test_one_seed_or_equal_differences_decide_nothing(method, against, reason):
    for images in (None, 0.1):
        found = verdict(method, against, images=images)
        assert (found.outcome, found.reason) == (UNDECIDED, reason)
        assert math.isfinite(found.effect.value)


def test_different_spreads_are_compared_by_welchs_interval():
    wide = {2: 24.4, 3: 21.2, 4: 29.9}
    found = verdict(LOWER, wide)
    assert (found.comparison, found.compared) == (WELCH, ((0, 1, 2), (2, 3, 4)))
    expected = stats.ttest_ind(list(LOWER.values()), list(wide.values()), equal_var=False).confidence_interval(0.95)
    assert found.effect.interval == pytest.approx(tuple(expected))
    assert verdict(LOWER, wide, images=0.1).with_images is not None


def test_invalid_values_are_left_out_with_a_note():
    found = verdict({**LOWER, 3: math.nan}, {**HIGH, 3: math.inf, 4: {"ece": 3.0}})
    assert found.effect == verdict(LOWER, HIGH).effect
    assert found.left_out == (
        f"{CS_KD}/seed3: top1_error is missing or NaN: left out.",
        f"{CROSS_ENTROPY}/seed3: top1_error is infinite: left out.",
        f"{CROSS_ENTROPY}/seed4: top1_error is missing or NaN: left out.",
    )
    alone = verdict({0: math.nan}, HIGH)
    assert (alone.outcome, alone.reason, alone.missing, alone.effect) == (UNDECIDED, NO_VALUE, "method", None)


@pytest.mark.parametrize(
    ("method", "against", "missing"),
    [({}, HIGH, "method"), (LOWER, {}, "against"), ({0: "failed"}, {0: "running"}, "both")],
)
def test_claim_without_finished_runs_is_not_run(method, against, missing):
    found = verdict(method, against)
    assert (found.outcome, found.reason, found.missing) == (NOT_RUN, NO_RUN, missing)


def test_cells_with_different_settings_are_not_compared():
    found = verdict(LOWER, HIGH, settings={CS_KD: {"schedule.epochs": "100", "precision": "fp32"}})
    assert (found.outcome, found.reason, found.effect) == (UNDECIDED, SETTINGS_DIFFER, None)
    assert found.settings == ("precision", "schedule.epochs")
    of_method = {"parameters.lambda_cls": "1", "teacher": "0123456789abcdef"}
    assert verdict(LOWER, HIGH, settings={CS_KD: of_method}).outcome == HOLDS


def test_one_run_without_evaluation_leaves_the_interval_over_seeds():
    pool = make_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER})
    evaluations = make_evaluations(pool, 2)
    assert judge(pool, (ERROR,), evaluations)[0].outcome == UNDECIDED
    del evaluations[f"{CROSS_ENTROPY}:1"]
    for available in (evaluations, make_evaluations(pool, 2, metric="ece")):
        [found] = judge(pool, (ERROR,), available)
        assert (found.outcome, found.with_images) == (HOLDS, None)


def test_feature_spread_is_read_from_the_evaluations():
    pool = make_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER})
    claim = CLAIMS["feature-spread"]
    [found] = judge(pool, (claim,), make_evaluations(pool, 2))
    assert found.outcome == HOLDS
    assert found.effect.value == pytest.approx(np.mean(list(LOWER.values())) / 100 - np.mean(list(HIGH.values())) / 100)
    [found] = judge(pool, (claim,), {})
    assert (found.outcome, found.reason, found.missing) == (UNDECIDED, NO_VALUE, "both")
    assert f"{CS_KD}/seed0: its predictions are not evaluated: no feature_spread, left out." in found.left_out


def test_outcome_names_a_pool_that_is_not_the_papers_recipe():
    texts = {"holds": {}, "holds (mini)": {"profile": "mini"}, "holds (paper-tuned)": {"tuned": True}}
    for text, arguments in texts.items():
        pool = make_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER}, **arguments)
        found = next(verdict for verdict in judge(pool, (ERROR,), {}) if verdict.outcome == HOLDS)
        assert outcome_text(found.outcome, found.pool) == text


def test_reason_text_has_the_details():
    assert reason_text(EXCLUDES_ZERO, "ece", with_images=True) == "Excludes 0 over seeds and test images."
    assert reason_text(NO_RUN, "ece", missing="against") == "No finished run of the other."
    assert reason_text(SETTINGS_DIFFER, "ece", settings=("a", "b")) == "Settings differ: a, b."
    assert reason_text(WITHIN_MARGIN, "nll") == "No difference larger than 0.06 nats."
    seven = "7 seeds of each would find a difference of 2 points with 80 % power."
    assert reason_text(MORE_SEEDS, "ece", seeds_for_power=7) == seven
    assert reason_text(MORE_SEEDS, "brier") == "More seeds are needed."
