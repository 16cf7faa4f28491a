"""Batched cropping and resizing against Pillow, one image at a time: the same bits."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from cskd.data.resize import bytes_needed, crop_table, geometry, parts, resize
from cskd.data.transforms import CenterCrop, ResizedCrop

SIZE = 12


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Black, white and everything between, in spots and edges: where rounding shows."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(random.random((height, width, 1)) < 0.3, pixels // 128 * 255, pixels).astype(np.uint8)


def tables(images: list[np.ndarray], crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The images' pixels one after the other, and the geometry of their crops there."""
    sizes = torch.tensor([image.shape[:2] for image in images])
    areas = sizes.prod(1)
    first = areas.cumsum(0) - areas + crops[:, 0] * sizes[:, 1] + crops[:, 1]
    pixels = torch.from_numpy(np.concatenate([image.reshape(-1, 3) for image in images]))
    return pixels, geometry(crops, first, sizes[:, 1])


def made(images: list[np.ndarray], crops: torch.Tensor, size: int, **options) -> np.ndarray:
    pixels, table = tables(images, crops)
    return resize(pixels, table, table, size, **options).numpy()


def whole(images: list[np.ndarray], size: int) -> torch.Tensor:
    """The crops of whole images to size x size."""
    count = len(images)
    boxes = torch.tensor([[0, 0, *image.shape[:2]] for image in images])
    zeros = torch.zeros((count, 3), dtype=torch.long)
    return crop_table(boxes, torch.full((count, 2), size), zeros[:, :2], zeros[:, 2:])


def by_pillow(image: np.ndarray, size: int) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


@st.composite
def boxes_of_images(draw):
    """(image, top, left, height, width, flip): any box of an image of any shape."""
    height, width = draw(st.integers(1, 90)), draw(st.integers(1, 90))
    box_height, box_width = draw(st.integers(1, height)), draw(st.integers(1, width))
    top, left = draw(st.integers(0, height - box_height)), draw(st.integers(0, width - box_width))
    image = noise(height, width, draw(st.integers(0, 1000)))
    return image, (top, left, box_height, box_width, draw(st.integers(0, 1)))


@settings(max_examples=60, deadline=None)
@given(st.lists(boxes_of_images(), min_size=1, max_size=5), st.integers(1, 40))
def test_random_boxes_give_pillows_bits(drawn, size):
    images, boxes = [image for image, _ in drawn], np.array([box for _, box in drawn])
    crop = ResizedCrop(size)
    batch = made(images, crop.crops(torch.from_numpy(boxes)), size)
    assert batch.dtype == np.uint8
    for result, image, box in zip(batch, images, boxes, strict=True):
        np.testing.assert_array_equal(result, crop.apply_one(image, box))


@pytest.mark.parametrize(
    "shape",
    [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1), (3, 5000), (5000, 3), (12, 12), (12, 60), (60, 12), (383, 384)],
)
def test_extreme_shapes_give_pillows_bits(shape):
    images = [noise(*shape), np.full((*shape, 3), 255, np.uint8), np.zeros((*shape, 3), np.uint8)]
    for result, image in zip(made(images, whole(images, SIZE), SIZE), images, strict=True):
        np.testing.assert_array_equal(result, by_pillow(image, SIZE))


def test_either_axis_is_resized_first_as_pillow_does():
    """That these differ is what makes the order matter: where it does not, the test above cannot tell."""
    tall, wide = noise(80, 30), noise(30, 80)
    for image, columns_first in ((tall, True), (wide, False)):
        steps = ((image.shape[1], SIZE), (SIZE, SIZE)) if columns_first else ((SIZE, image.shape[0]), (SIZE, SIZE))
        other = ((SIZE, image.shape[0]), (SIZE, SIZE)) if columns_first else ((image.shape[1], SIZE), (SIZE, SIZE))
        in_order, exchanged = (
            np.asarray(
                Image.fromarray(image).resize(first, Image.Resampling.BILINEAR).resize(last, Image.Resampling.BILINEAR)
            )
            for first, last in (steps, other)
        )
        result = made([image], whole([image], SIZE), SIZE)[0]
        np.testing.assert_array_equal(result, in_order)
        assert (result != exchanged).any()


def test_a_reduction_too_large_for_a_float_gives_pillows_bits():
    """Halves of neighbouring greys, whose mean lies at the very point where rounding turns."""
    lengths = [3000 + 97 * number for number in range(40)]
    images = [
        np.repeat(np.where(np.arange(length) < length // 2, grey, grey + 1).astype(np.uint8), 3).reshape(1, -1, 3)
        for grey, length in zip(range(200, 240), lengths, strict=True)
    ]
    images += [image.transpose(1, 0, 2).copy() for image in images]
    for result, image in zip(made(images, whole(images, 1), 1), images, strict=True):
        np.testing.assert_array_equal(result, by_pillow(image, 1))


@pytest.mark.parametrize("resize_to", [None, 12, 17, 40])
def test_central_crops_give_the_test_transforms_bits(resize_to):
    transform = CenterCrop(SIZE, resize_to)
    shapes = [(12, 12), (75, 50), (50, 75), (51, 51), (13, 97), (97, 14), (12, 40)]
    images = [noise(*shape, seed) for seed, shape in enumerate(shapes)]
    batch = made(images, transform.crops(np.array(shapes)), SIZE)
    for result, image in zip(batch, images, strict=True):
        np.testing.assert_array_equal(result, transform.apply_one(image))


def test_a_central_crop_larger_than_its_image_is_refused():
    with pytest.raises(ValueError, match="smaller than the crop"):
        CenterCrop(12).crops(np.array([[20, 11]]))


def test_autocast_around_it_changes_no_bit():
    images = [noise(30, 41), noise(55, 20)]
    expected = made(images, whole(images, SIZE), SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(made(images, whole(images, SIZE), SIZE), expected)


class TensorFloat32(TorchDispatchMode):
    """Matrix products as a GPU makes them beside bf16: of numbers that are rounded to 11 significant bits."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default):
            args = tuple(((each.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32) for each in args)
        return func(*args, **(kwargs or {}))


def test_tensor_float_32_changes_no_bit():
    images = [noise(30, 41), noise(350, 200), noise(5, 9)]
    expected = made(images, whole(images, SIZE), SIZE)
    assert all((torch.ones(3, 3) * 2049 @ torch.eye(3)).flatten() == 2049)
    with TensorFloat32():
        assert all((torch.ones(3, 3) * 2049 @ torch.eye(3)).flatten() != 2049)
        np.testing.assert_array_equal(made(images, whole(images, SIZE), SIZE), expected)


def test_a_small_workspace_changes_no_bit_and_makes_more_parts():
    images = [noise(20 + 7 * seed, 60 - 5 * seed, seed) for seed in range(8)]
    crops = whole(images, SIZE)
    _, table = tables(images, crops)
    small = 3 * bytes_needed(60, 70, SIZE)
    assert list(parts(table, SIZE, 2**40)) == [(0, 8)]
    assert len(list(parts(table, SIZE, small))) > 1
    np.testing.assert_array_equal(made(images, crops, SIZE, workspace=small), made(images, crops, SIZE))


def test_an_image_larger_than_the_workspace_is_made_alone():
    images = [noise(9, 9), noise(90, 90), noise(9, 9), noise(9, 9)]
    _, table = tables(images, whole(images, SIZE))
    assert list(parts(table, SIZE, 2 * bytes_needed(9, 9, SIZE))) == [(0, 1), (1, 2), (2, 4)]


@pytest.mark.parametrize(
    ("shape", "size", "count"), [((94, 125), 56, 8), ((125, 94), 56, 8), ((64, 64), 32, 8), ((9, 12), 64, 6)]
)
def test_no_more_memory_is_taken_than_is_stated(shape, size, count, tmp_path):
    images = [noise(*shape, seed) for seed in range(count)]
    pixels, table = tables(images, whole(images, size))
    longest = table[:, 3:5].amax(0).tolist()
    for together in (count, count // 2):
        workspace = together * bytes_needed(*longest, size)
        assert len(list(parts(table, size, workspace))) == math.ceil(count / together)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            resize(pixels, table, table, size, workspace)
        taken = peak(recorded, tmp_path / "trace.json") - count * 3 * size**2
        assert workspace / 2 < taken <= workspace + 20_000 * together  # some small vectors beside


def peak(recorded: profile, trace) -> int:
    """The most bytes that were allocated at a time."""
    recorded.export_chrome_trace(str(trace))
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    return max(np.cumsum([event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])]))


def test_photographs_of_500_px_fit_the_workspace_in_one_part():
    _, table = tables([np.zeros((500, 500, 3), np.uint8)] * 32, whole([np.zeros((500, 500, 3))] * 32, 224))
    assert list(parts(table, 224, 256 * 2**20)) == [(0, 32)]
