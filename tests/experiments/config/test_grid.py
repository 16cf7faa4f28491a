"""Grids: their files, the paper's tables, and what a user selects."""

import pytest

from analysis.paper.published import published_numbers
from experiments.config.grid import grid_names, load_grid, load_grid_settings


@pytest.mark.parametrize("name", grid_names())
def test_every_grid_is_valid(name):
    load_grid_settings(load_grid(name), None, ())


@pytest.mark.parametrize("table", ["1", "2", "3", "4", "6"])
def test_grids_have_the_rows_of_the_papers_tables(table):
    numbers = published_numbers()
    rows = numbers[numbers.table == table]
    grid = load_grid(f"table{table}", methods=["all"])
    cells = {(architecture, method) for architecture in grid.architectures for method in grid.methods}
    assert cells == set(zip(rows.architecture, rows.method, strict=True))


def test_all_selects_the_full_table():
    part, full = load_grid("table1"), load_grid("table1", methods=["all"])
    assert (part.methods, part.architectures) == (["cross-entropy", "cs-kd"], ["resnet18"])
    assert (len(full.methods), full.architectures) == (6, ["resnet18", "densenet121"])
    assert load_grid("table1", methods=["all"], architectures=["resnet10"]).architectures == ["resnet10"]
    assert load_grid("table1", architectures=["all"]).methods == ["cross-entropy", "cs-kd"]
    assert load_grid("table3", methods=["all"]).methods == load_grid("table3").methods
