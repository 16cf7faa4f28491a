"""torchvision's pipeline shows the same images in the same order as TrainLoader."""

import numpy as np
import pytest
import torch
from arrays import array_split, random_split

from cskd.batch import WHOLE, Replica
from cskd.data.loader import TrainLoader
from cskd.data.torchvision_loader import TorchvisionLoader
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop

VIEWS = ("clean", "partner", "second", "x")


def epoch(kind, split, augmentation, clean, views=VIEWS, replica=WHOLE) -> dict[str, torch.Tensor]:
    """The views and labels of a full epoch, or of a replica's part of it."""
    loader = kind(split, augmentation, clean, views=frozenset(views), batch_size=8, seed=0, device=torch.device("cpu"))
    loader.replica = replica
    batches = list(loader.epoch(3))
    joined = {view: torch.cat([batch.views[view] for batch in batches]) for view in views}
    return joined | {"labels": torch.cat([batch.labels for batch in batches])}


@pytest.mark.parametrize(
    ("augmentation", "replica"), [(PadAndCrop(8, 0, flip=False), WHOLE), (ResizedCrop(8), Replica(1, 2))]
)
def test_views_show_the_same_images_as_in_train_loader(augmentation, replica):
    """Images of one colour, the image's index, do not change under crops without padding."""
    split = array_split([np.full((8, 8, 3), index, dtype=np.uint8) for index in range(21)], np.arange(21) % 4)
    expected, actual = (
        epoch(kind, split, augmentation, CenterCrop(8), replica=replica) for kind in (TrainLoader, TorchvisionLoader)
    )
    for name, values in expected.items():
        assert torch.equal(values, actual[name]), name
    assert actual["x"].is_contiguous(memory_format=torch.channels_last)


def test_epoch_does_not_depend_on_the_number_of_workers(monkeypatch):
    epochs = []
    for workers in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda workers=workers: workers)
        epochs.append(epoch(TorchvisionLoader, random_split(21, 4, size=None), ResizedCrop(12), CenterCrop(12, 14)))
    assert all(torch.equal(values, epochs[1][name]) for name, values in epochs[0].items())
    assert not torch.equal(epochs[0]["x"], epochs[0]["second"])
