"""A run's folder: records, states, summary, checksums."""

import subprocess
import time

import numpy as np
import pytest
import torch
from run_folders import digits_spec

from cskd.evaluate.predictions import Predictions, save_predictions
from cskd.utils.errors import UserError
from cskd.utils.integrity import read_json, write_archive, write_json
from experiments.runs.folder import DONE, FAILED, HEARTBEAT_LIMIT, INTERRUPTED, MISSING, RUNNING, RunFolder
from experiments.runs.lease import LeaseLost

START = {"started": 1000.0}


def make_record(epoch, error=50.0, **metrics):
    values = {"test/top1_error": error, "time/train_seconds": 40.0, "time/test_seconds": 20.0}
    return {"epoch": epoch, "timestamp": 1.0, "metrics": values | metrics}


@pytest.fixture
def folder(tmp_path):
    spec = digits_spec("schedule.epochs=3", "schedule.milestones=[1]")
    folder = RunFolder.of(spec, tmp_path)
    folder.create(spec)
    return folder


@pytest.fixture
def done(folder):
    """A run that is done."""
    folder.write_environment("t", [START])
    folder.begin(0, 3)
    folder.write_epochs([make_record(0), make_record(1, 20.0), make_record(2, 30.0)])
    save_predictions(folder.predictions, Predictions(np.ones((3, 2), "f4"), np.zeros((3, 4), "f4"), np.arange(3)))
    write_archive(folder.weights, lambda file: torch.save({"weight": torch.ones(3)}, file))
    write_archive(folder.checkpoint, lambda file: torch.save({}, file))
    folder.finish()
    return folder


@pytest.mark.parametrize("text", ["[]", '{"epoch": 1, "timestamp": 1, "metrics": {}}', '{"epoch": 0, "met'])
def test_damaged_metrics_are_reported(folder, text):
    assert folder.epochs() == []
    folder.metrics.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.jsonl is damaged"):
        folder.epochs()
    assert (folder.count_epochs(), folder.has_epochs()) == (0, True)


@pytest.mark.parametrize("text", ["", '{"training_id": "", "starts": []}'])
def test_damaged_environment_is_reported(folder, text):
    assert (folder.training_id(), folder.starts()) == ("", [])
    folder.environment.write_text(text)
    with pytest.raises(UserError, match=r"environment\.json is damaged"):
        folder.starts()


def test_spec_is_verified_by_the_folders_name_and_replaced_when_damaged(folder):
    spec = folder.spec()
    folder.spec_file.write_text(folder.spec_file.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(UserError, match=r"spec\.json is missing, damaged"):
        folder.spec()
    folder.create(spec)
    assert folder.spec() == spec


def test_silent_run_is_interrupted_unless_a_process_holds_it(folder):
    assert folder.state() == {"state": MISSING, "reason": "not started"}
    folder.begin(0, 3)
    state_file = folder.path / "state.json"
    write_json(state_file, read_json(state_file) | {"heartbeat": time.time() - HEARTBEAT_LIMIT - 1})
    with folder.leased():
        assert (folder.state()["state"], folder.state()["reason"]) == (RUNNING, "training")
    state = folder.state()
    assert (state["state"], state["reason"]) == (INTERRUPTED, "interrupted: no heartbeat for 60 s, killed?")
    assert folder.summary()["reason"] == state["reason"]


@pytest.mark.parametrize("text", ["", '{"state": "rumming", "heartbeat": 1.0}'])
def test_damaged_state_is_an_interrupted_run(folder, text):
    folder.write_epochs([make_record(0)])
    (folder.path / "state.json").write_text(text)
    state = folder.state()
    assert (state["state"], state["epoch"], state["reason"]) == (INTERRUPTED, 1, "interrupted: state.json is damaged")


def test_summary_of_a_done_run(done):
    summary = read_json(done.summary_file)
    assert done.summary() == summary
    assert summary.pop("ended") == pytest.approx(time.time(), abs=60)
    assert summary == {
        "training_id": "t", "state": DONE, "reason": "all 3 epochs", "epochs_done": 3, "epochs": 3, "started": 1000.0,
        "minutes": 3.0, "energy_kilojoules": None, "last": {"epoch": 2, "metrics": make_record(2, 30.0)["metrics"]},
        "best": {"epoch": 1, "metrics": make_record(1, 20.0)["metrics"]},
    }  # fmt: skip


def test_summary_of_a_process_that_died_is_computed(folder):
    folder.write_environment("t", [START])
    folder.end(INTERRUPTED, "interrupted: Ctrl-C")
    assert (folder.summary()["epochs_done"], folder.summary()["last"], folder.summary()["best"]) == (0, None, None)
    folder.begin(0, 3)
    folder.write_epochs([make_record(epoch, **{"system/energy_joules": 500.0}) for epoch in range(2)])
    summary = folder.summary()
    assert (summary["state"], summary["epochs_done"], summary["energy_kilojoules"]) == (RUNNING, 2, 1.0)


def test_done_run_passes_sha256sum_and_its_damage_is_found(done):
    command = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(command, cwd=done.path, check=False).returncode == 0
    assert not done.checkpoint.exists()
    done.weights.unlink()  # to save space
    assert done.damage() is None
    done.metrics.write_bytes(done.metrics.read_bytes()[:-1])
    assert done.damage() == "metrics.jsonl is damaged"
    (done.path / "SHA256SUMS").write_text("nonsense")
    assert done.damage() == "SHA256SUMS is damaged"


def test_process_that_lost_the_lease_writes_nothing(folder):
    folder.write_environment("t", [START])
    folder.write_epochs([make_record(0)])
    with folder.leased():
        lease = folder.path / "lease"
        lease.write_text(lease.read_text().replace("token=", "token=other"))
        before = {path: path.stat().st_mtime_ns for path in folder.path.iterdir()}
        for write in (
            folder.remove_checkpoints,
            folder.finish,
            lambda: folder.begin(0, 3),
            lambda: folder.write_state(RUNNING),
            lambda: folder.end(FAILED, "failed: x"),
            lambda: folder.write_epochs([]),
            lambda: folder.write_environment("u", [START]),
            lambda: write_archive(folder.weights, print, before_replace=folder.before_replace),
        ):
            with pytest.raises(LeaseLost):
                write()
        assert {path: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before
