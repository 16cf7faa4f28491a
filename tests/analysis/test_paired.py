"""Two experiments seed by seed."""

import numpy as np
import pytest
from made_up_pool import made_up_experiment
from scipy import stats

from analysis.paired import paired_table, pairs_of
from cskd.errors import UserError

CE, CS = (f"cifar100/resnet18/{method}" for method in ("cross-entropy", "cs-kd"))
ERRORS = {0: 20.0, 1: 22.0, 2: 21.5}
OTHERS = {2: 21.0, 0: 20.5, 1: 22.25, 7: 90.0}


def experiment(name, cells, **settings):
    return made_up_experiment(cells, "mini", {cell: settings for cell in cells}, name)


def test_the_difference_is_that_of_the_seeds_both_have_with_a_t_interval():
    sides = [experiment("one", {CS: ERRORS, CE: {0: 1.0}}), experiment("two", {CS: OTHERS | {3: "failed"}})]
    pairs = pairs_of(sides)
    assert pairs.seed.tolist() == [0, 0, 1, 1, 2, 2]
    assert pairs.side.tolist() == ["first", "second"] * 3
    assert pairs[pairs.side == "second"].last_top1_error.tolist() == [20.5, 22.25, 21.0]
    (row,) = paired_table(sides).frame.to_dict("records")
    differences = np.array([0.5, 0.25, -0.5])
    half = stats.t.ppf(0.975, 2) * differences.std(ddof=1) / np.sqrt(3)
    assert (row["method"], row["metric"], row["n"]) == ("cs-kd", "top1_error", 3)
    assert row["difference"] == pytest.approx(differences.mean())
    assert (row["low"], row["high"]) == pytest.approx((differences.mean() - half, differences.mean() + half))
    assert (row["mean_first"], row["mean_second"]) == pytest.approx((63.5 / 3, 63.75 / 3))


def test_each_cell_has_its_rows_and_what_differs_is_said():
    sides = [
        experiment("one", {CS: ERRORS, CE: ERRORS}, precision="fp32", compile="False", width="64"),
        experiment("two", {CE: OTHERS, CS: OTHERS}, precision="bf16", width="64"),
    ]
    table = paired_table(sides)
    assert sorted(block.heading for block in table.blocks) == [CE, CS]
    told = "First: one. Second: two. They differ in: compile False / by default, precision fp32 / bf16."
    assert table.intro == (told,)


def test_only_settings_of_pairs_are_told_and_hyper_parameters_are_among_them():
    birds = "cub200/resnet18/cs-kd"
    settings = {CS: {"batch_size": "128", "parameters.temperature": "4.0"}, birds: {"batch_size": "32"}}
    warmer = {CS: {"batch_size": "128", "parameters.temperature": "1.0"}, birds: {"batch_size": "16"}}
    sides = [
        made_up_experiment({birds: ERRORS, CS: ERRORS}, "mini", settings, "one"),
        made_up_experiment({CS: ERRORS}, "mini", warmer, "two"),
    ]
    (told,) = paired_table(sides).intro
    assert told == "First: one. Second: two. They differ in: parameters.temperature 4.0 / 1.0."
    sides[1] = made_up_experiment({CS: ERRORS, birds: ERRORS}, "mini", warmer, "two")
    (told,) = paired_table(sides).intro
    assert told.endswith("They differ in: batch_size 32 / 16, parameters.temperature 4.0 / 1.0.")


def test_one_seed_has_no_interval():
    sides = [experiment(name, {CS: {0: error}}) for name, error in (("one", 20.0), ("two", 21.0))]
    ((row,),) = paired_table(sides).blocks[0].groups
    assert row[1:] == ("20.00", "21.00", "+1.00", "", "1")


def test_experiments_without_a_common_seed_are_refused():
    with pytest.raises(UserError, match="one and two have no finished runs of the same"):
        pairs_of([experiment("one", {CS: {0: 1.0}}), experiment("two", {CS: {1: 1.0}, CE: {0: 1.0}})])


def test_an_experiment_against_itself_or_an_unknown_one_is_one_line(call):
    for names, told in ((("demo", "demo"), "give two experiments"), (("demo", "dema"), "dem")):
        status, _, errors = call("analysis.paired", *names)
        assert status == 2
        assert told in errors
        assert errors.count("\n") == 1
