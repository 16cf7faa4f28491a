"""CIFAR-100 (Krizhevsky, 2009): 32 px, 100 classes; as official pickles or as class folders."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from cskd.data.sources.base import Archive, DatasetSource, Listing
from cskd.data.sources.image_folder import read_class_folders
from cskd.data.sources.reading import UNPACK_AGAIN, reading_errors
from cskd.utils.errors import UserError

SIDE = 32  # px


def read(folder: Path) -> Listing:
    """The official pickles ``{train,test,meta}``, or ``{train,test}/<class>/<images>``.

    Both layouts give the same dataset if the folders have the official file names: the official labels are in
    alphabetical order, and the images of the pickles are sorted by class and file name.
    """
    if (folder / "train").is_dir():
        return read_class_folders(folder)
    [names] = _read_fields(folder / "meta", fine_label_names=list)
    classes = [str(name) for name in names]
    return Listing(
        classes,
        train=_read_batch(folder / "train", len(classes)),
        test=_read_batch(folder / "test", len(classes)),
    )


def _read_batch(path: Path, num_classes: int) -> list[tuple[np.ndarray, int]]:
    data, labels, names = _read_fields(path, data=np.ndarray, fine_labels=list, filenames=list)
    if len(names) != len(labels) or data.dtype != np.uint8 or data.shape != (len(labels), 3 * SIDE * SIDE):
        raise UserError(
            f"{path} holds {len(labels):,} labels, {len(names):,} file names and pixels of shape {data.shape}, "
            f"{data.dtype}, not ({len(labels)}, {3 * SIDE * SIDE}), uint8: {UNPACK_AGAIN}"
        )
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise UserError(f"{path} has labels outside the {num_classes} classes of its meta file: {UNPACK_AGAIN}")
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} has file names that are not text: {UNPACK_AGAIN}")
    # A row holds the image's red plane, then the green one, then the blue one.
    images = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    order = sorted(range(len(labels)), key=lambda index: (labels[index], names[index]))
    return [(images[index], labels[index]) for index in order]


def _read_fields(path: Path, **kinds: type) -> list[Any]:
    """Return the values of these keys, which must be of these types."""
    content = safe_pickle_load(path)
    values = [content.get(key) if isinstance(content, dict) else None for key in kinds]
    for value, (key, kind) in zip(values, kinds.items(), strict=True):
        if not isinstance(value, kind):
            raise UserError(f"{path} has no {key!r}: {UNPACK_AGAIN}")
    return values


def safe_pickle_load(path: Path) -> Any:
    """Return the content of a pickle that holds only arrays, numbers, strings, lists and dicts.

    The official files come from Python 2; their strings are read as Latin-1. Raises UserError for a missing or
    damaged file, and for any other type in it: an ordinary pickle can run any code.
    """
    with reading_errors(path):
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()


class _ArraysOnly(pickle.Unpickler):
    ALLOWED = {  # noqa: RUF012 - constant
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-100 does not need")
        return self.ALLOWED[module, name]


SOURCE = DatasetSource(
    name="cifar100",
    title="CIFAR-100",
    reader=read,
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",  # cs.toronto.edu/~kriz/cifar.html and torchvision.datasets.CIFAR100
            169_001_437,
            ("https://cave.cs.toronto.edu/kriz/cifar-100-python.tar.gz",),  # the university's newer host
        ),
    ),
    folders=("cifar-100-python", "cifar100"),
    landmarks=("train", "test"),
    archive_root="cifar-100-python",
    num_classes=100,
    train_images=50_000,
    test_images=10_000,
    image_size=(SIDE, SIDE),
)
