"""Class separation against its definitions and at its limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.separation import feature_spread, prediction_variance


def mean_of(rows) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(6, 40),
    classes=st.integers(2, 6),
    width=st.integers(1, 5),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
)
def test_feature_spread_is_its_definition(seed, samples, classes, width, scale):
    random = np.random.default_rng(seed)
    labels = 3 * np.concatenate([np.arange(classes), random.integers(classes, size=samples - classes)])
    features = scale * (random.normal(size=(samples, width)) + 2 * random.normal(size=(3 * classes, width))[labels])
    means = {label: mean_of(features[labels == label].tolist()) for label in set(labels.tolist())}
    within = [math.dist(row, means[label]) for row, label in zip(features.tolist(), labels.tolist(), strict=True)]
    between = [math.dist(first, second) for first, second in itertools.combinations(means.values(), 2)]
    expected = (sum(within) / len(within)) / (sum(between) / len(between))
    assert feature_spread(features, labels) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 40), classes=st.integers(1, 6), scale=st.floats(0, 50))
def test_prediction_variance_is_its_definition(seed, samples, classes, scale):
    random = np.random.default_rng(seed)
    logits, labels = scale * random.normal(size=(samples, classes)), random.integers(classes, size=samples)
    rows = torch.tensor(logits).softmax(1).tolist()
    variances = []
    for label in set(labels.tolist()):
        members = [row for row, other in zip(rows, labels.tolist(), strict=True) if other == label]
        mean = mean_of(members)
        variances.append(math.fsum(math.dist(row, mean) ** 2 for row in members) / len(members))
    expected = sum(variances) / len(variances)
    assert prediction_variance(logits, labels) == pytest.approx(expected, abs=1e-12)


def test_feature_spread_of_classes_that_are_points_is_zero():
    assert feature_spread(np.array([[0.0, 1.0], [0.0, 1.0], [8.0, 1.0], [8.0, 1.0]]), [0, 0, 1, 1]) == 0


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.eye(3), [1, 1, 1], "at least two classes, not of 1"),
        (np.full((6, 3), 0.1), [0, 0, 0, 1, 1, 2], "all class means are equal"),
        (np.array([[1.0], [np.nan]]), [0, 1], "NaN"),
        (np.eye(3), [0, 1], r"\(3, 3\)"),
    ],
)
def test_feature_spread_raises_value_error_if_undefined(features, labels, message):
    with pytest.raises(ValueError, match=message):
        feature_spread(features, labels)
