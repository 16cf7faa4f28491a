"""The images of a split in memory, and parts of it: fewer classes, fewer images, a validation split."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from cskd.utils.errors import UserError
from cskd.utils.seeding import generator


class ImageSplit:
    """The decoded images of one split, memory-mapped.

    pixels: uint8 (total,), the concatenated images, each (height, width, 3) in C order.
    labels: int64 (N,). sizes: int32 (N, 2), height and width in pixels.
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, sizes: np.ndarray):
        self.labels, self.sizes = labels, sizes
        self._pixels = pixels
        self._ends = np.cumsum(image_bytes(sizes))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return self._pixels.nbytes

    def image(self, index: int) -> np.ndarray:
        """Return the image, (height, width, 3) uint8, RGB, as a read-only view of the mapped file."""
        height, width = self.sizes[index]
        end = self._ends[index]
        return self._pixels[end - 3 * int(height) * int(width) : end].reshape(height, width, 3)

    def uniform(self) -> np.ndarray | None:
        """Return all images as one view (N, height, width, 3) uint8; None if their sizes differ."""
        if (self.sizes != self.sizes[0]).any():
            return None
        return self._pixels.reshape(len(self), *self.sizes[0], 3)


class JoinedSplit:
    """The concatenation of splits, with the interface of ImageSplit. No pixel is copied.

    splits: the training splits, or the test splits, of several datasets. first_classes: the new label of each
    split's class 0.
    """

    def __init__(self, splits: list[ImageSplit], first_classes: list[int]):
        self.splits = splits
        pairs = zip(splits, first_classes, strict=True)
        self.labels = np.concatenate([split.labels + first for split, first in pairs])
        self.sizes = np.concatenate([split.sizes for split in splits])
        self._ends = np.cumsum([len(split) for split in splits])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return sum(split.nbytes for split in self.splits)

    def image(self, index: int) -> np.ndarray:
        """Return the image, (height, width, 3) uint8, RGB, as a read-only view of the mapped file."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        return self.splits[number].image(index - self._ends[number] + len(self.splits[number]))

    def uniform(self) -> np.ndarray | None:
        """Return a copy of all images (N, height, width, 3) uint8; None if their sizes differ."""
        if (self.sizes != self.sizes[0]).any():
            return None
        return np.concatenate([split.uniform() for split in self.splits])


def image_bytes(sizes: np.ndarray) -> np.ndarray:
    """Return the bytes of decoded images of these sizes (N, 2): (N,), int64."""
    return 3 * sizes.astype(np.int64).prod(axis=1)


class SplitView:
    """Some images of a split, in the order of ``indices``, with new labels. It has the interface of ImageSplit.

    ``indices`` always refer to the prepared split, even for a view of a view.
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
        images = self.split.uniform()
        return None if images is None else images[self.indices]


Split = ImageSplit | JoinedSplit | SplitView


@dataclass(frozen=True)
class Splits:
    """What a run is trained and evaluated on.

    classes: the names of the labels. test: the evaluation split; None while the test files are closed.
    unused: the training images of these classes that a subset leaves out; None if there are none.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split | None
    unused: Split | None = None


def choose(count: int, wanted: int, stream: str, seed: int = 0) -> np.ndarray:
    """Return ``wanted`` of ``count`` indices, ascending, drawn from (seed, stream)."""
    order = torch.randperm(count, generator=generator(seed, stream)).numpy()
    return np.sort(order[:wanted])


def restrict(
    name: str,
    classes: tuple[str, ...],
    train: Split,
    test: Split | None,
    *,
    num_classes: int | None,
    images_per_class: int,
    seed: int = 0,
) -> Splits:
    """Return a subset: some classes, some training images of each, all test images of these classes.

    A test split of None stays None.

    Args:
        num_classes: None selects all classes, and all images of a class with fewer than ``images_per_class``.
        seed: of the draw of the training images. The classes are the same for all seeds.
    """
    if num_classes is not None and num_classes > len(classes):
        raise UserError(f"{name}: has {len(classes)} classes, not {num_classes}: lower 'subset.classes'")
    labels = np.arange(len(classes)) if num_classes is None else choose(len(classes), num_classes, "subset/classes")
    chosen = []
    for label in labels:
        members = np.flatnonzero(train.labels == label)
        if len(members) < images_per_class and num_classes is not None:
            raise UserError(
                f"{name}: class {classes[label]!r} has {len(members)} training images, not {images_per_class}: "
                "lower 'subset.images_per_class'"
            )
        chosen.append(members[choose(len(members), images_per_class, f"subset/images/{label}", seed)])
    train_indices = np.sort(np.concatenate(chosen))
    unused = np.setdiff1d(np.flatnonzero(np.isin(train.labels, labels)), train_indices)
    return Splits(
        tuple(classes[label] for label in labels),
        _relabelled(train, train_indices, labels),
        None if test is None else _relabelled(test, np.flatnonzero(np.isin(test.labels, labels)), labels),
        _relabelled(train, unused, labels) if len(unused) else None,
    )


def _relabelled(split: Split, indices: np.ndarray, labels: np.ndarray) -> SplitView:
    return SplitView(split, indices, np.searchsorted(labels, split.labels[indices]))


def hold_out(name: str, train: Split, fraction: float) -> tuple[SplitView, SplitView]:
    """Return (training split, validation split); the latter has ``fraction`` of each class's training images.

    The number of held-out images of a class is rounded, at least one, and less than all. The choice does not depend
    on the seed of a run. Raises UserError for a class with a single image.
    """
    held_out = []
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        if len(members) < 2:
            raise UserError(
                f"{name}: class {label} has one training image, so none can be held out for validation: add images"
            )
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        held_out.append(members[choose(len(members), count, f"validation/{label}")])
    held_out = np.sort(np.concatenate(held_out))
    training = np.setdiff1d(np.arange(len(train)), held_out)
    return SplitView(train, training, train.labels[training]), SplitView(train, held_out, train.labels[held_out])


def some_of(split: Split, count: int) -> Split:
    """Return a random choice of ``count`` images of a split, in its order; the whole split if it has no more."""
    if len(split) <= count:
        return split
    indices = choose(len(split), count, "some of a split")
    return SplitView(split, indices, split.labels[indices])


def indices_digest(view: SplitView) -> str:
    """Return the SHA-256 of the view's indices in the prepared split, as little-endian 64-bit integers."""
    return hashlib.sha256(view.indices.astype("<i8").tobytes()).hexdigest()
