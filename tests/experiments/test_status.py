"""What status shows where there is little to show, and little room."""

import pytest

import experiments.commands.status
from experiments.runs.plan import Cell, Plan

DEMO = ["digits/resnet10/cross-entropy", "digits/resnet10/cs-kd"]
TABLE1 = ["cifar100/resnet18/cross-entropy", "tinyimagenet/resnet18/label-smoothing+cs-kd"]


def planned(runs_dir, names: list[str], seeds: int) -> None:
    def cell(name: str) -> Cell:
        runs = {seed: f"{name.replace('/', '-')}-{seed}" for seed in range(seeds)}
        return Cell(name=name, key=name, order=0, comparable=True, runs=runs)

    Plan(experiment="demo", grid="demo", title="", profile="demo", cells=[*map(cell, names)]).save(runs_dir)


@pytest.mark.parametrize(
    ("names", "seeds", "title", "shown"),
    [
        (DEMO, 5, "demo: digits/resnet10", ["cross-entropy", "cs-kd"]),
        (TABLE1, 3, "demo: resnet18", ["cifar100/cross-entropy", "tinyimagenet/label-smoothing+cs-kd"]),
        (DEMO[:1], 5, "demo: digits/resnet10", ["cross-entropy"]),
    ],
)
def test_cells_can_be_told_apart_on_80_columns(call, tmp_path, monkeypatch, names, seeds, title, shown):
    planned(tmp_path / "runs", names, seeds)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(experiments.commands.status, "_told", lambda folder, state: "done 12.34 %")
    status, output, errors = call("experiments status")
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].strip() == title
    assert lines[1].endswith("┓")  # of a table that is not cut
    assert "…" not in output
    assert [line.split()[1] for line in lines if "done" in line] == shown


def test_a_cell_of_a_name_that_finds_no_room_is_folded(call, tmp_path, monkeypatch):
    planned(tmp_path / "runs", [f"{'x' * 100}/resnet18/cs-kd", "y/resnet10/cs-kd-e"], 1)
    monkeypatch.setenv("COLUMNS", "80")
    output = call("experiments status")[1]
    assert output.count("x") == 100
    assert "missing" in output


def test_a_grid_that_was_not_launched_is_missing_and_an_unknown_one_an_error(call, tmp_path):
    message = f"table1 has not been launched into {tmp_path / 'runs'}: all of it is missing\n"
    for _ in range(2):
        assert call("experiments status", "table1") == (0, message, "")
        status, _, errors = call("experiments status", "table9")
        assert status == 2
        assert errors.startswith("error: unknown grid 'table9'")
        planned(tmp_path / "runs", DEMO, 1)
