"""Crop and resize a batch of images of different sizes at once, on any device, bit-equal to Pillow.

Pillow's antialiased bilinear resize works along one axis, then along the other. Each output pixel is a weighted sum of
input pixels. The weights form a triangle that is as wide as the reduction, cut at the edge of the box and normalised.
Here these two passes are two batched matrix products.

Pillow computes in integers: the weights are multiples of 2^-22, and each pass is rounded to 8 bits. The products below
have integers as operands and as partial sums, and a float represents all of them exactly. Therefore neither the order
of the additions nor the device changes a bit. (The weights are normalised in double precision before they are rounded.
Only a weight within 1e-9 of the middle between two multiples could differ.)
"""

from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor

WORKSPACE = 256 * 2**20  # bytes that ``resize`` uses besides input and output, unless one image alone needs more
BITS = 22  # Pillow's weights are multiples of 2^-22
# Each weight is split into a coarse part of 11 bits and a fine part, so that all sums stay below 2^24. TF32, in which a
# GPU may multiply, has 11 bits.
HALF = 11
MAX_FLOAT_RATIO = 32  # up to this reduction at most 64 pixels have a weight, and 64 * 255 * 2^10 < 2^24


def crop_table(boxes: Tensor, scaled: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    """Return the crops of N images, int64 (N, 9).

    Args:
        boxes: (N, 4), top, left, height and width of the part of the image that is used.
        scaled: (N, 2), height and width of the box after the resize.
        window: (N, 2), top and left of the output in the resized box.
        flip: (N, 1), 1 to mirror the output.
    """
    return torch.cat([boxes, scaled, window, flip], dim=1)


def crop_with_pillow(image: np.ndarray | Image.Image, crop: list[int], size: int) -> np.ndarray:
    """Return one image, (size, size, 3) uint8, cropped by Pillow according to a row of its ``crop_table``."""
    _, _, height, width, scaled_height, scaled_width, window_top, window_left, flip = crop
    box = cut(image, *crop[:4])
    if (scaled_height, scaled_width) != (height, width):
        box = box if isinstance(box, Image.Image) else Image.fromarray(box)
        box = box.resize((scaled_width, scaled_height), Image.Resampling.BILINEAR)
    pixels = np.asarray(box)
    pixels = pixels[window_top : window_top + size, window_left : window_left + size]
    return pixels[:, ::-1] if flip else pixels


def cut(image: np.ndarray | Image.Image, top: int, left: int, height: int, width: int) -> np.ndarray | Image.Image:
    """Return a box of an image, of the type of the image."""
    if isinstance(image, Image.Image):
        return image.crop((left, top, left + width, top + height))
    return image[top : top + height, left : left + width]


def geometry(crops: Tensor, first: Tensor, stride: Tensor) -> Tensor:
    """Return the crops for pixels in one array, int64 (N, 12), with the axes in the order of the two passes.

    As in Pillow 13, the width is resized first, unless the height shrinks by more than twice as many pixels.

    Args:
        crops: a ``crop_table``.
        first: (N,), the index of each box's first pixel.
        stride: (N,), the distance between the first pixels of two rows of the box.

    Returns:
        The columns: first; stride, length, scaled length, window and flip, each for the second pass and then for the
        first pass; 1 if the axes are exchanged.
    """
    _, _, height, width, scaled_height, scaled_width, top, left, flip = crops.T
    one, none = torch.ones_like(stride), torch.zeros_like(stride)
    shrunk = height - scaled_height
    exchanged = (shrunk > 0) & (shrunk > 2 * (width - scaled_width))
    columns = [first]
    axes = [(stride, one), (height, width), (scaled_height, scaled_width), (top, left), (none, flip)]
    for down, across in axes:
        columns += [torch.where(exchanged, across, down), torch.where(exchanged, down, across)]
    return torch.stack([*columns, exchanged.long()], dim=1)


def resize(pixels: Tensor, table: Tensor, on_device: Tensor, size: int, workspace: int = WORKSPACE) -> Tensor:
    """Return the resized images, uint8 (N, size, size, 3), on the device of the pixels.

    Args:
        pixels: uint8 (P, 3), images or parts of images, stored row by row one after the other.
        table: their ``geometry`` (N, 12) on the CPU.
        on_device: the same table on the pixels' device, so that the CPU does not wait for a copy.
        workspace: bytes; a larger batch is made in parts.
    """
    made = torch.empty((len(table), size, size, 3), dtype=torch.uint8, device=pixels.device)
    # Under the caller's autocast, bfloat16 could not represent these integers.
    with torch.autocast(pixels.device.type, enabled=False):
        for start, stop in parts(table, size, workspace):
            made[start:stop] = _resize(pixels, table[start:stop], on_device[start:stop], size)
    return made


def parts(table: Tensor, size: int, workspace: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of images that fit the workspace together. A larger image is a part by itself."""
    start, second, first = 0, 0, 0
    for stop, (along_second, along_first) in enumerate(table[:, 3:5].tolist()):
        second, first = max(second, along_second), max(first, along_first)
        if stop > start and (stop + 1 - start) * bytes_needed(second, first, size) > workspace:
            yield start, stop
            start, second, first = stop, along_second, along_first
    yield start, len(table)


def bytes_needed(second: int, first: int, size: int) -> int:
    """Return the largest workspace of one image. second, first: the lengths of the longest boxes along the passes."""
    number = _exact(second, first, size).itemsize
    planes, narrow, weights = 3 * number * second * first, 3 * number * second * size, 2 * number * size
    doubles = 16 * size  # temporary weights, for each tap
    steps = (
        14 * second * first,  # the gather: 64-bit indices, the pixels twice
        planes + 3 * second * first,
        planes + (weights + doubles) * first,
        planes + weights * first + 2 * narrow,  # the first pass: coarse and fine sums
        3 * narrow,
        narrow + (weights + doubles) * second,
    )
    return max(steps) + (6 * number + 6) * size**2  # the second pass, and its pixels twice


def _exact(second: int, first: int, size: int) -> torch.dtype:
    """Return the type that represents every partial sum exactly."""
    return torch.float32 if max(second, first) <= MAX_FLOAT_RATIO * size else torch.float64


def _resize(pixels: Tensor, table: Tensor, on_device: Tensor, size: int) -> Tensor:
    longest_second, longest_first = table[:, 3:5].amax(0).tolist()
    exact = _exact(longest_second, longest_first, size)
    columns = on_device.T[:, :, None]  # each (N, 1), in the order of ``geometry``
    positions = torch.arange(size, device=pixels.device)

    def weights(axis: int, longest: int) -> Tensor:
        length, scaled, window, flip = columns[3 + axis :: 2][:4]
        outputs = window + torch.where(flip == 1, size - 1 - positions, positions)
        return _weights(outputs, length, scaled, longest, exact)

    planes = _gather(pixels, columns, longest_second, longest_first).to(exact).flatten(1, 2)
    narrow = _rounded(planes @ weights(1, longest_first).mT, dim=2)  # (N, 3 * second, size)
    del planes
    narrow = narrow.unflatten(1, (3, longest_second)).permute(0, 2, 3, 1).flatten(2)  # (N, second, size * 3)
    made = _rounded(weights(0, longest_second) @ narrow, dim=1).unflatten(2, (size, 3)).to(torch.uint8)
    exchanged = columns[11, :, :, None, None] == 1
    return torch.where(exchanged, made.transpose(1, 2), made)


def _gather(pixels: Tensor, columns: Tensor, longest_second: int, longest_first: int) -> Tensor:
    """Return the boxes as uint8 (N, 3, second, first), padded with their last pixels, which get no weight."""
    start, stride_second, stride_first, length_second, length_first = columns[:5]
    second = torch.minimum(torch.arange(longest_second, device=pixels.device), length_second - 1)
    first = torch.minimum(torch.arange(longest_first, device=pixels.device), length_first - 1)
    indices = (start + second * stride_second)[:, :, None] + (first * stride_first)[:, None]
    return pixels[indices].permute(0, 3, 1, 2).contiguous()


def _weights(outputs: Tensor, length: Tensor, scaled: Tensor, taps: int, exact: torch.dtype) -> Tensor:
    """Return the coarse weights, then the fine weights, as integers: (N, 2 * size, taps).

    The steps are those of Pillow, in double precision (precompute_coeffs and normalize_coeffs_8bpc in Resample.c).

    Args:
        outputs: (N, size), positions of the output pixels in the resized box.
        length: (N, 1), pixels of the box. scaled: (N, 1), pixels of the resized box.
    """
    ratio = length.double() / scaled
    centre = (outputs + 0.5) * ratio
    tap = torch.arange(taps, dtype=torch.float64, device=outputs.device)
    weights = (tap - centre[:, :, None]).add_(0.5).mul_((1 / ratio.clamp(min=1))[:, :, None])
    weights.abs_().neg_().add_(1).clamp_(min=0).mul_((tap < length)[:, None])
    weights.div_(weights.sum(2, keepdim=True)).mul_(2**BITS).add_(0.5).floor_()
    coarse = (weights * 2**-HALF).add_(0.5).floor_()
    fine = weights.sub_(coarse, alpha=2**HALF)
    split = torch.empty((len(outputs), 2 * outputs.shape[1], taps), dtype=exact, device=outputs.device)
    for part, values in zip(split.chunk(2, dim=1), (coarse, fine), strict=True):
        part.copy_(values)
    return split


def _rounded(sums: Tensor, dim: int) -> Tensor:
    """Return coarse plus fine sums, rounded half up to integer pixels."""
    coarse, fine = sums.chunk(2, dim)
    # floor((coarse * 2^11 + fine + 2^21) / 2^22) in two steps, because the numerator is too large for a float
    return fine.mul_(2**-HALF).floor_().add_(coarse).add_(2 ** (HALF - 1)).mul_(2**-HALF).floor_()
