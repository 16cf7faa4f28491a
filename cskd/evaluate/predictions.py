"""What a trained network says of images, and the file that it is kept in."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cskd.utils.integrity import read_sealed, write_sealed

# numpy parses headers as Python expressions. Where two threads do so at once, Python 3.11 now and then raises a
# SystemError (seen here; CPython's issue 106905).
_PARSING = threading.Lock()


@dataclass(frozen=True)
class Predictions:
    """Of N images in the order of their split: logits (N, C), pooled features (N, D), labels (N,).

    indices: (N,) where each image stands in its prepared split. classes: the C names. training: logits and labels of
    training images. Runs of earlier versions kept none of these: None, no names, and None.
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
    """Into an npz file, whole or not at all. training: of training images, whose logits and labels are kept.

    before_replace: as that of atomic_write.
    """
    arrays = {"logits": predictions.logits, "features": predictions.features, "labels": predictions.labels}
    if predictions.indices is not None:
        arrays["indices"] = predictions.indices
    if predictions.classes:
        arrays["classes"] = np.array(predictions.classes)
    if training is not None:
        arrays |= {"training_logits": training.logits, "training_labels": training.labels}
    write_sealed(path, lambda file: np.savez(file, **arrays), before_replace=before_replace)


def load_predictions(path: Path) -> Predictions:
    """What ``save_predictions`` wrote. Raises as ``load_arrays``."""
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
    """The arrays of an npz file by name.

    Raises OSError, ValueError (cskd.utils.integrity.Damaged) or KeyError for other files.
    """
    content = read_sealed(path)
    with _PARSING, np.load(content, allow_pickle=False) as arrays:
        found = dict(arrays)
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # numpy gives the bytes of a member that is none
            raise ValueError(f"{name} is not an array")
    return found
