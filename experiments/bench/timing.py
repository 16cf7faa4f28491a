"""Timed steps of a recipe's trainer, in turns, and their comparison with a reference."""

import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import torch

from cskd.data.store import Dataset
from cskd.train.precision import resolve
from experiments.bench.results import Cell, Measurement, Options, Row, Shown, ratio_columns
from experiments.bench.timed_steps import TimedSteps
from experiments.config.make_spec import make_spec
from experiments.config.splits import make_splits
from experiments.launch.build import build_on, compile_step, should_compile
from experiments.launch.estimate import check_memory
from experiments.launch.network import initialised_model
from experiments.runs.environment import choose_device, use_repeatable_kernels

MAX_COMPILED = 1000  # trainers in this process; torch's own limit is 8


class TimedTrainer(TimedSteps):
    """Times the steps of a recipe's trainer, compiled if a run would compile. A teacher keeps its initial weights."""

    def __init__(self, cell: Cell, method: str, images: Dataset, *, uncounted: int, counted: int):
        settings, device = cell.settings, choose_device()
        precision = resolve(settings.precision, device)
        use_repeatable_kernels(precision, device)
        spec = make_spec(cell.dataset, images, cell.profile, settings, cell.architecture, method, seed=0)
        classes = make_splits(spec, images).classes
        check_memory(spec, len(classes), settings.batch_size, device)
        teacher = initialised_model(spec.teacher, len(classes)) if spec.teacher else None
        trainer = build_on(spec, images, device, precision, teacher=teacher)
        compiled = should_compile(settings, device)
        if compiled:
            torch.compiler.config.recompile_limit = MAX_COMPILED
            if problem := compile_step(trainer, settings):
                print(f"{problem}: {method} is measured without it", file=sys.stderr)
                compiled = False
        super().__init__(trainer, uncounted=uncounted, counted=counted)
        self.measurement = Measurement(cell, method, precision, compiled)


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
