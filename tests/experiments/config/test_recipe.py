"""Recipes: all are valid, and an invalid one gives an error of one line that names the key."""

import pytest

from cskd.methods import build_method
from cskd.utils.errors import UserError
from cskd.utils.yaml import read_mapping
from experiments.config import recipe
from experiments.config.datasets import parts_of, source_of
from experiments.config.grid import grid_names, load_grid
from experiments.config.recipe import RECIPES, load_settings, recipe_names

PROFILES = [
    (name, profile)
    for name in recipe_names()
    for profile in (None, *read_mapping(RECIPES / f"{name}.yaml").get("profiles", {}))
]


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_every_recipe_and_profile_is_valid(name, profile):
    _, settings = load_settings(name, profile)
    assert max(settings.schedule.milestones, default=0) < settings.schedule.epochs
    for method in settings.methods:
        build_method(method, settings.parameters_of(method))
    sources = [source_of(part, data) for part, data in parts_of(name, settings.data).items()]
    if settings.subset is None:
        return
    # A last batch of a few images, of a tuning run too, makes some runs diverge.
    images = settings.subset.images_per_class
    classes = settings.subset.classes or sum(source.num_classes for source in sources)
    remaining = classes * (images - max(1, round(settings.validation_fraction * images)))
    last_batch = remaining % settings.batch_size
    assert last_batch == 0 or last_batch >= settings.batch_size / 8


@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet", "cub200", "dogs", "mit67"])
def test_paper_profile_has_the_papers_settings(name):
    profile, settings = load_settings(name)
    small = name in ("cifar100", "tinyimagenet")
    assert (profile, settings.subset, settings.architectures, settings.width) == ("paper", None, {}, 64)
    assert (settings.batch_size, settings.inputs.image_size) == ((128, 32) if small else (32, 224))
    schedule = {
        "epochs": 200, "lr": 0.1, "milestones": (100, 150), "factor": 0.1,
        "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4,
    }  # fmt: skip
    assert settings.schedule.model_dump() | schedule == settings.schedule.model_dump()
    assert settings.methods["cs-kd"]["temperature"] == 4


@pytest.mark.parametrize(
    "name", ["cifar100", "tinyimagenet", "cub200", "dogs", "mit67", "merged", "imagenet", "digits"]
)
def test_recipe_has_the_hyperparameters_of_the_methods_in_its_grids(name):
    _, settings = load_settings(name)
    grids = [load_grid(grid, methods=["all"]) for grid in grid_names()]
    of_paper = [grid for grid in grids if grid.datasets != ["cifar100"]]  # also for datasets that replace the grid's
    for method in {method for grid in grids if grid in of_paper or name in grid.datasets for method in grid.methods}:
        assert settings.parameters_of(method).keys() == build_method(method).parameters().keys()


def test_composite_has_the_hyperparameters_of_its_parts_and_its_own_overrides():
    _, settings = load_settings("cub200", None, ("methods.mixup+cs-kd.cs-kd.lambda_cls=2",))
    assert settings.parameters_of("mixup+cs-kd") == {
        "mixup.alpha": 0.2, "cs-kd.temperature": 4, "cs-kd.lambda_cls": 2,
    }  # fmt: skip
    assert settings.parameters_of("cs-kd")["lambda_cls"] == 3


def test_overrides_change_the_profile():
    _, settings = load_settings("cifar100", "mini", ("schedule.epochs=7", "methods.cs-kd.temperature=1"))
    assert (settings.schedule.epochs, settings.schedule.milestones) == (7, (30, 45))
    assert settings.methods["cs-kd"] == {"temperature": 1, "lambda_cls": 1}


VALID = "data: {reader: cifar100}\ninputs: {image_size: 32, train: pad-crop}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {reader: cifar100\n", r"own\.yaml, line \d+ is not YAML"),
        ("data: {reader: cifar100}", r"'inputs': Field required"),
        ("data: {reader: merged}", r"own\.yaml \(paper\): 'data': 'parts' and 'reader: merged' go together"),
        ("data: {reader: merged, parts: [cub200]}", "'parts' must be two datasets or more, each once: cub200"),
        ("data: {reader: merged, parts: [cub200, cats]}", "'data': unknown part 'cats': choose from cifar100"),
        (VALID + "schedule: {epoch: 10}", r"own\.yaml \(paper\): unknown key 'schedule\.epoch' \(did you mean epoch"),
        (VALID + "schedule: {lr: 1e39}", r"'schedule\.lr': Input should be less than or equal to .*, not '1e39'"),
        (VALID + "methods: {cs-kd: {temp: 1}}", "cs-kd has no hyper-parameter 'temp'"),
        (VALID + "methods: {cs-kd: {temperature: -1}}", "temperature must be positive, not -1"),
        (VALID + "architectures: {resnet18: resnet9}", "unknown architecture 'resnet9'"),
        (VALID + "teacher: {method: adacos}", "logits of adacos cannot be targets"),
        (VALID + "teacher: {method: kd}", "teacher: kd needs a teacher itself"),
        (VALID.replace("cifar100", "image-folder"), "set 'data.folder'"),
        (VALID.replace("cifar100", "cifar100, folder: x"), "'data.folder' needs 'reader: image-folder'"),
    ],
)
def test_invalid_key_or_value_is_named_in_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(recipe, "RECIPES", tmp_path)
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        source_of("own", load_settings("own")[1].data)
    assert "\n" not in str(caught.value)
