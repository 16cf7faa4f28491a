"""Caltech-UCSD Birds-200-2011 (Wah et al., 2011): photographs of 200 bird species."""

from pathlib import Path

from cskd.data.sources.base import Archive, DatasetSource, Listing
from cskd.data.sources.reading import UNPACK_AGAIN, read_table
from cskd.utils.errors import UserError


def read(folder: Path) -> Listing:
    """``images.txt, image_class_labels.txt, train_test_split.txt, classes.txt, images/<class>/*.jpg``.

    Each list maps the number of an image or of a class to a value. Classes are numbered from 1.
    """
    paths = read_table(folder / "images.txt")
    labels = read_table(folder / "image_class_labels.txt")
    training = read_table(folder / "train_test_split.txt")
    classes = read_table(folder / "classes.txt")
    label_of = {number: label for label, number in enumerate(classes)}
    splits = {"1": [], "0": []}
    for number, path in paths.items():
        for table, name in ((labels, "image_class_labels.txt"), (training, "train_test_split.txt")):
            if number not in table:
                raise UserError(f"{folder / name} lacks image {number} ({path}): {UNPACK_AGAIN}")
        if labels[number] not in label_of:
            raise UserError(f"{path}: class {labels[number]} is not in {folder / 'classes.txt'}: {UNPACK_AGAIN}")
        if training[number] not in splits:
            raise UserError(f"{folder / 'train_test_split.txt'}: image {number} is neither 0 nor 1: {UNPACK_AGAIN}")
        splits[training[number]].append((folder / "images" / path, label_of[labels[number]]))
    # A class is called "001.Black_footed_Albatross".
    names = [name.partition(".")[2] or name for name in classes.values()]
    return Listing(names, train=splits["1"], test=splits["0"])


SOURCE = DatasetSource(
    name="cub200",
    title="CUB-200-2011",
    reader=read,
    archives=(
        Archive(
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            "CUB_200_2011.tgz",
            "md5:97eceeb196236b17998738112f37df78",  # CaltechDATA's record 65de6-vp158
            1_150_585_339,
            ("https://s3.amazonaws.com/fast-ai-imageclas/CUB_200_2011.tgz",),  # fastai's URLs.CUB_200_2011
        ),
    ),
    folders=("CUB_200_2011",),
    landmarks=("images", "images.txt"),
    archive_root="CUB_200_2011",
    num_classes=200,
    train_images=5_994,
    test_images=5_794,
)
