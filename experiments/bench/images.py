"""Made-up images to measure on: a step costs the same whatever they show."""

import numpy as np

from cskd.data.store import Dataset, ImageSplit
from experiments.recipe import Settings

PHOTO = (375, 500)  # height and width of a made-up photograph, as CUB's and Dogs' are
CLASSES = 20


def made_up(name: str, settings: Settings, batches: int) -> Dataset:
    """Noise in the size of the recipe's images: as many as ``batches`` need."""
    inputs = settings.inputs
    small = inputs.train == "pad-crop"
    height, width = (inputs.image_size, inputs.image_size) if small else PHOTO
    random = np.random.default_rng(0)

    def split(count: int) -> ImageSplit:
        pixels = random.integers(0, 256, size=3 * count * height * width, dtype=np.uint8)
        return ImageSplit(pixels, np.arange(count) % CLASSES, np.full((count, 2), (height, width), dtype=np.int32))

    return Dataset(
        name=name,
        classes=tuple(map(str, range(CLASSES))),
        train=split(max(CLASSES, batches * settings.batch_size)),
        test=split(CLASSES),
        digest="made up",
        complete=False,
        source="made up",
        short_side=min(height, width),
    )
