"""Augmentations and the test transform.

``draw`` draws the random numbers of an epoch on the CPU. ``crops`` gives the table from which ``cskd.data.resize``
makes the images.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Generator, Tensor

from cskd.data.resize import crop_table
from cskd.data.splits import Split


@dataclass(frozen=True)
class PadAndCrop:
    """CIFAR's augmentation: zero padding, a random crop of the original size, a horizontal flip.

    All images of the split must be ``size`` x ``size``.
    """

    size: int
    padding: int
    flip: bool = True

    def draw(self, sizes: np.ndarray, random: Generator) -> Tensor:
        """Return (N, 3): top and left of the crop in the padded image, flip."""
        count = len(sizes)
        offsets = torch.randint(2 * self.padding + 1, (count, 2), generator=random)
        flips = _draw_flips(count, self.flip, random)
        return torch.cat([offsets, flips], dim=1)

    def apply(self, images: Tensor, indices: Tensor, drawn: Tensor) -> Tensor:
        """Return the crops (N, size, size, 3) of ``indices``. images: all images of the split (M, size, size, 3)."""
        position = torch.arange(self.size, device=images.device)
        rows = drawn[:, 0, None] + position - self.padding  # (N, size), in the original image
        columns = drawn[:, 1, None] + position - self.padding
        columns = torch.where(drawn[:, 2, None] == 1, columns.flip(1), columns)
        inside = ((rows >= 0) & (rows < self.size))[:, :, None] & ((columns >= 0) & (columns < self.size))[:, None]
        rows, columns = rows.clamp(0, self.size - 1), columns.clamp(0, self.size - 1)
        # One flat index per pixel: on a CPU three times as fast as indices of image, row and column.
        pixels = ((indices[:, None] * self.size + rows) * self.size)[:, :, None] + columns[:, None, :]
        cropped = images.reshape(-1, 3).index_select(0, pixels.flatten()).view(*pixels.shape, 3)
        return cropped * inside[..., None]


@dataclass(frozen=True)
class ResizedCrop:
    """A random box of 8 to 100 % of the area and aspect 3/4 to 4/3, resized to ``size``, and a horizontal flip.

    The boxes have the distribution of torchvision's RandomResizedCrop. The pixels are those of Pillow's antialiased
    bilinear resize, which that transform also uses.
    """

    size: int
    flip: bool = True
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    ATTEMPTS: ClassVar[int] = 10  # as in torchvision, before the fallback to the largest central box
    AT_ONCE: ClassVar[int] = 2**16  # images whose boxes are drawn together; it bounds the memory, not the result

    def draw(self, sizes: np.ndarray, random: Generator) -> Tensor:
        """Return (N, 5): top, left, height, width of the box, flip. sizes: (N, 2) heights and widths."""
        boxes = [self._draw_boxes(part, random) for part in torch.as_tensor(sizes).double().split(self.AT_ONCE)]
        flips = _draw_flips(len(sizes), self.flip, random)
        return torch.cat([torch.cat(boxes).long(), flips], dim=1)

    def _draw_boxes(self, sizes: Tensor, random: Generator) -> Tensor:
        height, width = sizes.T[:, :, None]
        uniform = torch.rand((len(sizes), self.ATTEMPTS, 4), generator=random, dtype=torch.float64)
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * uniform[..., 0])
        low, high = np.log(self.ratio[0]), np.log(self.ratio[1])
        ratio = torch.exp(low + (high - low) * uniform[..., 1])
        box_width, box_height = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (box_width > 0) & (box_width <= width) & (box_height > 0) & (box_height <= height)
        first = fits.int().argmax(dim=1, keepdim=True)  # the first attempt that fits; 0 if none fits
        box_height, box_width = box_height.gather(1, first), box_width.gather(1, first)
        top = ((height - box_height + 1) * uniform[..., 2].gather(1, first)).floor()
        left = ((width - box_width + 1) * uniform[..., 3].gather(1, first)).floor()
        drawn = torch.cat([top, left, box_height, box_width], dim=1)
        return torch.where(fits.any(1, keepdim=True), drawn, self._central_box(height, width))

    def _central_box(self, height: Tensor, width: Tensor) -> Tensor:
        """Return the largest central box with an aspect within the ratio."""
        aspect = width / height
        box_width = torch.where(aspect > self.ratio[1], (height * self.ratio[1]).round(), width)
        box_height = torch.where(aspect < self.ratio[0], (width / self.ratio[0]).round(), height)
        top, left = ((height - box_height) / 2).floor(), ((width - box_width) / 2).floor()
        return torch.cat([top, left, box_height, box_width], dim=1)

    def crops(self, drawn: Tensor) -> Tensor:
        """Return the ``crop_table`` of the drawn boxes."""
        scaled = torch.full((len(drawn), 2), self.size)
        return crop_table(drawn[:, :4], scaled, torch.zeros_like(scaled), drawn[:, 4:])


def _draw_flips(count: int, flip: bool, random: Generator) -> Tensor:
    return torch.randint(2, (count, 1), generator=random) * int(flip)


@dataclass(frozen=True)
class CenterCrop:
    """The test transform: resize the short side to ``resize`` (None: no resize), then crop the centre."""

    size: int
    resize: int | None = None

    def crop_geometry(self, height: int, width: int) -> tuple[int, int, int, int]:
        """Return (height and width after the resize, top and left of the crop) for an image of this size."""
        short, long = min(height, width), max(height, width)
        if self.resize not in (None, short):
            long = int(self.resize * long / short)  # rounded down, as in torchvision's Resize
            height, width = (self.resize, long) if height <= width else (long, self.resize)
        return height, width, round((height - self.size) / 2), round((width - self.size) / 2)

    def crops(self, sizes: np.ndarray) -> Tensor:
        """Return the ``crop_table`` of images with these heights and widths (N, 2)."""
        sizes = torch.as_tensor(sizes).long()
        geometry = torch.tensor([self.crop_geometry(height, width) for height, width in sizes.tolist()])
        if (geometry[:, :2] < self.size).any():
            raise ValueError(f"an image is smaller than the crop of {self.size} px: set test_resize")
        boxes = torch.cat([torch.zeros_like(sizes), sizes], dim=1)
        return crop_table(boxes, geometry[:, :2], geometry[:, 2:], torch.zeros((len(sizes), 1), dtype=torch.long))

    def unchanged(self, split: Split) -> Tensor | None:
        """Return all images, uint8 (N, size, size, 3) on the CPU, if they need no change; otherwise None."""
        if self.resize not in (None, self.size) or (split.sizes != self.size).any():
            return None
        return torch.from_numpy(split.uniform())


Augmentation = PadAndCrop | ResizedCrop
