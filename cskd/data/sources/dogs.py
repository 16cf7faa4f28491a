"""Stanford Dogs (Khosla et al., 2011): photographs of 120 breeds, from ImageNet."""

import io
from pathlib import Path

from cskd.data.sources.base import Archive, DatasetSource, LabelledImage, Listing
from cskd.data.sources.reading import reading_errors
from cskd.utils.errors import UserError

UNPACK_LISTS = "unpack lists.tar again"


def read(folder: Path) -> Listing:
    """``Images/<wnid>-<breed>/*.jpg, train_list.mat, test_list.mat``.

    Each list has ``file_list`` (paths below Images) and ``labels`` (from 1).
    """
    breeds: dict[int, str] = {}
    splits = {split: _read_list(folder, split, breeds) for split in ("train", "test")}
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise UserError(f"{folder / 'train_list.mat'} skips a label: {UNPACK_LISTS}")
    # A folder is called "n02085620-Chihuahua".
    names = [breeds[label].partition("-")[2] or breeds[label] for label in sorted(breeds)]
    return Listing(names, **splits)


def _read_list(folder: Path, split: str, breeds: dict[int, str]) -> list[LabelledImage]:
    """Return the images of one split, and add the folder of each label to ``breeds``."""
    from scipy.io import loadmat  # noqa: PLC0415 - every command imports this module, and few read the lists

    path = folder / f"{split}_list.mat"
    with reading_errors(path, UNPACK_LISTS):
        content = loadmat(io.BytesIO(path.read_bytes()))  # for a path, SciPy hides that the file is missing
        names = [str(entry.item()) for entry in content["file_list"].ravel()]
        labels = [int(label) for label in content["labels"].ravel()]
    if len(names) != len(labels):
        raise UserError(f"{path} has {len(names):,} files and {len(labels):,} labels: {UNPACK_LISTS}")
    images = []
    for name, label in zip(names, labels, strict=True):
        breed = name.partition("/")[0]
        if breeds.setdefault(label, breed) != breed:
            raise UserError(f"{path}: {name} has label {label}, which is {breeds[label]}: {UNPACK_LISTS}")
        images.append((folder / "Images" / name, label - 1))
    return images


SOURCE = DatasetSource(
    name="dogs",
    title="Stanford Dogs",
    reader=read,
    # Stanford publishes no checksums; these are from TensorFlow Datasets' url_checksums/stanford_dogs.txt.
    archives=(
        Archive(
            "http://vision.stanford.edu/aditya86/ImageNetDogs/lists.tar",
            "lists.tar",
            "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            481_280,
        ),
        Archive(
            "http://vision.stanford.edu/aditya86/ImageNetDogs/images.tar",
            "images.tar",
            "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            793_579_520,
        ),
    ),
    folders=("stanford-dogs",),
    landmarks=("Images", "train_list.mat"),
    num_classes=120,
    train_images=12_000,
    test_images=8_580,
)
