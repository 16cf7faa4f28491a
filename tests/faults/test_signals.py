"""SIGTERM, SIGINT, and a second one: stopped soon, told what to do, and gone on as if nothing had been."""

import signal
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faults.backend import tagged
from faults.disturbed import WAIT_SECONDS, Disturbed, assert_undisturbed, wait_for
from run_folders import make_grid

from experiments.runs.folder import INTERRUPTED
from experiments.runs.plan import load_plans
from experiments.tracking.grids import sync_plan
from experiments.tuning.storage import load_study
from experiments.tuning.trial import COMPLETE, RUNNING, Trial

FAULT = "SIGTERM, SIGINT, twice"
EPOCHS = 24
SETTING = ("--set", "width=4", "--set", f"schedule.epochs={EPOCHS}", "--set", f"schedule.milestones=[{EPOCHS // 2}]")
GRID = ("experiments grid", "demo", "--seeds", "0", "--workers", "2", *SETTING)
TUNE = ("experiments tune", "--dataset", "digits", "--trials", "2", "--workers", "2", *SETTING)
GOES_ON = "stopped: the same command continues where this one ended\n"
GENEROUS_SECONDS = 30  # the longest is printed; a machine that does other work besides is not to fail


class Stopped(Disturbed):
    """A command, and how long it took to stop, each time."""

    def __init__(self, folder: Path, *command: str):
        super().__init__(folder, *command)
        self.seconds: list[float] = []

    def stop(self, *signals: int, after: Callable[[], bool], strikes: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """(exit status, output, errors) of a launch that gets these signals once something has happened."""
        process = self.launch(*strikes)
        assert wait_for(after, process), process.communicate()
        sent = time.time()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.1)
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        return self.ended(sent, process.returncode, output, errors)

    def strike(self, function: str, count: int, number: signal.Signals, whom: str = "self") -> tuple[int, str, str]:
        """The same, with one signal at the n-th call of a function."""
        process = self.launch(f"{function}:{count}:before:{number.name}:{whom}")
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert self.hits() == 1
        return self.ended(float(self.struck.read_text().split()[0]), process.returncode, output, errors)

    def ended(self, since: float, status: int, output: str, errors: str) -> tuple[int, str, str]:
        seconds = time.time() - since
        if status:
            self.seconds.append(seconds)
        assert seconds < GENEROUS_SECONDS
        assert "Traceback" not in output + errors
        assert (output + errors).count(GOES_ON) == (status != 0)
        return status, output, errors

    def train_on(self, epochs: int) -> Callable[[], bool]:
        """Whether each run has so many epochs more than now."""
        wanted = {folder.path.name: folder.count_epochs() + epochs for folder in self.folders()}
        return lambda: (
            len(self.folders()) == 2
            and all(folder.count_epochs() >= wanted.get(folder.path.name, epochs) for folder in self.folders())
        )

    def assert_interrupted(self) -> None:
        assert [folder.state()["state"] for folder in self.folders()] == [INTERRUPTED] * 2
        assert [status for _, status, _ in tagged(self.folder / "mlflow.db", kind="run")] == ["KILLED"] * 2

    def finish(self) -> str:
        process = self.launch()
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (0, "")
        return output


def while_data_is_prepared(place: Stopped) -> None:
    """On the first launch, which prepares what is missing."""
    status, _, errors = place.strike("cskd.data.catalog:write_dataset", 1, signal.SIGINT)
    assert (status, errors) == (130, GOES_ON)
    assert not place.folders()
    assert not [path for path in place.folder.rglob("*digits*") if path.is_dir()]


def while_modules_are_imported(place: Stopped) -> None:
    status, _, errors = place.strike("experiments.execute:", 1, signal.SIGINT)
    assert (status, errors) == (-signal.SIGINT, GOES_ON)  # as what has no handler of its own: 130 for a shell


def while_training(place: Stopped) -> None:
    status, _, errors = place.stop(signal.SIGTERM, after=place.train_on(2))
    assert (status, errors) == (130, "")
    place.assert_interrupted()


def while_evaluating(place: Stopped) -> None:
    status, _, errors = place.strike("cskd.training:Trainer._evaluated", 6, signal.SIGINT, "parent")
    assert (status, errors) == (130, "")
    place.assert_interrupted()


def while_a_step_takes_long(place: Stopped) -> None:
    """Processes that stand still, as in a step without end: they are ended."""
    stand_still = "cskd.training:Trainer._evaluated:6:before:SIGSTOP:self"
    status, output, errors = place.stop(signal.SIGINT, after=lambda: place.hits() == 2, strikes=(stand_still,))
    assert (status, errors) == (130, "")
    assert output.count("interrupted: it was ended before it could stop by itself") == 4  # as it ends, in the summary
    place.assert_interrupted()


def twice(place: Stopped) -> None:
    status, _, errors = place.stop(signal.SIGINT, signal.SIGINT, after=place.train_on(1))
    assert (status, errors) == (130, "")
    assert [folder.state()["state"] for folder in place.folders()] == [INTERRUPTED] * 2


def while_the_end_is_tracked(place: Stopped) -> None:
    """All is trained: what is left of the tracking is done, and nothing was stopped."""
    status, output, errors = place.strike("experiments.tracking.grids:Tracker.sync_all", 1, signal.SIGTERM)
    assert (status, errors) == (0, "")
    assert "All is tracked in MLflow" in output


MOMENTS = [
    while_data_is_prepared,
    while_modules_are_imported,
    while_training,
    twice,
    while_evaluating,
    while_a_step_takes_long,
    while_the_end_is_tracked,
]


@pytest.mark.fault(FAULT)
def test_a_grid_stops_soon_and_the_same_command_goes_on(tally, tmp_path):
    place, undisturbed = Stopped(tmp_path / "stopped", *GRID), Stopped(tmp_path / "undisturbed", *GRID)
    lost = []
    with ThreadPoolExecutor(1) as thread:
        reference = thread.submit(undisturbed.finish)
        for moment in MOMENTS if tally.every else [while_training]:
            try:
                with tally:
                    moment(place)
            except AssertionError:
                lost.append(traceback.format_exc())
        with tally:
            assert "2 of 2 runs are done." in place.finish()
            reference.result()
            assert_undisturbed(place, undisturbed)
    tally.note = f"stopped after {', '.join(f'{one:.1f}' for one in place.seconds)} s"
    assert not lost, "\n\n".join(lost)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_tables_that_were_stopped_are_made_by_the_next_command(tally, tmp_path):
    place = Stopped(tmp_path, "analysis tables")
    make_grid(place.runs, "cs-kd", seeds=2, epochs=3)
    sync_plan(place.uri, load_plans(place.runs)[0], place.runs)
    with tally:
        assert place.strike("analysis.written:save_table", 1, signal.SIGTERM) == (130, "", GOES_ON)
    assert "digits" in place.finish()


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_a_study_stops_soon_and_the_same_command_goes_on(tally, tmp_path):
    place, undisturbed = Stopped(tmp_path / "stopped", *TUNE), Stopped(tmp_path / "undisturbed", *TUNE)
    with ThreadPoolExecutor(1) as thread:
        reference = thread.submit(undisturbed.finish)
        with tally:
            status, _, errors = place.stop(signal.SIGTERM, signal.SIGTERM, after=place.train_on(1))
            assert (status, errors) == (130, "")
            assert [folder.state()["state"] for folder in place.folders()] == [INTERRUPTED] * 2
            assert [trial.state for trial in trials_of(place)] == [RUNNING] * 2
            place.finish()
            reference.result()
            trials, whole = trials_of(place), trials_of(undisturbed)
            assert [trial.state for trial in trials] == [COMPLETE] * 2
            for one, other in zip(trials, whole, strict=True):
                assert (one.parameters, one.metrics, one.runs) == (other.parameters, other.metrics, other.runs)
            assert [status for _, status, _ in tagged(place.folder / "mlflow.db", kind="trial")] == ["FINISHED"] * 2


def trials_of(place: Stopped) -> list[Trial]:
    return load_study(str(place.runs / "studies" / "journal.log"), "digits-cs-kd-demo")[1]
