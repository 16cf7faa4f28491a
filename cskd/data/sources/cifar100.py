"""CIFAR-100 (Krizhevsky, 2009): 32 px, 100 classes; as official pickles or as class folders."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct

from cskd.data.archive import Archive
from cskd.data.sources.listing import Listing, class_folders
from cskd.data.sources.source import DatasetSource
from cskd.utils.errors import UserError

SIDE = 32  # px


def read(folder: Path) -> Listing:
    """The official pickles ``{train,test,meta}``, or ``{train,test}/<class>/<images>``.

    The official label order is the alphabetical one, so that both give the same labels.
    """
    if (folder / "train").is_dir():
        return class_folders(folder)
    names = _field(folder / "meta", "fine_label_names", list)
    classes = [str(name) for name in names]
    return Listing(
        classes,
        train=_read_batch(folder / "train", len(classes)),
        test=_read_batch(folder / "test", len(classes)),
    )


def _read_batch(path: Path, num_classes: int) -> list[tuple[np.ndarray, int]]:
    data = _field(path, "data", np.ndarray)
    labels = _field(path, "fine_labels", list)
    if data.dtype != np.uint8 or data.shape != (len(labels), 3 * SIDE * SIDE):
        raise UserError(
            f"{path} holds {len(labels):,} labels and pixels of shape {data.shape}, {data.dtype}, "
            f"not ({len(labels)}, {3 * SIDE * SIDE}), uint8: unpack the official archive again"
        )
    if not all(isinstance(label, int) and 0 <= label < num_classes for label in labels):
        raise UserError(f"{path} has labels of no class of its meta file: unpack the official archive again")
    # a row is the image's red plane, then the green one, then the blue one
    images = np.ascontiguousarray(data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1))
    return list(zip(images, labels, strict=True))


def _field(path: Path, key: str, kind: type) -> Any:
    content = safe_pickle_load(path)
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind):
        raise UserError(f"{path} has no {key!r}: unpack the official archive again")
    return value


def safe_pickle_load(path: Path) -> Any:
    """The content of a pickle of arrays, numbers, texts, lists and dicts; nothing else is ever made.

    The official files come from Python 2, whose texts are read as Latin-1. Raises UserError for a missing
    or damaged file, and for one that asks for anything else: a pickle may otherwise run any code.
    """
    try:
        return _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: unpack the official archive again") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): unpack the official archive again") from error


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in an old pickle: a call of ``_codecs.encode``."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes a text as {encoding!r}")
    return text.encode("latin1")


class _ArraysOnly(pickle.Unpickler):
    ALLOWED = {  # noqa: RUF012 - never changed
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # numpy 2's name of it
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-100 does not need")
        return self.ALLOWED[module, name]


SOURCE = DatasetSource(
    name="cifar100",
    title="CIFAR-100",
    homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
    reader=read,
    archives=(
        Archive(
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "cifar-100-python.tar.gz",
            "md5:eb9058c3a382ffc7106e4002c42a8d85",  # the homepage, and torchvision.datasets.CIFAR100
        ),
    ),
    folders=("cifar-100-python", "cifar100"),
    landmarks=("train", "test"),
    archive_root="cifar-100-python",
    num_classes=100,
    train_images=50_000,
    test_images=10_000,
)
