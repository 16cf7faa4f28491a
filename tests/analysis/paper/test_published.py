"""The paper's numbers, against copies made by hand."""

import math

import pytest

from analysis.paper.published import figure4_numbers, published, published_numbers


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("resnet18 cifar100 cross-entropy top1_error", (24.71, 0.24)),
        ("resnet18 cifar100 cs-kd top1_error", (21.99, 0.13)),
        ("resnet18 mit67 cs-kd top1_error", (40.45, 0.45)),
        ("densenet121 cub200 cs-kd top1_error", (30.83, 0.39)),
        ("resnet18 tinyimagenet mixup+cs-kd top1_error", (40.71, 0.32)),
        ("resnet10 dogs kd+cs-kd top1_error", (32.59, 0.50)),
        ("resnet18 cifar100 cross-entropy ece", (15.45, 0.33)),
        ("resnet18 dogs cs-kd-e ece", (4.70, 0.18)),
        ("resnet18 cub200 cs-kd recall_at_1", (59.06, 0.38)),
        ("resnet50 imagenet cs-kd top1_error", (23.6, math.nan)),
        ("resnet18 merged cross-entropy domain_accuracy_cub200", (97.6, math.nan)),
        ("resnet18 merged cs-kd domain_accuracy_mit67", (98.8, math.nan)),
        ("resnet18 merged cross-entropy top1_error_dogs", (65.96, math.nan)),
        ("resnet18 merged cs-kd top1_error_cub200", (29.15, math.nan)),
    ],
)
def test_numbers_of_the_paper(cell, number):
    assert published(*cell.split()) == pytest.approx(number, abs=0, nan_ok=True)


def test_numbers_are_complete_and_equal_in_every_table():
    numbers = published_numbers()
    cells = numbers.groupby(["architecture", "dataset", "method", "metric"])[["mean", "std"]].nunique()
    assert (cells <= 1).all(axis=None)
    assert sorted(numbers.table.unique()) == ["1", "2", "3", "4", "5", "6"]
    assert (len(numbers), len(figure4_numbers())) == (60 + 20 + 20 + 20 + 6 + 3 * 35, 12)
    assert published("resnet18", "digits", "cs-kd", "top1_error") is None
