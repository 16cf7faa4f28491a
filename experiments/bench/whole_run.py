"""The part ``run``: a whole run as a user starts it, with its start, its evaluation and the share of tracking."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from cskd.evaluate.predictions import load_predictions
from cskd.utils.errors import UserError
from cskd.utils.integrity import read_json
from experiments.bench.results import COMPARED, Cell, Measurement, Options, Row, Shown
from experiments.runs.folder import RunFolder
from experiments.runs.source import ROOT

TABLE = (
    Shown("start, s", "start_to_first_step_seconds"),
    Shown("set-up, s", "set_up_seconds"),
    Shown("first step, s", "first_step_seconds"),
    Shown("1,000 tests, s", "evaluation_seconds_per_1000_images"),
    Shown("run, s", "run_seconds", 1),
    Shown("tracking, %", "tracking_share", 1, scale=100),
)


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for method in COMPARED:
            options.status(method)
            rows.append(_launch(cell, method, options.overrides, Path(folder)))
    return {"run": rows}


def _launch(cell: Cell, method: str, overrides: tuple[str, ...], folder: Path) -> Row:
    """Train one run in a new process; return its row.

    folder: for the run folders and for the tracking database, which the first run creates.
    """
    runs = folder / f"{cell.dataset}-{cell.architecture}-{method}"
    cost_file = folder / f"{runs.name}.json"
    command = [
        *(sys.executable, "-m", "experiments", "train", "--dataset", cell.dataset, "--method", method),
        *("--profile", cell.profile, "--architectures", cell.architecture),
        *(part for override in overrides for part in ("--set", override)),
        *("--tracking-cost", str(cost_file)),
    ]
    environment = os.environ | {
        "RUNS_DIR": str(runs),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    launched, used_before = time.time(), _processor_seconds()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds, processor = time.time() - launched, _processor_seconds() - used_before
    cost = {} if done.returncode else read_json(cost_file)
    if done.returncode or cost["problem"]:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"the measured run failed: {lines[-1] if lines else 'it printed nothing'}")
    (spec,) = runs.glob("*/spec.json")
    run = RunFolder(spec.parent)
    (start,) = run.starts()
    tests = [epoch["metrics"]["time/test_seconds"] for epoch in run.epochs()]
    thousands = len(load_predictions(run.predictions).labels) / 1000
    measurement = Measurement(cell, method, start["precision"], start["compiled"], [seconds])
    values = {
        "epochs": len(tests),
        "start_to_first_step_seconds": f"{start['first_step_started'] - launched:.2f}",
        "set_up_seconds": f"{start['set_up_seconds']:.2f}",
        "first_step_seconds": f"{start['first_step_seconds']:.3f}",
        # without the last epoch, which also computes R@1
        "evaluation_seconds_per_1000_images": f"{median(tests[:-1] or tests) / thousands:.4f}",
        "run_seconds": f"{seconds:.1f}",
        "processor_seconds": f"{processor:.1f}",
        "tracking_processor_seconds": f"{cost['cpu_seconds']:.1f}",
        "tracking_share": f"{cost['cpu_seconds'] / processor:.4f}",
    }
    return measurement.row(values)


def _processor_seconds() -> float:
    """Return the processor time of all ended child processes and their children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
