"""Grids on a real Ray whose machines are lost while they train."""

import os
import signal
import time
from pathlib import Path

import pytest
from clusters.ray_machines import CORES, RayMachines
from faults.disturbed import GRID, STEP, Disturbed, assert_same_results, assert_uploaded_once, strike, wait_for
from place import Place

from experiments.runs.folder import RUNNING, RunFolder

LOSS_SECONDS = 120
SEEDS = ("--seeds", "0", "1", "2", "3")
ON_RAY = ("--launcher", "ray", "--workers", str(CORES))  # a thread for each job, as in the undisturbed grid
LOST = "Ray: one machine of two is killed, or cut off by the network while it trains"
DRIVER = "Ray: the driver is killed and launched again"


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    with RayMachines() as machines:
        yield machines


def training_on(place: Place, name: str) -> list[RunFolder]:
    """Return the runs with recorded epochs that a machine trains."""
    running = [folder for folder in place.folders() if folder.state()["state"] == RUNNING and folder.has_epochs()]
    return [folder for folder in running if f"host={name}" in read(folder.path / "lease")]


def read(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:  # filelock moves it aside for a moment
        return ""


@pytest.mark.cluster(LOST)
@pytest.mark.parametrize("loss", ["kill", "cut"])
def test_runs_of_a_lost_machine_are_finished_by_the_other(cluster, undisturbed, tally, tmp_path, loss):
    slow = strike(STEP, 20, "SLOW", "worker")  # so that no run ends before Ray gives the machine up
    cluster.start("a", 2, STRIKES=slow, STRUCK=str(tmp_path / "struck"))
    cluster.start("b", 3)
    place = Disturbed(tmp_path, *GRID, *SEEDS, *ON_RAY)
    with tally:
        process = place.launch(**cluster.environment)
        wait_for(lambda: training_on(place, "a"), process)
        moved = training_on(place, "a")
        getattr(cluster, loss)("a")
        lost = time.monotonic()
        status, output = place.end(process)
        assert (status, "4 of 4 runs are done." in output, time.monotonic() - lost < LOSS_SECONDS) == (0, True, True), (
            output
        )
        assert all(len(folder.starts()) == 2 for folder in moved)
        assert_same_results(place, undisturbed)
        assert_uploaded_once(place.database, place.folders(), place.folder / "mlartifacts")
    cluster.kill("a")


@pytest.mark.cluster(DRIVER)
def test_grid_goes_on_after_its_driver_was_killed(cluster, undisturbed, tally, tmp_path):
    cluster.start("b", 3)
    place = Disturbed(tmp_path, *GRID, "--seeds", "0", "1", *ON_RAY)
    with tally:
        process = place.launch(**cluster.environment)
        wait_for(lambda: training_on(place, "b"), process)
        os.killpg(process.pid, signal.SIGKILL)
        again = place.launch(**cluster.environment)
        assert place.end(process)[0] == -signal.SIGKILL
        status, output = place.end(again)
        assert (status, "2 of 2 runs are done." in output) == (0, True), output
        assert_same_results(place, undisturbed)
        assert_uploaded_once(place.database, place.folders(), place.folder / "mlartifacts")
