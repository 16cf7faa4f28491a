"""The paper's numbers, as they were copied."""

import math

import pytest

from analysis.paper.published import figure4_numbers, published, published_numbers


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        (("resnet18", "cifar100", "cross-entropy", "top1_error"), (24.71, 0.24)),
        (("resnet18", "cifar100", "cs-kd", "top1_error"), (21.99, 0.13)),
        (("resnet18", "mit67", "cs-kd", "top1_error"), (40.45, 0.45)),
        (("densenet121", "cub200", "cs-kd", "top1_error"), (30.83, 0.39)),
        (("resnet18", "tinyimagenet", "mixup+cs-kd", "top1_error"), (40.71, 0.32)),
        (("resnet10", "dogs", "kd+cs-kd", "top1_error"), (32.59, 0.50)),
        (("resnet18", "cifar100", "cross-entropy", "ece"), (15.45, 0.33)),
        (("resnet18", "dogs", "cs-kd-e", "ece"), (4.70, 0.18)),
        (("resnet18", "cub200", "cs-kd", "recall_at_1"), (59.06, 0.38)),
    ],
)
def test_numbers_of_the_paper(cell, number):
    assert published(*cell) == number


def test_imagenet_has_no_std():
    mean, std = published("resnet50", "imagenet", "cs-kd", "top1_error")
    assert mean == 23.6
    assert math.isnan(std)


@pytest.mark.parametrize(
    ("method", "accuracies", "errors"),
    [
        ("cross-entropy", (97.6, 94.5, 96.3), (42.31, 65.96, 62.11)),
        ("cs-kd", (99.3, 97.6, 98.8), (29.15, 55.51, 56.02)),
    ],
)
def test_figure_4_has_a_single_value_for_each_domain(method, accuracies, errors):
    for metric, numbers in (("domain_accuracy", accuracies), ("top1_error", errors)):
        for domain, number in zip(("cub200", "dogs", "mit67"), numbers, strict=True):
            mean, std = published("resnet18", "merged", method, f"{metric}_{domain}")
            assert mean == number
            assert math.isnan(std)
    assert len(figure4_numbers()) == 12


def test_what_the_paper_has_not_is_none():
    assert published("resnet18", "digits", "cs-kd", "top1_error") is None
    assert published("resnet18", "cifar100", "cs-kd", "nll") is None


def test_a_cell_has_the_same_number_in_every_table():
    numbers = published_numbers()
    cells = numbers.groupby(["architecture", "dataset", "method", "metric"])[["mean", "std"]].nunique()
    assert (cells <= 1).all(axis=None)
    assert sorted(numbers.table.unique()) == ["1", "2", "3", "4", "5", "6"]
    assert len(numbers) == 60 + 20 + 20 + 20 + 6 + 3 * 35
