"""``kill -9`` of workers and launchers, at random moments and at critical ones: results are the undisturbed run's."""

import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from faults.backend import rows
from faults.disturbed import EPOCHS, GRID, Disturbed, kill, strike, wait_for, workers_of
from place import epoch_options

FAULT = "kill -9 at a random moment"
MLFLOW_STORE = "mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore"
MLFLOW_ARTIFACTS = "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository"
TRAIN_EPOCH = "cskd.train.trainer:Trainer.train_epoch"
EVALUATE = "cskd.train.trainer:Trainer._evaluate_batch"
KEEP_PREVIOUS = "cskd.train.checkpoint:Checkpoints._keep_previous"
FOLDER = "experiments.runs.folder:RunFolder"
SET_TERMINATED = "mlflow:MlflowClient.set_terminated"

# The strikes of the first disturbed launch, and of a later one. At the second set_terminated, both workers have died.
CASES = [
    # a checkpoint is written, and has not replaced the old one
    ([strike(KEEP_PREVIOUS, 1), strike(SET_TERMINATED, 2)], strike(f"{MLFLOW_STORE}._log_metrics", 1, when="after")),
    # in an evaluation, and the launcher at the start of the second worker
    (
        [strike(EVALUATE, 7), strike("experiments.launch.backends.local:LocalBackend.start", 2)],
        strike("cskd.evaluate.predictions:write_archive", 1),
    ),
    # the old checkpoint is moved away, and the new one is not there yet
    (
        [strike(KEEP_PREVIOUS, 2, when="after"), strike(f"{MLFLOW_STORE}.create_run", 3, when="after")],
        strike(f"{MLFLOW_ARTIFACTS}.log_artifact", 2, when="after"),
    ),
    # an epoch is in the checkpoint, and not yet in metrics.jsonl
    ([strike(f"{FOLDER}.write_epochs", 3), strike(SET_TERMINATED, 2)], strike(f"{FOLDER}.remove_checkpoints", 1)),
]


@pytest.mark.fault(FAULT)
def test_killed_worker_and_launcher_are_replaced_by_the_same_command(tally, demo_grid, tmp_path):
    place = Disturbed(tmp_path, *demo_grid.command, "--methods", "cs-kd")
    with tally:
        place.strike(strike(TRAIN_EPOCH, 2), strike(SET_TERMINATED, 1))
        assert place.hits() == 2
        place.finish(demo_grid, runs=1)


class Killed(Disturbed):
    """A grid that is killed, and how often."""

    def __init__(self, folder: Path, command: tuple[str, ...], seed: int):
        super().__init__(folder, *command)
        self.random = random.Random(seed)
        self.kills = 0
        self.uploaded: set[tuple[str, str]] = set()

    def kill_workers(self) -> None:
        """Kill each worker at a random moment of a random epoch."""
        process, moments = self.launch(), {}
        while process.poll() is None:
            for pid, folder in workers_of(process).items():
                key, count = folder.path.name, folder.count_epochs()
                reached = min(count + self.random.randrange(4), EPOCHS - 1)
                epoch, delay = moments.setdefault(key, (reached, self.random.uniform(0, 0.1)))
                if count >= epoch >= 0:
                    time.sleep(delay)
                    if pid in workers_of(process):
                        kill(pid)
                        self.kills += 1
                    moments[key] = (-1, 0.0)
            time.sleep(0.002)
        self.end(process)

    def kill_launcher(self, *, workers: bool, seconds: float | None = None) -> None:
        """Kill the launcher after a random epoch or some seconds; without its workers, they stop by themselves."""
        process, reached = self.launch(), self.recorded_epochs() + self.random.randrange(1, 5)
        if seconds is None:
            wait_for(lambda: self.recorded_epochs() >= reached, process)
            seconds = self.random.uniform(0, 0.1)
        time.sleep(seconds)
        if process.poll() is None:
            kill(process.pid, *(workers_of(process) if workers else ()))
            self.kills += 1
        self.end(process)

    def end(self, process) -> tuple[int, str]:
        ended = super().end(process)
        self.kills += self.hits()
        uploaded = set(rows(self.folder / "mlflow.db", "SELECT value, run_uuid FROM tags WHERE key = 'run_key'"))
        assert self.uploaded <= uploaded  # a resumed run keeps its MLflow run
        self.uploaded = uploaded
        return ended


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
@pytest.mark.parametrize("number", range(len(CASES)))
def test_grid_that_is_killed_again_and_again_ends_with_the_undisturbed_results(tally, undisturbed, tmp_path, number):
    first, later = CASES[number]
    place = Killed(tmp_path, (*GRID, "--workers", "1" if number == 1 else "2"), number)
    survived = False
    try:
        place.kill_launcher(workers=True, seconds=place.random.uniform(1, 8))
        place.strike(*first)
        place.kill_workers()
        place.kill_launcher(workers=False)
        place.strike(later)
        place.finish(undisturbed, runs=2)
        survived = True
    finally:
        for _ in range(max(place.kills, 1)):  # each kill is a case
            with suppress(AssertionError), tally:
                assert survived


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_study_whose_runs_are_killed_is_continued_by_the_same_command(tally, tmp_path):
    command = ("experiments tune", "--dataset", "digits", "--trials", "2", "--workers", "2", "--set", "width=4")
    place = Disturbed(tmp_path, *command, *epoch_options(4))
    with tally:
        status, output = place.strike(strike(EVALUATE, 3, target="worker"))
        assert (status, place.hits()) == (1, 2), output
    with tally:
        status, output, errors = place.call(*place.command)
        assert (status, errors) == (0, ""), output
        assert "2 complete" in output
