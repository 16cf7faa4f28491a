"""Calibration errors against their definitions, torchmetrics and simulation."""

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
    calibration_floor,
    classwise_calibration_error,
    debiased_calibration_error,
)
from cskd.evaluate.scores import expected_calibration_error


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    bins=st.integers(1, 40),
    samples=st.integers(1, 40),
    classes=st.integers(1, 6),
    decimals=st.integers(0, 3),
)
def test_adaptive_error_is_its_definition(seed, bins, samples, classes, decimals):
    logits, labels = random_predictions(seed, samples, classes, decimals=decimals)
    probabilities = torch.tensor(logits).softmax(1).numpy()
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    gaps = np.zeros(bins)
    for index in range(samples):
        lower = sum(confidence < confidence[index])
        gaps[math.floor(bins * lower / samples)] += right[index] - confidence[index]
    assert adaptive_calibration_error(logits, labels, bins) == pytest.approx(abs(gaps).sum() / samples, abs=1e-12)


def test_classwise_error_agrees_with_torchmetrics():
    logits, labels = random_predictions(1)
    probabilities, labels = torch.tensor(logits).softmax(1), torch.tensor(labels)
    errors = [
        reference.binary_calibration_error(column.contiguous(), (labels == number).long(), n_bins=20, norm="l1")
        for number, column in enumerate(probabilities.T)
    ]
    assert classwise_calibration_error(logits, labels) == pytest.approx(torch.stack(errors).mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    "error",
    [
        expected_calibration_error,
        adaptive_calibration_error,
        classwise_calibration_error,
        debiased_calibration_error,
    ],
)
def test_calibration_error_needs_a_bin(error):
    with pytest.raises(ValueError, match="bins must be at least 1, not 0"):
        error(torch.zeros(1, 2), [0], bins=0)


def logits_of(confidence: np.ndarray) -> np.ndarray:
    """Return the logits (N, 2) of class 0 with these probabilities."""
    return np.stack([np.log(confidence), np.log1p(-confidence)], axis=1)


def drawn_labels(confidence: np.ndarray, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random(len(confidence)) >= confidence).astype(int)


def test_debiased_error_of_one_bin_subtracts_the_mean_of_the_folded_normal_distribution():
    confidence, labels = np.full(40, 0.72), np.repeat([0, 1], [31, 9])
    accuracy, gap = 31 / 40, 31 / 40 - 0.72
    again = np.random.default_rng(0).normal(accuracy, math.sqrt(accuracy * (1 - accuracy) / 40), 10**6)
    bias = np.abs(again - 0.72).mean() - gap
    assert debiased_calibration_error(logits_of(confidence), labels) == pytest.approx(gap - bias, abs=2e-4)


def test_floor_is_the_error_of_calibrated_predictions():
    confidence = np.random.default_rng(1).uniform(0.5, 1, 300)
    logits, labels = logits_of(confidence), np.zeros(300, int)
    errors = [expected_calibration_error(logits, drawn_labels(confidence, seed)) for seed in range(400)]
    assert calibration_floor(logits, labels) == pytest.approx(np.mean(errors), rel=0.05)
    assert calibration_floor(logits, 1 - labels) == calibration_floor(logits, labels)
    assert calibration_floor(logits, labels, quantile=0.95) == pytest.approx(np.quantile(errors, 0.95), rel=0.1)
