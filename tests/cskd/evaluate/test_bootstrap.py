"""The bootstrap against evaluating repeated images, and against the analytic standard error."""

import numpy as np
import pytest
import torch
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.bootstrap import BLOCK, bootstrap_metrics, resampling_weights
from cskd.evaluate.metrics import evaluate_calibration


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
def test_resample_keeps_the_number_of_images_of_each_class(seed, counts):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    weights = resampling_weights(labels, 20, seed)
    assert weights.shape == (20, len(labels))
    for label, count in enumerate(counts):
        assert (weights[:, labels == label].sum(1) == count).all()


def test_draws_have_the_binomial_mean_variance_and_covariance():
    """With 50 images per class: mean 1, variance 1 - 1/50, covariance -1/50 within a class and 0 between classes."""
    weights = resampling_weights(np.repeat([0, 1], 50), 5000).astype(float)
    covariance = np.cov(weights.T)
    assert np.abs(weights.mean(0) - 1).max() < 5 * 5000**-0.5
    assert np.diag(covariance) == pytest.approx(np.full(100, 0.98), abs=0.16)
    within = covariance[:50, :50][~np.eye(50, dtype=bool)]
    assert within.mean() == pytest.approx(-0.02, abs=1e-3)
    assert np.abs(covariance[:50, 50:]).max() < 5 * 5000**-0.5


def test_resampling_weights_are_pinned():
    labels = np.array([0, 1, 0, 1, 0, 0])
    weights = resampling_weights(labels, 3)
    assert weights.dtype == np.uint8
    # Another draw would change every reported interval.
    assert weights.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 2], [1, 0, 0, 2, 2, 1]]
    assert np.array_equal(resampling_weights(torch.tensor(labels), 3), weights)
    assert not np.array_equal(resampling_weights(labels, 3, seed=1), weights)


@settings(max_examples=25, deadline=None)
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


def test_replicates_do_not_depend_on_the_block():
    logits, labels = random_predictions(1, samples=40)
    weights = resampling_weights(labels, BLOCK + 3)
    replicates = bootstrap_metrics(logits, labels, weights)
    part = bootstrap_metrics(logits, labels, weights[BLOCK - 2 :])
    for name, values in replicates.items():
        assert values[BLOCK - 2 :] == pytest.approx(part[name], abs=1e-11)


def test_standard_error_of_the_error_is_the_analytic_one():
    """Stratified: the variance of the mean is the sum over classes of n p (1 - p) / N^2."""
    logits, labels = random_predictions(3, samples=1000, classes=10)
    wrong = logits.argmax(1) != labels
    variance = sum(np.sum(labels == label) * wrong[labels == label].var() for label in range(10)) / 1000**2
    replicates = bootstrap_metrics(logits, labels, resampling_weights(labels, 2000))["top1_error"]
    # 2,000 resamples give the standard error to 1/sqrt(4000), 1.6 %.
    assert replicates.std(ddof=1) == pytest.approx(100 * variance**0.5, rel=0.06)
    assert replicates.mean() == pytest.approx(100 * wrong.mean(), abs=4 * 100 * variance**0.5 / 2000**0.5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((2, 3), dtype=int), r"integer weights \(R, 4\) needed, not int64 \(2, 3\)"),
        (np.ones((2, 4)), r"integer weights .* not float64"),
        (np.ones((0, 4), dtype=int), "no resamples"),
        (np.array([[1, 1, 1, 1], [0, 0, 0, 0]]), "every resample needs an image"),
        (np.array([[2, -1, 1, 2]]), "must not be negative"),
    ],
)
def test_invalid_weights_raise_value_error(weights, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_metrics(np.eye(4), np.arange(4), weights)


def test_resampling_weights_reject_invalid_input():
    with pytest.raises(ValueError, match="at least one sample"):
        resampling_weights([])
    with pytest.raises(ValueError, match="resamples must be at least 1, not 0"):
        resampling_weights([0, 1], 0)
