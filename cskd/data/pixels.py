"""Three sources of resized images with equal pixels: Pillow, and batches on the device (resident or streamed)."""

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cskd.data.resize import crop_with_pillow, cut, geometry, resize
from cskd.data.splits import Split
from cskd.utils.threads import threaded_map

RESIDENT_SHARE = 0.25  # of the device's free memory; the rest is for the network and other processes
BLOCK = 64 * 2**20  # bytes of images that are copied to the device at once
PORTION = 32  # images that are resized at once outside training


def choose_resizing(split: Split, device: torch.device) -> str:
    """Return ``pillow`` on a CPU; on CUDA ``resident`` if the images fit into RESIDENT_SHARE, else ``streamed``.

    All three give the same pixels. On one CPU thread ``resize`` takes 15 times as long as Pillow for photographs at
    224 px, and 3 times for 64 px to 32 px.
    """
    if device.type != "cuda":
        return "pillow"
    free, _ = torch.cuda.mem_get_info(device)
    return "resident" if 3 * _areas(split.sizes).sum() <= RESIDENT_SHARE * free else "streamed"


def open_pixels(split: Split, device: torch.device, resizing: str) -> "Pixels":
    """Return the source of resized images with this name."""
    if resizing not in RESIZING:
        raise ValueError(f"unknown resizing {resizing!r}: choose from {', '.join(RESIZING)}")
    return RESIZING[resizing](split, device)


@dataclass(frozen=True)
class Request:
    """One batch to resize. indices: (N,), images of the split. crops: their ``crop_table`` (N, 9)."""

    indices: Tensor
    crops: Tensor


def batched_requests(indices: Tensor, crops: Tensor, count: int) -> list[Request]:
    """Return requests of ``count`` images each."""
    return [Request(*portion) for portion in zip(indices.split(count), crops.split(count), strict=True)]


class PillowPixels:
    """Images resized one by one by Pillow, in threads. Another thread prepares the next batch meanwhile."""

    def __init__(self, split: Split, device: torch.device):
        self.split, self.device = split, device
        self.executor = ThreadPoolExecutor(torch.get_num_threads())

    def resized(self, requests: list[Request], size: int) -> Iterator[Tensor]:
        """Yield the images of each request, uint8 (N, size, size, 3), on the device."""

        def make(request: Request) -> Tensor:
            indices, crops = request.indices.tolist(), request.crops.tolist()
            batch = torch.empty((len(indices), size, size, 3), dtype=torch.uint8)
            array = batch.numpy()

            def fill(row: int) -> None:
                array[row] = crop_with_pillow(self.split.stored_image(indices[row]), crops[row], size)

            for _ in self.executor.map(fill, range(len(indices))):
                pass
            return batch

        for batch in threaded_map(make, requests, workers=1, ahead=2):
            yield batch.to(self.device)


class ResidentPixels:
    """All images of a split, copied to the device once."""

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

    def resized(self, requests: list[Request], size: int) -> Iterator[Tensor]:
        """Yield the images of each request, uint8 (N, size, size, 3), on the device."""
        tables = _tables(requests, [self._locate(request) for request in requests])
        return _resized(tables, itertools.repeat(self.pixels), size, self.device)

    def _locate(self, request: Request) -> tuple[Tensor, Tensor]:
        stride = self.sizes[request.indices, 1]
        return self.first[request.indices] + request.crops[:, 0] * stride + request.crops[:, 1], stride


class StreamedPixels:
    """Copies the boxes of one batch at a time. Threads gather, and decode, the next batch meanwhile.

    Two buffers hold the boxes of the largest batch, in pinned memory for a GPU, and the device needs the same space:
    at most 24 MB per view for 32 photographs of 500 x 500 px.
    """

    def __init__(self, split: Split, device: torch.device):
        self.split, self.device = split, device
        self.executor = ThreadPoolExecutor(torch.get_num_threads())

    def resized(self, requests: list[Request], size: int) -> Iterator[Tensor]:
        """Yield the images of each request, uint8 (N, size, size, 3), on the device."""
        tables = _tables(requests, [self._locate(request) for request in requests])
        return _resized(tables, self._gathered(requests), size, self.device)

    def _locate(self, request: Request) -> tuple[Tensor, Tensor]:
        areas, width = request.crops[:, 2:4].prod(1), request.crops[:, 3]
        return areas.cumsum(0) - areas, width

    def _gathered(self, requests: list[Request]) -> Iterator[Tensor]:
        """Yield the concatenated pixels (P, 3) of each request's boxes, on the device."""
        cuda = self.device.type == "cuda"
        counts = [int(request.crops[:, 2:4].prod(1).sum()) for request in requests]
        buffers = [torch.empty((max(counts), 3), dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
        copied = [torch.cuda.Event() if cuda else None for _ in range(2)]

        def gather(number: int) -> Tensor:
            if cuda:
                copied[number % 2].synchronize()  # wait until the device has copied this buffer's last content
            self._fill(buffers[number % 2].numpy(), requests[number])
            return buffers[number % 2][: counts[number]]

        for number, gathered in enumerate(threaded_map(gather, range(len(requests)), workers=1, ahead=2)):
            pixels = gathered.to(self.device, non_blocking=True)
            if cuda:
                copied[number % 2].record(torch.cuda.current_stream(self.device))
            yield pixels

    def _fill(self, buffer: np.ndarray, request: Request) -> None:
        starts = self._locate(request)[0].tolist()

        def copy(index: int, start: int, box: list[int]) -> None:
            pixels = np.asarray(cut(self.split.stored_image(index), *box)).reshape(-1, 3)
            buffer[start : start + len(pixels)] = pixels

        for _ in self.executor.map(copy, request.indices.tolist(), starts, request.crops[:, :4].tolist()):
            pass


Pixels = PillowPixels | ResidentPixels | StreamedPixels
RESIZING = {"pillow": PillowPixels, "resident": ResidentPixels, "streamed": StreamedPixels}


def _tables(requests: list[Request], locations: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, ...]:
    """Return the ``geometry`` of each request. locations: the first pixels and the strides of its boxes."""
    first, stride = map(torch.cat, zip(*locations, strict=True))
    table = geometry(torch.cat([request.crops for request in requests]), first, stride)
    return table.split([len(request.indices) for request in requests])


def _resized(tables: tuple[Tensor, ...], supply: Iterable[Tensor], size: int, device: torch.device) -> Iterator[Tensor]:
    # All tables are copied to the device at once, because each copy makes the CPU wait.
    on_device = torch.cat(tables).to(device).split([len(table) for table in tables])
    for table, moved, pixels in zip(tables, on_device, supply, strict=False):  # the supply may be infinite
        yield resize(pixels, table, moved, size)


def resize_all(pixels: Pixels, indices: Tensor, crops: Tensor, size: int) -> Tensor:
    """Return the crops of these images (N,) of the split, uint8 (N, size, size, 3), on the device."""
    resized = torch.empty((len(indices), size, size, 3), dtype=torch.uint8, device=pixels.device)
    for portion, images in zip(
        resized.split(PORTION), pixels.resized(batched_requests(indices, crops, PORTION), size), strict=True
    ):
        portion.copy_(images)
    return resized


def _areas(sizes: np.ndarray) -> np.ndarray:
    """Return the number of pixels of each image, int64."""
    return sizes.astype(np.int64).prod(axis=1)
