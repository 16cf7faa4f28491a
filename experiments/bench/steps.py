"""A step of each method against cross-entropy's, and against what the device can do; what of it is input."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from experiments.bench.arithmetic import MatrixProduct, flops_of
from experiments.bench.files import write_rows
from experiments.bench.images import made_up
from experiments.bench.ours import TimedTrainer
from experiments.bench.tables import BASELINE, Cell, Measured, about, numbers_table, ratios


@dataclass
class Row:
    """A method's step, and what was measured beside it in each of its counted turns."""

    ours: TimedTrainer
    flops: int  # of a step
    rates: list[float] = field(default_factory=list)  # of the device's matrix product, in operations a second
    inputs: list[float] = field(default_factory=list)  # seconds that input takes of a step

    @property
    def measured(self) -> Measured:
        return self.ours.measured

    def matmul_share(self) -> list[float]:
        """Median, least and most of the step's rate to that of the matrix product."""
        return ratios([self.flops / seconds for seconds in self.measured.seconds], self.rates)

    def input_share(self) -> list[float]:
        """Median, least and most."""
        return ratios(self.inputs, self.measured.seconds)


def measure(
    cells: list[Cell], methods: list[str], turns: int, steps: int, console: Console, progress: Progress
) -> None:
    results = []
    task = progress.add_task("steps", total=len(cells) * (1 + turns))
    for cell in cells:
        rows = _rows(cell, methods, steps)
        product = MatrixProduct(rows[0].ours.device, rows[0].ours.precision)
        for turn in range(1 + turns):
            for row in rows:
                rate, seconds, of_input = product.turn(), row.ours.turn(turn), row.ours.input_turn(turn)
                if turn:  # the first one is for allocations and caches
                    row.rates.append(rate)
                    row.measured.seconds.append(seconds)
                    row.inputs.append(of_input)
            progress.advance(task)
        console.print(_table(rows))
        results += [_result(row, rows[0]) for row in rows]
    write_rows("steps", results, console)


def _rows(cell: Cell, methods: list[str], steps: int) -> list[Row]:
    """A row for each method, cross-entropy's first, on made-up images of the recipe's kind."""
    name, profile, settings, architecture = cell
    # One step is not counted, and one more batch is made ahead than is used: each counted step makes a batch.
    dataset = made_up(name, settings, 1 + steps + 1)
    rows = []
    for method in [BASELINE, *methods]:
        ours = TimedTrainer(dataset, profile, settings, architecture, method, uncounted=1, counted=steps)
        rows.append(Row(ours, flops_of(ours.trainer)))
    return rows


def _table(rows: list[Row]) -> Table:
    baseline = rows[0].measured
    headings = ("ms a step", "images/s", "x cross-entropy", "from", "to", "% of matmul", "% input")
    table = numbers_table(baseline, headings)
    for row in rows:
        measured = row.measured
        milliseconds = 1000 * measured.median
        table.add_row(
            measured.method,
            f"{milliseconds:.3g}" if milliseconds < 100 else f"{milliseconds:.0f}",
            f"{measured.batch_size / measured.median:.0f}",
            *(f"{ratio:.2f}" for ratio in ratios(measured.seconds, baseline.seconds)),
            f"{100 * row.matmul_share()[0]:.1f}",
            f"{100 * row.input_share()[0]:.1f}",
        )
    return table


def _result(row: Row, baseline: Row) -> dict[str, Any]:
    measured = row.measured
    median, least, most = ratios(measured.seconds, baseline.measured.seconds)
    return {
        **measured.cell(),
        "seconds_per_step": f"{measured.median:.6f}",
        "images_per_second": f"{measured.batch_size / measured.median:.2f}",
        "ratio": f"{median:.4f}",
        "ratio_min": f"{least:.4f}",
        "ratio_max": f"{most:.4f}",
        "flops_per_step": row.flops,
        "matmul_flops_per_second": f"{np.median(row.rates):.4g}",
        "matmul_share": f"{row.matmul_share()[0]:.4f}",
        "input_share": f"{row.input_share()[0]:.4f}",
        **about(measured),
    }
