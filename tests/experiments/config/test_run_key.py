"""Run keys: every setting either changes them or does not, and nothing else does."""

import functools
import json
import random

import pytest
from faults.odd import keys_of
from run_folders import digits_spec

from experiments.config.recipe import load_settings
from experiments.config.settings import DEFAULTS_OMITTED_FROM_KEY, Settings
from experiments.config.spec import RunSpec

# A changed value of every setting that changes what a run computes.
CHANGING = {
    "subset": "subset={images_per_class: 3}",
    "subset.classes": "subset={classes: 4, images_per_class: 9}",
    "subset.images_per_class": "subset={classes: 5, images_per_class: 8}",
    "subset.draw": "subset={classes: 5, images_per_class: 9, draw: seed}",
    "inputs": "inputs={padding: 3, flip: true}",
    "inputs.image_size": "inputs.image_size=16",
    "inputs.train": "inputs.train=resized-crop",
    "inputs.padding": "inputs.padding=2",
    "inputs.flip": "inputs.flip=true",
    "inputs.test_resize": "inputs.test_resize=9",
    "inputs.mean": "inputs.mean=[0.5, 0.5, 0.4]",
    "inputs.std": "inputs.std=[0.5, 0.5, 0.4]",
    "width": "width=8",
    "batch_size": "batch_size=49",
    "replicas": "replicas=2",
    "schedule": "schedule={epochs: 9}",
    "schedule.epochs": "schedule.epochs=41",
    "schedule.lr": "schedule.lr=0.2",
    "schedule.milestones": "schedule.milestones=[21, 30]",
    "schedule.factor": "schedule.factor=0.2",
    "schedule.momentum": "schedule.momentum=0.8",
    "schedule.kind": "schedule={kind: cosine, milestones: []}",
    "schedule.warmup_epochs": "schedule.warmup_epochs=2",
    "schedule.optimizer": "schedule.optimizer=adamw",
    "schedule.beta2": "schedule.beta2=0.99",
    "schedule.decay_all": "schedule.decay_all=false",
    "schedule.nesterov": "schedule.nesterov=true",
    "schedule.weight_decay": "schedule.weight_decay=0",
    "precision": "precision=fp32",
    "compile": "compile=true",
    "pipeline": "pipeline=torchvision",
}
# The other settings select what is trained; what they select is in the key.
SELECTING = {
    "data": "data={reader: cifar100}",
    "data.reader": "data.reader=cifar100",
    "data.folder": "data={reader: image-folder, folder: elsewhere}",
    "data.parts": "data={reader: merged, parts: [cub200, dogs]}",
    "architectures": "architectures.densenet121=resnet10",
    "weights": "weights=null",  # the digest of the weights is in the key
    "validate_on": "validate_on=unused",
    "validation_fraction": "validation_fraction=0.4",
    "methods": "methods.kd.temperature=2",
    "from_paper": "from_paper.kd=[resnet10]",
    "teacher": "teacher={seed: 3}",
    "teacher.architecture": "teacher.architecture=resnet18",
    "teacher.method": "teacher.method=cross-entropy",
    "teacher.seed": "teacher.seed=1",
    "threads": "threads=2",
}
DIGEST = "1b06341fe337ffef41ac0fdd97743f39f9b948d28d7eef4c1101560fa979d3b5"  # of the prepared digits


@pytest.mark.parametrize(
    ("method", "seed", "key"), [("cs-kd", 2, "230147e2891deb5c"), ("cross-entropy", 2, "bd9a56958a9785f4")]
)
def test_keys_of_the_demo_do_not_change(method, seed, key):
    """A change here makes all earlier results those of other runs."""
    assert digits_spec(method=method, seed=seed, digest=DIGEST).run_key == key


def test_every_setting_is_declared_to_change_the_key_or_not():
    undeclared = set(keys_of(Settings)) ^ (set(CHANGING) | set(SELECTING))
    assert not undeclared, "add the new setting to one of the two tables above"


@pytest.mark.parametrize("setting", SELECTING)
def test_settings_that_only_select_leave_the_key(setting):
    assert digits_spec(SELECTING[setting]).run_key == digits_spec().run_key
    if setting.startswith("teacher"):  # they select another teacher of a student
        assert digits_spec(SELECTING[setting], method="kd").run_key != digits_spec(method="kd").run_key


def test_every_change_of_the_numbers_gives_another_key():
    specs = [
        digits_spec(),
        *(digits_spec(change) for change in CHANGING.values()),
        digits_spec("subset={classes: 5, images_per_class: 9}"),
        digits_spec("methods.cs-kd.temperature=3"),
        digits_spec("methods.cs-kd.schedule.lr=0.3"),
        digits_spec("compile=false"),
    ]
    assert len({spec.run_key for spec in specs}) == len(specs)


def test_every_field_of_a_spec_changes_the_key_or_does_not():
    spec = digits_spec()
    changing = {
        "architecture": "resnet18", "method": "mixup", "parameters": {"temperature": 2.0, "lambda_cls": 1.0}, "seed": 1,
        "data_digest": "e", "weights_digest": "w", "numerics_version": 99, "teacher": digits_spec(method="mixup"),
        "schedule_parameters": {"schedule.lr": 0.3},
        "validation": {"fraction": 0.5, "indices_digest": "v"}, "settings": digits_spec("width=8").settings,
    }  # fmt: skip
    others = {
        "dataset": "renamed", "profile": "renamed", "data_complete": False, "data_source": "elsewhere",
        "comparable": True, "comparable_reason": "other",
    }  # fmt: skip
    assert set(changing) | set(others) == set(RunSpec.model_fields)
    content = spec.model_dump(mode="json")
    for name, value in (changing | others).items():
        dumped = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        assert (RunSpec.model_validate(content | {name: dumped}).run_key != spec.run_key) == (name in changing), name


def test_learning_rate_of_a_method_is_its_own_parameter_unless_it_is_the_recipes():
    spec = digits_spec("methods.cs-kd.schedule.lr=0.3", "methods.kd.schedule.lr=0.2")
    assert (spec.schedule.lr, spec.settings.schedule.lr) == (0.3, 0.1)
    assert spec.flat()["parameters.schedule.lr"] == 0.3
    assert digits_spec("methods.cs-kd.schedule.lr=0.1").run_key == digits_spec().run_key
    assert digits_spec("methods.kd.schedule.lr=0.2", method="kd").teacher.schedule.lr == 0.1


def test_tracked_settings_are_those_that_the_optimizer_and_the_schedule_use():
    sgd = digits_spec().flat()
    adamw = digits_spec("schedule={optimizer: adamw, kind: cosine, milestones: [], beta2: 0.99}").flat()
    assert {"schedule.nesterov", "schedule.milestones", "schedule.factor"} == sgd.keys() - adamw.keys()
    assert (adamw["schedule.momentum"], adamw["schedule.beta2"]) == (0.9, 0.99)  # the betas


def test_defaults_omitted_from_the_key_are_the_settings_defaults():
    defaults = load_settings("digits", overrides=("subset={images_per_class: 9}",))[1].model_dump()
    for name, value in DEFAULTS_OMITTED_FROM_KEY.items():
        assert functools.reduce(dict.__getitem__, name.split("."), defaults) == value


@pytest.mark.parametrize("method", ["cs-kd", "kd"])
def test_key_survives_the_spec_file_in_any_order_of_keys(method):
    def shuffled(content):
        if not isinstance(content, dict):
            return content
        return {name: shuffled(content[name]) for name in random.Random(0).sample(list(content), len(content))}

    spec = digits_spec(method=method)
    text = json.dumps(shuffled(spec.model_dump(mode="json")))
    assert RunSpec.model_validate(json.loads(text)).run_key == spec.run_key
    overrides = ["width=8", "schedule.lr=0.2", "methods.cs-kd.temperature=2"]
    assert digits_spec(*overrides).run_key == digits_spec(*reversed(overrides)).run_key


def test_cells_join_seeds_but_not_recipes():
    spec, other_recipe = digits_spec(), digits_spec().model_copy(update={"dataset": "digits-again"})
    assert digits_spec(seed=1).cell_key == spec.cell_key != digits_spec(method="kd").cell_key
    assert other_recipe.run_key == spec.run_key
    assert other_recipe.cell_key != spec.cell_key
