"""Preparation: sources in order, official numbers, PARTIAL=1, damage, one process at a time."""

import dataclasses

import fakes
import numpy as np
import pytest

from cskd.data.prepare import LOCK, open_prepared, prepare, prepared_folder
from cskd.data.sources.registry import SOURCES
from cskd.utils.errors import UserError


@pytest.fixture
def cub200(tmp_path):
    """The source of a small unpacked CUB-200 in tmp_path."""
    fakes.cub200(tmp_path)
    return fakes.small(SOURCES["cub200"])


@pytest.mark.parametrize(("name", "subfolder"), [*zip(fakes.TREES, [".", "downloads"] * 3, strict=True)])
def test_archives_give_the_same_digest_as_their_unpacked_folder(tmp_path, name, subfolder):
    data_dir = tmp_path / "data"
    source = fakes.pack(SOURCES[name], fakes.TREES[name](tmp_path / "made"), data_dir / subfolder)
    before = {path.name for path in data_dir.iterdir()}
    dataset = prepare(name, data_dir, source=source)
    assert dataset.complete
    assert "verified), counts checked" in dataset.source
    assert dataset.digest == prepare(name, tmp_path / "made", source=source).digest
    assert {path.name for path in data_dir.iterdir()} == {*before, LOCK, "prepared"}


def test_prepared_dataset_is_not_prepared_again_unless_damaged_or_of_another_format(tmp_path, cub200):
    digest = prepare("cub200", tmp_path, source=cub200).digest
    (tmp_path / "CUB_200_2011").rename(tmp_path / "elsewhere")
    assert prepare("cub200", tmp_path, source=cub200).digest == digest
    (tmp_path / "elsewhere").rename(tmp_path / "CUB_200_2011")
    prepared = prepared_folder("cub200", tmp_path)
    (prepared / "train" / "images.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"is damaged .*make data DATASET=cub200"):
        open_prepared("cub200", tmp_path)
    assert prepare("cub200", tmp_path, source=cub200).digest == digest
    about = prepared / "dataset.json"
    about.write_text(about.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(UserError, match=r"prepared by another version .*: prepare it again with make data"):
        open_prepared("cub200", tmp_path)
    assert prepare("cub200", tmp_path, source=cub200).digest == digest


@pytest.mark.parametrize("name", ["tinyimagenet", "mit67"])
def test_incomplete_copy_needs_partial_and_is_marked(tmp_path, name):
    source = fakes.small(SOURCES[name])
    fakes.TREES[name](tmp_path)
    missing = source.read(source.find(tmp_path)).train[-1][0]
    missing.rename(tmp_path / "missing")
    with pytest.raises(UserError, match=r"PARTIAL=1"):
        prepare(name, tmp_path, source=source)
    dataset = prepare(name, tmp_path, source=source, partial=True)
    assert not dataset.complete
    assert len(dataset.train) == 3 * fakes.TRAIN - 1
    assert dataset.source.endswith(", incomplete")
    with pytest.raises(UserError, match=r"PARTIAL=1"):
        prepare(name, tmp_path, source=source)
    (tmp_path / "missing").rename(missing)
    assert prepare(name, tmp_path, source=source).complete


def test_wrong_numbers_of_images_are_refused(tmp_path, cub200):
    with pytest.raises(UserError, match=r"CUB-200-2011 has 200 classes, .*CUB_200_2011 has 3"):
        prepare("cub200", tmp_path, partial=True)
    source = dataclasses.replace(SOURCES["cub200"], num_classes=3)
    with pytest.raises(UserError, match="expected 5,994 training images, found 9 and 5,794 test images, found 6"):
        prepare("cub200", tmp_path, source=source)
    assert not (tmp_path / "prepared").exists()


def test_archive_with_another_checksum_is_not_unpacked_and_downloaded_again_if_deleted(tmp_path):
    source = fakes.pack(SOURCES["dogs"], fakes.dogs(tmp_path / "made"), tmp_path / "server", "file://{}")
    path = tmp_path / "data" / "images.tar"
    path.parent.mkdir()
    path.write_bytes((tmp_path / "server" / "images.tar").read_bytes()[:-1])
    with pytest.raises(UserError, match=rf"{path} has sha256 .*, not sha256 .*; delete it to download file:"):
        prepare("dogs", tmp_path / "data", source=source)
    assert not (tmp_path / "data" / "prepared").exists()
    path.unlink()
    assert prepare("dogs", tmp_path / "data", source=source).complete


def test_truncated_image_of_an_archive_leaves_nothing_behind(tmp_path):
    image = fakes.cub200(tmp_path / "made") / "images" / "002.Laysan_Albatross" / "Laysan_Albatross_0000_6.jpg"
    image.write_bytes(image.read_bytes()[:-40])
    data_dir = tmp_path / "data"
    source = fakes.pack(SOURCES["cub200"], tmp_path / "made" / "CUB_200_2011", data_dir)
    with pytest.raises(UserError, match=r"1 of 15 images cannot be decoded: CUB_200_2011/.*_0000_6\.jpg") as caught:
        prepare("cub200", data_dir, source=source)
    assert f"read from {data_dir / 'CUB_200_2011.tgz'}: delete" in str(caught.value)
    assert {path.name for path in data_dir.rglob("*")} == {LOCK, "CUB_200_2011.tgz", "prepared"}


def test_digits_have_the_recorded_digest(tmp_path):
    """The digest is part of run keys: another one would orphan every recorded run."""
    dataset = prepare("digits", tmp_path)
    assert dataset.digest == "1b06341fe337ffef41ac0fdd97743f39f9b948d28d7eef4c1101560fa979d3b5"
    assert np.bincount(dataset.train.labels).tolist() == [20] * 10
