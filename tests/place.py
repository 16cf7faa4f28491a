"""A folder in which commands run: in this process, or in a process of their own."""

import contextlib
import importlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest import mock

from filelock import FileLock

from cskd.utils import cli
from experiments.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parent.parent


def epoch_options(count: int) -> tuple[str, ...]:
    """Return the options that set the number of epochs, with one milestone in the middle."""
    return ("--set", f"schedule.epochs={count}", "--set", f"schedule.milestones=[{count // 2}]")


class Place:
    """A folder with its own data, runs, results and tracking store."""

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
            # One thread for any number of workers: the number of threads changes the order of additions.
            "OMP_NUM_THREADS": "1",
        }

    def start(self, command: str, *arguments: str, **environment: str) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, "-m", *command.split(), *arguments],
            cwd=self.sources,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a process group, as of a command in a terminal
        )

    def run(self, command: str, *arguments: str) -> tuple[int, str, str]:
        """Return (exit status, output, errors) of ``python -m <command>``."""
        process = self.start(command, *arguments)
        output, errors = process.communicate(timeout=300)
        return process.returncode, output, errors

    def call(self, command: str, *arguments: str) -> tuple[int, str, str]:
        """Run the command in this process, which saves the time of its imports; its workers are still processes."""
        with mock.patch.dict(os.environ, self.environment, clear=True):
            return call(command, *arguments)

    def folders(self) -> list[RunFolder]:
        return [RunFolder(path.parent) for path in sorted(self.runs.glob("*/spec.json"))]


def call(command: str, *arguments: str) -> tuple[int, str, str]:
    """Return (exit status, output, errors) of a command in this process. An exception passes: it is a defect."""
    output, errors = io.StringIO(), io.StringIO()
    main = command_of(command).main
    with (
        mock.patch.object(sys, "argv", [command, *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            cli.run(main)
        except SystemExit as ended:
            return ended.code or 0, output.getvalue(), errors.getvalue()
    raise AssertionError("the command did not end the process")


def command_of(command: str) -> ModuleType:
    """Return the module of a command such as "experiments grid"."""
    package, name = command.split()
    return importlib.import_module(f"{package}.commands.{name.replace('-', '_')}")


def make_once(factory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder with an expensive content, which is made once for all processes of pytest-xdist.

    factory: pytest's ``tmp_path_factory``.
    """
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # the folder that the processes share
    folder = shared / name
    with FileLock(shared / f"{name}.lock"):
        if not folder.exists():
            make(folder)
    return folder
