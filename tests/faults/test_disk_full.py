"""A full disk: the last good state stays, one line says where, and the same command continues when there is space."""

import errno
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from builders import empty_store
from faults.backend import assert_uploaded_once, rows
from faults.disturbed import WAIT_SECONDS, assert_same_results, wait_for
from place import Place

from cskd.data.store import open_dataset
from cskd.utils.files import DiskFull
from cskd.utils.integrity import read_archive, write_archive
from experiments.runs.folder import INTERRUPTED, RUNNING, RunFolder

FAULT = "disk full"
SETTINGS = ("--set", "schedule.epochs=40", "--set", "schedule.milestones=[20]", "--set", "width=4")
GRID = ("experiments grid", "demo", "--methods", "cs-kd", "--seeds", "0", "1", "--workers", "2", *SETTINGS)


class Disk:
    """A tmpfs mounted at a folder: ``with Disk(folder) as disk``. Skips the test if it cannot be mounted."""

    def __init__(self, folder: Path, kilobytes: int = 65536):
        self.folder, self.kilobytes = folder, kilobytes

    def __enter__(self) -> "Disk":
        self.folder.mkdir(parents=True)
        try:
            self._mount("-t", "tmpfs", "-o", f"size={self.kilobytes}k", "none")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root may mount a small disk")
        return self

    def __exit__(self, *exception: object) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)

    def fill(self, leave: int = 0) -> None:
        """Fill the disk up to the given free kilobytes."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        try:
            with filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError as error:
            assert error.errno == errno.ENOSPC
        with filler.open("r+b") as file:
            file.truncate(max(0, filler.stat().st_size - 1024 * leave))

    def grow(self) -> None:
        self.kilobytes *= 2
        self._mount("-o", f"remount,size={self.kilobytes}k")

    def files(self) -> dict[str, bytes]:
        """Return the content of all files but the filler and lock files, by name."""
        paths = [path for path in self.folder.rglob("*") if path.is_file() and path.name not in ("filler", ".lock")]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths}

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, self.folder], check=True, capture_output=True)


def assert_one_line(status: int, errors: str, *names: str) -> None:
    assert status == 2
    assert errors.startswith("error: ") and errors.count("\n") == 1
    assert all(name in errors for name in names), errors
    assert any(remedy in errors for remedy in (": make room", ": free some", ": set ")), errors


@pytest.fixture
def disk(tmp_path):
    with Disk(tmp_path / "disk") as disk:
        yield disk


@pytest.mark.fault(FAULT)
def test_data_are_prepared_completely_or_not_at_all(call, disk, tally, monkeypatch):
    """With more and more space: too little for the first check, for the pixels, for the labels, and enough."""
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
                assert not disk.files().keys() - {".lock"}
                assert not [path for path in disk.folder.rglob("*") if "part" in path.name]
            else:
                assert "200 training and 1,597 test images" in output
                assert len(open_dataset(folder).train) == 200
                shutil.rmtree(folder)
    assert outcomes == {0, 2}


@pytest.mark.fault(FAULT)
def test_files_of_a_run_stay_and_its_end_is_recorded(disk, tally):
    folder = RunFolder(disk.folder / "run")
    folder.path.mkdir()
    records = [{"epoch": 0, "timestamp": 1.0, "metrics": {str(number): 1.0 for number in range(900)}}]
    writes = {
        folder.checkpoint: lambda: write_archive(folder.checkpoint, lambda file: torch.save(torch.rand(20_000), file)),
        folder.environment: lambda: folder.write_environment("t", [{"text": "x" * 9000}]),
        folder.metrics: lambda: folder.write_epochs(records),
    }
    for write in writes.values():
        write()
    folder.write_state(RUNNING, epoch=1)
    outcomes = set()
    for leave in range(0, 100, tally.cases(4, 20)):
        for path, write in writes.items():
            disk.fill(leave)
            before = path.read_bytes()
            with tally:
                try:
                    write()
                    outcomes.add("written")
                except DiskFull as error:
                    outcomes.add("full")
                    assert str(path) in str(error)
                    assert path.read_bytes() == before
                folder.end(INTERRUPTED, f"interrupted: {leave}")
                state = folder.state()
                assert (state["state"], state["reason"]) == (INTERRUPTED, f"interrupted: {leave}")
                read_archive(folder.checkpoint)
                assert (folder.epochs(), folder.training_id()) == (records, "t")
    assert outcomes == {"written", "full"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> Place:
    """Prepared data, and undisturbed runs."""
    place = Place(tmp_path_factory.mktemp("reference"))
    empty_store(place.folder)
    assert place.call(*GRID)[0] == 0
    return place


def make_place(reference: Place, folder: Path, **environment: str) -> Place:
    place = Place(folder)
    empty_store(folder)
    place.environment |= {"DATA_DIR": reference.environment["DATA_DIR"], **environment}
    return place


def have_epochs(place: Place, count: int) -> bool:
    folders = place.folders()
    return len(folders) == 2 and all(folder.count_epochs() >= count for folder in folders)


def check(place: Place, reference: Place) -> None:
    for folder, expected in zip(place.folders(), reference.folders(), strict=True):
        assert_same_results(folder, expected)


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_runs_continue_from_their_last_checkpoint_when_there_is_space(reference, disk, tally, tmp_path):
    place = make_place(reference, tmp_path, RUNS_DIR=str(disk.folder / "runs"))
    place.runs = disk.folder / "runs"
    process = place.start(*GRID)
    assert wait_for(lambda: have_epochs(place, 3), process)
    disk.fill()
    with tally:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (1, ""), output
        assert "0 of 2 runs are done." in output
        reason = rf"seed\d: interrupted: {disk.folder}\S+ cannot be written \(No space left on device\): make room"
        assert len(re.findall(reason, output)) == 4, output  # when each ended, and in the summary
    epochs = {folder.path: folder.count_epochs() for folder in place.folders()}
    with tally:
        for folder in place.folders():
            assert epochs[folder.path] >= 3
            read_archive(folder.checkpoint)
            assert folder.state()["state"] == INTERRUPTED
    with tally:  # the disk is still full
        status, _, errors = place.run(*GRID)
        assert_one_line(status, errors, str(place.runs))
        assert {folder.path: folder.count_epochs() for folder in place.folders()} == epochs
    disk.grow()
    with tally:
        status, output, errors = place.run(*GRID)
        assert (status, errors) == (0, "")
        assert all(f"resumes at epoch {count + 1} of 40" in output for count in epochs.values())
        check(place, reference)
        assert_uploaded_once(tmp_path / "mlflow.db", place.folders())


@pytest.mark.fault(FAULT)
@pytest.mark.slow_fault
def test_training_continues_if_the_tracking_store_is_full(reference, disk, tally, tmp_path):
    database = disk.folder / "mlflow.db"
    place = make_place(reference, tmp_path, MLFLOW_TRACKING_URI=f"sqlite:///{database}")
    process = place.start(*GRID)
    assert wait_for(lambda: database.exists() and have_epochs(place, 3), process)
    disk.fill()
    with tally:
        output, errors = process.communicate(timeout=WAIT_SECONDS)
        assert (process.returncode, errors) == (0, "")
        assert "2 of 2 runs are done." in output
        check(place, reference)
    with tally:  # the disk is still full
        status, _, errors = place.run("experiments sync")
        assert (status, errors.count("\n")) == (2, 1)
        assert str(disk.folder) in errors
    disk.grow()
    with tally:
        status, _, errors = place.run("experiments sync")
        assert (status, errors) == (0, "")
        assert_uploaded_once(database, place.folders())
        assert rows(database, "PRAGMA integrity_check") == [("ok",)]
