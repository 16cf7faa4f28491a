"""The evaluation of a run's predictions beyond the tracked metrics, and the file that stores it.

``evaluate_run`` computes it, once, in the process that has trained the run. Reading it does not import torch.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from cskd.evaluate.bins import ReliabilityBins
from cskd.evaluate.metrics import RESCALED, UNSCALED
from cskd.evaluate.predictions import load_arrays
from cskd.utils.integrity import archive_checksums, write_archive

VERSION = 3  # of the computed values; increase it when they change, so that stored evaluations are computed again
RESAMPLES = 400  # of the test images; the standard error from them has a relative error of 3.5 %
RAW, TRAINING_SPLIT, UNUSED, CROSS_FITTED = "none", "training split", "unused images", "cross-fitted"
SCALINGS = (RAW, TRAINING_SPLIT, UNUSED, CROSS_FITTED)


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
        "unused": evaluation.unused,
    }
    arrays = {f"replicates/{name}": values for name, values in evaluation.replicates.items()}
    arrays |= {f"bins/{part.name}": getattr(evaluation.bins, part.name) for part in fields(ReliabilityBins)}
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
        numbers["unused"],
    )


def _version() -> list:
    return [VERSION, RESAMPLES, *(metric.name for metric in (*RESCALED, *UNSCALED))]
