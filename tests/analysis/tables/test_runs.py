"""What is said of runs beside their numbers: doubts, the table of runs, the settings."""

import dataclasses

import numpy as np
import pandas as pd
from made_up_pool import made_up_pool

from analysis.report.html import Link
from analysis.tables.runs import run_table, settings_table
from cskd import NUMERICS_VERSION

CE, CS = "cifar100/resnet18/cross-entropy", "cifar100/resnet18/cs-kd"


class Addresses:
    """A store that knows where runs are shown."""

    def address(self, experiment, run_id):
        return f"http://127.0.0.1:5000/{experiment}/{run_id}"


def pool_of():
    """Four runs, one of them failed; every metric of the three others is there."""
    pool = made_up_pool({CE: {0: 24.0, 1: 25.0}, CS: {0: 22.0, 1: "failed"}})
    runs = pool.runs
    done = runs.state == "done"
    for name in ("top5_error", "ece", "nll", "brier", "recall_at_1"):
        runs.loc[done, f"test/{name}"] = 1.0
    runs["params.numerics_version"] = str(NUMERICS_VERSION)
    return dataclasses.replace(pool, runs=runs)


def test_a_run_is_a_row_with_a_link():
    table = run_table(pool_of(), Addresses())
    [row, *others] = table.blocks[0].groups[0]
    assert (row[0], row[2], row[3]) == (f"{CE}/seed0", "done", "1111111111")
    assert isinstance(row[0], Link)
    assert row[0].address == f"http://127.0.0.1:5000/table1/{CE}:0"
    assert row[9] == "24.00"
    assert others[-1][2] == "failed"
    assert others[-1][9] == "\N{EN DASH}"
    assert "Energy: not measured; no machine here told it." in table.notes


def test_energy_has_a_column_where_a_machine_told_it():
    pool = pool_of()
    pool.runs["energy_kilojoules"] = [12.5, np.nan, np.nan, np.nan]
    table = run_table(pool, Addresses())
    place = [column.header for column in table.columns].index("energy (kJ)")
    assert [row[place] for row in table.blocks[0].groups[0]] == ["12.50", *["\N{EN DASH}"] * 3]


def test_settings_are_told_once_with_the_cells_that_have_them():
    pool = made_up_pool({CE: {0: 24.0}, CS: {0: 22.0}}, settings={CS: {"parameters.temperature": "4", "width": "16"}})
    rows = settings_table(pool).blocks[0].groups[0]
    assert rows == (
        ("parameters.temperature", "4", CS),
        ("schedule.epochs", "200", "all"),
        ("width", "64", CE),
        ("width", "16", CS),
    )
    assert isinstance(settings_table(pool).frame, pd.DataFrame)


def test_a_launched_grid_without_a_run_has_no_settings():
    assert settings_table(made_up_pool({CE: {}})).blocks == ()
