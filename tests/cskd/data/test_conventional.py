"""torchvision's pipeline beside ours: the same images in the same order, augmented by its own transforms."""

import numpy as np
import pytest
import torch
from arrays import ArraySplit, random_split

from cskd.data.loader import TrainLoader
from cskd.data.torchvision_loader import ConventionalLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop

VIEWS = ("clean", "partner", "second", "x")


def make(kind, split, augmentation, clean, views=VIEWS, seed=0):
    return kind(split, augmentation, clean, views=frozenset(views), batch_size=8, seed=seed, device=torch.device("cpu"))


def epoch(*arguments, number=0, **options) -> dict[str, torch.Tensor]:
    """A whole epoch: its views, and its labels."""
    batches = list(make(*arguments, **options).epoch(number))
    views = {view: torch.cat([batch.views[view] for batch in batches]) for view in batches[0].views}
    return views | {"labels": torch.cat([batch.labels for batch in batches])}


@pytest.mark.parametrize("augmentation", [PadAndCrop(8, 0, flip=False), ResizedCrop(8)])
def test_every_view_shows_the_same_images_as_ours(augmentation):
    """Images whose every pixel is the image's own index stay so under any crop without padding."""
    images = [np.full((8, 8, 3), index, dtype=np.uint8) for index in range(21)]
    split = ArraySplit(images, np.arange(21) % 4)
    arguments = (split, augmentation, CenterCrop(8))
    ours, theirs = (epoch(kind, *arguments, number=3) for kind in (TrainLoader, ConventionalLoader))
    assert ours.keys() == theirs.keys() == {*VIEWS, "labels"}
    for name, values in ours.items():
        assert torch.equal(values, theirs[name]), name
    assert theirs["x"].shape == (21, 3, 8, 8)
    assert theirs["x"].dtype == torch.uint8
    assert theirs["x"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("size", "augmentation", "clean"),
    [((12, 12), PadAndCrop(12, 2), CenterCrop(12)), (None, ResizedCrop(12), CenterCrop(12, 14))],
)
def test_its_epochs_are_its_own_whatever_the_workers(size, augmentation, clean):
    split = random_split(21, 4, size=size)
    arguments = (ConventionalLoader, split, augmentation, clean)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = epoch(*arguments)
        torch.set_num_threads(2)
        two = epoch(*arguments)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["x"], one["second"])
    other = epoch(*arguments, number=1)
    assert not torch.equal(one["x"].sum((1, 2, 3)).sort().values, other["x"].sum((1, 2, 3)).sort().values)
    ours = epoch(TrainLoader, *arguments[1:])
    assert torch.equal(one["clean"], ours["clean"])


def test_its_shifts_and_flips_are_as_ours_in_distribution():
    """One image with a single bright pixel: where it comes to lie is the crop's place and flip."""
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[3, 2] = 255
    split = ArraySplit([image] * 2000, np.arange(2000) % 2)
    shares = []
    for kind in (TrainLoader, ConventionalLoader):
        seen = epoch(kind, split, PadAndCrop(8, 2), CenterCrop(8), views=("x",))["x"][:, 0].double() / 255
        shares.append(seen.mean(0))
        assert set(seen.flatten(1).sum(1).tolist()) == {1.0}
    torch.testing.assert_close(*shares, atol=0.02, rtol=0)
    assert (
        (shares[1] > 0).sum() == (shares[0] > 0).sum() == 5 * 8
    )  # 5 rows; 5 columns, and 5 mirrored ones of which 2 are the same
