"""A batch of images, from the loader through the method to the network, and its division among replicas."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass
class Batch:
    """One batch.

    views: by name, (N, 3, H, W) uint8, channels last in memory. ``x`` is the augmented image; ``partner`` another
        image of the same class with its own augmentation; ``second`` another augmentation of x; ``clean`` x without
        augmentation. A method that mixes images replaces them by float32 from 0 to 255.
    labels: (N,) class indices below num_classes.
    targets: the targets of the cross-entropy: the labels, or (N, C) probabilities if the method mixes labels.
    weight: of the batch's loss in the mean over all replicas.
    """

    views: dict[str, Tensor]
    labels: Tensor
    targets: Tensor
    num_classes: int
    weight: float = 1.0

    def part(self, replica: "Replica") -> "Batch":
        """Return the rows of this batch on which a replica trains."""
        rows = replica.rows(len(self.labels))
        return replace(
            self,
            views={name: images[rows] for name, images in self.views.items()},
            labels=self.labels[rows],
            targets=self.targets[rows],
            weight=replica.weight(len(self.labels)),
        )


@dataclass(frozen=True)
class Replica:
    """One of ``count`` copies of the network that train together, each on its rows of every batch.

    BatchNorm needs two images. So a batch with less than two images for each replica is divided among the first ones,
    and the others train on the rows of the first one with weight 0.
    """

    rank: int = 0
    count: int = 1

    def rows(self, images: int) -> slice:
        """Return the rows of this replica, for a batch of so many images."""
        used = self._used(images)
        rank = self.rank if self.rank < used else 0
        each, more = divmod(images, used)  # the first ``more`` replicas have one row more
        start = rank * each + min(rank, more)
        return slice(start, start + each + (rank < more))

    def weight(self, images: int) -> float:
        """Return the weight of this replica's mean loss: the mean of all weighted losses is that of the batch."""
        if self.rank >= self._used(images):
            return 0.0
        rows = self.rows(images)
        return (rows.stop - rows.start) * self.count / images

    def _used(self, images: int) -> int:
        return max(1, min(self.count, images // 2))


WHOLE = Replica()  # trains on all rows


class Normalise:
    """Turns uint8 pixels into the network's input: (pixel / 255 - mean) / std for each channel."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device):
        self.scale = (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1).to(device)
        self.shift = (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float() * self.scale - self.shift
