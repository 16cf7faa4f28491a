"""The fault harness: a disturbed command, and the check that its results equal those of an undisturbed one."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import empty_store
from place import ROOT, Place, epoch_options

from cskd.evaluate.predictions import load_predictions
from experiments.runs.folder import DONE, RunFolder

WAIT_SECONDS = 240  # so that a defect does not make the tests hang
EPOCHS = 24
DEMO = ("experiments grid", "demo", "--workers", "2", "--set", "width=4", *epoch_options(EPOCHS))  # ten runs
GRID = (*DEMO, "--methods", "cs-kd")
STEP = "cskd.train.step:Step.__call__"  # there are four steps in an epoch of the demo
STRIKES = Path(__file__).resolve().parent / "strikes"
RESULTS = {"predictions.npz", "evaluation.npz", "weights.pt", "environment.json", "spec.json"}
MEASURED = ("time/", "system/")  # metrics that differ if an epoch is trained again
SINGLE = ("minutes", "energy_kilojoules")  # metrics of a run, not of its epochs


def strike(function: str, count: int, action: str = "SIGKILL", target: str = "self", when: str = "before") -> str:
    """Return a strike at the n-th call of a function, as in ``strikes/sitecustomize.py``."""
    return f"{function}:{count}:{when}:{action}:{target}"


class Disturbed(Place):
    """A place for one command, whose processes can strike themselves."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        empty_store(self.folder)
        self.command = command
        self.database = folder / "mlflow.db"
        self.struck = folder / "struck"

    def launch(self, *strikes: str, **environment: str) -> subprocess.Popen:
        """Start the command."""
        if strikes:
            for file in self.folder.glob("struck*"):
                file.unlink()
        path = os.pathsep.join([str(STRIKES), str(ROOT)])
        environment |= {"PYTHONPATH": path, "STRIKES": " ".join(strikes), "STRUCK": str(self.struck)}
        return self.start(*self.command, **environment)

    def hits(self) -> list[tuple[float, str]]:
        """Return (time, strike) of the strikes that happened in the last launch with strikes."""
        lines = self.struck.read_text().splitlines() if self.struck.exists() else []
        return [(float(line.split()[0]), line.split()[1]) for line in lines]

    def end(self, process: subprocess.Popen) -> tuple[int, str]:
        """Wait for a launch, and return (exit status, output and errors)."""
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in output + errors
        return process.returncode, output + errors

    def strike(self, *strikes: str) -> tuple[int, str]:
        """Launch with strikes, one of which must happen, and return (exit status, output and errors)."""
        ended = self.end(self.launch(*strikes))
        assert self.hits(), (strikes, ended)
        return ended

    def kill_after(self, seconds: float) -> None:
        """Launch, and kill the launcher after some seconds. Its workers notice it and stop."""
        process = self.launch()
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        self.end(process)

    def repeat(self, reference: Place) -> str:
        """Launch the command undisturbed, compare its runs with the reference's, and return its output."""
        status, output, errors = self.call(*self.command)
        assert (status, errors) == (0, ""), output
        assert_same_results(self, reference)
        return output

    def finish(self, reference: Place) -> None:
        """Launch the grid undisturbed; compare its runs with the reference's and with MLflow's."""
        output, runs = self.repeat(reference), len(self.folders())
        assert f"{runs} of {runs} runs are done." in output
        assert_uploaded_once(self.database, self.folders(), self.folder / "mlartifacts")


def wait_for(happened: Callable[[], bool], *processes: subprocess.Popen) -> None:
    """Wait until it happened, while the processes run."""
    until = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert time.monotonic() < until, "it does not happen"
        assert all(process.poll() is None for process in processes), "a process ended before"
        time.sleep(0.005)


def numbers(folder: RunFolder) -> list[dict[str, float]]:
    """Return the metrics of each epoch without times and system metrics."""
    return [
        {name: value for name, value in record["metrics"].items() if not name.startswith(MEASURED)}
        for record in folder.epochs()
    ]


def assert_same_results(place: Place, reference: Place) -> None:
    """Check that every run is done with the reference's metrics, weights and predictions, bit for bit."""
    assert place.folders()
    for folder in place.folders():
        expected = RunFolder(reference.runs / folder.path.name)
        assert (folder.state()["state"], folder.damage()) == (DONE, None)
        assert numbers(folder) == numbers(expected)
        assert folder.weights.read_bytes() == expected.weights.read_bytes()
        for name in ("logits", "features"):
            arrays = (getattr(load_predictions(run.predictions), name) for run in (folder, expected))
            assert np.array_equal(*arrays)
        assert {path.name for path in folder.path.iterdir()} == {path.name for path in expected.path.iterdir()}


def rows(database: Path, query: str, *values) -> list[tuple]:
    """Return the result of an SQL query to MLflow's database, without MLflow."""
    connection = sqlite3.connect(database)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def tagged(database: Path, **tags: str) -> list[tuple[str, str]]:
    """Return (run, status) of the active MLflow runs that have these tags."""
    query = "SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'"
    query += " AND run_uuid IN (SELECT run_uuid FROM tags WHERE key = ? AND value = ?)" * len(tags)
    return rows(database, query, *(text for tag in tags.items() for text in tag))


def tag_of(database: Path, run: str, tag: str) -> str:
    ((value,),) = rows(database, "SELECT value FROM tags WHERE run_uuid = ? AND key = ?", run, tag)
    return value


def assert_uploaded_once(database: Path, folders: list[RunFolder], artifacts: Path | None = None) -> None:
    """Check that every training is one finished MLflow run with its settings and every metric of every epoch once.

    artifacts: the folder of the artifacts, if they are checked too.
    """
    specs = {folder.path.name: folder.spec() for folder in folders}
    for folder in folders:
        spec = specs[folder.path.name]
        ((run, status),) = tagged(database, kind="run", run_key=spec.run_key, training_id=folder.training_id())
        assert status == "FINISHED"
        points = rows(database, "SELECT key, step, value FROM metrics WHERE run_uuid = ?", run)
        assert len({point[:2] for point in points}) == len(points)
        uploaded = {point[:2]: point[2] for point in points if not point[0].startswith(SINGLE)}
        recorded = {
            (name, record["epoch"]): value for record in folder.epochs() for name, value in record["metrics"].items()
        }
        assert uploaded.keys() == recorded.keys()
        compared = [point for point in recorded if not point[0].startswith(MEASURED)]
        assert [uploaded[point] for point in compared] == pytest.approx([recorded[point] for point in compared])
        assert rows(database, "SELECT value FROM params WHERE run_uuid = ? AND key = 'seed'", run) == [
            (str(spec.seed),)
        ]
        if artifacts is not None:
            expected = {path.name for path in folder.path.iterdir()} & RESULTS | {"reliability.png"}
            assert {path.name for path in artifacts.glob(f"*/{run}/artifacts/*")} == expected
        ((parent, status),) = tagged(database, kind="cell", cell_key=spec.cell_key)
        assert (status, tag_of(database, run, "mlflow.parentRunId")) == ("FINISHED", parent)
        statistics = rows(database, "SELECT key, step FROM metrics WHERE run_uuid = ?", parent)
        assert len(set(statistics)) == len(statistics)
        assert ("seeds", sum(other.cell_key == spec.cell_key for other in specs.values())) in statistics
