"""Metrics that are computed from a run's stored predictions, cached by run key."""

import json
import math
import re
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd

from analysis.load.cache import load_cached, store_cached
from analysis.load.store import Store, UnusableRun
from analysis.stats.threads import one_thread
from cskd.data.splits import choose
from cskd.evaluate.bootstrap import bootstrap_metrics, resampling_weights
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.metrics import RESCALED, UNSCALED, Metric, evaluate_calibration
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import ReliabilityBins, reliability_bins

VERSION = 2  # of the computed values; increase it when they change, so that cached values are not used
BINS = 20
RESAMPLES = 400  # of the test images; the standard error from them has a relative error of 3.5 %
RAW, TRAINING_SPLIT, UNUSED, CROSS_FITTED = "none", "training split", "unused images", "cross-fitted"
SCALINGS = (RAW, TRAINING_SPLIT, UNUSED, CROSS_FITTED)
UNUSED_IMAGES = 5000  # to which the temperature is fitted
WORKERS = 2  # runs at once; each takes about 150 MB for the 10,000 predictions of CIFAR-100


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

    run_key: str
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
    return Evaluation(
        run_key,
        metrics,
        temperatures,
        replicates,
        reliability_bins(logits, labels, BINS),
        predicted,
        true,
        stored,
    )


def _first(unused: tuple[np.ndarray, np.ndarray] | None) -> tuple[np.ndarray, np.ndarray] | None:
    """Return UNUSED_IMAGES of the unused images, which are stored in the order of their classes or files."""
    if unused is None:
        return None
    chosen = choose(len(unused[1]), min(UNUSED_IMAGES, len(unused[1])), "temperature")
    return unused[0][chosen], unused[1][chosen]


def evaluations(
    runs: pd.DataFrame, store: Store, folder: Path, cache: Path, advance: Callable[[], None] = lambda: None
) -> tuple[dict[str, Evaluation], list[str]]:
    """Return the evaluations of finished runs by run key, and a note for each run that cannot be evaluated.

    Args:
        folder: the cache of evaluations. An entry is used if its run, predictions and VERSION are the same.
        cache: for downloaded predictions.
        advance: called after each run.
    """
    weights = _ResamplingWeights()

    def evaluate_one(run: pd.Series) -> Evaluation | str:
        try:
            path = folder / f"{re.sub(r'[^0-9A-Za-z-]', '_', run.run_key)}.npz"
            source = _checksums(store.predictions_file(run, cache))
            evaluation = _load(path, run.run_key, source)
            if evaluation is None:
                predictions = store.load_predictions(run, cache)
                evaluation = evaluate(run.run_key, predictions, weights.of(predictions.labels))
                _save(path, source, evaluation)
            return evaluation
        except UnusableRun as error:
            return f"{error}: not evaluated."
        except ValueError as error:
            return f"{run.run} cannot be evaluated ({error})."
        finally:
            advance()

    unique = runs.drop_duplicates("run_key")
    # One numerical thread per worker: more threads than cores would wait for each other.
    with one_thread(), ThreadPoolExecutor(WORKERS) as executor:
        results = list(executor.map(evaluate_one, (run for _, run in unique.iterrows())))
    by_key = {result.run_key: result for result in results if isinstance(result, Evaluation)}
    return by_key, [result for result in results if isinstance(result, str)]


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


def _checksums(file: Path) -> str:
    """Return the checksums in a predictions file, which identify its content.

    An invalid file gives "": reading it raises UnusableRun later.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return " ".join(f"{part.filename}:{part.file_size}:{part.CRC:08x}" for part in archive.infolist())
    except Exception:  # zipfile raises many types for a damaged header
        return ""


class _ResamplingWeights:
    """The resampling weights of each test set, computed once for all runs on it."""

    def __init__(self):
        self._by_labels: dict[bytes, np.ndarray] = {}
        self._lock = Lock()

    def of(self, labels: np.ndarray) -> np.ndarray:
        with self._lock:
            key = labels.tobytes()
            if key not in self._by_labels:
                self._by_labels[key] = resampling_weights(labels, RESAMPLES)
            return self._by_labels[key]


def _version() -> list:
    return [VERSION, RESAMPLES, *(metric.name for metric in (*RESCALED, *UNSCALED))]


def _save(path: Path, source: str, evaluation: Evaluation) -> None:
    numbers = {
        "version": _version(),
        "source": source,
        "metrics": evaluation.metrics,
        "temperatures": evaluation.temperatures,
        "stored": evaluation.stored,
    }
    arrays = {f"replicates/{name}": values for name, values in evaluation.replicates.items()}
    arrays |= {f"bins/{field.name}": getattr(evaluation.bins, field.name) for field in fields(ReliabilityBins)}
    arrays |= {"predicted": evaluation.predicted_log_probability, "true": evaluation.true_log_probability}
    store_cached(path, {"numbers": np.array(json.dumps(numbers))} | arrays)


def _load(path: Path, run_key: str, source: str) -> Evaluation | None:
    """Return the cached evaluation of these predictions, or None if there is none of this version."""
    arrays = load_cached(path)
    if arrays is None:
        return None
    numbers = json.loads(str(arrays["numbers"]))
    if (numbers["version"], numbers["source"]) != (_version(), source):
        return None

    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}

    return Evaluation(
        run_key,
        numbers["metrics"],
        numbers["temperatures"],
        group("replicates/"),
        ReliabilityBins(**group("bins/")),
        arrays["predicted"],
        arrays["true"],
        numbers["stored"],
    )
