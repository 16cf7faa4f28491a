"""Datasets that are stored as the original files: they give what the same dataset gives as pixels."""

import dataclasses

import fakes
import numpy as np
import pytest
import torch

from cskd.data import loader
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.pixels import RESIZING
from cskd.data.prepare import open_prepared, prepare, prepared_folder
from cskd.data.sources.registry import SOURCES
from cskd.data.store import Dataset, merge, open_dataset
from cskd.data.transforms import CenterCrop, ResizedCrop
from cskd.utils.errors import UserError

CPU = torch.device("cpu")
CROP = CenterCrop(16, 18)
SOURCE = fakes.small(SOURCES["imagenet"])


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> tuple[Dataset, Dataset]:
    """A small ImageNet stored as files, and as pixels."""
    folder = tmp_path_factory.mktemp("imagenet")
    fakes.imagenet(folder)
    as_pixels = dataclasses.replace(SOURCE, encoded=False)
    return prepare("imagenet", folder, source=SOURCE), prepare("as-pixels", folder, source=as_pixels)


def test_content_and_digest_do_not_depend_on_the_encoding(stored):
    encoded, pixels = stored
    assert encoded.digest == pixels.digest
    assert encoded.train.nbytes < pixels.train.nbytes
    for ours, other in ((encoded.train, pixels.train), (encoded.test, pixels.test)):
        assert np.array_equal(ours.sizes, other.sizes)
        assert all(np.array_equal(ours.image(row), other.image(row)) for row in range(len(ours)))
    chosen = np.array([7, 1])
    joined = merge("both", {"a": pixels, "b": encoded}).train.select(chosen + len(pixels.train))
    assert all(np.array_equal(joined.image(row), pixels.train.image(index)) for row, index in enumerate(chosen))


@pytest.mark.parametrize("resizing", RESIZING)
def test_batches_do_not_depend_on_the_encoding(stored, resizing):
    def batches(dataset: Dataset) -> list[torch.Tensor]:
        views = frozenset({"x", "partner", "second", "clean"})
        options = {"batch_size": 4, "device": CPU, "resizing": resizing}
        train = TrainLoader(dataset.train.select(np.arange(7)), ResizedCrop(16), CROP, views=views, seed=1, **options)
        tests = TestSet(dataset.test, CROP, **options)
        return [view for batch in train.epoch(3) for _, view in sorted(batch.views.items())] + list(tests.batches())

    assert all(torch.equal(ours, other) for ours, other in zip(*map(batches, stored), strict=True))


@pytest.mark.parametrize("resizing", RESIZING)
def test_large_test_set_is_transformed_in_each_evaluation(stored, resizing, monkeypatch):
    def make() -> TestSet:
        return TestSet(stored[0].test, CROP, batch_size=4, device=CPU, resizing=resizing)

    expected = list(make().batches())
    monkeypatch.setattr(loader, "MAX_STORED", 0)
    again = make()
    assert again.images is None
    for _ in range(2):
        assert all(torch.equal(ours, other) for ours, other in zip(again.batches(), expected, strict=True))


def test_boxes_do_not_depend_on_how_many_are_drawn_together(monkeypatch):
    sizes = np.random.default_rng(0).integers(1, 300, (50, 2))

    def draw() -> torch.Tensor:
        return ResizedCrop(16).draw(sizes, torch.Generator().manual_seed(0))

    expected = draw()
    monkeypatch.setattr(ResizedCrop, "AT_ONCE", 7)
    assert torch.equal(draw(), expected)


def test_missing_archives_are_named_with_their_page_before_any_check(tmp_path):
    (tmp_path / "ILSVRC2012_img_val.tar").write_bytes(b"not checked yet")
    with pytest.raises(UserError) as caught:
        prepare("imagenet", tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    for name in ("ILSVRC2012_img_train.tar", "ILSVRC2012_devkit_t12.tar.gz"):
        assert (
            f"log in at https://image-net.org/challenges/LSVRC/2012/2012-downloads.php, download {name} and" in message
        )
    assert message.endswith(f"as {tmp_path / 'imagenet'}/: train/<wnid>/*.JPEG, val/<wnid>/*.JPEG")


def test_validation_images_without_class_folders_are_refused(tmp_path):
    val = fakes.imagenet(tmp_path) / "val"
    for path in list(val.glob("*/*")):
        path.rename(val / path.name)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    with pytest.raises(UserError, match=r"val has no class folders: sort its images into val/<wnid>/"):
        prepare("imagenet", tmp_path, source=SOURCE)


def test_files_that_are_no_images_are_named_and_nothing_is_prepared(tmp_path):
    folder = fakes.imagenet(tmp_path) / "train" / fakes.WNIDS[0]
    names = [f"{fakes.WNIDS[0]}_{index}.JPEG" for index in range(2)]
    (folder / names[0]).write_bytes(b"text")
    fakes.write_image(folder / names[1], height=1, width=300)
    with pytest.raises(UserError, match=rf"{names[0]} \(not an image\), .*{names[1]} \(300 x 1 px, one side more than"):
        prepare("imagenet", tmp_path, source=SOURCE)
    assert not prepared_folder("imagenet", tmp_path).exists()


def test_damaged_file_is_an_error_that_says_what_to_do(tmp_path):
    fakes.imagenet(tmp_path)
    dataset = prepare("imagenet", tmp_path, source=SOURCE)
    folder = prepared_folder("imagenet", tmp_path) / "train"
    with (folder / "images.bin").open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(UserError, match=r"image 0 is damaged .*: remove the dataset's folder in DATA_DIR/prepared"):
        open_dataset(folder.parent).train.image(0)
    np.save(folder / "lengths.npy", dataset.train.lengths[:-1])
    with pytest.raises(UserError, match=r"is damaged .*make data DATASET=imagenet"):
        open_prepared("imagenet", tmp_path)
