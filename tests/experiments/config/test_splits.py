"""Settings that are incompatible with their dataset are rejected before anything is written."""

from functools import partial

import numpy as np
import pytest
from run_folders import digits_data

from cskd.utils.errors import UserError
from experiments.config.make_spec import make_spec
from experiments.config.recipe import load_settings
from experiments.config.splits import count_images, make_splits, make_validation

RESIZED = "inputs.train=resized-crop"


def count(data, *overrides):
    return count_images("digits", data, load_settings("digits", None, overrides)[1])


@pytest.mark.parametrize(
    ("size", "overrides", "message"),
    [
        (8, ["subset={classes: 11, images_per_class: 2}"], "digits: has 10 classes, not 11: lower 'subset.classes'"),
        (8, ["subset={classes: 3, images_per_class: 5}"], "lower 'subset.images_per_class'"),
        (
            8,
            ["subset={classes: 3, images_per_class: 3}", "batch_size=8"],
            "'batch_size': 8 leaves .* 9 training",
        ),
        (8, ["inputs.image_size=9"], "'inputs.image_size': pad-crop needs .* 9 x 9 px, .* sides of 8 px"),
        (None, [], "'inputs.image_size': pad-crop needs .* sides of 21 to 59 px"),
        (8, ["inputs.image_size=16", RESIZED], "'inputs.test_resize': missing, .* only 8 px, .* 16 px"),
    ],
)
def test_incompatible_settings_are_named_in_one_line(size, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        count(digits_data(40, size and (size, size)), *overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "overrides", "train_images"),
    [
        (8, ["subset={images_per_class: 2}"], 20),
        (8, ["subset={images_per_class: 9}"], 25),  # a class with fewer images keeps them all
        (8, ["inputs.image_size=16", RESIZED, "inputs.test_resize=16"], 25),
        (None, ["inputs.image_size=16", RESIZED], 25),
    ],
)
def test_compatible_settings_count_what_is_trained(size, overrides, train_images):
    data = digits_data(25, size and (size, size))
    assert count(data, *overrides) == (10, train_images, 20)
    profile, settings = load_settings("digits", None, tuple(overrides))
    splits = make_splits(make_spec("digits", data, profile, settings, "resnet10", "cs-kd", 0), data)
    assert (len(splits.train), len(splits.test)) == (train_images, 20)


@pytest.mark.parametrize(
    ("images", "overrides", "message"),
    [
        (42, ("batch_size=21",), "'batch_size': 21 leaves a last batch of one of the 22 training images of digits"),
        (10, (), "digits: class 0 has one training image"),
    ],
)
def test_validation_split_that_leaves_too_little_is_rejected(images, overrides, message):
    _, settings = load_settings("digits", None, overrides)
    with pytest.raises(UserError, match=message):
        make_validation("digits", digits_data(images), settings, 0)


@pytest.mark.parametrize(("draw", "same"), [("fixed", True), ("seed", False)])
def test_unused_images_are_validated_on_and_all_others_trained(draw, same):
    data, subset = digits_data(80), f"subset={{classes: 5, images_per_class: 3, draw: {draw}}}"
    profile, settings = load_settings("digits", None, (subset, "validate_on=unused"))
    digests = []
    for seed in (1000, 1001):
        validation, train_images, validation_images = make_validation("digits", data, settings, seed)
        assert (train_images, validation_images) == (15, 25)
        make = partial(make_spec, "digits", data, profile, settings, "resnet10", "cs-kd", seed)
        tuning, final = (make_splits(make(validation=chosen), data) for chosen in (validation, None))
        np.testing.assert_array_equal(tuning.train.indices, final.train.indices)
        np.testing.assert_array_equal(tuning.test.indices, final.unused.indices)
        digests.append(validation.indices_digest)
    assert (digests[0] == digests[1]) == same


def test_validation_on_unused_images_needs_some():
    _, settings = load_settings("digits", None, ("validate_on=unused",))
    with pytest.raises(UserError, match=r"'validate_on': digits trains on all images of its classes"):
        make_validation("digits", digits_data(40), settings, 0)


def test_teacher_of_a_drawn_subset_has_the_training_images_of_its_student():
    settings = load_settings("cifar100", "small")[1]
    student = make_spec("cifar100", digits_data(), "small", settings, "resnet18", "kd", seed=3)
    assert student.teacher.seed == 3
