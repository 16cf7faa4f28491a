"""Where the time of an epoch goes: by phase, and by operator."""

import os

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch.profiler import ProfilerActivity

from experiments.bench.images import prepared
from experiments.bench.ours import Ours
from experiments.bench.pairs import METHODS
from experiments.bench.phases import PHASES, epoch_by_phase
from experiments.bench.tables import Cell, Measured, about, title, write_rows, write_text

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell of its own start, and of a missing GPU

STEPS = 5  # whose operators are recorded
OPERATORS = 20  # that are listed


def measure(cells: list[Cell], console: Console, progress: Progress) -> None:
    results = []
    task = progress.add_task("profile", total=len(cells) * len(METHODS))
    for name, profile, settings, architecture in cells:
        dataset = prepared(name, settings)
        columns = []
        for method in METHODS:
            ours = Ours(dataset, profile, settings, architecture, method, uncounted=1, counted=STEPS)
            seconds = _epoch(ours)
            columns.append((ours.measured, seconds))
            whole = sum(seconds.values())
            results += [
                {**ours.measured.cell(), "phase": phase, "seconds": f"{one:.4f}", "share": f"{one / whole:.4f}"}
                | about(ours.measured)
                for phase, one in seconds.items()
            ]
            write_text(f"profile-{name}-{architecture}-{method}.txt", _operators(ours), console)
            progress.advance(task)
        console.print(_table(columns))
    write_rows("profile", results, console)


def _epoch(ours: Ours) -> dict[str, float]:
    """Seconds by phase of the second epoch: some steps and an evaluation come before it, for allocations and caches."""
    ours.turn(0)
    ours.trainer.predict()
    watch, ours.trainer.loader = ours.trainer.loader, ours.loader
    seconds = epoch_by_phase(ours.trainer, 1, compiled=ours.measured.compiled)
    ours.trainer.loader = watch
    ours.measured.seconds.append(sum(seconds.values()))
    return seconds


def _operators(ours: Ours) -> str:
    """The operators that some steps spend most of their time in, not counting those that they call."""
    gpu = ours.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with torch.profiler.profile(activities=activities) as recorded:
        ours.turn(2)
    order = "self_device_time_total" if gpu else "self_cpu_time_total"
    listed = recorded.key_averages().table(sort_by=order, row_limit=OPERATORS, max_name_column_width=60)
    steps = min(1 + STEPS, len(ours.loader))
    return f"{title(ours.measured)}\n{ours.measured.method}, {steps} steps\n{listed}"


def _table(columns: list[tuple[Measured, dict[str, float]]]) -> Table:
    table = Table("phase of an epoch", title=title(columns[0][0]), title_justify="left")
    for measured, _ in columns:
        table.add_column(f"{measured.method}, s", justify="right")
        table.add_column("%", justify="right")
    for phase in PHASES:
        cells = [(seconds[phase], seconds[phase] / sum(seconds.values())) for _, seconds in columns]
        table.add_row(phase, *(text for one, share in cells for text in (f"{one:.3f}", f"{100 * share:.1f}")))
    return table
