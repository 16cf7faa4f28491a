"""Pools: which experiments share one, and which cells and runs it has."""

import pytest
from builders import START, Grid, make_experiment

from analysis.load.pools import pool_name, pools
from experiments.runs.plan import experiment_name

CE, CS, MIX = (f"cifar100/resnet18/{method}" for method in ("cross-entropy", "cs-kd", "mixup"))


def test_experiments_share_a_pool_by_profile_tuning_and_overrides():
    overrides = ("width=8", "precision=fp32")
    facts = [
        *[("a", "mini", False, ()), ("b", "mini", True, ()), ("c", "paper", False, ()), ("d", "demo", False, ())],
        *[("e", "mini", False, ()), ("f", "paper", False, overrides), ("g", "paper", False, overrides[::-1])],
    ]
    made = [
        make_experiment({CE: {0: 1.0}}, name, profile, tuned=tuned, overrides=changes)
        for name, profile, tuned, changes in facts
    ]
    found = {pool.name: [experiment.name for experiment in pool.experiments] for pool in pools(made)}
    custom = pool_name("paper", overrides=overrides)
    assert found == {"paper": ["c"], "demo": ["d"], "mini": ["a", "e"], "mini-tuned": ["b"], custom: ["f", "g"]}
    assert next(iter(found)) == "paper"


def test_pool_names_end_as_the_experiments_do():
    changes = ("schedule.epochs=200", "schedule.milestones=[100,150]")
    assert pool_name("mini", overrides=changes) == "mini-custom-6a6759"
    for facts in ((False, ()), (True, ()), (False, changes), (True, changes)):
        tuned, overrides = facts
        assert experiment_name("table1", "mini", overrides, tuned) == f"table1-{pool_name('mini', *facts)}"


def test_cell_of_two_grids_has_the_seeds_of_both():
    first = make_experiment({CE: {0: 1.0, 1: 2.0}, CS: {0: "failed"}}, "table1")
    second = make_experiment({CE: {1: 2.0, 2: 4.0}, MIX: {0: 5.0}, CS: {0: 7.0}}, "table3")
    [pool] = pools([first, second])
    assert pool.cells.cell.tolist() == [CE, CS, MIX]
    assert pool.cells.grids.tolist() == [("table1", "table3"), ("table1", "table3"), ("table3",)]
    runs = pool.runs_of("cifar100", "resnet18", "cross-entropy")
    assert runs.seed.tolist() == [0, 1, 2]
    assert runs.experiment.tolist() == ["table1", "table1", "table3"]
    assert runs["test/top1_error"].tolist() == [1.0, 2.0, 4.0]
    assert pool.runs_of("cifar100", "resnet18", "cs-kd")["test/top1_error"].tolist() == [7.0]  # not the failed run


@pytest.mark.parametrize(
    ("state", "values", "note"),
    [
        ("done", [9.0], "2 runs with other settings than the latest"),
        ("failed", [1.0, 2.0], "1 run with other settings than the latest"),  # does not replace finished runs
    ],
)
def test_latest_settings_of_a_cell_count_and_the_others_are_named(state, values, note):
    grid = Grid("table3")
    run = grid.run(grid.cell("cifar100", "cross-entropy", version="-changed"), 0, {"top1_error": 9.0}, state=state)
    run.started = START + 3_600_000
    [pool] = pools([make_experiment({CE: {0: 1.0, 1: 2.0}}, "table1"), grid.experiment()])
    assert pool.done["test/top1_error"].tolist() == values
    assert pool.notes == (f"{CE}: {note}: left out.",)
