"""Calibration errors against loops and torchmetrics, and at their limits."""

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.calibration import (
    adaptive_calibration_error,
    classwise_calibration_error,
    cross_fitted_logits,
    evaluate_calibration,
    fit_temperature,
)
from cskd.evaluate.metrics import evaluate_predictions
from cskd.evaluate.scores import brier_score, expected_calibration_error, negative_log_likelihood, top_k_error


def softmax(row) -> list[float]:
    return torch.tensor(row, dtype=torch.float64).softmax(0).tolist()


def gap(members) -> float:
    """|sum of right - sum of probability| of (probability, right) pairs."""
    return abs(math.fsum(right - probability for probability, right in members))


def equal_width_error(pairs, bins: int) -> float:
    members = [[] for _ in range(bins)]
    for probability, right in pairs:
        members[next(b for b in range(bins) if probability <= (b + 1) / bins)].append((probability, right))
    return sum(map(gap, members)) / len(pairs)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bins=st.integers(1, 40),
    samples=st.integers(1, 60),
    classes=st.integers(1, 6),
    decimals=st.integers(0, 3),
)
def test_adaptive_error_is_its_definition_summed_image_by_image(seed, bins, samples, classes, decimals):
    logits, labels = random_predictions(seed, samples, classes, decimals=decimals)
    pairs = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        pairs.append((max(softmax(row)), row.index(max(row)) == label))
    members = [[] for _ in range(bins)]
    for confidence, right in pairs:
        lower = sum(other < confidence for other, _ in pairs)
        members[math.floor(bins * lower / samples)].append((confidence, right))
    expected = sum(map(gap, members)) / samples
    assert adaptive_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 20, 100])
def test_without_ties_the_adaptive_bins_are_equal_parts_of_the_images_in_order_of_confidence(bins):
    logits, labels = random_predictions(3, samples=300 if bins != 100 else 500)
    probabilities = torch.tensor(logits).softmax(1).numpy()
    order = probabilities.max(1).argsort()
    parts = np.split(order, bins)
    right = logits.argmax(1) == labels
    expected = np.mean([abs(right[part].mean() - probabilities.max(1)[part].mean()) for part in parts])
    assert adaptive_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), decimals=st.integers(0, 1))
def test_the_order_of_the_images_does_not_matter(seed, decimals):
    logits, labels = random_predictions(seed, samples=50, classes=3, decimals=decimals)
    order = np.random.default_rng(seed).permutation(50)
    shuffled = evaluate_calibration(logits[order], labels[order])
    assert shuffled == pytest.approx(evaluate_calibration(logits, labels), abs=1e-9)


def test_equal_confidences_share_the_lowest_bin_that_they_would_fill():
    """Four images in two bins: the three equal ones begin in bin 0, and the highest is alone in bin 1."""
    low, high = [0.0, 0.0], [0.0, math.log(4)]  # confidences 0.5 and 0.8
    logits, labels = np.array([low, low, low, high]), [0, 0, 1, 1]
    assert adaptive_calibration_error(logits, labels, bins=2) == pytest.approx((3 * (2 / 3 - 0.5) + 0.2) / 4)
    # Of these the equal ones begin in bin 0, too, and stay with the lowest: bin 1 is empty.
    logits, labels = np.array([[0.0, math.log(1.5)], high, high, high]), [1, 0, 0, 1]  # confidences 0.6 and 0.8
    assert adaptive_calibration_error(logits, labels, bins=2) == pytest.approx(abs(2 - 0.6 - 3 * 0.8) / 4)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bins=st.integers(1, 40),
    samples=st.integers(1, 40),
    classes=st.integers(1, 6),
    decimals=st.integers(0, 3),
)
def test_classwise_error_is_its_definition_summed_image_by_image(seed, bins, samples, classes, decimals):
    logits, labels = random_predictions(seed, samples, classes, decimals=decimals)
    rows = [softmax(row) for row in logits.tolist()]
    errors = []
    for number in range(classes):
        pairs = [(row[number], label == number) for row, label in zip(rows, labels, strict=True)]
        errors.append(equal_width_error(pairs, bins))
    expected = sum(errors) / classes
    assert classwise_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_classwise_error_agrees_with_torchmetrics_over_the_classes(scale):
    logits, labels = random_predictions(1, scale=scale)
    probabilities, labels = torch.tensor(logits).softmax(1), torch.tensor(labels)
    errors = []
    for number in range(probabilities.shape[1]):
        right = (labels == number).long()
        errors.append(
            reference.binary_calibration_error(probabilities[:, number].contiguous(), right, n_bins=20, norm="l1")
        )
    assert classwise_calibration_error(logits, labels) == pytest.approx(torch.stack(errors).mean().item(), abs=1e-6)


@pytest.mark.parametrize("decimals", [0, 8])
@pytest.mark.parametrize("scale", [0.05, 2.0, 400.0])
@pytest.mark.parametrize("samples", [1, 300])
def test_the_evaluation_is_the_single_metrics(samples, scale, decimals):
    logits, labels = random_predictions(5, samples, scale=scale, decimals=decimals)
    assert evaluate_calibration(logits, labels) == pytest.approx(
        {
            "top1_error": 100 * top_k_error(logits, labels),
            "ece": 100 * expected_calibration_error(logits, labels),
            "adaptive_ece": 100 * adaptive_calibration_error(logits, labels),
            "classwise_ece": 100 * classwise_calibration_error(logits, labels),
            "nll": negative_log_likelihood(logits, labels),
            "brier": brier_score(logits, labels),
        },
        abs=1e-11,
    )


def test_tensors_and_arrays_of_single_precision_are_evaluated_in_double():
    logits, labels = random_predictions(0)
    single = logits.astype(np.float32)
    expected = evaluate_calibration(single.astype(np.float64), labels)
    assert evaluate_calibration(single, labels) == expected
    assert evaluate_calibration(torch.tensor(single), torch.tensor(labels)) == expected


def test_a_perfectly_calibrated_predictor_has_no_calibration_error():
    """Ten images of three kinds; of each kind as many are of a class as its probability says."""
    probabilities = {(0.5, 0.3, 0.2): 10, (0.1, 0.9, 0.0): 10, (0.2, 0.2, 0.6): 10}
    rows, labels = [], []
    for kind, count in probabilities.items():
        rows += [[math.log(p) if p else -1000.0 for p in kind]] * count
        labels += np.repeat(np.arange(3), [round(p * count) for p in kind]).tolist()
    measured = evaluate_calibration(np.array(rows), labels)
    for name in ("ece", "adaptive_ece", "classwise_ece"):
        assert measured[name] == pytest.approx(0, abs=1e-11), name


def test_a_constant_predictor_is_off_by_the_difference_of_the_frequencies():
    """All images 0.7 / 0.2 / 0.1, the classes 0.5 / 0.5 / 0: every gap is known."""
    logits = np.log([[0.7, 0.2, 0.1]] * 8)
    labels = np.array([0, 1] * 4)
    measured = evaluate_calibration(logits, labels)
    assert measured["ece"] == pytest.approx(20)
    assert measured["adaptive_ece"] == pytest.approx(20)
    assert measured["classwise_ece"] == pytest.approx(100 * (0.2 + 0.3 + 0.1) / 3)
    assert measured["top1_error"] == 50


def test_confidence_of_exactly_one_is_right_or_wrong_by_one():
    certain = 1000 * np.eye(4)
    names = ("ece", "adaptive_ece", "classwise_ece")
    right = evaluate_calibration(certain, np.arange(4))
    assert right == dict.fromkeys(right, 0)
    wrong = evaluate_calibration(certain, (np.arange(4) + 1) % 4)
    # Class by class, one image in four is told 1 and is not, another is told 0 and is: 2/C.
    assert [wrong[name] for name in names] == pytest.approx([100, 100, 50])
    assert (wrong["nll"], wrong["brier"]) == (1000, 2)


def test_with_a_single_class_nothing_can_be_wrong():
    measured = evaluate_calibration(np.zeros((5, 1)), np.zeros(5))
    assert measured == dict.fromkeys(measured, 0)


def test_what_is_tracked_under_the_same_name_has_the_same_value():
    logits, labels = random_predictions(2)
    tracked, measured = evaluate_predictions(logits, labels), evaluate_calibration(logits, labels)
    shared = tracked.keys() & measured.keys()
    assert shared == {"top1_error", "nll", "brier", "ece"}
    assert {name: measured[name] for name in shared} == pytest.approx({name: tracked[name] for name in shared})


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0), "no samples"),
        (np.array([[np.nan, 0.0]]), np.array([0]), "NaN"),
        (np.array([[np.inf, 0.0]]), np.array([0]), "infinite"),
        (np.zeros((1, 3)), np.array([3]), "0..2"),
        (np.zeros((1, 3)), np.array([-1]), "0..2"),
        (np.zeros((2, 3)), np.array([0]), r"\(2, 3\)"),
    ],
)
def test_undefined_input_is_refused(logits, labels, message):
    for metric in (
        adaptive_calibration_error,
        classwise_calibration_error,
        evaluate_calibration,
        fit_temperature,
        cross_fitted_logits,
    ):
        with pytest.raises(ValueError, match=message):
            metric(logits, labels)


@pytest.mark.parametrize("metric", [adaptive_calibration_error, classwise_calibration_error])
def test_bins_below_one_are_refused(metric):
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        metric(np.zeros((1, 2)), [0], bins=0)
