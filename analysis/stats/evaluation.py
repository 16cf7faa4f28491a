"""What a run's predictions come to: computed once, kept by run key."""

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
from cskd.evaluate.bootstrap import bootstrap_metrics, resampling_weights
from cskd.evaluate.calibration import cross_fitted_logits, fit_temperature
from cskd.evaluate.metrics import evaluate_calibration
from cskd.evaluate.predictions import Predictions
from cskd.evaluate.scores import ReliabilityBins, reliability_bins
from cskd.evaluate.separation import feature_spread, prediction_variance

VERSION = 2  # of what is computed; raise it when that changes
BINS = 20
RESAMPLES = 400  # of the test images: the standard error that they give is itself known to 3.5 %
RAW, TRAINING_SPLIT, CROSS_FITTED = "none", "training split", "cross-fitted"
SCALINGS = (RAW, TRAINING_SPLIT, CROSS_FITTED)
WORKERS = 2  # runs at once: each takes some 150 MB with CIFAR-100's 10,000 predictions


@dataclass(frozen=True)
class Evaluation:
    """One run's test predictions after the last epoch, evaluated beyond what was tracked while it trained.

    metrics: by scaling (``SCALINGS``), the value of each of top1_error, ece, adaptive_ece, classwise_ece (percent),
        nll, brier. A scaling is not there where it could not be fitted (a run of an earlier version).
    temperatures: of each scaling but RAW; cross-fitted: the mean of the two halves'.
    replicates: of each unscaled metric (R,) values under resampling of the test images, stratified by class. The
        resamples depend on the labels alone: those of two runs on the same test set belong together pair by pair.
    bins: 20 equal-width bins of confidence.
    predicted_log_probability, true_log_probability: (M,) of the M misclassified images, natural logarithm.
    separation: feature_spread (mean within-class over between-class distance; NaN where undefined),
        prediction_variance.
    """

    run_key: str
    metrics: dict[str, dict[str, float]]
    temperatures: dict[str, float]
    replicates: dict[str, np.ndarray]
    bins: ReliabilityBins
    predicted_log_probability: np.ndarray
    true_log_probability: np.ndarray
    separation: dict[str, float]


def evaluate(run_key: str, predictions: Predictions, weights: np.ndarray) -> Evaluation:
    """Everything from one run's predictions.

    weights: (R, N), see ``cskd.evaluate.bootstrap.resampling_weights``. Raises ValueError for undefined input, as the metrics
    do.
    """
    logits, labels = predictions.logits, predictions.labels
    metrics, temperatures = {RAW: evaluate_calibration(logits, labels)}, {}
    if predictions.training is not None:
        temperatures[TRAINING_SPLIT] = fit_temperature(*predictions.training)
        metrics[TRAINING_SPLIT] = evaluate_calibration(logits / temperatures[TRAINING_SPLIT], labels)
    scaled, halves = cross_fitted_logits(logits, labels)
    temperatures[CROSS_FITTED] = float(np.mean(halves))
    metrics[CROSS_FITTED] = evaluate_calibration(scaled, labels)
    predicted, true = _misclassified(logits, labels)
    return Evaluation(
        run_key,
        metrics,
        temperatures,
        bootstrap_metrics(logits, labels, weights),
        reliability_bins(logits, labels, BINS),
        predicted,
        true,
        {
            "feature_spread": _spread(predictions),
            "prediction_variance": prediction_variance(logits, labels),
        },
    )


def _spread(predictions: Predictions) -> float:
    """NaN where it is undefined, as for features that have collapsed: all else of the run still counts."""
    try:
        return feature_spread(predictions.features, predictions.labels)
    except ValueError:
        return math.nan


def _misclassified(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The log-probabilities of the predicted and of the true label of the misclassified images."""
    predicted = logits.argmax(1)
    wrong = np.flatnonzero(predicted != labels)
    kept = logits[wrong].astype(float)
    kept -= kept.max(axis=1, keepdims=True)
    log_probability = kept - np.log(np.exp(kept).sum(axis=1, keepdims=True))
    rows = np.arange(len(wrong))
    return log_probability[rows, predicted[wrong]], log_probability[rows, labels[wrong]]


def evaluations(
    runs: pd.DataFrame, store: Store, folder: Path, cache: Path, advance: Callable[[], None] = lambda: None
) -> tuple[dict[str, Evaluation], list[str]]:
    """By run key, the evaluation of each of these finished runs; and a note on each that cannot be evaluated.

    folder: where evaluations are kept; one of the same run, file and version is not computed again.
    cache: where predictions go that are not on this machine. advance: called after each run.
    """
    weights = _Weights()

    def one(run: pd.Series) -> Evaluation | str:
        try:
            path = folder / f"{re.sub(r'[^0-9A-Za-z-]', '_', run.run_key)}.npz"
            source = _digest(store.predictions_file(run, cache))
            kept = _load(path, run.run_key, source)
            if kept is None:
                predictions = store.load_predictions(run, cache)
                kept = evaluate(run.run_key, predictions, weights.of(predictions.labels))
                _save(path, source, kept)
            return kept
        except UnusableRun as error:
            return f"{error}: not evaluated."
        except ValueError as error:
            return f"{run.run} cannot be evaluated ({error})."
        finally:
            advance()

    unique = runs.drop_duplicates("run_key")
    # One thread of arithmetic a worker: more would wait for each other, above all on a busy machine.
    with one_thread(), ThreadPoolExecutor(WORKERS) as executor:
        results = list(executor.map(one, (run for _, run in unique.iterrows())))
    found = {result.run_key: result for result in results if isinstance(result, Evaluation)}
    return found, [result for result in results if isinstance(result, str)]


def _digest(file: Path) -> str:
    """Of the content of predictions, from the checksums that the file has itself: wherever and whenever it was written.

    A file that is none raises UnusableRun later, where it is read.
    """
    try:
        with zipfile.ZipFile(file) as parts:
            return " ".join(f"{part.filename}:{part.file_size}:{part.CRC:08x}" for part in parts.infolist())
    except Exception:  # a damaged header makes zipfile raise whatever it leads to
        return ""


class _Weights:
    """The resampling weights of a test set, made once for all runs on it."""

    def __init__(self):
        self._made: dict[bytes, np.ndarray] = {}
        self._lock = Lock()

    def of(self, labels: np.ndarray) -> np.ndarray:
        with self._lock:
            key = labels.tobytes()
            if key not in self._made:
                self._made[key] = resampling_weights(labels, RESAMPLES)
            return self._made[key]


def _save(path: Path, source: str, one: Evaluation) -> None:
    numbers = {
        "version": [VERSION, RESAMPLES],
        "source": source,
        "metrics": one.metrics,
        "temperatures": one.temperatures,
        "separation": one.separation,
    }
    arrays = {f"replicates/{name}": values for name, values in one.replicates.items()}
    arrays |= {f"bins/{field.name}": getattr(one.bins, field.name) for field in fields(ReliabilityBins)}
    arrays |= {"predicted": one.predicted_log_probability, "true": one.true_log_probability}
    store_cached(path, {"numbers": np.array(json.dumps(numbers))} | arrays)


def _load(path: Path, run_key: str, source: str) -> Evaluation | None:
    """What was kept of these predictions by this version; None where that is nothing, or nothing readable."""
    named = load_cached(path)
    if named is None:
        return None
    numbers = json.loads(str(named["numbers"]))
    if (numbers["version"], numbers["source"]) != ([VERSION, RESAMPLES], source):
        return None

    def under(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): values for name, values in named.items() if name.startswith(prefix)}

    return Evaluation(
        run_key,
        numbers["metrics"],
        numbers["temperatures"],
        under("replicates/"),
        ReliabilityBins(**under("bins/")),
        named["predicted"],
        named["true"],
        numbers["separation"],
    )
