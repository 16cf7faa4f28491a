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
    training, unused: the logits and labels of images that the network was trained on, and of training images that a
        subset leaves out; None if they are not stored.
    near_ood: (M, C), the logits of test images of the classes that a subset leaves out; None if they are not stored.
    """

    logits: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    indices: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    training: tuple[np.ndarray, np.ndarray] | None = None
    unused: tuple[np.ndarray, np.ndarray] | None = None
    near_ood: np.ndarray | None = None


def save_predictions(
    path: Path,
    predictions: Predictions,
    training: Predictions | None = None,
    unused: Predictions | None = None,
    near_ood: Predictions | None = None,
    before_replace: Callable[[], None] = lambda: None,
) -> None:
    """Write predictions to an npz file atomically.

    Args:
        training, unused: predictions for training images, of which only logits and labels are stored.
        near_ood: predictions for test images of other classes, of which only logits are stored.
        before_replace: as in ``atomic_write``.
    """
    arrays = {"logits": predictions.logits, "features": predictions.features, "labels": predictions.labels}
    if predictions.indices is not None:
        arrays["indices"] = predictions.indices
    if predictions.classes:
        arrays["classes"] = np.array(predictions.classes)
    for name, images in (("training", training), ("unused", unused)):
        if images is not None:
            arrays |= {f"{name}_logits": images.logits, f"{name}_labels": images.labels}
    if near_ood is not None:
        arrays["near_ood_logits"] = near_ood.logits
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
        *(
            (arrays[f"{name}_logits"], arrays[f"{name}_labels"]) if f"{name}_logits" in arrays else None
            for name in ("training", "unused")
        ),
        arrays.get("near_ood_logits"),
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
