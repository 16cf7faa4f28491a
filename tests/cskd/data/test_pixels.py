"""Where batches are resized from: from all images on the device, or from those of a batch at a time."""

import time

import numpy as np
import pytest
import torch
from arrays import ArraySplit, random_split

from cskd.data import pixels
from cskd.data.pixels import Request, ResidentPixels, StreamedPixels, choose_resizing, open_pixels, resize_all
from cskd.data.splits import SplitView
from cskd.data.store import ImageSplit, JoinedSplit
from cskd.data.transforms import CenterCrop, ResizedCrop
from cskd.utils.seeding import generator

CPU = torch.device("cpu")


def stored(split: ArraySplit) -> ImageSplit:
    """The same images as the store keeps them."""
    return ImageSplit(np.concatenate([image.ravel() for image in split.images]), split.labels, split.sizes)


def kinds_of_splits() -> dict:
    one, two = (random_split(9, 3, size=None, seed=seed) for seed in (0, 1))
    joined = JoinedSplit([stored(one), stored(two)], [0, 3])
    chosen = np.array([3, 0, 17, 8, 9, 12])
    return {"whole": stored(one), "joined": joined, "view": SplitView(joined, chosen, joined.labels[chosen])}


def wanted(split, crop: ResizedCrop, batch_size: int = 4, count: int = 18) -> tuple[list[Request], list[np.ndarray]]:
    """Requests for random boxes, images more than once, and what Pillow makes of each."""
    indices = torch.randint(len(split), (count,), generator=generator(0, "indices"))
    drawn = crop.draw(split.sizes[indices.numpy()], generator(0, "boxes"))
    expected = [
        crop.apply_one(split.image(index), row) for index, row in zip(indices.tolist(), drawn.numpy(), strict=True)
    ]
    parts = zip(indices.split(batch_size), crop.crops(drawn).split(batch_size), strict=True)
    return [Request(*both) for both in parts], expected


@pytest.mark.parametrize("source", [ResidentPixels, StreamedPixels])
@pytest.mark.parametrize("kind", ["whole", "joined", "view"])
def test_requests_are_answered_in_order_with_pillows_bits(source, kind, monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 10_000)  # several blocks, also of these few images
    split = kinds_of_splits()[kind]
    requests, expected = wanted(split, ResizedCrop(10))
    batches = list(source(split, CPU).resized(requests, 10))
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2]
    np.testing.assert_array_equal(torch.cat(batches).numpy(), np.stack(expected))


@pytest.mark.parametrize("source", [ResidentPixels, StreamedPixels])
def test_a_source_may_be_asked_twice_at_a_time_and_left_half_way(source):
    requests, expected = wanted(random_split(9, 3, size=None), ResizedCrop(10))
    opened = source(random_split(9, 3, size=None), CPU)
    left = opened.resized(requests, 10)
    next(left)
    pairs = list(zip(opened.resized(requests, 10), opened.resized(requests[::-1], 10), strict=True))
    left.close()
    np.testing.assert_array_equal(torch.cat([one for one, _ in pairs]).numpy(), np.stack(expected))
    np.testing.assert_array_equal(torch.cat([two for _, two in pairs[::-1]]).numpy(), np.stack(expected))


def test_all_images_are_made_in_their_order(monkeypatch):
    monkeypatch.setattr(pixels, "PORTION", 4)
    split, transform = random_split(11, 3, size=None), CenterCrop(16, 18)
    crops = transform.crops(split.sizes)
    made = resize_all(StreamedPixels(split, CPU), torch.arange(11), crops, 16)
    np.testing.assert_array_equal(made.numpy(), np.stack([transform.apply_one(image) for image in split.images]))


class Watched(ArraySplit):
    """Remembers which images were read."""

    def __init__(self, split: ArraySplit):
        super().__init__(split.images, split.labels)
        self.read = []

    def image(self, index):
        self.read.append(index)
        return super().image(index)


def test_one_batch_is_gathered_ahead_and_no_more():
    split = Watched(random_split(20, 4, size=None))
    requests, _ = wanted(random_split(20, 4, size=None), ResizedCrop(10))
    for number, _ in enumerate(StreamedPixels(split, CPU).resized(requests, 10)):
        ahead = sum(len(request.indices) for request in requests[: number + 2])
        until = time.monotonic() + 5
        while len(split.read) < ahead and time.monotonic() < until:  # the thread's own time
            time.sleep(0.001)
        time.sleep(0.01)
        assert len(split.read) == ahead


def test_an_error_in_the_thread_reaches_the_training():
    split = Watched(random_split(9, 3, size=None))
    requests, _ = wanted(random_split(9, 3, size=None), ResizedCrop(10))
    split.images = split.images[:1]
    with pytest.raises(IndexError):
        list(StreamedPixels(split, CPU).resized(requests, 10))


@pytest.mark.parametrize(("free", "chosen"), [(4.0, "resident"), (3.9, "streamed")])
def test_on_a_gpu_images_stay_there_if_they_fit_a_quarter_of_its_free_memory(free, chosen, monkeypatch):
    split = random_split(12, 3, size=None)
    needed = sum(image.nbytes for image in split.images)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free * needed), 100 * needed))
    assert choose_resizing(split, torch.device("cuda")) == chosen


def test_on_a_cpu_pillow_resizes():
    assert choose_resizing(random_split(12, 3, size=None), CPU) == "pillow"
    assert open_pixels(random_split(12, 3, size=None), CPU, "pillow") is None


def test_an_unknown_resizing_is_refused():
    with pytest.raises(ValueError, match="pillow, resident, streamed"):
        open_pixels(random_split(12, 3), CPU, "lanczos")
