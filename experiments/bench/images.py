"""Images to measure on: noise for most parts, since a step's cost does not depend on the content."""

import numpy as np
import torch

from cskd.data.sources.base import DatasetSource
from cskd.data.sources.registry import SOURCES
from cskd.data.splits import Split
from cskd.data.store import Dataset
from cskd.utils.cli import data_dir
from experiments.bench.results import Cell
from experiments.config.datasets import open_data, prepare_data
from experiments.launch.estimate import check_free_memory

CLASSES = 20


def noise_images(cell: Cell, batches: int) -> Dataset:
    """Return noise of the size of the dataset's images, enough for ``batches``. Raises UserError for lack of memory."""
    settings = cell.settings
    resized = settings.inputs.train == "resized-crop"
    side = settings.inputs.image_size
    source = SOURCES.get(settings.data.reader, DatasetSource)
    height, width = source.image_size if resized else (side, side)
    random = np.random.default_rng(0)
    count = max(CLASSES, batches * settings.batch_size)
    needed = 2 * 3 * count * height * width  # these images and the loader's copy
    remedy = f"lower 'batch_size' ({settings.batch_size}) or --steps"
    check_free_memory(f"{cell.dataset}: {batches} batches of noise images", needed, torch.device("cpu"), remedy)

    def split(count: int) -> Split:
        pixels = random.integers(0, 256, size=3 * count * height * width, dtype=np.uint8)
        return Split.prepared(pixels, np.arange(count) % CLASSES, np.full((count, 2), (height, width), dtype=np.int32))

    return Dataset(
        name=cell.dataset,
        classes=tuple(map(str, range(CLASSES))),
        train=split(count),
        test=split(CLASSES),
        digest="noise",
        complete=False,
        source="noise",
        short_side=min(height, width),
    )


def prepared_images(cell: Cell) -> Dataset:
    """Return the dataset's own images; digits are prepared first. Raises UserError if others are not prepared."""
    if cell.settings.data.reader == "digits":
        prepare_data(cell.dataset, cell.settings.data, data_dir())
    return open_data(cell.dataset, cell.settings.data, data_dir())
