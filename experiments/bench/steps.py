"""The part ``steps``: a step of each method against cross-entropy and the device's speed, and the share of input."""

from dataclasses import dataclass, field

import numpy as np

from experiments.bench.images import noise_images
from experiments.bench.results import BASELINE, Cell, Measurement, Options, Row, Shown, ratio_columns, ratios
from experiments.bench.timing import TimedTrainer, matmul_rate

TABLE = (
    Shown("ms per step", "seconds_per_step", 1, scale=1000),
    Shown("images/s", "images_per_second", 0),
    Shown("x cross-entropy", "ratio"),
    Shown("from", "ratio_min"),
    Shown("to", "ratio_max"),
    Shown("% of matmul", "matmul_share", 1, scale=100),
    Shown("% input", "input_share", 1, scale=100),
)


@dataclass
class Step:
    """A method's step, with further values of each counted turn."""

    trainer: TimedTrainer
    flops: int  # per step
    rates: list[float] = field(default_factory=list)  # of matrix products, in operations per second
    inputs: list[float] = field(default_factory=list)  # seconds of input per step

    @property
    def measurement(self) -> Measurement:
        return self.trainer.measurement

    def row(self, baseline: Measurement) -> Row:
        seconds, median = self.measurement.seconds, self.measurement.median
        matmul_share = ratios([self.flops / value for value in seconds], self.rates)[0]
        return self.measurement.row(
            {
                "seconds_per_step": f"{median:.6f}",
                "images_per_second": f"{self.measurement.cell.settings.batch_size / median:.2f}",
                **ratio_columns(seconds, baseline.seconds),
                "flops_per_step": self.flops,
                "matmul_flops_per_second": f"{np.median(self.rates):.4g}",
                "matmul_share": f"{matmul_share:.4f}",
                "input_share": f"{ratios(self.inputs, seconds)[0]:.4f}",
            }
        )


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    # The loader prefetches one batch, so one step is not counted: then each counted step includes loading a batch.
    images = noise_images(cell, 1 + options.steps + 1)
    steps = []
    for method in [BASELINE, *options.methods]:
        trainer = TimedTrainer(cell, method, images, uncounted=1, counted=options.steps)
        steps.append(Step(trainer, trainer.count_flops()))
    for turn in range(1 + options.turns):
        for step in steps:
            trainer = step.trainer
            options.status(f"turn {turn} of {options.turns}: {trainer.measurement.method}")
            rate = matmul_rate(trainer.device, trainer.precision)
            seconds, input_seconds = trainer.turn(turn), trainer.input_turn(turn)
            if turn:  # the first one is slow: allocations and caches
                step.rates.append(rate)
                step.measurement.seconds.append(seconds)
                step.inputs.append(input_seconds)
    rows = [step.row(steps[0].measurement) for step in steps]
    return {"steps": rows}
