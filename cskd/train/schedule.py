"""The optimiser's settings and the learning rate of each epoch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """SGD with a multi-step learning rate. The defaults are the paper's.

    For another schedule, add its settings here and to ``ScheduleSettings`` of the recipe, and change ``rate``.
    """

    epochs: int = 200
    lr: float = 0.1
    milestones: tuple[int, ...] = (100, 150)  # after each of these epochs ...
    factor: float = 0.1  # ... the rate is multiplied by this
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4  # on every parameter, including BatchNorm and biases

    def rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.lr * self.factor ** sum(epoch >= milestone for milestone in self.milestones)
