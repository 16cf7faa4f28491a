"""What a trained network says of images, and the file that it is kept in."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cskd.files import written_aside


@dataclass(frozen=True)
class Predictions:
    """Of N images in the order of their split: logits (N, C), pooled features (N, D), labels (N,).

    indices: (N,) where each image stands in its prepared split. classes: the C names.
    Runs of earlier versions kept neither: None, and no names.
    """

    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray | None = None
    classes: tuple[str, ...] = ()


def save_predictions(path: Path, predictions: Predictions, training: Predictions | None = None) -> None:
    """Into an npz file, whole or not at all. training: of training images, whose logits and labels are kept."""
    arrays = {"logits": predictions.logits, "features": predictions.features, "labels": predictions.labels}
    if predictions.indices is not None:
        arrays["indices"] = predictions.indices
    if predictions.classes:
        arrays["classes"] = np.array(predictions.classes)
    if training is not None:
        arrays |= {"training_logits": training.logits, "training_labels": training.labels}
    with written_aside(path) as file:
        np.savez(file, **arrays)


def load_predictions(path: Path) -> Predictions:
    """What ``save_predictions`` wrote. Raises OSError, ValueError, KeyError or zipfile.BadZipFile for other files."""
    with np.load(path, allow_pickle=False) as arrays:
        return Predictions(
            arrays["logits"],
            arrays["features"],
            arrays["labels"],
            arrays.get("indices"),
            tuple(arrays["classes"].tolist()) if "classes" in arrays else (),
        )


def load_training_predictions(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """(logits, labels) of the training images that are kept with a run; None in runs of earlier versions.

    Raises as ``load_predictions``.
    """
    with np.load(path, allow_pickle=False) as arrays:
        if "training_logits" not in arrays:
            return None
        return arrays["training_logits"], arrays["training_labels"]
