"""``kill -9`` of workers and launchers, at random moments and at critical ones: results are the undisturbed run's."""

import random
import subprocess
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from faults.disturbed import WAIT_SECONDS, Disturbed, assert_undisturbed, kill, wait_for, workers_of

FAULT = "kill -9 at a random moment"
EPOCHS = 12
SETTINGS = ("--set", "width=4", "--set", f"schedule.epochs={EPOCHS}", "--set", f"schedule.milestones=[{EPOCHS // 2}]")
GRID = ("experiments grid", "demo", "--seeds", "0", "--workers", "2", *SETTINGS)
ONE_WORKER = tuple("1" if word == "2" else word for word in GRID)


def suicide(function: str, count: int, when: str = "before") -> str:
    """Return the strike of a process that kills itself at the n-th call."""
    return f"{function}:{count}:{when}:SIGKILL:self"


MLFLOW_STORE = "mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore"
MLFLOW_ARTIFACTS = "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository"
KEEP_PREVIOUS = "cskd.train.checkpoint:Checkpoints._keep_previous"
EVALUATE = "cskd.train.trainer:Trainer._evaluate_batch"
FOLDER = "experiments.runs.folder:RunFolder"
UPLOADED_BOTH = suicide("mlflow:MlflowClient.set_terminated", 2)  # the launcher, after both workers have died

# (command, strikes of the first disturbed launch, strikes of a later one)
CASES = [
    # a checkpoint is written, and has not replaced the old one
    (GRID, (suicide(KEEP_PREVIOUS, 1), UPLOADED_BOTH), (suicide(f"{MLFLOW_STORE}._log_metrics", 1, "after"),)),
    (
        ONE_WORKER,
        # in an evaluation, and the launcher between two runs
        (suicide(EVALUATE, 7), suicide("experiments.launch.backends.local:LocalBackend.start", 2)),
        (suicide("cskd.evaluate.predictions:write_archive", 1),),
    ),
    (
        GRID,
        # the old checkpoint is moved away, and the new one is not there yet
        (suicide(KEEP_PREVIOUS, 2, "after"), suicide(f"{MLFLOW_STORE}.create_run", 3, "after")),
        (suicide(f"{MLFLOW_ARTIFACTS}.log_artifact", 2, "after"),),
    ),
    (
        GRID,
        (suicide(f"{FOLDER}.write_epochs", 3), UPLOADED_BOTH),  # in the checkpoint, and not yet in metrics.jsonl
        (suicide(f"{FOLDER}.remove_checkpoints", 1),),
    ),
]


class Killed(Disturbed):
    """A grid that is killed, and how often."""

    def __init__(self, folder: Path, command: tuple[str, ...], seed: int):
        super().__init__(folder, *command)
        self.random = random.Random(seed)
        self.kills = 0
        self.uploaded: set[tuple[str, str]] = set()

    def strike(self, *strikes: str) -> None:
        self.end(self.launch(*strikes))
        assert self.hits(), strikes
        self.kills += self.hits()

    def kill_workers(self) -> None:
        """Kill each worker at a random moment of a random epoch."""
        process, moments = self.launch(), {}
        while process.poll() is None:
            for pid, folder in workers_of(process).items():
                key, epochs = folder.path.name, folder.count_epochs()
                reached = min(epochs + self.random.randrange(4), EPOCHS - 1)
                epoch, delay = moments.setdefault(key, (reached, self.random.uniform(0, 0.1)))
                if epochs >= epoch >= 0:
                    time.sleep(delay)
                    if pid in workers_of(process):
                        kill(pid)
                        self.kills += 1
                    moments[key] = (-1, 0.0)
            time.sleep(0.002)
        self.end(process)

    def kill_launcher(self, *, workers: bool, seconds: float | None = None) -> None:
        """Kill the launcher after a random epoch or some seconds; without its workers, they stop by themselves."""
        process, reached = self.launch(), self.epochs() + self.random.randrange(1, 5)
        if seconds is None:
            wait_for(lambda: self.epochs() >= reached, process)
            seconds = self.random.uniform(0, 0.1)
        time.sleep(seconds)
        if process.poll() is None:
            kill(process.pid, *(workers_of(process) if workers else ()))
            self.kills += 1
        self.end(process)

    def end(self, process: subprocess.Popen) -> str:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in output + errors
        uploaded = self.uploaded_runs()
        assert self.uploaded <= uploaded  # a resumed run keeps its MLflow run
        self.uploaded = uploaded
        return output

    def finish(self) -> None:
        process = self.launch()
        output = self.end(process)
        assert process.returncode == 0, output
        assert "2 of 2 runs are done." in output


def disturb(place: Killed, first: tuple[str, ...], later: tuple[str, ...]) -> None:
    place.kill_launcher(workers=True, seconds=place.random.uniform(1, 8))
    place.strike(*first)
    place.kill_workers()
    place.kill_launcher(workers=False)
    place.strike(*later)
    place.finish()


@pytest.mark.fault(FAULT)
def test_grid_that_is_killed_again_and_again_ends_with_the_undisturbed_results(tally, tmp_path):
    cases = CASES[: tally.cases(len(CASES), 1)]
    places = [Killed(tmp_path / str(number), command, number) for number, (command, *_) in enumerate(cases)]
    undisturbed = Killed(tmp_path / "undisturbed", GRID, 0)
    with ThreadPoolExecutor(2) as threads:
        reference = threads.submit(undisturbed.finish)
        if tally.every:
            ends = [threads.submit(disturb, place, *case[1:]) for place, case in zip(places, cases, strict=True)]
        else:  # both workers while they write a checkpoint, then the launcher in the upload
            ends = [threads.submit(lambda: (places[0].strike(*cases[0][1]), places[0].finish()))]
    reference.result()
    lost = []
    for place, end in zip(places, ends, strict=True):
        try:
            end.result()
            assert_undisturbed(place, undisturbed)
            survived = True
        except AssertionError:
            survived = False
            lost.append(f"{place.folder.name}: {traceback.format_exc()}")
        for _ in range(max(place.kills, 1)):  # each kill is a case
            with suppress(AssertionError), tally:
                assert survived
    assert not lost, "\n\n".join(lost)
    assert sum(place.kills for place in places) >= tally.cases(25, 2)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_study_whose_runs_are_killed_is_continued_by_the_same_command(tally, tmp_path):
    place = Disturbed(tmp_path, "experiments tune", "--dataset", "digits", "--trials", "2", "--workers", "2", *SETTINGS)
    process = place.launch(f"{EVALUATE}:3:before:SIGKILL:worker")
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    with tally:
        assert (process.returncode, errors, place.hits()) == (1, "", 2), output
    process = place.launch()
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    with tally:
        assert (process.returncode, errors) == (0, ""), output
        assert "2 complete" in output
