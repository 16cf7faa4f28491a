"""Parts of a split, seen through the interface of the whole: chosen classes, fewer images, a validation split."""

import hashlib

import numpy as np
import torch

from cskd.data.store import ImageSplit, JoinedSplit
from cskd.utils.errors import UserError
from cskd.utils.seeding import generator


class SplitView:
    """Some images of a split, in the order of ``indices``, with labels of their own.

    Of a view it is a view of what that one shows: ``indices`` always count in the prepared split.
    """

    def __init__(self, split: "Split", indices: np.ndarray, labels: np.ndarray):
        if isinstance(split, SplitView):
            split, indices = split.split, split.indices[indices]
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


Split = ImageSplit | JoinedSplit | SplitView


def choose(count: int, wanted: int, stream: str) -> np.ndarray:
    """``wanted`` of ``count`` indices, ascending; the same ones for every seed of a run."""
    order = torch.randperm(count, generator=generator(0, stream)).numpy()
    return np.sort(order[:wanted])


def restrict(
    name: str,
    classes: tuple[str, ...],
    train: Split,
    test: Split | None,
    *,
    num_classes: int | None,
    images_per_class: int,
) -> tuple[tuple[str, ...], Split, Split | None]:
    """``num_classes`` of the classes with ``images_per_class`` training images each, all their test images.

    num_classes None: all of them, and one with fewer training images than that keeps those that it has.
    The choice is drawn once and does not depend on a run's seed. Returns (class names, train, test); a test
    set that was not opened stays None.
    """
    if num_classes is not None and num_classes > len(classes):
        raise UserError(f"{name}: {num_classes} classes are asked for, there are {len(classes)}")
    kept = np.arange(len(classes)) if num_classes is None else choose(len(classes), num_classes, "subset/classes")
    chosen = []
    for label in kept:
        members = np.flatnonzero(train.labels == label)
        if len(members) < images_per_class and num_classes is not None:
            raise UserError(
                f"{name}: {images_per_class} training images a class are asked for, "
                f"class {classes[label]!r} has {len(members)}"
            )
        chosen.append(members[choose(len(members), images_per_class, f"subset/images/{label}")])
    train_indices = np.sort(np.concatenate(chosen))
    return (
        tuple(classes[label] for label in kept),
        _relabelled(train, train_indices, kept),
        None if test is None else _relabelled(test, np.flatnonzero(np.isin(test.labels, kept)), kept),
    )


def _relabelled(split: Split, indices: np.ndarray, kept: np.ndarray) -> SplitView:
    return SplitView(split, indices, np.searchsorted(kept, split.labels[indices]))


def hold_out(name: str, train: Split, fraction: float) -> tuple[SplitView, SplitView]:
    """(what is left to train on, validation split): ``fraction`` of each class's training images is held out.

    Stratified: of n images of a class, fraction * n to the nearest, at least one and never all. The choice is
    drawn once and does not depend on a run's seed. Raises UserError for a class of a single image.
    """
    held = []
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        if len(members) < 2:
            raise UserError(f"{name}: class {label} has one training image, none can be held out for validation")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held.append(members[choose(len(members), count, f"validation/{label}")])
    held = np.sort(np.concatenate(held))
    left = np.setdiff1d(np.arange(len(train)), held)
    return SplitView(train, left, train.labels[left]), SplitView(train, held, train.labels[held])


def indices_digest(view: SplitView) -> str:
    """SHA-256 over the view's indices in the prepared split, as little-endian 64-bit integers."""
    return hashlib.sha256(view.indices.astype("<i8").tobytes()).hexdigest()
