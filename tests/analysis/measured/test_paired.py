"""Two experiments, or two methods of one, seed by seed."""

import dataclasses
import subprocess

import numpy as np
import pandas as pd
import pytest
from made_up_pool import made_up_experiment
from place import ROOT
from scipy import stats

from analysis.commands.paired import of_experiments, of_methods, paired_table, pairs_of
from cskd.utils.errors import UserError

CE, CS = (f"cifar100/resnet18/{method}" for method in ("cross-entropy", "cs-kd"))
ERRORS = {0: 20.0, 1: 22.0, 2: 21.5}
OTHERS = {2: 21.0, 0: 20.5, 1: 22.25, 7: 90.0}


def experiment(name, cells, **settings):
    return made_up(name, cells, {cell: settings for cell in cells})


def made_up(name, cells, settings):
    """An experiment whose runs are no other's."""
    made = made_up_experiment(cells, "mini", settings, name)
    return dataclasses.replace(made, runs=made.runs.assign(run_key=f"{name}/" + made.runs.run_key))


def test_the_difference_is_that_of_the_seeds_both_have_with_a_t_interval():
    sides = of_experiments(
        experiment("one", {CS: ERRORS, CE: {0: 1.0}}), experiment("two", {CS: OTHERS | {3: "failed"}})
    )
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
    table = paired_table(
        of_experiments(
            experiment("one", {CS: ERRORS, CE: ERRORS}, precision="fp32", compile="False", width="64"),
            experiment("two", {CE: OTHERS, CS: OTHERS}, precision="bf16", width="64"),
        )
    )
    assert sorted(block.heading for block in table.blocks) == [CE, CS]
    message = "First: one. Second: two. They differ in: compile False / by default, precision fp32 / bf16."
    assert table.intro == (message,)


def test_only_settings_of_pairs_are_told_and_hyper_parameters_are_among_them():
    birds = "cub200/resnet18/cs-kd"
    settings = {CS: {"batch_size": "128", "parameters.temperature": "4.0"}, birds: {"batch_size": "32"}}
    warmer = {CS: {"batch_size": "128", "parameters.temperature": "1.0"}, birds: {"batch_size": "16"}}
    one = made_up("one", {birds: ERRORS, CS: ERRORS}, settings)
    (message,) = paired_table(of_experiments(one, made_up("two", {CS: ERRORS}, warmer))).intro
    assert message == "First: one. Second: two. They differ in: parameters.temperature 4.0 / 1.0."
    (message,) = paired_table(of_experiments(one, made_up("two", {CS: ERRORS, birds: ERRORS}, warmer))).intro
    assert message.endswith("They differ in: batch_size 32 / 16, parameters.temperature 4.0 / 1.0.")


def test_one_seed_has_no_interval():
    sides = (experiment(name, {CS: {0: error}}) for name, error in (("one", 20.0), ("two", 21.0)))
    ((row,),) = paired_table(of_experiments(*sides)).blocks[0].groups
    assert row[1:] == ("20.00", "21.00", "+1.00", "", "1")


def test_experiments_without_a_common_seed_are_refused():
    sides = experiment("one", {CS: {0: 1.0}}), experiment("two", {CS: {1: 1.0}, CE: {0: 1.0}})
    message = "one and two have no finished runs of the same dataset, architecture, method and seed"
    with pytest.raises(UserError, match=message):
        pairs_of(of_experiments(*sides))


def test_experiments_of_the_very_same_runs_are_refused():
    one = experiment("one", {CS: ERRORS})
    with pytest.raises(UserError, match=r"^one and two have the very same runs: [^\n]*$"):
        paired_table(of_experiments(one, dataclasses.replace(one, name="two")))


def test_runs_that_are_on_both_sides_are_left_out_and_named():
    baseline, warm, cool = (experiment(name, {cell: ERRORS}) for name, cell in (("0", CE), ("one", CS), ("two", CS)))

    def joined(side):
        cells, runs = (pd.concat([getattr(each, kind) for each in (baseline, side)]) for kind in ("cells", "runs"))
        return dataclasses.replace(side, cells=cells, runs=runs)

    table = paired_table(of_experiments(joined(warm), joined(cool)))
    assert [block.heading for block in table.blocks] == [CS]
    assert f"The same runs on both sides, left out: {CE}." in table.notes


def test_two_methods_are_paired_by_seed_within_each_dataset_and_architecture():
    birds = ["cub200/resnet18/cross-entropy", "cub200/resnet18/mine"]
    cells = {CE: ERRORS, CS: OTHERS, birds[0]: {0: 40.0, 1: 41.0}, birds[1]: {0: 39.0, 1: "failed", 2: 41.0}}
    comparison = of_methods(experiment("table1-mini", cells), "cross-entropy", "cs-kd")
    table = paired_table(comparison)
    assert [block.heading for block in table.blocks] == ["cifar100/resnet18"]
    (row,) = table.frame.to_dict("records")
    both = {name: [side[seed] for seed in (0, 1, 2)] for name, side in (("ce", ERRORS), ("cs", OTHERS))}
    interval = stats.ttest_rel(both["cs"], both["ce"]).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert (row["first"], row["second"], row["n"]) == ("cross-entropy", "cs-kd", 3)
    table = paired_table(of_methods(experiment("table1-mini", cells), "cross-entropy", "mine"))
    (row,) = table.frame.to_dict("records")
    assert (row["dataset"], row["n"], row["difference"]) == ("cub200", 1, -1.0)


def test_settings_of_the_method_itself_are_no_difference_of_methods_but_others_are():
    settings = {CE: {"width": "64"}, CS: {"width": "16", "parameters.temperature": "4", "teacher": "1a"}}
    (message,) = paired_table(
        of_methods(made_up("one", {CE: ERRORS, CS: OTHERS}, settings), "cross-entropy", "cs-kd")
    ).intro
    lead = "First: cross-entropy. Second: cs-kd. Beside what makes the method, they differ in: "
    assert message == f"{lead}width 64 / 16."
    settings[CE]["width"] = "16"
    (message,) = paired_table(
        of_methods(made_up("one", {CE: ERRORS, CS: OTHERS}, settings), "cross-entropy", "cs-kd")
    ).intro
    assert message == f"{lead}no setting that is tracked."


def test_methods_that_cannot_be_compared_are_one_line():
    mini = experiment("mini", {CE: {0: 1.0}, CS: {1: 1.0}, "cifar100/resnet18/kd": {0: "failed"}})
    for names, message in (
        (("cross-entropy", "cskd"), "unknown method of mini 'cskd': choose from cross-entropy, cs-kd, kd"),
        (("kd", "cs-kd"), "kd has no finished run in mini: 'make status' says why"),
        (("cross-entropy", "cs-kd"), "cross-entropy and cs-kd have no finished runs of the same dataset, architecture"),
    ):
        with pytest.raises(UserError, match=f"^{message}[^\n]*$"):
            paired_table(of_methods(mini, *names))


@pytest.fixture
def tracked(call, store_uri, monkeypatch):
    """``call`` in the store of made-up runs."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    return call


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("table1", "table1"), "table1 against itself: give two experiments"),
        (("table1", "dema"), "unknown experiment 'dema': choose from demo, table1, table1-mini"),
        (("table1",), "table1: give two experiments, or one and two of its methods"),
        (("table1", "--methods", "a", "b", "c"), "table1 with methods a, b, c: give two experiments, or one and two"),
        (("table1", "demo", "--methods", "a", "b"), "table1, demo with methods a, b: give two experiments, or one and"),
        (("table1", "--methods", "cs-kd", "cs-kd"), "cs-kd against itself: give two methods"),
    ],
)
def test_what_cannot_be_compared_is_one_line(tracked, names, message):
    status, _, errors = tracked("analysis paired", *names)
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1


def test_make_passes_methods_on():
    """Nothing is run: --just-print."""
    command = ["make", "--just-print", "--assume-old=.venv/.ready", "paired", "EXPERIMENTS=demo", "METHODS=a b"]
    message = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert message.stdout.endswith("-m analysis paired demo --methods a b\n"), message.stderr


def test_each_pair_of_methods_has_files_of_its_own(tracked, tmp_path):
    for methods in (("cross-entropy", "cs-kd"), ("cs-kd", "cross-entropy")):
        status, output, _ = tracked("analysis paired", "table1", "--methods", *methods)
        assert status == 0
        assert f"Written to {tmp_path / 'results' / 'paired'}" in output
    names = {path.name for path in (tmp_path / "results" / "paired").iterdir()}
    stems = ("table1,cross-entropy,cs-kd", "table1,cs-kd,cross-entropy")
    assert names == {f"{stem}{end}" for stem in stems for end in (".csv", ".md", ".tex", "-runs.csv")}
