"""Files of runs that are truncated or have a flipped bit: the damage is noticed, and the run trained again."""

import os
import random
import shutil
import time
from pathlib import Path

import pytest
from builders import empty_store
from faults.backend import assert_uploaded_once
from faults.disturbed import assert_same_results
from place import ROOT, Place

from cskd.utils.errors import UserError
from experiments.runs.folder import DONE, INTERRUPTED, RunFolder

FAULT = "a run's files truncated or bit-flipped"
RUN = ("experiments train", "--dataset", "digits", "--method", "cs-kd", "--set", "width=4")
RUN += ("--set", "schedule.epochs=6", "--set", "schedule.milestones=[4]")
# Short epochs share a checkpoint otherwise.
CHECKPOINT_EACH_EPOCH = "import cskd.train.checkpoint as module\nmodule.MAX_TIME_SHARE = float('inf')\n"
FINISHED = ("predictions.npz", "weights.pt", "metrics.jsonl", "environment.json", "summary.json", "spec.json")
UNFINISHED = ("checkpoint.pt", "previous.pt", "metrics.jsonl", "state.json", "environment.json", "spec.json")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """A run that is done, and in the folder ``stopped`` the same run stopped in the middle."""
    place = Place(tmp_path_factory.mktemp("damage"))
    empty_store(place.folder)
    (place.folder / "sitecustomize.py").write_text(CHECKPOINT_EACH_EPOCH)
    place.environment["PYTHONPATH"] = os.pathsep.join(map(str, (place.folder, ROOT)))
    assert place.run("experiments data", "digits")[0] == 0
    process = place.start(*RUN)
    until = time.monotonic() + 240
    while not any((folder.path / "previous.pt").exists() for folder in place.folders()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=60)
    (folder,) = place.folders()
    assert folder.state()["state"] == INTERRUPTED
    shutil.copytree(place.runs, place.folder / "stopped")
    assert place.run(*RUN)[0] == 0
    assert folder.state()["state"] == DONE
    return place


def damage(file: Path, draw: random.Random) -> None:
    """Flip one bit or cut off the end, possibly all."""
    content = file.read_bytes()
    at = draw.randrange(len(content))
    flipped = content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    file.write_bytes(content[:at] if draw.random() < 0.5 else flipped)


@pytest.mark.fault(FAULT)
def test_damage_of_a_finished_run_is_noticed(place, tally, tmp_path):
    (original,) = place.folders()
    folder = RunFolder(Path(shutil.copytree(original.path, tmp_path / original.path.name)))
    assert folder.damage() is None
    lost = []
    for case in range(tally.cases(188, 30)):
        file = folder.path / FINISHED[case % len(FINISHED)]
        damage(file, random.Random(case))
        try:
            with tally:
                assert folder.damage() == f"{file.name} is damaged"
        except AssertionError as error:
            lost.append(f"case {case}: {error!r}")
        shutil.copy(original.path / file.name, file)
    assert not lost, "\n".join(lost)
    assert folder.damage() is None


@pytest.mark.fault(FAULT)
def test_damaged_run_ends_with_the_undisturbed_results(place, tally, tmp_path):
    (reference,) = place.folders()
    lost = []
    # each file in turn, of the stopped run and of the finished one
    sources = [(place.folder / "stopped", name) for name in UNFINISHED] + [(place.runs, name) for name in FINISHED]
    for case in range(tally.cases(12, 1)):
        source, name = sources[case * 5 % len(sources)]
        other = Place(tmp_path / str(case))
        other.folder.mkdir()
        empty_store(other.folder)
        other.environment["DATA_DIR"] = place.environment["DATA_DIR"]
        shutil.copytree(source, other.runs)
        (folder,) = other.folders()
        damage(folder.path / name, random.Random(case))
        try:
            with tally:
                status, output, errors = other.run(*RUN)
                assert (status, errors) == (0, ""), output
                assert_same_results(folder, reference)
                assert_uploaded_once(other.folder / "mlflow.db", other.folders())
        except (AssertionError, UserError) as error:
            lost.append(f"case {case}, {name} of {source.name}: {error}")
    assert not lost, "\n".join(lost)
