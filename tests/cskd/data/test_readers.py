"""Readers: the official layouts, and the faults of such folders."""

from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from cskd.data.prepare import prepare
from cskd.data.sources import cifar100
from cskd.data.sources.base import Listing
from cskd.data.sources.registry import SOURCES
from cskd.utils.errors import UserError


def read(name: str, root: Path) -> Listing:
    source = SOURCES[name]
    return source.read(source.find(root))


def failure(name: str, root: Path) -> str:
    """The one-line error of a faulty folder."""
    with pytest.raises(UserError) as caught:
        read(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def names(entries):
    return [(path.name, label) for path, label in entries]


@pytest.mark.parametrize("name", fakes.TREES)
def test_official_layout_is_prepared_with_the_pixels_of_pillow(tmp_path, name):
    fakes.TREES[name](tmp_path)
    listing = read(name, tmp_path)
    dataset = prepare(name, tmp_path, source=fakes.small(SOURCES[name]))
    assert dataset.complete
    assert np.bincount(dataset.train.labels).tolist() == [fakes.TRAIN] * 3
    assert np.bincount(dataset.test.labels).tolist() == [fakes.TEST] * 3
    for split, entries in ((dataset.train, listing.train), (dataset.test, listing.test)):
        for index, (image, label) in enumerate(entries):
            pixels = image if isinstance(image, np.ndarray) else np.asarray(Image.open(image).convert("RGB"))
            assert (split.image(index) == pixels).all(), image
            assert split.labels[index] == label


# Classes, and one image of the test split with its label.
OFFICIAL = {
    # val_0 and val_1 have the first id of the list, which is the second in sorted order.
    "tinyimagenet": ([f"thing {wnid}, object" for wnid in sorted(fakes.WNIDS)], ("val_0.JPEG", 1)),
    "cub200": (["Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross"], ("Sooty_Albatross_0004_15.jpg", 2)),
    "dogs": (["Chihuahua", "Japanese_spaniel", "Maltese_dog"], ("n02085936_4.jpg", 2)),
    "mit67": (["airport_inside", "garage", "inside_bus"], ("garage_003.jpg", 1)),
    "imagenet": (sorted(fakes.WNIDS), ("ILSVRC2012_val_00000001.JPEG", 2)),
}


@pytest.mark.parametrize(("name", "classes", "entry"), [(name, *values) for name, values in OFFICIAL.items()])
def test_classes_and_split_come_from_the_official_lists(tmp_path, name, classes, entry):
    fakes.TREES[name](tmp_path)
    listing = read(name, tmp_path)
    assert listing.classes == classes
    assert entry in names(listing.test)
    assert entry[0] not in {name for name, _ in names(listing.train)}
    assert listing.without_missing() == (listing, [])


def test_cifar100_reads_pickles_of_python_2(tmp_path):
    fakes.cifar100_pickles(tmp_path)
    listing = read("cifar100", tmp_path)
    assert listing.classes == ["apple", "baby", "bear"]
    assert [label for _, label in listing.train] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    by_name = (6, 3, 0, 7, 4, 1, 8, 5, 2)  # the last image of a class has the first file name
    for (image, _), index in zip(listing.train, by_name, strict=True):
        assert (image == fakes.noise(index, 32, 32)).all()


def test_cifar100_class_folders_are_read_in_alphabetical_order(tmp_path):
    folder = fakes.image_folder(tmp_path / "cifar100", ("apple", "baby", "bear"))
    (folder / "train" / ".DS_Store").write_bytes(b"")
    (folder / "train" / "baby" / "._000.png").write_bytes(b"left by macOS")
    listing = read("cifar100", tmp_path)
    assert listing.classes == ["apple", "baby", "bear"]
    assert names(listing.test) == [(f"00{i}.png", label) for label in range(3) for i in range(2)]


def test_cifar100_is_the_same_dataset_as_pickles_and_as_class_folders_with_the_official_names(tmp_path):
    pickles = fakes.cifar100_pickles(tmp_path / "pickles")
    classes = ("apple", "baby", "bear")
    for split, count in (("train", 3 * fakes.TRAIN), ("test", 3 * fakes.TEST)):
        file_names = cifar100.safe_pickle_load(pickles / split)["filenames"]
        for index in range(count):
            path = tmp_path / "folders" / "cifar100" / split / classes[index % 3] / file_names[index]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(fakes.noise(index, 32, 32)).save(path)
    source = fakes.small(SOURCES["cifar100"])
    digests = {prepare("cifar100", tmp_path / layout, source=source).digest for layout in ("pickles", "folders")}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], "2 labels, 2 file names and pixels of shape (3, 3072)"), ([0, 7, 1], "labels outside the 3")],
)
def test_cifar100_refuses_inconsistent_and_truncated_pickles(tmp_path, labels, message):
    path = fakes.cifar100_pickles(tmp_path) / "test"
    names = [f"{index}.png" for index in range(len(labels))]
    fakes.python2_pickle(path, {"fine_labels": labels, "filenames": names, "data": np.zeros((3, 3072), np.uint8)})
    assert message in failure("cifar100", tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path} cannot be read" in failure("cifar100", tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "last_line", "message"),
    [
        ("tinyimagenet", "val/val_annotations.txt", "val_5.JPEG\tn99999999\t0", "has class 'n99999999'"),
        ("tinyimagenet", "wnids.txt", None, "not a class of"),
        ("cub200", "train_test_split.txt", None, "lacks image 15"),
        ("cub200", "image_class_labels.txt", "15 9", "class 9 is not in"),
        ("cub200", "train_test_split.txt", "15 2", "neither 0 nor 1"),
        ("cub200", "images.txt", "15", "one column"),
        ("cub200", "images.txt", "14 again.jpg", "listed twice"),
        ("mit67", "TestImages.txt", "attic/a.jpg", "'attic/a.jpg'"),
    ],
)
def test_inconsistent_or_missing_list_is_named(tmp_path, name, file, last_line, message):
    path = fakes.TREES[name](tmp_path) / file
    path.write_text("\n".join(path.read_text().splitlines()[:-1] + ([last_line] if last_line else [])))
    assert message in failure(name, tmp_path)
    path.unlink()
    if file != "val/val_annotations.txt":  # without it, the class folders give the labels
        assert f"{path} is missing" in failure(name, tmp_path)


def test_dogs_refuses_damaged_and_inconsistent_lists(tmp_path):
    path = fakes.dogs(tmp_path) / "test_list.mat"
    complete = path.read_bytes()
    for content in (b"", b"not a list", complete[:200], complete[: len(complete) // 2]):
        path.write_bytes(content)
        assert str(path) in failure("dogs", tmp_path)
    fakes.write_dogs_list(path, [("n02085620-Chihuahua/n02085620_3.jpg", 2)])
    assert "has label 2, which is n02085782-Japanese_spaniel" in failure("dogs", tmp_path)
