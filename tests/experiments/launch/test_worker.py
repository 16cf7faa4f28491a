"""Runs from their spec to their results, on random images in place of each recipe's dataset."""

import functools
import itertools
import os
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from cskd.data import torchvision_loader
from cskd.data.prepare import prepared_folder
from cskd.data.sources.base import Listing
from cskd.data.store import write_dataset
from cskd.evaluate.predictions import load_predictions
from cskd.methods import METHODS, PAPER_COMPOSITES
from cskd.models.build import SMALL_IMAGE
from cskd.train.trainer import Interrupted
from cskd.utils.errors import UserError
from experiments.config.datasets import open_data, parts_of
from experiments.config.recipe import ScheduleSettings, Subset, load_settings, recipe_names
from experiments.config.spec import RunSpec, make_spec
from experiments.config.splits import make_splits
from experiments.launch import worker
from experiments.launch.build import build_trainer, initialised_model
from experiments.runs.folder import DONE, FAILED, INTERRUPTED, RunFolder
from experiments.runs.source import describe_source

CPU = torch.device("cpu")
CLASSES, IMAGES = 3, 4  # classes, and training images of each, of the random datasets


def make_run(
    name: str, profile: str | None, method: str, folder: Path, architecture: str = "resnet18"
) -> tuple[RunSpec, RunFolder]:
    """Return a run of a recipe on a few random images below ``folder``, with a small network and small images."""
    _, settings = load_settings(name, profile)
    overrides = ["batch_size=4"]
    if settings.subset:
        overrides.append(f"subset={{classes: {CLASSES}, images_per_class: {IMAGES}}}")
    if settings.inputs.image_size > SMALL_IMAGE:
        overrides += [f"inputs.image_size={SMALL_IMAGE + 8}", f"inputs.test_resize={SMALL_IMAGE + 16}"]
    else:
        overrides.append("width=4")
    profile, settings = load_settings(name, profile, tuple(overrides))
    inputs = settings.inputs
    side = inputs.image_size if inputs.train == "pad-crop" else inputs.test_resize + 5
    parts = [prepared_folder(part, folder) for part in parts_of(name, settings.data)]
    if not parts[0].exists():
        random = np.random.default_rng(0)
        images = [
            (random.integers(0, 256, size=(side, side, 3), dtype=np.uint8), index % CLASSES)
            for index in range(CLASSES * (IMAGES + 2))
        ]
        split = CLASSES * IMAGES
        listing = Listing(["one", "two", "three"], train=images[:split], test=images[split:])
        for part in parts:
            write_dataset(part, part.name, listing, complete=False, source="made up")
    dataset = open_data(name, settings.data, folder)
    spec = make_spec(name, dataset, profile, settings, settings.resolve_architecture(architecture), method, seed=0)
    run = RunFolder.of(spec, folder / "runs")
    run.create(spec)
    return spec, run


def with_settings(spec: RunSpec, folder: RunFolder, **settings) -> RunFolder:
    """Return the folder of the same run with other settings."""
    spec = spec.model_copy(update={"settings": spec.settings.model_copy(update=settings)})
    folder = RunFolder.of(spec, folder.path.parent)
    folder.create(spec)
    return folder


def schedule_of(epochs: int) -> dict:
    return {"schedule": ScheduleSettings(epochs=epochs, milestones=())}


def finish_teacher(spec: RunSpec, runs: Path) -> RunFolder:
    """Return the run of a spec's teacher, as if it had been trained."""
    folder = RunFolder.of(spec.teacher, runs)
    folder.create(spec.teacher)
    torch.save(initialised_model(spec.teacher, CLASSES).state_dict(), folder.weights)
    folder.write_state(DONE, epoch=1)
    return folder


@pytest.fixture(autouse=True)
def signal_handlers():
    """Restores the handlers that the worker replaces."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """A run of CS-KD on digits."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    return make_run("digits", None, "cs-kd", tmp_path)


def train(folder: RunFolder, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["worker", str(folder.path), "--threads", str(torch.get_num_threads())])
    return worker.main()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of a recipe's data, shared by the tests of that recipe."""
    return functools.cache(lambda *recipe: tmp_path_factory.mktemp("data"))


RECIPES = [(name, profile) for name in recipe_names() for profile in ((None,) if name == "digits" else (None, "mini"))]
EVERY_METHOD = [*METHODS, *PAPER_COMPOSITES]
# Every method with both kinds of network, and every recipe and profile with several methods.
CASES = [
    (*RECIPES[number % len(RECIPES)], method, architecture)
    for number, (architecture, method) in enumerate(itertools.product(("resnet18", "densenet121"), EVERY_METHOD))
]


@pytest.mark.parametrize(("name", "profile", "method", "architecture"), CASES)
def test_each_recipe_method_and_network_takes_a_step(name, profile, method, architecture, data, monkeypatch):
    folder = data(name, profile)
    monkeypatch.setenv("DATA_DIR", str(folder))
    spec, run = make_run(name, profile, method, folder, architecture)
    if spec.teacher:
        finish_teacher(spec, folder / "runs")
    trainer = build_trainer(spec, run, CPU, "fp32")
    before = trainer.model.head.weight.detach().clone()
    steps = []
    with pytest.raises(Interrupted):
        trainer.run(on_step=steps.append, should_stop=lambda: bool(steps))
    assert steps[0].images == 4
    assert not torch.equal(trainer.model.head.weight, before)


def test_student_needs_the_weights_of_its_trained_teacher(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = make_run("digits", None, "kd", tmp_path)
    assert (spec.teacher.architecture, spec.teacher.method, spec.teacher.seed) == ("densenet41", "cs-kd", 0)
    with pytest.raises(UserError, match="teacher digits/densenet41/cs-kd/seed0 is not trained yet"):
        build_trainer(spec, folder, CPU, "fp32")
    teacher = finish_teacher(spec, tmp_path / "runs")
    trainer = build_trainer(spec, folder, CPU, "fp32")
    weights = torch.load(teacher.weights, weights_only=True)
    assert all(torch.equal(value, weights[key]) for key, value in trainer.step.teacher.state_dict().items())
    teacher.weights.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"weights of the teacher, .* cannot be read"):
        build_trainer(spec, folder, CPU, "fp32")
    teacher.weights.unlink()
    with pytest.raises(UserError, match=r"weights of the teacher, .* were deleted"):
        build_trainer(spec, folder, CPU, "fp32")


def test_merged_dataset_has_metrics_of_each_domain_in_each_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = make_run("merged", "mini", "cs-kd", tmp_path)
    folder = with_settings(spec, folder, subset=Subset(classes=6, images_per_class=3), **schedule_of(2))
    spec, records = folder.spec(), []
    predictions = build_trainer(spec, folder, CPU, "fp32").run(on_checkpoint=records.extend)
    classes = make_splits(spec, open_data("merged", spec.settings.data, tmp_path)).classes
    domains = np.array([label.partition("/")[0] for label in classes])
    assert len(classes) == predictions.logits.shape[1] == 6
    predicted, true = domains[predictions.logits.argmax(1)], domains[predictions.labels]
    for name in ("cub200", "dogs", "mit67"):
        expected = 100 * np.mean(predicted[true == name] == name)
        assert records[-1]["metrics"][f"test/domain_accuracy_{name}"] == pytest.approx(expected)
        assert 0 <= records[0]["metrics"][f"test/top1_error_{name}"] <= 100


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


def test_initial_weights_depend_on_the_seed_alone(digits):
    spec, _ = digits
    weights = []
    for seed, draws in ((0, 0), (0, 5), (1, 0)):
        torch.rand(draws)  # earlier draws must not matter
        model = initialised_model(spec.model_copy(update={"seed": seed}), CLASSES)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [({"data_digest": "0" * 64}, "data of digits have changed"), ({"numerics_version": 0}, "another version")],
)
def test_run_of_other_data_or_numerics_is_refused(digits, change, message):
    spec, folder = digits
    with pytest.raises(UserError, match=message):
        build_trainer(spec.model_copy(update=change), folder, CPU, "fp32")


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
