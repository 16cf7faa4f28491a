"""Batches for training and evaluation, with the views of each image that a method needs."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from cskd.batch import WHOLE, Batch, Replica
from cskd.data.pixels import Request, batched_requests, choose_resizing, open_pixels, resize_all
from cskd.data.splits import Split
from cskd.data.transforms import Augmentation, CenterCrop, ResizedCrop
from cskd.pairs import PartnerSampler
from cskd.utils.errors import UserError
from cskd.utils.seeding import generator

MAX_STORED = 4 * 2**30  # bytes of the transformed images of a test set


@dataclass(frozen=True)
class EpochDraws:
    """What is drawn for an epoch, in the order of its images.

    labels: (N,). indices: by view, (N,) positions in the split. crops: by augmented view, (N, ...), see
    cskd.data.transforms.
    """

    labels: Tensor
    indices: dict[str, Tensor]
    crops: dict[str, Tensor]

    def to(self, device: torch.device) -> "EpochDraws":
        indices = {view: values.to(device) for view, values in self.indices.items()}
        crops = {view: values.to(device) for view, values in self.crops.items()}
        return EpochDraws(self.labels.to(device), indices, crops)

    def copy_(self, other: "EpochDraws") -> None:
        """Replace the values by those of another epoch, in place."""
        self.labels.copy_(other.labels)
        for own, new in ((self.indices, other.indices), (self.crops, other.crops)):
            for view, values in own.items():
                values.copy_(new[view])


class TrainLoader:
    """The training batches of each epoch, in an order drawn from (seed, epoch).

    The last batch may be smaller, as in the paper's released code.

    - PadAndCrop: all images stay on the device.
    - ResizedCrop: ``resizing`` names the source of resized images (see cskd.data.pixels): ``pillow``, ``resident`` or
      ``streamed``. None chooses by device and size. The pixels are the same.

    Within an epoch the CPU does not wait for a GPU.

    replica: of whose rows the batches consist, all by default. Order, partners and augmentation are drawn for all
        images, whatever the number of replicas.
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
        resizing: str | None = None,
    ):
        unknown = views - {*self.AUGMENTED, "clean"}
        if unknown:
            raise ValueError(f"unknown views {sorted(unknown)}: choose from {(*self.AUGMENTED, 'clean')}")
        if clean.size != augmentation.size:
            raise ValueError(
                f"augmented images have {augmentation.size} px, clean ones {clean.size} px: a batch has one size"
            )
        if len(split) % batch_size == 1:
            raise UserError(
                f"batch size {batch_size} leaves a last batch of one image, which BatchNorm cannot train on: "
                "choose another"
            )
        self.split, self.augmentation, self.clean = split, augmentation, clean
        self.views, self.batch_size, self.seed, self.device = views, batch_size, seed, device
        self.replica: Replica = WHOLE
        self.labels = torch.as_tensor(np.asarray(split.labels)).long()
        self.num_classes = int(self.labels.max()) + 1  # every class has training images
        self.partners = PartnerSampler(split.labels)
        self.images = None
        if isinstance(augmentation, ResizedCrop):
            self.pixels = open_pixels(split, device, resizing or choose_resizing(split, device))
        else:
            self.images = self.clean_images = self._images_on_device()
            if "clean" in views and clean.resize not in (None, clean.size):
                self.clean_images = TestSet(split, clean, batch_size=batch_size, device=device).images

    def _images_on_device(self) -> Tensor:
        images = self.split.uniform()
        size = self.augmentation.size
        if images is None or images.shape[1:3] != (size, size):
            raise UserError(f"pad-crop needs images of {size} x {size} px: use resized-crop")
        return torch.from_numpy(images).to(self.device)

    def __len__(self) -> int:
        return math.ceil(len(self.split) / self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch. The same number always gives the same batches."""
        draws = self.draw(epoch)
        # Copied once per epoch, because each small copy to the device makes the CPU wait.
        return self._batches(draws.labels.to(self.device), self._views(epoch, draws))

    def draw(self, epoch: int) -> EpochDraws:
        """Draw the order, the partners and the crops of an epoch, on the CPU."""
        order, partners = self.partners.epoch(self.seed, epoch)
        indices = {view: partners if view == "partner" else order for view in sorted(self.views)}
        crops = {
            view: self.augmentation.draw(
                self.split.sizes[indices[view].numpy()], generator(self.seed, f"augment/{view}", epoch)
            )
            for view in self.AUGMENTED
            if view in self.views
        }
        return EpochDraws(self.labels[order], indices, crops)

    def batch(self, draws: EpochDraws, rows: slice | Tensor) -> Batch:
        """Return the batch of some rows of an epoch. For resident images; ``draws`` are on the device."""
        views = {view: to_channels_first(images) for view, images in self._gathered(draws, rows).items()}
        labels = draws.labels[rows]
        return Batch(views, labels, labels, self.num_classes)

    @property
    def is_resident(self) -> bool:
        """True if all images are on the device, which makes each batch from them."""
        return self.images is not None

    def _views(self, epoch: int, draws: EpochDraws) -> Iterator[dict[str, Tensor]]:
        """Yield each batch's views by name, uint8 (N, H, W, 3) on the device."""
        if self.images is None:
            return self._resized(draws.indices, draws.crops)
        on_device = draws.to(self.device)
        return (self._gathered(on_device, rows) for rows in self._batch_slices())

    def _batches(self, labels: Tensor, batches: Iterator[dict[str, Tensor]]) -> Iterator[Batch]:
        for images, rows, views in zip(self._batch_sizes(), self._batch_slices(), batches, strict=True):
            channels_first = {view: to_channels_first(pixels) for view, pixels in views.items()}
            targets = labels[rows]
            yield Batch(channels_first, targets, targets, self.num_classes, self.replica.weight(images))

    def _batch_sizes(self) -> list[int]:
        """Return the number of images in each batch, of all replicas."""
        return [min(self.batch_size, len(self.split) - start) for start in range(0, len(self.split), self.batch_size)]

    def _batch_slices(self) -> Iterator[slice]:
        """Yield the replica's rows of each batch, as rows of the epoch's order."""
        for number, images in enumerate(self._batch_sizes()):
            start, rows = number * self.batch_size, self.replica.rows(images)
            yield slice(start + rows.start, start + rows.stop)

    def _gathered(self, draws: EpochDraws, rows: slice | Tensor) -> dict[str, Tensor]:
        """Return the views of some rows of an epoch, gathered from all images on the device."""
        return {
            view: self.clean_images[indices[rows]]
            if view == "clean"
            else self.augmentation.apply(self.images, indices[rows], draws.crops[view][rows])
            for view, indices in draws.indices.items()
        }

    def _resized(self, image_indices: dict[str, Tensor], draws: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yield each batch's views, resized. One request contains all views of a batch."""
        crops = {view: self.augmentation.crops(drawn) for view, drawn in draws.items()}
        if "clean" in image_indices:
            crops["clean"] = self.clean.crops(self.split.sizes[image_indices["clean"].numpy()])
        requests = [
            Request(
                torch.cat([indices[rows] for indices in image_indices.values()]),
                torch.cat([crops[view][rows] for view in image_indices]),
            )
            for rows in self._batch_slices()
        ]
        for images in self.pixels.resized(requests, self.augmentation.size):
            yield dict(zip(image_indices, images.chunk(len(image_indices)), strict=True))

    def blank_batch(self) -> Batch:
        """Return the replica's rows of a full batch of black images of the first class, with every view."""
        size, rows = self.augmentation.size, self.replica.rows(self.batch_size)
        images = rows.stop - rows.start
        black = torch.zeros((images, size, size, 3), dtype=torch.uint8, device=self.device)
        labels = torch.zeros(images, dtype=torch.long, device=self.device)
        views = {view: to_channels_first(black.clone()) for view in sorted(self.views)}
        return Batch(views, labels, labels, self.num_classes)


class TestSet:
    """Images that are transformed like test images, in batches of ``batch_size``.

    They are transformed once and stored on the device, or, with more than MAX_STORED bytes, anew in each evaluation.

    classes: the names of the labels. indices: (N,) positions of the images in the prepared split. resizing: as in
    TrainLoader. A replica has the labels and indices of all images, but stores only its share of the images. All shares
    have the same size: the last ones repeat the last image.
    """

    __test__ = False  # pytest would take it for a test case

    def __init__(
        self,
        split: Split,
        transform: CenterCrop,
        *,
        batch_size: int,
        device: torch.device,
        classes: tuple[str, ...] = (),
        resizing: str | None = None,
        replica: Replica = WHOLE,
    ):
        self.labels = torch.as_tensor(np.asarray(split.labels)).long().to(device)
        self.batch_size, self.classes = batch_size, classes
        self.indices = split.indices
        if replica.count > 1:
            share = math.ceil(len(split) / replica.count)
            rows = np.arange(replica.rank * share, (replica.rank + 1) * share)
            split = split.select(rows.clip(max=len(split) - 1))
        self.images = self.transform_again = None
        unchanged = transform.unchanged(split)
        if unchanged is not None:
            self.images = unchanged.to(device)
        else:
            pixels = open_pixels(split, device, resizing or ("pillow" if device.type == "cpu" else "streamed"))
            indices, crops = torch.arange(len(split)), transform.crops(split.sizes)
            if 3 * transform.size**2 * len(split) <= MAX_STORED:
                self.images = resize_all(pixels, indices, crops, transform.size)
            else:
                requests = batched_requests(indices, crops, batch_size)
                self.transform_again = partial(pixels.resized, requests, transform.size)

    def batches(self) -> Iterator[Tensor]:
        """Yield (N, 3, H, W) uint8 batches in the order of the split."""
        batches = self.transform_again() if self.images is None else self.images.split(self.batch_size)
        yield from map(to_channels_first, batches)


def to_channels_first(images: Tensor) -> Tensor:
    """Return (N, H, W, 3) images as (N, 3, H, W), still channels last in memory, without a copy."""
    return images.permute(0, 3, 1, 2)
