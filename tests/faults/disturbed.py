"""A command that is disturbed in many launches, and the check that its results are those of an undisturbed one."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from builders import empty_store
from faults.backend import assert_uploaded_once, rows
from place import Place

from experiments.runs.folder import DONE, RunFolder

WAIT_SECONDS = 240  # so that a defect does not make the tests hang
STRIKES = Path(__file__).resolve().parent / "strikes"


class Disturbed(Place):
    """A place for one command, whose processes can strike themselves."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        empty_store(self.folder)
        self.command = command
        self.struck = folder / "struck"
        # One thread for any number of workers: the number of threads changes the order of additions.
        self.environment |= {"STRUCK": str(self.struck), "OMP_NUM_THREADS": "1"}

    def launch(self, *strikes: str) -> subprocess.Popen:
        """Start the command. strikes: as in ``strikes/sitecustomize.py``."""
        for file in self.folder.glob("struck*"):
            file.unlink()
        plain = self.environment
        self.environment = plain | {"PYTHONPATH": str(STRIKES), "STRIKES": " ".join(strikes)}
        process = self.start(*self.command)
        self.environment = plain
        return process

    def hits(self) -> int:
        """Return how many strikes of the last launch happened."""
        return len(self.struck.read_text().splitlines()) if self.struck.exists() else 0

    def epochs(self) -> int:
        """Return the recorded epochs of all runs."""
        return sum(folder.count_epochs() for folder in self.folders())

    def uploaded_runs(self) -> set[tuple[str, str]]:
        """Return (run key, MLflow run) of every run in the tracking store, including deleted ones."""
        database = self.folder / "mlflow.db"
        return (
            set(rows(database, "SELECT value, run_uuid FROM tags WHERE key = 'run_key'"))
            if database.exists()
            else set()
        )


def wait_for(happened: Callable[[], bool], *processes: subprocess.Popen) -> bool:
    """Wait until it happened; return False if one of the processes ends before."""
    until = time.monotonic() + WAIT_SECONDS
    while not happened():
        if any(process.poll() is not None for process in processes):
            return False
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.005)
    return True


def workers_of(process: subprocess.Popen) -> dict[int, RunFolder]:
    """Return the worker processes of a launcher, and the runs that they train."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        commands = {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in children}
    except (FileNotFoundError, ProcessLookupError):  # a process has just ended
        return {}
    return {
        child: RunFolder(Path(command[command.index("worker") + 1]))
        for child, command in commands.items()
        if "worker" in command
    }


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def numbers(folder: RunFolder) -> list[dict[str, float]]:
    """Return the metrics of each epoch without times and system metrics."""
    return [
        {name: value for name, value in record["metrics"].items() if not name.startswith(("time/", "system/"))}
        for record in folder.epochs()
    ]


def assert_same_results(folder: RunFolder, reference: RunFolder) -> None:
    """Check that a run is done with the reference's metrics, weights and predictions, bit for bit."""
    assert (folder.state()["state"], folder.damage()) == (DONE, None)
    assert numbers(folder) == numbers(reference)
    assert folder.weights.read_bytes() == reference.weights.read_bytes()
    predictions, expected = folder.load_predictions(), reference.load_predictions()
    assert np.array_equal(predictions.logits, expected.logits) and np.array_equal(
        predictions.features, expected.features
    )
    assert {path.name for path in folder.path.iterdir()} == {path.name for path in reference.path.iterdir()}


def assert_undisturbed(place: Place, reference: Place) -> None:
    """Check every run against the other place's, and that MLflow has each once and completely."""
    names = [folder.path.name for folder in reference.folders()]
    assert [folder.path.name for folder in place.folders()] == names
    for folder, expected in zip(place.folders(), reference.folders(), strict=True):
        assert_same_results(folder, expected)
    assert_uploaded_once(place.folder / "mlflow.db", place.folders(), place.folder / "mlartifacts")
