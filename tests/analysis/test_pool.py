"""Runs of one kind, put together from the experiments that have them."""

import dataclasses

import pandas as pd
from made_up_pool import made_up_experiment

from analysis.load.pools import pools

CE, CS, MIX = (f"cifar100/resnet18/{method}" for method in ("cross-entropy", "cs-kd", "mixup"))


def test_experiments_are_grouped_by_profile_and_changes_the_paper_first():
    made = [
        made_up_experiment({CE: {0: 1.0}}, profile, {}, name)
        for profile, name in (
            *[("mini", "table1-mini"), ("mini", "table1-mini-tuned"), ("paper", "table3"), ("demo", "demo")],
            *[("mini", "table3-mini"), ("paper", "table1-custom-1a2b3c"), ("paper", "train")],
        )
    ]
    found = {pool.name: [each.name for each in pool.experiments] for pool in pools(made)}
    assert found == {
        "paper": ["table3", "train"],
        "demo": ["demo"],
        "mini": ["table1-mini", "table3-mini"],
        "mini-tuned": ["table1-mini-tuned"],
        "paper-custom-1a2b3c": ["table1-custom-1a2b3c"],
    }


def test_a_cell_that_two_grids_share_is_there_once_with_all_its_seeds():
    first = made_up_experiment({CE: {0: 1.0, 1: 2.0}, CS: {0: 3.0}}, "paper", {}, "table1")
    second = made_up_experiment({CE: {1: 2.0, 2: 4.0}, MIX: {0: 5.0}}, "paper", {}, "table3")
    [pool] = pools([first, second])
    assert pool.cells.cell.tolist() == [CE, CS, MIX]
    assert pool.cells.grids.tolist() == [("table1", "table3"), ("table1",), ("table3",)]
    runs = pool.runs_of("cifar100", "resnet18", "cross-entropy")
    assert runs.seed.tolist() == [0, 1, 2]
    assert runs.experiment.tolist() == ["table1", "table1", "table3"]
    assert runs["test/top1_error"].tolist() == [1.0, 2.0, 4.0]


def test_a_finished_run_counts_before_an_unfinished_one_of_the_same_seed():
    first = made_up_experiment({CE: {0: "failed"}}, "paper", {}, "table1")
    second = made_up_experiment({CE: {0: 7.0}}, "paper", {}, "table3")
    [pool] = pools([first, second])
    assert (len(pool.runs), len(pool.done)) == (1, 1)


def test_of_two_settings_of_a_cell_the_latest_is_taken_and_the_other_named():
    first = made_up_experiment({CE: {0: 1.0, 1: 2.0}}, "paper", {}, "table1")
    second = made_up_experiment({CE: {0: 9.0}}, "paper", {}, "table3")
    later = second.runs.assign(cell_key="other", started=second.runs.started + pd.Timedelta("1h"))
    second = dataclasses.replace(second, cells=second.cells.assign(cell_key="other"), runs=later)
    [pool] = pools([first, second])
    assert pool.cells.cell_key.tolist() == ["other"]
    assert pool.runs["test/top1_error"].tolist() == [9.0]
    assert pool.notes == (f"{CE}: 2 runs with other settings than the latest: left out.",)


def test_a_failed_run_with_new_settings_does_not_push_out_finished_ones():
    first = made_up_experiment({CE: {0: 1.0, 1: 2.0}}, "paper", {}, "table1")
    second = made_up_experiment({CE: {0: "failed"}}, "paper", {}, "table3")
    later = second.runs.assign(cell_key="other", started=second.runs.started + pd.Timedelta("1h"))
    second = dataclasses.replace(second, cells=second.cells.assign(cell_key="other"), runs=later)
    [pool] = pools([first, second])
    assert pool.done["test/top1_error"].tolist() == [1.0, 2.0]
    assert pool.notes == (f"{CE}: 1 run with other settings than the latest: left out.",)
