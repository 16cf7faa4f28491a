"""A step of ours as a run makes it, timed without what happens once an epoch, such as starting workers."""

import time
from collections.abc import Iterator
from itertools import islice

import torch

from cskd.data.loader import Batch, TrainLoader
from cskd.data.store import Dataset
from cskd.precision import resolve
from experiments.assemble import assemble
from experiments.bench.tables import Measured
from experiments.environment import choose_device, use_repeatable_kernels
from experiments.memory import refuse_too_large
from experiments.recipe import Settings
from experiments.spec import make_spec
from experiments.worker import compile_step, wants_compiling


class Ours:
    """A trainer on made-up images, whose turns take ``uncounted`` steps and then ``counted`` ones."""

    def __init__(
        self,
        dataset: Dataset,
        profile: str,
        settings: Settings,
        architecture: str,
        method: str,
        *,
        uncounted: int,
        counted: int,
    ):
        device = choose_device()
        self.precision = resolve(settings.precision, device)
        use_repeatable_kernels(self.precision)
        own = settings.model_copy(update={"subset": None})
        spec = make_spec(dataset.name, dataset, profile, own, architecture, method, seed=0)
        refuse_too_large(spec, len(dataset.classes), settings.batch_size, device)
        self.trainer = assemble(spec, dataset, device, self.precision)
        if wants_compiling(settings, device):
            compile_step(self.trainer, required=settings.compile is True)
        self.watch = self.trainer.loader = Stopwatch(self.trainer.loader, uncounted, counted, device)
        self.measured = Measured(dataset.name, profile, architecture, method, settings.batch_size, self.precision)

    def turn(self, number: int) -> float:
        """Seconds of a step."""
        use_repeatable_kernels(self.precision)  # of the process: another's turn may have left others
        self.trainer.train_epoch(number)
        return self.watch.seconds


class Stopwatch:
    """A loader whose epochs end early: after the ``counted`` batches that follow the ``uncounted`` ones.

    The clock runs from asking for the first counted batch to the end of the last one's step.
    """

    def __init__(self, loader: TrainLoader, uncounted: int, counted: int, device: torch.device):
        self.loader, self.uncounted, self.counted, self.device = loader, uncounted, counted, device
        self.seconds = 0.0  # of a step

    def __len__(self) -> int:
        return self.uncounted + self.counted

    def epoch(self, number: int) -> Iterator[Batch]:
        batches = self.loader.epoch(number)
        yield from islice(batches, self.uncounted)
        started = self._now()
        yield from islice(batches, self.counted)
        self.seconds = (self._now() - started) / self.counted

    def _now(self) -> float:
        """The time, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
