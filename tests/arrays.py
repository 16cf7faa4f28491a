"""Splits and predictions from arrays, for tests that need no prepared dataset and no network."""

import numpy as np

from cskd.data.splits import Split


def array_split(images: list[np.ndarray], labels) -> Split:
    """Return a split of these images, each uint8 (H, W, 3)."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    return Split.prepared(np.concatenate([image.ravel() for image in images]), np.asarray(labels), sizes)


def labelled_split(labels: np.ndarray) -> Split:
    """Return a split with these labels and images without pixels."""
    return Split.prepared(np.empty(0, np.uint8), labels, np.zeros((len(labels), 2), np.int32))


def random_split(count: int, classes: int, size: tuple[int, int] | None = (8, 8), seed: int = 0) -> Split:
    """Return noise images whose brightness depends on the class. size None: random sizes."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = []
    for label in labels:
        shape = size or tuple(random.integers(20, 60, size=2))
        noise = random.integers(0, 100, size=(*shape, 3))
        images.append((noise + 150 * label / max(1, classes - 1)).astype(np.uint8))
    return array_split(images, labels)


def random_predictions(
    seed: int, samples: int = 300, classes: int = 12, scale: float = 2.0, decimals: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, C) that favour the true class, and labels (N,). Few decimals give ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    logits = scale * random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += scale * 0.7
    return logits.round(decimals), labels
