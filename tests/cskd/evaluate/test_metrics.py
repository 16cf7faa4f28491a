"""The metric registry, and properties that all tracked metrics have."""

import math

import numpy as np
import pytest
import torch
from arrays import random_predictions
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.evaluate.bootstrap import bootstrap_metrics
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.metrics import LOGITS, METRICS, TRACKED, all_metrics, evaluate_calibration, evaluate_predictions
from cskd.evaluate.scores import domain_metrics, expected_calibration_error

PROBABILISTIC = ("nll", "brier", "ece")
examples = settings(max_examples=25, deadline=None, derandomize=True)
# Few decimals give ties, within an image and between images.
drawn = st.builds(
    random_predictions,
    seed=st.integers(0, 2**31),
    samples=st.integers(1, 50),
    classes=st.integers(2, 9),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    decimals=st.sampled_from([0, 1, 8]),
)


def without_ties(predictions) -> tuple[np.ndarray, np.ndarray]:
    logits, labels = predictions
    return logits + np.random.default_rng(0).permutation(logits.shape[1]) * 1e-6, labels


def test_evaluate_predictions_returns_the_tracked_metrics_in_their_units():
    logits, labels = random_predictions(0)
    domains = ("a",) * 5 + ("b",) * 7
    values = evaluate_predictions(logits, labels, logits, domains)
    assert list(values)[: len(TRACKED)] == [metric.name for metric in TRACKED]
    assert values.items() >= domain_metrics(logits, labels, domains).items()
    assert values["ece"] == 100 * expected_calibration_error(logits, labels)
    without_features = evaluate_predictions(logits, labels)
    assert values.items() >= without_features.items()
    assert "recall_at_1" not in without_features
    assert len(all_metrics()) == len(METRICS) + 6


def test_metrics_of_perfect_and_of_wrong_predictions():
    logits = 1000 * torch.eye(6)
    right = evaluate_predictions(logits, torch.arange(6)) | evaluate_calibration(logits, torch.arange(6))
    zero = ("top1_error", "top5_error", "ece", "nll", "brier", "debiased_ece", "adaptive_ece", "classwise_ece")
    assert {name: right[name] for name in zero} == dict.fromkeys(zero, 0)
    wrong = evaluate_calibration(logits, (torch.arange(6) + 1) % 6)
    assert (wrong["top1_error"], wrong["ece"], wrong["adaptive_ece"], wrong["brier"]) == (100, 100, 100, 2)
    assert wrong["nll"] == 1000
    assert wrong["classwise_ece"] == pytest.approx(100 * 2 / 6)


def test_single_precision_is_evaluated_in_double():
    logits, labels = random_predictions(0)
    single = logits.astype(np.float32)
    expected = evaluate_calibration(single.astype(np.float64), labels)
    assert evaluate_calibration(single, labels) == expected
    assert evaluate_calibration(torch.tensor(single), torch.tensor(labels)) == expected


@examples
@given(predictions=drawn)
def test_metrics_are_within_their_bounds(predictions):
    metrics = evaluate_predictions(*predictions)
    assert 0 <= metrics["top5_error"] <= metrics["top1_error"] <= 100
    assert 0 <= metrics["ece"] <= 100
    assert 0 <= metrics["brier"] <= 2
    assert 0 <= metrics["nll"] < math.inf


@examples
@given(predictions=drawn, seed=st.integers(0, 2**31))
def test_metrics_do_not_depend_on_the_order_of_the_images(predictions, seed):
    logits, labels = predictions
    order = np.random.default_rng(seed).permutation(len(labels))
    for evaluate in (evaluate_predictions, evaluate_calibration):
        assert evaluate(logits[order], labels[order]) == pytest.approx(evaluate(logits, labels), abs=1e-9)


@examples
@given(predictions=drawn.map(without_ties), seed=st.integers(0, 2**31), shift=st.floats(-50, 50))
def test_metrics_do_not_depend_on_class_numbers_or_a_constant_in_the_logits(predictions, seed, shift):
    logits, labels = predictions
    expected = evaluate_predictions(logits, labels)
    number = np.random.default_rng(seed).permutation(logits.shape[1])
    renumbered = np.empty_like(logits)
    renumbered[:, number] = logits
    assert evaluate_predictions(renumbered, number[labels]) == pytest.approx(expected, abs=1e-6)
    shifted = evaluate_predictions(logits + shift, labels)
    assert [shifted[name] for name in PROBABILISTIC] == pytest.approx(
        [expected[name] for name in PROBABILISTIC], abs=1e-6
    )


@examples
@given(predictions=drawn, cut=st.integers(0, 50))
def test_metrics_of_the_parts_of_a_test_set_average_to_the_whole(predictions, cut):
    logits, labels = predictions
    whole = evaluate_predictions(logits, labels)
    parts = [(logits[rows], labels[rows]) for rows in (slice(cut), slice(cut, None)) if len(labels[rows])]
    weights = [len(part_labels) / len(labels) for _, part_labels in parts]
    values = [evaluate_predictions(*part) for part in parts]
    for name in ("top1_error", "top5_error", "nll", "brier"):
        assert whole[name] == pytest.approx(np.dot(weights, [value[name] for value in values]), abs=1e-9)
    assert whole["ece"] <= np.dot(weights, [value["ece"] for value in values]) + 1e-10


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
def test_undefined_input_raises_value_error(logits, labels, message):
    functions = [metric.value for metric in METRICS if metric.of == LOGITS]
    functions += [fit_temperature, cross_fitted_logits, lambda z, y: bootstrap_metrics(z, y, None)]
    for function in functions:
        with pytest.raises(ValueError, match=message):
            function(logits, labels)
