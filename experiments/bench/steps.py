"""The part ``steps``: a step of each method against cross-entropy and the device's speed, and the share of input."""

from statistics import median

from experiments.bench.images import noise_images
from experiments.bench.results import BASELINE, Cell, Options, Row, Shown, ratio_columns, ratios
from experiments.bench.timing import TimedTrainer, Turns, take_turns

TABLE = (
    Shown("ms per step", "seconds_per_step", 1, scale=1000),
    Shown("images/s", "images_per_second", 0),
    Shown("x cross-entropy", "ratio"),
    Shown("from", "ratio_min"),
    Shown("to", "ratio_max"),
    Shown("% of matmul", "matmul_share", 1, scale=100),
    Shown("% input", "input_share", 1, scale=100),
)


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    # The loader prefetches one batch, so one step is not counted: then each counted step includes loading a batch.
    images = noise_images(cell, 1 + options.steps + 1)
    methods, flops = [], []
    for name in [BASELINE, *options.methods]:
        trainer = TimedTrainer(cell, name, images, uncounted=1, counted=options.steps)
        flops.append(trainer.count_flops())
        methods.append(Turns(trainer, {"input": trainer.input_turn, "matmul": trainer.matmul_turn}))
    take_turns(methods, options)
    return {"steps": [_row(method, methods[0], number) for method, number in zip(methods, flops, strict=True)]}


def _row(method: Turns, baseline: Turns, flops: int) -> Row:
    """Return the CSV row. flops: floating-point operations of a step. Input and matrix products are its ``others``."""
    seconds, rates = method.measurement.seconds, method.values["matmul"]
    return method.measurement.row(
        {
            "seconds_per_step": f"{method.measurement.median:.6f}",
            "images_per_second": f"{method.measurement.cell.settings.batch_size / method.measurement.median:.2f}",
            **ratio_columns(seconds, baseline.measurement.seconds),
            "flops_per_step": flops,
            "matmul_flops_per_second": f"{median(rates):.4g}",
            "matmul_share": f"{ratios([flops / value for value in seconds], rates)[0]:.4f}",
            "input_share": f"{ratios(method.values['input'], seconds)[0]:.4f}",
        }
    )
