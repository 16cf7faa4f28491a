"""Images to measure on. Mostly made-up ones: a step costs the same whatever they show."""

import numpy as np
import torch

from cskd.data.sources.digits import SOURCE as DIGITS
from cskd.data.store import Dataset, ImageSplit
from cskd.utils.cli import data_dir
from experiments.config.datasets import open_data, prepare_data
from experiments.config.recipe import Settings
from experiments.launch.estimate import check_free_memory

PHOTO = (375, 500)  # height and width of a made-up photograph, as CUB's and Dogs' are
STORED = {"tinyimagenet": (64, 64)}  # of readers of other images that are resized
CLASSES = 20


def made_up(name: str, settings: Settings, batches: int) -> Dataset:
    """Noise in the size of the recipe's images: as many as ``batches`` need.

    Raises UserError for more than this machine has memory for.
    """
    inputs = settings.inputs
    resized = inputs.train == "resized-crop"
    height, width = STORED.get(settings.data.reader, PHOTO) if resized else (inputs.image_size, inputs.image_size)
    random = np.random.default_rng(0)
    count = max(CLASSES, batches * settings.batch_size)
    copies = 2  # these, and the loader's own
    what = f"{name}: {batches} batches of made-up images"
    remedy = f"lower 'batch_size' ({settings.batch_size}) or --steps"
    check_free_memory(what, copies * 3 * count * height * width, torch.device("cpu"), remedy)

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


def prepared(name: str, settings: Settings) -> Dataset:
    """The recipe's own images. Raises UserError where they are not prepared; the embedded ones are then."""
    if settings.data.reader == DIGITS.name:
        prepare_data(name, settings.data, data_dir())
    return open_data(name, settings.data, data_dir())
