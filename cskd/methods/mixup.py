"""Mixup: images and labels are mixed in pairs."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cskd.batch import Batch
from cskd.methods.base import Method


@dataclass(frozen=True)
class Mixup(Method):
    """CE(c * a + (1 - c) * b, c * y_a + (1 - c) * y_b), with c ~ Beta(alpha, alpha) drawn once per batch.

    All views are mixed with the same pairs and the same c. So in ``mixup+cs-kd`` the partner of a mixed image is a
    mix of the partners of its two images.
    """

    name = "mixup"
    source = "Zhang et al., ICLR 2018: alpha 1 on CIFAR, 0.2 on ImageNet"
    mixes_labels = True

    alpha: float = 1.0

    def __post_init__(self):
        self.require("alpha", 0 < self.alpha < math.inf, "positive")

    def transform(self, batch: Batch, random: Generator) -> Batch:
        coefficient = draw_coefficient(self.alpha, random)
        device = batch.labels.device
        # The step must not wait for a GPU: a copy that does not wait needs pinned memory.
        order = torch.randperm(len(batch.labels), generator=random, pin_memory=device.type == "cuda")
        return mix(batch, order.to(device, non_blocking=True), coefficient)


def draw_coefficient(alpha: float, random: Generator) -> float:
    """Return a draw from Beta(alpha, alpha)."""
    # torch's Beta distribution takes no generator, so ``random`` seeds a generator of NumPy.
    seed = int(torch.randint(2**62, (), generator=random))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def mix(batch: Batch, order: Tensor, coefficient: float) -> Batch:
    """Mix image i with image ``order[i]``; order is (N,). ``coefficient`` is the share of image i."""

    def mixed(values: Tensor) -> Tensor:
        return coefficient * values + (1 - coefficient) * values[order]

    targets = batch.targets if batch.targets.dim() == 2 else F.one_hot(batch.targets, batch.num_classes).float()
    views = {name: mixed(images.float()) for name, images in batch.views.items()}
    return replace(batch, views=views, targets=mixed(targets))
