"""The optimiser and the learning rate of each epoch."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class Schedule:
    """The optimiser's settings and a learning rate for each epoch. The defaults are the paper's.

    For another schedule, add its settings here and to ``ScheduleSettings`` of the recipe, and change ``rate``.
    """

    epochs: int = 200
    lr: float = 0.1
    kind: Literal["multistep", "cosine"] = "multistep"
    milestones: tuple[int, ...] = (100, 150)  # multistep: after each of these epochs ...
    factor: float = 0.1  # ... the rate is multiplied by this
    warmup_epochs: int = 0  # in which the rate rises linearly to that of the schedule
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9  # adamw: the first beta
    beta2: float = 0.999  # adamw only
    nesterov: bool = False  # sgd only
    weight_decay: float = 1e-4
    decay_all: bool = True  # False: no decay of vectors (biases, BatchNorm, LayerNorm), as usual for transformers

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        if epoch < self.warmup_epochs:
            return self.lr * (epoch + 1) / (self.warmup_epochs + 1)
        if self.kind == "cosine":
            done = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        return self.lr * self.factor ** sum(epoch >= milestone for milestone in self.milestones)

    def make_optimizer(self, model: nn.Module, device: torch.device) -> torch.optim.Optimizer:
        """Return the optimiser of all parameters of a network on ``device``."""
        parameters = list(model.parameters())
        groups = [{"params": parameters}]
        if not self.decay_all:
            vectors = [parameter for parameter in parameters if parameter.dim() < 2]
            groups = [
                {"params": [parameter for parameter in parameters if parameter.dim() >= 2]},
                {"params": vectors, "weight_decay": 0.0},
            ]
        # On a CPU, fused rounds differently and is not faster.
        shared = {"lr": self.lr, "weight_decay": self.weight_decay, "fused": device.type == "cuda"}
        if self.optimizer == "adamw":
            return torch.optim.AdamW(groups, betas=(self.momentum, self.beta2), **shared)
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov, **shared)
