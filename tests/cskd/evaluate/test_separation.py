"""Class separation against its definitions and at its limits."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.separation import feature_spread, prediction_variance

drawn = {"seed": st.integers(0, 2**31), "samples": st.integers(6, 40), "classes": st.integers(2, 6)}


def clusters(values: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    return [values[labels == label] for label in np.unique(labels)]


@settings(max_examples=15, deadline=None)
@given(**drawn, width=st.integers(1, 5), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_feature_spread_is_its_definition(seed, samples, classes, width, scale):
    random = np.random.default_rng(seed)
    labels = 3 * np.concatenate([np.arange(classes), random.integers(classes, size=samples - classes)])  # with gaps
    features = scale * (random.normal(size=(samples, width)) + 2 * random.normal(size=(3 * classes, width))[labels])
    members = clusters(features, labels)
    within = np.mean([np.linalg.norm(row - rows.mean(0)) for rows in members for row in rows])
    pairs = itertools.combinations([rows.mean(0) for rows in members], 2)
    between = np.mean([np.linalg.norm(first - second) for first, second in pairs])
    assert feature_spread(features, labels) == pytest.approx(within / between, rel=1e-9)


@settings(max_examples=15, deadline=None)
@given(**drawn, scale=st.floats(0, 50))
def test_prediction_variance_is_its_definition(seed, samples, classes, scale):
    random = np.random.default_rng(seed)
    logits, labels = scale * random.normal(size=(samples, classes)), random.integers(classes, size=samples)
    members = clusters(torch.tensor(logits).softmax(1).numpy(), labels)
    expected = np.mean([((rows - rows.mean(0)) ** 2).sum(1).mean() for rows in members])
    assert prediction_variance(logits, labels) == pytest.approx(expected, abs=1e-12)


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
