"""The part ``pipelines``: a step of this suite against the same step with torchvision's data pipeline.

``Comparison`` is also used by the part ``reference``.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import median

import torch

from experiments.bench.images import noise_images
from experiments.bench.results import COMPARED, Cell, Options, Row, Shown, ratio_columns
from experiments.bench.timing import TimedTrainer

TORCHVISION = {"pipeline": "torchvision", "precision": "fp32", "compile": False}
BATCHES_PER_WORKER = 2  # batches that each DataLoader worker prefetches


def table_columns(name: str, title: str) -> tuple[Shown, ...]:
    """Return the columns of the printed table. name, title: the name and title of the reference."""
    return (
        Shown("ms per step, this suite", "seconds_per_step", 1, scale=1000),
        Shown(title, f"seconds_per_step_{name}", 1, scale=1000),
        Shown("x this suite", "ratio"),
        Shown("from", "ratio_min"),
        Shown("to", "ratio_max"),
    )


TABLE = table_columns("torchvision", "torchvision, fp32")


@dataclass
class Comparison:
    """A method's step and a reference's step. time_reference: like ``TimedTrainer.turn``."""

    trainer: TimedTrainer
    time_reference: Callable[[int], float]
    reference_seconds: list[float] = field(default_factory=list)

    def row(self, reference: str) -> Row:
        """Return the CSV row. The ratio is the reference's seconds to this suite's."""
        measurement = self.trainer.measurement
        return measurement.row(
            {
                "seconds_per_step": f"{measurement.median:.6f}",
                f"seconds_per_step_{reference}": f"{median(self.reference_seconds):.6f}",
                **ratio_columns(self.reference_seconds, measurement.seconds),
            }
        )


def take_turns(comparisons: list[Comparison], options: Options) -> None:
    """Run one uncounted turn of each side, then the counted turns. Only one side runs at a time."""
    for turn in range(1 + options.turns):
        options.status(f"turn {turn} of {options.turns}")
        for comparison in comparisons:
            seconds, reference_seconds = comparison.trainer.turn(turn), comparison.time_reference(turn)
            if turn:  # the first one is slow: allocations and caches
                comparison.trainer.measurement.seconds.append(seconds)
                comparison.reference_seconds.append(reference_seconds)


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    # Prefetched batches cost the counted steps nothing. Therefore as many steps are not counted, and as many further
    # batches exist, which the workers load during the counted steps.
    ahead = BATCHES_PER_WORKER * torch.get_num_threads()
    images = noise_images(cell, ahead + options.steps + ahead)
    torchvision_cell = replace(cell, settings=cell.settings.model_copy(update=TORCHVISION))
    comparisons = []
    for method in COMPARED:
        trainer = TimedTrainer(cell, method, images, uncounted=1, counted=options.steps)
        reference = TimedTrainer(torchvision_cell, method, images, uncounted=ahead, counted=options.steps)
        comparisons.append(Comparison(trainer, reference.turn))
    take_turns(comparisons, options)
    return {"pipelines": [comparison.row("torchvision") for comparison in comparisons]}
