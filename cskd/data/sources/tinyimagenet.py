"""TinyImageNet (Stanford's CS231n, 2015): 64 px, 200 classes; its validation set is the test set."""

from pathlib import Path

from cskd.data.sources.base import Archive, DatasetSource, LabelledImage, Listing, first_few
from cskd.data.sources.image_folder import find_images, subfolders
from cskd.data.sources.reading import UNPACK_AGAIN, read_lines, read_table
from cskd.utils.errors import UserError


def read(folder: Path) -> Listing:
    """``wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt``.

    Labels follow the sorted WordNet ids, as in torchvision's ImageFolder, which the paper's released code uses. Many
    scripts move the images into class folders: any folder below ``train/<wnid>`` and ``val/<wnid>`` is read as well.
    """
    wnids = sorted(read_lines(folder / "wnids.txt"))
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    unknown = [path for path in subfolders(folder / "train") if path.name not in label_of]
    if unknown:
        raise UserError(f"{first_few(unknown)}: not a class of {folder / 'wnids.txt'}: {UNPACK_AGAIN}")
    train, skipped = [], []
    for wnid, label in label_of.items():
        images, others = find_images(folder / "train" / wnid)
        if not images:
            raise UserError(f"{folder / 'train' / wnid} holds no images: {UNPACK_AGAIN}")
        train += [(image, label) for image in images]
        skipped += [file for file in others if f"{wnid}_boxes.txt " not in file]
    test, others = _read_val(folder / "val", label_of)
    words = read_table(folder / "words.txt", "\t")
    return Listing([words.get(wnid, wnid) for wnid in wnids], train, test, skipped + others)


def _read_val(folder: Path, label_of: dict[str, int]) -> tuple[list[LabelledImage], list[str]]:
    """Return the validation images in the order of the official list, and the files that are not used.

    The labels come from ``val_annotations.txt`` or, without it, from the class folders.
    """
    images, others = find_images(folder)
    annotations = folder / "val_annotations.txt"
    others = [file for file in others if not file.startswith(f"{annotations} ")]
    if annotations.exists():
        test, found = [], {}
        for image in images:
            if found.setdefault(image.name, image) != image:
                others.append(f"{image} (a second {image.name})")
        for name, rest in read_table(annotations, "\t").items():  # the object's box follows and is not used
            wnid = rest.split("\t")[0]
            if wnid not in label_of:
                raise UserError(f"{annotations}: {name} has class {wnid!r}, not in wnids.txt: {UNPACK_AGAIN}")
            test.append((found.pop(name, folder / "images" / name), label_of[wnid]))
        return test, others + [f"{image} (not in {annotations.name})" for image in found.values()]
    by_folder = [(image, label_of.get(image.relative_to(folder).parts[0])) for image in images]
    unlabelled = [image for image, label in by_folder if label is None]
    if unlabelled or not images:
        raise UserError(f"{annotations} is missing: {UNPACK_AGAIN}")
    return sorted(by_folder, key=lambda entry: (len(entry[0].name), entry[0].name)), others


SOURCE = DatasetSource(
    name="tinyimagenet",
    title="TinyImageNet",
    reader=read,
    archives=(
        Archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "tiny-imagenet-200.zip",
            # Stanford publishes none; from ContinualAI's Avalanche, TinyImagenet
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
            248_100_043,
        ),
    ),
    folders=("tiny-imagenet-200",),
    landmarks=("train", "val", "wnids.txt"),
    archive_root="tiny-imagenet-200",
    num_classes=200,
    train_images=100_000,
    test_images=10_000,
    image_size=(64, 64),
)
