"""The paper's numbers, as they were copied."""

import math

import pytest

from analysis.published import published, published_numbers


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


def test_what_the_paper_has_not_is_none():
    assert published("resnet18", "digits", "cs-kd", "top1_error") is None
    assert published("resnet18", "cifar100", "cs-kd", "nll") is None


def test_a_cell_has_the_same_number_in_every_table():
    numbers = published_numbers()
    cells = numbers.groupby(["architecture", "dataset", "method", "metric"])[["mean", "std"]].nunique()
    assert (cells <= 1).all(axis=None)
    assert sorted(numbers.table.unique()) == ["1", "2", "3", "4", "5", "6"]
    assert len(numbers) == 60 + 20 + 20 + 20 + 6 + 3 * 35
