"""The images of a split in memory, and parts of it: fewer classes, fewer images, a validation split."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from cskd.utils.errors import UserError
from cskd.utils.seeding import generator


@dataclass(frozen=True, eq=False)
class Split:
    """Decoded images with labels: a prepared split, several joined ones, or a selection of images.

    A selection and its split share the pixels in memory.

    labels: int64 (N,). sizes: int32 (N, 2), heights and widths in pixels. indices: (N,), the position of each image in
    the prepared split or, if several are joined, in these one after the other.
    """

    labels: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray
    files: list[np.ndarray]  # uint8, the concatenated images of a prepared split, each (height, width, 3) in C order
    file_of: np.ndarray  # (N,), the number of the image's file
    start: np.ndarray  # (N,), its first byte there

    @classmethod
    def prepared(cls, pixels: np.ndarray, labels: np.ndarray, sizes: np.ndarray) -> "Split":
        """Return the split of the images in ``pixels``, the content of a file."""
        lengths = image_bytes(sizes)
        start = np.cumsum(lengths) - lengths
        return cls(labels, sizes, np.arange(len(labels)), [pixels], np.zeros(len(labels), np.int64), start)

    @classmethod
    def joined(cls, splits: list["Split"], first_classes: list[int]) -> "Split":
        """Return the concatenation of prepared splits. first_classes: the new label of each split's class 0."""
        labels = np.concatenate([split.labels + first for split, first in zip(splits, first_classes, strict=True)])
        return cls(
            labels,
            np.concatenate([split.sizes for split in splits]),
            np.arange(len(labels)),
            [file for split in splits for file in split.files],
            np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
            np.concatenate([split.start for split in splits]),
        )

    def select(self, rows: np.ndarray, labels: np.ndarray | None = None) -> "Split":
        """Return the images in these rows, with new labels or their own."""
        return Split(
            self.labels[rows] if labels is None else labels,
            self.sizes[rows],
            self.indices[rows],
            self.files,
            self.file_of[rows],
            self.start[rows],
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return int(image_bytes(self.sizes).sum())

    def image(self, row: int) -> np.ndarray:
        """Return the image, (height, width, 3) uint8, RGB, as a read-only view of the mapped file."""
        height, width = self.sizes[row]
        start = self.start[row]
        return self.files[self.file_of[row]][start : start + 3 * int(height) * int(width)].reshape(height, width, 3)

    def uniform(self) -> np.ndarray | None:
        """Return a copy of all images, (N, height, width, 3) uint8; None if their sizes differ."""
        if (self.sizes != self.sizes[0]).any():
            return None
        images = np.empty((len(self), *self.sizes[0], 3), np.uint8)
        for row in range(len(self)):
            images[row] = self.image(row)
        return images


def image_bytes(sizes: np.ndarray) -> np.ndarray:
    """Return the bytes of decoded images of these sizes (N, 2): (N,), int64."""
    return 3 * sizes.astype(np.int64).prod(axis=1)


@dataclass(frozen=True)
class Splits:
    """What a run is trained and evaluated on.

    classes: the names of the labels. test: the evaluation split; None while the test files are closed.
    unused: the training images of these classes that a subset leaves out; None if there are none.
    near_ood: the test images of the classes that a subset leaves out, with their own labels; None if there are none.
    """

    classes: tuple[str, ...]
    train: Split
    test: Split | None
    unused: Split | None = None
    near_ood: Split | None = None


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
    rows = np.sort(np.concatenate(chosen))
    unused = np.setdiff1d(np.flatnonzero(np.isin(train.labels, labels)), rows)
    others = [] if test is None else np.flatnonzero(~np.isin(test.labels, labels))

    def relabelled(split: Split, rows: np.ndarray) -> Split:
        return split.select(rows, np.searchsorted(labels, split.labels[rows]))

    return Splits(
        tuple(classes[label] for label in labels),
        relabelled(train, rows),
        None if test is None else relabelled(test, np.flatnonzero(np.isin(test.labels, labels))),
        relabelled(train, unused) if len(unused) else None,
        test.select(others) if len(others) else None,
    )


def hold_out(name: str, train: Split, fraction: float) -> tuple[Split, Split]:
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
    return train.select(training), train.select(held_out)


def some_of(split: Split, count: int) -> Split:
    """Return a random choice of ``count`` images of a split, in its order; the whole split if it has no more."""
    if len(split) <= count:
        return split
    return split.select(choose(len(split), count, "some of a split"))


def indices_digest(split: Split) -> str:
    """Return the SHA-256 of the indices in the prepared split, as little-endian 64-bit integers."""
    return hashlib.sha256(split.indices.astype("<i8").tobytes()).hexdigest()
