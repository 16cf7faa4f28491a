"""The validation split: stratified, separate from the training images, and reproducible."""

import numpy as np
import pytest
from arrays import labelled_split, random_split
from hypothesis import given, settings
from hypothesis import strategies as st

from cskd.data.splits import hold_out, indices_digest, restrict
from cskd.utils.errors import UserError


@settings(max_examples=15, deadline=None)
@given(counts=st.lists(st.integers(2, 40), min_size=1, max_size=5), fraction=st.floats(0.01, 0.99))
def test_hold_out_takes_the_fraction_of_each_class_and_leaves_the_rest(counts, fraction):
    split = labelled_split(np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)))
    train, validation = hold_out("name", split, fraction)
    assert sorted([*train.indices, *validation.indices]) == list(range(len(split)))
    for label, count in enumerate(counts):
        assert (validation.labels == label).sum() == min(max(1, round(fraction * count)), count - 1)
    assert np.array_equal(validation.labels, split.labels[validation.indices])


def test_validation_split_is_pinned():
    split = random_split(60, 3)
    validation = hold_out("name", split, 0.1)[1]
    # Another draw would invalidate the split digest of every tuned value.
    assert indices_digest(validation)[:16] == "e5d38e909d760bea"
    assert indices_digest(hold_out("name", split, 0.2)[1]) != indices_digest(validation)


def test_subset_has_the_images_of_its_indices_and_the_seed_draws_them():
    split = random_split(90, 3)
    first, same, second = (
        restrict("name", ("a", "b", "c"), split, split, num_classes=2, images_per_class=10, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first.classes == second.classes
    assert np.array_equal(first.test.indices, second.test.indices)
    assert np.array_equal(first.train.indices, same.train.indices)
    assert not np.array_equal(first.train.indices, second.train.indices)
    members = np.flatnonzero(np.isin(split.labels, ["abc".index(name) for name in first.classes]))
    assert np.array_equal(np.sort(np.concatenate([first.train.indices, first.unused.indices])), members)
    assert np.array_equal(np.sort(np.concatenate([first.test.indices, first.near_ood.indices])), np.arange(90))
    assert restrict("name", ("a", "b", "c"), split, split, num_classes=None, images_per_class=10).near_ood is None
    rest, validation = hold_out("name", first.train, 0.2)
    assert (len(rest), len(validation)) == (16, 4)
    for part in (rest, validation, first.unused):
        for row, index in enumerate(part.indices):
            assert np.array_equal(part.image(row), split.image(index))
            assert first.classes[part.labels[row]] == "abc"[split.labels[index]]


def test_hold_out_rejects_a_class_with_one_image():
    split = random_split(5, 4)  # the last class has one
    with pytest.raises(UserError, match="name: class 1 has one training image"):
        hold_out("name", split, 0.1)
