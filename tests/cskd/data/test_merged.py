"""Merged datasets: each image keeps its pixels and gets a class of its own."""

import dataclasses

import fakes
import numpy as np
import pytest

from cskd.data.prepare import open_prepared, prepare
from cskd.data.sources.registry import SOURCES
from cskd.data.splits import restrict
from cskd.data.store import merge
from cskd.utils.errors import UserError
from experiments.config.datasets import is_prepared, open_data
from experiments.config.recipe import load_settings
from experiments.config.settings import Data

PARTS = ("cub200", "dogs", "mit67")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A DATA_DIR with the three prepared parts."""
    folder = tmp_path_factory.mktemp("data")
    for name in PARTS:
        fakes.TREES[name](folder)
        prepare(name, folder, source=fakes.small(SOURCES[name]))
    return folder


@pytest.fixture
def parts(data_dir):
    return {name: open_prepared(name, data_dir) for name in PARTS}


def test_each_image_is_that_of_its_part_with_a_new_class(parts):
    dataset = merge("merged", parts)
    assert dataset.classes == tuple(f"{name}/{label}" for name in PARTS for label in parts[name].classes)
    assert dataset.domains == tuple(name for name in PARTS for _ in range(3))
    for split in ("train", "test"):
        joined = getattr(dataset, split)
        originals = [
            (name, part.classes[getattr(part, split).labels[row]], getattr(part, split).image(row))
            for name, part in parts.items()
            for row in range(len(getattr(part, split)))
        ]
        assert len(joined) == len(originals)
        for row, (name, label, pixels) in enumerate(originals):
            assert dataset.classes[joined.labels[row]] == f"{name}/{label}"
            assert np.shares_memory(joined.image(row), pixels)
            assert np.array_equal(joined.image(row), pixels)


def test_completeness_short_side_and_digest_come_from_the_parts(parts):
    dataset = merge("merged", parts)
    assert dataset.complete
    assert dataset.source.startswith("cub200: folder CUB_200_2011, counts checked; dogs: ")
    changed = dataclasses.replace(parts["dogs"], complete=False, short_side=5, digest="0" * 64)
    other = merge("merged", parts | {"dogs": changed})
    assert (other.complete, other.short_side) == (False, 5)
    reordered = merge("merged", dict(reversed(parts.items())))
    assert len({dataset.digest, other.digest, reordered.digest}) == 3


def test_subset_keeps_the_images_and_domains_of_its_classes(parts):
    dataset = merge("merged", parts)
    subset = restrict("merged", dataset.classes, dataset.train, None, num_classes=5, images_per_class=2)
    assert dataset.domains_of(subset.classes) == tuple(label.partition("/")[0] for label in subset.classes)
    assert len(subset.train) == 10
    for row, index in enumerate(subset.train.indices):
        assert dataset.classes[dataset.train.labels[index]] == subset.classes[subset.train.labels[row]]
        assert np.array_equal(subset.train.image(row), dataset.train.image(index))
    every = restrict(
        "merged", dataset.classes, dataset.train, dataset.test, num_classes=None, images_per_class=fakes.TRAIN + 1
    )
    assert every.classes == dataset.classes
    assert (len(every.train), len(every.test)) == (len(dataset.train), len(dataset.test))


def test_recipe_merges_the_three_datasets_and_can_leave_the_test_set_closed(data_dir):
    _, settings = load_settings("merged")
    assert settings.data.parts == PARTS
    assert is_prepared("merged", settings.data, data_dir)
    dataset = open_data("merged", settings.data, data_dir)
    closed = open_data("merged", settings.data, data_dir, test=False)
    assert (len(dataset.train), len(dataset.test), closed.test) == (27, 18, None)
    assert dataset.digest == closed.digest
    other = Data(reader="merged", parts=("cub200", "tinyimagenet"))
    assert not is_prepared("merged", other, data_dir)
    with pytest.raises(UserError, match=r"tinyimagenet is not prepared .*: make data DATASET=tinyimagenet"):
        open_data("merged", other, data_dir)
