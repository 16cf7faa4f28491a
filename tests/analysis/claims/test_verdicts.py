"""Every verdict that there is, from made-up runs; and its tables, byte by byte."""

import dataclasses
import io
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import make_evaluations as made_up_evaluations
from golden import compare
from made_up_pool import made_up_pool
from rich.console import Console
from scipy import stats

from analysis.claims.claims import load_claims
from analysis.claims.verdicts import judge
from analysis.tables.format import show, to_csv, to_latex, to_markdown
from analysis.tables.verdicts import summary_frame, summary_table, verdict_frame, verdict_table

GOLDEN = Path(__file__).parent / "golden" / "verdicts"
CLAIMS = {claim.id: claim for claim in load_claims()}
ERROR = dataclasses.replace(CLAIMS["error-cross-entropy"], datasets=("cifar100",), architectures=("resnet18",))
CS_KD, CROSS_ENTROPY = "cifar100/resnet18/cs-kd", "cifar100/resnet18/cross-entropy"
LOWER, LOW, HIGH = {0: 22.1, 1: 21.8, 2: 22.2}, {0: 22.3, 1: 22.9, 2: 21.8}, {0: 24.2, 1: 24.9, 2: 24.4}


def verdict(method, against, *, claim=ERROR, settings=None, images=None, own=0.0):
    pool = made_up_pool({CROSS_ENTROPY: against, CS_KD: method}, settings=settings)
    evaluations = {} if images is None else made_up_evaluations(pool, images, own=own)
    [found] = judge(pool, (claim,), evaluations)
    return found


def test_a_claim_holds_where_the_interval_over_seeds_lies_on_its_side():
    found = verdict(LOWER, HIGH)
    assert (found.outcome, found.reason) == ("holds", "Excludes 0 over seeds.")
    assert (found.seeds, found.how, found.with_images) == ((3, 3), "paired on seeds 0, 1, 2", None)
    expected = stats.ttest_rel(list(LOWER.values()), list(HIGH.values())).confidence_interval(0.95)
    assert found.effect.interval == pytest.approx(tuple(expected))


def test_a_claim_is_contradicted_where_the_interval_lies_on_the_other_side():
    assert verdict(HIGH, LOWER).outcome == "contradicted"


def test_higher_is_better_where_the_claim_says_so():
    recall = dataclasses.replace(ERROR, metric="recall_at_1", better="higher")
    method, against = ({seed: {"recall_at_1": value} for seed, value in side.items()} for side in (HIGH, LOWER))
    assert verdict(method, against, claim=recall).outcome == "holds"
    assert verdict(against, method, claim=recall).outcome == "contradicted"


def test_test_images_have_their_say():
    """The same seeds hold on a large test set and decide nothing on a small one, however many of them there were."""
    large, small = verdict(LOWER, HIGH, images=0.1), verdict(LOWER, HIGH, images=2)
    assert (large.outcome, large.reason) == ("holds", "Excludes 0 over seeds and test images.")
    assert (small.outcome, small.reason) == (
        "undecided",
        "More seeds would not decide: the test set is too small.",
    )
    assert small.effect.excludes_zero
    low, high = small.with_images.interval
    assert low < small.effect.interval[0] < small.effect.interval[1] < 0 < high


def test_more_seeds_help_where_each_makes_something_else_of_the_images():
    found = verdict(LOWER, HIGH, images=0.0, own=3.0)
    assert found.outcome == "undecided"
    assert found.reason.endswith("seeds of each would decide.")


def test_undecided_says_how_many_seeds_would_decide():
    found = verdict(LOW, {0: 22.4, 1: 23.1, 2: 22.9})
    differences = np.array([-0.1, -0.2, -1.1])

    def half(n):
        return stats.t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n)

    needed = next(n for n in range(2, 1000) if half(n) < abs(differences.mean()))
    assert (found.outcome, found.reason) == ("undecided", f"{needed} seeds of each would decide.")


def test_an_effect_that_is_nearly_none_is_not_promised_a_decision():
    assert verdict({0: 22, 1: 23, 2: 24.001}, {0: 23, 1: 22, 2: 24}).reason == "More than 1,000 seeds would be needed."


@pytest.mark.parametrize(
    ("method", "against"), [({0: 22}, {0: 24}), ({0: 22}, HIGH), (LOW, {2: 24}), ({0: 22}, {1: 24})]
)
def test_one_seed_decides_nothing(method, against):
    for images in (None, 0.1):
        found = verdict(method, against, images=images)
        assert (found.outcome, found.reason) == ("undecided", "One seed decides nothing.")
        assert math.isfinite(found.effect.value)


def test_equal_differences_prove_nothing():
    found = verdict({0: 22, 1: 23}, {0: 24, 1: 25}, images=0.1)
    assert (found.outcome, found.reason) == ("undecided", "No spread between seeds: equal values prove nothing.")


def test_other_seeds_are_compared_by_their_means():
    found = verdict(LOWER, {2: 24.4, 3: 24.2, 4: 24.9})
    assert found.how == "Welch, seeds 0, 1, 2 against seeds 2, 3, 4"
    expected = stats.ttest_ind(list(LOWER.values()), [24.4, 24.2, 24.9], equal_var=False).confidence_interval(0.95)
    assert found.effect.interval == pytest.approx(tuple(expected))
    assert verdict(LOWER, {2: 24.4, 3: 24.2, 4: 24.9}, images=0.1).with_images is not None


def test_seeds_that_only_one_side_has_are_not_compared():
    found = verdict(LOWER, HIGH | {3: 30.0, 4: 31.0}, images=0.1)
    assert found.how == "paired on seeds 0, 1, 2"
    assert found.seeds == (3, 5)
    assert found.effect == verdict(LOWER, HIGH).effect


def test_broken_values_are_left_out_and_named():
    found = verdict({**LOWER, 3: math.nan}, {**HIGH, 3: math.inf, 4: {"ece": 3.0}})
    assert found.effect == verdict(LOWER, HIGH).effect
    assert found.left_out == (
        f"{CS_KD}/seed3: top1_error is missing or NaN: left out.",
        f"{CROSS_ENTROPY}/seed3: top1_error is infinite: left out.",
        f"{CROSS_ENTROPY}/seed4: top1_error is missing or NaN: left out.",
    )
    alone = verdict({0: math.nan}, HIGH)
    assert (alone.outcome, alone.reason, alone.effect) == ("undecided", "No value of the method.", None)


def test_what_was_not_run_is_said():
    for method, against, whose in (
        ({}, HIGH, "the method"),
        (LOWER, {}, "the other"),
        ({0: "failed"}, {0: "running"}, "either"),
    ):
        found = verdict(method, against)
        assert (found.outcome, found.reason) == ("not run", f"No finished run of {whose}.")


def test_cells_with_other_settings_are_not_compared():
    found = verdict(LOWER, HIGH, settings={CS_KD: {"schedule.epochs": "100", "precision": "fp32"}})
    assert (found.outcome, found.effect) == ("undecided", None)
    assert found.reason == "Settings differ: precision, schedule.epochs."


def test_a_methods_own_parameters_and_teacher_are_no_other_settings():
    own = {"parameters.lambda_cls": "1", "teacher": "0123456789abcdef"}
    assert verdict(LOWER, HIGH, settings={CS_KD: own}).outcome == "holds"


def test_one_run_without_an_evaluation_leaves_the_interval_over_seeds():
    pool = made_up_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER})
    evaluations = made_up_evaluations(pool, 2)
    assert judge(pool, (ERROR,), evaluations)[0].outcome == "undecided"
    del evaluations[f"{CROSS_ENTROPY}:1"]
    [found] = judge(pool, (ERROR,), evaluations)
    assert (found.outcome, found.with_images) == ("holds", None)


def test_a_metric_without_replicates_is_judged_over_seeds():
    pool = made_up_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER})
    [found] = judge(pool, (ERROR,), made_up_evaluations(pool, 2, metric="ece"))
    assert (found.outcome, found.with_images) == ("holds", None)


def test_the_spread_of_features_comes_from_the_evaluations():
    pool = made_up_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER})
    claim = CLAIMS["feature-spread"]
    [found] = judge(pool, (claim,), made_up_evaluations(pool, 2))
    assert found.outcome == "holds"
    assert found.effect.value == pytest.approx(np.mean(list(LOWER.values())) / 100 - np.mean(list(HIGH.values())) / 100)
    [found] = judge(pool, (claim,), {})
    assert (found.outcome, found.reason) == ("undecided", "No value of either.")
    assert f"{CS_KD}/seed0: its predictions are not evaluated: no feature_spread, left out." in found.left_out


def test_figure_4_is_judged_on_the_merged_set():
    names = [f"domain_accuracy_{domain}" for domain in ("cub200", "dogs", "mit67")]
    cells = {
        f"merged/resnet18/{method}": {seed: {name: start + seed / 10 for name in names} for seed in range(3)}
        for method, start in (("cross-entropy", 94.0), ("cs-kd", 97.0))
    }
    cells["merged/resnet18/cs-kd"][2] = {name: 97.5 for name in names}
    found = [each for each in judge(made_up_pool(cells), load_claims(), {}) if each.claim.where == "figure 4"]
    assert [each.outcome for each in found] == ["holds"] * 3 + ["undecided"] * 3  # no errors are tracked here


def test_the_papers_profile_is_judged_on_all_that_the_paper_claims():
    found = judge(made_up_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER}), load_claims(), {})
    cells = [(each.claim.id, each.dataset, each.architecture) for each in found]
    assert len(set(cells)) == len(cells) == sum(len(c.datasets) * len(c.architectures) for c in CLAIMS.values())
    assert ("error-imagenet", "imagenet", "resnext101_32x4d") in cells
    assert [each.outcome for each in found if each.outcome != "not run"] == ["holds"] + ["undecided"] * 4


def test_another_profile_is_judged_on_what_it_has_and_says_that_it_is_not_the_papers():
    cells = {f"cifar100/resnet10/{method}": values for method, values in (("cross-entropy", HIGH), ("cs-kd", LOWER))}
    cells |= {"merged/resnet10/cross-entropy": HIGH, "tinyimagenet/densenet41/cs-kd": LOWER}
    pool = made_up_pool(cells, profile="mini", experiment="table1-mini")
    found = judge(pool, load_claims(), {})
    assert {(each.dataset, each.architecture) for each in found} == {
        ("cifar100", "resnet10"),
        ("tinyimagenet", "densenet41"),
        ("merged", "resnet10"),
    }
    comparisons = [
        (each.claim.metric, each.claim.method, each.claim.against, each.dataset, each.architecture) for each in found
    ]
    assert len(set(comparisons)) == len(comparisons)  # not once more for tables 4 and 5
    assert "tinyimagenet" not in {each.dataset for each in found if each.claim.id == "error-ddgsd"}
    assert {each.claim.where for each in found if each.dataset == "merged"} == {"figure 4"}
    assert found[0].message == "holds (mini)"
    assert all(each.message == f"{each.outcome} (mini)" for each in found)
    assert verdict_table(pool, found).intro[0] == "mini is not the paper's setting: no verdict on the paper itself."
    assert set(verdict_frame(found).setting) == {"mini: not the paper's"}


def test_changed_or_tuned_runs_of_the_papers_profile_are_not_the_papers_setting():
    pool = made_up_pool({CROSS_ENTROPY: HIGH, CS_KD: LOWER}, experiment="table1-tuned")
    [found] = judge(pool, (ERROR,), {})
    assert found.message == "holds (paper-tuned)"


def test_a_dataset_that_the_paper_does_not_know_stands_in_for_the_papers():
    cells = {f"digits/resnet10/{method}": values for method, values in (("cross-entropy", HIGH), ("cs-kd", LOWER))}
    found = judge(made_up_pool(cells, profile="demo", experiment="demo"), load_claims(), {})
    assert {each.dataset for each in found} == {"digits"}
    assert "figure 4" not in {each.claim.where for each in found}
    assert found[0].message == "holds (demo)"


@pytest.fixture(scope="module")
def everything():
    """(pool, verdicts) with every outcome and reason, of a few claims."""
    cells = {
        CROSS_ENTROPY: HIGH,
        CS_KD: LOWER,
        "tinyimagenet/resnet18/cross-entropy": LOWER,
        "tinyimagenet/resnet18/cs-kd": HIGH,
        "cub200/resnet18/cross-entropy": HIGH,
        "cub200/resnet18/cs-kd": {0: 24.1, 1: 24.6, 2: 24.5},
        "dogs/resnet18/cross-entropy": HIGH,
        "dogs/resnet18/cs-kd": {0: 23.0, 1: math.nan, 2: "running"},
        "mit67/resnet18/cross-entropy": HIGH,
        "mit67/resnet18/cs-kd": LOWER,
        "cifar100/densenet121/cross-entropy": HIGH,
        "cifar100/densenet121/cs-kd": {5: 22.0, 6: 22.5, 7: 21.7},
        "cub200/densenet121/cross-entropy": HIGH,
        "cub200/densenet121/cs-kd": LOWER,
        "cifar100/resnet18/adacos": {0: "failed"},
    }
    pool = made_up_pool(cells, settings={"cub200/densenet121/cs-kd": {"schedule.epochs": "100"}})
    evaluations = made_up_evaluations(pool, 0.1)
    for dataset, spread in (("mit67", 2), ("cub200", 0.01)):  # a small test set and a large one
        other = made_up_evaluations(pool, spread)
        evaluations |= {key: value for key, value in other.items() if key.startswith(dataset)}
    claims = tuple(CLAIMS[name] for name in ("error-cross-entropy", "error-adacos", "top5-adacos", "feature-spread"))
    return pool, judge(pool, claims, evaluations)


def drawn(table, width=80) -> str:
    output = io.StringIO()
    show(table, Console(file=output, width=width))
    return output.getvalue()


def test_the_verdicts_are_the_golden_ones(everything):
    """Byte by byte. To make them anew: UPDATE_GOLDEN=1 .venv/bin/python -m pytest tests/analysis/test_verdicts.py"""
    pool, verdicts = everything
    for name, table in (("verdicts", verdict_table(pool, verdicts)), ("summary", summary_table(pool, verdicts))):
        for ending, text in (
            ("csv", to_csv(table.frame)),
            ("md", to_markdown(table)),
            ("tex", to_latex(table)),
            ("txt", drawn(table)),
        ):
            compare(text, GOLDEN / f"{name}.{ending}")


def test_the_golden_verdicts_have_every_outcome(everything):
    assert {each.outcome for each in everything[1]} == {"holds", "contradicted", "undecided", "not run"}


@pytest.mark.parametrize("width", [80, 100, 160])
def test_nothing_is_cut_off_on_a_terminal(everything, width):
    pool, verdicts = everything
    text = drawn(verdict_table(pool, verdicts), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    wide = drawn(verdict_table(pool, verdicts), 1000)
    assert characters(text) == characters(wide)


def characters(text: str) -> Counter:
    """Of what a table says, without its lines."""
    return Counter(text) - Counter({each: text.count(each) for each in " \n─"})


def test_a_summary_counts_what_the_verdicts_say(everything):
    frame = summary_frame(everything[1]).set_index("id")
    row = frame.loc["error-cross-entropy"]
    assert (row.cells, row.holds, row.contradicted, row.undecided, row.not_run) == (10, 2, 1, 4, 3)
    assert row.summary == "Holds on 2 of 10 (1 contradicted, 4 undecided, 3 not run)"
    assert frame.loc["feature-spread"].summary == "Holds on 1 of 1"
