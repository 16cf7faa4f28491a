"""A batch of images, from the loader through the method to the network."""

from dataclasses import dataclass

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
    """

    views: dict[str, Tensor]
    labels: Tensor
    targets: Tensor
    num_classes: int


class Normalise:
    """Turns uint8 pixels into the network's input: (pixel / 255 - mean) / std for each channel."""

    def __init__(self, mean: tuple[float, float, float], std: tuple[float, float, float], device: torch.device):
        self.scale = (1 / (255 * torch.tensor(std))).view(1, 3, 1, 1).to(device)
        self.shift = (torch.tensor(mean) / torch.tensor(std)).view(1, 3, 1, 1).to(device)

    def __call__(self, images: Tensor) -> Tensor:
        return images.float() * self.scale - self.shift
