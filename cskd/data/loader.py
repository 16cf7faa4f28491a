"""Batches in a derived order, with the views that a method asks for, and nothing it does not."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cskd.data.augment import Augmentation, CenterCrop, PadAndCrop, stack_images
from cskd.data.subset import Split, SplitView
from cskd.errors import UserError
from cskd.randomness import generator


@dataclass
class Batch:
    """views: name -> (N, 3, H, W) uint8, channels last in memory. labels: (N,) class indices, of num_classes.

    Views: ``x`` the augmented image; ``partner`` another image of the same class, augmented on its own;
    ``second`` another augmentation of x; ``clean`` x without augmentation. A method that mixes images makes
    float32 of them, from 0 to 255.
    targets: what the cross-entropy learns, the labels or, where a method mixes them, (N, C) probabilities.
    """

    views: dict[str, Tensor]
    labels: Tensor
    targets: Tensor
    num_classes: int


class ClassPartners:
    """For each sample a same-class one, drawn uniformly over the class, the sample itself included."""

    def __init__(self, labels: np.ndarray):
        labels = torch.as_tensor(labels)
        self.labels = labels
        self.members = torch.argsort(labels, stable=True)  # sample indices, class after class
        self.count = torch.bincount(labels)
        self.first = self.count.cumsum(0) - self.count

    def draw(self, indices: Tensor, random: torch.Generator) -> Tensor:
        labels = self.labels[indices]
        uniform = torch.rand(len(indices), generator=random, dtype=torch.float64)
        place = (uniform * self.count[labels]).long()
        return self.members[self.first[labels] + place]


class TrainLoader:
    """The training batches of each epoch. The last, smaller batch is kept, as in the released code.

    Images of one size that need no resizing stay on the device; others are cropped and resized by Pillow in
    threads, one batch ahead of the training.
    """

    AUGMENTED = ("x", "partner", "second")

    def __init__(
        self,
        split: Split,
        augmentation: Augmentation,
        clean: CenterCrop,
        *,
        views: frozenset[str],
        batch_size: int,
        seed: int,
        device: torch.device,
    ):
        unknown = views - {*self.AUGMENTED, "clean"}
        if unknown:
            raise ValueError(f"unknown views {sorted(unknown)}")
        if len(split) % batch_size == 1:
            raise UserError(
                f"batch size {batch_size} leaves a last batch of one image, which BatchNorm cannot train on: "
                "choose another"
            )
        self.split, self.augmentation, self.clean = split, augmentation, clean
        self.views, self.batch_size, self.seed, self.device = views, batch_size, seed, device
        self.labels = torch.as_tensor(np.asarray(split.labels)).long()
        self.num_classes = int(self.labels.max()) + 1  # no prepared set has a class without training images
        self.partners = ClassPartners(split.labels)
        self.executor = ThreadPoolExecutor(torch.get_num_threads())
        self.prefetch = ThreadPoolExecutor(1)
        self.resident = self._resident() if isinstance(augmentation, PadAndCrop) else None

    def _resident(self) -> Tensor:
        images = self.split.uniform()
        size = self.augmentation.size
        if images is None or images.shape[1:3] != (size, size):
            raise UserError(f"pad-and-crop needs images of {size} x {size} px throughout: use resized-crop")
        return torch.from_numpy(np.array(images)).to(self.device)

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch: the same ones whenever it is asked for."""
        order = torch.randperm(len(self.split), generator=generator(self.seed, "order", epoch))
        subjects = {"x": order, "second": order, "clean": order}
        if "partner" in self.views:
            subjects["partner"] = self.partners.draw(order, generator(self.seed, "partner", epoch))
        draws = {
            view: self.augmentation.draw(
                self.split.sizes[subjects[view].numpy()], generator(self.seed, f"augment/{view}", epoch)
            )
            for view in self.AUGMENTED
            if view in self.views
        }

        def make(number: int) -> Batch:
            rows = slice(number * self.batch_size, (number + 1) * self.batch_size)
            views = {
                view: self._clean(order[rows])
                if view == "clean"
                else self._augmented(subjects[view][rows], draws[view][rows])
                for view in sorted(self.views)
            }
            labels = self.labels[order[rows]].to(self.device)
            channels_first = {view: to_channels_first(images) for view, images in views.items()}
            return Batch(channels_first, labels, labels, self.num_classes)

        return self._in_order(make)

    def _in_order(self, make: Callable[[int], Batch]) -> Iterator[Batch]:
        if self.resident is not None:
            yield from map(make, range(len(self)))
            return
        ahead = self.prefetch.submit(make, 0)
        for number in range(len(self)):
            batch = ahead.result()
            if number + 1 < len(self):
                ahead = self.prefetch.submit(make, number + 1)
            yield batch

    def _augmented(self, indices: Tensor, drawn: Tensor) -> Tensor:
        if self.resident is not None:
            indices, drawn = indices.to(self.device), drawn.to(self.device)
            return self.augmentation.apply(self.resident, indices, drawn)
        indices, drawn = indices.numpy(), drawn.numpy()
        return stack_images(
            lambda row: self.augmentation.apply_one(self.split.image(indices[row]), drawn[row]),
            len(indices),
            self.augmentation.size,
            self.executor,
        ).to(self.device)

    def clean_batches(self, indices: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        """(N, 3, H, W) uint8 batches of these images of the split, as the test set is seen."""
        for part in torch.as_tensor(indices).split(batch_size):
            yield to_channels_first(self._clean(part))

    def _clean(self, indices: Tensor) -> Tensor:
        if self.resident is not None and self.clean.resize in (None, self.clean.size):
            return self.resident[indices.to(self.device)]  # their size is the crop's already
        indices = indices.numpy()
        return stack_images(
            lambda row: self.clean.apply_one(self.split.image(indices[row])),
            len(indices),
            self.clean.size,
            self.executor,
        ).to(self.device)


class TestSet:
    """The test images, transformed once and kept on the device, in batches of ``batch_size``.

    classes: the names of the labels. indices: (N,) where each image stands in its prepared split.
    """

    __test__ = False  # not a test case, whatever its name begins with

    def __init__(
        self,
        split: Split,
        transform: CenterCrop,
        *,
        batch_size: int,
        device: torch.device,
        classes: tuple[str, ...] = (),
    ):
        with ThreadPoolExecutor(torch.get_num_threads()) as executor:
            self.images = transform.apply_all(split, executor).to(device)
        self.labels = torch.as_tensor(np.asarray(split.labels)).long().to(device)
        self.batch_size, self.classes = batch_size, classes
        self.indices = split.indices if isinstance(split, SplitView) else np.arange(len(split))

    def batches(self) -> Iterator[Tensor]:
        """(N, 3, H, W) uint8 batches in the split's order."""
        for start in range(0, len(self.labels), self.batch_size):
            yield to_channels_first(self.images[start : start + self.batch_size])


def to_channels_first(images: Tensor) -> Tensor:
    """(N, H, W, 3) to (N, 3, H, W), channels last in memory: no copy."""
    return images.permute(0, 3, 1, 2)


class Normalise:
    """uint8 pixels to the network's input: (pixel / 255 - mean) / std, a channel at a time."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device):
        self.scale = (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1).to(device)
        self.shift = (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float() * self.scale - self.shift
