"""The augmentations against torchvision's transforms."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from arrays import random_split
from PIL import Image
from torchvision import transforms

from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.utils.seeding import generator


def test_pad_and_crop_gives_the_padded_images_window():
    split = random_split(6, 3, size=(8, 8))
    images = torch.from_numpy(split.uniform())
    padded = np.pad(split.uniform(), ((0, 0), (2, 2), (2, 2), (0, 0)))
    drawn = torch.tensor([[0, 0, 0], [4, 4, 0], [2, 2, 1], [1, 3, 1], [4, 0, 0]])
    indices = torch.tensor([5, 0, 1, 2, 2])
    cropped = PadAndCrop(8, 2).apply(images, indices, drawn)
    for row, (index, (top, left, flip)) in enumerate(zip(indices.tolist(), drawn.tolist(), strict=True)):
        window = padded[index, top : top + 8, left : left + 8]
        expected = window[:, ::-1] if flip else window
        assert (cropped[row].numpy() == expected).all()


def test_pad_and_crop_draws_every_offset_and_flip_evenly():
    drawn = PadAndCrop(32, 4).draw(np.zeros((50_000, 2)), generator(0, "test"))
    for column, values in ((0, 9), (1, 9), (2, 2)):
        share = torch.bincount(drawn[:, column], minlength=values) / len(drawn)
        torch.testing.assert_close(share, torch.full((values,), 1 / values), atol=0.01, rtol=0)


def test_flips_can_be_switched_off():
    for augmentation in (PadAndCrop(8, 1, flip=False), ResizedCrop(8, flip=False)):
        assert augmentation.draw(np.full((500, 2), 8), generator(0, "test"))[:, -1].sum() == 0


@pytest.mark.parametrize("shape", [(40, 40), (30, 90), (90, 20)])
def test_resized_crop_draws_torchvisions_distribution_of_boxes(shape):
    count = 4000
    ours = ResizedCrop(32).draw(np.tile(shape, (count, 1)), generator(1, "test"))[:, :4].double()
    torch.manual_seed(0)
    image = torch.zeros(3, *shape)
    theirs = torch.tensor(
        [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    ).double()
    height, width = shape
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    assert (ours >= 0).all()
    for quantile in (0.1, 0.5, 0.9):
        torch.testing.assert_close(ours.quantile(quantile, 0), theirs.quantile(quantile, 0), atol=2.0, rtol=0.06)
    torch.testing.assert_close(ours.mean(0), theirs.mean(0), atol=0.6, rtol=0.04)


def test_an_image_too_narrow_for_any_box_gives_torchvisions_central_one():
    drawn = ResizedCrop(8).draw(np.array([[400, 2], [3, 500]]), generator(0, "test"))[:, :4]
    for row, shape in zip(drawn.tolist(), ((400, 2), (3, 500)), strict=True):
        whole = transforms.RandomResizedCrop.get_params(torch.zeros(3, *shape), [1.0, 1.0], [3 / 4, 4 / 3])
        assert row == list(whole)


def test_resized_crop_gives_torchvisions_pixels():
    split = random_split(3, 3, size=None)
    crop = ResizedCrop(16)
    drawn = crop.draw(split.sizes, generator(2, "test")).numpy()
    for index, (top, left, height, width, flip) in enumerate(drawn.tolist()):
        image = Image.fromarray(split.image(index))
        expected = np.asarray(transforms.functional.resized_crop(image, top, left, height, width, [16, 16]))
        expected = expected[:, ::-1] if flip else expected
        assert (crop.apply_one(split.image(index), drawn[index]) == expected).all()


@pytest.mark.parametrize("shape", [(75, 50), (50, 75), (51, 51), (32, 32), (333, 97)])
def test_the_test_transform_gives_torchvisions_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    steps = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    expected = np.asarray(steps(Image.fromarray(pixels)))
    assert (CenterCrop(28, resize=32).apply_one(pixels) == expected).all()


def test_the_test_transform_of_a_split_keeps_its_order():
    split = random_split(7, 7, size=None)
    transform = CenterCrop(16, resize=18)
    with ThreadPoolExecutor(4) as executor:
        images = transform.apply_all(split, executor).numpy()
    assert all((images[index] == transform.apply_one(split.image(index))).all() for index in range(7))
