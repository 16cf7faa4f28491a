"""The peak memory of each method's step, in a process of its own: what another has taken does not count."""

import re
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cskd.utils.errors import UserError
from experiments.bench.files import write_rows
from experiments.bench.images import made_up
from experiments.bench.ours import TimedTrainer
from experiments.bench.tables import BASELINE, Cell, Measured, about, numbers_table

STEPS = 2  # the second has the optimiser's momentum from its start


def measure(cells: list[Cell], methods: list[str], console: Console, progress: Progress) -> None:
    results = []
    task = progress.add_task("memory", total=len(cells) * (1 + len(methods)))
    for cell in cells:
        rows = []
        for method in [BASELINE, *methods]:
            rows.append(_alone(cell, method))
            progress.advance(task)
        console.print(_table(rows))
        results += [row.cell() | {"peak_memory_megabytes": f"{peak / 1e6:.1f}"} | about(row) for row, peak in rows]
    write_rows("memory", results, console)


def _alone(cell: Cell, method: str) -> tuple[Measured, int]:
    """``steps_of`` in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        try:
            return process.submit(steps_of, cell, method).result()
        except BrokenProcessPool as error:
            message = f"the process that measures the memory of {method} was killed, perhaps since memory ran out"
            raise UserError(f"{message}: give a smaller batch, SET=batch_size=...") from error


def steps_of(cell: Cell, method: str) -> tuple[Measured, int]:
    """(what was measured, the peak of this process in bytes)."""
    name, profile, settings, architecture = cell
    dataset = made_up(name, settings, STEPS)
    ours = TimedTrainer(dataset, profile, settings, architecture, method, uncounted=0, counted=STEPS)
    ours.measured.seconds.append(ours.turn(0))
    return ours.measured, peak_bytes(ours.device)


def peak_bytes(device: torch.device) -> int:
    """On a GPU of the tensors, on a CPU of the whole process, so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # On Linux ru_maxrss would begin with the peak of the process that has started this one.
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)[1])


def _table(rows: list[tuple[Measured, int]]) -> Table:
    baseline, least = rows[0]
    table = numbers_table(baseline, ("peak, MB", "x cross-entropy"))
    for row, peak in rows:
        table.add_row(row.method, f"{peak / 1e6:.0f}", f"{peak / least:.2f}")
    return table
