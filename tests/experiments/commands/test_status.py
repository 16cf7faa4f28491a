"""The status of a grid on narrow terminals, and of a grid that was not launched."""

import pytest

from experiments.commands import status
from experiments.runs.plan import Cell, Plan

DEMO = ["digits/resnet10/cross-entropy", "digits/resnet10/cs-kd"]
TABLE1 = ["cifar100/resnet18/cross-entropy", "tinyimagenet/resnet18/label-smoothing+cs-kd"]


def save_plan(runs_dir, names: list[str], seeds: int) -> None:
    cells = [
        Cell(
            name=name,
            key=name,
            order=0,
            comparable=True,
            runs={seed: f"{name.replace('/', '-')}-{seed}" for seed in range(seeds)},
        )
        for name in names
    ]
    Plan(experiment="demo", grid="demo", title="", profile="demo", cells=cells).save(runs_dir)


@pytest.mark.parametrize(
    ("names", "seeds", "title", "shown"),
    [
        (DEMO, 5, "demo: digits/resnet10", ["cross-entropy", "cs-kd"]),
        (TABLE1, 3, "demo: resnet18", ["cifar100/cross-entropy", "tinyimagenet/label-smoothing+cs-kd"]),
        (DEMO[:1], 5, "demo: digits/resnet10", ["cross-entropy"]),
    ],
)
def test_cells_are_distinguishable_on_80_columns(call, tmp_path, monkeypatch, names, seeds, title, shown):
    save_plan(tmp_path / "runs", names, seeds)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(status, "_describe", lambda folder, state: "done 12.34 %")
    exit_status, output, errors = call("experiments status")
    assert (exit_status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].strip() == title
    assert lines[1].endswith("┓")  # the table is not cut off
    assert "…" not in output
    assert [line.split()[1] for line in lines if "done" in line] == shown


def test_grid_that_was_not_launched_is_missing_and_an_unknown_one_an_error(call, tmp_path):
    message = f"table1 has not been launched into {tmp_path / 'runs'}: all its runs are missing\n"
    for _ in range(2):
        assert call("experiments status", "table1") == (0, message, "")
        exit_status, _, errors = call("experiments status", "table9")
        assert exit_status == 2
        assert errors.startswith("error: unknown grid 'table9'")
        save_plan(tmp_path / "runs", DEMO, 1)
