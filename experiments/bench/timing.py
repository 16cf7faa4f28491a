"""Timed training steps, their comparison with a reference, and the device's speed of matrix multiplication."""

import logging
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice, repeat
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from cskd.batch import Batch
from cskd.data.loader import TrainLoader
from cskd.data.store import Dataset
from cskd.train.precision import resolve
from cskd.train.steps import CapturedSteps
from cskd.utils.seeding import generator
from experiments.bench.results import Cell, Measurement, Options, Row, Shown, ratio_columns
from experiments.config.make_spec import make_spec
from experiments.config.splits import make_splits
from experiments.launch.build import build_on, compile_step, should_compile
from experiments.launch.estimate import check_memory
from experiments.launch.network import initialised_model
from experiments.runs.environment import choose_device, use_repeatable_kernels

MAX_COMPILED = 1000  # trainers in this process; torch's own limit is 8


def now(device: torch.device) -> float:
    """Return the time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class TimedTrainer:
    """Trains ``uncounted`` steps and then ``counted`` timed steps in each turn. A teacher keeps its initial weights."""

    def __init__(self, cell: Cell, method: str, images: Dataset, *, uncounted: int, counted: int):
        settings = cell.settings
        self.device = choose_device()
        self.precision = resolve(settings.precision, self.device)
        use_repeatable_kernels(self.precision)
        spec = make_spec(cell.dataset, images, cell.profile, settings, cell.architecture, method, seed=0)
        classes = make_splits(spec, images).classes
        check_memory(spec, len(classes), settings.batch_size, self.device)
        teacher = initialised_model(spec.teacher, len(classes)) if spec.teacher else None
        self.trainer = build_on(spec, images, self.device, self.precision, teacher=teacher)
        self.loader = self.trainer.loader
        compiled = should_compile(settings, self.device)
        if compiled:
            torch.compiler.config.recompile_limit = MAX_COMPILED
            if problem := compile_step(self.trainer, settings):
                print(f"{problem}: {method} is measured without it", file=sys.stderr)
                compiled = False
        self.stopwatch = self.trainer.steps.loader = Stopwatch(self.loader, uncounted, counted, self.device)
        self.measurement = Measurement(cell, method, self.precision, compiled)

    def turn(self, number: int) -> float:
        """Train one turn and return the seconds per step."""
        use_repeatable_kernels(self.precision)  # global settings, which another trainer's turn may have changed
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


@dataclass
class Turns:
    """The counted turns of a method. Each has a turn of the trainer, and then each of ``others`` once.

    others: name -> function that gets the turn's number and returns a value. values: of the counted turns, by name.
    """

    trainer: TimedTrainer
    others: dict[str, Callable[[int], float]]
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def measurement(self) -> Measurement:
        return self.trainer.measurement


def take_turns(methods: list[Turns], options: Options) -> None:
    """Run one uncounted turn of each method, then the counted turns. Only one thing is measured at a time."""
    for turn in range(1 + options.turns):
        for method in methods:
            options.status(f"turn {turn} of {options.turns}: {method.measurement.method}")
            seconds = method.trainer.turn(turn)
            values = {name: measure(turn) for name, measure in method.others.items()}
            if turn:  # the first one is slow: allocations and caches
                method.measurement.seconds.append(seconds)
                for name, value in values.items():
                    method.values[name].append(value)


def comparison_row(method: Turns, reference: str) -> Row:
    """Return the CSV row of a method and a reference, which is one of its ``others``.

    The ratio is the reference's seconds to this suite's.
    """
    seconds = method.values[reference]
    values = {
        "seconds_per_step": f"{method.measurement.median:.6f}",
        f"seconds_per_step_{reference}": f"{median(seconds):.6f}",
        **ratio_columns(seconds, method.measurement.seconds),
    }
    return method.measurement.row(values)


def comparison_columns(reference: str, title: str) -> tuple[Shown, ...]:
    """Return the printed columns of ``comparison_row``."""
    return (
        Shown("ms per step, this suite", "seconds_per_step", 1, scale=1000),
        Shown(title, f"seconds_per_step_{reference}", 1, scale=1000),
        Shown("x this suite", "ratio"),
        Shown("from", "ratio_min"),
        Shown("to", "ratio_max"),
    )


def matmul_rate(device: torch.device, precision: str) -> float:
    """Return the floating-point operations per second of large square matrix products in a step's precision."""
    # With a CUDA compiler and no GPU, this import logs a warning that does not concern the user.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils import benchmark  # noqa: PLC0415

    size, products = (8192, 20) if device.type == "cuda" else (2048, 2)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    timer = benchmark.Timer(
        "torch.mm(left, right, out=out)",
        globals={"torch": torch, "left": left, "right": right, "out": torch.empty_like(left)},
        num_threads=torch.get_num_threads(),
    )
    return 2 * size**3 / timer.timeit(products).mean
