"""The bootstrap against evaluating images that are really repeated, and against the analytic standard error."""

import numpy as np
import pytest
import torch
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.bootstrap import BLOCK, bootstrap_metrics, resampling_weights
from cskd.evaluate.calibration import evaluate_calibration


@given(seed=st.integers(0, 1000), counts=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any))
def test_every_class_keeps_its_number_of_images(seed, counts):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    weights = resampling_weights(labels, 20, seed)
    assert weights.shape == (20, len(labels))
    for label, count in enumerate(counts):
        assert (weights[:, labels == label].sum(1) == count).all()


def test_an_image_is_drawn_as_often_as_binomially_distributed():
    """Of 50 images of a class: mean 1, variance 1 - 1/50; of two of them, covariance -1/50; of two classes, none."""
    labels = np.repeat([0, 1], 50)
    weights = resampling_weights(labels, 20000).astype(float)
    covariance = np.cov(weights.T)
    assert np.abs(weights.mean(0) - 1).max() < 5 * 20000**-0.5
    assert np.diag(covariance) == pytest.approx(np.full(100, 0.98), abs=0.08)
    apart = covariance[:50, :50][~np.eye(50, dtype=bool)]
    assert apart.mean() == pytest.approx(-0.02, abs=1e-3)
    assert abs(covariance[:50, 50:].mean()) < 1e-12  # the sums of both classes are constant
    assert np.abs(covariance[:50, 50:]).max() < 5 * 20000**-0.5


def test_the_weights_depend_on_labels_and_seed_and_are_pinned():
    labels = np.array([0, 1, 0, 1, 0, 0])
    weights = resampling_weights(labels, 3)
    assert weights.dtype == np.uint8
    # Pinned: another draw would change every interval that was reported.
    assert weights.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 2], [1, 0, 0, 2, 2, 1]]
    assert np.array_equal(resampling_weights(torch.tensor(labels), 3), weights)
    assert not np.array_equal(resampling_weights(labels, 3, seed=1), weights)


@settings(max_examples=40, deadline=None)
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
    weights[-1] += np.arange(samples, dtype=np.uint8) % 3  # another number of images, too
    replicates = bootstrap_metrics(logits, labels, weights)
    for resample, repeats in enumerate(weights):
        expected = evaluate_calibration(np.repeat(logits, repeats, axis=0), np.repeat(labels, repeats))
        assert list(replicates) == list(expected)
        for name in expected.keys() - {"adaptive_ece"}:
            assert replicates[name][resample] == pytest.approx(expected[name], abs=1e-10), name


def test_the_adaptive_bins_keep_the_images_of_the_whole_sample():
    logits, labels = random_predictions(0, samples=200)
    weights = resampling_weights(labels, 5)
    probabilities = torch.tensor(logits).softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.split(confidence.argsort(), 20)
    replicates = bootstrap_metrics(logits, labels, weights)["adaptive_ece"]
    for repeats, replicate in zip(weights, replicates, strict=True):
        expected = 0
        for part in parts:
            expected += abs((np.repeat(right[part], repeats[part]) - np.repeat(confidence[part], repeats[part])).sum())
        assert replicate == pytest.approx(100 * expected / 200)


def test_more_resamples_than_a_block_are_those_of_their_parts():
    logits, labels = random_predictions(1, samples=40)
    weights = resampling_weights(labels, 2 * BLOCK + 3)
    whole = bootstrap_metrics(logits, labels, weights)
    for rows in (slice(0, 5), slice(BLOCK - 2, BLOCK + 2), slice(2 * BLOCK, None)):
        part = bootstrap_metrics(logits, labels, weights[rows])
        for name, values in whole.items():
            assert values.shape == (2 * BLOCK + 3,)
            assert values[rows] == pytest.approx(part[name], abs=1e-11)


def test_each_image_once_is_the_sample_itself():
    logits, labels = random_predictions(2)
    once = bootstrap_metrics(logits, labels, np.ones((1, 300), dtype=np.uint8))
    assert {name: value for name, (value,) in once.items()} == pytest.approx(evaluate_calibration(logits, labels))


def test_the_standard_error_of_the_error_is_the_analytic_one():
    """Stratified: the variance of the mean is the sum over classes of n p (1 - p) / N^2."""
    logits, labels = random_predictions(3, samples=2000, classes=10)
    wrong = logits.argmax(1) != labels
    variance = sum(np.sum(labels == label) * wrong[labels == label].var() for label in range(10)) / 2000**2
    replicates = bootstrap_metrics(logits, labels, resampling_weights(labels, 4000))["top1_error"]
    # 4,000 resamples know a standard error to 1/sqrt(8000), 1.1 %.
    assert replicates.std(ddof=1) == pytest.approx(100 * variance**0.5, rel=0.04)
    assert replicates.mean() == pytest.approx(100 * wrong.mean(), abs=4 * 100 * variance**0.5 / 4000**0.5)


def test_the_spread_of_a_stratified_sample_is_lower_than_that_of_a_plain_one_where_the_class_decides():
    """One class always right, the other always wrong: every stratified resample has the same error."""
    logits, labels = np.array([[1.0, 0.0]] * 10), np.array([0] * 6 + [1] * 4)
    replicates = bootstrap_metrics(logits, labels, resampling_weights(labels, 50))
    assert (replicates["top1_error"] == 40).all()
    assert replicates["ece"] == pytest.approx(np.full(50, evaluate_calibration(logits, labels)["ece"]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.ones((2, 3), dtype=int), r"integer weights \(R, 4\) needed, not int64 \(2, 3\)"),
        (np.ones(4, dtype=int), r"integer weights"),
        (np.ones((2, 4)), r"integer weights .* not float64"),
        (np.ones((0, 4), dtype=int), "no resamples"),
        (np.array([[1, 1, 1, 1], [0, 0, 0, 0]]), "every resample needs an image"),
        (np.array([[2, -1, 1, 2]]), "must not be negative"),
    ],
)
def test_weights_that_are_no_resamples_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_metrics(np.eye(4), np.arange(4), weights)


def test_undefined_input_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_metrics([[np.nan, 0.0]], [0], np.ones((1, 1), dtype=int))
    with pytest.raises(ValueError, match="at least one sample"):
        resampling_weights([])
    with pytest.raises(ValueError, match=r"not \(1, 2\)"):
        resampling_weights([[0, 1]])
    with pytest.raises(ValueError, match="resamples must be at least 1, not 0"):
        resampling_weights([0, 1], 0)
