"""The part ``profile``: the time of an epoch by phase, and of its steps by operator."""

import os
from collections import defaultdict
from collections.abc import Iterator
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd.profiler_util import DeviceType, EventList
from torch.profiler import ProfilerActivity

from cskd.data.loader import Batch, TrainLoader
from cskd.evaluate.metrics import evaluate_predictions
from cskd.train.step import Step
from cskd.train.trainer import Trainer
from experiments.bench.images import prepared_images
from experiments.bench.results import COMPARED, Cell, Options, Row, Shown, write_text
from experiments.bench.timing import TimedTrainer, now

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no messages about the profiler's start or a missing GPU

PHASES = ("input", "forward", "partner pass", "backward", "optimiser", "other", "evaluation")
STEPS = 5  # recorded by the profiler, after one more
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
        events = _record_operators(timed)
        name = f"profile-{cell.dataset}-{cell.architecture}-{method}.txt"
        write_text(name, _listing(timed, events), options.console)
        operator_rows += [
            row({"operator": operator, "seconds": f"{seconds:.6f}", "share": f"{share:.4f}"})
            for operator, seconds, share in _slowest_operators(timed, events)
        ]
    return {"profile": phase_rows, "operators": operator_rows}


class PhaseClock:
    """Seconds by phase. Entering a phase ends the one before, after the device has finished its work."""

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
    loader, step = trainer.loader, trainer.step
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
    trainer.loader, trainer.step = _ClockedLoader(loader, clock), _ClockedStep(step, clock)
    try:
        trainer.train_epoch(number)
        clock.enter("evaluation")
        predictions = trainer.predict()
        evaluate_predictions(predictions.logits, predictions.labels, domains=trainer.domains)
        clock.enter("other")
    finally:
        trainer.loader, trainer.step = loader, step
        for hook in hooks:
            hook.remove()
    return {phase: clock.seconds[phase] for phase in PHASES}


def _second_epoch(timed: TimedTrainer) -> dict[str, float]:
    """Return the seconds by phase, after some steps and an evaluation for allocations and caches."""
    timed.turn(0)
    timed.trainer.predict()
    timed.trainer.loader = timed.loader
    phases = epoch_by_phase(timed.trainer, 1, compiled=timed.measurement.compiled)
    timed.trainer.loader = timed.stopwatch
    timed.measurement.seconds.append(sum(phases.values()))
    return phases


def _record_operators(timed: TimedTrainer) -> EventList:
    """Return the operators of some steps, each without the operators that it calls."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if _on_gpu(timed) else [])]
    with torch.profiler.profile(activities=activities) as profiler:
        timed.turn(2)
    return profiler.key_averages()


def _listing(timed: TimedTrainer, events: EventList) -> str:
    """Return the profiler's table of the slowest operators."""
    table = events.table(sort_by=_time_attribute(timed), row_limit=OPERATORS, max_name_column_width=60)
    trained = timed.measurement
    return f"{trained.dataset}, {trained.architecture}, {trained.method}, {_recorded_steps(timed)} steps\n{table}"


def _slowest_operators(timed: TimedTrainer, events: EventList) -> list[tuple[str, float, float]]:
    """Return (operator, seconds per step, share of all operators) of the slowest ones; on a GPU, of its kernels.

    With a GPU, operators of the CPU are left out: they include the time of the kernels that they start.
    """
    device = DeviceType.CUDA if _on_gpu(timed) else DeviceType.CPU
    microseconds = attrgetter(_time_attribute(timed))
    events = [event for event in events if event.device_type == device and not event.is_user_annotation]
    total = sum(map(microseconds, events))
    slowest = sorted(events, key=microseconds, reverse=True)[:OPERATORS]
    steps = _recorded_steps(timed)
    return [(event.key, microseconds(event) / 1e6 / steps, microseconds(event) / total) for event in slowest]


def _time_attribute(timed: TimedTrainer) -> str:
    return "self_device_time_total" if _on_gpu(timed) else "self_cpu_time_total"


def _recorded_steps(timed: TimedTrainer) -> int:
    return min(1 + STEPS, len(timed.loader))


def _on_gpu(timed: TimedTrainer) -> bool:
    return timed.device.type == "cuda"
