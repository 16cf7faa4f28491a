"""Batched crops and resizes are bit-equal to Pillow, whatever the source of the pixels."""

import numpy as np
import pytest
import torch
from arrays import random_split
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from cskd.data import pixels
from cskd.data.pixels import RESIZING, Request
from cskd.data.resize import bytes_needed, crop_with_pillow, geometry, parts, resize
from cskd.data.splits import Split
from cskd.data.transforms import CenterCrop, ResizedCrop
from cskd.utils.seeding import generator

SIZE = 12
CPU = torch.device("cpu")


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Black, white and everything between: rounding shows in spots and edges."""
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(random.random((height, width, 1)) < 0.3, image // 128 * 255, image).astype(np.uint8)


def tables(images: list[np.ndarray], crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The concatenated pixels of the images, and the geometry of their crops there."""
    sizes = torch.tensor([image.shape[:2] for image in images])
    areas = sizes.prod(1)
    first = areas.cumsum(0) - areas + crops[:, 0] * sizes[:, 1] + crops[:, 1]
    joined = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    return joined, geometry(crops, first, sizes[:, 1])


def resized(images: list[np.ndarray], crops: torch.Tensor, size: int, **options) -> np.ndarray:
    joined, table = tables(images, crops)
    return resize(joined, table, table, size, **options).numpy()


def full_crops(images: list[np.ndarray], size: int) -> torch.Tensor:
    """The crops that resize the complete images to size x size."""
    return ResizedCrop(size).crops(torch.tensor([[0, 0, *image.shape[:2], 0] for image in images]))


def assert_equals_pillow(images: list[np.ndarray], crops: torch.Tensor, size: int) -> None:
    for result, image, crop in zip(resized(images, crops, size), images, crops.tolist(), strict=True):
        np.testing.assert_array_equal(result, crop_with_pillow(image, crop, size))


@st.composite
def boxes_of_images(draw):
    """(image, top, left, height, width, flip): any box of an image of any shape."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    box_height, box_width = draw(st.integers(1, height)), draw(st.integers(1, width))
    top, left = draw(st.integers(0, height - box_height)), draw(st.integers(0, width - box_width))
    image = noise(height, width, draw(st.integers(0, 1000)))
    return image, (top, left, box_height, box_width, draw(st.integers(0, 1)))


@settings(max_examples=20, deadline=None)
@given(st.lists(boxes_of_images(), min_size=1, max_size=5), st.integers(1, 40))
def test_random_boxes_are_bit_equal_to_pillow(drawn, size):
    boxes = torch.tensor([box for _, box in drawn])
    assert_equals_pillow([image for image, _ in drawn], ResizedCrop(size).crops(boxes), size)


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (5000, 3), (12, 12), (60, 12)])
def test_extreme_shapes_are_bit_equal_to_pillow(shape):
    images = [noise(*shape), np.full((*shape, 3), 255, np.uint8), np.zeros((*shape, 3), np.uint8)]
    assert_equals_pillow(images, full_crops(images, SIZE), SIZE)


def test_reduction_too_large_for_floats_is_bit_equal_to_pillow():
    """The mean of two neighbouring greys lies exactly where rounding turns."""
    images = [
        np.repeat(np.where(np.arange(length) < length // 2, grey, grey + 1).astype(np.uint8), 3).reshape(1, -1, 3)
        for grey, length in zip(range(200, 240), range(3000, 6880, 97), strict=True)
    ]
    images += [image.transpose(1, 0, 2).copy() for image in images]
    assert_equals_pillow(images, full_crops(images, 1), 1)


@pytest.mark.parametrize("resize_to", [None, 12, 17, 40])
def test_centre_crops_are_bit_equal_to_pillow(resize_to):
    shapes = [(12, 12), (75, 50), (50, 75), (51, 51), (13, 97), (97, 14), (12, 40)]
    images = [noise(*shape, seed) for seed, shape in enumerate(shapes)]
    assert_equals_pillow(images, CenterCrop(SIZE, resize_to).crops(np.array(shapes)), SIZE)


class TensorFloat32(TorchDispatchMode):
    """Matrix products as on a GPU with TF32: operands rounded to 11 significant bits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            args = tuple(((each.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32) for each in args)
        return func(*args, **(kwargs or {}))


def test_autocast_and_tf32_change_no_bit():
    images = [noise(30, 41), noise(350, 200), noise(5, 9)]
    expected = resized(images, full_crops(images, SIZE), SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(resized(images, full_crops(images, SIZE), SIZE), expected)
    with TensorFloat32():
        assert all((torch.ones(3, 3) * 2049 @ torch.eye(3)).flatten() != 2049)
        np.testing.assert_array_equal(resized(images, full_crops(images, SIZE), SIZE), expected)


def test_small_workspace_makes_more_parts_and_changes_no_bit():
    images = [noise(20 + 7 * seed, 60 - 5 * seed, seed) for seed in range(8)]
    crops = full_crops(images, SIZE)
    _, table = tables(images, crops)
    small = 3 * bytes_needed(60, 70, SIZE)
    assert list(parts(table, SIZE, 2**40)) == [(0, 8)]
    assert len(list(parts(table, SIZE, small))) > 1
    np.testing.assert_array_equal(resized(images, crops, SIZE, workspace=small), resized(images, crops, SIZE))


def requests_of(split) -> tuple[list[Request], np.ndarray]:
    """Requests for random boxes, some images repeatedly, and the images that Pillow makes."""
    crop = ResizedCrop(10)
    indices = torch.randint(len(split), (18,), generator=generator(0, "indices"))
    crops = crop.crops(crop.draw(split.sizes[indices.numpy()], generator(0, "boxes")))
    pairs = zip(indices.tolist(), crops.tolist(), strict=True)
    expected = [crop_with_pillow(split.image(index), row, 10) for index, row in pairs]
    return [Request(*both) for both in zip(indices.split(4), crops.split(4), strict=True)], np.stack(expected)


@pytest.mark.parametrize("source", RESIZING.values())
@pytest.mark.parametrize("kind", ["prepared", "selected"])
def test_every_source_answers_requests_in_order_and_concurrently(source, kind, monkeypatch):
    monkeypatch.setattr(pixels, "BLOCK", 10_000)  # several blocks of these few images
    split = random_split(9, 3, size=None)
    if kind == "selected":
        joined = Split.joined([split, random_split(9, 3, size=None, seed=1)], [0, 3])
        split = joined.select(np.array([3, 0, 17, 8, 9, 12]))
    requests, expected = requests_of(split)
    opened = source(split, CPU)
    abandoned = opened.resized(requests, 10)
    next(abandoned)
    pairs = list(zip(opened.resized(requests, 10), opened.resized(requests[::-1], 10), strict=True))
    abandoned.close()
    assert [len(batch) for batch, _ in pairs] == [4, 4, 4, 4, 2]
    np.testing.assert_array_equal(torch.cat([batch for batch, _ in pairs]).numpy(), expected)
    np.testing.assert_array_equal(torch.cat([batch for _, batch in pairs[::-1]]).numpy(), expected)
