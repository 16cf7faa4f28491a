"""Our means beside the paper's."""

import dataclasses
import math

import pytest
from made_up_pool import made_up_pool

from analysis.paper.against_paper import against_paper

CS_KD = "cifar100/resnet18/cs-kd"  # the paper: 21.99 ± 0.13


def compared(values, cell=CS_KD, best=None):
    pool = made_up_pool({cell: values})
    for seed, value in (best or {}).items():
        pool.runs.loc[pool.runs.seed == seed, "best/top1_error"] = value
    return against_paper(pool).set_index("metric").loc["top1_error"]


def test_ours_is_within_two_stds_of_both_or_beyond():
    """std of 22.2, 22.4, 22.6 is 0.2; 2 sqrt(0.2^2 + 0.13^2) = 0.477."""
    row = compared({0: 22.2, 1: 22.4, 2: 22.6})
    assert (row.paper_mean, row.paper_std) == (21.99, 0.13)
    assert (row.last_mean, row.last_std, row.last_n) == (pytest.approx(22.4), pytest.approx(0.2), 3)
    assert row.last_difference == pytest.approx(0.41)
    assert row.last_judgement == "within 2 std"
    assert compared({0: 22.3, 1: 22.5, 2: 22.7}).last_judgement == "beyond 2 std"
    assert compared({0: 21.3, 1: 21.5, 2: 21.7}).last_judgement == "beyond 2 std"


def test_both_epochs_are_compared():
    row = compared({0: 22.3, 1: 22.5, 2: 22.7}, best={0: 21.9, 1: 22.1, 2: 22.3})
    assert (row.last_judgement, row.best_judgement) == ("beyond 2 std", "within 2 std")
    assert row.best_difference == pytest.approx(0.11)


def test_nothing_is_called_reproduced_from_one_seed():
    row = compared({0: 21.99})
    assert row.last_judgement == "one seed: not judged"
    assert math.isnan(row.last_std)


def test_broken_values_are_no_seeds():
    assert compared({0: 21.99, 1: math.nan, 2: "running"}).last_judgement == "one seed: not judged"
    assert compared({0: math.inf}).last_judgement == ""


def test_a_single_run_of_the_paper_is_not_judged():
    row = compared({0: 23.6, 1: 23.7}, cell="imagenet/resnet50/cs-kd")
    assert row.last_judgement == "the paper has no std: not judged"


def test_a_metric_of_the_last_epoch_alone_has_no_best():
    frame = against_paper(made_up_pool({CS_KD: {seed: {"recall_at_1": 71.0 + seed} for seed in range(3)}}))
    row = frame.set_index("metric").loc["recall_at_1"]
    assert row.best_n == 0
    assert (row.last_judgement, row.best_judgement) == ("within 2 std", "")


def test_what_may_not_stand_beside_the_paper_has_no_row():
    values = {0: 22.2, 1: 22.4}
    assert against_paper(made_up_pool({CS_KD: values}, profile="mini", experiment="table1-mini")).empty
    assert against_paper(made_up_pool({"cifar100/resnet18/label-smoothing+cs-kd": values})).empty  # not in the paper
    pool = made_up_pool({CS_KD: values})
    [experiment] = pool.experiments
    runs = experiment.runs.assign(comparable_with_paper=["yes", "no: images too small"])
    other = dataclasses.replace(experiment, runs=runs)
    assert against_paper(dataclasses.replace(pool, experiments=(experiment, other))).empty
    assert list(against_paper(dataclasses.replace(pool, experiments=(experiment, other))).columns)[:3] == [
        "dataset",
        "architecture",
        "method",
    ]
