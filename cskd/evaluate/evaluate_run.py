"""Compute the evaluation of a run's predictions."""

import math
from functools import lru_cache

import numpy as np

from cskd.evaluate.bootstrap import bootstrap_metrics, resampling_weights
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.evaluation import CROSS_FITTED, RAW, RESAMPLES, TRAINING_SPLIT, UNUSED, Evaluation
from cskd.evaluate.metrics import UNSCALED, Metric, evaluate_calibration
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import reliability_bins
from cskd.utils.seeding import choose

UNUSED_IMAGES = 5000  # to which the temperature is fitted


def evaluate(predictions: Predictions, weights: np.ndarray | None = None) -> Evaluation:
    """Return the evaluation of one run's predictions.

    Args:
        weights: (R, N), see ``cskd.evaluate.bootstrap.resampling_weights``; None for RESAMPLES resamples.

    Raises ValueError for undefined input, as the metrics do.
    """
    if weights is None:
        weights = _weights(predictions.labels.tobytes(), predictions.labels.dtype.str)
    logits, labels = predictions.logits, predictions.labels
    metrics, temperatures = {RAW: evaluate_calibration(logits, labels)}, {}
    for scaling, images in ((TRAINING_SPLIT, predictions.training), (UNUSED, _first(predictions.unused))):
        if images is not None:
            temperatures[scaling] = fit_temperature(*images)
            metrics[scaling] = evaluate_calibration(logits / temperatures[scaling], labels)
    scaled, halves = cross_fitted_logits(logits, labels)
    temperatures[CROSS_FITTED] = float(np.mean(halves))
    metrics[CROSS_FITTED] = evaluate_calibration(scaled, labels)
    stored = {metric.name: _value_or_nan(metric, predictions) for metric in UNSCALED}
    if UNUSED in metrics:
        stored["scaled_nll"], scaled = metrics[UNUSED]["nll"], logits / temperatures[UNUSED]
    replicates = bootstrap_metrics(logits, labels, weights)
    replicates["scaled_nll"] = bootstrap_metrics(scaled, labels, weights)["nll"]
    predicted, true = _misclassified(logits, labels)
    bins = reliability_bins(logits, labels)
    unused = evaluate_calibration(*predictions.unused) if predictions.unused else {}
    return Evaluation(metrics, temperatures, replicates, bins, predicted, true, stored, unused)


def _first(unused: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return UNUSED_IMAGES of the unused images, which are stored in the order of their classes or files."""
    if unused is None:
        return None
    chosen = choose(len(unused[1]), min(UNUSED_IMAGES, len(unused[1])), "temperature")
    return unused[0][chosen], unused[1][chosen]


def _value_or_nan(metric: Metric, predictions: Predictions) -> float:
    """Return the metric; NaN if it is undefined (collapsed features, no errors), to keep the run's other metrics."""
    try:
        return metric.value(
            predictions.logits, predictions.labels, predictions.features, predictions.classes, predictions.near_ood
        )
    except ValueError:
        return math.nan


def _misclassified(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log-probabilities of the predicted and of the true label of the misclassified images."""
    predicted = logits.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    shifted = logits[wrong].astype(float)
    shifted -= shifted.max(axis=1, keepdims=True)
    log_probability = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(wrong))
    return log_probability[rows, predicted[wrong]], log_probability[rows, labels[wrong]]


@lru_cache(2)
def _weights(labels: bytes, dtype: str) -> np.ndarray:
    """Return the resampling weights of a test set. Cached, since consecutive runs share their test set."""
    return resampling_weights(np.frombuffer(labels, dtype).copy(), RESAMPLES)
