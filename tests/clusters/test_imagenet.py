"""ImageNet in its official layout, with made-up images: read as torchvision reads it, and trained and resumed."""

import shutil

import fakes
import numpy as np
import pytest
from faults.disturbed import Disturbed, strike
from place import epoch_options
from torchvision.datasets import ImageNet, imagenet

from cskd.data.prepare import prepare
from cskd.data.sources.registry import SOURCES

pytestmark = pytest.mark.cluster("ImageNet: read as torchvision reads it, and trained")
CLASSES = len(fakes.WNIDS)


@pytest.fixture
def archives(tmp_path, monkeypatch):
    """The official archives of a small ImageNet in DATA_DIR, whose checksums torchvision knows. Returns the source."""
    source = fakes.pack(SOURCES["imagenet"], fakes.imagenet(tmp_path / "made"), tmp_path / "data")
    for kind, archive in zip(("train", "val", "devkit"), source.archives, strict=True):
        monkeypatch.setitem(imagenet.ARCHIVE_META, kind, (archive.filename, archive.checksum.removeprefix("md5:")))
    return source


@pytest.mark.parametrize("layout", ["archives", "unpacked by torchvision"])
def test_images_and_labels_are_those_of_torchvision(archives, tmp_path, tally, layout):
    root = tmp_path / "theirs" / "imagenet"
    shutil.copytree(tmp_path / "data", root)
    theirs = {split: ImageNet(root, split) for split in ("train", "val")}
    with tally:
        dataset = prepare("imagenet", tmp_path / ("data" if layout == "archives" else "theirs"), source=archives)
        assert list(dataset.classes) == theirs["train"].wnids
        for ours, other in ((dataset.train, theirs["train"]), (dataset.test, theirs["val"])):
            assert len(ours) == len(other)
            for row, (image, label) in enumerate(other):
                assert ours.labels[row] == label
                assert np.array_equal(ours.image(row), np.asarray(image))


def test_killed_table_5_resumes_exactly(archives, tmp_path, tally):
    """Profile mini, from the official archives to the tables."""
    prepare("imagenet", tmp_path / "data", source=archives)
    settings = ("subset={classes: 3, images_per_class: 3}", "batch_size=3")
    options = [part for setting in settings for part in ("--set", setting)]
    places = [tmp_path / "whole", tmp_path / "killed"]
    whole, killed = (
        Disturbed(place, "experiments grid", "table5", "--profile", "mini", *options, *epoch_options(4), "--tables")
        for place in places
    )
    for place in places:
        (place / "data").symlink_to(tmp_path / "data")
    with tally:
        status, output = whole.end(whole.launch())
        assert status == 0, output
        assert "imagenet" in output and "cs-kd †" in output  # the tables
        killed.strike(strike("cskd.data.pixels:PillowPixels.resized", 5))
        killed.finish(whole)
