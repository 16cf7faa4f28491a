"""The tables of pools that are not the paper's recipe: tuned, small and changed runs."""

import math

import pytest
from builders import MINI_SETTINGS, PAPER_SETTINGS, Grid

from analysis.load.pools import pools
from analysis.tables.model import Table
from analysis.tables.paper import paper_tables


def other_grids() -> list[Grid]:
    """Tuned, small and changed runs, which have no numbers of the paper beside them."""
    tuned = Grid("table1-tuned", "paper", PAPER_SETTINGS, tuned=True)
    tuned.train(tuned.cell("cifar100", "cross-entropy"), [24, 25, 26])
    tuned.train(tuned.cell("cifar100", "cs-kd", tuned="lambda_cls 2 of study s1"), [20, 21, 22])

    table1 = Grid("table1-mini", "mini", MINI_SETTINGS)
    for dataset in ("cub200", "cifar100"):
        table1.train(table1.cell(dataset, "cross-entropy", architecture="resnet10"), [50, 51, 52])
    table1.train(table1.cell("cifar100", "cs-kd", architecture="resnet10", hyperparameter_source="ours"), [45, 46, 47])
    table1.train(table1.cell("cifar100", "cross-entropy", architecture="densenet41"), [48])
    table4 = Grid("table4-mini", "mini", MINI_SETTINGS)
    table4.train(table4.cell("cifar100", "cross-entropy", architecture="resnet10"), [50, 51, 52])
    table4.train(table4.cell("cifar100", "cs-kd", architecture="densenet41", seeds="0"), [44])  # the teacher
    table4.train(table4.cell("cifar100", "kd", architecture="resnet10", seeds="0"), [47])

    custom = Grid("table1-mini-custom-1a2b3c", "mini", MINI_SETTINGS, overrides=("schedule.lr=0.5",))
    custom.train(custom.cell("cifar100", "cross-entropy", architecture="resnet10"), [50, 51, 52])
    custom.settings |= {"schedule.lr": "0.5"}  # of cs-kd alone
    custom.train(custom.cell("cifar100", "cs-kd", architecture="resnet10"), [45, 46, 47])

    return [tuned, table1, table4, custom]


@pytest.fixture(scope="module")
def tables() -> dict[str, dict[str, Table]]:
    found = pools([grid.experiment() for grid in other_grids()])
    return {("custom" if pool.overrides else pool.name): paper_tables(pool) for pool in found}


def test_other_pools_show_no_numbers_of_the_paper(tables):
    for of_pool in tables.values():
        for table in of_pool.values():
            assert not any(column.startswith("paper") or "difference" in column for column in table.frame)
            assert table.intro
            lines = {row[0].strip() for block in table.blocks for group in block.groups for row in group[1:]}
            assert lines <= {"our last epoch", "vs cross-entropy", "n"}
    assert tables["paper-tuned"]["table1"].intro[0].startswith("Tuned hyper-parameters")
    assert "Settings changed from the recipe: schedule.lr=0.5." in tables["custom"]["table1"].intro


def test_other_pools_have_their_own_datasets_and_networks(tables):
    mini = tables["mini"]
    assert list(mini) == ["table1", "table2", "table3", "table4", "table6"]  # table 5 is ImageNet only
    assert [column.header for column in mini["table1"].columns] == ["method", "cifar100", "cub200"]
    headings = {name: [block.heading for block in table.blocks] for name, table in mini.items()}
    assert headings["table1"] == ["Top-1 error (%), resnet10", "Top-1 error (%), densenet41"]
    # The teacher's network is not in table 4, although table 1 trained its cross-entropy.
    assert headings["table4"] == ["Top-1 error (%), resnet10"]


def test_tuned_values_are_marked_and_a_relative_change_needs_equal_settings(tables):
    table = tables["paper-tuned"]["table1"]
    marks = {group[0][0]: group[0][1] for group in table.blocks[0].groups}
    assert (marks["cs-kd"], marks["cross-entropy"]) == ("(tuned)", "")
    assert "Tuned: cifar100/resnet18/cs-kd: lambda_cls 2 of study s1." in table.notes
    frame = tables["custom"]["table1"].frame.set_index("method")
    assert (frame.last_mean["cs-kd"], math.isnan(frame.relative_change["cs-kd"])) == (46, True)
