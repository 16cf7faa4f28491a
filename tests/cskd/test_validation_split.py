"""The validation split: stratified, apart from what is trained on, and always the same."""

import numpy as np
import pytest
from arrays import random_split
from hypothesis import given
from hypothesis import strategies as st

from cskd.data.splits import SplitView, hold_out, indices_digest, restrict
from cskd.utils.errors import UserError


@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=5),
    fraction=st.floats(0.01, 0.99),
)
def test_every_class_gives_its_share_and_keeps_some(counts, fraction):
    split = random_split(0, 1)
    split.labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    left, held = hold_out("made up", split, fraction)
    assert set(left.indices) | set(held.indices) == set(range(len(split)))
    assert not set(left.indices) & set(held.indices)
    for label, count in enumerate(counts):
        share = int((held.labels == label).sum())
        assert share == min(max(1, round(fraction * count)), count - 1)
        assert (left.labels == label).sum() == count - share
    assert np.array_equal(held.labels, split.labels[held.indices])
    assert list(held.indices) == sorted(held.indices)


def test_it_is_drawn_once_and_known_by_its_digest():
    split = random_split(60, 3)
    one, two = hold_out("made up", split, 0.1)[1], hold_out("made up", split, 0.1)[1]
    assert np.array_equal(one.indices, two.indices)
    # Pinned: another draw would make every tuned value's split digest a lie.
    assert indices_digest(one)[:16] == "e5d38e909d760bea"
    assert indices_digest(hold_out("made up", split, 0.2)[1]) != indices_digest(one)


def test_of_a_subset_its_indices_count_in_the_prepared_split():
    split = random_split(90, 3)
    classes, train, test = restrict("made up", ("a", "b", "c"), split, None, num_classes=2, images_per_class=10)
    assert test is None
    assert len(classes) == 2
    left, held = hold_out("made up", train, 0.2)
    assert (len(left), len(held)) == (16, 4)
    assert set(held.indices) <= set(train.indices)
    for view in (left, held):
        assert isinstance(view, SplitView)
        assert not isinstance(view.split, SplitView)
        for row in range(len(view)):
            assert np.array_equal(view.image(row), split.images[view.indices[row]])
            assert classes[view.labels[row]] == "abc"[split.labels[view.indices[row]]]


def test_a_class_of_one_image_cannot_give_any():
    split = random_split(5, 4)  # the last class has one
    with pytest.raises(UserError, match="made up: class 1 has one training image"):
        hold_out("made up", split, 0.1)
