"""The metric registry: names, units, limits and undefined input of all metrics."""

import numpy as np
import pytest
import torch
from arrays import random_predictions

from cskd.evaluate.bootstrap import bootstrap_metrics
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.metrics import LOGITS, METRICS, TRACKED, evaluate_calibration, evaluate_predictions
from cskd.evaluate.scores import domain_metrics, expected_calibration_error, negative_log_likelihood


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


def test_metrics_of_perfect_and_of_wrong_predictions():
    logits = 1000 * torch.eye(6)
    right = evaluate_predictions(logits, torch.arange(6)) | evaluate_calibration(logits, torch.arange(6))
    zero = ("top1_error", "top5_error", "ece", "nll", "brier", "debiased_ece", "adaptive_ece", "classwise_ece")
    assert {name: right[name] for name in zero} == dict.fromkeys(zero, 0)
    wrong = evaluate_calibration(logits, (torch.arange(6) + 1) % 6)
    assert (wrong["top1_error"], wrong["ece"], wrong["adaptive_ece"], wrong["brier"]) == (100, 100, 100, 2)
    assert wrong["nll"] == 1000
    assert wrong["classwise_ece"] == pytest.approx(100 * 2 / 6)


def test_top5_error_is_left_out_where_five_classes_make_it_zero():
    logits, labels = torch.randn(8, 5), torch.zeros(8, dtype=torch.long)
    assert "top5_error" not in evaluate_predictions(logits, labels)
    assert "top5_error" in evaluate_predictions(torch.randn(8, 6), labels)


def test_single_precision_is_evaluated_in_double():
    logits, labels = random_predictions(0)
    single = logits.astype(np.float32)
    expected = evaluate_calibration(single.astype(np.float64), labels)
    assert evaluate_calibration(single, labels) == expected
    assert evaluate_calibration(torch.tensor(single), torch.tensor(labels)) == expected


def test_labels_may_be_on_another_device_than_the_logits():
    """On torch's device ``meta``, which has no values, reading one raises; two devices would raise before."""
    with pytest.raises(NotImplementedError, match="meta tensor"):
        negative_log_likelihood(torch.zeros(2, 3, device="meta"), np.array([0, 1]))


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
