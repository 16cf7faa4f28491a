"""A full disk: the last good state stays, one line says where, and the same command continues when there is space."""

import contextlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from builders import empty_store
from faults import disturbed
from faults.disturbed import EPOCHS, GRID, Disturbed, assert_same_results, assert_uploaded_once, wait_for

from cskd.data.store import open_dataset
from cskd.utils.files import DiskFull
from cskd.utils.integrity import read_archive, write_archive
from experiments.runs.folder import INTERRUPTED, RUNNING, RunFolder

pytestmark = pytest.mark.fault("disk full")


class Disk:
    """A tmpfs mounted at a folder."""

    def __init__(self, folder: Path):
        self.folder, self.kilobytes = folder, 65536
        self.folder.mkdir()
        try:
            self._mount("-t", "tmpfs", "-o", f"size={self.kilobytes}k", "none")
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("only root may mount a small disk")

    def fill(self, leave: int = 0) -> None:
        """Fill the disk up to the given free kilobytes."""
        filler = self.folder / "filler"
        filler.unlink(missing_ok=True)
        free = shutil.disk_usage(self.folder).free
        with contextlib.suppress(OSError):  # a process may write meanwhile
            filler.write_bytes(bytes(free - 1024 * leave))

    def grow(self) -> None:
        self.kilobytes *= 2
        self._mount("-o", f"remount,size={self.kilobytes}k")

    def _mount(self, *options: str) -> None:
        subprocess.run(["mount", *options, self.folder], check=True, capture_output=True)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    yield disk
    subprocess.run(["umount", "--lazy", disk.folder], check=True)


def assert_one_line(status: int, errors: str, folder: Path) -> None:
    """Check that an error names the folder and a remedy."""
    assert (status, errors.startswith("error: "), errors.count("\n")) == (2, True, 1)
    assert str(folder) in errors
    assert any(remedy in errors for remedy in (": make room", ": free some", ": set ")), errors


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
                assert_one_line(status, errors, disk.folder)
                files = {path.name for path in disk.folder.rglob("*") if path.is_file() or "part" in path.name}
                assert files <= {"filler", ".lock"}
            else:
                assert "200 training and 1,597 test images" in output
                assert len(open_dataset(folder).train) == 200
                shutil.rmtree(folder)
    assert outcomes == {0, 2}


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


@pytest.fixture
def place(tmp_path) -> Disturbed:
    return Disturbed(tmp_path, *GRID, "--seeds", "0", "1")


def launch_and_fill(place: Disturbed, disk: Disk) -> tuple[int, str, str]:
    """Launch the grid, and fill the disk when both runs have epochs. Return (exit status, output, errors)."""
    process = place.launch()
    wait_for(lambda: [folder.count_epochs() > 2 for folder in place.folders()] == [True, True], process)
    disk.fill()
    output, errors = process.communicate(timeout=disturbed.WAIT_SECONDS)
    return process.returncode, output, errors


@pytest.mark.slow_fault
def test_runs_continue_from_their_last_checkpoint_when_there_is_space(undisturbed, disk, tally, place):
    place.runs = disk.folder / "runs"
    place.environment["RUNS_DIR"] = str(place.runs)
    with tally:
        status, output, errors = launch_and_fill(place, disk)
        assert (status, errors) == (1, ""), output
        assert "0 of 2 runs are done." in output
        reason = rf"seed\d: interrupted: {disk.folder}\S+ cannot be written \(No space left on device\): make room"
        assert len(re.findall(reason, output)) == 4, output  # when each ended, and in the summary
        for folder in place.folders():
            read_archive(folder.checkpoint)
            assert folder.state()["state"] == INTERRUPTED
    epochs = [folder.count_epochs() for folder in place.folders()]
    with tally:  # the disk is still full
        status, _, errors = place.call(*place.command)
        assert_one_line(status, errors, place.runs)
        assert [folder.count_epochs() for folder in place.folders()] == epochs
    disk.grow()
    with tally:
        status, output, errors = place.call(*place.command)
        assert (status, errors) == (0, "")
        assert all(f"resumes at epoch {count + 1} of {EPOCHS}" in output for count in epochs)
        assert_same_results(place, undisturbed)
        assert_uploaded_once(place.database, place.folders())


@pytest.mark.slow_fault
def test_training_continues_if_the_tracking_store_is_full(undisturbed, disk, tally, place):
    place.environment["MLFLOW_TRACKING_URI"] = empty_store(disk.folder)
    place.database = disk.folder / "mlflow.db"
    with tally:
        status, output, errors = launch_and_fill(place, disk)
        assert (status, errors) == (0, "")
        assert "2 of 2 runs are done." in output
        assert_same_results(place, undisturbed)
    with tally:  # the disk is still full
        status, _, errors = place.call("experiments sync")
        assert (status, errors.count("\n")) == (2, 1)
        assert str(disk.folder) in errors
    disk.grow()
    with tally:
        status, _, errors = place.call("experiments sync")
        assert (status, errors) == (0, "")
        assert_uploaded_once(place.database, place.folders())
        assert disturbed.rows(place.database, "PRAGMA integrity_check") == [("ok",)]
