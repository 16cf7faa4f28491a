"""Files of runs, cut short or with a bit turned over at random places: noticed, and mended by training again."""

import json
import os
import random
import shutil
import time
from pathlib import Path

import pytest
from faults.backend import assert_uploaded_once
from faults.disturbed import assert_same_results
from place import ROOT, Place

from cskd.utils.errors import UserError
from experiments.runs.folder import DONE, INTERRUPTED, RunFolder

FAULT = "a run's files truncated or bit-flipped"
RUN = ("experiments train", "--dataset", "digits", "--method", "cs-kd", "--set", "width=4")
RUN += ("--set", "schedule.epochs=6", "--set", "schedule.milestones=[4]")
# Of epochs as short as these few would have a checkpoint of their own.
OFTEN = "import cskd.checkpoints\ncskd.checkpoints.MOST_SHARE = float('inf')\n"
# MLflow is told what was there before the training has looked at it.
AT_ONCE = "import experiments.tracking.uploader as uploader\nuploader.INTERVAL_SECONDS = 0.05\n"
FINISHED = ("predictions.npz", "weights.pt", "metrics.jsonl", "environment.json", "state.json", "spec.json")
UNFINISHED = ("checkpoint.pt", "previous.pt", *FINISHED[2:])


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Place:
    """One run, stopped in the middle, and what became of a copy of it that went on undisturbed."""
    one = Place(tmp_path_factory.mktemp("damage"))
    customise(one, OFTEN)
    assert one.run("experiments data", "digits")[0] == 0
    process = one.start(*RUN)
    until = time.monotonic() + 120
    while not any((folder.path / "previous.pt").exists() for folder in one.folders()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    process.terminate()
    process.communicate(timeout=60)
    (folder,) = one.folders()
    assert folder.state()["state"] == INTERRUPTED
    shutil.copytree(one.runs, one.folder / "stopped")
    assert one.run(*RUN)[0] == 0
    assert folder.state()["state"] == DONE
    return one


def customise(one: Place, code: str) -> None:
    """Every process that is started there runs this first."""
    (one.folder / "sitecustomize.py").write_text(code)
    one.environment["PYTHONPATH"] = os.pathsep.join(map(str, (one.folder, ROOT)))


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One bit turned over, or the end cut off; nothing at all is a cut, too."""
    at = draw.randrange(len(content))
    if draw.random() < 0.5:
        return content[:at]
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def content_of(path: Path):
    """What a file of JSON says; white space does not count."""
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


@pytest.mark.fault(FAULT)
def test_damage_of_a_finished_run_is_noticed(place, tally, tmp_path):
    (whole,) = place.folders()
    folder = RunFolder(shutil.copytree(whole.path, tmp_path / whole.path.name))
    assert (folder.state()["state"], folder.damage()) == (DONE, None)
    lost = []
    for case in range(tally.cases(188, 60)):
        draw = random.Random(case)
        file = folder.path / FINISHED[case % len(FINISHED)]
        sound = file.read_bytes()
        file.write_bytes(damaged(sound, draw))
        try:
            with tally:
                assert is_noticed(folder) or content_of(file) == content_of(whole.path / file.name), file.name
        except (AssertionError, ValueError) as error:
            lost.append(f"case {case}: {error!r}")
        file.write_bytes(sound)
    assert not lost, "\n".join(lost)
    assert (folder.state()["state"], folder.damage()) == (DONE, None)


def is_noticed(folder: RunFolder) -> bool:
    try:
        folder.spec()
    except UserError:
        return True
    return folder.state()["state"] != DONE or folder.damage() is not None


@pytest.mark.fault(FAULT)
def test_a_damaged_run_ends_as_if_nothing_had_been(place, tally, tmp_path):
    (reference,) = place.folders()
    lost = []
    # each file in turn, of the stopped run and of the finished one
    sources = [(place.folder / "stopped", name) for name in UNFINISHED] + [(place.runs, name) for name in FINISHED]
    for case in range(tally.cases(12, 2)):
        source, name = sources[case * 5 % len(sources)]
        other = Place(tmp_path / str(case))
        other.environment["DATA_DIR"] = place.environment["DATA_DIR"]
        shutil.copytree(source, other.runs)
        if case % 2:
            customise(other, AT_ONCE)
        (folder,) = other.folders()
        file = folder.path / name
        file.write_bytes(damaged(file.read_bytes(), random.Random(case)))
        try:
            with tally:
                status, _, errors = other.run(*RUN)
                assert (status, errors) == (0, "")
                assert_same_results(folder, reference)
                assert_uploaded_once(other.folder / "mlflow.db", other.folders())
        except AssertionError as error:
            lost.append(f"case {case}, {name} of {source.name}: {error}")
    assert not lost, "\n".join(lost)
