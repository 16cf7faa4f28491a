"""Batches in a derived order, with the views that a method asks for, and nothing it does not."""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cskd.data.pairs import ClassPartners
from cskd.data.pixels import Request, choose_resizing, open_pixels, resize_all
from cskd.data.splits import Split, SplitView
from cskd.data.transforms import Augmentation, CenterCrop, PadAndCrop, stack_images
from cskd.utils.errors import UserError
from cskd.utils.seeding import generator


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


class TrainLoader:
    """The training batches of each epoch. The last, smaller batch is kept, as in the released code.

    Images of one size that need no resizing stay on the device. Others are cropped and resized as ``resizing`` says:
    ``pillow``, one by one in threads, one batch ahead of the training; a batch at once on the device, ``resident``
    from all images there, or ``streamed`` from those of a batch; None chooses by device and size. The pixels are the
    same. On a GPU nothing waits for the device within an epoch.
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
            raise ValueError(f"unknown views {sorted(unknown)}")
        if clean.size != augmentation.size:
            raise ValueError(
                f"augmented images are of {augmentation.size} px, others of {clean.size}: a batch has one size"
            )
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
        self.images = self.pixels = None
        if isinstance(augmentation, PadAndCrop):
            self.images = self._resident()
        else:
            self.pixels = open_pixels(split, device, resizing or choose_resizing(split, device))

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
        subjects = {view: order for view in sorted(self.views)}
        if "partner" in self.views:
            subjects["partner"] = self.partners.draw(order, generator(self.seed, "partner", epoch))
        # Once an epoch: a small copy to the device in every step would wait for it each time.
        labels = self.labels[order].to(self.device).split(self.batch_size)
        return self._batches(labels, self._made(epoch, subjects))

    def _made(self, epoch: int, subjects: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """uint8 (N, H, W, 3) on the device, by view, a batch at a time. subjects: a view's images in their order."""
        draws = {
            view: self.augmentation.draw(
                self.split.sizes[subjects[view].numpy()], generator(self.seed, f"augment/{view}", epoch)
            )
            for view in self.AUGMENTED
            if view in self.views
        }
        if self.pixels is not None:
            return self._resized(subjects, draws)
        if self.images is not None:
            return self._shifted(subjects, draws)
        return self._by_pillow(subjects, draws)

    def _batches(self, labels: tuple[Tensor, ...], made: Iterator[dict[str, Tensor]]) -> Iterator[Batch]:
        for targets, views in zip(labels, made, strict=True):
            channels_first = {view: to_channels_first(images) for view, images in views.items()}
            yield Batch(channels_first, targets, targets, self.num_classes)

    def _rows(self) -> Iterator[slice]:
        """Where each batch stands in an epoch."""
        return (slice(start, start + self.batch_size) for start in range(0, len(self.split), self.batch_size))

    def _shifted(self, subjects: dict[str, Tensor], draws: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Gathered from the images on the device."""
        subjects = {view: indices.to(self.device) for view, indices in subjects.items()}
        draws = {view: drawn.to(self.device) for view, drawn in draws.items()}
        for rows in self._rows():
            yield {
                view: self._clean(indices[rows])
                if view == "clean"
                else self.augmentation.apply(self.images, indices[rows], draws[view][rows])
                for view, indices in subjects.items()
            }

    def _resized(self, subjects: dict[str, Tensor], draws: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """All views of a batch at once, one view after the other in the request."""
        crops = {view: self.augmentation.crops(drawn) for view, drawn in draws.items()}
        if "clean" in subjects:
            crops["clean"] = self.clean.crops(self.split.sizes[subjects["clean"].numpy()])
        wanted = [
            Request(
                torch.cat([indices[rows] for indices in subjects.values()]),
                torch.cat([crops[view][rows] for view in subjects]),
            )
            for rows in self._rows()
        ]
        for images in self.pixels.resized(wanted, self.augmentation.size):
            yield dict(zip(subjects, images.chunk(len(subjects)), strict=True))

    def _by_pillow(self, subjects: dict[str, Tensor], draws: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        def make(rows: slice) -> dict[str, Tensor]:
            return {
                view: self._clean(indices[rows]) if view == "clean" else self._cropped(indices[rows], draws[view][rows])
                for view, indices in subjects.items()
            }

        ahead = None
        for rows in self._rows():
            made, ahead = ahead, self.prefetch.submit(make, rows)
            if made is not None:
                yield made.result()
        yield ahead.result()

    def _cropped(self, indices: Tensor, drawn: Tensor) -> Tensor:
        indices, drawn = indices.numpy(), drawn.numpy()
        return stack_images(
            lambda row: self.augmentation.apply_one(self.split.image(indices[row]), drawn[row]),
            len(indices),
            self.augmentation.size,
            self.executor,
        ).to(self.device)

    def blank_batch(self) -> Batch:
        """A full batch of black images of the first class, with every view."""
        size = self.augmentation.size
        black = torch.zeros((self.batch_size, size, size, 3), dtype=torch.uint8, device=self.device)
        labels = torch.zeros(self.batch_size, dtype=torch.long, device=self.device)
        views = {view: to_channels_first(black.clone()) for view in sorted(self.views)}
        return Batch(views, labels, labels, self.num_classes)

    def clean_batches(self, indices: np.ndarray, batch_size: int) -> Iterator[Tensor]:
        """(N, 3, H, W) uint8 batches of these images of the split, as the test set is seen."""
        for part in torch.as_tensor(indices).split(batch_size):
            yield to_channels_first(self._clean(part))

    def _clean(self, indices: Tensor) -> Tensor:
        if self.images is not None and self.clean.resize in (None, self.clean.size):
            return self.images[indices.to(self.device)]  # their size is the crop's already
        indices = indices.cpu()
        if self.pixels is not None:
            crops = self.clean.crops(self.split.sizes[indices.numpy()])
            return resize_all(self.pixels, indices, crops, self.clean.size)
        indices = indices.numpy()
        return stack_images(
            lambda row: self.clean.apply_one(self.split.image(indices[row])),
            len(indices),
            self.clean.size,
            self.executor,
        ).to(self.device)


class TestSet:
    """The test images, transformed once and kept on the device, in batches of ``batch_size``.

    classes: the names of the labels. indices: (N,) where each image stands in its prepared split. resizing: as of
    the TrainLoader.
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
        resizing: str | None = None,
    ):
        unchanged = transform.unchanged(split)
        if unchanged is not None:
            self.images = unchanged.to(device)
        elif pixels := open_pixels(split, device, resizing or ("pillow" if device.type == "cpu" else "streamed")):
            self.images = resize_all(pixels, torch.arange(len(split)), transform.crops(split.sizes), transform.size)
        else:
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
