"""Settings that do not go with a dataset are refused when a run is planned, by the name of the setting."""

import pytest
from arrays import random_split

from cskd.data.store import Dataset
from cskd.utils.errors import UserError
from experiments.config.grid import load_grid, load_grid_settings
from experiments.config.recipe import load_settings
from experiments.config.spec import make_validation
from experiments.runs.plan import make_plan


def digits(count: int = 40, size: tuple[int, int] | None = (8, 8)) -> Dataset:
    """Ten classes, in turn."""
    return Dataset(
        name="digits", classes=tuple("0123456789"), digest="d", complete=True, source="made up", short_side=8,
        train=random_split(count, 10, size), test=random_split(20, 10, size),
    )  # fmt: skip


def plan(data: Dataset, tmp_path, *overrides: str):
    grid = load_grid("demo", seeds=[0])
    profile, settings = load_grid_settings(grid, None, overrides)
    return make_plan("demo", grid, profile, settings, {"digits": data}, tmp_path / "runs", overrides=overrides)


RESIZED = "inputs.train=resized-crop"
UNFIT = [
    (digits(), ("subset={classes: 11, images_per_class: 2}",), "'subset': digits: 11 classes .* there are 10"),
    (digits(), ("subset={classes: 3, images_per_class: 5}",), "'subset': digits: 5 training images .* has 4"),
    (digits(41), ("batch_size=20",), "'batch_size': 20 leaves a last batch of one of the 41 training images of digits"),
    (digits(), ("batch_size=3",), "'batch_size': 3 leaves"),
    (digits(), ("subset={classes: 3, images_per_class: 3}", "batch_size=8"), "'batch_size': 8 .* 9 training images"),
    (digits(), ("inputs.image_size=9",), "'inputs.image_size': pad-crop .* 9 x 9 px throughout, .* have 8 px"),
    (digits(size=None), (), "'inputs.image_size': pad-crop needs .* have 21 to 59 px: take their size, or"),
    (digits(), ("inputs.image_size=16", RESIZED), "'inputs.test_resize': not given, .* of 8 px .* 16 px"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "overrides", "message"), UNFIT)
def test_what_does_not_fit_is_refused_by_name_and_nothing_is_written(tmp_path, data, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        plan(data, tmp_path, *overrides)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("data", "overrides"),
    [
        (digits(), ("subset={classes: 10, images_per_class: 4}",)),
        (digits(41), ("batch_size=21",)),
        (digits(), ("inputs.image_size=16", RESIZED, "inputs.test_resize=16")),
        (digits(size=None), ("inputs.image_size=16", RESIZED)),
    ],
)
def test_what_fits_is_planned(tmp_path, data, overrides):
    assert len(plan(data, tmp_path, *overrides)[1]) == 2


@pytest.mark.parametrize(
    ("count", "overrides", "message"),
    [
        (42, ("batch_size=21",), "'batch_size': 21 leaves a last batch of one of the 22 training images of digits"),
        (10, (), "'validation_fraction': digits: class 0 has one training image"),
        (40, ("subset={classes: 11, images_per_class: 1}",), "'subset': digits: 11 classes"),
    ],
)
def test_so_is_what_leaves_too_little_beside_a_validation_split(count, overrides, message):
    _, settings = load_settings("digits", None, overrides)
    with pytest.raises(UserError, match=message):
        make_validation("digits", digits(count), settings)


def test_a_subset_whose_classes_have_no_test_images_is_refused(tmp_path):
    data = digits()
    data.test.labels[:] = 0
    chosen = plan(digits(), tmp_path, "subset={classes: 2, images_per_class: 2}")[1][0]
    assert chosen.test_images == 4
    with pytest.raises(UserError, match=r"'subset.classes': digits has no test image of the classes that are chosen"):
        plan(data, tmp_path, "subset={classes: 2, images_per_class: 2}")
