"""Adaptive and class-wise calibration errors against their definitions and torchmetrics, and at their limits."""

import math

import numpy as np
import pytest
import torch
import torchmetrics.functional.classification as reference
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.calibration import adaptive_calibration_error, classwise_calibration_error
from cskd.evaluate.metrics import evaluate_calibration
from cskd.evaluate.scores import expected_calibration_error

drawn = {
    "seed": st.integers(0, 2**31),
    "bins": st.integers(1, 40),
    "samples": st.integers(1, 40),
    "classes": st.integers(1, 6),
    "decimals": st.integers(0, 3),
}


def softmax(row) -> list[float]:
    return torch.tensor(row, dtype=torch.float64).softmax(0).tolist()


def gap(members) -> float:
    """Return |sum of correct - sum of probability| of (probability, correct) pairs."""
    return abs(math.fsum(right - probability for probability, right in members))


@settings(max_examples=30, deadline=None)
@given(**drawn)
def test_adaptive_error_is_its_definition(seed, bins, samples, classes, decimals):
    logits, labels = random_predictions(seed, samples, classes, decimals=decimals)
    pairs = [
        (max(softmax(row)), row.index(max(row)) == label)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    members = [[] for _ in range(bins)]
    for confidence, right in pairs:
        lower = sum(other < confidence for other, _ in pairs)
        members[math.floor(bins * lower / samples)].append((confidence, right))
    expected = sum(map(gap, members)) / samples
    assert adaptive_calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(**drawn)
def test_classwise_error_is_its_definition(seed, bins, samples, classes, decimals):
    logits, labels = random_predictions(seed, samples, classes, decimals=decimals)
    rows = [softmax(row) for row in logits.tolist()]
    errors = []
    for number in range(classes):
        members = [[] for _ in range(bins)]
        for row, label in zip(rows, labels, strict=True):
            index = next(b for b in range(bins) if row[number] <= (b + 1) / bins)
            members[index].append((row[number], label == number))
        errors.append(sum(map(gap, members)) / samples)
    assert classwise_calibration_error(logits, labels, bins) == pytest.approx(sum(errors) / classes, abs=1e-12)


def test_classwise_error_agrees_with_torchmetrics():
    logits, labels = random_predictions(1)
    probabilities, labels = torch.tensor(logits).softmax(1), torch.tensor(labels)
    errors = [
        reference.binary_calibration_error(column.contiguous(), (labels == number).long(), n_bins=20, norm="l1")
        for number, column in enumerate(probabilities.T)
    ]
    assert classwise_calibration_error(logits, labels) == pytest.approx(torch.stack(errors).mean().item(), abs=1e-6)


def test_calibration_errors_of_perfectly_calibrated_predictions_are_zero():
    """Three kinds of ten images each: the classes are as frequent as their probabilities."""
    probabilities = {(0.5, 0.3, 0.2): 10, (0.1, 0.9, 0.0): 10, (0.2, 0.2, 0.6): 10}
    rows, labels = [], []
    for kind, count in probabilities.items():
        rows += [[math.log(p) if p else -1000.0 for p in kind]] * count
        labels += np.repeat(np.arange(3), [round(p * count) for p in kind]).tolist()
    values = evaluate_calibration(np.array(rows), labels)
    assert [values[name] for name in ("ece", "adaptive_ece", "classwise_ece")] == pytest.approx([0, 0, 0], abs=1e-11)


def test_calibration_errors_of_a_constant_prediction_are_the_frequency_differences():
    """The probabilities are 0.7, 0.2 and 0.1, the class frequencies 0.5, 0.5 and 0."""
    values = evaluate_calibration(np.log([[0.7, 0.2, 0.1]] * 8), np.array([0, 1] * 4))
    assert values["ece"] == pytest.approx(20)
    assert values["adaptive_ece"] == pytest.approx(20)
    assert values["classwise_ece"] == pytest.approx(100 * (0.2 + 0.3 + 0.1) / 3)
    assert values["top1_error"] == 50


@pytest.mark.parametrize(
    "metric", [expected_calibration_error, adaptive_calibration_error, classwise_calibration_error]
)
def test_bins_below_one_raise_value_error(metric):
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        metric(np.zeros((1, 2)), [0], bins=0)
