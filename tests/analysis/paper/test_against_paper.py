"""Our means beside the paper's."""

import dataclasses
import math

import pytest
from builders import make_pool

from analysis.paper.against_paper import against_paper
from analysis.tables.paper import against_paper_table

CS_KD = "cifar100/resnet18/cs-kd"  # the paper: 21.99 ± 0.13


def compared(values, cell=CS_KD, best=None):
    pool = make_pool({cell: values})
    for seed, value in (best or {}).items():
        pool.runs.loc[pool.runs.seed == seed, "best/top1_error"] = value
    return against_paper(pool).set_index("metric").loc["top1_error"]


def test_judgement_combines_the_std_of_both():
    """The std of 22.2, 22.4, 22.6 is 0.2; 2 sqrt(0.2^2 + 0.13^2) = 0.477."""
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


@pytest.mark.parametrize(
    ("values", "cell", "judgement"),
    [
        ({0: 21.99}, CS_KD, "one seed: not judged"),
        ({0: 21.99, 1: math.nan, 2: "running"}, CS_KD, "one seed: not judged"),
        ({0: math.inf}, CS_KD, ""),
        ({0: 23.6, 1: 23.7}, "imagenet/resnet50/cs-kd", "the paper has no std: not judged"),
    ],
)
def test_nothing_is_judged_without_two_values_and_a_published_std(values, cell, judgement):
    assert compared(values, cell).last_judgement == judgement


def test_metric_of_the_last_epoch_has_no_best_epoch():
    pool = make_pool({CS_KD: {seed: {"recall_at_1": 71.0 + seed} for seed in range(3)}})
    row = against_paper(pool).set_index("metric").loc["recall_at_1"]
    assert (row.best_n, row.last_judgement, row.best_judgement) == (0, "within 2 std", "")
    texts = [row for row in against_paper_table(pool).blocks[0].groups[0] if row[3] == "R@1 (%)"]
    assert texts[0][4:] == ("71.15 ± 0.15", "72.00 ± 1.00 (3)", "within 2 std", "\N{EN DASH}", "")


def test_incomparable_cells_have_no_row():
    values = {0: 22.2, 1: 22.4}
    assert against_paper(make_pool({CS_KD: values}, profile="mini")).empty
    assert against_paper(make_pool({"cifar100/resnet18/label-smoothing+cs-kd": values})).empty  # not in the paper
    pool = make_pool({CS_KD: values})
    [experiment] = pool.experiments
    runs = experiment.runs.assign(comparable=[True, False], comparable_reason=["", "images too small"])
    other = dataclasses.replace(experiment, runs=runs)
    frame = against_paper(dataclasses.replace(pool, experiments=(experiment, other)))
    assert frame.empty
    assert list(frame.columns)[:3] == ["dataset", "architecture", "method"]
