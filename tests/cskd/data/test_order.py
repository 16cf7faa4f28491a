"""The order of an epoch and the partners in it, whatever the sizes are."""

import numpy as np
import pytest
import torch
from arrays import ArraySplit, random_split
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cskd.data.loader import TrainLoader
from cskd.data.pairs import ClassPartners
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.utils.seeding import generator

CPU = torch.device("cpu")
every = settings(max_examples=40, deadline=None, derandomize=True)
all_labels = st.lists(st.integers(0, 6), min_size=1, max_size=80).map(
    lambda few: np.unique(few, return_inverse=True)[1]
)


def numbered(labels: np.ndarray) -> ArraySplit:
    """Images whose every pixel is the image's own index."""
    return ArraySplit([np.full((8, 8, 3), index, dtype=np.uint8) for index in range(len(labels))], labels)


def loader(split, batch_size: int, seed: int, views=("x", "partner"), augmentation=None) -> TrainLoader:
    return TrainLoader(
        split,
        augmentation or PadAndCrop(8, 0),
        CenterCrop(8, 8),
        views=frozenset(views),
        batch_size=batch_size,
        seed=seed,
        device=CPU,
    )


def whole(batches, view: str) -> torch.Tensor:
    return torch.cat([batch.views[view] for batch in batches])


@every
@given(labels=all_labels, batch_size=st.integers(2, 90), seed=st.integers(0, 2**31), epoch=st.integers(0, 10**6))
def test_an_epoch_has_every_image_once_and_no_partner_of_another_class(labels, batch_size, seed, epoch):
    assume(len(labels) % batch_size != 1)
    batches = list(loader(numbered(labels), batch_size, seed).epoch(epoch))
    assert [len(batch.labels) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 < len(batches[-1].labels) <= batch_size
    x, partner = (whole(batches, view)[:, 0, 0, 0].long().numpy() for view in ("x", "partner"))
    assert sorted(x) == list(range(len(labels)))
    message = torch.cat([batch.labels for batch in batches]).numpy()
    assert np.array_equal(message, labels[x])
    assert np.array_equal(message, labels[partner])


@every
@given(
    count=st.integers(4, 60), first=st.integers(2, 64), second=st.integers(2, 64), seed=st.integers(0, 2**31),
    epoch=st.integers(0, 1000), resized=st.booleans(),
)  # fmt: skip
def test_the_order_and_the_pixels_do_not_depend_on_the_batch_size(count, first, second, seed, epoch, resized):
    assume(count % first != 1 and count % second != 1)
    split, augmentation = random_split(count, 3, seed=seed), ResizedCrop(8) if resized else PadAndCrop(8, 2)
    views = ("x", "partner", "second", "clean")
    one, two = (list(loader(split, size, seed, views, augmentation).epoch(epoch)) for size in (first, second))
    assert all(torch.equal(whole(one, view), whole(two, view)) for view in views)


@pytest.mark.parametrize("augmentation", [PadAndCrop(8, 2), ResizedCrop(8)])
def test_nor_on_the_number_of_threads(augmentation):
    split, before = random_split(50, 5), torch.get_num_threads()
    try:
        epochs = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            epochs.append(list(loader(split, 16, 7, ("x", "partner"), augmentation).epoch(3)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(whole(epochs[0], view), whole(epochs[1], view)) for view in ("x", "partner"))


@every
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 1000))
def test_another_seed_and_another_epoch_have_another_order_and_other_partners(seed, epoch):
    split = numbered(np.arange(60) % 3)
    first = list(loader(split, 20, seed).epoch(epoch))
    for others in (loader(split, 20, seed + 1).epoch(epoch), loader(split, 20, seed).epoch(epoch + 1)):
        other = list(others)
        assert not torch.equal(whole(first, "x"), whole(other, "x"))
        assert not torch.equal(whole(first, "partner"), whole(other, "partner"))


@every
@given(labels=all_labels, seed=st.integers(0, 2**31))
def test_partners_are_uniform_over_the_class_the_image_itself_included(labels, seed):
    """Chi-square: with these seeds fixed it does not fail by chance."""
    partners, times = ClassPartners(labels), 200
    indices = torch.arange(len(labels)).repeat(times)
    drawn = partners.draw(indices, generator(seed, "test")).numpy()
    assert np.array_equal(labels[drawn], labels[indices.numpy()])
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        counts = np.bincount(drawn[labels[drawn] == label], minlength=len(labels))[members]
        assert counts.sum() == times * len(members)
        assert len(members) == 1 or chisquare(counts).pvalue > 1e-5
        own = int((drawn == indices.numpy())[labels[indices.numpy()] == label].sum())
        spread = (times * (1 - 1 / len(members))) ** 0.5  # of a binomial whose mean is ``times``
        assert abs(own - times) <= 5 * spread
