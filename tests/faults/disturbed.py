"""A command that is launched again and again and struck each time, and whether it ends as if nothing had been."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from faults.backend import assert_uploaded_once, rows
from place import Place

from experiments.runs.folder import DONE, RunFolder

WAIT_SECONDS = 240  # only against hanging
STRIKES = Path(__file__).resolve().parent / "strikes"


class Disturbed(Place):
    """A place in which one command is launched, and struck from within its processes."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.command = command
        self.struck = folder / "struck"
        self.environment["STRUCK"] = str(self.struck)

    def launch(self, *strikes: str) -> subprocess.Popen:
        """The command; strikes: as ``strikes/sitecustomize.py`` takes them."""
        self.struck.unlink(missing_ok=True)
        plain = self.environment
        self.environment = plain | {"PYTHONPATH": str(STRIKES), "STRIKES": " ".join(strikes)}
        process = self.start(*self.command)
        self.environment = plain
        return process

    def hits(self) -> int:
        """How many strikes of the last launch were hit."""
        return len(self.struck.read_text().splitlines()) if self.struck.exists() else 0

    def epochs(self) -> int:
        """How many epochs of all runs are recorded."""
        return sum(folder.count_epochs() for folder in self.folders())

    def told_runs(self) -> set[tuple[str, str]]:
        """(run key, MLflow run) of every run that MLflow has been told of, deleted ones included."""
        database = self.folder / "mlflow.db"
        if not database.exists():
            return set()
        return set(rows(database, "SELECT value, run_uuid FROM tags WHERE key = 'run_key'"))


def wait_for(happened: Callable[[], bool], process: subprocess.Popen) -> bool:
    """Whether it happened before the process ended."""
    until = time.monotonic() + WAIT_SECONDS
    while not happened():
        if process.poll() is not None:
            return False
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.005)
    return True


def workers_of(process: subprocess.Popen) -> dict[int, RunFolder]:
    """The processes that train for a launcher, and what they train."""
    try:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        lines = {int(child): Path(f"/proc/{child}/cmdline").read_text().split("\0") for child in children}
    except (FileNotFoundError, ProcessLookupError):  # one ended just now
        return {}
    return {
        child: RunFolder(Path(line[line.index("experiments worker") + 1]))
        for child, line in lines.items()
        if "experiments worker" in line
    }


def kill(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def numbers(folder: RunFolder) -> list[dict[str, float]]:
    """What an epoch's metrics are, but for what the clock and the machine say."""
    return [
        {name: value for name, value in one["metrics"].items() if not name.startswith(("time/", "system/"))}
        for one in folder.epochs()
    ]


def assert_same_results(folder: RunFolder, reference: RunFolder) -> None:
    """A finished run has the other's metrics, predictions and weights, bit for bit, and nothing else is left there."""
    assert (folder.state()["state"], folder.damage()) == (DONE, None)
    assert numbers(folder) == numbers(reference)
    # No time and no path is in either file.
    assert folder.weights.read_bytes() == reference.weights.read_bytes()
    assert folder.predictions.read_bytes() == reference.predictions.read_bytes()


def assert_undisturbed(place: Disturbed, reference: Place) -> None:
    """Every run is as the other place's; MLflow has each once, with all of it."""
    names = [folder.path.name for folder in reference.folders()]
    assert [folder.path.name for folder in place.folders()] == names
    for folder, other in zip(place.folders(), reference.folders(), strict=True):
        assert_same_results(folder, other)
        assert _files(folder) == _files(other)
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())
    message = place.told_runs()
    assert sorted(key for key, _ in message) == names  # one run a key
    for key, run in message:
        (artifacts,) = place.folder.glob(f"mlartifacts/*/{run}/artifacts")
        for name in ("predictions.npz", "weights.pt", "environment.json", "spec.json"):
            assert (artifacts / name).read_bytes() == (place.runs / key / name).read_bytes()
        assert (artifacts / "reliability.png").read_bytes().startswith(b"\x89PNG")


def _files(folder: RunFolder) -> list[str]:
    """But for the number of those that have held the run."""
    return sorted(path.name.rstrip("0123456789") for path in folder.path.iterdir())
