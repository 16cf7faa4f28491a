"""Training and test batches: order, views, pairs, and bit-equal pixels for every way of resizing."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from arrays import array_split, random_split
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cskd.batch import Replica
from cskd.data.loader import TestSet, TrainLoader
from cskd.data.pixels import RESIZING
from cskd.data.splits import Split
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.utils.errors import UserError

CPU = torch.device("cpu")
VIEWS = ("x", "partner", "second", "clean")


def numbered(labels) -> Split:
    """Images whose pixels all equal the image's index."""
    return array_split([np.full((8, 8, 3), index, dtype=np.uint8) for index in range(len(labels))], labels)


def loader(split, augmentation=None, views=("x",), batch_size=8, seed=0, clean=None, resizing=None) -> TrainLoader:
    return TrainLoader(
        split,
        augmentation or PadAndCrop(8, 0),
        clean or CenterCrop(8, 8),
        views=frozenset(views),
        batch_size=batch_size,
        seed=seed,
        device=CPU,
        resizing=resizing,
    )


def joined(batches, view: str) -> torch.Tensor:
    return torch.cat([batch.views[view] for batch in batches])


def indices(batches, view: str) -> np.ndarray:
    """The indices of the images in batches of ``numbered``."""
    return joined(batches, view)[:, 0, 0, 0].long().numpy()


@pytest.mark.parametrize("resizing", [None, *RESIZING])
@pytest.mark.parametrize(
    ("size", "augmentation", "clean", "expected"),
    [
        (None, ResizedCrop(16), CenterCrop(16, 18), "58a4c7dbf77e04ee27616071a34781255aa1740033305ce25ded184eb66ad372"),
        (
            (24, 20),
            ResizedCrop(16, flip=False),
            CenterCrop(16),
            "dfa7b29be99e19300e418a925ef0095504c3bb69aeb0d278b325bb4b7e139315",
        ),
        ((8, 8), PadAndCrop(8, 1), CenterCrop(8), "357c87d3b865b40f46101a76e85f13dca7bbcff45c0a845ec143da9fa5fe52fe"),
    ],
)
def test_batches_of_a_seed_are_bit_equal_to_the_recorded_ones(size, augmentation, clean, expected, resizing):
    """Other bits would change the results of every recorded run."""
    split = random_split(45, 5, size=size)
    batches = loader(split, augmentation, VIEWS, seed=3, clean=clean, resizing=resizing)
    some, tests = (
        TestSet(images, clean, batch_size=10, device=CPU, resizing=resizing)
        for images in (split.select(np.array([16, 3, 4])), split)
    )
    digest = hashlib.sha256()
    for batch in batches.epoch(2):
        for name in sorted(batch.views):
            digest.update(batch.views[name].permute(0, 2, 3, 1).contiguous().numpy())
        digest.update(batch.labels.numpy())
    for images in [*some.batches(), *tests.batches()]:
        digest.update(images.permute(0, 2, 3, 1).contiguous().numpy())
    assert digest.hexdigest() == expected


@settings(max_examples=10, deadline=None)
@given(
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=80).map(
        lambda some: np.unique(some, return_inverse=True)[1]
    ),
    batch_size=st.integers(2, 90),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 10**6),
)
def test_epoch_has_every_image_once_and_pairs_of_the_same_class(labels, batch_size, seed, epoch):
    assume(len(labels) % batch_size != 1)
    batches = list(loader(numbered(labels), views=VIEWS, batch_size=batch_size, seed=seed).epoch(epoch))
    assert [len(batch.labels) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert 1 < len(batches[-1].labels) <= batch_size
    x = indices(batches, "x")
    assert sorted(x) == list(range(len(labels)))
    batch_labels = torch.cat([batch.labels for batch in batches]).numpy()
    assert np.array_equal(batch_labels, labels[x])
    assert np.array_equal(batch_labels, labels[indices(batches, "partner")])
    assert np.array_equal(indices(batches, "clean"), x)


@pytest.mark.parametrize("augmentation", [PadAndCrop(8, 1), ResizedCrop(8)])
def test_epoch_depends_only_on_seed_and_number(augmentation):
    """Not on earlier epochs, the other views, the batch size, or the number of threads. Another seed changes all."""
    split, threads = random_split(50, 5), torch.get_num_threads()
    expected = list(loader(split, augmentation, VIEWS, seed=7).epoch(3))
    used = loader(split, augmentation, ("x",), batch_size=16, seed=7)
    list(used.epoch(0))
    try:
        torch.set_num_threads(3)
        more_threads = list(loader(split, augmentation, VIEWS, seed=7).epoch(3))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(joined(used.epoch(3), "x"), joined(expected, "x"))
    assert all(torch.equal(joined(more_threads, view), joined(expected, view)) for view in VIEWS)
    others = [expected, loader(split, augmentation, VIEWS, seed=8).epoch(3), used.epoch(4)]
    images = [joined(batches, "x") for batches in others] + [joined(expected, view) for view in VIEWS[1:]]
    assert not any(torch.equal(first, second) for first, second in itertools.combinations(images, 2))


@pytest.mark.parametrize("augmentation", [PadAndCrop(8, 1), ResizedCrop(8)])
def test_replicas_have_the_rows_of_the_whole_batches(augmentation):
    """With the same order, partners and augmentation. A last batch of 2 images is too small for two replicas."""
    split = random_split(42, 5)
    whole = list(loader(split, augmentation, VIEWS).epoch(3))
    parts = []
    for rank in range(2):
        of_replica = loader(split, augmentation, VIEWS)
        of_replica.replica = Replica(rank, 2)
        parts.append(list(of_replica.epoch(3)))
    assert [batch.weight for batch in parts[1]] == [1.0] * 5 + [0.0]
    for batch, first, second in zip(whole, *parts, strict=True):
        trained = [part for part in (first, second) if part.weight]
        for view in VIEWS:
            assert torch.equal(torch.cat([part.views[view] for part in trained]), batch.views[view])
        assert torch.equal(torch.cat([part.labels for part in trained]), batch.labels)
    assert len(second.labels) == 2


def test_replicas_have_equal_shares_of_the_test_images_and_all_labels():
    split = numbered(np.arange(11) % 3)
    shares = [TestSet(split, CenterCrop(8), batch_size=2, device=CPU, replica=Replica(rank, 3)) for rank in range(3)]
    assert [share.images[:, 0, 0, 0].tolist() for share in shares] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 10]]
    assert all(len(share.labels) == len(share.indices) == 11 for share in shares)


def test_test_set_keeps_the_order_and_the_positions_of_its_images():
    split = numbered(np.arange(11) % 3)
    chosen = np.array([2, 5, 9])
    for part, expected in ((split, list(range(11))), (split.select(chosen), [2, 5, 9])):
        tests = TestSet(part, CenterCrop(8), batch_size=4, device=CPU)
        assert tests.indices.tolist() == expected
        assert [int(image[0, 0, 0]) for batch in tests.batches() for image in batch] == expected
        assert tests.labels.tolist() == split.labels[expected].tolist()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (numbered(np.arange(17) % 4), "batch size 8"),
        (random_split(20, 4, size=None), "8 x 8"),
    ],
)
def test_impossible_loader_is_refused(split, message):
    with pytest.raises(UserError, match=message):
        loader(split)
