"""A folder in which commands run as a user types them."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from experiments.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent
TWO_EPOCHS = ("--set", "schedule.epochs=2", "--set", "schedule.milestones=[1]")
DEMO_GRID = ("demo", "--seeds", "0", "1", "--workers", "2", *TWO_EPOCHS)


class Place:
    """A folder with its own data, runs, results and tracking store, for commands in processes of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.sources = ROOT
        self.runs = folder / "runs"
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.environment = os.environ | {
            "DATA_DIR": str(folder / "data"),
            "RUNS_DIR": str(self.runs),
            "RESULTS_DIR": str(folder / "results"),
            "MLFLOW_TRACKING_URI": self.uri,
            "TUNED_DIR": str(folder / "tuned"),
            "OPTUNA_STORAGE": "",
            "COLUMNS": "200",
        }

    def start(self, command: str, *arguments: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", *command.split(), *arguments],
            cwd=self.sources,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        """Return (exit status, output, errors) of ``python -m <command>``."""
        process = self.start(command, *arguments)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    def folders(self) -> list[RunFolder]:
        return [RunFolder(path.parent) for path in sorted(self.runs.glob("*/spec.json"))]


def command_of(command: str) -> ModuleType:
    """Return the module of a command such as "experiments grid"."""
    package, name = command.split()
    return importlib.import_module(f"{package}.commands.{name}")
