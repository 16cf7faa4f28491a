"""Metrics that are computed from a run's stored predictions."""

import math
from dataclasses import dataclass, field

import numpy as np

from cskd.data.splits import choose
from cskd.evaluate.bootstrap import bootstrap_metrics
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.metrics import UNSCALED, Metric, evaluate_calibration
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import ReliabilityBins, reliability_bins

BINS = 20
RESAMPLES = 400  # of the test images; the standard error from them has a relative error of 3.5 %
RAW, TRAINING_SPLIT, UNUSED, CROSS_FITTED = "none", "training split", "unused images", "cross-fitted"
SCALINGS = (RAW, TRAINING_SPLIT, UNUSED, CROSS_FITTED)
UNUSED_IMAGES = 5000  # to which the temperature is fitted


@dataclass(frozen=True)
class Evaluation:
    """One run's test predictions after the last epoch, evaluated beyond the tracked metrics.

    metrics: by scaling (SCALINGS) and name: the metrics of RESCALED. TRAINING_SPLIT is absent if the run stored no
        predictions of training images.
    temperatures: by scaling, without RAW; CROSS_FITTED is the mean over both halves.
    replicates: (R,) values of each unscaled metric under resampling of the test images, stratified by class. The
        resamples depend on the labels alone, so the replicates of two runs on the same test set are paired.
    bins: 20 equal-width bins of confidence.
    predicted_log_probability, true_log_probability: (M,) natural logarithms for the M misclassified images.
    stored: the metrics of UNSCALED by name; NaN if undefined.
    unused: the metrics of RESCALED by name, of training images that the run did not use; {} if it stored none.
    """

    run_key: str
    metrics: dict[str, dict[str, float]]
    temperatures: dict[str, float]
    replicates: dict[str, np.ndarray]
    bins: ReliabilityBins
    predicted_log_probability: np.ndarray
    true_log_probability: np.ndarray
    stored: dict[str, float]
    unused: dict[str, float] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """Every metric by name, without temperature scaling."""
        return self.metrics.get(RAW, {}) | self.stored


Evaluations = dict[str, Evaluation]  # by run key


def evaluate(run_key: str, predictions: Predictions, weights: np.ndarray) -> Evaluation:
    """Return the evaluation of one run's predictions.

    Args:
        weights: (R, N), see ``cskd.evaluate.bootstrap.resampling_weights``.

    Raises ValueError for undefined input, as the metrics do.
    """
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
    bins = reliability_bins(logits, labels, BINS)
    unused = evaluate_calibration(*predictions.unused) if predictions.unused else {}
    return Evaluation(run_key, metrics, temperatures, replicates, bins, predicted, true, stored, unused)


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
