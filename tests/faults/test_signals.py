"""SIGTERM and SIGINT, once and twice: the command stops soon, says how to continue, and continues exactly."""

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.backend import tagged
from faults.disturbed import GRID, Disturbed, strike, wait_for

from cskd.utils.cli import STOPPED
from experiments.runs.folder import INTERRUPTED

FAULT = "SIGTERM, SIGINT, twice"
MAX_SECONDS = 90  # generous, for a busy machine; the real times are printed
TRAIN_EPOCH = "cskd.train.trainer:Trainer.train_epoch"
EVALUATE = "cskd.train.trainer:Trainer._evaluate_batch"


class Stopped(Disturbed):
    """A command that is stopped, and how long it takes to stop."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder, *command)
        self.seconds: list[float] = []

    def stop(self, process, since: Callable[[], float]) -> str:
        """Return the output and errors of a launch that was stopped."""
        status, output = self.end(process)
        self.seconds.append(time.time() - since())
        assert status == 130, output
        assert self.seconds[-1] < MAX_SECONDS
        assert output.count(STOPPED) == 1
        return output

    def stop_at(self, *strikes: str) -> str:
        return self.stop(self.launch(*strikes), lambda: float(self.struck.read_text().split()[0]))

    def stop_after(self, happened: Callable[[], bool], *signals: int, strikes: tuple[str, ...] = ()) -> str:
        process = self.launch(*strikes)
        assert wait_for(happened, process), process.communicate()
        sent = time.time()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        return self.stop(process, lambda: sent)

    def assert_interrupted(self, reason: str) -> None:
        """Check all runs. reason: of at least one run; another process may be stopped while it starts."""
        states = [folder.state() for folder in self.folders()]
        assert {state["state"] for state in states} == {INTERRUPTED}
        assert reason in {state["reason"] for state in states}
        assert [status for _, status, _ in tagged(self.folder / "mlflow.db", kind="run")] == ["KILLED"] * len(states)


def while_data_is_prepared(place: Stopped) -> None:
    place.stop_at(strike("cskd.data.prepare:write_dataset", 1, "SIGINT"))
    assert not place.folders()
    assert not [path for path in place.folder.rglob("*digits*") if path.is_dir()]


def while_training(place: Stopped) -> None:
    place.stop_at(strike(TRAIN_EPOCH, 2, "SIGTERM", "parent"))
    place.assert_interrupted("interrupted: stopped by SIGTERM")


def while_evaluating(place: Stopped) -> None:
    place.stop_at(strike(EVALUATE, 6, "SIGINT", "parent"))
    place.assert_interrupted("interrupted: Ctrl-C")


def while_a_step_does_not_end(place: Stopped) -> None:
    """Suspended processes stand for it; they are killed."""
    suspend = strike(EVALUATE, 6, "SIGSTOP", "worker")
    place.stop_after(lambda: place.hits() == 2, signal.SIGINT, strikes=(suspend,))
    place.assert_interrupted("interrupted: killed before it stopped by itself")


def twice(place: Stopped) -> None:
    place.stop_after(lambda: place.recorded_epochs() > 0, signal.SIGINT, signal.SIGINT)
    assert {folder.state()["state"] for folder in place.folders()} == {INTERRUPTED}


def while_the_last_results_are_uploaded(place: Stopped) -> None:
    """Nothing is left to stop: the upload is completed."""
    status, output = place.strike(strike("experiments.tracking.grids:GridTracker._open", 2, "SIGTERM"))
    assert status == 0, output
    assert STOPPED not in output


@pytest.mark.fault(FAULT)
def test_stopped_run_is_continued_by_the_same_command(tally, demo_grid, tmp_path):
    place = Stopped(tmp_path, *demo_grid.command, "--methods", "cs-kd")
    for moment in (while_data_is_prepared, while_training):
        with tally:
            moment(place)
    with tally:
        place.finish(demo_grid, runs=1)


MOMENTS = [twice, while_evaluating, while_a_step_does_not_end, while_training, while_the_last_results_are_uploaded]


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_grid_stops_soon_at_every_moment_and_ends_with_the_undisturbed_results(tally, undisturbed, tmp_path):
    place = Stopped(tmp_path, *GRID, "--workers", "2")
    for moment in MOMENTS:
        with tally:
            moment(place)
    with tally:
        place.finish(undisturbed, runs=2)
    tally.note = f"stopped after {', '.join(f'{seconds:.1f}' for seconds in place.seconds)} s"
