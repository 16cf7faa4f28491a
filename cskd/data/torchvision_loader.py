"""The pipeline of most published code, for comparison: torchvision augments image by image in worker processes.

Imports of torchvision are local, because they take seconds.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from cskd.data.loader import EpochDraws, TrainLoader
from cskd.data.splits import Split
from cskd.data.transforms import Augmentation, CenterCrop, PadAndCrop
from cskd.utils.seeding import derived_seed

Transform = Callable[[Image.Image], Image.Image]


class TorchvisionLoader(TrainLoader):
    """A TrainLoader with the same order and pairs, whose images are augmented by torchvision in a DataLoader.

    Each image of each view has its own seed, so the pixels do not depend on the number of workers. Pixels reach the
    device as uint8 and are normalised there, which is less work than in most published code.
    """

    is_resident = False

    def _views(self, epoch: int, draws: EpochDraws) -> Iterator[dict[str, Tensor]]:
        image_indices = draws.indices
        augmented, clean = _augmentation(self.augmentation), _center_crop(self.clean)
        images = _Images(
            self.split,
            {view: indices.numpy() for view, indices in image_indices.items()},
            {view: augmented if view in self.AUGMENTED else clean for view in image_indices},
            {view: derived_seed(self.seed, f"torchvision/{view}", epoch) for view in image_indices},
        )
        batches = DataLoader(
            images,
            batch_sampler=[range(rows.start, rows.stop) for rows in self._batch_slices()],
            num_workers=torch.get_num_threads(),  # at least 1: _Images seeds the generator of its own process
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # so that DataLoader does not draw from torch's global generator
        )
        for views in batches:
            yield {view: pixels.to(self.device, non_blocking=True) for view, pixels in views.items()}


def _center_crop(crop: CenterCrop) -> Transform:
    from torchvision import transforms  # noqa: PLC0415

    steps = [] if crop.resize is None else [transforms.Resize(crop.resize)]
    return transforms.Compose([*steps, transforms.CenterCrop(crop.size)])


def _augmentation(augmentation: Augmentation) -> Transform:
    from torchvision import transforms  # noqa: PLC0415

    if isinstance(augmentation, PadAndCrop):
        crop = transforms.RandomCrop(augmentation.size, padding=augmentation.padding)
    else:
        crop = transforms.RandomResizedCrop(augmentation.size, scale=augmentation.scale, ratio=augmentation.ratio)
    return transforms.Compose([crop, *([transforms.RandomHorizontalFlip()] if augmentation.flip else [])])


class _Images(torch.utils.data.Dataset):
    """The views of one epoch. Item i holds, by view, a uint8 image (size, size, 3) of the i-th sample of the order."""

    def __init__(
        self,
        split: Split,
        image_indices: dict[str, np.ndarray],
        transforms: dict[str, Transform],
        seeds: dict[str, int],
    ):
        self.split, self.image_indices, self.transforms, self.seeds = split, image_indices, transforms, seeds

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        views = {}
        for view, indices in self.image_indices.items():
            torch.manual_seed(self.seeds[view] + position)
            image = self.transforms[view](Image.fromarray(self.split.image(indices[position])))
            views[view] = torch.from_numpy(np.array(image))
        return views
