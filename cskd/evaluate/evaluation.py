"""The evaluation of a run's predictions beyond the tracked metrics, and the file that stores it.

It is computed once, by the process that has trained the run. The file stays valid as long as the predictions do.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from cskd.evaluate.bootstrap import bootstrap_metrics, resampling_weights
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.metrics import RESCALED, UNSCALED, Metric, evaluate_calibration
from cskd.evaluate.predictions import Predictions, load_arrays
from cskd.evaluate.scores import ReliabilityBins, reliability_bins
from cskd.utils.integrity import archive_checksums, write_archive
from cskd.utils.seeding import choose

VERSION = 2  # of the computed values; increase it when they change, so that stored evaluations are computed again
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
    """

    metrics: dict[str, dict[str, float]]
    temperatures: dict[str, float]
    replicates: dict[str, np.ndarray]
    bins: ReliabilityBins
    predicted_log_probability: np.ndarray
    true_log_probability: np.ndarray
    stored: dict[str, float]

    @property
    def values(self) -> dict[str, float]:
        """Every metric by name, without temperature scaling."""
        return self.metrics.get(RAW, {}) | self.stored


Evaluations = dict[str, Evaluation]  # by run key


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
    bins = reliability_bins(logits, labels, BINS)
    return Evaluation(metrics, temperatures, replicates, bins, predicted, true, stored)


def _first(unused: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return UNUSED_IMAGES of the unused images, which are stored in the order of their classes or files."""
    if unused is None:
        return None
    chosen = choose(len(unused[1]), min(UNUSED_IMAGES, len(unused[1])), "temperature")
    return unused[0][chosen], unused[1][chosen]


def _value_or_nan(metric: Metric, predictions: Predictions) -> float:
    """Return the metric; NaN if it is undefined (collapsed features, no errors), to keep the run's other metrics."""
    try:
        return metric.value(predictions.logits, predictions.labels, predictions.features, predictions.classes)
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


def save_evaluation(
    path: Path, evaluation: Evaluation, predictions: Path, before_replace: Callable[[], None] = lambda: None
) -> None:
    """Write an evaluation of the predictions in a file. before_replace: as in ``atomic_write``."""
    numbers = {
        "version": _version(),
        "source": archive_checksums(predictions),
        "metrics": evaluation.metrics,
        "temperatures": evaluation.temperatures,
        "stored": evaluation.stored,
    }
    arrays = {f"replicates/{name}": values for name, values in evaluation.replicates.items()}
    arrays |= {f"bins/{field.name}": getattr(evaluation.bins, field.name) for field in fields(ReliabilityBins)}
    arrays |= {"predicted": evaluation.predicted_log_probability, "true": evaluation.true_log_probability}
    arrays |= {"numbers": np.array(json.dumps(numbers))}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_archive(path, lambda file: np.savez(file, **arrays), durable=False, before_replace=before_replace)


def load_evaluation(path: Path, predictions: Path) -> Evaluation | None:
    """Return a stored evaluation; None if it is missing, damaged, or of other predictions or another version."""
    try:
        arrays = load_arrays(path)
        numbers = json.loads(str(arrays["numbers"]))
    except (OSError, ValueError, KeyError):
        return None
    if (numbers["version"], numbers["source"]) != (_version(), archive_checksums(predictions)):
        return None

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    return Evaluation(
        numbers["metrics"],
        numbers["temperatures"],
        group("replicates/"),
        ReliabilityBins(**group("bins/")),
        arrays["predicted"],
        arrays["true"],
        numbers["stored"],
    )


def _version() -> list:
    return [VERSION, RESAMPLES, *(metric.name for metric in (*RESCALED, *UNSCALED))]
