"""Timed training steps of a trainer. Needs only torch, NumPy and cskd."""

from collections.abc import Iterator
from itertools import islice, repeat

import torch
from torch.utils.flop_counter import FlopCounterMode

from cskd.batch import Batch
from cskd.data.loader import TrainLoader
from cskd.train.steps import CapturedSteps
from cskd.train.trainer import Trainer
from cskd.utils.seeding import generator
from experiments.bench.device import matmul_rate, now
from experiments.runs.environment import use_repeatable_kernels


class TimedSteps:
    """Trains ``uncounted`` steps and then ``counted`` timed steps in each turn."""

    def __init__(self, trainer: Trainer, *, uncounted: int, counted: int):
        self.trainer, self.device, self.precision = trainer, trainer.device, trainer.precision
        self.loader = trainer.loader
        self.stopwatch = trainer.steps.loader = Stopwatch(self.loader, uncounted, counted, self.device)

    def turn(self, number: int) -> float:
        """Train one turn and return the seconds per step."""
        use_repeatable_kernels(
            self.precision, self.device
        )  # global settings, which another trainer's turn may have changed
        if captured := self.trainer.steps.captured:
            return self._replays(captured, number)
        self.trainer.train_epoch(number)
        return self.stopwatch.seconds

    def _replays(self, captured: CapturedSteps, number: int) -> float:
        """Return the seconds per replay of the captured graph."""
        captured.start_epoch(self.loader.draw(number))
        for _ in range(self.stopwatch.uncounted):
            captured.replay()
        started = now(self.device)
        for _ in range(self.stopwatch.counted):
            captured.replay()
        self.stopwatch.seconds = (now(self.device) - started) / self.stopwatch.counted
        return self.stopwatch.seconds

    def input_turn(self, number: int) -> float:
        """Return the seconds that input adds to a step of the previous turn.

        On a GPU, input overlaps with the previous step: the result is the difference from a step on a repeated batch.
        On a CPU, that difference is smaller than the noise, and a captured graph has no step on a repeated batch: the
        result is the time to make a batch without training.
        """
        if self.device.type == "cuda" and not self.trainer.steps.captured:
            return self.stopwatch.seconds - self.repeated_batch(number)
        return self.input_alone(number)

    def repeated_batch(self, number: int) -> float:
        """Return the seconds per step if every step uses the same batch."""
        batch = RepeatBatch(next(self.loader.epoch(number)))
        stopwatch = Stopwatch(batch, self.stopwatch.uncounted, self.stopwatch.counted, self.device)
        self.trainer.steps.loader = stopwatch
        try:
            self.trainer.train_epoch(number)
        finally:
            self.trainer.steps.loader = self.stopwatch
        return stopwatch.seconds

    def input_alone(self, number: int) -> float:
        """Return the seconds to make a batch without training."""
        started = now(self.device)
        for _ in self.loader.epoch(number):
            pass
        return (now(self.device) - started) / len(self.loader)

    def matmul_turn(self, number: int) -> float:
        """Return the floating-point operations per second of matrix products in the precision of the steps."""
        return matmul_rate(self.device, self.precision)

    def count_flops(self) -> int:
        """Return the floating-point operations of a step's convolutions and matrix products, forward and backward.

        A multiply-add counts as two. The step is not compiled: the counter does not see compiled code.
        """
        self.trainer.model.train()
        batch = self.trainer.method.transform(next(self.loader.epoch(0)), generator(0, "flops"))
        with FlopCounterMode(display=False) as counter:
            loss, _ = self.trainer.step.eager(batch)
            loss.backward()
        self.trainer.model.zero_grad(set_to_none=True)
        return counter.get_total_flops()


class RepeatBatch:
    """A loader that repeats one batch without end."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def epoch(self, number: int) -> Iterator[Batch]:
        return repeat(self.batch)


class Stopwatch:
    """A loader whose epochs end after ``uncounted`` and ``counted`` batches.

    ``seconds``, per step, is measured from the request for the first counted batch to the end of the last step.
    """

    def __init__(self, loader: TrainLoader | RepeatBatch, uncounted: int, counted: int, device: torch.device):
        self.loader, self.uncounted, self.counted, self.device = loader, uncounted, counted, device
        self.seconds = 0.0

    def __len__(self) -> int:
        return self.uncounted + self.counted

    def epoch(self, number: int) -> Iterator[Batch]:
        batches = self.loader.epoch(number)
        yield from islice(batches, self.uncounted)
        started = now(self.device)
        yield from islice(batches, self.counted)
        self.seconds = (now(self.device) - started) / self.counted
