"""Merged datasets: each image keeps its pixels and gets a class of its own."""

import dataclasses

import fakes
import numpy as np
import pytest
from arrays import labelled_split

from cskd.data.prepare import open_prepared, prepare
from cskd.data.sources.registry import SOURCES
from cskd.data.splits import Split, restrict
from cskd.data.store import merge
from cskd.utils.errors import UserError
from experiments.config.datasets import is_prepared, open_data
from experiments.config.recipe import Data, load_settings

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
        assert joined.nbytes == sum(getattr(part, split).nbytes for part in parts.values())
        for row, (name, label, pixels) in enumerate(originals):
            assert dataset.classes[joined.labels[row]] == f"{name}/{label}"
            assert joined.sizes[row].tolist() == list(pixels.shape[:2])
            assert np.shares_memory(joined.image(row), pixels)
            assert np.array_equal(joined.image(row), pixels)


def test_completeness_and_short_side_come_from_the_parts(parts):
    dataset = merge("merged", parts)
    assert dataset.complete
    assert dataset.source.startswith("cub200: folder CUB_200_2011, counts checked; dogs: ")
    changed = merge("merged", parts | {"dogs": dataclasses.replace(parts["dogs"], complete=False, short_side=5)})
    assert (changed.complete, changed.short_side) == (False, 5)


def test_digest_comes_from_the_parts_and_their_names(parts):
    digest = merge("merged", parts).digest
    assert merge("another", parts).digest == digest
    changed = dataclasses.replace(parts["dogs"], digest="0" * 64)
    others = (parts | {"dogs": changed}, dict(reversed(parts.items())), {"birds": parts["cub200"], **parts})
    assert len({digest, *(merge("merged", other).digest for other in others)}) == 4


def test_joined_images_of_one_size_are_uniform(parts):
    train = parts["dogs"].train  # all 9 x 12 px
    joined = Split.joined([train, train], [0, 3])
    assert joined.uniform().shape == (18, 9, 12, 3)
    assert np.array_equal(joined.uniform()[9:], train.uniform())
    assert merge("merged", parts).train.uniform() is None


def test_domains_follow_the_classes_of_a_subset(parts):
    dataset = merge("merged", parts)
    subset = restrict("merged", dataset.classes, dataset.train, None, num_classes=5, images_per_class=2)
    classes, train = subset.classes, subset.train
    assert dataset.domains_of(classes) == tuple(label.partition("/")[0] for label in classes)
    assert len(train) == 10
    for row, index in enumerate(train.indices):
        assert dataset.classes[dataset.train.labels[index]] == classes[train.labels[row]]
        assert np.array_equal(train.image(row), dataset.train.image(index))
    assert parts["dogs"].domains_of(parts["dogs"].classes) is None


def test_subset_of_all_classes_keeps_at_most_the_requested_images(parts):
    dataset = merge("merged", parts)

    def subset(num_classes, images):
        return restrict(
            "merged", dataset.classes, dataset.train, dataset.test, num_classes=num_classes, images_per_class=images
        )

    for images in (2, fakes.TRAIN + 1):
        splits = subset(None, images)
        assert splits.classes == dataset.classes
        assert np.bincount(splits.train.labels).tolist() == [min(images, fakes.TRAIN)] * 9
        assert len(splits.test) == len(dataset.test)
        assert (splits.unused is None) == (images > fakes.TRAIN)
    assert np.array_equal(subset(None, 2).train.indices, subset(9, 2).train.indices)


def test_recipe_merges_the_three_datasets_and_can_leave_the_test_set_closed(data_dir):
    _, settings = load_settings("merged")
    assert settings.data.parts == PARTS
    assert is_prepared("merged", settings.data, data_dir)
    dataset = open_data("merged", settings.data, data_dir)
    closed = open_data("merged", settings.data, data_dir, test=False)
    assert (len(dataset.train), len(dataset.test), closed.test) == (27, 18, None)
    assert dataset.digest == closed.digest


def test_missing_part_is_named(data_dir):
    data = Data(reader="merged", parts=("cub200", "tinyimagenet"))
    assert not is_prepared("merged", data, data_dir)
    with pytest.raises(UserError, match=r"tinyimagenet is not prepared .*: make data DATASET=tinyimagenet"):
        open_data("merged", data, data_dir)


def test_mini_profile_has_classes_of_every_domain():
    _, settings = load_settings("merged", "mini")
    counts = {name: SOURCES[name].num_classes for name in settings.data.parts}
    domains = np.repeat(list(counts), list(counts.values()))
    split = labelled_split(np.repeat(np.arange(len(domains)), 28))
    classes = restrict(
        "merged", tuple(range(len(domains))), split, None, num_classes=settings.subset.classes, images_per_class=28
    ).classes
    assert np.unique(domains[list(classes)], return_counts=True)[1].tolist() == [18, 11, 3]
