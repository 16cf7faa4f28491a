"""The pipeline of most published code, to compare ours with: images one by one, by torchvision, in worker processes.

torchvision takes seconds to import: it is imported where its pipeline is used.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from cskd.data.loader import TrainLoader
from cskd.data.splits import Split
from cskd.data.transforms import Augmentation, PadAndCrop
from cskd.utils.seeding import derived_seed


class ConventionalLoader(TrainLoader):
    """A TrainLoader with the same order and partners, whose images torchvision augments in a DataLoader's workers.

    Every image of every view has a seed of its own, so that the numbers do not depend on how many workers there are.
    The pixels reach the device as uint8 and are normalised there, which is less work than this pipeline often has.
    """

    def _made(self, epoch: int, subjects: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        augmented = conventional_augmentation(self.augmentation)
        changes = {view: augmented if view in self.AUGMENTED else self._conventional_clean() for view in subjects}
        images = _Images(
            self.split,
            {view: indices.numpy() for view, indices in subjects.items()},
            changes,
            {view: derived_seed(self.seed, f"torchvision/{view}", epoch) for view in subjects},
        )
        # on a CPU the workers share its cores with the training
        batches = DataLoader(
            images,
            batch_size=self.batch_size,
            num_workers=torch.get_num_threads(),
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # the workers' seeds are not used: torch's own generator is left alone
        )
        for views in batches:
            yield {view: pixels.to(self.device, non_blocking=True) for view, pixels in views.items()}

    def _conventional_clean(self) -> Callable[[Image.Image], Image.Image]:
        from torchvision import transforms  # noqa: PLC0415

        steps = [] if self.clean.resize is None else [transforms.Resize(self.clean.resize)]
        return transforms.Compose([*steps, transforms.CenterCrop(self.clean.size)])


def conventional_augmentation(augmentation: Augmentation) -> Callable[[Image.Image], Image.Image]:
    """torchvision's transforms for the same augmentation."""
    from torchvision import transforms  # noqa: PLC0415

    if isinstance(augmentation, PadAndCrop):
        crop = transforms.RandomCrop(augmentation.size, padding=augmentation.padding)
    else:
        crop = transforms.RandomResizedCrop(augmentation.size, scale=augmentation.scale, ratio=augmentation.ratio)
    return transforms.Compose([crop, *([transforms.RandomHorizontalFlip()] if augmentation.flip else [])])


class _Images(torch.utils.data.Dataset):
    """The views of one epoch, by place in its order: uint8 (size, size, 3)."""

    def __init__(
        self,
        split: Split,
        subjects: dict[str, np.ndarray],
        changes: dict[str, Callable[[Image.Image], Image.Image]],
        seeds: dict[str, int],
    ):
        self.split, self.subjects, self.changes, self.seeds = split, subjects, changes, seeds

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, place: int) -> dict[str, Tensor]:
        views = {}
        for view, indices in self.subjects.items():
            torch.manual_seed(self.seeds[view] + place)
            changed = self.changes[view](Image.fromarray(self.split.image(indices[place])))
            views[view] = torch.from_numpy(np.array(changed))
        return views
