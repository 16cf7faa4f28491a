"""Grids: their files, the paper's tables, and what a user selects."""

import pytest

from analysis.paper.published import published_numbers
from cskd.utils.errors import UserError
from experiments.config.grid import check_not_replaced, grid_names, load_grid, load_grid_settings


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


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"datasets": ["cifar10"]}, "unknown dataset 'cifar10': choose from cifar100"),
        ({"methods": ["cskd"]}, "unknown method 'cskd': choose from adacos"),
        ({"methods": ["adacos+mixup"]}, "adacos cannot be combined"),
        ({"methods": ["all", "cs-kd"]}, "methods: 'all' cannot be combined with other names: all cs-kd"),
        ({"architectures": ["vgg"]}, "unknown architecture 'vgg': choose from densenet121, densenet41"),
        ({"seeds": [1, 1]}, "seeds must be given, each once: 1 1"),
        ({"seeds": [0, -1]}, "seeds are from 0 to 1,000,000, not -1"),
    ],
)
def test_invalid_selections_are_named(selection, message):
    with pytest.raises(UserError, match=message):
        load_grid("table1", **selection)


def test_unknown_grid_lists_the_known_ones():
    with pytest.raises(UserError, match="unknown grid 'table9': choose from demo"):
        load_grid("table9")


def test_datasets_without_a_common_default_profile_are_rejected():
    grid = load_grid("table1", datasets=["cifar100", "digits"])
    with pytest.raises(UserError, match=r"profiles differ \(cifar100: paper, digits: demo\): give PROFILE"):
        load_grid_settings(grid, None, ())


def test_architecture_that_the_profile_replaces_is_rejected():
    profile, settings = load_grid_settings(load_grid("demo"), None, ())
    check_not_replaced(("resnet10",), profile, settings)
    with pytest.raises(UserError, match="digits: profile demo trains resnet10, not resnet18"):
        check_not_replaced(("resnet18",), profile, settings)
