"""The table of runs and the table of settings."""

import numpy as np
from builders import make_pool

from analysis.tables.model import Link
from analysis.tables.runs import run_table, settings_table
from cskd.utils.numbers import ABSENT

CE, CS = "cifar100/resnet18/cross-entropy", "cifar100/resnet18/cs-kd"


class AddressOnly:
    """A store that only knows where the MLflow UI shows a run."""

    def address(self, experiment_id, run_id):
        return f"http://127.0.0.1:5000/#/experiments/{experiment_id}/runs/{run_id}"


def test_run_table_has_a_row_a_run_with_a_link_and_energy_if_any_run_has_it():
    def columns() -> dict[str, list[str]]:
        table = run_table(pool, AddressOnly())
        values = zip(*table.blocks[0].groups[0], strict=True)
        return dict(zip((column.header for column in table.columns), map(list, values), strict=True))

    pool = make_pool({CE: {0: 24.0, 1: 25.0}, CS: {0: 22.0, 1: "failed"}})
    found = columns()
    first = found["run"][0]
    assert (first, isinstance(first, Link)) == (f"{CE}/seed0", True)
    assert first.address.endswith(f"/runs/{CE}:0")
    assert found["state"] == ["done", "done", "done", "failed"]
    assert found["last Top-1 error (%)"] == ["24.00", "25.00", "22.00", ABSENT]
    assert (found["device"][0], found["threads"][0], found["commit"][0]) == ("cpu", "1", "1111111111aa")
    assert "energy (kJ)" not in found
    pool.runs["energy_kilojoules"] = [12.5, np.nan, np.nan, np.nan]
    assert columns()["energy (kJ)"] == ["12.50", ABSENT, ABSENT, ABSENT]


def test_settings_table_has_a_row_a_value_with_its_cells():
    pool = make_pool({CE: {0: 24.0}, CS: {0: 22.0}}, settings={CS: {"parameters.temperature": "4", "width": "16"}})
    assert settings_table(pool).blocks[0].groups[0] == (
        ("parameters.temperature", "4", CS),
        ("schedule.epochs", "200", "all"),
        ("width", "64", CE),
        ("width", "16", CS),
    )
    assert settings_table(make_pool({CE: {}})).blocks == ()  # launched, but no run yet
