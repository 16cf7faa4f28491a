"""scikit-learn's bundled 8x8 digits (Alpaydin and Kaynak, 1998): a demonstration without a download."""

from pathlib import Path

import numpy as np

from cskd.data.sources.base import DatasetSource, Listing

TRAIN_PER_CLASS = 20
WHITE = 16  # the brightest grey of the bundled images


def read(folder: Path) -> Listing:
    """Twenty fixed training images of each digit; all other images are the test set.

    folder: not used; the images come with scikit-learn. With few training images the methods differ visibly.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - takes seconds to import

    digits = load_digits()
    grey = np.rint(digits.images * (255 / WHITE)).astype(np.uint8)
    images = np.repeat(grey[:, :, :, None], 3, axis=3)
    # A named bit generator and plain uniforms: NumPy keeps this stream the same in all versions.
    rank = np.random.Generator(np.random.PCG64(0)).random(len(images))
    classes = [str(name) for name in digits.target_names]
    train = np.zeros(len(images), bool)
    for label in range(len(classes)):
        members = np.flatnonzero(digits.target == label)
        train[members[np.argsort(rank[members])[:TRAIN_PER_CLASS]]] = True
    entries = [(image, int(label)) for image, label in zip(images, digits.target, strict=True)]
    return Listing(
        classes,
        train=[entries[index] for index in np.flatnonzero(train)],
        test=[entries[index] for index in np.flatnonzero(~train)],
    )


SOURCE = DatasetSource(
    name="digits",
    title="scikit-learn's digits",
    reader=read,
    num_classes=10,
    train_images=200,
    test_images=1_597,
    image_size=(8, 8),
)
