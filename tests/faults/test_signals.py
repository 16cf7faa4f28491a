"""SIGTERM and SIGINT, once and twice: the command stops soon, says how to continue, and continues exactly."""

import signal
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.backend import tagged
from faults.disturbed import WAIT_SECONDS, Disturbed, assert_undisturbed, wait_for

from cskd.utils.cli import STOPPED
from experiments.runs.folder import INTERRUPTED

FAULT = "SIGTERM, SIGINT, twice"
EPOCHS = 24
SETTINGS = ("--set", "width=4", "--set", f"schedule.epochs={EPOCHS}", "--set", f"schedule.milestones=[{EPOCHS // 2}]")
GRID = ("experiments grid", "demo", "--seeds", "0", "--workers", "2", *SETTINGS)
MAX_SECONDS = 90  # generous, for a busy machine; the real times are printed
EVALUATE = "cskd.train.trainer:Trainer._evaluate_batch"


class Stopped(Disturbed):
    """A command that is stopped, and how long it takes to stop."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder, *command)
        self.seconds: list[float] = []

    def stop(self, *signals: int, after: Callable[[], bool], strikes: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """Return (exit status, output, errors) of a launch that gets these signals after something has happened."""
        process = self.launch(*strikes)
        assert wait_for(after, process), process.communicate()
        sent = time.time()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        return self.end(process, lambda: sent)

    def strike(self, function: str, count: int, number: signal.Signals, target: str = "self") -> tuple[int, str, str]:
        """Return the same for a launch that gets one signal at the n-th call of a function."""
        process = self.launch(f"{function}:{count}:before:{number.name}:{target}")
        return self.end(process, lambda: float(self.struck.read_text().split()[0]))

    def end(self, process, since: Callable[[], float]) -> tuple[int, str, str]:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        seconds = time.time() - since()
        if process.returncode:
            self.seconds.append(seconds)
        assert seconds < MAX_SECONDS
        assert "Traceback" not in output + errors
        assert (output + errors).count(STOPPED) == (process.returncode != 0)
        return process.returncode, output, errors

    def train_on(self, epochs: int) -> Callable[[], bool]:
        """Return a function that is true when both runs have so many epochs more than now."""
        wanted = {folder.path.name: folder.count_epochs() + epochs for folder in self.folders()}
        return lambda: (
            len(self.folders()) == 2
            and all(folder.count_epochs() >= wanted.get(folder.path.name, epochs) for folder in self.folders())
        )

    def assert_interrupted(self, reason: str | None = None) -> None:
        states = [folder.state() for folder in self.folders()]
        assert [state["state"] for state in states] == [INTERRUPTED] * 2
        if reason:
            assert [state["reason"] for state in states] == [reason] * 2
        assert [status for _, status, _ in tagged(self.folder / "mlflow.db", kind="run")] == ["KILLED"] * 2

    def finish(self) -> str:
        process = self.launch()
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (0, ""), output
        return output


def while_data_is_prepared(place: Stopped) -> None:
    status, _, errors = place.strike("cskd.data.prepare:write_dataset", 1, signal.SIGINT)
    assert (status, errors) == (130, f"{STOPPED}\n")
    assert not place.folders()
    assert not [path for path in place.folder.rglob("*digits*") if path.is_dir()]


def while_training(place: Stopped) -> None:
    status, _, errors = place.stop(signal.SIGTERM, after=place.train_on(2))
    assert (status, errors) == (130, "")
    place.assert_interrupted("interrupted: stopped by SIGTERM")


def while_evaluating(place: Stopped) -> None:
    status, _, errors = place.strike(EVALUATE, 6, signal.SIGINT, "parent")
    assert (status, errors) == (130, "")
    place.assert_interrupted("interrupted: Ctrl-C")


def while_a_step_does_not_end(place: Stopped) -> None:
    """Suspended processes stand for it; they are killed."""
    suspend = f"{EVALUATE}:6:before:SIGSTOP:worker"
    status, _, errors = place.stop(signal.SIGINT, after=lambda: place.hits() == 2, strikes=(suspend,))
    assert (status, errors) == (130, "")
    place.assert_interrupted("interrupted: killed before it stopped by itself")


def twice(place: Stopped) -> None:
    status, _, errors = place.stop(signal.SIGINT, signal.SIGINT, after=place.train_on(1))
    assert (status, errors) == (130, "")
    assert [folder.state()["state"] for folder in place.folders()] == [INTERRUPTED] * 2


def while_the_last_results_are_uploaded(place: Stopped) -> None:
    """Nothing is left to stop: the upload is completed."""
    status, output, errors = place.strike("experiments.tracking.grids:GridTracker._open", 2, signal.SIGTERM)
    assert (status, errors) == (0, ""), output


MOMENTS = [
    while_data_is_prepared,
    while_training,
    twice,
    while_evaluating,
    while_a_step_does_not_end,
    while_the_last_results_are_uploaded,
]


@pytest.mark.fault(FAULT)
def test_grid_stops_soon_and_the_same_command_continues(tally, tmp_path):
    place, undisturbed = Stopped(tmp_path / "stopped", *GRID), Stopped(tmp_path / "undisturbed", *GRID)
    lost = []
    with ThreadPoolExecutor(1) as thread:
        reference = thread.submit(undisturbed.finish)
        for moment in MOMENTS[: tally.cases(len(MOMENTS), 2)]:
            try:
                with tally:
                    moment(place)
            except AssertionError:
                lost.append(traceback.format_exc())
        with tally:
            assert "2 of 2 runs are done." in place.finish()
            reference.result()
            assert_undisturbed(place, undisturbed)
    tally.note = f"stopped after {', '.join(f'{seconds:.1f}' for seconds in place.seconds)} s"
    assert not lost, "\n\n".join(lost)
