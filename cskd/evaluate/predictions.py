"""The predictions of a trained network, and the file that stores them."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cskd.utils.integrity import read_archive, write_archive

# NumPy parses array headers as Python expressions. If two threads do so at once, Python 3.11 sometimes raises a
# SystemError (CPython issue 106905).
_PARSING = threading.Lock()


@dataclass(frozen=True)
class Predictions:
    """Logits (N, C), pooled features (N, D) and labels (N,) of N images, in the order of their split.

    indices: (N,), the position of each image in its prepared split; None if unknown.
    classes: the C class names; empty if unknown.
    training: the logits and labels of training images; None if they are not stored.
    """

    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    training: tuple[np.ndarray, np.ndarray] | None = None


def save_predictions(
    path: Path,
    predictions: Predictions,
    training: Predictions | None = None,
    before_replace: Callable[[], None] = lambda: None,
) -> None:
    """Write predictions to an npz file atomically.

    Args:
        training: predictions for training images, of which only logits and labels are stored.
        before_replace: as in ``atomic_write``.
    """
    arrays = {"logits": predictions.logits, "features": predictions.features, "labels": predictions.labels}
    if predictions.indices is not None:
        arrays["indices"] = predictions.indices
    if predictions.classes:
        arrays["classes"] = np.array(predictions.classes)
    if training is not None:
        arrays |= {"training_logits": training.logits, "training_labels": training.labels}
    write_archive(path, lambda file: np.savez(file, **arrays), before_replace=before_replace)


def load_predictions(path: Path) -> Predictions:
    """Read the file of ``save_predictions``. Raises as ``load_arrays``."""
    arrays = load_arrays(path)
    return Predictions(
        arrays["logits"],
        arrays["features"],
        arrays["labels"],
        arrays.get("indices"),
        tuple(arrays["classes"].tolist()) if "classes" in arrays else (),
        (arrays["training_logits"], arrays["training_labels"]) if "training_logits" in arrays else None,
    )


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by name. Raises OSError, or ValueError for a damaged file."""
    content = read_archive(path)
    with _PARSING, np.load(content, allow_pickle=False) as arrays:
        by_name = dict(arrays)
    for name, array in by_name.items():
        if not isinstance(array, np.ndarray):  # NumPy returns other members of the archive as bytes
            raise ValueError(f"{name} is not an array")
    return by_name
