"""Processes that are killed or stopped, at critical and at random moments.

The same command then continues, and ends with the results of an undisturbed one.
"""

import random
import time
from collections.abc import Callable, Sequence

import pytest
from faults.disturbed import GRID, Disturbed, strike, tagged
from place import Place, epoch_options

from cskd.utils.cli import STOPPED
from experiments.runs.folder import DONE, INTERRUPTED
from experiments.tuning.storage import load_study

KILLED = "kill -9 at random and at critical moments"
FIRST = "kill -9 while everything is first created"
SIGNALLED = "SIGTERM, SIGINT, once and twice"
MAX_SECONDS = 90  # from a signal to the end; generous, for a busy machine

MLFLOW_STORE = "mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore"
MLFLOW_ARTIFACTS = "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository"
TRAIN_EPOCH = "cskd.train.trainer:Trainer.train_epoch"
EVALUATE = "cskd.train.trainer:Trainer._evaluate_batch"
KEEP_PREVIOUS = "cskd.train.checkpoint:Checkpoints._keep_previous"
FOLDER = "experiments.runs.folder:RunFolder"
START_WORKER = "experiments.launch.backends.local:LocalBackend.start"
SET_TERMINATED = "mlflow:MlflowClient.set_terminated"

# The number of workers, the strikes of an early launch, and the strike of a late one. The launcher calls set_terminated
# for each worker that has died.
KILLS = {
    "a checkpoint is written, and has not replaced the old one": (
        "2",
        [strike(KEEP_PREVIOUS, 1), strike(SET_TERMINATED, 2)],
        strike(f"{MLFLOW_STORE}._log_metrics", 1, when="after"),
    ),
    "in an evaluation, and before the second worker is started": (
        "1",
        [strike(EVALUATE, 7), strike(START_WORKER, 2)],
        strike("cskd.evaluate.predictions:write_archive", 1),
    ),
    "the old checkpoint is moved away, and the new one is not there yet": (
        "2",
        [strike(KEEP_PREVIOUS, 2, when="after"), strike(f"{MLFLOW_STORE}.create_run", 3, when="after")],
        strike(f"{MLFLOW_ARTIFACTS}.log_artifact", 2, when="after"),
    ),
    "an epoch is in the checkpoint, and not yet in metrics.jsonl": (
        "2",
        [strike(f"{FOLDER}.write_epochs", 3), strike(SET_TERMINATED, 2)],
        strike(f"{FOLDER}.remove_checkpoints", 1),
    ),
}


@pytest.mark.fault(KILLED)
@pytest.mark.slow_fault
@pytest.mark.parametrize("moments", KILLS)
def test_grid_killed_again_and_again_ends_with_the_undisturbed_results(tally, undisturbed, tmp_path, moments):
    workers, early, late = KILLS[moments]
    place, draw = Disturbed(tmp_path, *GRID, "--seeds", "0", "1", "--workers", workers), random.Random(moments)

    def at_random(target: str) -> str:
        return strike(TRAIN_EPOCH, draw.randrange(1, 5), target=target, when=f"{draw.uniform(0, 0.1):.3f}")

    with tally:
        place.kill_after(draw.uniform(1, 6))
    for strikes in (early, [at_random("0"), at_random("1")], [at_random("parent")], [late]):
        with tally:
            place.strike(*strikes)
    with tally:
        place.finish(undisturbed)


def finish_study(place: Disturbed, reference: Place) -> None:
    """Launch the study undisturbed; compare its runs and trials with the reference's."""
    place.repeat(reference)
    assert trials(place) == trials(reference)


def trials(place: Place) -> list[tuple]:
    stored = load_study(str(place.runs / "studies" / "journal.log"), "digits-cs-kd-demo")[1]
    return [(trial.state, trial.parameters, trial.values, trial.runs) for trial in stored]


FIRST_LAUNCHES = {
    "grid": (("experiments grid", "demo", "--seeds", "0"), Disturbed.finish),
    "study": (("experiments tune", "--dataset", "digits", "--trials", "2"), finish_study),
}


@pytest.mark.fault(FIRST)
@pytest.mark.slow_fault
@pytest.mark.parametrize("name", FIRST_LAUNCHES)
def test_killed_first_launch_ends_with_the_undisturbed_results(tally, tmp_path, name):
    """It makes the data, the run folders, MLflow's database and the study's journal."""
    command, finish = FIRST_LAUNCHES[name]

    def make_place(folder: str) -> Disturbed:
        place = Disturbed(tmp_path / folder, *command, "--workers", "2", *epoch_options(2))
        (place.folder / "mlflow.db").unlink()
        return place

    whole, started = make_place("whole"), time.monotonic()
    status, output = whole.end(whole.launch())
    assert status == 0, output
    imports, seconds = 2.0, time.monotonic() - started
    draw = random.Random(name)
    for case in range(4):
        place = make_place(f"killed {case}")
        with tally:  # at a random moment in each quarter of the launch
            place.kill_after(imports + (seconds - imports) * (case + draw.random()) / 4)
            finish(place, whole)
    place = make_place("workers killed")
    with tally:
        place.strike(strike(TRAIN_EPOCH, 2, target="worker"))
        finish(place, whole)


def stop(place: Disturbed, *strikes: str, reason: str | None = None) -> None:
    """Launch and stop the grid.

    reason: of at least one stopped run; the other may be stopped while it starts. A short run may end before the stop
    reaches it.
    """
    status, output = place.strike(*strikes)
    assert (status, output.count(STOPPED)) == (130, 1), output
    assert time.time() - place.hits()[0][0] < MAX_SECONDS
    states = [folder.state() for folder in place.folders()]
    assert {state["state"] for state in states} <= {INTERRUPTED, DONE}
    stopped = [state for state in states if state["state"] == INTERRUPTED]
    if reason and stopped:
        assert reason in {state["reason"] for state in stopped}
        statuses = ["FINISHED"] * (len(states) - len(stopped)) + ["KILLED"] * len(stopped)
        assert sorted(status for _, status in tagged(place.database, kind="run")) == statuses


def stop_training(place: Disturbed) -> None:
    stop(place, strike(TRAIN_EPOCH, 1, "SIGTERM", "parent"), reason="interrupted: stopped by SIGTERM")


def stop_evaluation(place: Disturbed) -> None:
    stop(place, strike(EVALUATE, 6, "SIGINT", "parent"), reason="interrupted: Ctrl-C")


def stop_a_step_that_does_not_end(place: Disturbed) -> None:
    """Suspended processes stand for it."""
    strikes = (strike(EVALUATE, 6, "SIGINT", "parent"), strike(EVALUATE, 6, "SIGSTOP", "worker"))
    stop(place, *strikes, reason="interrupted: killed before it stopped by itself")


def stop_twice(place: Disturbed) -> None:
    stop(place, *(strike(TRAIN_EPOCH, 2, "SIGINT", "parent", when) for when in ("before", "0.1")))


def stop_preparation(place: Disturbed) -> None:
    stop(place, strike("cskd.data.prepare:write_dataset", 1, "SIGINT"))
    assert not place.folders()
    assert not [path for path in place.folder.rglob("*digits*") if path.is_dir()]


def stop_the_last_upload(place: Disturbed) -> None:
    """Nothing is left to stop: the upload is completed."""
    status, output = place.strike(strike("experiments.tracking.uploader:Uploader.__exit__", 1, "SIGTERM", when="0.1"))
    assert (status, output.count(STOPPED)) == (0, 0), output


def kill_worker_and_launcher(place: Disturbed) -> None:
    """Each in a launch of its own: in one launch, the launcher may be killed before the worker trains.

    The worker is killed in an evaluation, which also follows if the stopped run had trained its last epoch.
    """
    for one in (strike(EVALUATE, 1), strike(SET_TERMINATED, 1)):
        place.strike(one)


def disturb(tally, place: Disturbed, disturbances: Sequence[Callable], reference: Place) -> None:
    """Launch the grid once for each disturbance, and at last undisturbed."""
    for disturbance in disturbances:
        with tally:
            disturbance(place)
    with tally:
        place.finish(reference)


@pytest.mark.fault(SIGNALLED)
def test_stopped_and_killed_run_ends_with_the_undisturbed_results(tally, demo_grid, tmp_path):
    place = Disturbed(tmp_path, *demo_grid.command, "--methods", "cs-kd")
    disturb(tally, place, (stop_training, kill_worker_and_launcher), demo_grid)


STOPS = (stop_preparation, stop_twice, stop_evaluation, stop_a_step_that_does_not_end, stop_training)


@pytest.mark.fault(SIGNALLED)
@pytest.mark.slow_fault
def test_grid_stopped_again_and_again_ends_with_the_undisturbed_results(tally, undisturbed, tmp_path):
    place = Disturbed(tmp_path, *GRID, "--seeds", "0", "1")
    disturb(tally, place, (*STOPS, stop_the_last_upload), undisturbed)
