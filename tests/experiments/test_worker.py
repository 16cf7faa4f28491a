"""Every recipe, profile and method starts and takes a step, on made-up images of its dataset."""

import functools
import os
import signal
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from cskd.data.prepare import prepared_folder
from cskd.data.sources.base import Listing
from cskd.data.store import write_dataset
from cskd.methods import METHODS, PAPER_COMPOSITES
from cskd.models.build import SMALL_IMAGE
from cskd.train.trainer import Interrupted
from cskd.utils.errors import UserError
from experiments.config import recipe
from experiments.config.datasets import open_data, parts_of
from experiments.config.recipe import ScheduleSettings, load_settings, recipe_names
from experiments.config.spec import RunSpec, make_spec, make_splits
from experiments.launch import worker
from experiments.launch.build import build_trainer, initialised_model
from experiments.runs.folder import DONE, RunFolder

PROFILES = [
    (name, profile)
    for name in recipe_names()
    for profile in (None, *(yaml.safe_load((recipe.RECIPES / f"{name}.yaml").read_text()).get("profiles") or {}))
]


CLASSES, EACH = 3, 4  # images of the made-up datasets


def made_up(
    name: str, profile: str | None, method: str, folder: Path, architecture: str = "resnet18"
) -> tuple[RunSpec, RunFolder]:
    """A run of the recipe on a few noise images, prepared below ``folder``; its network and images are made small."""
    _, settings = load_settings(name, profile)
    inputs = settings.inputs
    overrides = ["batch_size=4"]
    if settings.subset:
        overrides.append(f"subset={{classes: {CLASSES}, images_per_class: {EACH}}}")
    if inputs.image_size > SMALL_IMAGE:
        overrides += [f"inputs.image_size={SMALL_IMAGE + 8}", f"inputs.test_resize={SMALL_IMAGE + 16}"]
    else:
        overrides.append("width=4")
    profile, settings = load_settings(name, profile, tuple(overrides))
    inputs = settings.inputs
    side = inputs.image_size if inputs.train == "pad-crop" else inputs.test_resize + 5
    parts = [prepared_folder(part, folder) for part in parts_of(name, settings.data)]
    if not parts[0].exists():
        random = np.random.default_rng(0)
        count = CLASSES * (EACH + 2)
        images = [
            (random.integers(0, 256, size=(side, side, 3), dtype=np.uint8), index % CLASSES) for index in range(count)
        ]
        listing = Listing(["one", "two", "three"], train=images[: CLASSES * EACH], test=images[CLASSES * EACH :])
        for part in parts:
            write_dataset(part, part.name, listing, complete=False, source="made up")
    dataset = open_data(name, settings.data, folder)
    spec = make_spec(name, dataset, profile, settings, settings.trained(architecture), method, seed=0)
    run = RunFolder.of(spec, folder / "runs")
    run.create(spec)
    return spec, run


def finish_teacher(spec: RunSpec, runs: Path) -> RunFolder:
    """The teacher's run of a spec, as if it had been trained."""
    folder = RunFolder.of(spec.teacher, runs)
    folder.create(spec.teacher)
    model = initialised_model(spec.teacher, CLASSES)
    torch.save(model.state_dict(), folder.weights)
    folder.write_state(DONE, epoch=1)
    return folder


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A folder whose prepared data the tests of one recipe and profile share."""
    return functools.cache(lambda *recipe: tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("architecture", ["resnet18", "densenet121"])
@pytest.mark.parametrize("method", [*METHODS, *PAPER_COMPOSITES])
@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_every_recipe_takes_a_step_with_every_method_and_architecture(
    name, profile, method, architecture, shared, monkeypatch
):
    folder = shared(name, profile)
    monkeypatch.setenv("DATA_DIR", str(folder))
    spec, run = made_up(name, profile, method, folder, architecture)
    if spec.teacher:
        finish_teacher(spec, folder / "runs")
    trainer = build_trainer(spec, run, torch.device("cpu"), "fp32")
    before = trainer.model.head.weight.detach().clone()
    steps = []
    with pytest.raises(Interrupted):
        trainer.run(on_epoch=lambda *_: None, on_step=steps.append, should_stop=lambda: bool(steps))
    assert steps[0].images == 4
    assert not torch.equal(trainer.model.head.weight, before)


def test_a_student_starts_from_its_trained_teacher_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = made_up("digits", None, "kd", tmp_path)
    assert (spec.teacher.architecture, spec.teacher.method, spec.teacher.seed) == ("densenet41", "cs-kd", 0)
    with pytest.raises(UserError, match="teacher digits/densenet41/cs-kd/seed0 is not trained yet"):
        build_trainer(spec, folder, torch.device("cpu"), "fp32")
    teacher = finish_teacher(spec, tmp_path / "runs")
    trainer = build_trainer(spec, folder, torch.device("cpu"), "fp32")
    weights = torch.load(teacher.weights, weights_only=True)
    assert all(torch.equal(value, weights[key]) for key, value in trainer.step.teacher.state_dict().items())
    teacher.weights.write_bytes(b"not weights")
    with pytest.raises(UserError, match="weights of the teacher"):
        build_trainer(spec, folder, torch.device("cpu"), "fp32")


def test_a_run_on_a_merged_set_measures_each_domain_at_every_epoch(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = made_up("merged", "mini", "cs-kd", tmp_path)
    schedule = spec.settings.schedule.model_copy(update={"epochs": 2})
    changes = {"subset": recipe.Subset(classes=6, images_per_class=3), "schedule": schedule}
    spec = spec.model_copy(update={"settings": spec.settings.model_copy(update=changes)})
    trainer = build_trainer(spec, folder, torch.device("cpu"), "fp32")
    epochs = []
    predictions = trainer.run(on_epoch=lambda epoch, metrics: epochs.append(metrics))
    dataset = open_data("merged", spec.settings.data, tmp_path)
    kept = make_splits(spec, dataset)[0]
    domains = [label.partition("/")[0] for label in kept]
    assert len(kept) == predictions.logits.shape[1] == 6
    for name in ("cub200", "dogs", "mit67"):
        predicted = [
            domains[guess] == name
            for guess, label in zip(predictions.logits.argmax(1), predictions.labels, strict=True)
            if domains[label] == name
        ]
        assert epochs[-1][f"test/domain_accuracy_{name}"] == pytest.approx(100 * np.mean(predicted))
        assert 0 <= epochs[0][f"test/top1_error_{name}"] <= 100


def test_the_initial_weights_come_from_the_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = made_up("digits", None, "cs-kd", tmp_path)
    weights = []
    for burnt in (0, 5):
        torch.rand(burnt)  # what was drawn before must not matter
        trainer = build_trainer(spec, folder, torch.device("cpu"), "fp32")
        weights.append(torch.cat([parameter.flatten() for parameter in trainer.model.parameters()]))
    assert torch.equal(*weights)
    other = build_trainer(spec.model_copy(update={"seed": 1}), folder, torch.device("cpu"), "fp32")
    assert not torch.equal(weights[0], torch.cat([parameter.flatten() for parameter in other.model.parameters()]))


def test_data_that_changed_since_the_plan_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = made_up("digits", None, "cs-kd", tmp_path)
    changed = spec.model_copy(update={"data_digest": "0" * 64})
    with pytest.raises(UserError, match="data of digits have changed"):
        build_trainer(changed, folder, torch.device("cpu"), "fp32")


def with_settings(spec: RunSpec, folder: RunFolder, **settings) -> RunFolder:
    """The run's folder under other settings."""
    other = spec.model_copy(update={"settings": spec.settings.model_copy(update=settings)})
    there = RunFolder.of(other, folder.path.parent)
    there.create(other)
    return there


ONE_EPOCH = {"schedule": ScheduleSettings(epochs=1, milestones=())}


def run_worker(folder: RunFolder, monkeypatch) -> int:
    monkeypatch.setattr(sys, "argv", ["worker", str(folder.path), "--threads", str(torch.get_num_threads())])
    return worker.main()


@pytest.mark.parametrize(("compile_", "recorded"), [(True, True), (False, False), ("auto", False)])
def test_whether_the_step_was_compiled_is_recorded(compile_, recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    compiled = []
    monkeypatch.setattr(worker.Trainer, "compile", lambda trainer: compiled.append(trainer.seed))
    folder = with_settings(*made_up("digits", None, "cs-kd", tmp_path), compile=compile_, **ONE_EPOCH)
    assert run_worker(folder, monkeypatch) == worker.EXIT_DONE
    assert len(compiled) == recorded
    assert [start["compiled"] for start in folder.starts()] == [recorded]


def test_how_long_a_run_took_to_its_first_step_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    folder = with_settings(*made_up("digits", None, "cs-kd", tmp_path), **ONE_EPOCH)
    assert run_worker(folder, monkeypatch) == worker.EXIT_DONE
    (start,) = folder.starts()
    assert start["started"] < start["first_step_started"] < folder.epochs()[0]["timestamp"]
    process = psutil.Process().create_time()
    assert start["set_up_seconds"] == pytest.approx(start["first_step_started"] - process, abs=0.01)
    assert 0 < start["first_step_seconds"] <= folder.epochs()[0]["metrics"]["time/train_seconds"] + 0.01


def test_a_compiler_that_is_missing_fails_the_run_that_asked_for_it_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))

    def missing(self):
        raise RuntimeError("g++ not found\nand much more")

    monkeypatch.setattr(worker.Trainer, "compile", missing)
    asked = with_settings(*made_up("digits", None, "cs-kd", tmp_path), compile=True, **ONE_EPOCH)
    assert run_worker(asked, monkeypatch) == worker.EXIT_FAILED
    message = "torch.compile does not work here (g++ not found)"
    assert asked.state()["reason"] == f"{message}: run with SET=compile=auto, or mend it"
    # one that was compiled where it began, and is taken up here
    begun = with_settings(*made_up("digits", None, "cs-kd", tmp_path), **ONE_EPOCH)
    start = asked.starts()[0]
    begun.write_starts([start | {"compiled": True}])
    capsys.readouterr()
    assert run_worker(begun, monkeypatch) == worker.EXIT_DONE
    assert capsys.readouterr().err == f"{message}: the run goes on without it\n"
    assert [start["compiled"] for start in begun.starts()] == [True, False]


def test_a_run_through_torchvisions_pipeline_is_taken_up_exactly(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    options = {"pipeline": "torchvision", "schedule": ScheduleSettings(epochs=2, milestones=())}
    spec, made = made_up("digits", None, "cs-kd", tmp_path)
    at_once = with_settings(spec, made, **options)
    assert run_worker(at_once, monkeypatch) == worker.EXIT_DONE
    losses = [record["metrics"]["train/loss"] for record in at_once.epochs()]
    trainer = build_trainer(at_once.spec(), at_once, torch.device("cpu"), at_once.starts()[0]["precision"])
    assert [trainer.train_epoch(number)["train/loss"] for number in range(2)] == losses
    ours = with_settings(spec, made, schedule=options["schedule"])
    assert run_worker(ours, monkeypatch) == worker.EXIT_DONE
    assert ours.epochs()[0]["metrics"]["train/loss"] != losses[0]


def test_a_run_that_another_grid_has_finished_is_left_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    _, folder = made_up("digits", None, "cs-kd", tmp_path)
    folder.write_state(DONE, epoch=40)
    before = sorted(path.name for path in folder.path.iterdir())
    monkeypatch.setattr(sys, "argv", ["worker", str(folder.path)])
    assert worker.main() == worker.EXIT_DONE
    assert folder.state()["state"] == DONE
    assert sorted(path.name for path in folder.path.iterdir()) == sorted([*before, "claim", "holder.1"])


def test_a_process_that_dies_as_its_run_ends_leaves_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    folder = with_settings(*made_up("digits", None, "cs-kd", tmp_path), **ONE_EPOCH)

    class Killed(BaseException):
        pass

    def die(self):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "remove_checkpoints", die)
        with pytest.raises(Killed):
            run_worker(folder, monkeypatch)
    assert folder.state()["state"] != DONE
    folder.path.joinpath("checkpoint.pt.17.part").write_bytes(b"half of one")
    assert run_worker(folder, monkeypatch) == worker.EXIT_DONE
    assert folder.state()["state"] == DONE
    assert not [*folder.path.glob("*.part"), *folder.path.glob("checkpoint*"), *folder.path.glob("previous*")]


def test_sigterm_and_a_lost_launcher_ask_the_run_to_stop(monkeypatch):
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = worker.StopSignal(os.getppid())
        assert not stop()
        monkeypatch.setattr(worker.os, "getppid", lambda: 1)
        assert stop()
        monkeypatch.undo()
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        assert stop()
        assert worker.StopSignal(launcher=1)()
        assert not worker.StopSignal()()  # a run on its own outlives the terminal that started it
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
