"""``kill -9`` at any moment of a first launch, which makes data, runs, store and journal: the same command goes on."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from faults.disturbed import Disturbed, assert_same_results
from place import epoch_options

from experiments.runs.folder import RunFolder
from experiments.tuning.storage import load_study

FAULT = "kill -9 while everything is first created"
CASES = 5
TUNE = ("experiments tune", "--dataset", "digits", "--trials", "2", "--workers", "2", *epoch_options(2))


class FirstLaunch(Disturbed):
    """A place where nothing exists."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder, *command)
        (folder / "mlflow.db").unlink()

    def launch_and_kill(self, seconds: float) -> None:
        """Kill the launcher's process group. Its workers, which have their own, stop by themselves."""
        process = self.launch()
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        self.end(process)

    def seconds_to_end(self) -> float:
        """Launch undisturbed; return the seconds that it took."""
        started = time.monotonic()
        status, output = self.end(self.launch())
        assert status == 0, output
        return time.monotonic() - started


def moments(seconds: float, seed: int) -> list[float]:
    """Return a random moment in each of ``CASES`` equal parts of a launch; its first seconds are only imports."""
    draw, start = random.Random(seed), min(2.0, seconds / 2)
    return [start + (seconds - start) * (case + draw.random()) / CASES for case in range(CASES)]


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_grid_goes_on(tally, demo_grid, tmp_path):
    for case, seconds in enumerate(moments(FirstLaunch(tmp_path / "whole", *demo_grid.command).seconds_to_end(), 0)):
        place = FirstLaunch(tmp_path / str(case), *demo_grid.command)
        with tally:
            place.launch_and_kill(seconds)
            place.finish(demo_grid, runs=2)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_study_goes_on(tally, tmp_path):
    whole = FirstLaunch(tmp_path / "whole", *TUNE)
    for case, seconds in enumerate(moments(whole.seconds_to_end(), 1)):
        place = FirstLaunch(tmp_path / str(case), *TUNE)
        with tally:
            place.launch_and_kill(seconds)
            status, output, errors = place.call(*TUNE)
            assert (status, errors) == (0, ""), output
            assert trials(place) == trials(whole)
            for folder in place.folders():
                assert_same_results(folder, RunFolder(whole.runs / folder.path.name))


def trials(place: FirstLaunch) -> list[tuple]:
    name = "digits-cs-kd-demo"
    return [
        (trial.state, trial.parameters, trial.values, trial.runs)
        for trial in load_study(str(place.runs / "studies" / "journal.log"), name)[1]
    ]
