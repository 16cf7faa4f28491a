"""``kill -9``: of a run's process, of the launcher, of both, at random moments and at those that matter most."""

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
GRID = ("experiments grid", "demo", "--seeds", "0", "--workers", "2", "--set", "width=4")
GRID += ("--set", f"schedule.epochs={EPOCHS}", "--set", f"schedule.milestones=[{EPOCHS // 2}]")
ONE_BY_ONE = tuple("1" if word == "2" else word for word in GRID)


def in_itself(function: str, count: int, when: str = "before") -> str:
    """A strike: the process kills itself at the n-th call."""
    return f"{function}:{count}:{when}:SIGKILL:self"


STORE = "mlflow.store.tracking.sqlalchemy_store:SqlAlchemyStore"
ARTIFACTS = "mlflow.store.artifact.local_artifact_repo:LocalArtifactRepository"
KEPT = "cskd.checkpoints:Checkpoints._keep_previous"
BOTH_TOLD = in_itself("mlflow:MlflowClient.set_terminated", 2)  # in the tracking, once both runs have been hit

# (the command, strikes of the second launch, strikes of the fifth)
GRIDS = [
    # a checkpoint is written aside, and not yet in its place
    (GRID, (in_itself(KEPT, 1), BOTH_TOLD), (in_itself(f"{STORE}._log_metrics", 1, "after"),)),
    (
        ONE_BY_ONE,
        # between two runs, the first of which was killed in its evaluation
        (in_itself("cskd.training:Trainer._evaluated", 7), in_itself("experiments.launch:_start", 2)),
        (in_itself("cskd.predictions:write_sealed", 1),),
    ),
    (
        GRID,
        # the checkpoint before has been put aside, and there is none in its place
        (in_itself(KEPT, 2, "after"), in_itself(f"{STORE}.create_run", 3, "after")),
        (in_itself(f"{ARTIFACTS}.log_artifact", 2, "after"),),
    ),
    (
        GRID,
        (in_itself("experiments.run_folder:RunFolder.add_epoch", 3), BOTH_TOLD),  # in the checkpoint, not yet recorded
        (in_itself("experiments.run_folder:RunFolder.remove_checkpoints", 1),),
    ),
]


class Killed(Disturbed):
    """A grid, and how often it has been killed."""

    def __init__(self, folder: Path, command: tuple[str, ...], seed: int):
        super().__init__(folder, *command)
        self.draw = random.Random(seed)
        self.kills = 0
        self.message: set[tuple[str, str]] = set()

    def strike(self, *strikes: str) -> None:
        """The launch goes on to its end, or to the strike that hits itself."""
        self.ends(self.launch(*strikes))
        assert self.hits(), strikes
        self.kills += self.hits()

    def kill_workers(self) -> None:
        """Each at a random epoch, and at a random moment of it."""
        process, moments = self.launch(), {}
        while process.poll() is None:
            for pid, folder in workers_of(process).items():
                key, epochs = folder.path.name, folder.count_epochs()
                reached = min(epochs + self.draw.randrange(4), EPOCHS - 1)
                epoch, delay = moments.setdefault(key, (reached, self.draw.uniform(0, 0.1)))
                if epochs >= epoch >= 0:
                    time.sleep(delay)
                    if pid in workers_of(process):
                        kill(pid)
                        self.kills += 1
                    moments[key] = (-1, 0.0)
            time.sleep(0.002)
        self.ends(process)

    def kill_launcher(self, *, workers: bool, seconds: float | None = None) -> None:
        """At a random epoch, or after some seconds. workers: with it; else they notice by themselves."""
        process, reached = self.launch(), self.epochs() + self.draw.randrange(1, 5)
        if seconds is None:
            wait_for(lambda: self.epochs() >= reached, process)
            seconds = self.draw.uniform(0, 0.1)
        time.sleep(seconds)
        if process.poll() is None:
            kill(process.pid, *(workers_of(process) if workers else ()))
            self.kills += 1
        self.ends(process)

    def ends(self, process: subprocess.Popen) -> str:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert "Traceback" not in output + errors
        message = self.told_runs()
        assert self.message <= message  # a run of MLflow's stays the run's
        self.message = message
        return output

    def finish(self) -> None:
        process = self.launch()
        output = self.ends(process)
        assert process.returncode == 0
        assert "2 of 2 runs are done." in output
        assert "All is tracked in MLflow" in output


def disturb(place: Killed, second: tuple[str, ...], fifth: tuple[str, ...]) -> None:
    place.kill_launcher(workers=True, seconds=place.draw.uniform(1, 8))
    place.strike(*second)
    place.kill_workers()
    place.kill_launcher(workers=False)
    place.strike(*fifth)
    place.finish()


@pytest.mark.fault(FAULT)
def test_a_grid_that_is_killed_again_and_again_ends_as_if_nothing_had_been(tally, tmp_path):
    count = tally.cases(len(GRIDS), 1)
    places = [Killed(tmp_path / str(number), GRIDS[number][0], number) for number in range(count)]
    undisturbed = Killed(tmp_path / "undisturbed", GRID, 0)
    with ThreadPoolExecutor(2) as threads:
        reference = threads.submit(undisturbed.finish)
        if tally.every:
            done = [
                threads.submit(disturb, place, *strikes) for place, (_, *strikes) in zip(places, GRIDS, strict=True)
            ]
        else:  # both runs in the write of a checkpoint, then the launcher in its tracking
            done = [threads.submit(lambda: (places[0].strike(*GRIDS[0][1]), places[0].finish()))]
    reference.result()
    lost = []
    for place, future in zip(places, done, strict=True):
        try:
            future.result()
            assert_undisturbed(place, undisturbed)
            survived = True
        except AssertionError:
            survived = False
            lost.append(f"{place.folder.name}: {traceback.format_exc()}")
        for _ in range(max(place.kills, 1)):  # each of them is a case, which the end decides
            with suppress(AssertionError), tally:
                assert survived
    assert not lost, "\n\n".join(lost)
    assert sum(place.kills for place in places) >= tally.cases(25, 2)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_a_study_whose_runs_are_killed_ends_and_the_same_command_goes_on(tally, tmp_path):
    place = Disturbed(tmp_path, "experiments tune", "--dataset", "digits", "--trials", "2", *GRID[4:])
    process = place.launch("cskd.training:Trainer._evaluated:3:before:SIGKILL:worker")
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    with tally:
        assert (process.returncode, errors) == (1, "")
        assert place.hits() == 2
        assert "2 of them interrupted: the same command goes on with them" in output
    process = place.launch()
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    with tally:
        assert (process.returncode, errors) == (0, "")
        assert "2 trials begun of 2: 2 complete." in output
