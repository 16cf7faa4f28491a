"""The same-class image that a class-wise method pairs each image with."""

import numpy as np
import torch
from torch import Tensor


class ClassPartners:
    """For each sample a same-class one, drawn uniformly over the class, the sample itself included."""

    def __init__(self, labels: np.ndarray):
        labels = torch.as_tensor(labels)
        self.labels = labels
        self.members = torch.argsort(labels, stable=True)  # sample indices, class after class
        self.count = torch.bincount(labels)
        self.first = self.count.cumsum(0) - self.count

    def draw(self, indices: Tensor, random: torch.Generator) -> Tensor:
        labels = self.labels[indices]
        uniform = torch.rand(len(indices), generator=random, dtype=torch.float64)
        place = (uniform * self.count[labels]).long()
        return self.members[self.first[labels] + place]
