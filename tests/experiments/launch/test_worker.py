"""The training process: what it records, how it ends, and what the next one does."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from noise_runs import CLASSES, CPU, IMAGES, make_run, schedule_of, with_settings

from cskd.data import torchvision_loader
from cskd.evaluate.predictions import load_predictions
from experiments.config.recipe import Subset
from experiments.launch import worker
from experiments.launch.build import build_trainer
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RunFolder
from experiments.runs.source import describe_source


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restores the handlers that the worker replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def train(folder: RunFolder, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["worker", str(folder.path), "--threads", str(torch.get_num_threads())])
    return worker.main()


@pytest.mark.parametrize(("setting", "expected"), [(True, True), (False, False), ("auto", False)])
def test_run_records_how_it_was_trained(digits, setting, expected, monkeypatch):
    compiled = []
    monkeypatch.setattr(worker.Trainer, "compile", lambda trainer: compiled.append(trainer.seed))
    folder = with_settings(*digits, compile=setting, **schedule_of(1))
    assert train(folder, monkeypatch) == worker.EXIT_DONE
    (start,), (record,) = folder.starts(), folder.epochs()
    assert start | describe_source() == start
    assert (bool(compiled), start["compiled"]) == (expected, expected)
    assert start["started"] < start["first_step_started"] < record["timestamp"]
    process = psutil.Process().create_time()
    assert start["set_up_seconds"] == pytest.approx(start["first_step_started"] - process, abs=0.01)
    assert 0 < start["first_step_seconds"] <= record["metrics"]["time/train_seconds"] + 0.01
    assert (folder.summary()["reason"], folder.damage()) == ("all 1 epochs", None)
    files = {path.name for path in folder.path.iterdir()}
    assert not files & {"lease", "checkpoint.pt", "previous.pt"}
    before = folder.state()
    assert train(folder, monkeypatch) == worker.EXIT_DONE  # again: it is left as it is
    assert folder.state() == before


def test_finished_run_stores_predictions_of_the_images_that_its_subset_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = make_run("cifar100", "mini", "cross-entropy", tmp_path)
    subset = Subset(classes=CLASSES, images_per_class=IMAGES - 1, draw="seed")
    folder = with_settings(spec, folder, subset=subset, batch_size=3, **schedule_of(1))
    assert train(folder, monkeypatch) == 0
    logits, labels = load_predictions(folder.predictions).unused
    assert sorted(labels) == list(range(CLASSES))
    trainer = build_trainer(folder.spec(), folder, CPU, "fp32")
    assert not set(trainer.unused().indices) & set(trainer.loader.split.indices)
    np.testing.assert_allclose(trainer.predict_unused().logits, logits, rtol=0.1, atol=0.05)  # trained in bf16


def test_missing_compiler_fails_only_the_run_that_requires_it(digits, monkeypatch, capsys):
    def missing(self):
        raise RuntimeError("g++ not found\nand much more")

    monkeypatch.setattr(worker.Trainer, "compile", missing)
    required = with_settings(*digits, compile=True, **schedule_of(1))
    assert train(required, monkeypatch) == worker.EXIT_FAILED
    assert required.state()["reason"].startswith(
        "failed: torch.compile does not work here (RuntimeError: g++ not found): run with"
    )
    # compiled on the machine where it started, and resumed on this one
    resumed = with_settings(*digits, **schedule_of(1))
    resumed.write_environment(
        "t", [required.starts()[0] | {"compiled": True, "folder_inode": resumed.path.stat().st_ino}]
    )
    capsys.readouterr()
    assert train(resumed, monkeypatch) == worker.EXIT_DONE
    expected = "torch.compile does not work here (RuntimeError: g++ not found): the run continues without it\n"
    assert capsys.readouterr().err == expected
    assert [start["compiled"] for start in resumed.starts()] == [True, False]
    assert resumed.training_id() == "t"


def test_training_that_starts_from_epoch_0_again_has_a_new_id(digits, monkeypatch):
    folder = with_settings(*digits, **schedule_of(1))
    (folder.path / "lease").touch()  # its process was killed before it wrote its name
    os.utime(folder.path / "lease", (1, 1))
    assert train(folder, monkeypatch) == worker.EXIT_DONE
    first, numbers = folder.training_id(), folder.epochs()[0]["metrics"]["train/loss"]
    folder.weights.write_bytes(b"damaged")
    folder.discard_damaged()
    assert train(folder, monkeypatch) == worker.EXIT_DONE
    assert folder.training_id() != first
    assert len(folder.starts()) == 1
    assert folder.epochs()[0]["metrics"]["train/loss"] == numbers


def test_torchvision_pipeline_trains_through_the_worker(digits, monkeypatch):
    folder = with_settings(*digits, pipeline="torchvision", **schedule_of(2))
    assert train(folder, monkeypatch) == worker.EXIT_DONE
    losses = [record["metrics"]["train/loss"] for record in folder.epochs()]
    trainer = build_trainer(folder.spec(), folder, CPU, folder.starts()[0]["precision"])
    assert [trainer.train_epoch(number)["train/loss"] for number in range(2)] == losses


MISSING_FILE = "FileNotFoundError: [Errno 2] No such file or directory: '/no/image'"


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda: Path("/no/image").read_bytes(), MISSING_FILE),
        (
            lambda: signal.raise_signal(signal.SIGBUS),
            "is killed by signal: Bus error. It is possible that dataloader's",
        ),
    ],
)
def test_reason_of_a_failed_run_is_that_of_its_data_loader_process(digits, monkeypatch, harm, reason):
    def harmed(images, position):
        try:
            harm()
        except OSError as error:
            raise RuntimeError("an image cannot be read\nin two lines") from error

    monkeypatch.setattr(torchvision_loader._Images, "__getitem__", harmed)
    folder = with_settings(*digits, pipeline="torchvision", **schedule_of(1))
    assert train(folder, monkeypatch) == worker.EXIT_FAILED
    assert reason in folder.state()["reason"]


def test_process_that_dies_at_the_end_leaves_a_run_that_the_next_one_finishes(digits, monkeypatch):
    folder = with_settings(*digits, **schedule_of(1))

    class Killed(BaseException):
        pass

    def die(self):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "remove_checkpoints", die)
        with pytest.raises(Killed):
            train(folder, monkeypatch)
    assert folder.state()["state"] != DONE
    folder.path.joinpath("checkpoint.pt.17.part").write_bytes(b"half of one")
    monkeypatch.setattr(worker, "build_trainer", die)  # nothing is trained again
    assert train(folder, monkeypatch) == worker.EXIT_DONE
    assert (folder.state()["state"], len(folder.starts())) == (DONE, 1)
    assert not [*folder.path.glob("*.part"), *folder.path.glob("checkpoint*"), *folder.path.glob("previous*")]


def test_interruption_and_failure_are_recorded_with_their_reason(digits, monkeypatch):
    folder = with_settings(*digits, **schedule_of(2))
    with monkeypatch.context() as patched:
        patched.setattr(worker.StopRequest, "__call__", lambda stop: stop._on_signal(signal.SIGINT, None) or True)
        assert train(folder, monkeypatch) == worker.EXIT_INTERRUPTED
    summary = folder.summary()
    assert (summary["state"], summary["reason"]) == (INTERRUPTED, "interrupted: Ctrl-C")
    with monkeypatch.context() as patched:
        patched.setattr(worker.Trainer, "train_epoch", lambda *arguments: bytearray(2**60))
        assert train(folder, monkeypatch) == worker.EXIT_FAILED
    summary = folder.summary()
    assert summary["state"] == FAILED
    assert summary["reason"].startswith("failed: out of memory (MemoryError): fewer WORKERS")


def test_signals_and_a_dead_launcher_stop_the_run():
    stop = worker.StopRequest(os.getppid())
    assert not stop()
    signal.raise_signal(signal.SIGTERM)
    assert (stop(), stop.reason) == (True, "stopped by SIGTERM")
    orphan = worker.StopRequest(launcher=1)
    assert (orphan(), orphan.reason) == (True, "its launcher has died")
    assert not worker.StopRequest()()  # a run without a launcher
