"""The bootstrap against evaluating repeated images, and against the analytic standard error."""

from unittest import mock

import numpy as np
import pytest
import torch
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate import bootstrap
from cskd.evaluate.bootstrap import bootstrap_metrics, resampling_weights
from cskd.evaluate.metrics import evaluate_calibration


def test_weights_are_pinned_and_keep_the_number_of_images_of_each_class():
    labels = np.array([0, 1, 0, 1, 0, 0])
    weights = resampling_weights(labels, 3)
    assert weights.dtype == np.uint8
    # Another draw would change every reported interval.
    assert weights.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 2], [1, 0, 0, 2, 2, 1]]
    many = resampling_weights(torch.tensor(labels), 50, seed=1)
    assert (many[:, labels == 0].sum(1) == 4).all()
    assert (many[:, labels == 1].sum(1) == 2).all()


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    samples=st.integers(1, 60),
    classes=st.integers(1, 30),
    scale=st.sampled_from([0.05, 2.0, 400.0]),
    decimals=st.integers(0, 3),
)
def test_replicates_are_the_metrics_of_the_repeated_images(seed, samples, classes, scale, decimals):
    logits, labels = random_predictions(seed, samples, classes, scale, decimals)
    weights = resampling_weights(labels, 4, seed)
    weights[-1] += np.arange(samples, dtype=np.uint8) % 3  # a different number of images
    with mock.patch.object(bootstrap, "BLOCK", 3):
        replicates = bootstrap_metrics(logits, labels, weights)
    for resample, repeats in enumerate(weights):
        expected = evaluate_calibration(np.repeat(logits, repeats, axis=0), np.repeat(labels, repeats))
        assert replicates.keys() == expected.keys()
        for name in expected.keys() - {"adaptive_ece"}:
            assert replicates[name][resample] == pytest.approx(expected[name], abs=1e-10), name


def test_adaptive_bins_keep_the_images_of_the_full_sample():
    logits, labels = random_predictions(0, samples=200)
    weights = resampling_weights(labels, 5)
    probabilities = torch.tensor(logits).softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.split(confidence.argsort(), 20)
    replicates = bootstrap_metrics(logits, labels, weights)["adaptive_ece"]
    for repeats, replicate in zip(weights, replicates, strict=True):
        gaps = [abs((repeats[part] * (right[part].astype(float) - confidence[part])).sum()) for part in parts]
        assert replicate == pytest.approx(100 * sum(gaps) / 200)


def test_standard_error_of_the_error_is_the_analytic_one():
    """Stratified: the variance of the mean is the sum over classes of n p (1 - p) / N^2."""
    logits, labels = random_predictions(3, samples=1000, classes=10)
    wrong = logits.argmax(1) != labels
    variance = sum(np.sum(labels == label) * wrong[labels == label].var() for label in range(10)) / 1000**2
    replicates = bootstrap_metrics(logits, labels, resampling_weights(labels, 2000))["top1_error"]
    # 2,000 resamples give the standard error to 1/sqrt(4000), 1.6 %.
    assert replicates.std(ddof=1) == pytest.approx(100 * variance**0.5, rel=0.06)
    assert replicates.mean() == pytest.approx(100 * wrong.mean(), abs=4 * 100 * variance**0.5 / 2000**0.5)
