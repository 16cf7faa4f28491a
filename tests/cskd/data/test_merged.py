"""Merged datasets: every image is its part's, with a class of its own."""

import dataclasses

import fakes
import numpy as np
import pytest
from arrays import random_split

from cskd.data.prepare import SOURCES, open_prepared, prepare
from cskd.data.sources.merged import merge
from cskd.data.splits import restrict
from cskd.data.store import JoinedSplit
from cskd.utils.errors import UserError
from experiments.config.datasets import is_prepared, open_data
from experiments.config.recipe import Data, load_settings

PARTS = ("cub200", "dogs", "mit67")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A DATA_DIR with the three fakes, prepared."""
    folder = tmp_path_factory.mktemp("data")
    for name in PARTS:
        fakes.TREES[name](folder)
        prepare(name, folder, source=fakes.small(SOURCES[name]))
    return folder


@pytest.fixture
def parts(data_dir):
    return {name: open_prepared(name, data_dir) for name in PARTS}


def test_every_image_is_its_parts_with_a_class_of_its_own(parts):
    dataset = merge("merged", parts)
    assert dataset.classes[:1] == ("cub200/Black_footed_Albatross",)
    assert dataset.classes[3:] == tuple(f"{name}/{label}" for name in PARTS[1:] for label in parts[name].classes)
    assert dataset.domains == tuple(name for name in PARTS for _ in range(3))
    for split in ("train", "test"):
        joined = getattr(dataset, split)
        own = [
            (name, part.classes[getattr(part, split).labels[row]], getattr(part, split).image(row))
            for name, part in parts.items()
            for row in range(len(getattr(part, split)))
        ]
        assert len(joined) == len(own)
        assert joined.nbytes == sum(getattr(part, split).nbytes for part in parts.values())
        for row, (name, label, pixels) in enumerate(own):
            assert dataset.classes[joined.labels[row]] == f"{name}/{label}"
            assert joined.sizes[row].tolist() == list(pixels.shape[:2])
            assert np.shares_memory(joined.image(row), pixels)
            assert np.array_equal(joined.image(row), pixels)


def test_it_is_as_complete_and_as_large_as_its_parts(parts):
    dataset = merge("merged", parts)
    assert dataset.complete
    assert dataset.short_side == min(part.short_side for part in parts.values())
    assert dataset.source.startswith("cub200: folder CUB_200_2011 at hand, counts checked; dogs: ")
    part = dataclasses.replace(parts["dogs"], complete=False, short_side=5)
    assert not merge("merged", parts | {"dogs": part}).complete
    assert merge("merged", parts | {"dogs": part}).short_side == 5


def test_the_digest_comes_from_the_parts_and_their_names(parts):
    digest = merge("merged", parts).digest
    assert merge("another", parts).digest == digest
    changed = dataclasses.replace(parts["dogs"], digest="0" * 64)
    others = (parts | {"dogs": changed}, dict(reversed(parts.items())), {"birds": parts["cub200"], **parts})
    assert len({digest, *(merge("merged", other).digest for other in others)}) == 4


def test_images_of_one_size_are_uniform(parts):
    train = parts["dogs"].train  # noise of 9 x 12 px, throughout
    joined = JoinedSplit([train, train], [0, 3])
    assert joined.uniform().shape == (18, 9, 12, 3)
    assert np.array_equal(joined.uniform()[9:], train.uniform())
    assert merge("merged", parts).train.uniform() is None


def test_the_domains_follow_the_classes_that_a_subset_keeps(parts):
    dataset = merge("merged", parts)
    classes, train, _ = restrict("merged", dataset.classes, dataset.train, None, num_classes=5, images_per_class=2)
    assert dataset.domains_of(classes) == tuple(label.partition("/")[0] for label in classes)
    assert len(train) == 10
    for row in range(len(train)):
        whole = train.indices[row]
        assert dataset.classes[dataset.train.labels[whole]] == classes[train.labels[row]]
        assert np.array_equal(train.image(row), dataset.train.image(whole))
    assert parts["dogs"].domains_of(parts["dogs"].classes) is None


def test_the_recipe_is_the_three_sets_and_the_test_set_can_stay_closed(data_dir):
    _, settings = load_settings("merged")
    assert settings.data.parts == PARTS
    assert is_prepared("merged", settings.data, data_dir)
    dataset = open_data("merged", settings.data, data_dir)
    closed = open_data("merged", settings.data, data_dir, test=False)
    assert (len(dataset.train), len(dataset.test), closed.test) == (27, 18, None)
    assert dataset.digest == closed.digest
    assert len(dataset.classes) == 9


def test_a_part_that_is_not_prepared_is_named(data_dir):
    data = Data(reader="merged", parts=("cub200", "tinyimagenet"))
    assert not is_prepared("merged", data, data_dir)
    with pytest.raises(UserError, match=r"tinyimagenet is not prepared .*: make data DATASET=tinyimagenet"):
        open_data("merged", data, data_dir)


def test_all_classes_keep_at_most_the_images_asked_for(parts):
    dataset = merge("merged", parts)
    for most in (2, fakes.TRAIN + 1):
        classes, train, test = restrict(
            "merged", dataset.classes, dataset.train, dataset.test, num_classes=None, images_per_class=most
        )
        assert classes == dataset.classes
        assert np.bincount(train.labels).tolist() == [min(most, fakes.TRAIN)] * 9
        assert len(test) == len(dataset.test)
    # of a class, it is the same draw with or without a choice of classes
    chosen = [
        restrict("merged", dataset.classes, dataset.train, None, num_classes=count, images_per_class=2)[1].indices
        for count in (None, 9, None)
    ]
    assert np.array_equal(chosen[0], chosen[1])
    assert np.array_equal(chosen[0], chosen[2])


def test_the_mini_profile_has_classes_of_every_domain():
    _, settings = load_settings("merged", "mini")
    counts = {name: SOURCES[name].num_classes for name in settings.data.parts}
    domains = np.repeat(list(counts), list(counts.values()))
    split = random_split(0, 1)
    split.labels = np.repeat(np.arange(len(domains)), 28)
    classes, _, _ = restrict(
        "merged", tuple(range(len(domains))), split, None, num_classes=settings.subset.classes, images_per_class=28
    )
    assert np.unique(domains[list(classes)], return_counts=True)[1].tolist() == [18, 11, 3]
