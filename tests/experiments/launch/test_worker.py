"""The training process: what it records, how it ends, and what the next one does."""

import os
import signal
import sys
from functools import partialmethod

import numpy as np
import pytest
import torch
from noise_runs import CLASSES, CPU, IMAGES, make_run, schedule_of, with_settings

from cskd.evaluate.predictions import load_predictions
from cskd.utils.integrity import read_archive
from experiments.config.settings import Subset
from experiments.launch import worker
from experiments.launch.build import build_trainer
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, MISSING, RunFolder
from experiments.runs.source import describe_source


@pytest.fixture
def train(monkeypatch):
    """Runs the worker on a folder and returns its exit status."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def train(folder: RunFolder) -> int:
        monkeypatch.setattr(sys, "argv", ["worker", str(folder.path), "--threads", str(torch.get_num_threads())])
        return worker.main()

    yield train
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("setting", "expected"), [(True, True), ("auto", False)])
def test_run_records_how_it_was_trained(digits, train, setting, expected, monkeypatch):
    compiled = []
    monkeypatch.setattr(worker.Trainer, "compile", lambda trainer: compiled.append(trainer.seed))
    folder = with_settings(*digits, compile=setting, **schedule_of(1))
    (folder.path / "lease").touch()  # its process was killed before it wrote its name
    os.utime(folder.path / "lease", (1, 1))
    assert train(folder) == worker.EXIT_DONE
    (start,), (record,) = folder.starts(), folder.epochs()
    assert start | describe_source() == start
    assert (bool(compiled), start["compiled"], start["threads"]) == (expected, expected, torch.get_num_threads())
    assert start["started"] < start["first_step_started"] < record["timestamp"]
    assert 0 < start["first_step_seconds"] <= record["metrics"]["time/train_seconds"] + 0.01
    assert (folder.summary()["reason"], folder.damage()) == ("all 1 epochs", None)
    assert not {path.name for path in folder.path.iterdir()} & {"lease", "checkpoint.pt", "previous.pt"}
    before = folder.state()
    assert train(folder) == worker.EXIT_DONE  # again: it is left as it is
    assert folder.state() == before


def test_finished_run_stores_predictions_of_the_images_and_classes_that_its_subset_leaves_out(
    tmp_path, train, monkeypatch
):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = make_run("cifar100", "mini", "cross-entropy", tmp_path)
    subset = Subset(classes=CLASSES - 1, images_per_class=IMAGES - 1, draw="seed")
    folder = with_settings(spec, folder, subset=subset, batch_size=3, **schedule_of(1))
    assert train(folder) == worker.EXIT_DONE
    stored = load_predictions(folder.predictions)
    logits, labels = stored.unused
    assert sorted(labels) == list(range(CLASSES - 1))
    trainer = build_trainer(folder.spec(), folder, CPU, "fp32")
    trainer.model.load_state_dict(torch.load(read_archive(folder.weights), weights_only=True))
    assert not set(trainer.unused().indices) & set(trainer.loader.split.indices)
    np.testing.assert_allclose(trainer.predict_unused().logits, logits, rtol=0.1, atol=0.05)  # trained in bf16
    np.testing.assert_allclose(trainer.predict_near_ood().logits, stored.near_ood, rtol=0.1, atol=0.05)
    assert not set(trainer.near_ood().indices) & set(stored.indices)


def test_missing_compiler_fails_only_the_run_that_requires_it(digits, train, monkeypatch):
    def missing(self):
        raise RuntimeError("g++ not found\nand much more")

    monkeypatch.setattr(worker.Trainer, "compile", missing)
    required = with_settings(*digits, compile=True, **schedule_of(1))
    assert train(required) == worker.EXIT_FAILED
    reason = "failed: torch.compile does not work here (RuntimeError: g++ not found): run with"
    assert required.state()["reason"].startswith(reason)
    # compiled on the machine where it started, and resumed on this one
    resumed = with_settings(*digits, **schedule_of(1))
    compiled = required.starts()[0] | {"compiled": True, "folder_inode": resumed.path.stat().st_ino}
    resumed.write_environment("t", [compiled])
    assert train(resumed) == worker.EXIT_DONE
    assert [start["compiled"] for start in resumed.starts()] == [True, False]
    assert resumed.training_id() == "t"


def test_training_that_starts_from_epoch_0_again_has_a_new_id_and_the_same_numbers(digits, train):
    """Also with torchvision's data pipeline in worker processes."""
    folder = with_settings(*digits, pipeline="torchvision", **schedule_of(1))
    assert train(folder) == worker.EXIT_DONE
    first, numbers = folder.training_id(), folder.epochs()[0]["metrics"]["train/loss"]
    folder.weights.write_bytes(b"damaged")
    folder.discard_damaged()
    assert train(folder) == worker.EXIT_DONE
    assert folder.training_id() != first
    assert len(folder.starts()) == 1
    assert folder.epochs()[0]["metrics"]["train/loss"] == numbers


def test_process_that_dies_at_the_end_leaves_a_run_that_the_next_one_finishes(digits, train, monkeypatch):
    folder = with_settings(*digits, **schedule_of(1))

    class Killed(BaseException):
        pass

    def die(self):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(RunFolder, "remove_checkpoints", die)
        train(folder)
    assert folder.state()["state"] != DONE
    folder.path.joinpath("checkpoint.pt.17.part").write_bytes(b"half of one")
    monkeypatch.setattr(worker, "build_trainer", die)  # nothing is trained again
    assert train(folder) == worker.EXIT_DONE
    assert (folder.state()["state"], len(folder.starts())) == (DONE, 1)
    assert not [*folder.path.glob("*.part"), *folder.path.glob("checkpoint*"), *folder.path.glob("previous*")]


def test_interruption_and_failure_are_recorded_with_their_reason(digits, train, monkeypatch):
    folder = with_settings(*digits, **schedule_of(2))
    with monkeypatch.context() as patched:
        patched.setattr(worker.StopRequest, "__call__", lambda stop: stop._on_signal(signal.SIGINT, None) or True)
        assert train(folder) == worker.EXIT_INTERRUPTED
    summary = folder.summary()
    assert (summary["state"], summary["reason"]) == (INTERRUPTED, "interrupted: Ctrl-C")
    monkeypatch.setattr(worker.Trainer, "train_epoch", lambda *arguments: bytearray(2**60))
    assert train(folder) == worker.EXIT_FAILED
    assert folder.summary()["state"] == FAILED
    assert folder.summary()["reason"].startswith("failed: out of memory (MemoryError): fewer WORKERS")


def test_run_that_another_process_trains_is_left_to_it(digits, train, monkeypatch):
    folder = with_settings(*digits, **schedule_of(1))
    with folder.leased():
        monkeypatch.setattr(RunFolder, "leased", partialmethod(RunFolder.leased, patience=0.1))
        assert train(folder) == worker.EXIT_HELD
    assert folder.state()["state"] == MISSING


def test_environment_without_threads_or_precision_is_damaged(digits):
    _, folder = digits
    folder.write_environment("t", [{"threds": 1}])
    folder.checkpoint.write_bytes(b"of unknown precision")
    start = worker.Start(folder)
    assert (start.damage, start.earlier) == (["environment.json is damaged"], [])
    assert start.training_id != "t"
    assert not folder.checkpoint.exists()


def test_new_training_begins_without_the_epochs_of_the_earlier_one(digits):
    """They could be uploaded as those of the new one, while its step is compiled."""
    _, folder = digits
    folder.write_epochs([{"epoch": 0, "metrics": {}}])
    worker.Start(folder).begin_new_training()
    assert folder.epochs() == []
