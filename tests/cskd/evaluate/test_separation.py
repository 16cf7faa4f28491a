"""Class separation against its definitions, its invariances and its limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group

from cskd.evaluate.separation import feature_spread, prediction_variance


def clusters(seed: int, samples: int = 60, classes: int = 5, width: int = 4):
    """Return clusters of features around one point per class. The labels have gaps; every class has images."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(classes, size=samples - classes)])
    features = random.normal(size=(samples, width)) + 2 * random.normal(size=(classes, width))[labels]
    return features, 3 * labels


def mean_of(rows) -> list[float]:
    return [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(6, 40), classes=st.integers(2, 6), width=st.integers(1, 5))
def test_feature_spread_is_its_definition(seed, samples, classes, width):
    features, labels = clusters(seed, samples, classes, width)
    means = {label: mean_of(features[labels == label].tolist()) for label in set(labels.tolist())}
    within = [math.dist(row, means[label]) for row, label in zip(features.tolist(), labels.tolist(), strict=True)]
    between = [math.dist(first, second) for first, second in itertools.combinations(means.values(), 2)]
    expected = (sum(within) / len(within)) / (sum(between) / len(between))
    assert feature_spread(features, labels) == pytest.approx(expected, rel=1e-10)


@settings(max_examples=20, deadline=None)
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
    assert 0 <= prediction_variance(logits, labels) <= 1


@pytest.mark.parametrize("seed", range(2))
def test_feature_spread_does_not_depend_on_scale_shift_rotation_or_order(seed):
    features, labels = clusters(seed)
    expected = feature_spread(features, labels)
    assert feature_spread(1e-6 * features, labels) == pytest.approx(expected)
    assert feature_spread(1e6 * features, labels) == pytest.approx(expected)
    assert feature_spread(features + 1000, labels) == pytest.approx(expected)
    assert feature_spread(features @ ortho_group.rvs(4, random_state=seed), labels) == pytest.approx(expected)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert feature_spread(features[order], 100 - labels[order]) == pytest.approx(expected)


def test_feature_spread_is_lower_for_tighter_classes_and_zero_for_points():
    features = np.array([[0.0, 1.0], [0.0, -1.0], [8.0, 1.0], [8.0, -1.0]])
    labels = [0, 0, 1, 1]
    assert feature_spread(features, labels) == pytest.approx(1 / 8)
    assert feature_spread(features * [1, 0.5], labels) == pytest.approx(1 / 16)
    assert feature_spread(features * [1, 0], labels) == 0
    assert feature_spread(torch.tensor(features).float(), torch.tensor(labels)) == pytest.approx(1 / 8)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.eye(3), [1, 1, 1], "at least two classes, not of 1"),
        (np.zeros((0, 3)), [], "at least two classes, not of 0"),
        (np.full((6, 3), 0.1), [0, 0, 0, 1, 1, 2], "all class means are equal"),
        (np.zeros((4, 3)), [0, 0, 1, 1], "all class means are equal"),
        (np.array([[1.0], [-1.0], [2.0], [-2.0]]), [0, 0, 1, 1], "all class means are equal"),
        (np.array([[1.0], [np.nan]]), [0, 1], "NaN"),
        (np.array([[1.0], [np.inf]]), [0, 1], "infinite"),
        (np.eye(3), [0, 1], r"\(3, 3\)"),
        (np.zeros(3), [0, 1, 2], r"\(3,\)"),
    ],
)
def test_feature_spread_raises_value_error_if_undefined(features, labels, message):
    with pytest.raises(ValueError, match=message):
        feature_spread(features, labels)


def test_prediction_variance_at_its_limits():
    certain = 1000 * np.eye(4)
    assert prediction_variance(certain[[0, 0, 1, 1]], [0, 0, 3, 3]) == 0  # equal within each class
    assert prediction_variance(certain, [2, 2, 2, 2]) == pytest.approx(1 - 1 / 4)  # as different as possible
    assert prediction_variance(certain, [0, 0, 1, 2]) == pytest.approx(0.5 / 3)  # single images have variance 0
    assert prediction_variance([[1.0, 2.0]], [1]) == 0
