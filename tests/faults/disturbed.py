"""A command that is disturbed in many launches, and the check that its results are those of an undisturbed one."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from builders import empty_store
from faults.backend import assert_uploaded_once
from place import Place, epoch_options

from experiments.runs.folder import DONE, RunFolder

WAIT_SECONDS = 240  # so that a defect does not make the tests hang
EPOCHS = 24
GRID = ("experiments grid", "demo", "--seeds", "0", "--set", "width=4", *epoch_options(EPOCHS))
STRIKES = Path(__file__).resolve().parent / "strikes"


class Disturbed(Place):
    """A place for one command, whose processes can strike themselves."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        empty_store(self.folder)
        self.command = command
        self.struck = folder / "struck"

    def launch(self, *strikes: str) -> subprocess.Popen:
        """Start the command. strikes: as in ``strikes/sitecustomize.py``."""
        for file in self.folder.glob("struck*"):
            file.unlink()
        plain = self.environment
        self.environment = plain | {
            "PYTHONPATH": str(STRIKES), "STRIKES": " ".join(strikes), "STRUCK": str(self.struck),
        }  # fmt: skip
        process = self.start(*self.command)
        self.environment = plain
        return process

    def hits(self) -> int:
        """Return how many strikes of the last launch happened."""
        return len(self.struck.read_text().splitlines()) if self.struck.exists() else 0

    def recorded_epochs(self) -> int:
        """Return the recorded epochs of all runs."""
        return sum(folder.count_epochs() for folder in self.folders())

    def end(self, process: subprocess.Popen) -> tuple[int, str]:
        """Wait for a launch, and return (exit status, output and errors)."""
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in output + errors
        return process.returncode, output + errors

    def strike(self, *strikes: str) -> tuple[int, str]:
        """Launch with strikes that must happen, and return (exit status, output and errors)."""
        ended = self.end(self.launch(*strikes))
        assert self.hits(), (strikes, ended)
        return ended

    def finish(self, reference: Place, runs: int) -> None:
        """Launch the command again, undisturbed, and compare its runs with the reference's."""
        status, output, errors = self.call(*self.command)
        assert (status, errors) == (0, ""), output
        assert f"{runs} of {runs} runs are done." in output
        assert len(self.folders()) == runs
        for folder in self.folders():
            assert_same_results(folder, RunFolder(reference.runs / folder.path.name))
        assert_uploaded_once(self.folder / "mlflow.db", self.folders(), self.folder / "mlartifacts")


def strike(function: str, count: int, action: str = "SIGKILL", target: str = "self", when: str = "before") -> str:
    """Return a strike at the n-th call of a function: by default, the process kills itself."""
    return f"{function}:{count}:{when}:{action}:{target}"


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
