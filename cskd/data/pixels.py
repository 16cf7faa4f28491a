"""The pixels that batches are resized from, on the device: a whole split's, or each batch's as its turn comes."""

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cskd.data.resize import geometry, resize
from cskd.data.splits import Split

RESIZING = ("pillow", "resident", "streamed")
RESIDENT_SHARE = 0.25  # of the device's free memory, at most: the rest is the network's, and other processes'
BLOCK = 64 * 2**20  # bytes of images put together on the CPU for one copy to the device
PORTION = 32  # images of a request where all images of a split are made


def choose_resizing(split: Split, device: torch.device) -> str:
    """``pillow`` on a CPU; on CUDA ``resident`` where the split's images fit their share, or else ``streamed``.

    The pixels are the same. On one thread of a CPU the matrix products of ``resize``, mostly zeros, take 15 times as
    long as Pillow for photographs to 224 px, and 3 times for 64 px to 32.
    """
    if device.type != "cuda":
        return "pillow"
    free, _ = torch.cuda.mem_get_info(device)
    return "resident" if 3 * _areas(split.sizes).sum() <= RESIDENT_SHARE * free else "streamed"


def open_pixels(split: Split, device: torch.device, resizing: str) -> "ResidentPixels | StreamedPixels | None":
    """Where images are resized from; None for ``pillow``, which needs no pixels on the device."""
    if resizing not in RESIZING:
        raise ValueError(f"unknown resizing {resizing!r}: choose from {', '.join(RESIZING)}")
    if resizing == "pillow":
        return None
    return ResidentPixels(split, device) if resizing == "resident" else StreamedPixels(split, device)


@dataclass(frozen=True)
class Request:
    """A batch to be made. indices: (N,), which images of the split. crops: their ``crop_table`` (N, 9)."""

    indices: Tensor
    crops: Tensor


class ResidentPixels:
    """All images of a split, on the device from the start."""

    def __init__(self, split: Split, device: torch.device):
        self.device, self.sizes = device, torch.as_tensor(split.sizes).long()
        areas = _areas(split.sizes)
        ends = np.cumsum(areas)
        self.first = torch.as_tensor(ends - areas)
        self.pixels = torch.empty((int(ends[-1]), 3), dtype=torch.uint8, device=device)
        start = 0
        while start < len(split):
            filled = int(self.first[start])
            stop = max(start + 1, int(np.searchsorted(ends, filled + BLOCK // 3, side="right")))
            block = np.concatenate([split.image(index).reshape(-1, 3) for index in range(start, stop)])
            self.pixels[filled : filled + len(block)] = torch.from_numpy(block)
            start = stop

    def resized(self, wanted: list[Request], size: int) -> Iterator[Tensor]:
        """For each request its images, uint8 (N, size, size, 3), on the device."""
        tables = _tables(wanted, [self._located(request) for request in wanted])
        return _resized(tables, itertools.repeat(self.pixels), size, self.device)

    def _located(self, request: Request) -> tuple[Tensor, Tensor]:
        stride = self.sizes[request.indices, 1]
        return self.first[request.indices] + request.crops[:, 0] * stride + request.crops[:, 1], stride


class StreamedPixels:
    """The boxes of one batch at a time, and of the next, which a thread gathers meanwhile.

    They take two buffers of the size of the largest batch's boxes, pinned where the device is a GPU, and as much on
    the device: for 32 photographs of 500 x 500 px at most 24 MB each a view.
    """

    def __init__(self, split: Split, device: torch.device):
        self.split, self.device = split, device

    def resized(self, wanted: list[Request], size: int) -> Iterator[Tensor]:
        """For each request its images, uint8 (N, size, size, 3), on the device."""
        tables = _tables(wanted, [self._located(request) for request in wanted])
        return _resized(tables, self._gathered(wanted), size, self.device)

    def _located(self, request: Request) -> tuple[Tensor, Tensor]:
        areas, width = request.crops[:, 2:4].prod(1), request.crops[:, 3]
        return areas.cumsum(0) - areas, width

    def _gathered(self, wanted: list[Request]) -> Iterator[Tensor]:
        """The pixels (P, 3) of each request's boxes, one after the other, on the device."""
        cuda = self.device.type == "cuda"
        counts = [int(request.crops[:, 2:4].prod(1).sum()) for request in wanted]
        buffers = [torch.empty((max(counts), 3), dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
        copied = [torch.cuda.Event() if cuda else None for _ in range(2)]

        def gather(number: int) -> Tensor:
            if cuda:
                copied[number % 2].synchronize()  # until the device has what was in this buffer, if anything was
            self._fill(buffers[number % 2].numpy(), wanted[number])
            return buffers[number % 2][: counts[number]]

        with ThreadPoolExecutor(1) as thread:
            ahead = thread.submit(gather, 0)
            for number in range(len(wanted)):
                pixels = ahead.result().to(self.device, non_blocking=True)
                if cuda:
                    copied[number % 2].record(torch.cuda.current_stream(self.device))
                if number + 1 < len(wanted):
                    ahead = thread.submit(gather, number + 1)
                yield pixels

    def _fill(self, buffer: np.ndarray, request: Request) -> None:
        end = 0
        for index, (top, left, height, width) in zip(
            request.indices.tolist(), request.crops[:, :4].tolist(), strict=True
        ):
            start, end = end, end + height * width
            box = self.split.image(index)[top : top + height, left : left + width]
            buffer[start:end].reshape(height, width, 3)[:] = box


def _tables(wanted: list[Request], located: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """The ``geometry`` of each request, from (first, stride) of its boxes."""
    first, stride = map(torch.cat, zip(*located, strict=True))
    table = geometry(torch.cat([request.crops for request in wanted]), first, stride)
    return table.split([len(request.indices) for request in wanted])


def _resized(tables: tuple[Tensor, ...], supply: Iterable[Tensor], size: int, device: torch.device) -> Iterator[Tensor]:
    # One copy of all tables to the device: one for each batch would wait for it each time.
    moved = torch.cat(tables).to(device).split([len(table) for table in tables])
    for table, on_device, pixels in zip(tables, moved, supply, strict=False):  # a supply may be without end
        yield resize(pixels, table, on_device, size)


def resize_all(pixels: ResidentPixels | StreamedPixels, indices: Tensor, crops: Tensor, size: int) -> Tensor:
    """These images (N,) of the split as their crops tell, uint8 (N, size, size, 3), on the device."""
    made = torch.empty((len(indices), size, size, 3), dtype=torch.uint8, device=pixels.device)
    wanted = [Request(*both) for both in zip(indices.split(PORTION), crops.split(PORTION), strict=True)]
    for portion, images in zip(made.split(PORTION), pixels.resized(wanted, size), strict=True):
        portion.copy_(images)
    return made


def _areas(sizes: np.ndarray) -> np.ndarray:
    """Pixels of each image, int64."""
    return sizes.astype(np.int64).prod(axis=1)
