"""A step of ours as a run makes it, timed without what happens once an epoch, such as starting workers."""

from collections.abc import Iterator
from itertools import islice, repeat

import torch

from cskd.data.loader import Batch, TrainLoader
from cskd.data.store import Dataset
from cskd.train.precision import resolve
from experiments.bench.tables import Measured
from experiments.bench.timing import now
from experiments.config.recipe import Settings
from experiments.config.spec import make_spec, make_splits
from experiments.launch.build import build_on, initialised_model
from experiments.launch.estimate import check_memory
from experiments.launch.worker import compile_step, should_compile
from experiments.runs.environment import choose_device, use_repeatable_kernels

TRAINERS = 1000  # that a process may compile: torch ends at 8, as if it were one whose shapes kept changing


class TimedTrainer:
    """A trainer, its teacher untrained, whose turns take ``uncounted`` steps and then ``counted`` ones."""

    def __init__(
        self,
        dataset: Dataset,
        profile: str,
        settings: Settings,
        architecture: str,
        method: str,
        *,
        seed: int = 0,
        uncounted: int,
        counted: int,
    ):
        self.device = choose_device()
        self.precision = resolve(settings.precision, self.device)
        use_repeatable_kernels(self.precision)
        spec = make_spec(dataset.name, dataset, profile, settings, architecture, method, seed)
        classes, _, _ = make_splits(spec, dataset)
        check_memory(spec, len(classes), settings.batch_size, self.device)
        teacher = initialised_model(spec.teacher, len(classes)) if spec.teacher else None
        self.trainer = build_on(spec, dataset, self.device, self.precision, teacher=teacher)
        self.loader = self.trainer.loader
        compiled = False
        if should_compile(settings, self.device):
            torch.compiler.config.recompile_limit = TRAINERS
            compiled = compile_step(self.trainer, required=settings.compile is True)
        self.watch = self.trainer.loader = Stopwatch(self.loader, uncounted, counted, self.device)
        self.measured = Measured(
            dataset.name, profile, architecture, method, settings.batch_size, self.precision, compiled
        )

    def turn(self, number: int) -> float:
        """Seconds of a step."""
        use_repeatable_kernels(self.precision)  # of the process: another's turn may have left others
        self.trainer.train_epoch(number)
        return self.watch.seconds

    def input_turn(self, number: int) -> float:
        """Seconds that input takes of a step of the turn that has just been made.

        A GPU makes a batch while the step before goes on: there it is what the step would be shorter by on a batch that
        is there. On a CPU that difference would be lost in the noise, and it is what making a batch takes alone.
        """
        return self.watch.seconds - self.same_batch(number) if self.device.type == "cuda" else self.input_alone(number)

    def same_batch(self, number: int) -> float:
        """Seconds of a step on one batch, again and again."""
        batch = next(self.loader.epoch(number))
        watch = Stopwatch(RepeatBatch(batch), self.watch.uncounted, self.watch.counted, self.device)
        self.trainer.loader = watch
        try:
            self.trainer.train_epoch(number)
        finally:
            self.trainer.loader = self.watch
        return watch.seconds

    def input_alone(self, number: int) -> float:
        """Seconds that making a batch takes when nothing else goes on."""
        started = now(self.device)
        for _ in self.loader.epoch(number):
            pass
        return (now(self.device) - started) / len(self.loader)


class RepeatBatch:
    """A loader of one batch, without end."""

    def __init__(self, batch: Batch):
        self.batch = batch

    def epoch(self, number: int) -> Iterator[Batch]:
        return repeat(self.batch)


class Stopwatch:
    """A loader whose epochs end early: after the ``counted`` batches that follow the ``uncounted`` ones.

    The clock runs from asking for the first counted batch to the end of the last one's step.
    """

    def __init__(self, loader: TrainLoader | RepeatBatch, uncounted: int, counted: int, device: torch.device):
        self.loader, self.uncounted, self.counted, self.device = loader, uncounted, counted, device
        self.seconds = 0.0  # of a step

    def __len__(self) -> int:
        return self.uncounted + self.counted

    def epoch(self, number: int) -> Iterator[Batch]:
        batches = self.loader.epoch(number)
        yield from islice(batches, self.uncounted)
        started = now(self.device)
        yield from islice(batches, self.counted)
        self.seconds = (now(self.device) - started) / self.counted
