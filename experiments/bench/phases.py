"""An epoch of a trainer, taken apart: how long it is in each of its phases."""

from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor

from cskd.data.loader import Batch, TrainLoader
from cskd.evaluate.metrics import evaluate_predictions
from cskd.train.step import Step
from cskd.train.trainer import Trainer
from experiments.bench.timing import now

PHASES = ("input", "forward", "partner pass", "backward", "optimiser", "other", "evaluation")


class Phases:
    """Seconds by phase. Entering one ends the one before, when the device has done what it was given."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, defaultdict(float)
        self._name, self._entered = "other", now(device)

    def enter(self, name: str) -> None:
        here = now(self.device)
        self.seconds[self._name] += here - self._entered
        self._name, self._entered = name, here


def epoch_by_phase(trainer: Trainer, number: int, *, compiled: bool) -> dict[str, float]:
    """Seconds of an epoch with its evaluation by phase. compiled: the partner's pass is a part of the forward pass."""
    phases = Phases(trainer.device)
    loader, step = trainer.loader, trainer.step
    hooks = [
        trainer.optimizer.register_step_pre_hook(lambda *_: phases.enter("optimiser")),
        trainer.optimizer.register_step_post_hook(lambda *_: phases.enter("other")),
    ]
    if not compiled:
        # Only passes without gradient call the network as a whole; the others go through its parts.
        hooks += [
            trainer.model.register_forward_pre_hook(lambda *_: phases.enter("partner pass")),
            trainer.model.register_forward_hook(lambda *_: phases.enter("forward")),
        ]
    trainer.loader, trainer.step = _Loader(loader, phases), _Step(step, phases)
    try:
        trainer.train_epoch(number)
        phases.enter("evaluation")
        predictions = trainer.predict()
        evaluate_predictions(predictions.logits, predictions.labels, domains=trainer.domains)
        phases.enter("other")
    finally:
        trainer.loader, trainer.step = loader, step
        for hook in hooks:
            hook.remove()
    return {name: phases.seconds[name] for name in PHASES}


class _Loader:
    def __init__(self, loader: TrainLoader, phases: Phases):
        self.loader, self.phases = loader, phases

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        self.phases.enter("input")
        for batch in self.loader.epoch(number):
            self.phases.enter("other")  # mixing, among it
            yield batch
            self.phases.enter("input")
        self.phases.enter("other")


class _Step:
    def __init__(self, step: Step, phases: Phases):
        self.step, self.phases = step, phases
        self.terms = step.terms

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.phases.enter("forward")
        result = self.step(batch)
        self.phases.enter("backward")  # until the optimiser's step
        return result
