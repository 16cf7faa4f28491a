"""Pools: which experiments share one, and which cells and runs it has."""

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
    assert {pool.name: [experiment.name for experiment in pool.experiments] for pool in pools(made)} == {
        "paper": ["c"],
        "demo": ["d"],
        "mini": ["a", "e"],
        "mini-tuned": ["b"],
        pool_name("paper", overrides=overrides): ["f", "g"],
    }
    assert pools(made)[0].name == "paper"


def test_pool_names_end_as_the_experiments_do():
    changes = ("schedule.epochs=200", "schedule.milestones=[100,150]")
    assert pool_name("mini", overrides=changes) == "mini-custom-6a6759"
    for tuned in (False, True):
        for overrides in ((), changes):
            name = pool_name("mini", tuned, overrides)
            assert experiment_name("table1", "mini", overrides, tuned) == f"table1-{name}"


def test_cell_of_two_grids_has_the_seeds_of_both():
    first = make_experiment({CE: {0: 1.0, 1: 2.0}, CS: {0: 3.0}}, "table1")
    second = make_experiment({CE: {1: 2.0, 2: 4.0}, MIX: {0: 5.0}}, "table3")
    [pool] = pools([first, second])
    assert pool.cells.cell.tolist() == [CE, CS, MIX]
    assert pool.cells.grids.tolist() == [("table1", "table3"), ("table1",), ("table3",)]
    runs = pool.runs_of("cifar100", "resnet18", "cross-entropy")
    assert runs.seed.tolist() == [0, 1, 2]
    assert runs.experiment.tolist() == ["table1", "table1", "table3"]
    assert runs["test/top1_error"].tolist() == [1.0, 2.0, 4.0]


def test_finished_run_counts_before_an_unfinished_one_of_the_same_seed():
    [pool] = pools([make_experiment({CE: {0: "failed"}}, "table1"), make_experiment({CE: {0: 7.0}}, "table3")])
    assert (len(pool.runs), len(pool.done)) == (1, 1)


def with_changed_settings(state, **metrics):
    """Return an experiment launched later, whose cell has the same name and another key."""
    grid = Grid("table3")
    run = grid.run(grid.cell("cifar100", "cross-entropy", version="-changed"), 0, metrics, state=state)
    run.started = START + 3_600_000
    return grid.experiment()


def test_latest_settings_of_a_cell_count_and_the_others_are_named():
    first = make_experiment({CE: {0: 1.0, 1: 2.0}}, "table1")
    [pool] = pools([first, with_changed_settings("done", top1_error=9.0)])
    assert pool.runs["test/top1_error"].tolist() == [9.0]
    assert pool.notes == (f"{CE}: 2 runs with other settings than the latest: left out.",)


def test_failed_run_with_new_settings_does_not_replace_finished_runs():
    first = make_experiment({CE: {0: 1.0, 1: 2.0}}, "table1")
    [pool] = pools([first, with_changed_settings("failed")])
    assert pool.done["test/top1_error"].tolist() == [1.0, 2.0]
    assert pool.notes == (f"{CE}: 1 run with other settings than the latest: left out.",)
