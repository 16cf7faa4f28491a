"""Every reader on a small tree in the official layout, and on the faults that such trees have."""

import shutil
from pathlib import Path

import fakes
import numpy as np
import pytest
from PIL import Image

from cskd.data.prepare import SOURCES, get_source, prepare
from cskd.data.sources.image_folder import image_folder_source
from cskd.data.sources.listing import Listing
from cskd.utils.errors import UserError


def read(name: str, root: Path) -> Listing:
    """The listing of a dataset's tree below ``root``."""
    source = SOURCES[name]
    return source.read(source.find(root))


def failure(name: str, root: Path) -> str:
    """The one line that reading the tree fails with."""
    with pytest.raises(UserError) as caught:
        read(name, root)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(entries):
    return [(path.name, label) for path, label in entries]


@pytest.mark.parametrize("name", fakes.TREES)
def test_every_official_layout_is_found_and_prepared(tmp_path, name):
    fakes.TREES[name](tmp_path)
    dataset = prepare(name, tmp_path, source=fakes.small(SOURCES[name]))
    assert dataset.complete
    assert len(dataset.classes) == 3
    assert np.bincount(dataset.train.labels).tolist() == [fakes.TRAIN] * 3
    assert np.bincount(dataset.test.labels).tolist() == [fakes.TEST] * 3
    assert "at hand, counts checked" in dataset.source


@pytest.mark.parametrize("name", ["tinyimagenet", "cub200", "dogs", "mit67"])
def test_the_stored_images_are_what_pillow_makes_of_the_files(tmp_path, name):
    fakes.TREES[name](tmp_path)
    listing = read(name, tmp_path)
    dataset = prepare(name, tmp_path, source=fakes.small(SOURCES[name]))
    for split, entries in ((dataset.train, listing.train), (dataset.test, listing.test)):
        for index, (path, label) in enumerate(entries):
            assert (split.image(index) == np.asarray(Image.open(path).convert("RGB"))).all(), path
            assert split.labels[index] == label


def test_cifar100_pickles_of_python_2_are_read(tmp_path):
    fakes.cifar100_pickles(tmp_path)
    assert b"numpy.core.multiarray" in (tmp_path / "cifar-100-python" / "train").read_bytes()
    listing = read("cifar100", tmp_path)
    assert listing.classes == ["apple", "baby", "bear"]
    assert [label for _, label in listing.train] == [0, 1, 2] * 3
    for index, (image, _) in enumerate(listing.train):
        assert (image == fakes.noise(index, 32, 32)).all()


def test_cifar100_class_folders_are_read_in_alphabetical_order(tmp_path):
    folder = fakes.cifar100_folders(tmp_path)
    (folder / "train" / ".DS_Store").write_bytes(b"")
    (folder / "train" / "baby" / "._000.png").write_bytes(b"left by macOS")
    listing = read("cifar100", tmp_path)
    assert listing.classes == ["apple", "baby", "bear"]
    assert names(listing.test) == [(f"00{i}.png", label) for label in range(3) for i in range(2)]


def test_cifar100_with_other_pixels_than_labels_fails(tmp_path):
    folder = fakes.cifar100_pickles(tmp_path)
    content = {"fine_labels": [0, 1], "data": np.zeros((3, 3072), np.uint8)}
    fakes.python2_pickle(folder / "test", content)
    assert str(folder / "test") in failure("cifar100", tmp_path)
    fakes.python2_pickle(folder / "test", {"fine_labels": [0, 7, 1], "data": content["data"]})
    assert "labels" in failure("cifar100", tmp_path)
    fakes.python2_pickle(folder / "test", {"data": content["data"]})
    assert "'fine_labels'" in failure("cifar100", tmp_path)


def test_tinyimagenets_labels_follow_the_sorted_wordnet_ids(tmp_path):
    fakes.tiny_imagenet(tmp_path)
    listing = read("tinyimagenet", tmp_path)
    assert listing.classes == [f"thing {wnid}, object" for wnid in sorted(fakes.WNIDS)]
    assert names(listing.train)[0] == ("n01443537_0.JPEG", 0)
    # val_0 and val_1 are of the list's first id, which comes second in order
    assert names(listing.test)[:2] == [("val_0.JPEG", 1), ("val_1.JPEG", 1)]


def test_tinyimagenet_with_an_unknown_class_fails_by_name(tmp_path):
    folder = fakes.tiny_imagenet(tmp_path)
    annotations = folder / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace(fakes.WNIDS[0], "n99999999", 1))
    assert "val_0.JPEG is of class 'n99999999'" in failure("tinyimagenet", tmp_path)
    annotations.write_text(text)
    (folder / "train" / "n00000001").mkdir()
    assert str(folder / "train" / "n00000001") in failure("tinyimagenet", tmp_path)


def test_cub200_takes_labels_and_split_from_the_lists(tmp_path):
    fakes.cub200(tmp_path)
    listing = read("cub200", tmp_path)
    assert listing.classes == ["Black_footed_Albatross", "Laysan_Albatross", "Sooty_Albatross"]
    assert names(listing.train)[0] == ("Black_footed_Albatross_0000_1.jpg", 0)
    assert names(listing.test)[-1] == ("Sooty_Albatross_0004_15.jpg", 2)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("train_test_split.txt", None, "lacks image 15"),
        ("image_class_labels.txt", "15 9", "class 9 is not in"),
        ("train_test_split.txt", "15 2", "neither 0 nor 1"),
        ("images.txt", "15", "one column"),
        ("images.txt", "14 again.jpg", "listed twice"),
    ],
)
def test_cub200_lists_that_disagree_fail_by_name(tmp_path, file, line, message):
    path = fakes.cub200(tmp_path) / file
    lines = path.read_text().splitlines()[:-1] + ([line] if line else [])
    path.write_text("\n".join(lines))
    assert message in failure("cub200", tmp_path)


def test_dogs_takes_the_split_from_the_mat_lists(tmp_path):
    fakes.dogs(tmp_path)
    listing = read("dogs", tmp_path)
    assert listing.classes == ["Chihuahua", "Japanese_spaniel", "Maltese_dog"]
    assert names(listing.train)[-1] == ("n02085936_2.jpg", 2)


def test_dogs_with_a_damaged_or_contradicting_list_fails_by_name(tmp_path):
    path = fakes.dogs(tmp_path) / "test_list.mat"
    whole = path.read_bytes()
    for content in (b"", b"not a list", whole[:200], whole[: len(whole) // 2]):
        path.write_bytes(content)
        assert str(path) in failure("dogs", tmp_path)
    fakes.write_dogs_list(path, [("n02085620-Chihuahua/n02085620_3.jpg", 2)])
    assert "has label 2, which is n02085782-Japanese_spaniel" in failure("dogs", tmp_path)


def test_mit67_reads_windows_line_ends_and_names_with_spaces(tmp_path):
    fakes.mit67(tmp_path)
    listing = read("mit67", tmp_path)
    assert listing.classes == ["airport_inside", "garage", "inside_bus"]
    assert ("Garage inside.jpg", 1) in names(listing.train)
    assert listing.missing() == []


def test_mit67_with_a_test_class_that_is_not_trained_fails_by_line(tmp_path):
    path = fakes.mit67(tmp_path) / "TestImages.txt"
    path.write_bytes(path.read_bytes() + b"\r\nattic/a.jpg")
    assert "'attic/a.jpg'" in failure("mit67", tmp_path)


def test_digits_are_always_the_same_and_twenty_a_class(tmp_path):
    dataset = prepare("digits", tmp_path / "a")
    assert np.bincount(dataset.train.labels).tolist() == [20] * 10
    assert dataset.train.uniform().shape == (200, 8, 8, 3)
    assert dataset.train.uniform().max() == 255
    assert (dataset.train.image(3)[:, :, 0] == dataset.train.image(3)[:, :, 2]).all()
    assert dataset.digest == prepare("digits", tmp_path / "b").digest


def test_an_image_folder_of_the_users_becomes_a_dataset(tmp_path):
    fakes.image_folder(tmp_path / "flowers", suffix=".JPG")
    for folder in ("flowers", str(tmp_path / "flowers")):
        data_dir = tmp_path if folder == "flowers" else tmp_path / "elsewhere"
        dataset = prepare("garden", data_dir, source=image_folder_source("garden", folder))
        assert (dataset.name, dataset.classes) == ("garden", ("iris", "rose", "tulip"))
        assert dataset.complete
        assert len(dataset.test) == 3 * fakes.TEST


def test_faults_of_an_image_folder_are_told_by_name(tmp_path):
    source = image_folder_source("flowers", "flowers")

    def message() -> str:
        with pytest.raises(UserError) as caught:
            prepare("flowers", tmp_path, source=source)
        return str(caught.value)

    folder = tmp_path / "flowers"
    assert str(folder) in message()  # no such folder
    fakes.image_folder(folder)
    (folder / "train" / "empty").mkdir()
    assert str(folder / "train" / "empty") in message()
    (folder / "train" / "empty").rmdir()
    fakes.write_image(folder / "test" / "weed" / "0.png")
    assert "'weed'" in message()
    shutil.rmtree(folder / "test" / "weed")
    stray = fakes.write_image(folder / "train" / "stray.png")
    assert str(stray) in message()
    stray.unlink()
    shutil.rmtree(folder / "test")
    assert str(folder / "test") in message()
    assert not (tmp_path / "prepared").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar100", "meta"),
        ("tinyimagenet", "wnids.txt"),
        ("tinyimagenet", "val/val_annotations.txt"),
        ("cub200", "image_class_labels.txt"),
        ("dogs", "test_list.mat"),
        ("mit67", "TestImages.txt"),
    ],
)
def test_a_missing_list_is_told_by_name(tmp_path, name, file):
    path = fakes.TREES[name](tmp_path) / file
    path.unlink()
    assert str(path) in failure(name, tmp_path)


def test_an_unknown_dataset_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown dataset 'cifar10': choose from cifar100, tinyimagenet, cub200"):
        get_source("cifar10")
