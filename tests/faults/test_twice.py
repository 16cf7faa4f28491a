"""The same grid launched twice at once: each run is trained once, and dead or suspended workers are replaced."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from builders import empty_store
from faults.backend import assert_uploaded_once
from faults.disturbed import STRIKES, WAIT_SECONDS, assert_same_results, wait_for
from filelock import SoftFileLease
from place import ROOT, Place

from experiments.runs.folder import RunFolder

FAULT = "the same grid launched twice at once"
SETTINGS = ("--set", "schedule.epochs=6", "--set", "schedule.milestones=[4]", "--set", "width=4")
LEASE_SECONDS = 8.0
WAITS = "another process trains it: waiting for it"

# One of three processes that find the same dead owners and compete for their leases, 20 at a time.
RACER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from experiments.runs import lease
lease.LEASE_SECONDS = 1.0
def race(folder):
    with lease.run_lease(folder, patience=4.0) as owned:
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


class Machine(Place):
    """Another machine with the data, runs and tracking store of a place, simulated on this one.

    Its processes see another host name, so that they judge leases of the other machine by their age alone. Leases
    expire after seconds. Everything else is real: commands, files, signals.

    strikes: as in ``strikes/sitecustomize.py``, mostly with the seeds of runs as targets.
    """

    def __init__(self, place: Place, name: str, *strikes: str):
        super().__init__(place.folder)
        self.struck = place.folder / f"struck.{name}"
        self.environment = place.environment | {
            "PYTHONPATH": os.pathsep.join([str(STRIKES), str(ROOT)]),
            "STRIKES": " ".join(strikes),
            "STRUCK": str(self.struck),
            "MACHINE": name,
            "LEASE_SECONDS": str(LEASE_SECONDS),
        }

    def has_struck(self, seed: int) -> bool:
        return Path(f"{self.struck}.{seed}").exists()


def owner_of(folder: Path) -> tuple[str, int] | None:
    """Return (machine, process) that hold a run."""
    owner = SoftFileLease(folder / "lease").owner
    return (owner.hostname.partition("?")[0], owner.pid) if owner else None


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Place:
    """Prepared data, and undisturbed runs."""
    place = Place(tmp_path_factory.mktemp("reference"))
    empty_store(place.folder)
    assert launch(place, SLEEPS).wait(timeout=WAIT_SECONDS) == 0
    return place


def launch(place: Place, seeds) -> subprocess.Popen:
    """Start a grid with a worker per run; each has one thread."""
    arguments = ("demo", "--methods", "cs-kd", "--seeds", *map(str, seeds), "--workers", str(max(2, len(seeds))))
    return place.start("experiments grid", *arguments, *SETTINGS)


def finish(process: subprocess.Popen, runs: int) -> str:
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, errors) == (0, ""), output
    assert f"{runs} of {runs} runs are done." in output
    return output


def by_seed(place: Place) -> dict[int, RunFolder]:
    return {folder.spec().seed: folder for folder in place.folders()}


def check(place: Place, reference: Place, starts: dict[int, int]) -> None:
    """Check the results, and how often each seed's run was started."""
    runs, expected = by_seed(place), by_seed(reference)
    assert {seed: len(folder.starts()) for seed, folder in runs.items()} == starts
    for seed, folder in runs.items():
        assert_same_results(folder, expected[seed])
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())


def one_machine(reference: Place, place: Place) -> None:
    processes = [launch(place, range(2)) for _ in range(2)]
    for process in processes:
        finish(process, 2)
    check(place, reference, starts={0: 1, 1: 1})


def two_machines(reference: Place, place: Place) -> None:
    processes = [launch(Machine(place, name), range(3)) for name in ("a", "b")]
    for process in processes:
        finish(process, 3)
    check(place, reference, starts={0: 1, 1: 1, 2: 1})


def machine_that_dies(reference: Place, place: Place) -> None:
    """Its workers hang, but live; the other machine waits for them until they are killed."""
    hang = [f"cskd.train.trainer:Trainer.train_epoch:4:before:HANG:{seed}" for seed in range(2)]
    a, b = Machine(place, "a", *hang), Machine(place, "b")
    first = launch(a, range(2))
    assert wait_for(lambda: a.has_struck(0) and a.has_struck(1), first)
    second = launch(b, range(2))
    waiting = (line for line in second.stdout if WAITS in line)
    next(waiting), next(waiting)
    time.sleep(LEASE_SECONDS + 1)
    owners = [owner_of(folder.path) for folder in place.folders()]
    assert [machine for machine, _ in owners] == ["a", "a"]
    first.kill()
    for _, process in owners:
        os.kill(process, signal.SIGKILL)
    first.communicate()
    finish(second, 2)
    check(place, reference, starts={0: 2, 1: 2})
    finish(launch(Machine(place, "c"), range(2)), 2)  # a third machine finds everything done
    check(place, reference, starts={0: 2, 1: 2})


# seed -> the call before which its worker is suspended
SLEEPS = {
    0: "cskd.train.trainer:Trainer.train_epoch:4",
    1: "cskd.train.trainer:Trainer._save:2",
    2: "cskd.train.checkpoint:Checkpoints._keep_previous:2",
    3: "cskd.evaluate.predictions:save_predictions:1",
}
UNTIL_DONE = (2, 3)  # the others wake up as soon as the other machine has taken over


def suspended_workers(reference: Place, place: Place) -> None:
    """Each learns on waking that another machine has its run, and writes nothing more."""
    strikes = [f"{call}:before:SIGSTOP:{seed}" for seed, call in SLEEPS.items()]
    a, b = Machine(place, "a", *strikes), Machine(place, "b")
    first = launch(a, SLEEPS)
    assert wait_for(lambda: all(map(a.has_struck, SLEEPS)), first)
    runs = by_seed(place)
    processes = {seed: owner_of(run.path)[1] for seed, run in runs.items()}
    second = launch(b, SLEEPS)
    for seed, run in runs.items():
        assert wait_for(lambda run=run: (owner_of(run.path) or "a")[0] == "b", first, second)
        if seed not in UNTIL_DONE:
            os.kill(processes[seed], signal.SIGCONT)
    finish(second, len(SLEEPS))
    before = {seed: stamps(runs[seed]) for seed in UNTIL_DONE}
    for seed in UNTIL_DONE:
        os.kill(processes[seed], signal.SIGCONT)
    output = finish(first, len(SLEEPS))
    assert output.count(WAITS) == len(SLEEPS)
    assert {seed: stamps(runs[seed]) for seed in UNTIL_DONE} == before
    check(place, reference, starts=dict.fromkeys(SLEEPS, 2))


def stamps(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """Return when each file was written, but for the log."""
    files = [path for path in folder.path.iterdir() if path.suffix not in (".txt", ".part")]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
@pytest.mark.parametrize(
    "case", [one_machine, two_machines, machine_that_dies, suspended_workers], ids=lambda case: case.__name__
)
def test_each_run_is_trained_once_with_the_undisturbed_results(tally, reference, tmp_path, case):
    place = Place(tmp_path)
    empty_store(tmp_path)
    place.environment["DATA_DIR"] = reference.environment["DATA_DIR"]
    with tally:
        case(reference, place)
