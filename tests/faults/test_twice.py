"""The same grid launched twice at once: every run is trained once, by another where who held it is dead or asleep."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from faults.backend import assert_uploaded_once
from faults.disturbed import numbers
from faults.machines import HEARTBEAT_LIMIT, Machine, holder_of
from place import ROOT, Place

from experiments.runs.folder import DONE, RunFolder

FAULT = "the same grid launched twice at once"
SETTING = ("--set", "schedule.epochs=6", "--set", "schedule.milestones=[4]", "--set", "width=4")
WAIT_SECONDS = 240  # only against hanging

# What a machine does in a race: for each folder that it is told, once the file is there that starts the race.
RACER = """
import sys, time
from pathlib import Path
from experiments.runs import lease as claim
claim._machine = lambda: sys.argv[1]
claim._locks = lambda lock, kind=0: True  # as between machines: no lock of the others is seen
for number in range(int(sys.argv[3])):
    folder = Path(sys.argv[2], str(number))
    while not (folder / "start").exists():
        time.sleep(0.0001)
    with claim.claimed(folder, patience=0.0) as mine:
        (folder / f"said.{sys.argv[1]}").write_text("mine" if mine else "other")
        if mine:
            while not (folder / "end").exists():
                time.sleep(0.001)
"""


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Place:
    """Data, and runs that nothing disturbed."""
    place = Place(tmp_path_factory.mktemp("reference"))
    assert place.run("experiments data", "digits")[0] == 0
    assert launched(place, SLEEPS).wait(timeout=WAIT_SECONDS) == 0
    return place


def shared(folder: Path, reference: Place) -> Place:
    place = Place(folder)
    place.environment["DATA_DIR"] = reference.environment["DATA_DIR"]
    return place


def launched(place: Place, seeds) -> subprocess.Popen:
    """As many workers as runs: each has one thread then."""
    arguments = ("demo", "--methods", "cs-kd", "--seeds", *map(str, seeds), "--workers", str(max(2, len(seeds))))
    return place.start("experiments grid", *arguments, *SETTING)


def ended(process: subprocess.Popen, runs: int) -> str:
    output, errors = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, errors) == (0, ""), output
    assert f"{runs} of {runs} runs are done." in output
    return output


def wait_for(happened, *processes: subprocess.Popen) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def by_seed(place: Place) -> dict[int, RunFolder]:
    return {folder.spec().seed: folder for folder in place.folders()}


def assert_as_undisturbed(place: Place, reference: Place, starts: dict[int, int]) -> None:
    """The same bits, each run told to MLflow once, and started as often as said."""
    runs, undisturbed = by_seed(place), by_seed(reference)
    assert {seed: len(folder.starts()) for seed, folder in runs.items()} == starts
    for seed, folder in runs.items():
        other = undisturbed[seed]
        assert (folder.state()["state"], folder.damage()) == (DONE, None)
        assert numbers(folder) == numbers(other)
        assert folder.weights.read_bytes() == other.weights.read_bytes()
        assert np.array_equal(folder.load_predictions().logits, other.load_predictions().logits)
        assert not folder.checkpoint.exists() and not list(folder.path.glob("*.part"))
    assert_uploaded_once(place.folder / "mlflow.db", place.folders())


def stamps(folder: RunFolder) -> dict[str, tuple[int, int]]:
    """What was last written when; but for the log, who holds the run, and what a writer had not finished."""
    files = [path for path in folder.path.iterdir() if path.name not in ("claim", "log.txt") and path.suffix != ".part"]
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}


@pytest.mark.fault(FAULT)
def test_of_several_machines_exactly_one_takes_over(tally, tmp_path):
    """Each has found the holder dead, at the same time."""
    races = tally.cases(200, 50)
    for number in range(races):
        (tmp_path / str(number)).mkdir()
        holder = tmp_path / str(number) / "holder.1"
        holder.write_text("a machine that died 17")
        os.utime(holder, (1, 1))
    names = ["a", "b", "c"]
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, name, str(tmp_path), str(races)], cwd=ROOT) for name in names
    ]
    for number in range(races):
        folder = tmp_path / str(number)
        (folder / "start").touch()
        said = [folder / f"said.{name}" for name in names]
        wait_for(lambda said=said: all(path.exists() and path.read_text() for path in said), *racers)
        (folder / "end").touch()
        with tally:
            assert sorted(path.read_text() for path in said) == ["mine", "other", "other"]
    assert [racer.wait(timeout=WAIT_SECONDS) for racer in racers] == [0, 0, 0]


def on_one_machine(reference, folder):
    place = shared(folder, reference)
    processes = [launched(place, range(2)) for _ in range(2)]
    for process in processes:
        ended(process, 2)
    assert_as_undisturbed(place, reference, starts={0: 1, 1: 1})


def on_two_machines(reference, folder):
    place = shared(folder, reference)
    processes = [launched(Machine(place, name), range(3)) for name in ("a", "b")]
    for process in processes:
        ended(process, 3)
    assert_as_undisturbed(place, reference, starts={0: 1, 1: 1, 2: 1})


def a_machine_that_dies(reference, folder):
    """All its processes are killed; the other machine has waited for their runs as long as they were alive."""
    place = shared(folder, reference)
    at = ("cskd.train.trainer", "Trainer", "train_epoch", 4)
    a, b = Machine(place, "a", sleeps={0: at, 1: at}, hangs=True), Machine(place, "b")
    first = launched(a, range(2))
    wait_for(lambda: a.has_slept(0) and a.has_slept(1), first)
    second = launched(b, range(2))
    waited = (line for line in second.stdout if "is being trained by another process, which is waited for" in line)
    next(waited), next(waited)
    time.sleep(HEARTBEAT_LIMIT + 1)
    assert {holder_of(run.path)[0] for run in by_seed(place).values()} == {"a"}
    first.kill()
    for run in by_seed(place).values():
        machine, process = holder_of(run.path)
        assert machine == "a"
        os.kill(process, signal.SIGKILL)
    first.communicate()
    ended(second, 2)
    assert_as_undisturbed(place, reference, starts={0: 2, 1: 2})
    ended(launched(a, range(2)), 2)  # it is back, and finds all done
    assert_as_undisturbed(place, reference, starts={0: 2, 1: 2})


SLEEPS = {
    0: ("cskd.train.trainer", "Trainer", "train_epoch", 4),
    1: ("cskd.train.trainer", "Trainer", "_save", 2),
    2: ("cskd.train.checkpoint", "Checkpoints", "_keep_previous", 2),
    3: ("cskd.evaluate.predictions", "", "save_predictions", 1),
}
UNTIL_DONE = (2, 3)  # the others wake up as soon as the other machine has taken over


def workers_that_were_asleep(reference, folder):
    """Each finds, wherever it was, that another machine has its run, and leaves that alone."""
    place = shared(folder, reference)
    a, b = Machine(place, "a", SLEEPS), Machine(place, "b")
    first = launched(a, SLEEPS)
    wait_for(lambda: all(map(a.has_slept, SLEEPS)), first)
    runs, processes = by_seed(place), {}
    for seed, run in runs.items():
        machine, processes[seed] = holder_of(run.path)
        assert machine == "a"
    second = launched(b, SLEEPS)
    for seed, run in runs.items():
        wait_for(lambda run=run: (holder_of(run.path) or "a")[0] == "b", first, second)
        if seed not in UNTIL_DONE:
            os.kill(processes[seed], signal.SIGCONT)
    ended(second, len(SLEEPS))
    before = {seed: stamps(runs[seed]) for seed in UNTIL_DONE}
    for seed in UNTIL_DONE:
        os.kill(processes[seed], signal.SIGCONT)
    output = ended(first, len(SLEEPS))
    assert output.count("is being trained by another process") == len(SLEEPS)
    assert {seed: stamps(runs[seed]) for seed in UNTIL_DONE} == before
    assert_as_undisturbed(place, reference, starts=dict.fromkeys(SLEEPS, 2))


CASES = [on_one_machine, on_two_machines, a_machine_that_dies, workers_that_were_asleep]


@pytest.mark.fault(FAULT)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.slow_fault
def test_every_run_is_trained_once_and_as_if_undisturbed(tally, request, tmp_path, case):
    reference = request.getfixturevalue("reference")
    with tally:
        case(reference, tmp_path)
