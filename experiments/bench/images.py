"""Made-up images to measure on: a step costs the same whatever they show."""

import numpy as np
import torch

from cskd.data.store import Dataset, ImageSplit
from experiments.memory import refuse_more_than_free
from experiments.recipe import Settings

PHOTO = (375, 500)  # height and width of a made-up photograph, as CUB's and Dogs' are
CLASSES = 20


def made_up(name: str, settings: Settings, batches: int) -> Dataset:
    """Noise in the size of the recipe's images: as many as ``batches`` need.

    Raises UserError for more than this machine has memory for.
    """
    inputs = settings.inputs
    small = inputs.train == "pad-crop"
    height, width = (inputs.image_size, inputs.image_size) if small else PHOTO
    random = np.random.default_rng(0)
    count = max(CLASSES, batches * settings.batch_size)
    copies = 2  # these, and the loader's own
    what = f"{name}: {batches} batches of made-up images"
    remedy = f"lower 'batch_size' ({settings.batch_size}) or --steps"
    refuse_more_than_free(what, copies * 3 * count * height * width, torch.device("cpu"), remedy)

    def split(count: int) -> ImageSplit:
        pixels = random.integers(0, 256, size=3 * count * height * width, dtype=np.uint8)
        return ImageSplit(pixels, np.arange(count) % CLASSES, np.full((count, 2), (height, width), dtype=np.int32))

    return Dataset(
        name=name,
        classes=tuple(map(str, range(CLASSES))),
        train=split(count),
        test=split(CLASSES),
        digest="made up",
        complete=False,
        source="made up",
        short_side=min(height, width),
    )
