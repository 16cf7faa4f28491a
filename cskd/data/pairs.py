"""Draws, for each image, another image of the same class."""

import numpy as np
import torch
from torch import Tensor


class PairSampler:
    """Draws images uniformly from the classes of given images; an image may be paired with itself."""

    def __init__(self, labels: np.ndarray):
        self.labels = torch.as_tensor(labels)
        self.members = torch.argsort(self.labels, stable=True)  # image indices, class after class
        self.counts = torch.bincount(self.labels)
        self.first = self.counts.cumsum(0) - self.counts

    def draw(self, indices: Tensor, random: torch.Generator) -> Tensor:
        """Return for each image of ``indices`` (N,) the index of an image of the same class."""
        labels = self.labels[indices]
        uniform = torch.rand(len(indices), generator=random, dtype=torch.float64)
        return self.members[self.first[labels] + (uniform * self.counts[labels]).long()]
