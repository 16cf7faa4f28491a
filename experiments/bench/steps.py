"""A step of each method against cross-entropy's."""

import time
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cskd.precision import resolve
from cskd.training import Trainer
from experiments.assemble import assemble, initialised_model
from experiments.bench.images import CLASSES, made_up
from experiments.bench.tables import Measured, about, ratios, title, write_rows
from experiments.environment import choose_device, use_repeatable_kernels
from experiments.memory import refuse_too_large
from experiments.recipe import Settings
from experiments.spec import make_spec

BASELINE = "cross-entropy"
Cell = tuple[str, str, Settings, str]  # dataset, profile, settings, architecture


def measure(
    cells: list[Cell], methods: list[str], turns: int, steps: int, console: Console, progress: Progress
) -> None:
    results = []
    task = progress.add_task("steps", total=len(cells) * (1 + turns))
    for cell in cells:
        group = _group(*cell, methods, steps)
        for turn in range(1 + turns):
            for measured, trainer in group:
                seconds = _turn(trainer, turn) / len(trainer.loader)
                if turn:  # the first one is for allocations and caches
                    measured.seconds.append(seconds)
            progress.advance(task)
        rows = [measured for measured, _ in group]
        console.print(_table(rows))
        results += [_row(row, rows[0]) for row in rows]
    write_rows("steps", results, console)


def _group(
    name: str, profile: str, settings: Settings, architecture: str, methods: list[str], steps: int
) -> list[tuple[Measured, Trainer]]:
    """A trainer for each method, cross-entropy's first, on made-up images of the recipe's kind."""
    dataset = made_up(name, settings, steps)
    own = settings.model_copy(update={"subset": None})
    device = choose_device()
    precision = resolve(settings.precision, device)
    use_repeatable_kernels(precision)
    group = []
    for method in [BASELINE, *methods]:
        spec = make_spec(name, dataset, profile, own, architecture, method, seed=0)
        refuse_too_large(spec, CLASSES, settings.batch_size, device)
        teacher = initialised_model(spec.teacher, CLASSES) if spec.teacher else None
        trainer = assemble(spec, dataset, device, precision, teacher=teacher)
        group.append((Measured(name, profile, architecture, method, settings.batch_size, precision), trainer))
    return group


def _turn(trainer: Trainer, epoch: int) -> float:
    """Seconds of one epoch over the made-up images. Its metrics are read at the end, which waits for the device."""
    started = time.perf_counter()
    trainer.train_epoch(epoch)
    return time.perf_counter() - started


def _table(rows: list[Measured]) -> Table:
    table = Table("method", title=title(rows[0]), title_justify="left")
    for heading in ("ms a step", "images/s", "x cross-entropy", "from", "to"):
        table.add_column(heading, justify="right")
    for row in rows:
        numbers = [f"{1000 * row.median:.0f}", f"{row.batch_size / row.median:.0f}"]
        table.add_row(row.method, *numbers, *(f"{ratio:.2f}" for ratio in ratios(row.seconds, rows[0].seconds)))
    return table


def _row(row: Measured, baseline: Measured) -> dict[str, Any]:
    median, least, most = ratios(row.seconds, baseline.seconds)
    return {
        **row.cell(),
        "seconds_per_step": f"{row.median:.6f}",
        "images_per_second": f"{row.batch_size / row.median:.2f}",
        "ratio": f"{median:.4f}",
        "ratio_min": f"{least:.4f}",
        "ratio_max": f"{most:.4f}",
        **about(row.precision),
    }
