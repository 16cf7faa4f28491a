"""The augmentations and the test transform against torchvision."""

import numpy as np
import pytest
import torch
from arrays import random_split
from PIL import Image
from torchvision import transforms

from cskd.batch import Normalise
from cskd.data.resize import crop_with_pillow
from cskd.data.transforms import CenterCrop, PadAndCrop, ResizedCrop
from cskd.utils.seeding import generator


def test_pad_and_crop_gives_windows_of_the_padded_images():
    images = random_split(6, 3, size=(8, 8)).uniform()
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    drawn = torch.tensor([[0, 0, 0], [4, 4, 0], [2, 2, 1], [1, 3, 1], [4, 0, 0]])
    indices = torch.tensor([5, 0, 1, 2, 2])
    cropped = PadAndCrop(8, 2).apply(torch.from_numpy(images), indices, drawn)
    for row, (index, (top, left, flip)) in enumerate(zip(indices.tolist(), drawn.tolist(), strict=True)):
        window = padded[index, top : top + 8, left : left + 8]
        assert (cropped[row].numpy() == (window[:, ::-1] if flip else window)).all()


def test_pad_and_crop_draws_offsets_and_flips_uniformly():
    drawn = PadAndCrop(32, 4).draw(np.zeros((50_000, 2)), generator(0, "test"))
    for column, values in ((0, 9), (1, 9), (2, 2)):
        share = torch.bincount(drawn[:, column], minlength=values) / len(drawn)
        torch.testing.assert_close(share, torch.full((values,), 1 / values), atol=0.01, rtol=0)


@pytest.mark.parametrize("shape", [(40, 40), (30, 90)])
def test_resized_crop_draws_boxes_with_torchvisions_distribution(shape):
    count = 2000
    drawn = ResizedCrop(32).draw(np.tile(shape, (count, 1)), generator(1, "test"))[:, :4].double()
    torch.manual_seed(0)
    image = torch.zeros(3, *shape)
    expected = torch.tensor(
        [transforms.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    ).double()
    assert (drawn[:, :2] + drawn[:, 2:] <= torch.tensor(shape)).all()
    assert (drawn >= 0).all()
    for quantile in (0.1, 0.5, 0.9):
        torch.testing.assert_close(drawn.quantile(quantile, 0), expected.quantile(quantile, 0), atol=2.0, rtol=0.06)
    torch.testing.assert_close(drawn.mean(0), expected.mean(0), atol=0.7, rtol=0.05)


def test_image_too_narrow_for_any_box_gets_torchvisions_central_box():
    drawn = ResizedCrop(8).draw(np.array([[400, 2], [3, 500]]), generator(0, "test"))[:, :4]
    for row, shape in zip(drawn.tolist(), ((400, 2), (3, 500)), strict=True):
        expected = transforms.RandomResizedCrop.get_params(torch.zeros(3, *shape), [1.0, 1.0], [3 / 4, 4 / 3])
        assert row == list(expected)


def test_resized_crop_gives_torchvisions_pixels():
    split, crop = random_split(3, 3, size=None), ResizedCrop(16)
    drawn = crop.draw(split.sizes, generator(2, "test"))
    crops = crop.crops(drawn).tolist()
    for index, (top, left, height, width, flip) in enumerate(drawn.tolist()):
        image = Image.fromarray(split.image(index))
        expected = np.asarray(transforms.functional.resized_crop(image, top, left, height, width, [16, 16]))
        expected = expected[:, ::-1] if flip else expected
        assert (crop_with_pillow(split.image(index), crops[index], 16) == expected).all()


@pytest.mark.parametrize("shape", [(75, 50), (50, 75), (51, 51), (32, 32), (333, 97)])
def test_test_transform_gives_torchvisions_pixels(shape):
    pixels = np.random.default_rng(0).integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    steps = transforms.Compose([transforms.Resize(32), transforms.CenterCrop(28)])
    (crop,) = CenterCrop(28, resize=32).crops(np.array([shape])).tolist()
    assert (crop_with_pillow(pixels, crop, 28) == np.asarray(steps(Image.fromarray(pixels)))).all()


def test_center_crop_leaves_images_of_its_size_and_refuses_smaller_ones():
    split = random_split(4, 2, size=(8, 8))
    assert CenterCrop(8, 8).unchanged(split) is not None
    assert CenterCrop(8, 10).unchanged(split) is None  # torchvision's Resize(10), CenterCrop(8) changes them
    with pytest.raises(ValueError, match="smaller than the crop"):
        CenterCrop(12).crops(np.array([[20, 11]]))


def test_normalise_equals_torchvisions_to_tensor_and_normalize():
    images = torch.randint(256, (2, 3, 5, 5), dtype=torch.uint8)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = transforms.functional.normalize(images.double() / 255, mean, std)
    actual = Normalise(mean, std, torch.device("cpu"))(images)
    torch.testing.assert_close(actual.double(), expected, atol=1e-5, rtol=1e-5)
