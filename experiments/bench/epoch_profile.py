"""The part ``profile``: the time of an epoch by phase, and of its steps by operator."""

import os
from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd.profiler_util import DeviceType
from torch.profiler import ProfilerActivity, profile

from cskd.batch import Batch
from cskd.data.loader import TrainLoader
from cskd.train.step import Step
from cskd.train.trainer import Trainer
from experiments.bench.device import now
from experiments.bench.images import prepared_images
from experiments.bench.results import COMPARED, Cell, Options, Row, Shown, write_text
from experiments.bench.timing import TimedTrainer

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no messages about the profiler's start or a missing GPU

PHASES = ("input", "forward", "partner pass", "backward", "optimiser", "other", "evaluation")
STEPS = 5  # recorded by the profiler, after one uncounted step
OPERATORS = 20  # in the listing
TABLE = (Shown("seconds", "seconds", 3), Shown("%", "share", 1, scale=100))


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    images = prepared_images(cell)
    phase_rows, operator_rows = [], []
    for method in COMPARED:
        options.status(method)
        timed = TimedTrainer(cell, method, images, uncounted=1, counted=STEPS)
        phases, row = _second_epoch(timed), timed.measurement.row
        total = sum(phases.values())
        phase_rows += [
            row({"phase": phase, "seconds": f"{seconds:.4f}", "share": f"{seconds / total:.4f}"})
            for phase, seconds in phases.items()
        ]
        listing, operators = _operators(timed)
        write_text(f"profile-{cell.dataset}-{cell.architecture}-{method}.txt", listing, options.console)
        operator_rows += [
            row({"operator": operator, "seconds": f"{seconds:.6f}", "share": f"{share:.4f}"})
            for operator, seconds, share in operators
        ]
    return {"profile": phase_rows, "operators": operator_rows}


class PhaseClock:
    """Seconds by phase. Entering a phase ends the previous one, after the device has finished its work."""

    def __init__(self, device: torch.device):
        self.device, self.seconds = device, defaultdict(float)
        self._phase, self._entered = "other", now(device)

    def enter(self, phase: str) -> None:
        time = now(self.device)
        self.seconds[self._phase] += time - self._entered
        self._phase, self._entered = phase, time


class _ClockedLoader:
    def __init__(self, loader: TrainLoader, clock: PhaseClock):
        self.loader, self.clock = loader, clock

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int) -> Iterator[Batch]:
        self.clock.enter("input")
        for batch in self.loader.epoch(number):
            self.clock.enter("other")  # includes mixing
            yield batch
            self.clock.enter("input")
        self.clock.enter("other")


class _ClockedStep:
    def __init__(self, step: Step, clock: PhaseClock):
        self.step, self.clock, self.terms = step, clock, step.terms

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor]:
        self.clock.enter("forward")
        result = self.step(batch)
        self.clock.enter("backward")  # until the optimizer's step
        return result


def epoch_by_phase(trainer: Trainer, number: int, *, compiled: bool) -> dict[str, float]:
    """Return the seconds of each phase of an epoch with its evaluation.

    In a compiled step the partner's pass is part of the forward pass.
    """
    clock = PhaseClock(trainer.device)
    steps = trainer.steps
    loader, step, captured = steps.loader, steps.step, steps.captured
    hooks = [
        trainer.optimizer.register_step_pre_hook(lambda *_: clock.enter("optimiser")),
        trainer.optimizer.register_step_post_hook(lambda *_: clock.enter("other")),
    ]
    if not compiled:
        # Only passes without gradient call the model itself; the others call its parts.
        hooks += [
            trainer.model.register_forward_pre_hook(lambda *_: clock.enter("partner pass")),
            trainer.model.register_forward_hook(lambda *_: clock.enter("forward")),
        ]
    steps.loader, steps.step = _ClockedLoader(loader, clock), _ClockedStep(step, clock)
    steps.captured = None  # a graph has no phases
    try:
        trainer.train_epoch(number)
        clock.enter("evaluation")
        trainer.evaluate()
        clock.enter("other")
    finally:
        steps.loader, steps.step, steps.captured = loader, step, captured
        for hook in hooks:
            hook.remove()
    return {phase: clock.seconds[phase] for phase in PHASES}


def _second_epoch(timed: TimedTrainer) -> dict[str, float]:
    """Return the seconds of an epoch by phase, after a warm-up of some steps and an evaluation."""
    timed.turn(0)
    timed.trainer.evaluate()
    timed.trainer.steps.loader = timed.loader
    phases = epoch_by_phase(timed.trainer, 1, compiled=timed.measurement.compiled)
    timed.trainer.steps.loader = timed.stopwatch
    timed.measurement.seconds.append(sum(phases.values()))
    return phases


def _operators(timed: TimedTrainer) -> tuple[str, list[tuple[str, float, float]]]:
    """Return a profile of some steps: the listing, and (operator, seconds per step, share) of the slowest operators.

    The time of an operator excludes the operators that it calls. On a GPU, only kernels are returned: the time of a CPU
    operator would include the kernels that it starts.
    """
    on_gpu = timed.device.type == "cuda"
    attribute = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    steps = min(1 + STEPS, len(timed.loader))
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        timed.turn(2)
    events = profiler.key_averages()
    trained = timed.measurement
    heading = f"{trained.cell.dataset}, {trained.cell.architecture}, {trained.method}, {steps} steps"
    listing = f"{heading}\n{events.table(sort_by=attribute, row_limit=OPERATORS, max_name_column_width=60)}"
    device, microseconds = DeviceType.CUDA if on_gpu else DeviceType.CPU, attrgetter(attribute)
    events = [event for event in events if event.device_type == device and not event.is_user_annotation]
    total = sum(map(microseconds, events))
    slowest = sorted(events, key=microseconds, reverse=True)[:OPERATORS]
    return listing, [(event.key, microseconds(event) / 1e6 / steps, microseconds(event) / total) for event in slowest]
