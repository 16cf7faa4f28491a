"""Pairs of images of the same class: the partners of CS-KD, for a dataset, a batch sampler or the suite's loader.

A partner is drawn uniformly from the images of the class, as in the paper's released code. It may be the image itself,
and is in a class with one image; with random augmentation, it is then another view of the image.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cskd.utils.seeding import generator


class PartnerSampler:
    """Draws for each of some images an image of the same class. labels: (N,), the class of each image, of any type."""

    def __init__(self, labels):
        labels = np.asarray(labels)
        if labels.ndim != 1:
            raise ValueError(f"labels must be (N,), one class for each image, not of shape {labels.shape}")
        self.labels = torch.from_numpy(np.unique(labels, return_inverse=True)[1])
        self.members = torch.argsort(self.labels, stable=True)  # image indices, class after class
        self.counts = torch.bincount(self.labels)
        self.first = self.counts.cumsum(0) - self.counts

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, indices: Tensor, random: torch.Generator | None) -> Tensor:
        """Return a partner's index for each of ``indices`` (N,). None draws from torch's global generator."""
        labels = self.labels[indices]
        uniform = torch.rand(len(indices), generator=random, dtype=torch.float64)
        return self.members[self.first[labels] + (uniform * self.counts[labels]).long()]

    def epoch(self, seed: int, number: int) -> tuple[Tensor, Tensor]:
        """Return the indices (N,) of all images in the random order of an epoch, and of their partners (N,)."""
        order = torch.randperm(len(self), generator=generator(seed, "order", number))
        return order, self.draw(order, generator(seed, "partner", number))


class PairedDataset(Dataset):
    """A map-style dataset whose items also have a partner, another image of the same class: (x, y, partner).

    Args:
        dataset: its items are (x, y), or dicts. A dict gets the partner's entries too, named ``partner_<key>``.
        labels: (N,), the class of each item; ``dataset.targets`` by default.
        seed: of the partners, after ``set_epoch``.

    After ``set_epoch(number)``, the partner of an item depends on the seed, the epoch and the index only, in every
    worker process, and stays the same until the next call. Before the first call, it is drawn from torch's global
    generator, like a random transform.
    """

    def __init__(self, dataset: Dataset, labels=None, seed: int = 0):
        if labels is None:
            labels = getattr(dataset, "targets", None)
        if labels is None:
            raise ValueError("the dataset has no `targets`: give labels=..., the class of each item")
        if len(labels) != len(dataset):
            raise ValueError(f"{len(labels)} labels for {len(dataset)} items: give labels=, the class of each item")
        self.dataset, self.seed = dataset, seed
        self.partners = PartnerSampler(labels)
        # Shared memory, so that set_epoch reaches persistent workers.
        self._epoch = torch.tensor(-1).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw the partners of this epoch. Call it before iterating over the loader."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        epoch = int(self._epoch)
        random = generator(self.seed, f"partner/{index}", epoch) if epoch >= 0 else None
        item, partner = self.dataset[index], self.dataset[int(self.partners.draw(torch.tensor([index]), random))]
        if isinstance(item, dict):
            return item | {f"partner_{key}": value for key, value in partner.items()}
        return item[0], item[1], partner[0]

    @property
    def transform(self):
        """The wrapped dataset's transform. Some loaders, such as timm's, set it."""
        return self.dataset.transform

    @transform.setter
    def transform(self, transform) -> None:
        self.dataset.transform = transform


class PairBatchSampler(Sampler[list[int]]):
    """Batches of up to 2 * batch_size indices: first the images, then their partners, in the same order.

    Args:
        labels: (N,), the class of each image of the dataset. The sampler does not see the dataset, so it cannot notice
            a wrong number of labels.
        batch_size: images in a batch, on each replica, which also has as many partners. The last batch may be smaller.
        num_replicas, rank: of distributed training. Each replica has a disjoint part of every epoch. The first images
            of the epoch's order are repeated where N is not a multiple of num_replicas.
        seed: of the order and the partners, the same on every replica.
        drop_last: leave out a last batch with fewer than batch_size images. BatchNorm may fail on a single image.

    Each pass is the next epoch. An epoch depends on its number and the seed only.
    """

    def __init__(
        self, labels, batch_size: int, num_replicas: int = 1, rank: int = 0, seed: int = 0, drop_last: bool = False
    ):
        if not 0 <= rank < num_replicas or batch_size < 1:
            raise ValueError(
                "batch_size must be at least 1 and rank in 0..num_replicas - 1, "
                f"not batch_size={batch_size}, rank={rank}, num_replicas={num_replicas}"
            )
        self.partners = PartnerSampler(labels)
        self.batch_size, self.num_replicas, self.rank, self.seed = batch_size, num_replicas, rank, seed
        self.share = math.ceil(len(self.partners) / num_replicas)  # images of a replica in an epoch
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.share // self.batch_size if self.drop_last else math.ceil(self.share / self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order, partners = self.partners.epoch(self.seed, self.epoch)
        self.epoch += 1
        mine = torch.arange(self.rank, self.share * self.num_replicas, self.num_replicas) % len(order)
        for batch in mine.split(self.batch_size)[: len(self)]:
            yield [*order[batch].tolist(), *partners[batch].tolist()]
