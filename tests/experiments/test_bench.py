"""The cost of a step: every method is measured, beside cross-entropy and on the recipe's own kind of images."""

import csv

import pytest

from cskd.methods import METHODS, SUMS_OF_THE_PAPER
from experiments.bench import made_up
from experiments.recipe import load_settings


@pytest.mark.parametrize(("name", "size"), [("cifar100", (32, 32)), ("cub200", (375, 500)), ("digits", (8, 8))])
def test_made_up_images_are_of_the_recipes_kind_and_fill_the_steps(name, size):
    _, settings = load_settings(name)
    dataset = made_up(name, settings, steps=2)
    assert len(dataset.train) == 2 * settings.batch_size
    assert dataset.train.image(3).shape == (*size, 3)
    assert set(dataset.train.labels) == set(range(len(dataset.classes)))


def test_every_method_is_measured_against_cross_entropy(call, tmp_path):
    status, output, errors = call("experiments.bench", "--datasets", "digits", "--turns", "1", "--steps", "1")
    assert (status, errors) == (0, "")
    (path,) = tmp_path.rglob("steps.csv")
    with path.open(newline="") as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["cross-entropy", *(n for n in [*METHODS, *SUMS_OF_THE_PAPER] if n != "cross-entropy")]
    assert float(rows["cross-entropy"]["ratio"]) == 1
    for row in rows.values():
        assert float(row["ratio_min"]) <= float(row["ratio"]) <= float(row["ratio_max"])
        assert float(row["images_per_second"]) == pytest.approx(50 / float(row["seconds_per_step"]), rel=1e-3)
        assert row["architecture"] == "resnet10"
        assert row["method"] in output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--datasets", "digit"], "unknown dataset 'digit'"),
        (["--methods", "adacos+mixup"], "adacos cannot be combined"),
        (["--architectures", "vgg"], "unknown architecture 'vgg'"),
        (["--turns", "0"], "argument --turns: 0 is not a number from 1 to 1,000,000"),
    ],
)
def test_bad_input_is_one_line(call, arguments, told):
    status, _, errors = call("experiments.bench", *arguments)
    assert status == 2
    assert told in errors
    assert errors.count("\n") == 1
