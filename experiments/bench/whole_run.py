"""A whole run as a user starts it: how long until it trains, how fast it is tested, what its tracking takes."""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from cskd.utils.errors import UserError
from experiments.bench.files import write_rows
from experiments.bench.pairs import METHODS
from experiments.bench.tables import Cell, Measured, about, numbers_table
from experiments.runs.environment import ROOT
from experiments.runs.folder import RunFolder

TRACKED = re.compile(r"took ([\d.]+) s of processor time")  # experiments.execute says it


def measure(cells: list[Cell], overrides: tuple[str, ...], console: Console, progress: Progress) -> None:
    results = []
    task = progress.add_task("run", total=len(cells) * len(METHODS))
    with tempfile.TemporaryDirectory() as folder:
        for cell in cells:
            rows = []
            for method in METHODS:
                rows.append(_launch(cell, method, overrides, Path(folder)))
                progress.advance(task)
            console.print(_table(rows))
            results += [row.cell() | values | about(row) for row, values in rows]
    write_rows("run", results, console)


def _launch(cell: Cell, method: str, overrides: tuple[str, ...], folder: Path) -> tuple[Measured, dict[str, Any]]:
    """One run and its columns. folder: for its runs, and for the tracking of all, which the first of them creates."""
    name, profile, settings, architecture = cell
    command = [
        *(sys.executable, "-m", "experiments", "train", "--dataset", name, "--method", method),
        *("--profile", profile, "--architectures", architecture),
        *(part for override in overrides for part in ("--set", override)),
    ]
    runs = folder / f"{name}-{architecture}-{method}"
    environment = os.environ | {
        "RUNS_DIR": str(runs),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    launched, before = time.time(), _processor_seconds()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds, processor = time.time() - launched, _processor_seconds() - before
    tracked = TRACKED.search(done.stdout)
    if done.returncode or not tracked:
        message = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"the run that was to be measured has failed: {message[-1] if message else 'it said nothing'}")
    (spec,) = runs.glob("*/spec.json")
    run = RunFolder(spec.parent)
    (start,) = run.starts()
    tests = [epoch["metrics"]["time/test_seconds"] for epoch in run.epochs()]
    images, tracking = len(run.load_predictions().labels), float(tracked[1])
    measured = Measured(
        name, profile, architecture, method, settings.batch_size, start["precision"], start["compiled"], [seconds]
    )
    return measured, {
        "epochs": len(tests),
        "start_to_first_step_seconds": f"{start['first_step_started'] - launched:.2f}",
        "set_up_seconds": f"{start['set_up_seconds']:.2f}",
        "first_step_seconds": f"{start['first_step_seconds']:.3f}",
        # the last one has R@1 as well
        "evaluation_seconds_per_1000_images": f"{1000 * median(tests[:-1] or tests) / images:.4f}",
        "run_seconds": f"{seconds:.1f}",
        "processor_seconds": f"{processor:.1f}",
        "tracking_processor_seconds": f"{tracking:.1f}",
        "tracking_share": f"{tracking / processor:.4f}",
    }


def _processor_seconds() -> float:
    """Of the processes that this one has started and seen end, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _table(rows: list[tuple[Measured, dict[str, Any]]]) -> Table:
    headings = {
        "start_to_first_step_seconds": "start, s",
        "set_up_seconds": "own, s",
        "first_step_seconds": "first step, s",
        "evaluation_seconds_per_1000_images": "1,000 tests, s",
        "run_seconds": "run, s",
        "tracking_share": "tracking",
    }
    table = numbers_table(rows[0][0], headings.values())
    for row, values in rows:
        table.add_row(row.method, *(values[name] for name in headings))
    return table
