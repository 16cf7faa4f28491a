"""Our means beside the paper's."""

import dataclasses
import math

import numpy as np
import pytest
from builders import make_pool
from scipy.stats import ttest_ind_from_stats

from analysis.paper.against_paper import against_paper
from analysis.tables.paper import against_paper_table
from cskd.utils.numbers import mean_std_text

CS_KD = "cifar100/resnet18/cs-kd"  # the paper: 21.99 ± 0.13


def compared(values, cell=CS_KD, best=None):
    pool = make_pool({cell: values})
    for seed, value in (best or {}).items():
        pool.runs.loc[pool.runs.seed == seed, "best/top1_error"] = value
    return against_paper(pool).set_index("metric").loc["top1_error"]


@pytest.mark.parametrize(("first", "judgement"), [(22.1, "agrees"), (22.2, "differs"), (21.39, "agrees")])
def test_means_are_compared_by_welchs_interval(first, judgement):
    values = [first, first + 0.2, first + 0.4]
    row = compared(dict(enumerate(values)))
    assert (row.paper_mean, row.paper_std) == (21.99, 0.13)
    assert (row.last_mean, row.last_std, row.last_n) == (pytest.approx(first + 0.2), pytest.approx(0.2), 3)
    assert row.last_difference == pytest.approx(first + 0.2 - 21.99)
    test = ttest_ind_from_stats(np.mean(values), 0.2, 3, 21.99, 0.13, 3, equal_var=False)
    assert row.last_judgement == ("differs" if test.pvalue < 0.05 else "agrees") == judgement


def test_one_run_is_compared_with_the_prediction_interval():
    """21.99 ± 0.13 of three seeds predicts one more run in 21.344 to 22.636, with t(2) = 4.303."""
    judged = {value: compared({0: value}).last_judgement for value in (21.33, 21.35, 22.63, 22.65)}
    assert judged == {21.33: "differs", 21.35: "agrees", 22.63: "agrees", 22.65: "differs"}


def test_both_epochs_are_compared():
    row = compared({0: 22.5, 1: 22.7, 2: 22.9}, best={0: 21.9, 1: 22.1, 2: 22.3})
    assert (row.last_judgement, row.best_judgement) == ("differs", "agrees")
    assert row.best_difference == pytest.approx(0.11)


def test_nothing_is_judged_without_a_value_and_a_published_std():
    assert compared({0: math.inf, 1: math.nan, 2: "running"}).last_judgement == ""
    without_std = compared({0: 23.6, 1: 23.7}, "imagenet/resnet50/cs-kd")
    assert without_std.last_judgement == "the paper has no std: not judged"


def test_metric_of_the_last_epoch_has_no_best_epoch():
    pool = make_pool({CS_KD: {seed: {"recall_at_1": 71.0 + seed} for seed in range(3)}})
    [texts] = [row for row in against_paper_table(pool).blocks[0].groups[0] if row[3] == "R@1 (%)"]
    assert texts[4:] == (mean_std_text(71.15, 0.15, 2), mean_std_text(72, 1, 2, n=3), "agrees", "\N{EN DASH}", "")


def test_incomparable_cells_have_no_row():
    values = {0: 22.2, 1: 22.4}
    assert against_paper(make_pool({CS_KD: values}, profile="mini")).empty
    assert against_paper(make_pool({"cifar100/resnet18/label-smoothing+cs-kd": values})).empty  # not in the paper
    pool = make_pool({CS_KD: values})
    [experiment] = pool.experiments
    runs = experiment.runs.assign(comparable=[True, False], comparable_reason=["", "images too small"])
    other = dataclasses.replace(experiment, runs=runs)
    assert against_paper(dataclasses.replace(pool, experiments=(experiment, other))).empty
