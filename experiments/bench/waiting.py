"""The part ``waiting``: what a user waits for, from the first line of a launch to a report of 300 runs."""

import os
import pty
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cskd.utils.errors import UserError
from experiments.bench.made_up_runs import add_predictions, make_runs
from experiments.bench.results import Cell, Measurement, Options, Row, Shown
from experiments.runs.folder import RunFolder
from experiments.runs.source import ROOT

TABLE = (Shown("seconds", "seconds", 1), Shown("goal, s", "goal_seconds", 0), Shown("peak, MB", "peak_megabytes", 0))
# Seconds on two idle cores.
GOALS = {
    "make demo": 45,
    "first line": 1,
    "plan": 4,
    "start of a run": 1,
    "make status, 1,020 runs": 3,
    "make tables, 30 runs": 3,
    "make report, 300 runs": 60,
    "make report, again": 15,
}
COMMANDS = {  # by the number of made-up runs that they read
    1020: {"make status, 1,020 runs": ("experiments", "status")},
    30: {"make tables, 30 runs": ("analysis", "tables")},
    300: {"make report, 300 runs": ("analysis", "report"), "make report, again": ("analysis", "report")},
}


@dataclass(frozen=True)
class Wait:
    """How long a command took. first: until its first output on a terminal."""

    seconds: float
    first: float
    peak_megabytes: float


def measure(cell: Cell, options: Options) -> dict[str, list[Row]]:
    waits: dict[str, float | Wait] = {}
    with tempfile.TemporaryDirectory() as temporary:
        demo = Path(temporary) / "demo"
        options.status("make demo")
        _wait(demo, "experiments", "data", "digits")  # so that the plan, too, is one of prepared data
        plan = _wait(demo, "experiments", "grid", "demo", "--dry-run")
        waits |= {"first line": plan.first, "plan": plan.seconds}
        waits["make demo"] = _wait(demo, "experiments", "grid", "demo", "--tables")
        waits["start of a run"] = _start_seconds(demo / "runs")
        for runs, commands in COMMANDS.items():
            options.status(f"making {runs:,} runs")
            folder = Path(temporary) / str(runs)
            made = make_runs(runs, folder / "runs")
            if ("experiments", "status") not in commands.values():
                _wait(folder, "experiments", "sync")  # without predictions: it copies them
                add_predictions(made, folder)
            for name, command in commands.items():
                options.status(name)
                waits[name] = _wait(folder, *command)
    return {"waiting": [_row(cell, name, goal, waits[name]) for name, goal in GOALS.items()]}


def _row(cell: Cell, name: str, goal: float, wait: float | Wait) -> Row:
    seconds, peak = (wait.seconds, wait.peak_megabytes) if isinstance(wait, Wait) else (wait, float("nan"))
    values = {"phase": name, "seconds": f"{seconds:.2f}", "goal_seconds": goal, "peak_megabytes": f"{peak:.0f}"}
    return Measurement(cell, "all", cell.settings.precision, False).row(values)


def _start_seconds(runs_dir: Path) -> float:
    """Return the median time from the start of a run's process to the end of its first step, without the first run."""
    starts = [RunFolder(path.parent).starts()[0] for path in runs_dir.glob("*/spec.json")]
    later = sorted(starts, key=lambda start: start["started"])[1:]
    return median(start["set_up_seconds"] + start["first_step_seconds"] for start in later)


def _environment(folder: Path) -> dict[str, str]:
    """Return the environment of a command with its own data, runs, results and store in this folder."""
    folder.mkdir(exist_ok=True)
    return os.environ | {
        "DATA_DIR": str(folder / "data"),
        "RUNS_DIR": str(folder / "runs"),
        "RESULTS_DIR": str(folder / "results"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }


def _wait(folder: Path, package: str, *arguments: str) -> Wait:
    """Run a command in a terminal, as a user does. Raises UserError if it fails."""
    terminal, its_terminal = pty.openpty()
    started, first, text = time.monotonic(), 0.0, b""
    process = subprocess.Popen(
        [sys.executable, "-m", package, *arguments],
        cwd=ROOT, env=_environment(folder), stdin=subprocess.DEVNULL, stdout=its_terminal, stderr=its_terminal,
    )  # fmt: skip
    os.close(its_terminal)
    with suppress(OSError):  # all processes have closed the terminal
        while part := os.read(terminal, 4096):
            first = first or time.monotonic() - started
            text = text[-4096:] + part
    os.close(terminal)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        lines = text.decode(errors="replace").split("\n")
        raise UserError(f"{package} {' '.join(arguments)} failed: {next(filter(str.strip, reversed(lines)), '')}")
    return Wait(time.monotonic() - started, first, used.ru_maxrss / 1000)
