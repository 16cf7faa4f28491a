"""Splits and predictions from arrays, for tests that need no prepared dataset and no network."""

import numpy as np


class ArraySplit:
    """A split with the interface of ImageSplit, over a list of uint8 (H, W, 3) arrays."""

    def __init__(self, images, labels):
        self.images, self.labels = images, np.asarray(labels)
        self.sizes = np.array([image.shape[:2] for image in images], dtype=np.int32)

    def __len__(self):
        return len(self.labels)

    def image(self, index):
        return self.images[index]

    def uniform(self):
        return np.stack(self.images) if len({image.shape for image in self.images}) == 1 else None


def random_split(count: int, classes: int, size: tuple[int, int] | None = (8, 8), seed: int = 0) -> ArraySplit:
    """Return noise images whose brightness depends on the class. size None: random sizes."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = []
    for label in labels:
        shape = size or tuple(random.integers(20, 60, size=2))
        noise = random.integers(0, 100, size=(*shape, 3))
        images.append((noise + 150 * label / max(1, classes - 1)).astype(np.uint8))
    return ArraySplit(images, labels)


def random_predictions(
    seed: int, samples: int = 300, classes: int = 12, scale: float = 2.0, decimals: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Return logits (N, C) that favour the true class, and labels (N,). Few decimals give ties."""
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=samples)
    logits = scale * random.normal(size=(samples, classes))
    logits[np.arange(samples), labels] += scale * 0.7
    return logits.round(decimals), labels
