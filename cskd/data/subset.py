"""Parts of a split, seen through the interface of the whole: chosen classes, fewer images a class."""

import numpy as np
import torch

from cskd.data.store import ImageSplit
from cskd.errors import UserError
from cskd.randomness import generator


class SplitView:
    """Some images of a split, in the order of ``indices``, with labels of their own."""

    def __init__(self, split: ImageSplit, indices: np.ndarray, labels: np.ndarray):
        self.split, self.indices, self.labels = split, indices, labels

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def sizes(self) -> np.ndarray:
        return self.split.sizes[self.indices]

    def image(self, index: int) -> np.ndarray:
        return self.split.image(self.indices[index])

    def uniform(self) -> np.ndarray | None:
        whole = self.split.uniform()
        return None if whole is None else whole[self.indices]


Split = ImageSplit | SplitView


def choose(count: int, wanted: int, stream: str) -> np.ndarray:
    """``wanted`` of ``count`` indices, ascending; the same ones for every seed of a run."""
    order = torch.randperm(count, generator=generator(0, stream)).numpy()
    return np.sort(order[:wanted])


def restrict(
    name: str, classes: tuple[str, ...], train: Split, test: Split, *, num_classes: int, images_per_class: int
) -> tuple[tuple[str, ...], Split, Split]:
    """``num_classes`` of the classes with ``images_per_class`` training images each, all their test images.

    The choice is drawn once and does not depend on a run's seed. Returns (class names, train, test).
    """
    if num_classes > len(classes):
        raise UserError(f"{name}: {num_classes} classes are asked for, there are {len(classes)}")
    kept = choose(len(classes), num_classes, "subset/classes")
    chosen = []
    for label in kept:
        members = np.flatnonzero(train.labels == label)
        if len(members) < images_per_class:
            raise UserError(
                f"{name}: {images_per_class} training images a class are asked for, "
                f"class {classes[label]!r} has {len(members)}"
            )
        chosen.append(members[choose(len(members), images_per_class, f"subset/images/{label}")])
    train_indices = np.sort(np.concatenate(chosen))
    test_indices = np.flatnonzero(np.isin(test.labels, kept))
    return (
        tuple(classes[label] for label in kept),
        SplitView(train, train_indices, np.searchsorted(kept, train.labels[train_indices])),
        SplitView(test, test_indices, np.searchsorted(kept, test.labels[test_indices])),
    )
