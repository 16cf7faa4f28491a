"""The images of a split in memory, and parts of it: fewer classes, fewer images, a validation split."""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cskd.data.decode import open_rgb
from cskd.utils.errors import UserError
from cskd.utils.seeding import choose


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a prepared split, one after the other.

    content: uint8. encoded: True for the original image files; False for pixels, each (height, width, 3) in C order.
    """

    content: np.ndarray
    encoded: bool = False


@dataclass(frozen=True, eq=False)
class Split:
    """Images with labels: a prepared split, several joined ones, or a selection of images.

    A selection and its split share the images in memory. Encoded images are decoded whenever they are used.

    labels: int64 (N,). sizes: int32 (N, 2), heights and widths in pixels. indices: (N,), the position of each image in
    the prepared split or, if several are joined, in these one after the other.
    """

    labels: np.ndarray
    sizes: np.ndarray
    indices: np.ndarray
    files: list[Images]
    file_of: np.ndarray  # (N,), the number of the image's file
    start: np.ndarray  # (N,), its first byte there
    lengths: np.ndarray  # (N,), its bytes there

    @classmethod
    def prepared(
        cls, content: np.ndarray, labels: np.ndarray, sizes: np.ndarray, lengths: np.ndarray | None = None
    ) -> "Split":
        """Return the split of the images in ``content``. lengths: the bytes of each encoded image; None for pixels."""
        images = Images(content, encoded=lengths is not None)
        lengths = image_bytes(sizes) if lengths is None else lengths
        start = np.cumsum(lengths) - lengths
        return cls(labels, sizes, np.arange(len(labels)), [images], np.zeros(len(labels), np.int64), start, lengths)

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
            np.concatenate([split.lengths for split in splits]),
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
            self.lengths[rows],
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def nbytes(self) -> int:
        return int(self.lengths.sum())

    def image(self, row: int) -> np.ndarray:
        """Return the image, (height, width, 3) uint8, RGB, read-only; pixels as a view of the mapped file."""
        return np.asarray(self.stored_image(row))

    def stored_image(self, row: int) -> np.ndarray | Image.Image:
        """Return the image as an array, (height, width, 3) uint8, or as Pillow decodes it, if it is encoded.

        Raises UserError for an image that cannot be decoded.
        """
        images, start = self.files[self.file_of[row]], self.start[row]
        content = images.content[start : start + int(self.lengths[row])]
        if not images.encoded:
            return content.reshape(*self.sizes[row], 3)
        try:
            return open_rgb(io.BytesIO(content))
        except Exception as error:  # each format's decoder raises its own exceptions
            reason = " ".join(str(error).split())
            raise UserError(
                f"image {self.indices[row]} is damaged ({reason}): remove the dataset's folder in DATA_DIR/prepared, "
                "and prepare it again with make data"
            ) from error

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
