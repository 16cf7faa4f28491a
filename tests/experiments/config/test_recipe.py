"""Recipes: all are valid, and an invalid one gives an error of one line that names the key."""

import pytest
import yaml

from cskd.methods import build_method
from cskd.utils.errors import UserError
from experiments.config import recipe
from experiments.config.datasets import parts_of, source_of
from experiments.config.grid import grid_names, load_grid
from experiments.config.recipe import RECIPES, load_settings, read_mapping, recipe_names

PROFILES = [
    (name, profile)
    for name in recipe_names()
    for profile in (None, *(yaml.safe_load((recipe.RECIPES / f"{name}.yaml").read_text()).get("profiles") or {}))
]


@pytest.mark.parametrize(("name", "profile"), PROFILES)
def test_every_recipe_and_profile_is_valid(name, profile):
    _, settings = load_settings(name, profile)
    for part, data in parts_of(name, settings.data).items():
        assert source_of(name, data).name == part
    assert max(settings.schedule.milestones, default=0) < settings.schedule.epochs
    for method, parameters in settings.methods.items():
        build_method(method, parameters)


@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet", "cub200", "dogs", "mit67"])
def test_paper_profile_has_the_papers_settings(name):
    profile, settings = load_settings(name)
    assert profile == "paper"
    assert settings.subset is None
    assert settings.architectures == {}
    assert settings.width == 64
    assert settings.batch_size == (128 if name in ("cifar100", "tinyimagenet") else 32)
    assert settings.inputs.image_size == (32 if name in ("cifar100", "tinyimagenet") else 224)
    schedule = {
        "epochs": 200, "lr": 0.1, "milestones": (100, 150), "factor": 0.1,
        "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4,
    }  # fmt: skip
    assert settings.schedule.model_dump() | schedule == settings.schedule.model_dump()
    assert settings.methods["cs-kd"]["temperature"] == 4


@pytest.mark.parametrize("name", ["cifar100", "tinyimagenet", "cub200", "dogs", "mit67", "merged", "digits"])
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
    assert settings.schedule.epochs == 7
    assert settings.schedule.milestones == (30, 45)
    assert settings.methods["cs-kd"] == {"temperature": 1, "lambda_cls": 1}


@pytest.fixture
def write_recipe(tmp_path, monkeypatch):
    """Writes the only recipe, ``own.yaml``."""
    monkeypatch.setattr(recipe, "RECIPES", tmp_path)

    def write(text: str) -> None:
        (tmp_path / "own.yaml").write_text(text)

    return write


VALID = "data: {reader: cifar100}\ninputs: {image_size: 32, train: pad-crop}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {reader: cifar100\n", r"own\.yaml, line \d+ is not YAML"),
        ("- a list", r"own\.yaml must hold keys and values"),
        ("data: {reader: merged}", r"own\.yaml \(paper\): 'data': 'parts' and 'reader: merged' go together"),
        ("data: {reader: merged, parts: [cub200]}", "'parts' must be two datasets or more, each once: cub200"),
        ("data: {reader: merged, parts: [cub200, cats]}", "'data': unknown part 'cats': choose from cifar100"),
        (VALID + "subset: {classes: 3}", r"'subset\.images_per_class': Field required"),
        (VALID + "epochs: 10", r"own\.yaml \(paper\): unknown key 'epochs' \(known: data, subset, inputs"),
        (VALID + "schedule: {epoch: 10}", r"unknown key 'schedule\.epoch' \(known: epochs, "),
        (VALID + "schedule: {lr: -1}", r"'schedule\.lr': Input should be greater than 0"),
        (VALID + "schedule: {milestones: [5, 3]}", r"'schedule\.milestones': must be ascending"),
        ("data: {reader: cifar100}", r"'inputs': Field required"),
        (VALID + "profiles: 3", "'profiles' must map names"),
        (VALID + "methods: {cskd: {temperature: 1}}", r"own\.yaml \(paper\): unknown method 'cskd'"),
        (VALID + "architectures: {resnet18: resnet9}", "unknown architecture 'resnet9'"),
        (VALID + "teacher: {method: adacos}", "logits of adacos cannot be targets"),
        (VALID + "from_paper: {cs-kd: [resnet-18]}", "unknown architecture 'resnet-18'"),
        (VALID + "teacher: {method: kd}", "teacher: kd needs a teacher itself"),
        (VALID + "methods: {cs-kd: {temp: 1}}", "cs-kd has no hyper-parameter 'temp'"),
        (VALID + "methods: {cs-kd: {temperature: -1}}", "temperature must be positive, not -1"),
        (VALID.replace("cifar100", "image-folder"), "set 'data.folder'"),
        (VALID.replace("cifar100", "cifar100, folder: x"), "'data.folder' needs 'reader: image-folder'"),
        (VALID.replace("cifar100", "cifar1000"), "unknown dataset 'cifar1000'"),
    ],
)
def test_invalid_key_or_value_is_named_in_one_line(write_recipe, text, message):
    write_recipe(text)
    with pytest.raises(UserError, match=message) as caught:
        source_of("own", load_settings("own")[1].data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_validation_split_of_a_subset_leaves_no_small_last_batch(name):
    """A last batch of a few images makes some runs diverge."""
    profiles = [None, *read_mapping(RECIPES / f"{name}.yaml").get("profiles", {})]
    for settings in (load_settings(name, profile)[1] for profile in profiles):
        if settings.subset is None:
            continue
        images = settings.subset.images_per_class
        classes = settings.subset.classes or sum(
            source_of(name, data).num_classes for data in parts_of(name, settings.data).values()
        )
        remaining = classes * (images - max(1, round(settings.validation_fraction * images)))
        last_batch = remaining % settings.batch_size
        assert last_batch == 0 or last_batch >= settings.batch_size / 8
