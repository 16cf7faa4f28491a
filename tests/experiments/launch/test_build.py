"""Trainers made from the specs of runs: every recipe, method and network."""

import functools
import itertools

import numpy as np
import pytest
import torch
from noise_runs import CLASSES, CPU, finish_teacher, make_run, schedule_of, with_settings

from cskd.methods import METHODS, PAPER_COMPOSITES
from cskd.models.weights import load_weights
from cskd.train.trainer import Interrupted
from cskd.utils.errors import UserError
from experiments.config.datasets import open_data
from experiments.config.recipe import recipe_names
from experiments.config.settings import Subset
from experiments.config.splits import make_splits
from experiments.launch.build import build_trainer
from experiments.launch.network import initialised_model


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The folder of a recipe's data, shared by the tests of that recipe."""
    return functools.cache(lambda *recipe: tmp_path_factory.mktemp("data"))


NOT_HERE = {"digits", "cub200-finetune"}  # the latter needs pretrained weights
RECIPES = [("digits", None), *itertools.product(sorted({*recipe_names()} - NOT_HERE), (None, "mini"))]
# Every method, recipe and profile; the last four methods with both networks.
CASES = [
    (*RECIPES[number % len(RECIPES)], method, ("resnet18", "densenet121")[number % 2])
    for number, method in enumerate([*METHODS, *PAPER_COMPOSITES, "adacos", "byot", "cs-kd", "kd"])
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
    build = functools.partial(build_trainer, spec, folder, CPU, "fp32")
    with pytest.raises(UserError, match="teacher digits/densenet41/cs-kd/seed0 is not trained yet"):
        build()
    teacher = finish_teacher(spec, tmp_path / "runs")
    weights = torch.load(teacher.weights, weights_only=True)
    assert all(torch.equal(value, weights[key]) for key, value in build().step.teacher.state_dict().items())
    teacher.weights.write_bytes(b"not weights")
    with pytest.raises(UserError, match=r"weights of the teacher, .* cannot be read"):
        build()
    teacher.weights.unlink()
    with pytest.raises(UserError, match=r"weights of the teacher, .* were deleted"):
        build()


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


def test_training_starts_from_the_weights_of_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    spec, folder = make_run("digits", None, "cs-kd", tmp_path)
    trained = initialised_model(spec.model_copy(update={"seed": 7}), CLASSES).state_dict()
    torch.save(trained, tmp_path / "weights.pt")
    digest = load_weights(spec.architecture, "weights.pt", tmp_path)[1]
    settings = spec.settings.model_copy(update={"weights": "weights.pt"})
    started = spec.model_copy(update={"settings": settings, "weights_digest": digest})
    assert started.run_key != spec.run_key
    state = build_trainer(started, folder, CPU, "fp32").model.state_dict()
    same = {name for name, value in state.items() if torch.equal(value, trained[name])}
    assert {name for name in state if name.startswith("backbone.")} <= same
    assert "head.weight" not in same
    with pytest.raises(UserError, match="has changed since the run was planned"):
        build_trainer(started.model_copy(update={"weights_digest": "0"}), folder, CPU, "fp32")


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
