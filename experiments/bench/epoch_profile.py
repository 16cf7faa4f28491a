"""Where the time of an epoch goes: by phase, and by operator."""

import os
from operator import attrgetter

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch.autograd.profiler_util import DeviceType, EventList
from torch.profiler import ProfilerActivity

from experiments.bench.files import write_rows, write_text
from experiments.bench.images import prepared
from experiments.bench.ours import TimedTrainer
from experiments.bench.pairs import METHODS
from experiments.bench.phases import PHASES, epoch_by_phase
from experiments.bench.tables import Cell, Measured, about, numbers_table, title

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would tell of its own start, and of a missing GPU

STEPS = 5  # whose operators are recorded
OPERATORS = 20  # that are listed


def measure(cells: list[Cell], console: Console, progress: Progress) -> None:
    results, operators = [], []
    task = progress.add_task("profile", total=len(cells) * len(METHODS))
    for name, profile, settings, architecture in cells:
        dataset = prepared(name, settings)
        columns = []
        for method in METHODS:
            ours = TimedTrainer(dataset, profile, settings, architecture, method, uncounted=1, counted=STEPS)
            seconds = _epoch(ours)
            columns.append((ours.measured, seconds))
            whole = sum(seconds.values())
            results += [
                {**ours.measured.cell(), "phase": phase, "seconds": f"{one:.4f}", "share": f"{one / whole:.4f}"}
                | about(ours.measured)
                for phase, one in seconds.items()
            ]
            recorded = _recorded(ours)
            write_text(f"profile-{name}-{architecture}-{method}.txt", _listed(ours, recorded), console)
            operators += [
                {**ours.measured.cell(), "operator": operator, "seconds": f"{one:.6f}", "share": f"{share:.4f}"}
                | about(ours.measured)
                for operator, one, share in _operators(ours, recorded)
            ]
            progress.advance(task)
        console.print(_table(columns))
    write_rows("profile", results, console)
    write_rows("operators", operators, console)


def _epoch(ours: TimedTrainer) -> dict[str, float]:
    """Seconds by phase of the second epoch: some steps and an evaluation come before it, for allocations and caches."""
    ours.turn(0)
    ours.trainer.predict()
    watch, ours.trainer.loader = ours.trainer.loader, ours.loader
    seconds = epoch_by_phase(ours.trainer, 1, compiled=ours.measured.compiled)
    ours.trainer.loader = watch
    ours.measured.seconds.append(sum(seconds.values()))
    return seconds


def _recorded(ours: TimedTrainer) -> EventList:
    """The operators of some steps, the time of each without what it calls."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if _on_gpu(ours) else [])]
    with torch.profiler.profile(activities=activities) as recorded:
        ours.turn(2)
    return recorded.key_averages()


def _listed(ours: TimedTrainer, recorded: EventList) -> str:
    """The profiler's own table of the operators that take longest."""
    listed = recorded.table(sort_by=_time(ours), row_limit=OPERATORS, max_name_column_width=60)
    return f"{title(ours.measured)}\n{ours.measured.method}, {_steps(ours)} steps\n{listed}"


def _operators(ours: TimedTrainer, recorded: EventList) -> list[tuple[str, float, float]]:
    """(operator, seconds in a step, share of all that was recorded) of those that take longest; on a GPU its kernels.

    There an operator of the CPU would count the time of the kernels that it starts once more.
    """
    kind, time = DeviceType.CUDA if _on_gpu(ours) else DeviceType.CPU, attrgetter(_time(ours))  # in microseconds
    own = [event for event in recorded if event.device_type == kind and not event.is_user_annotation]
    whole = sum(map(time, own))
    longest = sorted(own, key=time, reverse=True)[:OPERATORS]
    return [(event.key, time(event) / 1e6 / _steps(ours), time(event) / whole) for event in longest]


def _time(ours: TimedTrainer) -> str:
    return "self_device_time_total" if _on_gpu(ours) else "self_cpu_time_total"


def _steps(ours: TimedTrainer) -> int:
    return min(1 + STEPS, len(ours.loader))


def _on_gpu(ours: TimedTrainer) -> bool:
    return ours.device.type == "cuda"


def _table(columns: list[tuple[Measured, dict[str, float]]]) -> Table:
    headings = [heading for measured, _ in columns for heading in (f"{measured.method}, s", "%")]
    table = numbers_table(columns[0][0], headings, first="phase of an epoch")
    for phase in PHASES:
        cells = [(seconds[phase], seconds[phase] / sum(seconds.values())) for _, seconds in columns]
        table.add_row(phase, *(text for one, share in cells for text in (f"{one:.3f}", f"{100 * share:.1f}")))
    return table
