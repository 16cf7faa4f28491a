"""Cropping and resizing a whole batch of images of different sizes at once, on any device, to Pillow's very bits.

Each output pixel is a weighted sum of input pixels, with the weights of a triangle that is as wide as the reduction
(antialiased bilinear), cut at the box's edge and normalised; along one axis, then along the other. Here these are
two batched matrix products. Pillow computes in integers: weights are multiples of 2^-22, and each of the two passes
is rounded to 8 bits. The products below have whole numbers as operands and as partial sums, all of which a float
holds exactly, so neither the order of additions nor the device changes a bit of the result. (The weights are
normalised in doubles before they are rounded: only one within 1e-9 of the middle between two multiples could differ.)
"""

from collections.abc import Iterator

import torch
from torch import Tensor

WORKSPACE = 256 * 2**20  # bytes that ``resize`` takes beside its input and output; more only for one image beyond it
BITS = 22  # Pillow's weights are integers of 2^-22 ...
# ... taken apart here into a coarse part of 11 bits and a fine one, each with sums below 2^24. TF32, in which a GPU may
# multiply, holds just 11.
HALF = 11
LARGEST_FLOAT_RATIO = 32  # up to this reduction at most 64 pixels have a weight, and 64 * 255 * 2^10 < 2^24


def crop_table(boxes: Tensor, scaled: Tensor, window: Tensor, flip: Tensor) -> Tensor:
    """int64 (N, 9): what is to be made of N images.

    boxes: (N, 4), top, left, height and width of a part of the image. scaled: (N, 2), the height and width that it
    is resized to. window: (N, 2), top and left of the output therein. flip: (N, 1), 1 to mirror the output.
    """
    return torch.cat([boxes, scaled, window, flip], dim=1)


def geometry(crops: Tensor, first: Tensor, stride: Tensor) -> Tensor:
    """int64 (N, 12): the crops' table for pixels that lie one after the other, its axes in the order of the passes.

    first: (N,), the place of the box's first pixel. stride: (N,), places from one row of the box to the next.
    Columns: first; then a pair each, the axis of the second pass before that of the first: stride, length, scaled
    length, window, flip; then 1 where the axes are exchanged. As in Pillow 13, the rows are resized first, but
    where the height shrinks by more than twice as many pixels as the width.
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
    """uint8 (N, size, size, 3) on the device of the pixels.

    pixels: uint8 (P, 3), images or parts of them one after the other, each row by row. table: their ``geometry``
    (N, 12) on the CPU; on_device: the same on the pixels' device, so that nothing has to wait for it. A large
    batch is made in parts, so that at most ``workspace`` bytes are taken.
    """
    made = torch.empty((len(table), size, size, 3), dtype=torch.uint8, device=pixels.device)
    # Whoever calls may be inside of autocast, whose bfloat16 does not hold these integers.
    with torch.autocast(pixels.device.type, enabled=False):
        for start, stop in parts(table, size, workspace):
            made[start:stop] = _resize(pixels, table[start:stop], on_device[start:stop], size)
    return made


def parts(table: Tensor, size: int, workspace: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of consecutive images that fit the workspace together; one that alone does not is a part."""
    start, second, first = 0, 0, 0
    for stop, (along_second, along_first) in enumerate(table[:, 3:5].tolist()):
        second, first = max(second, along_second), max(first, along_first)
        if stop > start and (stop + 1 - start) * bytes_needed(second, first, size) > workspace:
            yield start, stop
            start, second, first = stop, along_second, along_first
    yield start, len(table)


def bytes_needed(second: int, first: int, size: int) -> int:
    """What an image takes of the workspace at most, in a part whose boxes are up to so long along the passes' axes."""
    number = _exact(second, first, size).itemsize
    planes, narrow, weights = 3 * number * second * first, 3 * number * second * size, 2 * number * size
    doubles = 16 * size  # of the weights in the making, for each tap
    steps = (
        14 * second * first,  # gathering: places as 64-bit integers, the pixels twice
        planes + 3 * second * first,
        planes + (weights + doubles) * first,
        planes + weights * first + 2 * narrow,  # the first pass, whose sums have two parts
        3 * narrow,
        narrow + (weights + doubles) * second,
    )
    return max(steps) + (6 * number + 6) * size**2  # the second pass, and its pixels twice


def _exact(second: int, first: int, size: int) -> torch.dtype:
    """What holds every partial sum. Boxes are reduced at most to the output's size."""
    return torch.float32 if max(second, first) <= LARGEST_FLOAT_RATIO * size else torch.float64


def _resize(pixels: Tensor, table: Tensor, on_device: Tensor, size: int) -> Tensor:
    longest_second, longest_first = table[:, 3:5].amax(0).tolist()
    exact = _exact(longest_second, longest_first, size)
    columns = on_device.T[:, :, None]  # each (N, 1), in the order of ``geometry``
    place = torch.arange(size, device=pixels.device)

    def weights(axis: int, longest: int) -> Tensor:
        length, scaled, window, flip = columns[3 + axis :: 2][:4]
        return _weights(window + torch.where(flip == 1, size - 1 - place, place), length, scaled, longest, exact)

    planes = _gather(pixels, columns, longest_second, longest_first).to(exact).flatten(1, 2)
    narrow = _rounded(planes @ weights(1, longest_first).mT, dim=2)  # (N, 3 * second, size)
    del planes
    narrow = narrow.unflatten(1, (3, longest_second)).permute(0, 2, 3, 1).flatten(2)  # (N, second, size * 3)
    made = _rounded(weights(0, longest_second) @ narrow, dim=1).unflatten(2, (size, 3)).to(torch.uint8)
    exchanged = columns[11, :, :, None, None] == 1
    return torch.where(exchanged, made.transpose(1, 2), made)


def _gather(pixels: Tensor, columns: Tensor, longest_second: int, longest_first: int) -> Tensor:
    """The boxes as uint8 (N, 3, second, first); beyond a box its last pixels again, which have no weight."""
    start, stride_second, stride_first, length_second, length_first = columns[:5]
    second = torch.minimum(torch.arange(longest_second, device=pixels.device), length_second - 1)
    first = torch.minimum(torch.arange(longest_first, device=pixels.device), length_first - 1)
    places = (start + second * stride_second)[:, :, None] + (first * stride_first)[:, None]
    return pixels[places].permute(0, 3, 1, 2).contiguous()


def _weights(place: Tensor, length: Tensor, scaled: Tensor, taps: int, exact: torch.dtype) -> Tensor:
    """The coarse weights and below them the fine ones, (N, 2 * size, taps), whole numbers.

    place: (N, size), positions among the ``scaled`` (N, 1) that the ``length`` (N, 1) pixels of the box become.
    Step by step what Pillow does in doubles (precompute_coeffs and normalize_coeffs_8bpc in its Resample.c).
    """
    ratio = length.double() / scaled
    centre = (place + 0.5) * ratio
    tap = torch.arange(taps, dtype=torch.float64, device=place.device)
    weights = (tap - centre[:, :, None]).add_(0.5).mul_((1 / ratio.clamp(min=1))[:, :, None])
    weights.abs_().neg_().add_(1).clamp_(min=0).mul_((tap < length)[:, None])
    weights.div_(weights.sum(2, keepdim=True)).mul_(2**BITS).add_(0.5).floor_()
    coarse = (weights * 2**-HALF).add_(0.5).floor_()
    fine = weights.sub_(coarse, alpha=2**HALF)
    split = torch.empty((len(place), 2 * place.shape[1], taps), dtype=exact, device=place.device)
    for part, values in zip(split.chunk(2, dim=1), (coarse, fine), strict=True):
        part.copy_(values)
    return split


def _rounded(sums: Tensor, dim: int) -> Tensor:
    """The sums with the coarse weights and those with the fine ones together, rounded half up to whole pixels."""
    coarse, fine = sums.chunk(2, dim)
    # floor((coarse * 2^11 + fine + 2^21) / 2^22), whose numerator is too large for a float, in two steps
    return fine.mul_(2**-HALF).floor_().add_(coarse).add_(2 ** (HALF - 1)).mul_(2**-HALF).floor_()
