"""Two experiments, or two methods of one experiment, compared seed by seed."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from builders import make_experiment
from scipy import stats

from analysis.tables.paired import compare_experiments, compare_methods, paired_table
from cskd.utils.errors import UserError

CE, CS = (f"cifar100/resnet18/{method}" for method in ("cross-entropy", "cs-kd"))
ERRORS = {0: 20.0, 1: 22.0, 2: 21.5}
OTHERS = {2: 21.0, 0: 20.5, 1: 22.25, 7: 90.0}


def experiment(name, cells, settings=None, **all_cells):
    """Return an experiment whose run keys are its own. Keyword arguments are settings of all cells."""
    made = make_experiment(cells, name, "mini", settings or {cell: all_cells for cell in cells})
    return dataclasses.replace(made, runs=made.runs.assign(run_key=f"{name}/" + made.runs.run_key))


def test_common_seeds_are_paired_with_a_t_interval():
    first = experiment("one", {CS: ERRORS, CE: {0: 1.0}})
    second = experiment("two", {CS: OTHERS | {3: "failed"}})
    table, pairs = paired_table(compare_experiments(first, second))
    assert pairs.seed.tolist() == [0, 0, 1, 1, 2, 2]
    assert pairs[pairs.side == "second"].last_top1_error.tolist() == [20.5, 22.25, 21.0]
    (row,) = table.frame.to_dict("records")
    interval = stats.ttest_rel([20.5, 22.25, 21.0], [20.0, 22.0, 21.5]).confidence_interval(0.95)
    assert (row["method"], row["metric"], row["n"]) == ("cs-kd", "top1_error", 3)
    assert row["difference"] == pytest.approx(0.25 / 3)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert (row["mean_first"], row["mean_second"]) == pytest.approx((63.5 / 3, 63.75 / 3))


def test_verdict_has_the_metrics_direction_and_is_corrected_for_the_rows():
    def of(values, metric="top1_error"):
        runs = {seed: {metric: value} for seed, value in enumerate(values)}
        return experiment("one" if values[0] == 20 else "two", {CS: runs})

    def verdict(*values, metric="top1_error"):
        table, _ = paired_table(compare_experiments(of((20, 21, 22, 23), metric), of(values, metric)))
        assert table.blocks[0].groups[0][0][-1] == table.frame.verdict[0]
        return table.frame.verdict[0]

    assert verdict(17, 18.1, 19, 20.1) == "better"
    assert verdict(17, 18.1, 19, 20.1, metric="recall_at_1") == "worse"
    assert verdict(19.9, 21.2, 22, 22.8) == "equivalent"
    assert verdict(15, 25, 22, 19) == "undecided"


def test_different_settings_of_pairs_are_listed():
    birds = "cub200/resnet18/cs-kd"
    settings = {CS: {"precision": "fp32", "parameters.temperature": "4.0"}, birds: {"batch_size": "32"}}
    changed = {CS: {"parameters.temperature": "1.0"}, birds: {"batch_size": "16"}}
    one = experiment("one", {birds: ERRORS, CS: ERRORS}, settings)
    table, _ = paired_table(compare_experiments(one, experiment("two", {CS: ERRORS}, changed)))
    lead = "First: one. Second: two. They differ in: "
    assert table.intro == (f"{lead}parameters.temperature 4.0 / 1.0, precision fp32 / by default.",)
    table, _ = paired_table(compare_experiments(one, experiment("two", {CS: ERRORS, birds: ERRORS}, changed)))
    assert table.intro[0].startswith(f"{lead}batch_size 32 / 16, parameters.temperature 4.0 / 1.0")
    assert sorted(block.heading for block in table.blocks) == sorted([CS, birds])


def test_experiments_without_a_pair_are_errors():
    one = experiment("one", {CS: ERRORS})
    other = experiment("two", {CS: {7: 1.0}, CE: {0: 1.0}})
    with pytest.raises(UserError, match="one and two have no finished runs of the same dataset, architecture, method"):
        paired_table(compare_experiments(one, other))
    with pytest.raises(UserError, match=r"^one and two have the same runs: [^\n]*$"):
        paired_table(compare_experiments(one, dataclasses.replace(one, name="two")))


def test_runs_of_both_experiments_are_left_out():
    baseline, first, second = (experiment(name, {cell: ERRORS}) for name, cell in (("0", CE), ("one", CS), ("two", CS)))

    def with_baseline(side):
        cells, runs = (pd.concat([getattr(part, kind) for part in (baseline, side)]) for kind in ("cells", "runs"))
        return dataclasses.replace(side, cells=cells, runs=runs)

    table, _ = paired_table(compare_experiments(with_baseline(first), with_baseline(second)))
    assert [block.heading for block in table.blocks] == [CS]
    assert f"Left out, the same runs on both sides: {CE}." in table.notes


def test_methods_are_paired_within_each_dataset_and_architecture():
    birds = ["cub200/resnet18/cross-entropy", "cub200/resnet18/mine"]
    cells = {CE: ERRORS, CS: OTHERS, birds[0]: {0: 40.0, 1: 41.0}, birds[1]: {0: 39.0, 1: "failed", 2: 41.0}}
    settings = {CE: {"width": "64"}, CS: {"width": "16", "parameters.temperature": "4", "teacher": "1a"}}
    made = experiment("table1-mini", cells, settings)
    table, _ = paired_table(compare_methods(made, "cross-entropy", "cs-kd"))
    assert [block.heading for block in table.blocks] == ["cifar100/resnet18"]
    (row,) = table.frame.to_dict("records")
    values = ([side[seed] for seed in (0, 1, 2)] for side in (OTHERS, ERRORS))
    interval = stats.ttest_rel(*map(np.array, values)).confidence_interval(0.95)
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    lead = "First: cross-entropy. Second: cs-kd. Apart from the method, they differ in: "
    assert table.intro == (f"{lead}width 64 / 16.",)  # not in the method's own settings
    table, _ = paired_table(compare_methods(made, "cross-entropy", "mine"))
    (row,) = table.frame.to_dict("records")
    assert (row["dataset"], row["n"], row["difference"]) == ("cub200", 1, -1.0)
    assert table.blocks[0].groups[0][0][1:] == (
        "40.00",
        "39.00",
        "\N{MINUS SIGN}1.00",
        "",
        "1",
        "undecided",
    )  # no interval
    assert table.intro[0].endswith("they differ in: no tracked setting.")


def test_each_pair_of_methods_has_its_own_files(call_stored, tmp_path):
    status, output, _ = call_stored("analysis paired", "table1", "--methods", "cross-entropy", "cs-kd")
    assert status == 0
    assert f"Written to {tmp_path / 'results' / 'paired'}" in output
    names = {path.name for path in (tmp_path / "results" / "paired").iterdir()}
    assert names == {f"table1,cross-entropy,cs-kd{end}" for end in (".csv", ".md", ".tex", "-runs.csv")}
