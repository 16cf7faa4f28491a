"""TinyImageNet (Stanford's CS231n, 2015): 64 px, 200 classes; its validation set is the test set."""

from pathlib import Path

from cskd.data.sources.base import Archive, DatasetSource, Listing, first_few
from cskd.data.sources.reading import UNPACK_AGAIN, image_files, read_lines, read_table, subfolders
from cskd.utils.errors import UserError


def read(folder: Path) -> Listing:
    """``wnids.txt, words.txt, train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt``.

    Labels follow the sorted WordNet ids, as in torchvision's ImageFolder, which the paper's released code uses.
    """
    wnids = sorted(read_lines(folder / "wnids.txt"))
    label_of = {wnid: label for label, wnid in enumerate(wnids)}
    unknown = [path for path in subfolders(folder / "train") if path.name not in label_of]
    if unknown:
        raise UserError(f"{first_few(unknown)}: not a class of {folder / 'wnids.txt'}: {UNPACK_AGAIN}")
    train = []
    for wnid, label in label_of.items():
        images = image_files(folder / "train" / wnid / "images")
        if not images:
            raise UserError(f"{folder / 'train' / wnid / 'images'} holds no images: {UNPACK_AGAIN}")
        train += [(image, label) for image in images]
    annotations = folder / "val" / "val_annotations.txt"
    test = []
    for name, rest in read_table(annotations, "\t").items():  # the object's box follows and is not used
        wnid = rest.split("\t")[0]
        if wnid not in label_of:
            raise UserError(f"{annotations}: {name} has class {wnid!r}, not in wnids.txt: {UNPACK_AGAIN}")
        test.append((folder / "val" / "images" / name, label_of[wnid]))
    words = read_table(folder / "words.txt", "\t")
    return Listing([words.get(wnid, wnid) for wnid in wnids], train, test)


SOURCE = DatasetSource(
    name="tinyimagenet",
    title="TinyImageNet",
    homepage="http://cs231n.stanford.edu",
    reader=read,
    archives=(
        Archive(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "tiny-imagenet-200.zip",
            # Stanford publishes none; from ContinualAI's Avalanche, TinyImagenet
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
        ),
    ),
    folders=("tiny-imagenet-200",),
    landmarks=("train", "val", "wnids.txt"),
    archive_root="tiny-imagenet-200",
    num_classes=200,
    train_images=100_000,
    test_images=10_000,
)
