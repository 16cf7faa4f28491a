"""Several launches at once: each run is trained and uploaded once, and dead or suspended workers are replaced."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import get_context

import pytest
from faults.disturbed import GRID, WAIT_SECONDS, Disturbed, assert_same_results, assert_uploaded_once, strike, wait_for
from filelock import SoftFileLease
from place import ROOT, Place
from run_folders import make_grid

from experiments.runs.folder import RunFolder
from experiments.runs.stored_plan import load_plans
from experiments.tracking.grids import sync_plan

FAULT = "the same grid launched twice at once"
LEASE_SECONDS = 8.0
WAITS = "another process trains it: waiting for it"

# Three such processes compete for the leases of the same dead owners, 20 leases at a time.
RACER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from experiments.runs import lease
lease.LEASE_SECONDS = 1.0
def race(folder):
    with lease.LeasedFolder(folder).leased(patience=4.0) as owned:
        (folder / f"outcome.{sys.argv[1]}").write_text(str(owned is not None))
        while len(list(folder.glob("outcome.*"))) < 3:
            time.sleep(0.02)
with ThreadPoolExecutor(20) as threads:
    list(threads.map(race, sorted(Path(sys.argv[2]).iterdir())))
"""
DEAD_OWNER = "filelock/2\npid=1\nhost=another\nmode=lease\ntoken=1\nduration=1.0\n"


@pytest.mark.fault(FAULT)
def test_of_several_processes_exactly_one_takes_over_from_a_dead_owner(tally, tmp_path):
    folders = [tmp_path / str(number) for number in range(tally.cases(200, 20))]
    for folder in folders:
        folder.mkdir()
        (folder / "lease").write_text(DEAD_OWNER)
    racers = [subprocess.Popen([sys.executable, "-c", RACER, name, str(tmp_path)], cwd=ROOT) for name in "abc"]
    assert [racer.wait(timeout=WAIT_SECONDS) for racer in racers] == [0, 0, 0]
    for folder in folders:
        with tally:
            assert sorted(path.read_text() for path in folder.glob("outcome.*")) == ["False", "False", "True"]


@pytest.mark.fault("SQLite with 4 processes that upload")
def test_simultaneous_uploads_to_a_new_database_lose_nothing(tally, tmp_path):
    """Each process has its own RUNS_DIR; all upload to the same experiment."""
    methods = ["cross-entropy", "cs-kd", "label-smoothing", "max-entropy"][: tally.cases(4, 2)]
    seeds, epochs = tally.cases(3, 1), tally.cases(150, 30)
    uri, processes = f"sqlite:///{tmp_path / 'mlflow.db'}", []
    places = [Place(tmp_path / method) for method in methods]
    for place, method in zip(places, methods, strict=True):
        make_grid(place.runs, method, seeds, epochs)
        (plan,) = load_plans(place.runs)
        processes.append(get_context("fork").Process(target=sync_plan, args=(uri, plan, place.runs)))
    for process in processes:
        process.start()
    for place, process in zip(places, processes, strict=True):
        process.join(timeout=WAIT_SECONDS)
        with tally:
            assert process.exitcode == 0
            assert_uploaded_once(tmp_path / "mlflow.db", place.folders())


class Shared(Disturbed):
    """Data, runs and a tracking store that several launches use, as on machines that share a folder.

    Processes of another machine have another host name, so that they judge leases by their age alone, and leases expire
    after seconds. Everything else is real: commands, files, signals.
    """

    def on_machine(self, name: str, *strikes: str) -> subprocess.Popen:
        return self.launch(*strikes, MACHINE=name, LEASE_SECONDS=str(LEASE_SECONDS))

    def has_struck(self, *seeds: int) -> bool:
        return {strike.rpartition(":")[2] for _, strike in self.hits()} == set(map(str, seeds))

    def by_seed(self) -> dict[int, RunFolder]:
        return {folder.spec().seed: folder for folder in self.folders()}

    def complete(self, process: subprocess.Popen) -> str:
        """Wait for a launch that finishes the grid, and return its output."""
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        runs = len(self.folders())
        assert (process.returncode, errors) == (0, ""), output
        assert f"{runs} of {runs} runs are done." in output
        return output

    def check(self, reference: Place, starts: int) -> None:
        """Check the results, and how often each run was started."""
        assert [len(folder.starts()) for folder in self.folders()] == [starts] * len(self.folders())
        assert_same_results(self, reference)
        assert_uploaded_once(self.database, self.folders())


@pytest.fixture
def shared(tmp_path) -> Shared:
    return Shared(tmp_path, *GRID, "--workers", "4", "--seeds", "0", "1")


def owner_of(folder: RunFolder) -> tuple[str, int] | None:
    """Return (machine, process) that hold a run."""
    owner = SoftFileLease(folder.path / "lease").owner
    return (owner.hostname.partition("?")[0], owner.pid) if owner else None


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_two_launches_on_one_machine_train_each_run_once(tally, undisturbed, shared):
    with tally:
        for process in [shared.launch(), shared.launch()]:
            shared.complete(process)
        shared.check(undisturbed, starts=1)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_two_machines_train_each_run_once(tally, undisturbed, shared):
    shared.command += ("2",)  # three seeds
    with tally:
        for process in [shared.on_machine("a"), shared.on_machine("b")]:
            shared.complete(process)
        shared.check(undisturbed, starts=1)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_machine_that_dies_is_replaced(tally, undisturbed, shared):
    """Its workers hang, but live; the other machine waits for them until they are killed."""
    hang = [strike("cskd.train.trainer:Trainer.train_epoch", 4, "HANG", str(seed)) for seed in range(2)]
    with tally:
        first = shared.on_machine("a", *hang)
        wait_for(lambda: shared.has_struck(0, 1), first)
        second = shared.on_machine("b")
        waiting = (line for line in second.stdout if WAITS in line)
        next(waiting), next(waiting)
        time.sleep(LEASE_SECONDS + 1)
        owners = [owner_of(folder) for folder in shared.folders()]
        assert [machine for machine, _ in owners] == ["a", "a"]
        first.kill()
        for _, process in owners:
            os.kill(process, signal.SIGKILL)
        first.communicate()
        shared.complete(second)
        shared.check(undisturbed, starts=2)
        shared.complete(shared.on_machine("c"))  # a third machine finds everything done
        shared.check(undisturbed, starts=2)


# The call before which the worker of each seed is suspended.
SLEEPS = [
    "cskd.train.trainer:Trainer.train_epoch:4",
    "cskd.train.trainer:Trainer._save:2",
    "cskd.train.checkpoint:Checkpoints._keep_previous:2",
    "cskd.evaluate.predictions:save_predictions:1",
]
# These seeds' workers wake up after the other machine has finished; the others do as soon as it has taken over.
UNTIL_DONE = (2, 3)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_suspended_worker_whose_run_was_taken_over_writes_nothing_more(tally, undisturbed, shared):
    shared.command += ("2", "3")
    with tally:
        first = shared.on_machine("a", *(f"{call}:before:SIGSTOP:{seed}" for seed, call in enumerate(SLEEPS)))
        wait_for(lambda: shared.has_struck(*range(4)), first)
        runs = shared.by_seed()
        sleepers = {seed: owner_of(run)[1] for seed, run in runs.items()}
        second = shared.on_machine("b")
        for seed, run in runs.items():
            wait_for(lambda run=run: (owner_of(run) or "a")[0] == "b", first, second)
            if seed not in UNTIL_DONE:
                os.kill(sleepers[seed], signal.SIGCONT)
        shared.complete(second)
        before = [stamps(runs[seed]) for seed in UNTIL_DONE]
        for seed in UNTIL_DONE:
            os.kill(sleepers[seed], signal.SIGCONT)
        assert shared.complete(first).count(WAITS) == len(SLEEPS)
        assert [stamps(runs[seed]) for seed in UNTIL_DONE] == before
        shared.check(undisturbed, starts=2)


def stamps(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """Return when each file was written, but for the log."""
    files = [path for path in folder.path.iterdir() if path.suffix not in (".txt", ".part")]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}
