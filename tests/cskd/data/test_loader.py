"""Order, views and partners of the training batches."""

import hashlib

import numpy as np
import pytest
import torch
from arrays import ArraySplit, random_split

from cskd.data.loader import Normalise, TestSet, TrainLoader
from cskd.data.pairs import ClassPartners
from cskd.data.pixels import RESIZING
from cskd.data.splits import SplitView
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.utils.errors import UserError
from cskd.utils.seeding import generator

CPU = torch.device("cpu")


def numbered(count: int, classes: int) -> ArraySplit:
    """Images whose every pixel is the image's own index."""
    images = [np.full((8, 8, 3), index, dtype=np.uint8) for index in range(count)]
    return ArraySplit(images, np.arange(count) % classes)


def loader(split, augmentation=None, views=("x",), batch_size=8, seed=0, clean=None, resizing=None) -> TrainLoader:
    augmentation = augmentation or PadAndCrop(8, 0)
    return TrainLoader(
        split,
        augmentation,
        clean or CenterCrop(8, 8),
        views=frozenset(views),
        batch_size=batch_size,
        seed=seed,
        device=CPU,
        resizing=resizing,
    )


def digest(split, augmentation, clean, resizing) -> str:
    """SHA-256 of one epoch's batches with every view, of some images without augmentation, and of a test set."""
    views = ("x", "partner", "second", "clean")
    batches = loader(split, augmentation, views, seed=3, clean=clean, resizing=resizing)
    tests = TestSet(split, clean, batch_size=10, device=CPU, resizing=resizing)
    total = hashlib.sha256()
    for batch in batches.epoch(2):
        for name in sorted(batch.views):
            total.update(batch.views[name].permute(0, 2, 3, 1).contiguous().numpy())
        total.update(batch.labels.numpy())
    for images in [*batches.clean_batches(np.array([16, 3, 4]), 2), *tests.batches()]:
        total.update(images.permute(0, 2, 3, 1).contiguous().numpy())
    return total.hexdigest()


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
def test_a_seed_gives_the_batches_it_has_always_given(size, augmentation, clean, expected, resizing):
    """Recorded when every image was made by Pillow, one at a time: runs of that time can be taken up."""
    assert digest(random_split(45, 5, size=size), augmentation, clean, resizing) == expected


def test_views_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match="one size"):
        loader(numbered(20, 4), ResizedCrop(8), clean=CenterCrop(7))


def test_an_epoch_sees_every_image_once_and_keeps_the_last_smaller_batch():
    batches = list(loader(numbered(43, 5)).epoch(0))
    assert [len(batch.labels) for batch in batches] == [8] * 5 + [3]
    seen = torch.cat([batch.views["x"][:, 0, 0, 0] for batch in batches])
    assert sorted(seen.tolist()) == list(range(43))


@pytest.mark.parametrize("augmentation", [PadAndCrop(8, 1), ResizedCrop(8)])
def test_an_epoch_is_the_same_whenever_it_is_asked_for_and_differs_from_the_next(augmentation):
    split = random_split(20, 4)
    first, again = loader(split, augmentation), loader(split, augmentation)
    list(again.epoch(0))  # a resumed run has not seen the earlier epochs, this one has: no difference
    one, two = list(first.epoch(1)), list(again.epoch(1))
    assert all(torch.equal(a.views["x"], b.views["x"]) for a, b in zip(one, two, strict=True))
    other = list(first.epoch(2))
    assert not torch.equal(one[0].views["x"], other[0].views["x"])


def test_a_view_more_leaves_the_others_as_they_were():
    split = random_split(20, 4)
    alone = list(loader(split, PadAndCrop(8, 1)).epoch(0))
    more = list(loader(split, PadAndCrop(8, 1), views=("x", "partner", "second", "clean")).epoch(0))
    for one, two in zip(alone, more, strict=True):
        assert torch.equal(one.views["x"], two.views["x"])
        assert not torch.equal(two.views["x"], two.views["second"])
    assert set(alone[0].views) == {"x"}


def test_clean_is_the_image_itself_in_the_order_of_x():
    for batch in loader(numbered(20, 4), views=("x", "clean")).epoch(0):
        assert torch.equal(batch.views["x"][:, 0, 0, 0], batch.views["clean"][:, 0, 0, 0])


@pytest.mark.parametrize("augmentation", [PadAndCrop(8, 0), ResizedCrop(8)])
def test_the_partner_is_an_image_of_the_same_class(augmentation):
    split = numbered(43, 5)
    others = 0
    for batch in loader(split, augmentation, views=("x", "partner")).epoch(0):
        partner = batch.views["partner"][:, 0, 0, 0].long()
        assert torch.equal(torch.as_tensor(split.labels)[partner], batch.labels)
        others += int((partner != batch.views["x"][:, 0, 0, 0]).sum())
    assert others > 20


def test_partners_are_drawn_uniformly_over_the_class_the_image_itself_included():
    partners = ClassPartners(np.array([1, 0, 1, 1, 0, 2]))
    drawn = partners.draw(torch.zeros(30_000, dtype=torch.long) + 2, generator(0, "test"))
    share = torch.bincount(drawn, minlength=6) / len(drawn)
    torch.testing.assert_close(share, torch.tensor([1, 0, 1, 1, 0, 0]) / 3, atol=0.01, rtol=0)
    assert partners.draw(torch.tensor([5]), generator(0, "test")).item() == 5


def test_the_test_set_keeps_the_splits_order():
    split = numbered(11, 3)
    tests = TestSet(split, CenterCrop(8), batch_size=4, device=CPU)
    seen = torch.cat([images[:, 0, 0, 0] for images in tests.batches()])
    assert seen.tolist() == list(range(11))
    assert tests.labels.tolist() == split.labels.tolist()
    assert tests.indices.tolist() == list(range(11))


def test_a_part_of_a_test_set_knows_where_its_images_stand():
    split = numbered(11, 3)
    kept = np.array([2, 5, 9])
    tests = TestSet(SplitView(split, kept, split.labels[kept]), CenterCrop(8), batch_size=4, device=CPU)
    assert tests.indices.tolist() == [2, 5, 9]
    assert [int(image[0, 0, 0]) for batch in tests.batches() for image in batch] == [2, 5, 9]


def test_clean_batches_are_the_images_as_the_test_set_has_them():
    split = numbered(18, 3)
    batches = list(loader(split).clean_batches(np.array([16, 3, 4]), 2))
    assert [len(batch) for batch in batches] == [2, 1]
    assert torch.cat(batches)[:, 0, 0, 0].tolist() == [16, 3, 4]


def test_normalise_is_torchvisions_to_tensor_and_normalize():
    images = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Normalise(mean, std, CPU)(images).double(), expected, atol=1e-5, rtol=1e-5)


def test_a_last_batch_of_one_image_is_refused():
    with pytest.raises(UserError, match="batch size 8"):
        loader(numbered(17, 4))


def test_pad_and_crop_of_images_of_another_size_is_refused():
    with pytest.raises(UserError, match="8 x 8"):
        loader(random_split(20, 4, size=None), PadAndCrop(8, 1))
