"""A run's folder: what is written is whole, what is half-written is not read."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.utils.errors import UserError
from cskd.utils.files import DiskFull
from cskd.utils.integrity import is_whole, write_sealed
from experiments.runs import folder as run_folder
from experiments.runs import lease as claim
from experiments.runs.folder import DONE, FAILED, HEARTBEAT_LIMIT, INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.json_files import read_checked, write_checked
from experiments.runs.lease import ClaimLost


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_epochs_are_kept_in_order_and_once(folder):
    folder.add_epoch(0, {"test/ece": 1.5})
    folder.add_epoch(1, {"test/ece": 1.25})
    before = folder.epochs()
    folder.add_epoch(1, {"test/ece": 9.0})  # taking a checkpoint up tells its epoch again
    assert folder.epochs() == before
    assert [record["metrics"]["test/ece"] for record in before] == [1.5, 1.25]


def test_a_half_written_line_is_not_an_epoch_and_is_written_over(folder):
    folder.add_epoch(0, {"a": 1.0})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 1, "metr')
    assert len(folder.epochs()) == 1
    folder.add_epoch(1, {"a": 2.0})
    assert [record["metrics"] for record in folder.epochs()] == [{"a": 1.0}, {"a": 2.0}]


def test_a_gap_is_refused(folder):
    with pytest.raises(UserError, match="lacks epochs before 3"):
        folder.add_epoch(3, {})


def test_epochs_beyond_the_checkpoint_are_forgotten(folder):
    for epoch in range(4):
        folder.add_epoch(epoch, {"a": float(epoch)})
    kept = folder.epochs()[:2]
    folder.keep_epochs(2)
    assert folder.epochs() == kept
    folder.keep_epochs(3)
    assert folder.epochs() == kept


def test_nan_never_reaches_the_metrics(folder):
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.add_epoch(0, {"a": float("nan")})
    assert folder.epochs() == []


def test_the_states(folder):
    assert folder.state() == {"state": MISSING}
    for state in (RUNNING, INTERRUPTED, FAILED, DONE):
        folder.write_state(state, reason="r")
        assert folder.state()["state"] == state
        assert folder.state()["reason"] == "r"


def test_a_run_without_a_heartbeat_is_interrupted(folder):
    folder.write_state(RUNNING)
    content = read_checked(folder.path / "state.json")
    write_checked(folder.path / "state.json", content | {"heartbeat": time.time() - HEARTBEAT_LIMIT - 1})
    assert folder.state()["state"] == INTERRUPTED


def test_a_run_that_a_process_holds_is_running_however_long_it_is_silent(folder):
    folder.write_state(RUNNING)
    content = read_checked(folder.path / "state.json")
    write_checked(folder.path / "state.json", content | {"heartbeat": 0.0})
    with folder.claimed():
        assert folder.state()["state"] == RUNNING
    assert folder.state()["state"] == INTERRUPTED


@pytest.mark.parametrize("text", ["", '{"state": "run'])
def test_an_unreadable_state_is_an_interrupted_run(folder, text):
    (folder.path / "state.json").write_text(text)
    assert folder.state()["state"] == INTERRUPTED


def test_a_damaged_file_is_named(folder):
    (folder.path / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        folder.epochs()
    folder.environment.write_text("{")
    with pytest.raises(UserError, match=r"environment\.json is damaged"):
        folder.starts()


def test_predictions_come_back_from_the_folder(folder):
    predictions = Predictions(np.ones((3, 2), np.float32), np.zeros((3, 4), np.float32), np.arange(3))
    save_predictions(folder.predictions, predictions)
    assert np.array_equal(folder.load_predictions().logits, predictions.logits)


def test_no_two_processes_have_the_same_run_and_a_dead_one_has_none(folder):
    code = (
        "import sys, time; from pathlib import Path; from experiments.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).claimed() as mine: print(bool(mine), flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    with folder.claimed(patience=0.0) as mine:
        assert not mine
    other.kill()
    other.wait()
    with folder.claimed(patience=5.0) as mine:
        assert mine


def test_what_a_dead_process_has_forked_does_not_keep_its_run(folder):
    """As a DataLoader's workers, which outlive it by some seconds."""
    code = (
        "import time; from multiprocessing import get_context; from pathlib import Path\n"
        "from experiments.run_folder import RunFolder\n"
        f"with RunFolder(Path({str(folder.path)!r})).claimed() as mine:\n"
        "    get_context('fork').Process(target=time.sleep, args=(10,)).start(); print(bool(mine), flush=True)\n"
        "    time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    assert folder.is_claimed()
    other.kill()
    other.wait()
    with folder.claimed(patience=2.0) as mine:
        assert mine


def test_who_has_lost_the_run_writes_nothing_more(folder):
    def write_checkpoint():
        write_sealed(folder.checkpoint, lambda file: torch.save({}, file), before_replace=folder.before_replace)

    folder.add_epoch(0, {"a": 1.0})
    folder.write_starts([])
    write_checkpoint()
    with folder.claimed() as mine:
        write_checkpoint()
        mine.holder.rename(folder.path / "holder.2")  # what another one does who takes over
        before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
        for write in (
            write_checkpoint,
            folder.remove_checkpoints,
            lambda: folder.write_state(RUNNING),
            lambda: folder.write_state(FAILED, reason="r"),
            lambda: folder.add_epoch(1, {"a": 2.0}),
            lambda: folder.keep_epochs(0),
            lambda: folder.write_starts([{}]),
        ):
            with pytest.raises(ClaimLost):
                write()
        assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before


def test_who_has_lost_the_run_leaves_its_state_alone_on_a_full_disk_too(folder, monkeypatch):
    def no_room(*arguments, **options):
        raise DiskFull("full")

    with folder.claimed() as mine:
        folder.write_state(RUNNING)
        before = folder.state()
        mine.holder.rename(folder.path / "holder.2")
        monkeypatch.setattr(run_folder, "write_checked", no_room)
        with pytest.raises(ClaimLost):
            folder.write_state(FAILED, reason="r")
    assert folder.state() == before


def test_a_run_that_was_let_go_is_free_at_once_and_a_silent_one_after_a_while(folder, monkeypatch):
    with folder.claimed():
        pass
    monkeypatch.setattr(claim, "_machine", lambda: "another")
    assert not folder.is_claimed()
    with folder.claimed(patience=0.0) as mine:
        assert mine.holder.name == "holder.2"
        monkeypatch.setattr(claim, "_machine", lambda: "a third one")
        monkeypatch.setattr(claim, "_locks", lambda *arguments: True)
        with folder.claimed(patience=0.0) as other:
            assert other is None
        os.utime(mine.holder, (1, 1))
        with folder.claimed(patience=0.0) as other:
            assert other.holder.name == "holder.3"
            assert mine.is_lost()


def test_who_saw_a_holder_dead_long_ago_does_not_take_over_from_a_later_one(folder, monkeypatch):
    """Asleep between looking and taking, while another one came, and even went."""
    with folder.claimed():
        pass
    seen = claim._latest(folder.path)
    with folder.claimed(), (folder.path / "claim").open("w") as lock:
        latest = iter([seen])
        monkeypatch.setattr(claim, "_latest", lambda path, real=claim._latest: next(latest, None) or real(path))
        assert claim._take(folder.path, lock) is None
        assert [path.name for path in folder.path.glob("holder*")] == ["holder.2"]
    with folder.claimed(), (folder.path / "claim").open("w") as lock:
        latest = iter([seen])
        assert claim._take(folder.path, lock) is None
        assert [path.name for path in folder.path.glob("holder*")] == ["holder.3"]


def test_who_fell_asleep_before_it_removed_the_earlier_holders_leaves_the_later_ones(folder, monkeypatch):
    def asleep_once_it_has_looked(path, real=claim._latest):
        found = real(path)
        if found is not None:
            (path / "holder.2").write_text("another machine 17")
        return found

    monkeypatch.setattr(claim, "_latest", asleep_once_it_has_looked)
    with (folder.path / "claim").open("w") as lock:
        claim._take(folder.path, lock)
    assert (folder.path / "holder.2").read_text() == "another machine 17"


def test_who_may_only_read_is_told_who_trains(folder, monkeypatch):
    def refused(*arguments):
        raise PermissionError(errno.EACCES, "Permission denied")

    def reading_only(path, mode="r", *arguments, real=Path.open, **options):
        return real(path, mode, *arguments, **options) if mode in ("r", "rb") else refused()

    (folder.path / "claim").touch()
    (folder.path / "holder.1").write_text("another machine 17")
    write_checked(folder.path / "state.json", {"state": RUNNING, "heartbeat": 1.0, "epoch": 3})
    for last_sign, state in ((time.time(), RUNNING), (1, INTERRUPTED)):
        os.utime(folder.path / "holder.1", (last_sign, last_sign))
        with monkeypatch.context() as reader:
            reader.setattr(Path, "open", reading_only)
            reader.setattr(claim.os, "utime", refused)
            assert folder.state()["state"] == state


def test_the_holder_of_an_earlier_version_counts(folder):
    (folder.path / "claim").touch()
    (folder.path / "holder").write_text("another machine 17")
    assert folder.is_claimed()
    os.utime(folder.path / "holder", (1, 1))
    with folder.claimed(patience=0.0):
        assert [path.name for path in folder.path.glob("holder*")] == ["holder.1"]


@pytest.mark.parametrize("at", [-1, -40, -70, -71, -72, -73, -74])
def test_a_file_whose_seal_alone_is_damaged_is_damaged(at, folder):
    """Python opens such an archive, and its content is sound; but nothing tells any more that it is."""
    write_sealed(folder.weights, lambda file: torch.save({"weight": torch.ones(3)}, file))
    sound = folder.weights.read_bytes()
    for content in (sound[:at], sound[:at] + bytes([sound[at] ^ 1]) + sound[at:][1:]):
        folder.weights.write_bytes(content)
        assert not is_whole(folder.weights)
    folder.weights.write_bytes(sound)
    assert is_whole(folder.weights)


def test_a_file_that_an_earlier_version_wrote_without_a_seal_is_held_against_its_checksums(folder):
    torch.save({"weight": torch.ones(10_000)}, folder.weights)
    assert is_whole(folder.weights)
    content = bytearray(folder.weights.read_bytes())
    content[len(content) // 2] ^= 1
    folder.weights.write_bytes(content)
    assert not is_whole(folder.weights)
