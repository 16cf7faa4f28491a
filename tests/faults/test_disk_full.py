"""A disk that is full: the last good state stays, one line says where, and all goes on when there is room."""

import re
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from faults.backend import assert_uploaded_once, rows
from faults.disks import Disk
from faults.disturbed import numbers
from place import Place
from run_folders import make_grid

from cskd.data.store import open_dataset
from cskd.utils.files import DiskFull
from cskd.utils.integrity import read_archive, write_archive
from experiments.runs.folder import DONE, INTERRUPTED, RUNNING, RunFolder

FAULT = "disk full"
SETTING = ("--set", "schedule.epochs=40", "--set", "schedule.milestones=[20]", "--set", "width=4")
GRID = ("experiments grid", "demo", "--methods", "cs-kd", "--seeds", "0", "1", "--workers", "2", *SETTING)
WAIT_SECONDS = 240  # only against hanging


def assert_one_line(status: int, errors: str, *named: str) -> None:
    assert status == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert all(name in errors for name in named), errors
    assert ": make room" in errors or ": free some" in errors or ": set " in errors, errors


@pytest.fixture
def disk(tmp_path):
    with Disk(tmp_path / "disk") as one:
        yield one


@pytest.mark.fault(FAULT)
def test_data_are_prepared_whole_or_not_at_all(call, disk, tally, monkeypatch):
    """With ever more room: too little for the check beforehand, for the pixels, for the labels, and enough."""
    monkeypatch.setenv("DATA_DIR", str(disk.folder))
    folder = disk.folder / "prepared" / "digits"
    outcomes = set()
    for leave in range(0, 480, tally.cases(12, 80)):
        disk.fill(leave)
        with tally:
            status, output, errors = call("experiments data", "digits")
            outcomes.add(status)
            if status:
                assert_one_line(status, errors, str(disk.folder))
                assert not disk.files()
                assert not [path for path in disk.folder.rglob("*") if "part" in path.name]
            else:
                assert "200 training and 1,597 test images" in output
                assert len(open_dataset(folder).train) == 200
                shutil.rmtree(folder)
    assert outcomes == {0, 2}


@pytest.mark.fault(FAULT)
def test_earlier_prepared_data_stay_when_they_cannot_be_prepared_anew(call, disk, tally, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(disk.folder))
    assert call("experiments data", "digits")[0] == 0
    about = disk.folder / "prepared" / "digits" / "dataset.json"
    about.write_text(about.read_text().replace('"complete": true', '"complete": false'))  # as after PARTIAL=1
    before = disk.files()
    for leave in (0, 300, 356):
        disk.fill(leave)
        with tally:
            status, _, errors = call("experiments data", "digits")
            assert_one_line(status, errors, str(disk.folder))
            assert disk.files() == before
    disk.grow()
    with tally:
        assert call("experiments data", "digits")[0] == 0
        assert open_dataset(about.parent).complete


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_tables_and_report_stay_as_they_were_and_come_when_there_is_room(call, disk, tally, tmp_path, monkeypatch):
    place = Place(tmp_path)
    make_grid(place.runs, "cs-kd", seeds=2, epochs=5)
    assert call("experiments sync")[0] == 0
    monkeypatch.setenv("RESULTS_DIR", str(disk.folder))
    for module in ("analysis tables", "analysis report"):
        disk.clear()
        assert call(module)[0] == 0
        whole = disk.files()
        disk.clear()
        for leave in (0, 16, 64):
            disk.fill(leave)
            with tally:
                status, _, errors = call(module)
                assert_one_line(status, errors, str(disk.folder))
                written = {name: text for name, text in disk.files().items() if not name.startswith(".")}
                assert written == {name: whole[name] for name in written}
        disk.fill(32768)
        with tally:
            assert call(module)[0] == 0
            assert disk.files().keys() == whole.keys()


@pytest.mark.fault(FAULT)
def test_what_a_run_has_written_stays_and_how_it_ended_is_written_nevertheless(disk, tally):
    folder = RunFolder(disk.folder / "run")
    folder.path.mkdir()
    metrics = {str(number): 1.0 for number in range(900)}
    writes = {
        folder.checkpoint: lambda: write_archive(folder.checkpoint, lambda file: torch.save(torch.rand(20_000), file)),
        folder.environment: lambda: folder.write_environment("t", [{"text": "x" * 9000}]),
        folder.path / "metrics.jsonl": lambda: folder.write_epochs([{"epoch": 0, "timestamp": 1.0, "metrics": metrics}]),
    }
    for write in writes.values():
        write()
    folder.write_state(RUNNING, epoch=1)
    outcomes = set()
    for leave in range(0, 100, tally.cases(4, 20)):
        for path, write in writes.items():
            disk.fill(leave)
            before, epochs = path.read_bytes(), folder.epochs()
            if path.suffix == ".jsonl":  # half a line may follow, which is no epoch
                before = before[: before.rfind(b"\n") + 1]
            with tally:
                try:
                    write()
                    outcomes.add("written")
                except DiskFull as error:
                    outcomes.add("no room")
                    assert str(path) in str(error)
                    assert folder.epochs() == epochs
                    assert path.read_bytes().startswith(before)
                folder.write_state(INTERRUPTED, reason="no room", epoch=leave)
                state = folder.state()
                assert (state["state"], state["reason"], state["epoch"]) == (INTERRUPTED, "no room", leave)
                assert read_archive(folder.checkpoint)
                assert folder.starts() == [{"text": "x" * 9000}]
    assert outcomes == {"written", "no room"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Place:
    """Data, and runs that nothing disturbed."""
    place = Place(tmp_path_factory.mktemp("reference"))
    assert place.run("experiments data", "digits")[0] == 0
    assert place.run(*GRID)[0] == 0
    return place


def place_with(reference: Place, folder: Path, **environment: str) -> Place:
    place = Place(folder)
    place.environment |= {"DATA_DIR": reference.environment["DATA_DIR"], **environment}
    return place


def wait_for(happened, process: subprocess.Popen) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def have_epochs(place: Place, count: int) -> bool:
    folders = place.folders()
    return len(folders) == 2 and all(folder.count_epochs() >= count for folder in folders)


def assert_as_undisturbed(place: Place, reference: Place) -> None:
    for folder, other in zip(place.folders(), reference.folders(), strict=True):
        assert (folder.state()["state"], folder.damage()) == (DONE, None)
        assert numbers(folder) == numbers(other)
        assert folder.weights.read_bytes() == other.weights.read_bytes()
        assert np.array_equal(folder.load_predictions().logits, other.load_predictions().logits)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_runs_whose_checkpoints_find_no_room_go_on_from_their_last(request, disk, tally, tmp_path):
    reference = request.getfixturevalue("reference")
    place = place_with(reference, tmp_path, RUNS_DIR=str(disk.folder / "runs"))
    place.runs = disk.folder / "runs"
    process = place.start(*GRID)
    wait_for(lambda: have_epochs(place, 3), process)
    disk.fill()
    with tally:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (1, "")
        assert "0 of 2 runs are done." in output
        no_room = rf"seed\d: interrupted: {disk.folder}\S+ cannot be written \(No space left on device\): make room"
        assert len(re.findall(no_room, output)) == 4, output  # when each ended, and in the summary
    kept = {}
    with tally:
        for folder in place.folders():
            kept[folder.path] = len(folder.epochs())
            assert kept[folder.path] >= 3 and read_archive(folder.checkpoint)
            assert folder.state()["state"] == INTERRUPTED
    with tally:  # while there is no room, yet
        status, _, errors = place.run(*GRID)
        assert_one_line(status, errors, str(place.runs))
        assert {folder.path: len(folder.epochs()) for folder in place.folders()} == kept
    disk.grow()
    with tally:
        status, output, errors = place.run(*GRID)
        assert (status, errors) == (0, "")
        assert all(
            f"resumes at epoch {epochs + extra} of 40" in output
            for epochs, extra in zip(kept.values(), (1, 1), strict=True)
        )
        assert_as_undisturbed(place, reference)
        assert_uploaded_once(tmp_path / "mlflow.db", place.folders())


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_training_goes_on_where_the_tracking_has_no_room(request, disk, tally, tmp_path):
    reference, database = request.getfixturevalue("reference"), disk.folder / "mlflow.db"
    place = place_with(reference, tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{database}")
    process = place.start(*GRID)
    wait_for(lambda: database.exists() and have_epochs(place, 3), process)
    disk.fill()
    with tally:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (0, "")
        assert "2 of 2 runs are done." in output
        assert output.count("not all is tracked in MLflow (") == 1
        assert_as_undisturbed(place, reference)
    with tally:  # while there is no room, yet
        status, _, errors = place.run("experiments sync")
        assert (status, errors.count("\n")) == (2, 1)
        assert str(disk.folder) in errors
    disk.grow()
    with tally:
        status, _, errors = place.run("experiments sync")
        assert (status, errors) == (0, "")
        assert_uploaded_once(database, place.folders())
        assert rows(database, "PRAGMA integrity_check") == [("ok",)]
